//! The sliding window: its arithmetic against a search that looks at every millisecond, and its bound when many decide
//! at once, on facts out of date and by clocks that differ.

use crate::support::{WINDOW_MS, cases, decide, exactly, first_seen, plan, rate, start};
use domain::{Meter, RateLimit, Timestamp, Window};
use proptest::prelude::*;

/// One question to a window: limit, instant, and what the previous and the current window have counted.
#[derive(Clone, Copy, Debug)]
struct Case {
    limit: RateLimit,
    now: Timestamp,
    previous: u32,
    current: u32,
    cost: u32,
}

impl Case {
    /// Whether the cost passes at `at`, in this or a later window, if nothing else is counted: from the formula.
    fn passes(&self, at: u64) -> bool {
        let width = self.limit.window_ms.get();
        let (previous, current) = match at / width - self.now.ms() / width {
            0 => (self.previous, self.current),
            1 => (self.current, 0),
            _ => (0, 0),
        };
        let overlap = u64::from(previous) * (width - at % width) / width;
        overlap + u64::from(current) + u64::from(self.cost) <= u64::from(self.limit.requests.get())
    }
}

/// Windows of a length that a search can cross, with counts up to twice the limit: a limit can be lowered.
fn case() -> impl Strategy<Value = Case> {
    (1_u32..12, 1_u64..400, 0_u64..4_000).prop_flat_map(|(requests, width, now)| {
        (0..=2 * requests, 0..=2 * requests, 0..=requests + 1).prop_map(move |(previous, current, cost)| {
            Case { limit: rate(requests, width), now: Timestamp::from_ms(now), previous, current, cost }
        })
    })
}

/// One request: how much later than the one before, by a clock that lags how far, decided on facts how many writes old.
type Arrival = (u64, u64, usize);

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let later = prop_oneof![3 => 0_u64..500, 2 => 500_u64..WINDOW_MS];
    prop::collection::vec((later, 0_u64..2_000, 0_usize..4), 1..40)
}

#[test]
fn a_window_is_its_index_and_the_first_one_is_its_own_predecessor() {
    assert_eq!([0, 1, 7].map(|index| Window::from_index(index).index()), [0, 1, 7]);
    assert_eq!([0, 1, 7].map(|index| Window::from_index(index).previous().index()), [0, 0, 6]);
    let limit = rate(3, WINDOW_MS);
    assert_eq!(limit.window(Timestamp::from_ms(7 * WINDOW_MS - 1)).index(), 6);
    assert_eq!(Window::from_index(7).start(limit).ms(), 7 * WINDOW_MS);
}

#[test]
fn i5_a_cost_of_the_whole_limit_passes_at_once_and_one_above_it_never() {
    assert_eq!([3, 4].map(|cost| rate(3, WINDOW_MS).earliest(start(), 0, 0, cost)), [Some(start()), None]);
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn i5_the_first_instant_of_a_rate_window_is_the_one_a_search_finds(case in case()) {
        let Case { limit, now, previous, current, cost } = case;
        let earliest = limit.earliest(now, previous, current, cost).map(Timestamp::ms);
        let horizon = now.ms() + 3 * limit.window_ms.get();
        let found = (now.ms()..=horizon).find(|at| case.passes(*at));
        prop_assert_eq!(earliest, found);
        prop_assert_eq!(found.is_none(), cost > limit.requests.get());
    }

    #[test]
    fn i5_a_window_has_room_exactly_where_the_formula_has(case in case()) {
        let Case { limit, now, previous, current, cost } = case;
        let most = limit.current_most(now, previous, cost);
        prop_assert_eq!(most.is_some_and(|most| current <= most), case.passes(now.ms()));
        prop_assert!(limit.weighted(now, previous) <= u64::from(previous));
        let window = limit.window(now);
        prop_assert!(window.start(limit) <= now);
        prop_assert!(now.ms() - window.start(limit).ms() < limit.window_ms.get());
    }

    #[test]
    fn i1_no_window_weighs_more_than_its_limit_however_late_and_stale(
        requests in 1_u32..6, arrivals in arrivals(),
    ) {
        let plan = plan("free", 1_000, requests, 64);
        let (account, meter) = first_seen(start());
        let mut past: Vec<Meter> = vec![meter];
        let mut clock = start();
        for (number, (later, lag, age)) in (0_u32..).zip(arrivals) {
            clock = clock.plus_ms(later);
            let now = Timestamp::from_ms(clock.ms() - lag);
            let facts = &past[past.len().saturating_sub(1 + age)];
            let Ok(admission) = decide((&account, facts), &plan, number, exactly(1), now) else { continue };
            let mut meter = past.last().unwrap().clone();
            let newest = meter.rate.newest;
            if meter.apply_admission(&admission) {
                prop_assert!(newest <= admission.window);
                let at = now.max(admission.window.start(plan.rate));
                let count = |window| meter.rate.counts.get(&window).copied().unwrap_or(0);
                let weight = plan.rate.weighted(at, count(admission.window.previous()));
                prop_assert!(weight + u64::from(count(admission.window)) <= u64::from(requests));
                past.push(meter);
            }
        }
    }
}
