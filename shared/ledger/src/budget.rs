//! What the ledger does for the owner's budgets: it leases slices of a day, and says whose account a request is before it is
//! admitted. How much is leased, and what is taken from it, is the domain's to say and the leasing function's to remember.

use crate::{
    protocol::{Ledger, Unavailable, insistently},
    store::{Changed, Loaded, Store},
};
use domain::{Account, Day, Level, Placement, Pool, SliceAnswer, SliceAsk, Timestamp, UserId};

/// How often a slice is asked for. Each try whose answer is lost may have leased one, which is then lost for its day.
const LEASE_TRIES_MAX: u32 = 2;
/// How long the item of a day that is over is kept, in milliseconds: for an owner who wants to look.
const SPENDING_KEPT_MS: u64 = 90 * 86_400_000;

/// From when on the item of a day may be deleted.
pub(crate) fn forgotten_at(day: Day) -> Timestamp {
    day.end().plus_ms(SPENDING_KEPT_MS)
}

/// An account, and how well it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// As it is at this moment.
    Read(Account),
    /// As it was when this instance last heard of it.
    Remembered(Account),
}

impl Known {
    /// The account.
    pub const fn account(&self) -> &Account {
        match self {
            Self::Read(account) | Self::Remembered(account) => account,
        }
    }
}

impl<S: Store> Ledger<S> {
    /// Leases a slice of a day's budget, or says how much of it is leased.
    ///
    /// # Errors
    /// When the store cannot answer. Nothing may then be spent on the slice, which may be leased all the same.
    pub async fn lease_slice(&self, ask: &SliceAsk) -> Result<SliceAnswer, Unavailable> {
        Ok(insistently(LEASE_TRIES_MAX, || self.store.lease_slice(ask)).await?)
    }

    /// Notes that the owner was told of a level of a day's budget. `No`: that, or a higher one, was noted before.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn note_told(&self, day: Day, pool: Pool, level: Level) -> Result<Changed, Unavailable> {
        Ok(self.store.note_told(day, pool, level).await?)
    }

    /// A user's account: as remembered, or as it is, and then remembered for the admission that follows; or what it would be if
    /// the user were seen for the first time now. Creates nothing.
    ///
    /// # Errors
    /// When the store cannot answer.
    pub async fn known_account(&self, user: &UserId, now: Timestamp) -> Result<Known, Unavailable> {
        if let Some(Loaded { account, .. }) = self.cache.get(user) {
            return Ok(Known::Remembered(account));
        }
        let Some(loaded) = self.store.load(user).await? else {
            return Ok(Known::Read(self.first_seen(user, now)));
        };
        let account = loaded.account.clone();
        self.cache.put(loaded);
        Ok(Known::Read(account))
    }
    /// The start of the period that a request of `now` would be charged to, by what is remembered of its user; none: of somebody
    /// whom nobody remembers. Asks nothing of the store.
    pub fn remembered_period(&self, user: &UserId, now: Timestamp) -> Option<Timestamp> {
        let Loaded { account, meter } = self.cache.get(user)?;
        match domain::place(&account, &meter, now) {
            Placement::Current => Some(meter.period.start()),
            Placement::Open(opening) => Some(opening.meter.period.start()),
            Placement::OutOfCalendar => None,
        }
    }
}
