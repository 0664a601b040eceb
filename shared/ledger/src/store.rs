//! The port: what a place that keeps the ledger can do. Each method is one atomic write, all or nothing under its
//! condition, or one consistent read. What follows from a refused condition is not decided here.

use domain::{
    Account, AccountChange, Admission, Claim, Digest, HoldId, Meter, Opening, Receipt, Release, ReportRow,
    RowFate, Seal, Timestamp, UserId,
};
use std::{error::Error, fmt, future::Future};

/// Into how many keys the index of dirty meters is split, so that no one partition takes every user's first write.
pub const SHARDS: u8 = 16;

/// The most meters in one [`Page`].
pub const PAGE_MAX: u16 = 100;

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

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) MeterKey);

/// Dirty meters of one shard, at most [`PAGE_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The meters.
    pub keys: Vec<MeterKey>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<Cursor>,
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

    /// Changes an account and the meter it points to.
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

    /// Notes when the pending row was first sent.
    fn note_attempt(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
    ) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Puts a row's report item unless it is there; answers the fate that then stands.
    fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
    ) -> impl Future<Output = Result<RowFate, StoreError>> + Send;

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
