//! The port in memory: the domain's own transitions under one lock. For tests and simulation, which may look at everything in
//! it, and plant what should not be there; it forgets everything.

use crate::{
    page::{
        Cursor, METERS_MAX, PAGE_MAX, PAGE_READ_MAX, Page, ReceiptCursor, ReceiptPage, ReportCursor,
        ReportPage, UserCursor, UserPage, cut,
    },
    store::{AdmitAnswer, AdmitFailure, Changed, Loaded, MeterKey, Store, StoreError, shard_of},
};
use domain::{
    Account, AccountChange, Admission, Attempt, Billing, Claim, CustomerId, Day, Denial, DenialCode, Digest,
    EventId, HoldId, Lease, Level, Meter, Opening, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal,
    SliceAnswer, SliceAsk, Spending, Timestamp, Tokens, UserId, bounded_note,
};
use std::{
    cmp::Reverse,
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
    pub reports: BTreeMap<(MeterKey, u64), Report>,
    /// Denials by their period and kind.
    pub denials: BTreeMap<(MeterKey, DenialCode), Denial>,
    /// Events that were dealt with.
    pub events: BTreeSet<EventId>,
    /// Leases by customer: the last fence, and who has it until when.
    pub leases: BTreeMap<CustomerId, (u64, Option<(HoldId, Timestamp)>)>,
    /// What is leased of each day's budgets.
    pub spendings: BTreeMap<(Day, Pool), Spending>,
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
    pub fn receipts_of(&self, key: &MeterKey) -> Vec<Receipt> {
        let kept = self.kept();
        kept.receipts.iter().filter(|((of, _), _)| of == key).map(|(_, receipt)| receipt.clone()).collect()
    }

    /// All report items of a meter, by number.
    pub fn reports_of(&self, key: &MeterKey) -> Vec<Report> {
        let kept = self.kept();
        kept.reports.iter().filter(|((of, _), _)| of == key).map(|(_, report)| report.clone()).collect()
    }

    /// All meters.
    pub fn every_meter(&self) -> Vec<Meter> {
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

    async fn note_attempt(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        fence: u64,
    ) -> Result<Attempt, StoreError> {
        let mut kept = self.kept();
        let meter = kept.meters.get_mut(key);
        Ok(meter.map_or(Attempt::Gone, |meter| meter.apply_attempt(seq, at, fence)))
    }

    async fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
        note: Option<&str>,
    ) -> Result<RowFate, StoreError> {
        let report = Report::of((key.user.clone(), key.period_start), row, fate, at, note);
        Ok(self.kept().reports.entry((key.clone(), row.seq)).or_insert(report).fate)
    }

    async fn report(&self, key: &MeterKey, seq: u64) -> Result<Option<Report>, StoreError> {
        Ok(self.kept().reports.get(&(key.clone(), seq)).cloned())
    }

    async fn forgive(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let parked = kept.reports.get_mut(&(key.clone(), seq)).filter(|item| item.fate == RowFate::Parked);
        let forgiven = parked.map(|item| {
            (item.fate, item.at, item.note) = (RowFate::Forgiven, at, Some(bounded_note(note)));
        });
        Ok(forgiven.is_some().into())
    }

    async fn retry(
        &self,
        key: &MeterKey,
        seq: u64,
        row: &ReportRow,
        at: Timestamp,
    ) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let Kept { reports, meters, .. } = &mut *kept;
        let as_read = |item: &&mut Report| item.fate == RowFate::Parked && item.tokens == row.tokens;
        let Some(item) = reports.get_mut(&(key.clone(), seq)).filter(as_read) else {
            return Ok(Changed::No);
        };
        if !meters.get_mut(key).is_some_and(|meter| meter.apply_retry(row)) {
            return Ok(Changed::No);
        }
        (item.fate, item.at) = (RowFate::Retried, at);
        Ok(Changed::Yes)
    }

    async fn reject(
        &self,
        key: &MeterKey,
        seq: u64,
        tokens: Tokens,
        at: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let Kept { reports, meters, .. } = &mut *kept;
        let as_read = |item: &&mut Report| item.fate == RowFate::Accepted && item.tokens == tokens;
        let Some(item) = reports.get_mut(&(key.clone(), seq)).filter(as_read) else {
            return Ok(Changed::No);
        };
        if !meters.get_mut(key).is_some_and(|meter| meter.apply_reject(seq, tokens)) {
            return Ok(Changed::No);
        }
        (item.fate, item.at, item.note) = (RowFate::Parked, at, Some(bounded_note(note)));
        Ok(Changed::Yes)
    }

    async fn import(
        &self,
        key: &MeterKey,
        receipt: &Receipt,
        report: &Report,
        billing: Billing,
    ) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let receipt_key = (key.clone(), receipt.id.clone());
        let report_key = (key.clone(), report.seq);
        if kept.receipts.contains_key(&receipt_key) || kept.reports.contains_key(&report_key) {
            return Ok(Changed::No);
        }
        if !kept.meters.get_mut(key).is_some_and(|meter| meter.apply_import(receipt, report, billing)) {
            return Ok(Changed::No);
        }
        kept.receipts.insert(receipt_key, receipt.clone());
        kept.reports.insert(report_key, report.clone());
        Ok(Changed::Yes)
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

    async fn users(&self, shard: u8, from: Option<&UserCursor>) -> Result<UserPage, StoreError> {
        let kept = self.kept();
        let after = |user: &&UserId| from.is_none_or(|UserCursor(last)| *user > last);
        let of_shard = kept.accounts.keys().filter(|user| shard_of(user) == shard).filter(after);
        let mut users: Vec<UserId> = of_shard.take(usize::from(PAGE_READ_MAX)).cloned().collect();
        let more = cut(&mut users);
        let next = users.last().filter(|_| more).map(UserCursor::after);
        Ok(UserPage { users, next })
    }

    async fn meters(&self, user: &UserId, from: Timestamp) -> Result<Vec<Meter>, StoreError> {
        let kept = self.kept();
        let of_user =
            kept.meters.iter().rev().filter(|(key, _)| key.user == *user && key.period_start >= from);
        Ok(of_user.take(usize::from(METERS_MAX)).map(|(_, meter)| meter.clone()).collect())
    }

    async fn receipts(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReceiptCursor>,
    ) -> Result<ReceiptPage, StoreError> {
        let kept = self.kept();
        let wanted = |(key, id): &(MeterKey, HoldId)| {
            let behind = |last: &ReceiptCursor| (key.period_start, id) < (last.period_start, &last.id);
            key.user == *user && of.is_none_or(|of| key.period_start == of) && before.is_none_or(behind)
        };
        let found = kept.receipts.iter().rev().filter(|(place, _)| wanted(place));
        let mut receipts: Vec<Receipt> =
            found.take(usize::from(PAGE_READ_MAX)).map(|(_, receipt)| receipt.clone()).collect();
        let more = cut(&mut receipts);
        let next = receipts.last().filter(|_| more).map(ReceiptCursor::after);
        Ok(ReceiptPage { receipts, next })
    }

    async fn reports(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReportCursor>,
    ) -> Result<ReportPage, StoreError> {
        let kept = self.kept();
        let wanted = |(key, seq): &(MeterKey, u64)| {
            let behind = |last: &ReportCursor| (key.period_start, *seq) < (last.period_start, last.seq);
            key.user == *user && of.is_none_or(|of| key.period_start == of) && before.is_none_or(behind)
        };
        let found = kept.reports.iter().rev().filter(|(place, _)| wanted(place));
        let mut reports: Vec<Report> =
            found.take(usize::from(PAGE_READ_MAX)).map(|(_, report)| report.clone()).collect();
        let more = cut(&mut reports);
        let next = reports.last().filter(|_| more).map(ReportCursor::after);
        Ok(ReportPage { reports, next })
    }

    async fn put_denial(&self, denial: &Denial) -> Result<Changed, StoreError> {
        let key = MeterKey { user: denial.user.clone(), period_start: denial.period_start };
        let mut kept = self.kept();
        let place = (key, denial.code);
        let is_latest = kept.denials.get(&place).is_none_or(|standing| standing.at <= denial.at);
        if is_latest {
            kept.denials.insert(place, denial.clone());
        }
        Ok(is_latest.into())
    }

    async fn denials(&self, user: &UserId, period_start: Timestamp) -> Result<Vec<Denial>, StoreError> {
        let kept = self.kept();
        let here = |key: &MeterKey| key.user == *user && key.period_start == period_start;
        let found = kept.denials.iter().filter(|((key, _), _)| here(key));
        let mut denials: Vec<Denial> = found.map(|(_, denial)| denial.clone()).collect();
        denials.sort_by_key(|denial| (Reverse(denial.at), denial.code));
        Ok(denials)
    }

    async fn put_event(
        &self,
        id: &EventId,
        _kind: &str,
        _at: Timestamp,
        _forget_at: Timestamp,
    ) -> Result<Changed, StoreError> {
        Ok(self.kept().events.insert(id.clone()).into())
    }

    async fn event(&self, id: &EventId) -> Result<bool, StoreError> {
        Ok(self.kept().events.contains(id))
    }

    async fn take_lease(
        &self,
        customer: &CustomerId,
        owner: &HoldId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let mut kept = self.kept();
        let (fence, had) = kept.leases.entry(customer.clone()).or_default();
        match had {
            Some((by, until)) if *until > now && by != owner => return Ok(None),
            Some((by, had_until)) if by == owner && *had_until > now => {
                let lease = Lease {
                    customer: customer.clone(),
                    owner: owner.clone(),
                    fence: *fence,
                    until: *had_until,
                };
                return Ok(Some(lease));
            }
            Some(_) | None => {}
        }
        *fence = fence.saturating_add(1);
        *had = Some((owner.clone(), until));
        Ok(Some(Lease { customer: customer.clone(), owner: owner.clone(), fence: *fence, until }))
    }

    async fn drop_lease(&self, lease: &Lease) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let Some((fence, had)) = kept.leases.get_mut(&lease.customer) else { return Ok(Changed::No) };
        let still = *fence == lease.fence && had.as_ref().is_some_and(|(owner, _)| *owner == lease.owner);
        Ok((still && had.take().is_some()).into())
    }

    async fn lease_slice(&self, ask: &SliceAsk) -> Result<SliceAnswer, StoreError> {
        let mut kept = self.kept();
        let mut spending = kept.spendings.get(&(ask.day, ask.pool)).copied().unwrap_or_default();
        if !spending.apply_lease(ask) {
            return Ok(SliceAnswer::Refused(spending));
        }
        kept.spendings.insert((ask.day, ask.pool), spending);
        Ok(SliceAnswer::Leased(spending))
    }

    async fn note_told(&self, day: Day, pool: Pool, level: Level) -> Result<Changed, StoreError> {
        let mut kept = self.kept();
        let spending = kept.spendings.get_mut(&(day, pool));
        Ok(spending.is_some_and(|spending| spending.apply_told(level)).into())
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
