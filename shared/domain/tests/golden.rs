//! The sliding window against recorded answers of the library whose semantics it takes over: `@upstash/ratelimit` 2.2.0
//! under a fake clock. Every step must answer alike, but for the deviations that are listed here with their reason; a
//! deviation that stops deviating fails as well.
//!
//! The vectors of a unit cost are replayed through the whole admission, the others through the window's arithmetic.

use crate::support::{decide, exactly, first_seen, plan, rate};
use domain::{Account, Meter, Plan, RateLimit, Timestamp, Window};
use serde_json::Value;
use std::num::NonZeroU32;

const GOLDEN: &str = include_str!("data/upstash-ratelimit-2.2.0-golden.json");

/// The sequences of other algorithms (fixed window, token bucket, cached fixed window): nothing here has them.
const OTHER_ALGORITHMS: [&str; 3] = ["fw", "tb refill 2/10s max 3", "cfw"];

/// The sequences that are replayed, with their number of steps.
const REPLAYED: [(&str, usize); 10] = [
    ("sw basic 3/10s", 11),
    ("sw weighted: 10 used in prev, floor()", 17),
    (OVERSHOOT, 15),
    (FRESH, 2),
    (REFUND, 6),
    ("sw rate 0 at limit", 3),
    (CACHE, 8),
    ("sw reset", 6),
    ("sw dynamic", 8),
    (BACKWARDS, 4),
];

const OVERSHOOT: &str = "sw cost overshoot: used 9, rate 5";
const FRESH: &str = "sw rate > limit on fresh";
const REFUND: &str = "sw rate 0 / refund / over-refund";
const CACHE: &str = "sw ephemeral cache blocks to window end (even though weight frees earlier)";
const BACKWARDS: &str = "sw clock backwards";

/// What is answered instead of what the library answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Whether the request passes (none: it was only asked what remains), and what remains.
    Given { success: Option<bool>, remaining: u64 },
    /// There is no such request: a cost is not negative by type, so nobody can refund a window into more than its limit.
    NotExpressible,
}

const fn asked(remaining: u64) -> Answer {
    Answer::Given { success: None, remaining }
}

const fn limited(success: bool, remaining: u64) -> Answer {
    Answer::Given { success: Some(success), remaining }
}

/// Sequence, step, and what is answered there. Everywhere else the answers are equal.
const DEVIATIONS: [(&str, usize, Answer); 12] = [
    // A denied cost consumes nothing: what was left is left (F26).
    (OVERSHOOT, 9, limited(false, 1)),
    (OVERSHOOT, 10, asked(1)),
    (OVERSHOOT, 11, limited(true, 0)),
    (FRESH, 0, limited(false, 10)),
    (FRESH, 1, asked(10)),
    // No refunds.
    (OVERSHOOT, 12, Answer::NotExpressible),
    (REFUND, 2, Answer::NotExpressible),
    (REFUND, 3, asked(7)),
    (REFUND, 4, Answer::NotExpressible),
    (REFUND, 5, asked(7)),
    // No process remembers a refusal: the request passes as soon as the weight allows it.
    (CACHE, 7, limited(true, 0)),
    // A clock that lags never adds to a window that is finished: it decides in the newest one.
    (BACKWARDS, 2, limited(false, 0)),
];

/// Sequence, step, and after how many milliseconds of that sequence the refused request passes; none: never, it is
/// above the limit by itself. The library says the window's end instead, where it may still be refused.
const RETRIES: [(&str, usize, Option<u64>); 15] = [
    ("sw basic 3/10s", 3, Some(10_001)),
    ("sw basic 3/10s", 4, Some(10_001)),
    ("sw basic 3/10s", 5, Some(10_001)),
    ("sw basic 3/10s", 9, Some(20_001)),
    (OVERSHOOT, 9, Some(13_334)),
    (OVERSHOOT, 14, Some(10_001)),
    (FRESH, 0, None),
    ("sw rate 0 at limit", 2, Some(10_001)),
    (CACHE, 2, Some(10_001)),
    (CACHE, 3, Some(10_001)),
    (CACHE, 4, Some(10_001)),
    (CACHE, 6, Some(15_001)),
    ("sw reset", 2, Some(10_001)),
    ("sw dynamic", 2, Some(10_001)),
    (BACKWARDS, 2, Some(20_001)),
];

/// The instant that the offsets of [`RETRIES`] count from.
const EPOCH_MS: u64 = 1_700_000_000_000;
const WINDOW_MS: u64 = 10_000;

/// One sequence under way: the limit, and a meter that counts what passed.
struct Replay {
    limit: RateLimit,
    account: Account,
    meter: Meter,
    ids: u32,
}

impl Replay {
    fn new(requests: u32, now: Timestamp) -> Self {
        let (account, meter) = first_seen(now);
        Self { limit: rate(requests, WINDOW_MS), account, meter, ids: 0 }
    }

    fn plan(&self) -> Plan {
        Plan { rate: self.limit, ..plan("free", u32::MAX, 1, 64) }
    }

    /// The instant that is decided at, and the counts of its window and of the one before.
    fn facts(&self, now: Timestamp) -> (Timestamp, u32, u32) {
        let now = now.max(self.meter.rate.newest.start(self.limit));
        let count = |window: Window| self.meter.rate.counts.get(&window).copied().unwrap_or(0);
        let window = self.limit.window(now);
        (now, count(window.previous()), count(window))
    }

    fn remaining(&self, now: Timestamp) -> u64 {
        let (now, previous, current) = self.facts(now);
        let taken = self.limit.weighted(now, previous) + u64::from(current);
        u64::from(self.limit.requests.get()).saturating_sub(taken)
    }

    /// Whether `cost` passes; it is counted if it does. A unit cost goes through the whole admission.
    fn limit(&mut self, now: Timestamp, cost: u32) -> bool {
        let (at, previous, current) = self.facts(now);
        let passes = self.limit.current_most(at, previous, cost).is_some_and(|most| current <= most);
        let before = self.meter.clone();
        if cost == 1 {
            assert_eq!(self.admit(now), passes, "the admission and the arithmetic differ");
        } else if passes {
            (0..cost).for_each(|_| assert!(self.admit(now), "a part of what passes does not pass"));
        }
        assert!(passes || self.meter == before, "F26: a denied request consumed something");
        passes
    }

    fn admit(&mut self, now: Timestamp) -> bool {
        self.ids += 1;
        let facts = (&self.account, &self.meter);
        let decision = decide(facts, &self.plan(), self.ids, exactly(1), now);
        decision.is_ok_and(|admission| self.meter.apply_admission(&admission))
    }
}

fn sequences() -> Vec<Value> {
    serde_json::from_str(GOLDEN).unwrap()
}

fn name(sequence: &Value) -> &str {
    sequence["name"].as_str().unwrap()
}

fn steps(sequence: &Value) -> &Vec<Value> {
    sequence["steps"].as_array().unwrap()
}

fn cost_of(step: &Value) -> Option<u32> {
    u32::try_from(step["arg"].as_i64().unwrap_or(1)).ok()
}

/// Replays one sequence; `see` is told each answer: step, the library's, and ours.
fn replay(sequence: &Value, mut see: impl FnMut(usize, &Value, Answer, &Replay)) {
    let steps = steps(sequence);
    let requests = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let at = |step: &Value| Timestamp::from_ms(step["t"].as_u64().unwrap());
    let configured = requests(&steps[0]["res"]["limit"]);
    let mut replay = Replay::new(configured, at(&steps[0]));
    for (number, step) in steps.iter().enumerate() {
        let now = at(step);
        let answer = match step["op"].as_str().unwrap() {
            "limit" => match cost_of(step) {
                Some(cost) => limited(replay.limit(now, cost), replay.remaining(now)),
                None => Answer::NotExpressible,
            },
            "remaining" => asked(replay.remaining(now)),
            // The library's way to forget a key. No product code does it: here the counts are the test's own.
            "reset" => {
                replay = Replay::new(configured, now);
                continue;
            }
            "dyn" => {
                let changed = step["arg"].as_u64().map_or(configured, |to| u32::try_from(to).unwrap());
                replay.limit.requests = NonZeroU32::new(changed).unwrap();
                continue;
            }
            other => panic!("{}: step {number} is a {other:?}, which nobody replays", name(sequence)),
        };
        see(number, &step["res"], answer, &replay);
    }
}

fn theirs(answer: &Value) -> Answer {
    Answer::Given { success: answer["success"].as_bool(), remaining: answer["remaining"].as_u64().unwrap() }
}

#[test]
fn f26_no_golden_sequence_is_skipped_without_being_named() {
    let all = sequences();
    let mut found: Vec<(&str, usize)> = all.iter().map(|s| (name(s), steps(s).len())).collect();
    found.retain(|(name, _)| !OTHER_ALGORITHMS.contains(name));
    assert_eq!(found, REPLAYED);
    assert_eq!(all.len(), REPLAYED.len() + OTHER_ALGORITHMS.len());
}

#[test]
fn f26_every_golden_step_answers_alike_but_for_the_deviations_on_purpose() {
    let mut seen = Vec::new();
    for sequence in sequences().iter().filter(|s| !OTHER_ALGORITHMS.contains(&name(s))) {
        replay(sequence, |number, answer, ours, _| {
            if ours != theirs(answer) {
                seen.push((name(sequence).to_owned(), number, ours));
            }
        });
    }
    let mut expected: Vec<_> =
        DEVIATIONS.iter().map(|(name, step, ours)| ((*name).to_owned(), *step, *ours)).collect();
    let order = |deviation: &(String, usize, Answer)| {
        (REPLAYED.iter().position(|(name, _)| *name == deviation.0), deviation.1)
    };
    expected.sort_by_key(order);
    assert_eq!(seen, expected);
}

#[test]
fn f26_a_refusal_names_the_first_instant_that_passes_instead_of_the_windows_end() {
    let mut seen = Vec::new();
    for sequence in sequences().iter().filter(|s| !OTHER_ALGORITHMS.contains(&name(s))) {
        let costs: Vec<_> = steps(sequence).iter().map(cost_of).collect();
        let instants: Vec<_> = steps(sequence).iter().map(|step| step["t"].as_u64().unwrap()).collect();
        replay(sequence, |number, answer, ours, replay| {
            if !matches!(ours, Answer::Given { success: Some(false), .. }) {
                return;
            }
            let cost = costs[number].unwrap();
            let (now, previous, current) = replay.facts(Timestamp::from_ms(instants[number]));
            let retry_at = replay.limit.earliest(now, previous, current, cost).map(Timestamp::ms);
            assert_eq!(retry_at, first_passing(replay, now, cost), "{}: {number}", name(sequence));
            assert_ne!(retry_at, answer["reset"].as_u64(), "{}: {number}", name(sequence));
            seen.push((name(sequence).to_owned(), number, retry_at.map(|at| at - EPOCH_MS)));
        });
    }
    // The second refusal of the lagging clock's sequence is the first one's twin.
    let last = seen.pop();
    assert_eq!(last, Some((BACKWARDS.to_owned(), 3, Some(20_001))));
    assert_eq!(seen, RETRIES.map(|(name, step, at)| (name.to_owned(), step, at)));
}

/// The first millisecond at which `cost` passes, found by looking at each in turn; none within two windows: never.
fn first_passing(replay: &Replay, from: Timestamp, cost: u32) -> Option<u64> {
    (from.ms()..=from.ms() + 2 * WINDOW_MS).find(|at| {
        let (_, previous, current) = replay.facts(Timestamp::from_ms(*at));
        let overlap = u64::from(previous) * (WINDOW_MS - at % WINDOW_MS) / WINDOW_MS;
        overlap + u64::from(current) + u64::from(cost) <= u64::from(replay.limit.requests.get())
    })
}
