//! Brings an account in line with a subscription, as Stripe has it now.
//!
//! Two deliveries may work on one account at a time, each with its own answer of Stripe's, and the older answer must not be
//! written last. So the account is read *before* Stripe is asked, and what follows from the answer is written only if the
//! account is still as it was read; else everything is asked again. It is written even where nothing follows: the account's
//! new `rev` is what refuses a write that an older answer led to and that is still on its way.

use crate::decide::{self, Oddity, Seen};
use domain::{Account, CustomerId, SubscriptionId, Timestamp, UserId};
use edge::plans::PlanBook;
use ledger::{ChangeError, Ledger, Store, Unavailable};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use stripe::{FetchError, LatestInvoice, Stripe};

/// How often everything is asked again when the account changed meanwhile. Of those that meet at one account each round lets one
/// through, and a purchase is told by half a dozen events at once.
const ROUNDS_MAX: u32 = 12;
/// How many of a customer's other subscriptions are looked at when the account's own has ended.
const NEXT_MAX: usize = 5;

/// What became of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    /// It is in line with the subscription, now or already.
    InLine(Box<InLine>),
    /// The subscription names no user, and has a price of ours.
    NoUser,
    /// The subscription names no user, and is to something else that is sold under this account of Stripe's.
    Foreign,
    /// Stripe has no such subscription, or has it no more.
    Gone,
}

/// An account that is in line with a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InLine {
    /// Whose.
    pub user: UserId,
    pub(crate) seen: Seen,
}

impl InLine {
    /// The customer who pays.
    pub(crate) fn customer(&self) -> &CustomerId {
        &self.seen.subscription.customer
    }

    /// The newest invoice of a subscription that has ended, if that is not final yet: what was used last may still be on it.
    pub(crate) fn last_draft(&self) -> Option<&LatestInvoice> {
        let subscription = &self.seen.subscription;
        let ended = subscription.ended_at.is_some();
        subscription.latest_invoice.as_ref().filter(|invoice| ended && invoice.is_draft)
    }
}

/// Why an account may not be in line.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Stripe did not show the subscription.
    #[error("the subscription could not be fetched")]
    Stripe(#[from] FetchError),
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

    /// Brings the account of this subscription's user in line with it; or, where it was the account's and has ended, with the
    /// youngest that its customer has besides. `told_at` is when Stripe told of a change of its prices, if it did, and else `now`.
    ///
    /// # Errors
    /// When Stripe or the ledger does not answer, or both went on changing: Stripe has to deliver again.
    pub async fn sync(
        &self,
        id: &SubscriptionId,
        told_at: Timestamp,
        now: Timestamp,
    ) -> Result<Synced, SyncError> {
        // This answer says whose account it is about, and nothing else: it is older than the reading of the account.
        let Some(subscription) = there_is(self.stripe.subscription(id).await)? else {
            return Ok(Synced::Gone);
        };
        let ours = decide::is_ours(&subscription, &self.book);
        let Some(user) = subscription.user else {
            return Ok(if ours { Synced::NoUser } else { Synced::Foreign });
        };
        for _ in 0..ROUNDS_MAX {
            let read = self.ledger.account(&user, now).await?;
            let Some(seen) = self.look(id).await? else { return Ok(Synced::Gone) };
            if seen.subscription.user.as_ref() != Some(&user) {
                continue;
            }
            let outdone = self.is_outdone(&read, &seen).await?;
            if outdone {
                tracing::info!(%user, subscription = %id, "another subscription of this account prevails");
            }
            let ends = read.subscription.as_ref() == Some(id) && decide::is_over(&seen, &self.book);
            let next = if ends { self.next_of(&seen.subscription.customer, id, &user).await? } else { None };
            let decide = |account: &Account| {
                let told_at = if next.is_some() { now } else { told_at };
                let follows = next.as_ref().unwrap_or(&seen);
                decide::decide(account, follows, &self.book, told_at, now).filter(|_| !outdone)
            };
            if self.write(&user, &read, now, decide).await? {
                return Ok(Synced::InLine(Box::new(InLine { user, seen })));
            }
        }
        Err(SyncError::Contended)
    }

    /// Brings an account in line after its customer was deleted, with whose subscriptions Stripe has ended.
    ///
    /// # Errors
    /// As [`Accounts::sync`].
    pub(crate) async fn sync_without(
        &self,
        customer: &CustomerId,
        user: &UserId,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        for _ in 0..ROUNDS_MAX {
            let read = self.ledger.account(user, now).await?;
            let Some(id) = read.subscription.as_ref().filter(|_| read.customer.as_ref() == Some(customer))
            else {
                tracing::info!(%user, %customer, "a customer was deleted who pays for nothing of this account");
                return Ok(());
            };
            let seen = self.look(id).await?;
            let ends = seen.as_ref().is_none_or(|seen| decide::is_over(seen, &self.book));
            let next = if ends { self.next_of(customer, id, user).await? } else { None };
            let decide = |account: &Account| match next.as_ref().or(seen.as_ref()) {
                None => Some(decide::end(account, now, &self.book)),
                Some(follows) => decide::decide(account, follows, &self.book, now, now),
            };
            if self.write(user, &read, now, decide).await? {
                return Ok(());
            }
        }
        Err(SyncError::Contended)
    }

    /// What an owner should look at; a subscription that may be new is held against its customer's others.
    ///
    /// # Errors
    /// When Stripe does not answer.
    pub(crate) async fn oddities(&self, of: &InLine, new: bool) -> Result<Vec<Oddity>, FetchError> {
        let others = if new {
            there_is(self.stripe.subscriptions_of(of.customer()).await)?.unwrap_or_default()
        } else {
            Vec::new()
        };
        Ok(decide::oddities(&of.seen, &others, &self.book))
    }

    /// The subscription that an account has next, of those of the customer whose subscription has ended; none: it has none.
    ///
    /// Its own events may all have come before, when the other one prevailed.
    async fn next_of(
        &self,
        customer: &CustomerId,
        ended: &SubscriptionId,
        user: &UserId,
    ) -> Result<Option<Seen>, FetchError> {
        let others = there_is(self.stripe.subscriptions_of(customer).await)?.unwrap_or_default();
        for other in decide::next_of(&others, ended, user, &self.book).into_iter().take(NEXT_MAX) {
            let Some(seen) = self.look(&other.id).await? else { continue };
            let in_force = decide::is_in_force(&seen.subscription, &self.book);
            if in_force && seen.subscription.user.as_ref() == Some(user) {
                tracing::info!(%user, subscription = %other.id, %ended, "a subscription of the same customer follows");
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// The subscription as it is now; none: Stripe has none.
    async fn look(&self, id: &SubscriptionId) -> Result<Option<Seen>, FetchError> {
        let Some(subscription) = there_is(self.stripe.subscription(id).await)? else { return Ok(None) };
        let unpaid_since =
            if decide::is_behind(&subscription) { self.stripe.unpaid_since(id).await? } else { None };
        Ok(Some(Seen { subscription, unpaid_since }))
    }

    /// Writes what is decided, or the account's new `rev` alone; false: the account is not as it was read.
    async fn write(
        &self,
        user: &UserId,
        read: &Account,
        now: Timestamp,
        decide: impl Fn(&Account) -> Option<Account> + Send + Sync,
    ) -> Result<bool, SyncError> {
        // The part of a month under the plan before has a meter of its own even where nothing was asked for under it: the next invoice
        // has a line for it.
        let of_the_same =
            |after: &Account| after.subscription == read.subscription && after.plan != read.plan;
        if decide(read).as_ref().is_some_and(of_the_same) {
            self.ledger.roll(user, now).await?;
        }
        let moved = AtomicBool::new(false);
        let change = |account: &Account| {
            let as_read = account.rev == read.rev;
            moved.store(!as_read, Ordering::Relaxed);
            as_read.then(|| decide(account).unwrap_or_else(|| account.clone()))
        };
        let after = self.ledger.change_account(user, now, change).await?;
        let moved = moved.load(Ordering::Relaxed);
        if !moved {
            tracing::info!(%user, plan = %after.plan, "the account is in line");
        }
        Ok(!moved)
    }

    /// Whether the account's own subscription is another one, in force at Stripe, and the younger of the two.
    async fn is_outdone(&self, account: &Account, by: &Seen) -> Result<bool, FetchError> {
        let Some(rival) = decide::rival(account, by, &self.book) else { return Ok(false) };
        let rival = there_is(self.stripe.subscription(rival).await)?;
        Ok(rival.is_some_and(|rival| decide::rival_prevails(&rival, &by.subscription, &self.book)))
    }
}

/// What Stripe has, if it has it.
fn there_is<T>(answer: Result<T, FetchError>) -> Result<Option<T>, FetchError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(FetchError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
