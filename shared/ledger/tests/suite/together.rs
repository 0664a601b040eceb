//! Several ledgers at once over one store that is many: each write is made on every store under one lock, and every
//! store has to give the same answer. What is between two writes of a protocol is anybody's turn, so their protocols
//! interleave as those of function instances do, each deciding on what it remembers.

use super::{
    storm::Chance,
    support::{AnyStore, HOLD_MS, T0, demand, plans, price, stores, subscribe, t, used, user, world},
};
use domain::{
    Account, AccountChange, Admission, HoldId, Meter, Opening, Receipt, Release, ReportRow, RowFate, Seal,
    Timestamp, UserId,
};
use ledger::{
    AdmitAnswer, AdmitError, AdmitFailure, Changed, Cursor, Ledger, Loaded, MeterKey, Page, Store, StoreError,
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
const SEEDS: u64 = 6;
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
}

impl Together {
    fn new() -> Self {
        Self { stores: Arc::new(stores()), turn: Arc::default(), stale: Arc::default() }
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

    /// The order of one shard's keys, and how they are paged, is each store's own.
    async fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Result<Page, StoreError> {
        self.stores[0].1.dirty(shard, from).await
    }

    together! {
        fn load(&self, user: &UserId) -> Option<Loaded>;
        fn meter(&self, key: &MeterKey) -> Option<Meter>;
        fn open(&self, opening: &Opening) -> Changed;
        fn change_account(&self, change: &AccountChange) -> Changed;
        fn put_receipt(&self, receipt: &Receipt) -> Receipt;
        fn release(&self, release: &Release) -> Changed;
        fn seal(&self, key: &MeterKey, seal: &Seal) -> Changed;
        fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp) -> Changed;
        fn put_report(&self, key: &MeterKey, row: &ReportRow, fate: RowFate, at: Timestamp) -> RowFate;
        fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Changed;
        fn clear(&self, key: &MeterKey) -> Changed;
    }
}

/// One run's users, instances and clock.
struct Run {
    together: Together,
    ledgers: Vec<Ledger<Together>>,
    users: [UserId; 2],
    elapsed_ms: AtomicU64,
    attempts: AtomicU64,
}

impl Run {
    fn ledger(&self, chance: &mut Chance) -> &Ledger<Together> {
        &self.ledgers[usize::try_from(chance.below(INSTANCES)).unwrap()]
    }

    /// Time goes on whenever anybody looks at the clock, and clocks differ by up to two seconds.
    fn now(&self, chance: &mut Chance) -> Timestamp {
        let elapsed = self.elapsed_ms.fetch_add(chance.below(9_000), Ordering::Relaxed);
        T0.plus_ms(elapsed + chance.below(2_000))
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
                Err(AdmitError::Refused(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// What changes an account, reports, sweeps and clears.
    async fn others(self: Arc<Self>, mut chance: Chance) {
        for _ in 0..REQUESTS_EACH {
            let user = &self.users[usize::try_from(chance.below(2)).unwrap()];
            let (ledger, now) = (self.ledger(&mut chance), self.now(&mut chance));
            let cap = t(u32::try_from(chance.below(5_000)).unwrap());
            match chance.below(4) {
                // Its period ends in the middle of all this.
                0 => {
                    let anchor = Timestamp::from_s(now.s() - 30 * 86_400 + chance.below(300));
                    subscribe(ledger, user, anchor).await;
                }
                1 => {
                    let capped =
                        move |account: &Account| Some(Account { spend_cap: Some(cap), ..account.clone() });
                    ledger.change_account(user, now, capped).await.unwrap();
                }
                _ => {
                    let Some(loaded) = self.together.load(user).await.unwrap() else { continue };
                    let key = MeterKey::of(&loaded.meter);
                    ledger.sweep(&key, now).await.unwrap();
                    if let Some((_, row)) = ledger.seal(&key, now).await.unwrap() {
                        ledger.attempt(&key, &row, now).await.unwrap();
                        let fate = if chance.one(4) { RowFate::Parked } else { RowFate::Accepted };
                        ledger.finish(&key, &row, fate, now).await.unwrap();
                    }
                    ledger.clear(&key).await.unwrap();
                }
            }
        }
    }
}

/// One seed; answers how many turns there were, and how many admissions were decided on what was no longer so.
async fn run(seed: u64) -> (u64, u64) {
    let together = Together::new();
    let ledgers = (0..INSTANCES).map(|_| Ledger::new(together.clone(), plans())).collect();
    let run = Arc::new(Run {
        together: together.clone(),
        ledgers,
        users: [user(), user()],
        elapsed_ms: AtomicU64::new(0),
        attempts: AtomicU64::new(0),
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
    (turns, together.stale.load(Ordering::Relaxed))
}

#[test]
fn i2_ledgers_that_work_at_once_get_the_same_answers_from_every_store() {
    let mut total = (0, 0);
    for seed in FIRST_SEED..FIRST_SEED + SEEDS {
        let (turns, stale) = world().runtime.block_on(run(seed));
        total = (total.0 + turns, total.1 + stale);
    }
    println!("together: stores={} seeds={SEEDS} turns={} stale={}", stores().len(), total.0, total.1);
    // Without decisions that somebody else overtook, nothing was at once.
    assert!(total.1 > 50, "{total:?}");
}
