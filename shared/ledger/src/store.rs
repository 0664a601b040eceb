//! The port: what a place that keeps the ledger can do. Each method is one atomic write, all or nothing under its
//! condition, or one consistent read. What follows from a refused condition is not decided here.

use crate::page::{Cursor, Page, ReceiptCursor, ReceiptPage, ReportCursor, ReportPage, UserCursor, UserPage};
use domain::{
    Account, AccountChange, Admission, Attempt, Billing, Claim, CustomerId, Day, Denial, Digest, EventId,
    HoldId, Lease, Level, Meter, Opening, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal,
    SliceAnswer, SliceAsk, Timestamp, Tokens, UserId,
};
use std::{error::Error, fmt, future::Future};

/// Into how many keys the index of dirty meters is split, and that of accounts, so that no one partition takes every user's
/// first write.
pub const SHARDS: u8 = 16;

/// Which meter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterKey {
    /// Whose.
    pub user: UserId,
    /// The start of its period.
    pub period_start: Timestamp,
}

impl MeterKey {
    /// The key of this meter.
    pub fn of(meter: &Meter) -> Self {
        Self { user: meter.user.clone(), period_start: meter.period.start() }
    }
}

/// An account and the meter that it points to, as one read saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The account.
    pub account: Account,
    /// Its current meter.
    pub meter: Meter,
}

/// Whether a conditional write was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Changed {
    /// Its condition held, and it was made.
    Yes,
    /// Its condition did not hold, and nothing changed.
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

/// What an admission's write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmitAnswer {
    /// Written; the meter as it is now.
    Admitted(Box<Meter>),
    /// Not written: a fact was stale. The meter as it is, if there is one.
    Stale(Option<Box<Meter>>),
}

/// Why nobody can say that an admission was written.
#[derive(Debug)]
pub enum AdmitFailure {
    /// It was certainly not written.
    NotWritten(StoreError),
    /// It may have been, or may yet be: it has to be voided.
    Unknown(StoreError),
}

/// What went wrong with the store, as far as it matters to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It did not answer, or its answer was lost.
    Unanswered,
    /// It asked for fewer requests.
    Throttled,
    /// Another transaction was under way on the same item.
    Conflict,
    /// It refused the request as such: permissions, a missing table, a defect of ours.
    Rejected,
    /// What it keeps cannot be understood.
    Corrupt,
    /// Facts went on changing faster than decisions could be made.
    Contended,
}

/// The store could not do what was asked.
pub struct StoreError {
    /// Which operation.
    pub operation: &'static str,
    /// What kind of failure.
    pub fault: Fault,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// A failure of `operation`.
    pub fn new(operation: &'static str, fault: Fault) -> Self {
        Self { operation, fault, source: None }
    }

    /// The same, because of `source`.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            Fault::Unanswered => "the store did not answer",
            Fault::Throttled => "the store is throttling",
            Fault::Conflict => "another transaction was under way",
            Fault::Rejected => "the store rejected the request",
            Fault::Corrupt => "a stored item cannot be understood",
            Fault::Contended => "the facts kept changing",
        };
        write!(f, "{}: {what}", self.operation)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("operation", &self.operation)
            .field("fault", &self.fault)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A place that keeps the ledger.
///
/// Every method fails with a [`StoreError`] when the store cannot do it; but for [`Store::admit`], each may then have
/// been done or not, and may be asked for again.
pub trait Store: Clone + Send + Sync + 'static {
    /// The account of a user and the meter it points to, as last written; none for a user never seen.
    fn load(&self, user: &UserId) -> impl Future<Output = Result<Option<Loaded>, StoreError>> + Send;

    /// One meter, as last written.
    fn meter(&self, key: &MeterKey) -> impl Future<Output = Result<Option<Meter>, StoreError>> + Send;

    /// Creates a meter, points the account to it and closes its predecessor; or creates account and first meter.
    fn open(&self, opening: &Opening) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Changes an account and the meter it points to, if both are as they were read and the meter is within the change's bound.
    fn change_account(
        &self,
        change: &AccountChange,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Adds a hold. Sent once: a repeat under the same id could settle twice.
    fn admit(&self, admission: &Admission) -> impl Future<Output = Result<AdmitAnswer, AdmitFailure>> + Send;

    /// Puts a receipt unless one of its id is there; answers the one that then stands.
    fn put_receipt(&self, receipt: &Receipt) -> impl Future<Output = Result<Receipt, StoreError>> + Send;

    /// The receipt of this id; none while its request is under way.
    fn receipt(
        &self,
        key: &MeterKey,
        id: &HoldId,
    ) -> impl Future<Output = Result<Option<Receipt>, StoreError>> + Send;

    /// Removes a hold and moves its meter by what its receipt says; `No`: the hold is gone.
    fn release(&self, release: &Release) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Moves what is settled into a pending row.
    fn seal(&self, key: &MeterKey, seal: &Seal) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Notes that the pending row is about to be sent under the lease of this fence, when it was for the first time and when for
    /// the last: whoever asks about it, and sends nothing, says `at` as it was. One
    /// that lands late is refused where a higher fence has attempted the row, or where the row is another.
    fn note_attempt(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        fence: u64,
    ) -> impl Future<Output = Result<Attempt, StoreError>> + Send;

    /// Puts a row's report item unless it is there; answers the fate that then stands.
    fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
        note: Option<&str>,
    ) -> impl Future<Output = Result<RowFate, StoreError>> + Send;

    /// One report item, as last written.
    fn report(
        &self,
        key: &MeterKey,
        seq: u64,
    ) -> impl Future<Output = Result<Option<Report>, StoreError>> + Send;

    /// Moves a report item from parked to forgiven. The meter goes on counting it as parked.
    ///
    /// It may land late: then the item is parked still, and this is what somebody decided; or it was moved on, and no way
    /// leads back to parked.
    fn forgive(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        note: &str,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Moves a report item from parked to retried, and its tokens from the meter's parked ones into `row`, which becomes
    /// pending.
    ///
    /// It may land late: the meter's `seq` is then still that of `row`, so that nothing was sealed since, and the item parked
    /// still, so that nobody has retried or forgiven it; or nothing changes.
    fn retry(
        &self,
        key: &MeterKey,
        seq: u64,
        row: &ReportRow,
        at: Timestamp,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Moves a report item of so many tokens from accepted to parked, for Stripe has rejected afterwards what it took; the meter
    /// counts them as parked. `No` also where the row is pending still: whoever drops it counts what the item then says.
    ///
    /// It may land late: the item is accepted still, which it never is again once it was parked; or nothing changes.
    fn reject(
        &self,
        key: &MeterKey,
        seq: u64,
        tokens: Tokens,
        at: Timestamp,
        note: &str,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Puts the receipt and the report item of usage that was counted and reported before this ledger began, moves the
    /// meter by them, and notes how the rest of its period is billed.
    ///
    /// It may land late: receipt and item must both be absent, and the meter's `seq` the report's, so that it is made once
    /// under these names, and nothing was sealed since.
    fn import(
        &self,
        key: &MeterKey,
        receipt: &Receipt,
        report: &Report,
        billing: Billing,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Drops the pending row, if it still is the one of this `seq`.
    fn drop_row(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Clears a meter's dirty mark, if there is nothing to do.
    fn clear(&self, key: &MeterKey) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// A page of the dirty meters of one shard, `0..SHARDS`. It may lag behind the writes.
    fn dirty(
        &self,
        shard: u8,
        from: Option<&Cursor>,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// A page of the users of one shard, `0..SHARDS`: everyone who has an account. It may lag behind the writes.
    fn users(
        &self,
        shard: u8,
        from: Option<&UserCursor>,
    ) -> impl Future<Output = Result<UserPage, StoreError>> + Send;

    /// A user's meters whose period began at `from` or later, the newest first, at most [`METERS_MAX`](crate::METERS_MAX).
    fn meters(
        &self,
        user: &UserId,
        from: Timestamp,
    ) -> impl Future<Output = Result<Vec<Meter>, StoreError>> + Send;

    /// A page of a user's receipts: of the period that began at `of`, or of all.
    fn receipts(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReceiptCursor>,
    ) -> impl Future<Output = Result<ReceiptPage, StoreError>> + Send;

    /// A page of a user's report items: of the period that began at `of`, or of all.
    fn reports(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReportCursor>,
    ) -> impl Future<Output = Result<ReportPage, StoreError>> + Send;

    /// Puts a denial in the place of an older one of its kind and period.
    fn put_denial(&self, denial: &Denial) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// The latest denial of each kind in the period that began at `period_start`, the latest first.
    fn denials(
        &self,
        user: &UserId,
        period_start: Timestamp,
    ) -> impl Future<Output = Result<Vec<Denial>, StoreError>> + Send;

    /// Notes that an event of Stripe's was dealt with, unless that was noted.
    fn put_event(
        &self,
        id: &EventId,
        kind: &str,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Whether that was noted, as last written.
    fn event(&self, id: &EventId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Takes the lease of a customer until `until`, unless somebody has it whose time is not out at `now`; none: somebody has.
    /// `owner` is an id of this one taking: asked for again under it, the answer is the lease that was taken.
    ///
    /// It may land late: it is then out of time at the same `until`; it is refused where somebody took the lease since whose
    /// time is not out at the same `now`; and nobody's fence is ever lower than one before.
    fn take_lease(
        &self,
        customer: &CustomerId,
        owner: &HoldId,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<Option<Lease>, StoreError>> + Send;

    /// Gives a lease back, if it is still the one that is had.
    fn drop_lease(&self, lease: &Lease) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Leases a slice of a day's budget, unless more than its ceiling would then be leased. Sent once: if the answer is lost, so
    /// may be the slice. Landing late, it leases for the same day, within the same ceiling.
    fn lease_slice(&self, ask: &SliceAsk) -> impl Future<Output = Result<SliceAnswer, StoreError>> + Send;

    /// Notes that the owner was told of a level of a day's budget, unless a higher one was noted.
    fn note_told(
        &self,
        day: Day,
        pool: Pool,
        level: Level,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Puts a claim unless one stands on its key that is not forgotten by `now`; answers the one that stands then.
    fn put_claim(
        &self,
        claim: &Claim,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Claim>, StoreError>> + Send;

    /// Puts a claim in the place of the one on its key, if that one is running and `owner`'s.
    fn change_claim(
        &self,
        claim: &Claim,
        owner: &HoldId,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Removes a claim, if it is running and still of the same owner.
    fn drop_claim(&self, claim: &Claim) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// The claim on a key, as last written.
    fn claim(
        &self,
        user: &UserId,
        key: Digest,
    ) -> impl Future<Output = Result<Option<Claim>, StoreError>> + Send;

    /// Notes that a user wants a request to end. Whether there is such a request is not asked.
    fn put_stop(
        &self,
        user: &UserId,
        id: &HoldId,
        forget_at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether that was noted, as last written.
    fn is_stopped(&self, user: &UserId, id: &HoldId)
    -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The shard of a user's dirty meters: FNV-1a (Fowler, Noll, Vo; 32 bit) of the id, so that it is the same in every
/// version of the code.
pub(crate) fn shard_of(user: &UserId) -> u8 {
    let hash = user
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u8::try_from(hash % u32::from(SHARDS)).unwrap_or(0)
}
