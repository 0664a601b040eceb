//! The owner's budgets as one instance keeps to them: what a call to the provider can cost at the most is reserved before it is
//! made, from slices of the day's budgets, and what it did not cost goes back.
//!
//! The only place that leases. It must never let a call be made that no slice covers, and never keep more than one slice of each
//! budget. What is reserved and forgotten counts as spent: whoever is not sure what a call has cost need do nothing.

use bus::{Announcement, BudgetLevel, Bus};
use domain::{Account, Budget, NanoUsd, Part, Pool, Slice, SliceAnswer, SliceAsk, Take, Timestamp, UserId};
use edge::{drain::Drain, log::chain, problem::Problem};
use ledger::{Known, Ledger, Store, Unavailable};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};

/// How many leases one request may ask for in one pool: each refusal says how much is left, so that the next asks for that.
const LEASES_MAX: u32 = 8;
/// How long a request waits for another one that is leasing: as long as the store may take.
const LEASE_WAIT: Duration = Duration::from_secs(7);

/// The most that the provider may cost in a day of UTC; zero: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// For everybody together.
    pub everyone: NanoUsd,
    /// For all users without a subscription together.
    pub trial: NanoUsd,
}

/// Why nothing was reserved. It consumed nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReserved {
    /// The budget has too little left.
    #[error("the day's budget of {} is used up", pool.as_str())]
    UsedUp {
        /// Whose.
        pool: Pool,
        /// When the next day begins.
        resets_at: Timestamp,
    },
    /// The store cannot answer, so nobody may spend.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Others were leasing for too long, or too often.
    #[error("no slice could be leased in time")]
    OutOfTime,
}

impl NotReserved {
    pub(crate) fn problem(&self, now: Timestamp) -> Problem {
        match self {
            Self::UsedUp { pool, resets_at } => Problem::budget_used_up(*pool, *resets_at, now),
            Self::Unavailable(_) | Self::OutOfTime => Problem::store_unavailable(),
        }
    }
}

/// One instance's slice of one budget.
struct Purse {
    slice: Mutex<Slice>,
    /// Whose turn it is to lease: two that lease at once would lease twice.
    leasing: tokio::sync::Mutex<()>,
}

impl Purse {
    fn new(pool: Pool, ceiling: NanoUsd) -> Arc<Self> {
        let slice = Mutex::new(Slice::new(Budget { pool, ceiling }));
        Arc::new(Self { slice, leasing: tokio::sync::Mutex::default() })
    }

    fn slice(&self) -> MutexGuard<'_, Slice> {
        self.slice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The budgets. Clones share their slices.
#[derive(Clone)]
pub(crate) struct Budgets<S> {
    ledger: Ledger<S>,
    everyone: Arc<Purse>,
    trial: Arc<Purse>,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Tells the owner; none: the log alone does.
    pub(crate) bus: Option<Bus>,
}

impl<S: Store> Budgets<S> {
    pub(crate) fn new(
        ledger: Ledger<S>,
        ceilings: Ceilings,
        now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Self {
        let everyone = Purse::new(Pool::Everyone, ceilings.everyone);
        let trial = Purse::new(Pool::Trial, ceilings.trial);
        Self { ledger, everyone, trial, now, bus: None }
    }

    /// What is leased and not taken.
    #[cfg(test)]
    pub(crate) fn left(&self, pool: Pool) -> NanoUsd {
        self.purse(pool).slice().left()
    }

    fn purse(&self, pool: Pool) -> &Purse {
        match pool {
            Pool::Trial => &self.trial,
            Pool::Everyone => &self.everyone,
        }
    }

    /// Reserves `cost_most` for a request of this user. What the owner is told meanwhile is told on `drain`, until `by` at the
    /// latest.
    pub(crate) async fn reserve(
        &self,
        user: &UserId,
        cost_most: NanoUsd,
        drain: &Drain,
        by: Instant,
    ) -> Result<Allowance<S>, NotReserved> {
        let known = self.ledger.known_account(user, (self.now)()).await?;
        let pools = Pool::of(known.account());
        let mut allowance =
            Allowance { budgets: self.clone(), pools, parts: Vec::new(), drain: drain.clone(), by };
        match allowance.cover(cost_most).await {
            // Whoever has paid since is not turned away for what is remembered.
            Err(NotReserved::UsedUp { pool: Pool::Trial, .. }) if matches!(known, Known::Remembered(_)) => {
                let account = self.ledger.account(user, (self.now)()).await?;
                allowance.pools = Pool::of(&account);
                allowance.cover(cost_most).await?;
            }
            covered => covered?,
        }
        Ok(allowance)
    }

    /// Takes from the slice of one pool, and leases first where that has too little.
    async fn take(&self, pool: Pool, cost: NanoUsd, drain: &Drain, by: Instant) -> Result<Part, NotReserved> {
        let purse = self.purse(pool);
        let take = || purse.slice().take(cost, (self.now)());
        match take() {
            Take::Taken(part) => return Ok(part),
            Take::UsedUp { resets_at } => return Err(NotReserved::UsedUp { pool, resets_at }),
            Take::Lease(_) => {}
        }
        let _turn = timeout(LEASE_WAIT, purse.leasing.lock()).await.map_err(|_| NotReserved::OutOfTime)?;
        for _ in 0..LEASES_MAX {
            let ask = match take() {
                Take::Taken(part) => return Ok(part),
                Take::UsedUp { resets_at } => return Err(NotReserved::UsedUp { pool, resets_at }),
                Take::Lease(ask) => ask,
            };
            let answer = self.ledger.lease_slice(&ask).await?;
            purse.slice().answered(&ask, &answer);
            self.tell(&ask, &answer, drain, by);
        }
        Err(NotReserved::OutOfTime)
    }

    /// Tells the owner of the levels that are reached and were not told of. Nobody waits for it but the end of the invocation; that
    /// it was told is noted afterwards, so that whoever leases next tells what was lost.
    fn tell(&self, ask: &SliceAsk, answer: &SliceAnswer, drain: &Drain, by: Instant) {
        let SliceAsk { pool, day, ceiling, .. } = *ask;
        let leased = answer.spending().leased;
        let levels = answer.spending().untold(ceiling);
        let Some(highest) = levels.last().copied() else { return };
        tracing::warn!(alarm = "budget", pool = pool.as_str(), %day, percent = highest.percent(),
            leased_nano_usd = leased.get(), ceiling_nano_usd = ceiling.get(), "a day's budget is being used up");
        let Some(bus) = self.bus.clone() else { return };
        let ledger = self.ledger.clone();
        drain.spawn(async move {
            let level = |level| Announcement::Budget(BudgetLevel { pool, day, level, leased, ceiling });
            let announcements: Vec<_> = levels.into_iter().map(level).collect();
            let telling = async {
                if bus.announce(&announcements).await == 0
                    && let Err(error) = ledger.note_told(day, pool, highest).await
                {
                    tracing::warn!(
                        error = chain(&error),
                        "that the owner was told is not noted; it is told again"
                    );
                }
            };
            if timeout_at(by, telling).await.is_err() {
                tracing::warn!("no time to tell the owner; whoever leases next does");
            }
        });
    }
}

/// What is reserved for one request: for one call to the provider at a time.
#[must_use = "what is not given back counts as spent"]
pub(crate) struct Allowance<S> {
    budgets: Budgets<S>,
    pools: &'static [Pool],
    /// Of each pool the same amount; empty: nothing is reserved.
    parts: Vec<(Pool, Part)>,
    drain: Drain,
    by: Instant,
}

impl<S: Store> Allowance<S> {
    /// Reserves what the next call can cost, unless as much is reserved and was not spent.
    pub(crate) async fn cover(&mut self, cost_most: NanoUsd) -> Result<(), NotReserved> {
        if self.reserved() >= cost_most {
            return Ok(());
        }
        self.unused();
        for pool in self.pools {
            match self.budgets.take(*pool, cost_most, &self.drain, self.by).await {
                Ok(part) => self.parts.push((*pool, part)),
                Err(error) => {
                    self.unused();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Moves what is reserved to the pools of the account that the request was admitted on: it may have begun to pay, or have
    /// ceased to, since it was last heard of.
    pub(crate) async fn follow(&mut self, account: &Account) -> Result<(), NotReserved> {
        let pools = Pool::of(account);
        if pools == self.pools {
            return Ok(());
        }
        let reserved = self.reserved();
        self.unused();
        self.pools = pools;
        self.cover(reserved).await
    }

    /// The call that was covered may have cost all of it.
    pub(crate) fn spent(&mut self) {
        self.parts.clear();
    }

    /// The call that was covered has cost so much.
    pub(crate) fn used(&mut self, cost: NanoUsd) {
        if cost > self.reserved() {
            tracing::warn!(
                cost_nano_usd = cost.get(),
                reserved_nano_usd = self.reserved().get(),
                "a call cost more than was reserved for it"
            );
        }
        for (pool, part) in self.parts.drain(..) {
            self.budgets.purse(pool).slice().give_back(part, cost);
        }
    }

    /// No call was made, or it cost nothing.
    pub(crate) fn unused(&mut self) {
        self.used(NanoUsd::ZERO);
    }

    fn reserved(&self) -> NanoUsd {
        self.parts.first().map_or(NanoUsd::ZERO, |(_, part)| part.amount())
    }
}
