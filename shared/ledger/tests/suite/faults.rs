//! The protocols when answers are lost: before the write, after it, or long after anybody waits for it.

use super::support::{HOLD_MS, T0, demand, new_id, plans, price, t, used, user};
use domain::{
    AccountChange, Admission, Attempt, Billing, Claim, CustomerId, Day, Denial, Digest, EventId, HoldId,
    Lease, Level, Meter, NanoUsd, Opening, Outcome, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal,
    SliceAnswer, SliceAsk, Spending, Timestamp, Tokens, UserId,
};
use ledger::{
    AdmitAnswer, AdmitError, AdmitFailure, Changed, Cursor, Fault, Ledger, Loaded, MemoryStore, MeterKey,
    Page, ReceiptCursor, ReceiptPage, ReportCursor, ReportPage, Store, StoreError, UserCursor, UserPage,
};
use std::sync::{Arc, Mutex};

/// What happens to the next write of a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Never written, and nobody knows.
    LostBefore,
    /// Written, and nobody knows.
    LostAfter,
    /// Not written now; it takes effect when the test says so.
    Late,
    /// Refused by throttling: certainly not written.
    Throttled,
}

#[derive(Default)]
struct Plan {
    admits: Vec<Fate>,
    receipts: Vec<Fate>,
    releases: Vec<Fate>,
    /// Of puts and changes of claims.
    claims: Vec<Fate>,
    /// Of slices of a budget.
    leases: Vec<Fate>,
    /// Of changes of the account.
    changes: Vec<Fate>,
    late: Vec<Admission>,
    late_changes: Vec<AccountChange>,
    /// What the next load answers, instead of what is so.
    torn: Option<Loaded>,
    admit_ids: Vec<String>,
}

/// A memory store whose answers get lost.
#[derive(Clone)]
struct Faulty {
    inner: MemoryStore,
    plan: Arc<Mutex<Plan>>,
}

fn unanswered() -> StoreError {
    StoreError::new("test", Fault::Unanswered)
}

impl Faulty {
    fn new(plan: Plan) -> Self {
        Self { inner: MemoryStore::new(), plan: Arc::new(Mutex::new(plan)) }
    }

    fn next(&self, of: impl Fn(&mut Plan) -> &mut Vec<Fate>) -> Option<Fate> {
        let mut plan = self.plan.lock().unwrap();
        let fates = of(&mut plan);
        if fates.is_empty() { None } else { Some(fates.remove(0)) }
    }

    /// The late writes arrive.
    async fn late_writes_land(&self) {
        let late = std::mem::take(&mut self.plan.lock().unwrap().late);
        for admission in late {
            drop(self.inner.admit(&admission).await.unwrap());
        }
    }

    /// The late changes of accounts arrive; whether any was made.
    async fn late_changes_land(&self) -> bool {
        let late = std::mem::take(&mut self.plan.lock().unwrap().late_changes);
        let mut any = false;
        for change in late {
            any |= self.inner.change_account(&change).await.unwrap() == Changed::Yes;
        }
        any
    }

    async fn lossy<T>(
        &self,
        of: impl Fn(&mut Plan) -> &mut Vec<Fate>,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.next(of) {
            None => write.await,
            Some(Fate::LostAfter) => {
                drop(write.await?);
                Err(unanswered())
            }
            Some(Fate::LostBefore | Fate::Late) => Err(unanswered()),
            Some(Fate::Throttled) => Err(StoreError::new("test", Fault::Throttled)),
        }
    }
}

/// What no plan is about goes to the store as it is.
macro_rules! untouched {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(async fn $name(&self $(, $arg: $type)*) -> Result<$answer, StoreError> {
            self.inner.$name($($arg),*).await
        })*
    };
}

impl Store for Faulty {
    async fn load(&self, user: &UserId) -> Result<Option<Loaded>, StoreError> {
        let torn = self.plan.lock().unwrap().torn.take();
        if torn.is_some() { Ok(torn) } else { self.inner.load(user).await }
    }

    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        self.plan.lock().unwrap().admit_ids.push(admission.id.to_string());
        match self.next(|plan| &mut plan.admits) {
            None => self.inner.admit(admission).await,
            Some(Fate::LostBefore) => Err(AdmitFailure::Unknown(unanswered())),
            Some(Fate::LostAfter) => {
                drop(self.inner.admit(admission).await?);
                Err(AdmitFailure::Unknown(unanswered()))
            }
            Some(Fate::Late) => {
                self.plan.lock().unwrap().late.push(admission.clone());
                Err(AdmitFailure::Unknown(unanswered()))
            }
            Some(Fate::Throttled) => Err(AdmitFailure::NotWritten(StoreError::new("test", Fault::Throttled))),
        }
    }

    async fn put_receipt(&self, receipt: &Receipt) -> Result<Receipt, StoreError> {
        self.lossy(|plan| &mut plan.receipts, self.inner.put_receipt(receipt)).await
    }

    async fn release(&self, release: &Release) -> Result<Changed, StoreError> {
        self.lossy(|plan| &mut plan.releases, self.inner.release(release)).await
    }

    async fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError> {
        if self.plan.lock().unwrap().changes.first() == Some(&Fate::Late) {
            self.plan.lock().unwrap().late_changes.push(change.clone());
        }
        self.lossy(|plan| &mut plan.changes, self.inner.change_account(change)).await
    }

    async fn put_claim(&self, claim: &Claim, now: Timestamp) -> Result<Option<Claim>, StoreError> {
        self.lossy(|plan| &mut plan.claims, self.inner.put_claim(claim, now)).await
    }

    async fn change_claim(&self, claim: &Claim, owner: &HoldId) -> Result<Changed, StoreError> {
        self.lossy(|plan| &mut plan.claims, self.inner.change_claim(claim, owner)).await
    }

    async fn lease_slice(&self, ask: &SliceAsk) -> Result<SliceAnswer, StoreError> {
        self.lossy(|plan| &mut plan.leases, self.inner.lease_slice(ask)).await
    }

    untouched! {
        fn meter(&self, key: &MeterKey) -> Option<Meter>;
        fn open(&self, opening: &Opening) -> Changed;
        fn receipt(&self, key: &MeterKey, id: &HoldId) -> Option<Receipt>;
        fn seal(&self, key: &MeterKey, seal: &Seal) -> Changed;
        fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp, fence: u64) -> Attempt;
        fn put_report(&self, key: &MeterKey, row: &ReportRow, fate: RowFate, at: Timestamp, note: Option<&str>) -> RowFate;
        fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Changed;
        fn clear(&self, key: &MeterKey) -> Changed;
        fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Page;
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
        fn note_told(&self, day: Day, pool: Pool, level: Level) -> Changed;
    }
}

async fn meter_of(store: &Faulty, user: &UserId) -> Meter {
    store.load(user).await.unwrap().unwrap().meter
}

#[tokio::test]
async fn i4_an_admission_whose_answer_was_lost_is_voided_and_made_anew_under_another_id() {
    for fate in [Fate::LostBefore, Fate::LostAfter] {
        let store = Faulty::new(Plan { admits: vec![fate], ..Plan::default() });
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        let hold = ledger.admit(&user, &demand(700), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        let meter = meter_of(&store, &user).await;
        assert_eq!((meter.committed, meter.holds.len()), (t(700), 1), "{fate:?}");
        assert_eq!(meter.rate.counts.values().sum::<u32>(), 1, "{fate:?}");
        let ids = store.plan.lock().unwrap().admit_ids.clone();
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1], "sent again under the same id");
        assert_eq!(ledger.settle(hold, used(500), &price(), T0).await.unwrap().charged, t(500));
    }
}

#[tokio::test]
async fn i3_an_admission_that_lands_after_it_was_given_up_is_released_uncharged() {
    let store = Faulty::new(Plan { admits: vec![Fate::Late], ..Plan::default() });
    let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
    let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
    store.late_writes_land().await;
    // The late write assumed an empty window and no hold; it may still fit, and then holds tokens for nobody.
    let meter = meter_of(&store, &user).await;
    assert_eq!(meter.committed, t(600));
    ledger.settle(hold, used(300), &price(), T0).await.unwrap();
    let later = T0.plus_ms(HOLD_MS);
    assert_eq!(ledger.sweep(&MeterKey::of(&meter), later).await.unwrap(), 1);
    let meter = meter_of(&store, &user).await;
    assert_eq!((meter.settled, meter.committed, meter.totals.absorbed), (t(300), t(300), t(0)));
    let voided = store.inner.receipts_of(&MeterKey::of(&meter));
    assert_eq!(voided.iter().filter(|receipt| receipt.outcome == Outcome::Void).count(), 1);
}

#[tokio::test]
async fn f14_an_admission_that_can_not_even_be_voided_is_unavailable_and_never_a_limit() {
    let (admits, receipts) = (vec![Fate::LostAfter], vec![Fate::LostBefore; 6]);
    let store = Faulty::new(Plan { admits, receipts, ..Plan::default() });
    let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
    let answer = ledger.admit(&user, &demand(1_000), &price(), HOLD_MS, &new_id, T0).await;
    assert!(matches!(answer, Err(AdmitError::Unavailable(_))));
    // Its hold stays until it expires, and is then given back.
    let key = MeterKey::of(&meter_of(&store, &user).await);
    assert_eq!(ledger.sweep(&key, T0.plus_ms(HOLD_MS)).await.unwrap(), 1);
    assert_eq!(meter_of(&store, &user).await.committed, t(0));
}

#[tokio::test]
async fn i5_nothing_is_refused_on_an_account_and_a_meter_that_were_read_apart() {
    let store = Faulty::new(Plan::default());
    let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
    let capped = |cap| {
        move |account: &domain::Account| Some(domain::Account { spend_cap: Some(t(cap)), ..account.clone() })
    };
    ledger.change_account(&user, T0, capped(5)).await.unwrap();
    let before = store.load(&user).await.unwrap().unwrap();
    ledger.change_account(&user, T0, capped(900)).await.unwrap();
    let after = store.load(&user).await.unwrap().unwrap();
    // The account as it was before the change, the meter as it is after it.
    store.plan.lock().unwrap().torn = Some(Loaded { account: before.account, meter: after.meter });
    let hold = ledger.admit(&user, &demand(800), &price(), HOLD_MS, &new_id, T0).await.unwrap();
    ledger.void(hold, T0).await.unwrap();
}

#[tokio::test]
async fn a_throttled_admission_is_tried_again() {
    let store = Faulty::new(Plan { admits: vec![Fate::Throttled; 3], ..Plan::default() });
    let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
    let hold = ledger.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, T0).await.unwrap();
    assert!(store.inner.receipts_of(&MeterKey { user, period_start: hold.period().start() }).is_empty());
    ledger.void(hold, T0).await.unwrap();
}

#[tokio::test]
async fn i3_a_settle_is_made_once_whatever_answers_are_lost() {
    use Fate::{LostAfter, LostBefore, Throttled};
    for fates in [vec![LostAfter], vec![LostBefore, LostAfter], vec![Throttled, LostAfter, LostBefore]] {
        let store = Faulty::new(Plan { receipts: fates.clone(), releases: fates.clone(), ..Plan::default() });
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        let hold = ledger.admit(&user, &demand(700), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        ledger.settle(hold, used(500), &price(), T0).await.unwrap();
        let meter = meter_of(&store, &user).await;
        assert_eq!((meter.settled, meter.committed), (t(500), t(500)), "{fates:?}");
        assert_eq!(meter.totals.requests, 1, "{fates:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn f08_a_settle_that_can_not_be_stored_says_what_is_lost() {
    let store = Faulty::new(Plan { receipts: vec![Fate::LostBefore; 999], ..Plan::default() });
    let (ledger, user) = (Ledger::new(store, plans()), user());
    let hold = ledger.admit(&user, &demand(700), &price(), HOLD_MS, &new_id, T0).await.unwrap();
    let id = hold.id().clone();
    let error = ledger.settle(hold, used(500), &price(), T0).await.unwrap_err();
    assert_eq!((&error.receipt.id, error.receipt.charged), (&id, t(500)));
    assert!(error.to_string().contains("500 tokens"), "{error}");
}

#[tokio::test]
async fn f20_a_lease_whose_answer_was_lost_costs_its_day_that_slice_and_no_more() {
    let amount = NanoUsd::new(5).unwrap();
    let ask = SliceAsk { pool: Pool::Trial, day: Day::of(T0), amount, ceiling: NanoUsd::new(100).unwrap() };
    for (fates, leased) in
        [(vec![Fate::LostAfter], 10), (vec![Fate::LostBefore], 5), (vec![Fate::Throttled], 5)]
    {
        let ledger = Ledger::new(Faulty::new(Plan { leases: fates, ..Plan::default() }), plans());
        let leased = Spending { leased: NanoUsd::new(leased).unwrap(), told: None };
        assert_eq!(ledger.lease_slice(&ask).await.unwrap(), SliceAnswer::Leased(leased));
    }
    let store = Faulty::new(Plan { leases: vec![Fate::LostAfter; 2], ..Plan::default() });
    assert!(Ledger::new(store.clone(), plans()).lease_slice(&ask).await.is_err(), "F14: fail closed");
    let twice = store.inner.kept().spendings[&(ask.day, Pool::Trial)].leased;
    assert_eq!(twice, NanoUsd::new(10).unwrap(), "asked for more than twice");
}

#[tokio::test]
async fn a_spend_cap_whose_answer_was_lost_is_decided_again_and_lands_once() {
    for fate in [Fate::LostBefore, Fate::LostAfter, Fate::Late, Fate::Throttled] {
        let store = Faulty::new(Plan::default());
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        ledger.standing(&user, T0).await.unwrap();
        store.plan.lock().unwrap().changes = vec![fate];
        let set = ledger.set_spend_cap(&user, Some(t(300)), false, T0).await.unwrap();
        assert_eq!((set.account.spend_cap, set.account.rev), (Some(t(300)), 2), "{fate:?}");
        assert_eq!(store.load(&user).await.unwrap(), Some(set), "{fate:?}");
        assert!(
            !store.late_changes_land().await,
            "{fate:?}: the lost one landed beside the one that was told"
        );
    }
}

#[tokio::test]
async fn a_wish_for_a_spend_cap_that_was_given_up_never_undoes_a_later_one() {
    let store = Faulty::new(Plan::default());
    let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
    let before = ledger.standing(&user, T0).await.unwrap().account;
    // Sent once, by an instance that died with it.
    store.plan.lock().unwrap().changes = vec![Fate::Late];
    let wish = domain::Account { spend_cap: Some(t(1)), ..before.clone() };
    let change = AccountChange::new(before, wish, &meter_of(&store, &user).await);
    assert!(store.change_account(&change).await.is_err());
    // The user looks, sees no cap, and says so: nothing seems to change.
    let set = ledger.set_spend_cap(&user, None, false, T0).await.unwrap();
    assert!(!store.late_changes_land().await, "the cap that nobody wants any more landed");
    assert_eq!(store.load(&user).await.unwrap(), Some(set));
}
