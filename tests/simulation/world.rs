//! What everybody in a simulation shares: the clock, chance, the store's contents, and what was seen.

use crate::simulation::{
    bugs::Bug,
    clients::Sent,
    dice::Dice,
    journal::Journal,
    provider::Calls,
    scenario::{Mishap, Scenario},
    stripe::Books,
};
use domain::Timestamp;
use ledger::MemoryStore;
use std::{
    collections::BTreeMap,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// How many effects of a process may pass before the one that it dies at.
const LIFE_EFFECTS_MAX: u64 = 60;
/// The same, of one that has two or three.
const SHORT_LIFE_EFFECTS_MAX: u64 = 8;
/// Effects at which a process dies earlier than it would, and how often in a thousand: what late usage takes, and a debt.
const RARE_EFFECTS: [(&str, u64); 4] = [
    ("ask Stripe's invoices", 100),
    ("ask Stripe's items", 250),
    ("ask Stripe's unpaid invoices", 300),
    ("make an invoice item", 800),
];
/// The slowest an answer of a slow store may be, in milliseconds.
const SLOW_MS_MAX: u64 = 3_000;

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) scenario: Scenario,
    pub(crate) bug: Option<Bug>,
    /// Told of every row that is sealed: a write that is late may land at the worst moment.
    pub(crate) sealed: Notify,
    begun: Instant,
    inner: Mutex<Inner>,
}

/// What changes.
pub(crate) struct Inner {
    pub(crate) dice: Dice,
    /// Nothing goes wrong any more.
    pub(crate) calm: bool,
    pub(crate) journal: Journal,
    pub(crate) calls: Calls,
    pub(crate) sent: Sent,
    pub(crate) stripe: Books,
    pub(crate) steps: u64,
    /// How often what was seen.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    /// Where processes died: before or after which effect.
    pub(crate) crashes: BTreeMap<(&'static str, &'static str), u64>,
    pub(crate) violations: Vec<String>,
    /// Every step in words, where somebody will read it.
    pub(crate) trace: Option<Vec<String>>,
    /// A hash of the whole history.
    pub(crate) digest: u64,
}

/// One process: it has a clock of its own, and dies when its time has come.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    skew_ms: u64,
    behind: bool,
    dead: AtomicBool,
    effects: AtomicU64,
    failures: AtomicU64,
    /// The effect that it dies at, and whether that still happens.
    dies_at: Option<(u64, bool)>,
}

/// What became of a process at one of its effects.
#[must_use]
pub(crate) enum Step {
    /// It lives.
    Lives,
    /// The effect happens, and the process does not learn of it.
    DiesAfter,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::draw(&mut dice);
        let inner = Inner {
            dice,
            calm: true,
            journal: Journal::default(),
            calls: Calls::default(),
            sent: Sent::default(),
            stripe: Books::default(),
            steps: 0,
            seen: BTreeMap::new(),
            crashes: BTreeMap::new(),
            violations: Vec::new(),
            trace: traced.then(Vec::new),
            digest: seed,
        };
        let begun = Instant::now();
        Arc::new(Self {
            store: MemoryStore::new(),
            scenario,
            bug,
            sealed: Notify::new(),
            begun,
            inner: Mutex::new(inner),
        })
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The true time.
    pub(crate) fn now(&self) -> Timestamp {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        self.scenario.base.plus_ms(ms)
    }

    /// Milliseconds since the beginning.
    pub(crate) fn ms(&self) -> u64 {
        self.now().ms_since(self.scenario.base)
    }

    /// Whether a mishap happens now.
    pub(crate) fn happens(&self, mishap: Mishap) -> bool {
        self.happens_more(mishap, 1)
    }

    /// The same, so many times as often.
    pub(crate) fn happens_more(&self, mishap: Mishap, times: u64) -> bool {
        let rate = self.scenario.rate(mishap) * times;
        self.with(|inner| {
            let happens = !inner.calm && rate > 0 && inner.dice.in_thousand(rate);
            if happens {
                *inner.seen.entry(mishap.name()).or_default() += 1;
            }
            happens
        })
    }

    /// Counts a state that a history should come to.
    pub(crate) fn saw(&self, what: &'static str) {
        self.with(|inner| *inner.seen.entry(what).or_default() += 1);
    }

    pub(crate) fn violated(&self, what: String) {
        self.trace(|| format!("VIOLATION {what}"));
        self.with(|inner| inner.violations.push(what));
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        let ms = self.ms();
        self.with(|inner| {
            if let Some(trace) = &mut inner.trace {
                trace.push(format!("{:>9}.{:03} {}", ms / 1_000, ms % 1_000, what()));
            }
        });
    }

    fn is_down(&self, span: Option<(u64, u64)>) -> bool {
        let ms = self.ms();
        span.is_some_and(|(from, to)| (from..to).contains(&ms)) && !self.with(|inner| inner.calm)
    }

    pub(crate) fn store_is_down(&self) -> bool {
        self.is_down(self.scenario.store_down)
    }

    pub(crate) fn stripe_is_down(&self) -> bool {
        self.is_down(self.scenario.stripe_down)
    }

    /// A process of its own clock and fate.
    pub(crate) fn process(&self, name: String) -> Arc<Process> {
        self.process_of(name, LIFE_EFFECTS_MAX)
    }

    /// One that has few effects, so that dying at one of the first is not too rare.
    pub(crate) fn short_process(&self, name: String) -> Arc<Process> {
        self.process_of(name, SHORT_LIFE_EFFECTS_MAX)
    }

    fn process_of(&self, name: String, effects_max: u64) -> Arc<Process> {
        let dies = self.happens(Mishap::Crash);
        let skew_ms_max = self.scenario.skew_ms;
        let process = self.with(|inner| {
            let dice = &mut inner.dice;
            let dies_at = dies.then(|| (dice.below(effects_max), dice.in_thousand(500)));
            Process {
                name,
                skew_ms: dice.below(skew_ms_max + 1),
                behind: dice.in_thousand(500),
                dead: AtomicBool::new(false),
                effects: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                dies_at,
            }
        });
        Arc::new(process)
    }

    /// The time that a process believes it is.
    pub(crate) fn clock(&self, process: &Process) -> Timestamp {
        let now = self.now().ms();
        let skew_ms = process.skew_ms;
        Timestamp::from_ms(if process.behind { now - skew_ms } else { now + skew_ms })
    }

    /// One effect of a process on the world: it takes a moment to get there, and may be its last. A process that is dead
    /// never comes back from here, so that it has no further effect: that is what a crash is to everybody else.
    pub(crate) async fn step(&self, process: &Process, effect: &'static str) -> Step {
        let effects = process.effects.fetch_add(1, Ordering::Relaxed);
        self.travel().await;
        if process.is_dead() {
            pending::<()>().await;
        }
        let ms = self.ms();
        self.with(|inner| {
            inner.steps += 1;
            let mut hash = inner.digest ^ ms;
            for byte in process.name.bytes().chain(effect.bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            inner.digest = hash;
        });
        self.trace(|| format!("{}: {effect}", process.name));
        match process.dies_at {
            Some((at, happens)) if self.is_the_end(at, effects, effect) => {
                process.dead.store(true, Ordering::Relaxed);
                let when = if happens { "after" } else { "before" };
                self.with(|inner| *inner.crashes.entry((effect, when)).or_default() += 1);
                self.trace(|| format!("{}: dies {when} {effect}", process.name));
                if happens { Step::DiesAfter } else { pending().await }
            }
            _ => Step::Lives,
        }
    }

    /// Whether a process that has had so many effects, and is to die at the one of this number, dies now: there, or at one that few
    /// come to.
    fn is_the_end(&self, at: u64, effects: u64, effect: &str) -> bool {
        self.with(|inner| {
            let rare = RARE_EFFECTS.iter().find(|(rare, _)| *rare == effect);
            !inner.calm && (at <= effects || rare.is_some_and(|(_, times)| inner.dice.in_thousand(*times)))
        })
    }

    /// The way there or back.
    pub(crate) async fn travel(&self) {
        let slow = self.happens(Mishap::StoreSlow);
        let ms = self.with(|inner| if slow { inner.dice.below(SLOW_MS_MAX) } else { inner.dice.below(12) });
        sleep(Duration::from_millis(ms)).await;
    }
}

impl Process {
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Notes that the store failed it.
    pub(crate) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the store failed it.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Ends it from outside, as Lambda does at the deadline.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}
