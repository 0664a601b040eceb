//! The port in memory: the domain's own transitions under one lock. For tests and simulation, which may look at everything in
//! it, and plant what should not be there; it forgets everything.

use crate::store::{
    AdmitAnswer, AdmitFailure, Changed, Cursor, Loaded, MeterKey, PAGE_MAX, Page, Store, StoreError, shard_of,
};
use domain::{
    Account, AccountChange, Admission, Claim, Digest, HoldId, Meter, Opening, Receipt, Release, ReportRow,
    RowFate, Seal, Timestamp, UserId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Everything that a store in memory keeps.
#[derive(Debug, Default)]
pub struct Kept {
    /// Accounts by user.
    pub accounts: BTreeMap<UserId, Account>,
    /// Meters by user and period.
    pub meters: BTreeMap<MeterKey, Meter>,
    /// Receipts by their meter and id.
    pub receipts: BTreeMap<(MeterKey, HoldId), Receipt>,
    /// Report items by their meter and number.
    pub reports: BTreeMap<(MeterKey, u64), (ReportRow, RowFate)>,
    /// Claims by user and key.
    pub claims: BTreeMap<(UserId, Digest), Claim>,
    /// Requests that their user wants to end.
    pub stops: BTreeSet<(UserId, HoldId)>,
}

/// A ledger's store in memory. Clones share what they keep.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Kept>>);

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// All receipts of a meter, by id.
    pub fn receipts(&self, key: &MeterKey) -> Vec<Receipt> {
        let kept = self.kept();
        kept.receipts.iter().filter(|((of, _), _)| of == key).map(|(_, receipt)| receipt.clone()).collect()
    }

    /// All report items of a meter, by number.
    pub fn reports(&self, key: &MeterKey) -> Vec<(ReportRow, RowFate)> {
        let kept = self.kept();
        kept.reports.iter().filter(|((of, _), _)| of == key).map(|(_, report)| report.clone()).collect()
    }

    /// All meters.
    pub fn meters(&self) -> Vec<Meter> {
        self.kept().meters.values().cloned().collect()
    }

    /// Everything in it. Whoever holds the answer keeps everybody else waiting.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_meter(&self, key: &MeterKey, change: impl FnOnce(&mut Meter) -> bool) -> Changed {
        self.kept().meters.get_mut(key).is_some_and(change).into()
    }
}

impl Store for MemoryStore {
    async fn load(&self, user: &UserId) -> Result<Option<Loaded>, StoreError> {
        let kept = self.kept();
        Ok(kept.accounts.get(user).and_then(|account| {
            let key = MeterKey { user: user.clone(), period_start: account.current };
            kept.meters.get(&key).map(|meter| Loaded { account: account.clone(), meter: meter.clone() })
        }))
    }

    async fn meter(&self, key: &MeterKey) -> Result<Option<Meter>, StoreError> {
        Ok(self.kept().meters.get(key).cloned())
    }

    async fn open(&self, opening: &Opening) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let user = &opening.account.user;
        let key = MeterKey::of(&opening.meter);
        if kept.meters.contains_key(&key) {
            return Ok(Changed::No);
        }
        let account_is_as_read = match (&opening.predecessor, kept.accounts.get(user)) {
            (None, account) => account.is_none(),
            (Some(predecessor), Some(account)) => {
                account.rev == opening.account.rev && account.current == predecessor.start
            }
            (Some(_), None) => false,
        };
        if !account_is_as_read {
            return Ok(Changed::No);
        }
        if let Some(predecessor) = &opening.predecessor {
            let old = MeterKey { user: user.clone(), period_start: predecessor.start };
            if !kept.meters.get_mut(&old).is_some_and(|meter| meter.apply_close(&predecessor.rate)) {
                return Ok(Changed::No);
            }
        }
        kept.accounts.insert(user.clone(), opening.account.clone());
        kept.meters.insert(key, opening.meter.clone());
        Ok(Changed::Yes)
    }

    async fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let before = &change.before;
        let as_read = |account: &Account| account.rev == before.rev && account.current == before.current;
        if !kept.accounts.get(&before.user).is_some_and(as_read) {
            return Ok(Changed::No);
        }
        let key = MeterKey { user: before.user.clone(), period_start: before.current };
        if !kept.meters.get_mut(&key).is_some_and(|meter| meter.apply_account(change)) {
            return Ok(Changed::No);
        }
        kept.accounts.insert(before.user.clone(), change.after.clone());
        Ok(Changed::Yes)
    }

    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        let key = MeterKey { user: admission.user.clone(), period_start: admission.period_start };
        let mut kept = self.kept();
        let Some(meter) = kept.meters.get_mut(&key) else { return Ok(AdmitAnswer::Stale(None)) };
        let admitted = meter.apply_admission(admission);
        let meter = Box::new(meter.clone());
        Ok(if admitted { AdmitAnswer::Admitted(meter) } else { AdmitAnswer::Stale(Some(meter)) })
    }

    async fn put_receipt(&self, receipt: &Receipt) -> Result<Receipt, StoreError> {
        let key = MeterKey { user: receipt.user.clone(), period_start: receipt.period_start };
        Ok(self.kept().receipts.entry((key, receipt.id.clone())).or_insert_with(|| receipt.clone()).clone())
    }

    async fn receipt(&self, key: &MeterKey, id: &HoldId) -> Result<Option<Receipt>, StoreError> {
        Ok(self.kept().receipts.get(&(key.clone(), id.clone())).cloned())
    }

    async fn release(&self, release: &Release) -> Result<Changed, StoreError> {
        let key = MeterKey { user: release.user.clone(), period_start: release.period_start };
        Ok(self.on_meter(&key, |meter| meter.apply_release(release)))
    }

    async fn seal(&self, key: &MeterKey, seal: &Seal) -> Result<Changed, StoreError> {
        Ok(self.on_meter(key, |meter| meter.apply_seal(seal)))
    }

    async fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp) -> Result<Changed, StoreError> {
        Ok(self.on_meter(key, |meter| meter.apply_attempt(seq, at)))
    }

    async fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        _at: Timestamp,
    ) -> Result<RowFate, StoreError> {
        let mut kept = self.kept();
        Ok(kept.reports.entry((key.clone(), row.seq)).or_insert_with(|| (row.clone(), fate)).1)
    }

    async fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Result<Changed, StoreError> {
        Ok(self.on_meter(key, |meter| meter.apply_drop(row.seq, fate)))
    }

    async fn clear(&self, key: &MeterKey) -> Result<Changed, StoreError> {
        Ok(self.on_meter(key, Meter::apply_clear))
    }

    async fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Result<Page, StoreError> {
        let kept = self.kept();
        let after = |key: &&MeterKey| from.is_none_or(|Cursor(last)| *key > last);
        let of_shard = |meter: &Meter| meter.dirty && shard_of(&meter.user) == shard;
        let mut keys =
            kept.meters.iter().filter(|(_, meter)| of_shard(meter)).map(|(key, _)| key).filter(after);
        let page: Vec<MeterKey> = keys.by_ref().take(usize::from(PAGE_MAX)).cloned().collect();
        let more = keys.next().is_some();
        let next = if more { page.last().cloned().map(Cursor) } else { None };
        Ok(Page { keys: page, next })
    }

    async fn put_claim(&self, claim: &Claim, now: Timestamp) -> Result<Option<Claim>, StoreError> {
        let mut kept = self.kept();
        let place = (claim.user.clone(), claim.key);
        let standing = kept.claims.get(&place).filter(|standing| !standing.is_forgotten(now)).cloned();
        if standing.is_none() {
            kept.claims.insert(place, claim.clone());
        }
        Ok(standing)
    }

    async fn change_claim(&self, claim: &Claim, owner: &HoldId) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let standing = kept.claims.get_mut(&(claim.user.clone(), claim.key));
        let running = standing.filter(|standing| standing.is_running_for(owner));
        Ok(running.map(|standing| standing.clone_from(claim)).is_some().into())
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let place = (claim.user.clone(), claim.key);
        let running = kept.claims.get(&place).is_some_and(|standing| standing.is_running_for(&claim.owner));
        Ok((running && kept.claims.remove(&place).is_some()).into())
    }

    async fn claim(&self, user: &UserId, key: Digest) -> Result<Option<Claim>, StoreError> {
        Ok(self.kept().claims.get(&(user.clone(), key)).cloned())
    }

    async fn put_stop(&self, user: &UserId, id: &HoldId, _forget_at: Timestamp) -> Result<(), StoreError> {
        self.kept().stops.insert((user.clone(), id.clone()));
        Ok(())
    }

    async fn is_stopped(&self, user: &UserId, id: &HoldId) -> Result<bool, StoreError> {
        Ok(self.kept().stops.contains(&(user.clone(), id.clone())))
    }
}
