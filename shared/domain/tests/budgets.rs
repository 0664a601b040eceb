//! F20: whatever several instances take from a budget, at any time, with leases whose answers are lost, a day never costs more
//! than its ceiling; and nobody is turned away while there is something left.

use crate::support::cases;
use domain::{Budget, Day, NanoUsd, Part, Pool, Slice, SliceAnswer, Spending, Take, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// An hour before midnight in UTC.
const START: Timestamp = Timestamp::from_s(1_795_561_200);
const INSTANCES: usize = 4;
/// More leases than one taking can need: each is refused once at the most, for nobody else asks meanwhile.
const LEASES_MAX: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// An instance wants so much; of its leases' answers, those are lost.
    Take { instance: usize, needed: u64, lost: Vec<bool> },
    /// The call that was begun first ends, and has cost so many parts of a hundred of what it was allowed to.
    End { percent: u64 },
    /// Time goes by, in milliseconds.
    Wait { ms: u64 },
    /// An instance dies, and another takes its place.
    Die { instance: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let instance = 0..INSTANCES;
    prop_oneof![
        6 => (instance.clone(), 1_u64..300, prop::collection::vec(prop::bool::weighted(0.1), 4))
            .prop_map(|(instance, needed, lost)| Step::Take { instance, needed, lost }),
        4 => (0_u64..=100).prop_map(|percent| Step::End { percent }),
        1 => (0_u64..2_000_000).prop_map(|ms| Step::Wait { ms }),
        1 => instance.prop_map(|instance| Step::Die { instance }),
    ]
}

/// What was taken and has not ended, by its instance and its generation.
struct Call {
    instance: usize,
    generation: u64,
    day: Day,
    part: Part,
}

struct World {
    budget: Budget,
    now: Timestamp,
    slices: Vec<(u64, Slice)>,
    items: BTreeMap<Day, Spending>,
    /// What is taken and not given back.
    taken: BTreeMap<Day, u64>,
    calls: Vec<Call>,
}

fn nano(amount: u64) -> NanoUsd {
    NanoUsd::new(amount).unwrap()
}

impl World {
    fn new(ceiling: u64) -> Self {
        let budget = Budget { pool: Pool::Everyone, ceiling: nano(ceiling) };
        let slices = (0..INSTANCES).map(|_| (0, Slice::new(budget))).collect();
        let (items, taken) = (BTreeMap::new(), BTreeMap::new());
        Self { budget, now: START, slices, items, taken, calls: Vec::new() }
    }

    fn leased(&self, day: Day) -> NanoUsd {
        self.items.get(&day).copied().unwrap_or_default().leased
    }

    fn take(&mut self, instance: usize, needed: u64, lost: &[bool]) {
        let day = Day::of(self.now);
        for lost in lost.iter().take(usize::try_from(LEASES_MAX).unwrap()) {
            let (generation, slice) = &mut self.slices[instance];
            let generation = *generation;
            match slice.take(nano(needed), self.now) {
                Take::Taken(part) => {
                    *self.taken.entry(day).or_default() += needed;
                    self.calls.push(Call { instance, generation, day, part });
                    return;
                }
                Take::UsedUp { resets_at } => {
                    assert_eq!(resets_at, day.end());
                    let all = self.leased(day) == self.budget.ceiling;
                    assert!(
                        all || needed > self.budget.ceiling.get(),
                        "turned away while something was left"
                    );
                    return;
                }
                Take::Lease(ask) => {
                    assert!(ask.amount > NanoUsd::ZERO && ask.day == day);
                    let item = self.items.entry(ask.day).or_default();
                    let leased = item.apply_lease(&ask);
                    let answer =
                        if leased { SliceAnswer::Leased(*item) } else { SliceAnswer::Refused(*item) };
                    if !lost {
                        slice.answered(&ask, &answer);
                    }
                }
            }
        }
        assert!(lost.contains(&true), "still asking after {LEASES_MAX} leases");
    }

    fn end(&mut self, percent: u64) {
        if self.calls.is_empty() {
            return;
        }
        let Call { instance, generation, day, part } = self.calls.remove(0);
        let cost = part.amount().get() * percent / 100;
        let (now_alive, slice) = &mut self.slices[instance];
        // The call of a process that died gives nothing back.
        if *now_alive != generation {
            return;
        }
        let (before, unused) = (slice.left(), part.amount().get() - cost);
        slice.give_back(part, nano(cost));
        if slice.left() > before {
            *self.taken.get_mut(&day).unwrap() -= unused;
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Take { instance, needed, lost } => self.take(*instance, *needed, lost),
            Step::End { percent } => self.end(*percent),
            Step::Wait { ms } => self.now = self.now.plus_ms(*ms),
            Step::Die { instance } => {
                let (generation, slice) = &mut self.slices[*instance];
                (*generation, *slice) = (*generation + 1, Slice::new(self.budget));
            }
        }
        for (day, taken) in &self.taken {
            let leased = self.leased(*day);
            assert!(nano(*taken) <= leased, "{taken} are taken on {day}, and {leased:?} leased");
            assert!(leased <= self.budget.ceiling, "{leased:?} are leased on {day}");
        }
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn f20_no_day_costs_more_than_its_ceiling_and_nobody_is_turned_away_before(
        ceiling in prop_oneof![Just(0_u64), 1_u64..2_000, 2_000_u64..200_000],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(ceiling);
        for step in &steps {
            world.step(step);
        }
    }
}
