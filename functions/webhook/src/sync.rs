//! Brings an account in line with a subscription, as Stripe has it now.
//!
//! Two deliveries may work on one account at a time, each with its own answer of Stripe's, and the older answer must not be
//! written last. So the account is read *before* Stripe is asked, and what follows from the answer is written only if the
//! account is still as it was read; else everything is asked again. It is written even where nothing follows: the account's
//! new `rev` is what refuses a write that an older answer led to and that is still on its way.

use crate::decide::{self, Entitlement};
use domain::{Account, SubscriptionId, Timestamp, UserId};
use edge::plans::PlanBook;
use ledger::{ChangeError, Ledger, Store, Unavailable};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use stripe::{Stripe, Subscription, SubscriptionError};

/// How often everything is asked again when the account changed meanwhile.
const ROUNDS_MAX: u32 = 4;

/// What became of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synced {
    /// It is in line with the subscription, now or already.
    InLine,
    /// The subscription names no user.
    NoUser,
}

/// Why an account may not be in line.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Stripe did not show the subscription.
    #[error("the subscription could not be fetched")]
    Stripe(#[from] SubscriptionError),
    /// The ledger did not show the account.
    #[error("the account could not be read")]
    Read(#[from] Unavailable),
    /// The ledger did not take the change.
    #[error("the account could not be changed")]
    Write(#[from] ChangeError),
    /// Account or subscription went on changing.
    #[error("the account kept changing")]
    Contended,
}

/// The accounts. Clones share connections.
#[derive(Clone)]
pub struct Accounts<S> {
    ledger: Ledger<S>,
    stripe: Stripe,
    book: Arc<PlanBook>,
}

impl<S: Store> Accounts<S> {
    /// The accounts that this ledger keeps, of this Stripe's customers.
    pub fn new(ledger: Ledger<S>, stripe: Stripe, book: PlanBook) -> Self {
        Self { ledger, stripe, book: Arc::new(book) }
    }

    /// Brings the account of this subscription's user in line with it.
    ///
    /// # Errors
    /// When Stripe or the ledger does not answer, or both went on changing: Stripe has to deliver again.
    pub async fn sync(&self, id: &SubscriptionId, now: Timestamp) -> Result<Synced, SyncError> {
        // This answer says whose account it is about, and nothing else: it is older than the reading of the account.
        let Some(user) = self.stripe.subscription(id).await?.user else { return Ok(Synced::NoUser) };
        for _ in 0..ROUNDS_MAX {
            if self.round(&user, id, now).await? {
                return Ok(Synced::InLine);
            }
        }
        Err(SyncError::Contended)
    }

    /// One try; false: the account or its user changed meanwhile.
    async fn round(&self, user: &UserId, id: &SubscriptionId, now: Timestamp) -> Result<bool, SyncError> {
        let read = self.ledger.account(user, now).await?;
        let subscription = self.stripe.subscription(id).await?;
        if subscription.user.as_ref() != Some(user) {
            return Ok(false);
        }
        self.complain(&subscription);
        let outdone = self.is_outdone(&read, &subscription).await?;
        if outdone {
            tracing::info!(%user, subscription = %id, "another subscription of this account prevails");
        }
        let moved = AtomicBool::new(false);
        let change = |account: &Account| {
            let as_read = account.rev == read.rev;
            moved.store(!as_read, Ordering::Relaxed);
            let decided = || decide::decide(account, &subscription, &self.book, now).filter(|_| !outdone);
            as_read.then(|| decided().unwrap_or_else(|| account.clone()))
        };
        let after = self.ledger.change_account(user, now, change).await?;
        let moved = moved.load(Ordering::Relaxed);
        if !moved {
            tracing::info!(%user, subscription = %id, plan = %after.plan, "the account is in line");
        }
        Ok(!moved)
    }

    /// Whether the account's own subscription is another one, in force at Stripe, and the younger of the two.
    async fn is_outdone(&self, account: &Account, by: &Subscription) -> Result<bool, SubscriptionError> {
        let Some(rival) = decide::rival(account, by, &self.book) else { return Ok(false) };
        match self.stripe.subscription(rival).await {
            Ok(rival) => Ok(decide::rival_prevails(&rival, by, &self.book)),
            Err(SubscriptionError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says what a person should look at.
    fn complain(&self, subscription: &Subscription) {
        let id = &subscription.id;
        match decide::entitlement(subscription, &self.book) {
            Entitlement::Unknown => {
                let keys = &subscription.lookup_keys;
                tracing::error!(subscription = %id, ?keys, "a subscription whose prices are not in the plan book");
            }
            Entitlement::Undecided => {
                tracing::info!(subscription = %id, status = ?subscription.status, "nothing follows from this status");
            }
            Entitlement::To(_) | Entitlement::Ended => {}
        }
    }
}
