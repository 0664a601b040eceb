//! Several ledgers at once over one store that is many: each write is made on every store under one lock, and every
//! store has to give the same answer. What is between two writes of a protocol is anybody's turn, so their protocols
//! interleave as those of function instances do, each deciding on what it remembers.

use super::{
    storm::Chance,
    support::{AnyStore, HOLD_MS, T0, customer, demand, plans, price, stores, t, used, user, world},
};
use domain::{
    Account, AccountChange, Admission, Attempt, Billing, Claim, CustomerId, Day, Denial, Digest, EventId,
    HoldId, Lease, Level, Meter, Opening, PlanId, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal,
    SliceAnswer, SliceAsk, Timestamp, Tokens, UserId,
};
use ledger::{
    AdmitAnswer, AdmitError, AdmitFailure, CapError, ChangeError, Changed, Cursor, Fault, Ledger, Loaded,
    MeterKey, Page, ReceiptCursor, ReceiptPage, ReportCursor, ReportPage, Store, StoreError, Unavailable,
    UserCursor, UserPage,
};
use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{Mutex, MutexGuard};

/// Runs, each with users of its own.
const SEEDS: u64 = 4;
const FIRST_SEED: u64 = 20_261_124;
const INSTANCES: u64 = 4;
const CUSTOMERS: u64 = 6;
const REQUESTS_EACH: u64 = 12;

/// Every store as one.
#[derive(Clone)]
struct Together {
    stores: Arc<Vec<(&'static str, AnyStore)>>,
    /// Whose turn it is, and how many writes and reads there were.
    turn: Arc<Mutex<u64>>,
    stale: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
    /// Caps that came too late to lie above what is held.
    too_low: Arc<AtomicU64>,
}

impl Together {
    fn new() -> Self {
        Self {
            stores: Arc::new(stores()),
            turn: Arc::default(),
            stale: Arc::default(),
            opened: Arc::default(),
            too_low: Arc::default(),
        }
    }

    /// Waits for its turn.
    async fn turn(&self) -> MutexGuard<'_, u64> {
        tokio::task::yield_now().await;
        let mut turn = self.turn.lock().await;
        *turn += 1;
        turn
    }
}

/// What all of them say.
fn agreed<T: Debug + PartialEq>(turn: u64, mut answers: Vec<(&str, T)>) -> T {
    let (_, first) = answers.remove(0);
    for (name, answer) in answers {
        assert_eq!(answer, first, "{name} answers something else than memory, at turn {turn}");
    }
    first
}

/// Asks every store in turn under the lock. No store may fail here, so that answers can be compared.
macro_rules! same {
    ($self:ident.$name:ident($($arg:ident),*)) => {{
        let turn = $self.turn().await;
        let mut answers = Vec::new();
        for (name, store) in $self.stores.iter() {
            answers.push((*name, store.$name($($arg),*).await.unwrap()));
        }
        agreed(*turn, answers)
    }};
}

macro_rules! together {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(async fn $name(&self $(, $arg: $type)*) -> Result<$answer, StoreError> {
            Ok(same!(self.$name($($arg),*)))
        })*
    };
}

impl Store for Together {
    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        let answer = same!(self.admit(admission));
        if matches!(answer, AdmitAnswer::Stale(_)) {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }

    async fn open(&self, opening: &Opening) -> Result<Changed, StoreError> {
        let answer = same!(self.open(opening));
        self.opened.fetch_add(u64::from(answer == Changed::Yes), Ordering::Relaxed);
        Ok(answer)
    }

    async fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError> {
        let answer = same!(self.change_account(change));
        let too_low = answer == Changed::No && change.committed_most.is_some();
        self.too_low.fetch_add(u64::from(too_low), Ordering::Relaxed);
        Ok(answer)
    }

    /// The order of one shard's keys, and how they are paged, is each store's own.
    async fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Result<Page, StoreError> {
        self.stores[0].1.dirty(shard, from).await
    }

    async fn users(&self, shard: u8, from: Option<&UserCursor>) -> Result<UserPage, StoreError> {
        self.stores[0].1.users(shard, from).await
    }

    together! {
        fn load(&self, user: &UserId) -> Option<Loaded>;
        fn meter(&self, key: &MeterKey) -> Option<Meter>;
        fn put_receipt(&self, receipt: &Receipt) -> Receipt;
        fn receipt(&self, key: &MeterKey, id: &HoldId) -> Option<Receipt>;
        fn release(&self, release: &Release) -> Changed;
        fn seal(&self, key: &MeterKey, seal: &Seal) -> Changed;
        fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp, fence: u64) -> Attempt;
        fn put_report(&self, key: &MeterKey, row: &ReportRow, fate: RowFate, at: Timestamp, note: Option<&str>) -> RowFate;
        fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Changed;
        fn clear(&self, key: &MeterKey) -> Changed;
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

/// One run's users, instances and clock.
struct Run {
    together: Together,
    ledgers: Vec<Ledger<Together>>,
    users: [UserId; 2],
    elapsed_ms: AtomicU64,
    attempts: AtomicU64,
    gave_up: AtomicU64,
}

impl Run {
    fn ledger(&self, chance: &mut Chance) -> &Ledger<Together> {
        &self.ledgers[usize::try_from(chance.below(INSTANCES)).unwrap()]
    }

    /// Time goes on whenever anybody looks at the clock, and clocks differ by up to two seconds.
    fn now(&self, chance: &mut Chance) -> Timestamp {
        let step = if chance.one(12) { 50_000 } else { 100 };
        let elapsed = self.elapsed_ms.fetch_add(chance.below(step), Ordering::Relaxed);
        T0.plus_ms(elapsed + chance.below(2_000))
    }

    /// Somebody was overtaken as often as the ledger decides anew: allowed, and rare. Nothing else may go wrong.
    fn gave_up(&self, fault: Fault) {
        assert_eq!(fault, Fault::Contended);
        self.gave_up.fetch_add(1, Ordering::Relaxed);
    }

    async fn customer(self: Arc<Self>, mut chance: Chance) {
        let new_id = || {
            let number = self.attempts.fetch_add(1, Ordering::Relaxed);
            HoldId::parse(&format!("{}-{number:05}", self.users[0])).unwrap()
        };
        for _ in 0..REQUESTS_EACH {
            let user = &self.users[usize::try_from(chance.below(2)).unwrap()];
            let (ledger, now) = (self.ledger(&mut chance), self.now(&mut chance));
            let asked = u32::try_from(1 + chance.below(150)).unwrap();
            match ledger.admit(user, &demand(asked), &price(), HOLD_MS, &new_id, now).await {
                Ok(hold) => {
                    for _ in 0..chance.below(12) {
                        tokio::task::yield_now().await;
                    }
                    let now = self.now(&mut chance);
                    match chance.below(6) {
                        0 => drop(hold),
                        1 => ledger.void(hold, now).await.unwrap(),
                        _ => {
                            let consumed = used(u32::try_from(chance.below(200)).unwrap());
                            drop(ledger.settle(hold, consumed, &price(), now).await.unwrap());
                        }
                    }
                }
                Err(AdmitError::Refused { .. }) => {}
                Err(AdmitError::Unavailable(Unavailable(error))) => self.gave_up(error.fault),
            }
        }
    }

    /// What changes an account, reports, sweeps and clears.
    async fn others(self: Arc<Self>, mut chance: Chance) {
        for _ in 0..REQUESTS_EACH {
            let user = &self.users[usize::try_from(chance.below(2)).unwrap()];
            let (ledger, now) = (self.ledger(&mut chance), self.now(&mut chance));
            if chance.one(2) {
                self.change(ledger, user, now, &mut chance).await;
            } else if let Some(loaded) = self.together.load(user).await.unwrap() {
                let fate = if chance.one(4) { RowFate::Parked } else { RowFate::Accepted };
                self.report(ledger, &MeterKey::of(&loaded.meter), fate, now).await;
            }
        }
    }

    async fn change(&self, ledger: &Ledger<Together>, user: &UserId, now: Timestamp, chance: &mut Chance) {
        let cap = t(u32::try_from(chance.below(5_000)).unwrap());
        let subscribes = chance.one(2);
        // October has 31 days: a subscription's period ends in the middle of all this.
        let anchor = Timestamp::from_s(now.s() - 31 * 86_400 + chance.below(200));
        let anew = move |account: &Account| {
            let mut new = Account { spend_cap: Some(cap), ..account.clone() };
            if subscribes {
                let (payer, subscription) = customer();
                (new.customer, new.subscription) = (Some(payer), Some(subscription));
                (new.plan, new.anchor) = (PlanId::parse("pro").unwrap(), anchor);
            }
            Some(new)
        };
        match ledger.change_account(user, now, anew).await {
            Ok(_) => {}
            Err(ChangeError::Unavailable(Unavailable(error))) => self.gave_up(error.fault),
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn report(&self, ledger: &Ledger<Together>, key: &MeterKey, fate: RowFate, now: Timestamp) {
        ledger.sweep(key, now).await.unwrap();
        let sealed = ledger.seal(key, now).await.unwrap_or_else(|error| {
            self.gave_up(error.fault);
            None
        });
        if let Some((_, row)) = sealed {
            ledger.attempt(key, &row, now, 0).await.unwrap();
            ledger.finish(key, &row, fate, now, None).await.unwrap();
        }
        ledger.clear(key).await.unwrap();
    }
}

/// One seed; answers how many turns there were, how many admissions were decided on what was no longer so, how many
/// meters were opened, and how often somebody gave up.
async fn run(seed: u64) -> [u64; 4] {
    let together = Together::new();
    let ledgers = (0..INSTANCES).map(|_| Ledger::new(together.clone(), plans())).collect();
    let run = Arc::new(Run {
        together: together.clone(),
        ledgers,
        users: [user(), user()],
        elapsed_ms: AtomicU64::new(0),
        attempts: AtomicU64::new(0),
        gave_up: AtomicU64::new(0),
    });
    let mut chance = Chance::new(seed);
    let mut tasks = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "the test itself awaits them")]
    for _ in 0..CUSTOMERS {
        tasks.push(tokio::spawn(run.clone().customer(chance.split())));
    }
    #[expect(clippy::disallowed_methods, reason = "the test itself awaits them")]
    for _ in 0..2 {
        tasks.push(tokio::spawn(run.clone().others(chance.split())));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for user in &run.users {
        if let Some(Loaded { meter, .. }) = together.load(user).await.unwrap() {
            assert_eq!(meter.committed, meter.settled.saturating_add(meter.held()));
        }
    }
    let turns = *together.turn.lock().await;
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    [turns, load(&together.stale), load(&together.opened), load(&run.gave_up)]
}

#[test]
fn i2_ledgers_that_work_at_once_get_the_same_answers_from_every_store() {
    let mut total = [0; 4];
    for seed in FIRST_SEED..FIRST_SEED + SEEDS {
        let counts = world().runtime.block_on(run(seed));
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    let [turns, stale, opened, gave_up] = total;
    let stores = stores().len();
    println!(
        "together: stores={stores} seeds={SEEDS} turns={turns} stale={stale} opened={opened} gave up={gave_up}"
    );
    // Without decisions that somebody else overtook, nothing was at once; without a third meter, no period ended.
    assert!(stale > 50 && opened > 2 * SEEDS, "{total:?}");
}

#[test]
fn i1_a_spend_cap_that_nobody_confirmed_never_ends_below_what_was_held_in_the_same_instant() {
    world().runtime.block_on(async {
        let mut ends = [0; 2];
        for apart in 0..12 {
            let together = Together::new();
            let (owner, requests, user) = (ledger(&together), ledger(&together), user());
            owner.standing(&user, T0).await.unwrap();
            let number = AtomicU64::new(0);
            let new_id =
                || HoldId::parse(&format!("{user}-{}", number.fetch_add(1, Ordering::Relaxed))).unwrap();
            let later = async {
                for _ in 0..apart {
                    tokio::task::yield_now().await;
                }
                requests.admit(&user, &demand(150), &price(), HOLD_MS, &new_id, T0).await
            };
            let (set, admitted) = tokio::join!(owner.set_spend_cap(&user, Some(t(100)), false, T0), later);
            let Loaded { account, meter } = together.load(&user).await.unwrap().unwrap();
            match set {
                Ok(_) => assert!(meter.committed <= t(100), "{apart} apart: {meter:?}"),
                Err(CapError::BelowUsed { cap, settled, held }) => {
                    assert_eq!((cap, settled, held), (t(100), t(0), t(150)));
                    assert_eq!(account.spend_cap, None, "{apart} apart");
                }
                Err(CapError::Unavailable(error)) => panic!("{error:?}"),
            }
            assert_eq!(
                admitted.is_ok(),
                account.spend_cap.is_none(),
                "{apart} apart: one of them has to give way"
            );
            ends[0] += u64::from(admitted.is_ok());
            ends[1] += together.too_low.load(Ordering::Relaxed);
            // Whoever means it is asked nothing.
            let confirmed = owner.set_spend_cap(&user, Some(t(100)), true, T0).await.unwrap();
            assert_eq!(confirmed.account.spend_cap, Some(t(100)));
        }
        let [admitted, too_low] = ends;
        assert!(admitted > 0 && admitted < 12 && too_low > 0, "the two never met: {ends:?}");
    });
}

fn ledger(together: &Together) -> Ledger<Together> {
    Ledger::new(together.clone(), plans())
}
