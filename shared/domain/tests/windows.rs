//! The sliding window's arithmetic against a search that looks at every millisecond.

use crate::support::{cases, rate};
use domain::{RateLimit, Timestamp};
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
}
