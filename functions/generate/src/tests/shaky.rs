//! A store that can be switched off.

use domain::{
    AccountChange, Admission, Attempt, Billing, Claim, CustomerId, Day, Denial, Digest, EventId, HoldId,
    Lease, Level, Meter, Opening, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal, SliceAnswer,
    SliceAsk, Timestamp, Tokens, UserId,
};
use ledger::{
    AdmitAnswer, AdmitFailure, Changed, Cursor, Fault, Loaded, MemoryStore, MeterKey, Page, ReceiptCursor,
    ReceiptPage, ReportCursor, ReportPage, Store, StoreError, UserCursor, UserPage,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone)]
pub(super) struct ShakyStore {
    inner: MemoryStore,
    down: Arc<AtomicBool>,
}

impl ShakyStore {
    pub(super) fn new(inner: MemoryStore) -> Self {
        Self { inner, down: Arc::default() }
    }

    pub(super) fn inner(&self) -> &MemoryStore {
        &self.inner
    }

    pub(super) fn switch_off(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    fn up(&self, operation: &'static str) -> Result<&MemoryStore, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            Err(StoreError::new(operation, Fault::Rejected))
        } else {
            Ok(&self.inner)
        }
    }
}

/// Every operation asks first whether the store is there.
macro_rules! if_up {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(async fn $name(&self $(, $arg: $type)*) -> Result<$answer, StoreError> {
            self.up(stringify!($name))?.$name($($arg),*).await
        })*
    };
}

impl Store for ShakyStore {
    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        self.up("admit").map_err(AdmitFailure::NotWritten)?.admit(admission).await
    }

    if_up! {
        fn load(&self, user: &UserId) -> Option<Loaded>;
        fn meter(&self, key: &MeterKey) -> Option<Meter>;
        fn open(&self, opening: &Opening) -> Changed;
        fn change_account(&self, change: &AccountChange) -> Changed;
        fn put_receipt(&self, receipt: &Receipt) -> Receipt;
        fn receipt(&self, key: &MeterKey, id: &HoldId) -> Option<Receipt>;
        fn release(&self, release: &Release) -> Changed;
        fn seal(&self, key: &MeterKey, seal: &Seal) -> Changed;
        fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp, fence: u64) -> Attempt;
        fn put_report(&self, key: &MeterKey, row: &ReportRow, fate: RowFate, at: Timestamp, note: Option<&str>) -> RowFate;
        fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Changed;
        fn clear(&self, key: &MeterKey) -> Changed;
        fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Page;
        fn put_claim(&self, claim: &Claim, now: Timestamp) -> Option<Claim>;
        fn change_claim(&self, claim: &Claim, owner: &HoldId) -> Changed;
        fn drop_claim(&self, claim: &Claim) -> Changed;
        fn claim(&self, user: &UserId, key: Digest) -> Option<Claim>;
        fn put_stop(&self, user: &UserId, id: &HoldId, forget_at: Timestamp) -> ();
        fn is_stopped(&self, user: &UserId, id: &HoldId) -> bool;
        fn report(&self, key: &MeterKey, seq: u64) -> Option<Report>;
        fn forgive(&self, key: &MeterKey, seq: u64, at: Timestamp, note: &str) -> Changed;
        fn retry(&self, key: &MeterKey, seq: u64, row: &ReportRow, at: Timestamp) -> Changed;
        fn reject(&self, key: &MeterKey, seq: u64, tokens: Tokens, at: Timestamp, note: &str) -> Changed;
        fn import(&self, key: &MeterKey, receipt: &Receipt, report: &Report, billing: Billing) -> Changed;
        fn users(&self, shard: u8, from: Option<&UserCursor>) -> UserPage;
        fn meters(&self, user: &UserId, from: Timestamp) -> Vec<Meter>;
        fn receipts(&self, user: &UserId, of: Option<Timestamp>, before: Option<&ReceiptCursor>) -> ReceiptPage;
        fn reports(&self, user: &UserId, of: Option<Timestamp>, before: Option<&ReportCursor>) -> ReportPage;
        fn put_denial(&self, denial: &Denial) -> Changed;
        fn denials(&self, user: &UserId, period_start: Timestamp) -> Vec<Denial>;
        fn put_event(&self, id: &EventId, kind: &str, at: Timestamp, forget_at: Timestamp) -> Changed;
        fn event(&self, id: &EventId) -> bool;
        fn take_lease(&self, customer: &CustomerId, owner: &HoldId, now: Timestamp, until: Timestamp) -> Option<Lease>;
        fn drop_lease(&self, lease: &Lease) -> Changed;
        fn lease_slice(&self, ask: &SliceAsk) -> SliceAnswer;
        fn note_told(&self, day: Day, pool: Pool, level: Level) -> Changed;
    }
}
