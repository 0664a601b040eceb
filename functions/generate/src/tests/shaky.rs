//! A store that can be switched off.

use domain::{
    AccountChange, Admission, Meter, Opening, Receipt, Release, ReportRow, RowFate, Seal, Timestamp, UserId,
};
use ledger::{
    AdmitAnswer, AdmitFailure, Changed, Cursor, Fault, Loaded, MemoryStore, MeterKey, Page, Store, StoreError,
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

impl Store for ShakyStore {
    async fn load(&self, user: &UserId) -> Result<Option<Loaded>, StoreError> {
        self.up("load")?.load(user).await
    }

    async fn meter(&self, key: &MeterKey) -> Result<Option<Meter>, StoreError> {
        self.up("meter")?.meter(key).await
    }

    async fn open(&self, opening: &Opening) -> Result<Changed, StoreError> {
        self.up("open")?.open(opening).await
    }

    async fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError> {
        self.up("change account")?.change_account(change).await
    }

    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        self.up("admit").map_err(AdmitFailure::NotWritten)?.admit(admission).await
    }

    async fn put_receipt(&self, receipt: &Receipt) -> Result<Receipt, StoreError> {
        self.up("put receipt")?.put_receipt(receipt).await
    }

    async fn release(&self, release: &Release) -> Result<Changed, StoreError> {
        self.up("release")?.release(release).await
    }

    async fn seal(&self, key: &MeterKey, seal: &Seal) -> Result<Changed, StoreError> {
        self.up("seal")?.seal(key, seal).await
    }

    async fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp) -> Result<Changed, StoreError> {
        self.up("note attempt")?.note_attempt(key, seq, at).await
    }

    async fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
    ) -> Result<RowFate, StoreError> {
        self.up("put report")?.put_report(key, row, fate, at).await
    }

    async fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Result<Changed, StoreError> {
        self.up("drop row")?.drop_row(key, row, fate).await
    }

    async fn clear(&self, key: &MeterKey) -> Result<Changed, StoreError> {
        self.up("clear")?.clear(key).await
    }

    async fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Result<Page, StoreError> {
        self.up("dirty")?.dirty(shard, from).await
    }
}
