//! The owner's budgets: the most that the provider may cost in one day, for everybody together and for all who pay nothing.
//!
//! A day's budget is one item of the ledger, which says how much of it is leased. Every instance of a function leases *slices*
//! of it, and takes from its slice the most that a call can cost before that call is made; what the call did not cost goes back
//! to the slice. So the item is written seldom, and what was spent is never more than what was leased, which is never more than
//! the budget. A slice that nobody gives back is lost for its day, and worth nothing on the next.

use crate::{Account, NanoUsd, Timestamp};
use std::fmt;

const MS_PER_DAY: u64 = 86_400_000;
/// A slice is this part of its budget at the most, unless one request needs more.
const SLICES_MIN: u64 = 200;
/// How many requests as its first one an instance leases for at first. What it leases then is as much as it has leased before:
/// so an instance that serves a few requests keeps little from the others, and one that serves many asks seldom.
const FIRST_REQUESTS: u64 = 4;
const PERCENT: u128 = 100;

/// Whose budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// That of all users without a subscription: a thousand accounts that nobody pays for share it.
    Trial,
    /// Everybody's, those users' too.
    Everyone,
}

impl Pool {
    /// The pools that a request of this account takes from, in this order.
    pub fn of(account: &Account) -> &'static [Self] {
        if account.subscription.is_some() { &[Self::Everyone] } else { &[Self::Trial, Self::Everyone] }
    }

    /// Its name, stable for ever.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Everyone => "everyone",
        }
    }
}

/// A day in UTC, by its number since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u64);

impl Day {
    /// The day of this instant.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.ms() / MS_PER_DAY)
    }

    /// Its first instant.
    pub const fn start(self) -> Timestamp {
        Timestamp::from_ms(self.0.saturating_mul(MS_PER_DAY))
    }

    /// The first instant after it.
    pub const fn end(self) -> Timestamp {
        self.start().plus_ms(MS_PER_DAY)
    }
}

impl fmt::Display for Day {
    /// `YYYY-MM-DD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DATE_CHARS: usize = 10;
        write!(f, "{:.DATE_CHARS$}", self.start().to_string())
    }
}

/// How much of a budget is leased that its owner is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// 50 %.
    Half,
    /// 80 %.
    FourFifths,
    /// All of it: from here on requests are refused.
    All,
}

impl Level {
    /// All of them, the lowest first.
    pub const EVERY: [Self; 3] = [Self::Half, Self::FourFifths, Self::All];

    /// The level in percent.
    pub const fn percent(self) -> u8 {
        match self {
            Self::Half => 50,
            Self::FourFifths => 80,
            Self::All => 100,
        }
    }

    /// The level of so many percent; none where that is no level.
    pub fn from_percent(percent: u64) -> Option<Self> {
        Self::EVERY.into_iter().find(|level| u64::from(level.percent()) == percent)
    }
}

/// The most that a pool may cost in a day; zero: nothing may be asked for in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Whose.
    pub pool: Pool,
    /// How much.
    pub ceiling: NanoUsd,
}

/// One day of one pool, as the ledger has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// The sum of all slices that were leased.
    pub leased: NanoUsd,
    /// The highest level that the owner was told of.
    pub told: Option<Level>,
}

impl Spending {
    /// The levels of this ceiling that are reached and that the owner was not told of, the lowest first.
    pub fn untold(&self, ceiling: NanoUsd) -> Vec<Level> {
        let leased = u128::from(self.leased.get()).saturating_mul(PERCENT);
        let reached =
            |level: &Level| leased >= u128::from(ceiling.get()).saturating_mul(u128::from(level.percent()));
        Level::EVERY.into_iter().filter(reached).filter(|level| self.told < Some(*level)).collect()
    }

    /// Leases a slice, unless more than its ceiling would then be leased. Whether it did.
    pub fn apply_lease(&mut self, ask: &SliceAsk) -> bool {
        let fits = ask.leased_most().is_some_and(|most| self.leased <= most);
        if fits {
            self.leased = self.leased.saturating_add(ask.amount);
        }
        fits
    }

    /// Notes that the owner was told of a level, unless a higher one was noted. Whether it did.
    pub fn apply_told(&mut self, level: Level) -> bool {
        let higher = self.told < Some(level);
        if higher {
            self.told = Some(level);
        }
        higher
    }
}

/// A slice that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceAsk {
    /// Of whose budget.
    pub pool: Pool,
    /// Of which day.
    pub day: Day,
    /// How much.
    pub amount: NanoUsd,
    /// The most that may be leased with it.
    pub ceiling: NanoUsd,
}

impl SliceAsk {
    /// The most that may be leased before it; none where it is more than its ceiling.
    pub fn leased_most(&self) -> Option<NanoUsd> {
        (self.amount <= self.ceiling).then(|| self.ceiling.saturating_sub(self.amount))
    }
}

/// What the ledger says to that, with its item as it is then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceAnswer {
    /// It is leased.
    Leased(Spending),
    /// Nothing is: less is left.
    Refused(Spending),
}

impl SliceAnswer {
    /// The item.
    pub const fn spending(&self) -> &Spending {
        match self {
            Self::Leased(spending) | Self::Refused(spending) => spending,
        }
    }
}

/// What was taken from a slice for one call.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not given back counts as spent"]
pub struct Part {
    day: Day,
    amount: NanoUsd,
}

impl Part {
    /// How much.
    pub const fn amount(&self) -> NanoUsd {
        self.amount
    }
}

/// What taking from a slice came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Take {
    /// Taken.
    Taken(Part),
    /// The slice has too little, and this is to be leased first. Nothing was taken.
    Lease(SliceAsk),
    /// The budget has too little. Nothing was taken.
    UsedUp {
        /// When the next day begins.
        resets_at: Timestamp,
    },
}

/// What one instance has leased of one budget and not spent. It is of one day, which only moves on.
#[derive(Debug)]
pub struct Slice {
    budget: Budget,
    day: Day,
    left: NanoUsd,
    /// What this instance has leased of the day.
    leased: NanoUsd,
    /// What the ledger can still lease at the most: it never leases less than it has, so that this never rises in a day, and
    /// whoever finds it too small need not ask.
    room: NanoUsd,
}

impl Slice {
    /// An empty one.
    pub const fn new(budget: Budget) -> Self {
        let room = budget.ceiling;
        Self { budget, day: Day::of(Timestamp::from_ms(0)), left: NanoUsd::ZERO, leased: NanoUsd::ZERO, room }
    }

    /// Takes `needed`, or says what has to be leased first, or that the day's budget has not got it.
    pub fn take(&mut self, needed: NanoUsd, now: Timestamp) -> Take {
        if Day::of(now) > self.day {
            *self = Self { day: Day::of(now), ..Self::new(self.budget) };
        }
        if needed <= self.left {
            self.left = self.left.saturating_sub(needed);
            return Take::Taken(Part { day: self.day, amount: needed });
        }
        let Budget { pool, ceiling } = self.budget;
        // Whoever needs more than the whole must not take the rest from those who need less.
        if self.room == NanoUsd::ZERO || needed > ceiling {
            return Take::UsedUp { resets_at: self.day.end() };
        }
        let first = self.leased.max(times(needed, FIRST_REQUESTS));
        let usual = first.min(part(ceiling, SLICES_MIN));
        // The last of a budget is leased though it is too little: then all of it is, which everybody sees at once.
        let amount = usual.max(needed.saturating_sub(self.left)).min(self.room);
        Take::Lease(SliceAsk { pool, day: self.day, amount, ceiling })
    }

    /// Adds what was leased, and learns how much is left. What was leased for a day that is over is lost.
    pub fn answered(&mut self, ask: &SliceAsk, answer: &SliceAnswer) {
        if ask.day != self.day {
            return;
        }
        self.room = self.room.min(ask.ceiling.saturating_sub(answer.spending().leased));
        if let SliceAnswer::Leased(_) = answer {
            self.left = self.left.saturating_add(ask.amount);
            self.leased = self.leased.saturating_add(ask.amount);
        }
    }

    /// Gives back what a call did not cost; into a new day nothing comes back. What it cost above its part, for a provider wrote
    /// more than it was allowed to, is taken from the slice as far as that goes.
    #[expect(clippy::needless_pass_by_value, reason = "a part is given back once, and then it is gone")]
    pub fn give_back(&mut self, part: Part, cost: NanoUsd) {
        let Part { day, amount } = part;
        if day == self.day {
            self.left = self.left.saturating_add(amount).saturating_sub(cost);
        }
    }

    /// What can be taken from it on its day.
    pub const fn left(&self) -> NanoUsd {
        self.left
    }
}

fn times(amount: NanoUsd, factor: u64) -> NanoUsd {
    NanoUsd::new(amount.get().saturating_mul(factor)).unwrap_or(NanoUsd::MAX)
}

/// A part of an amount, rounded down.
fn part(amount: NanoUsd, of: u64) -> NanoUsd {
    amount.get().checked_div(of).and_then(|nano| NanoUsd::new(nano).ok()).unwrap_or(NanoUsd::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PlanId, SubscriptionId, UserId};

    const NOW: Timestamp = Timestamp::from_s(1_795_518_000);

    fn nano(amount: u64) -> NanoUsd {
        NanoUsd::new(amount).unwrap()
    }

    fn slice(ceiling: u64) -> Slice {
        Slice::new(Budget { pool: Pool::Trial, ceiling: nano(ceiling) })
    }

    fn ask(take: &Take) -> SliceAsk {
        let Take::Lease(ask) = take else { panic!("{take:?}") };
        *ask
    }

    fn taken(take: Take) -> Part {
        let Take::Taken(part) = take else { panic!("{take:?}") };
        part
    }

    /// Leases what is asked for from an item of its own.
    fn lease(slice: &mut Slice, item: &mut Spending, needed: u64, now: Timestamp) -> u64 {
        let ask = ask(&slice.take(nano(needed), now));
        let answer = if item.apply_lease(&ask) { SliceAnswer::Leased } else { SliceAnswer::Refused };
        slice.answered(&ask, &answer(*item));
        ask.amount.get()
    }

    #[test]
    fn a_day_ends_at_midnight_in_utc_and_is_written_as_a_date() {
        let day = Day::of(NOW);
        assert_eq!(day.to_string(), "2026-11-24");
        assert_eq!(day.start().to_string(), "2026-11-24T00:00:00.000Z");
        assert_eq!(day.end().to_string(), "2026-11-25T00:00:00.000Z");
        assert_eq!([Day::of(day.start()), Day::of(Timestamp::from_ms(day.end().ms() - 1))], [day, day]);
        assert!(Day::of(day.end()) > day);
    }

    #[test]
    fn f20_whoever_pays_nothing_takes_from_both_pools_and_whoever_pays_from_one() {
        let user = UserId::parse("user_1").unwrap();
        let free = Account::first_seen(user, PlanId::parse("free").unwrap(), NOW);
        assert_eq!(Pool::of(&free), [Pool::Trial, Pool::Everyone]);
        let paying = Account { subscription: Some(SubscriptionId::parse("sub_1").unwrap()), ..free };
        assert_eq!(Pool::of(&paying), [Pool::Everyone]);
    }

    #[test]
    fn a_slice_begins_small_doubles_and_ends_at_its_part_of_the_budget() {
        let (mut slice, mut item) = (slice(20_000), Spending::default());
        let mut leased = Vec::new();
        for _ in 0..6 {
            leased.push(lease(&mut slice, &mut item, 5, NOW));
            while let Take::Taken(_) = slice.take(nano(5), NOW) {}
        }
        assert_eq!(leased, [20, 20, 40, 80, 100, 100]);
        assert_eq!(lease(&mut slice, &mut item, 101, NOW), 101, "at least what one request needs");
    }

    #[test]
    fn f20_the_last_of_a_budget_is_leased_and_then_nobody_asks_any_more() {
        let (mut slice, mut item) = (slice(10), Spending::default());
        assert_eq!(lease(&mut slice, &mut item, 4, NOW), 4);
        let part = taken(slice.take(nano(4), NOW));
        assert_eq!(lease(&mut slice, &mut item, 7, NOW), 6, "less than is needed, and the last of it");
        let resets_at = Day::of(NOW).end();
        assert_eq!(slice.take(nano(7), NOW), Take::UsedUp { resets_at });
        slice.give_back(part, nano(3));
        let _: Part = taken(slice.take(nano(7), NOW));
        assert_eq!(slice.take(nano(1), NOW), Take::UsedUp { resets_at });
        assert_eq!(item.leased, nano(10));
    }

    #[test]
    fn f20_a_refused_lease_says_how_much_is_left_and_that_is_asked_for_next() {
        let mut slice = slice(2_000);
        let first = ask(&slice.take(nano(10), NOW));
        let others = Spending { leased: nano(1_995), told: None };
        slice.answered(&first, &SliceAnswer::Refused(others));
        assert_eq!(slice.left(), NanoUsd::ZERO);
        assert_eq!(ask(&slice.take(nano(10), NOW)).amount, nano(5));
        slice.answered(&first, &SliceAnswer::Refused(Spending { leased: nano(2_000), told: None }));
        assert!(matches!(slice.take(nano(1), NOW), Take::UsedUp { .. }));
    }

    #[test]
    fn f20_yesterdays_slice_part_and_lease_are_worth_nothing_today() {
        let (mut slice, mut item) = (slice(1_000), Spending::default());
        lease(&mut slice, &mut item, 5, NOW);
        let part = taken(slice.take(nano(5), NOW));
        let late = ask(&slice.take(nano(900), NOW));
        let tomorrow = Day::of(NOW).end();
        assert_eq!(ask(&slice.take(nano(5), tomorrow)).day, Day::of(tomorrow));
        slice.give_back(part, NanoUsd::ZERO);
        slice.answered(&late, &SliceAnswer::Leased(Spending { leased: nano(1_000), told: None }));
        assert_eq!(slice.left(), NanoUsd::ZERO);
        // A clock that is a little behind does not bring yesterday back.
        assert_eq!(ask(&slice.take(nano(5), NOW)).day, Day::of(tomorrow));
    }

    #[test]
    fn f20_a_budget_of_nothing_refuses_without_asking_and_so_does_one_that_is_too_small() {
        assert!(matches!(slice(0).take(nano(1), NOW), Take::UsedUp { .. }));
        assert!(matches!(slice(9).take(nano(10), NOW), Take::UsedUp { .. }));
        assert_eq!(ask(&slice(10).take(nano(10), NOW)).amount, nano(10));
    }

    #[test]
    fn what_a_call_cost_above_its_part_is_taken_from_the_slice() {
        let (mut slice, mut item) = (slice(100_000), Spending::default());
        lease(&mut slice, &mut item, 10, NOW);
        let part = taken(slice.take(nano(10), NOW));
        slice.give_back(part, nano(15));
        assert_eq!(slice.left(), nano(25));
        let part = taken(slice.take(nano(10), NOW));
        slice.give_back(part, nano(1_000));
        assert_eq!(slice.left(), NanoUsd::ZERO);
    }

    #[test]
    fn f20_the_owner_is_told_of_each_level_once_it_is_reached() {
        let untold = |leased, told| {
            let levels = Spending { leased: nano(leased), told }.untold(nano(1_000));
            levels.into_iter().map(Level::percent).collect::<Vec<_>>()
        };
        assert_eq!(untold(499, None), []);
        assert_eq!(untold(500, None), [50]);
        assert_eq!(untold(999, None), [50, 80]);
        assert_eq!(untold(1_000, Some(Level::Half)), [80, 100]);
        assert_eq!(untold(1_000, Some(Level::All)), []);
        let mut item = Spending::default();
        assert!(item.apply_told(Level::FourFifths) && !item.apply_told(Level::Half));
        assert_eq!(item.told, Some(Level::FourFifths));
        assert_eq!(
            Level::EVERY.map(|level| Level::from_percent(level.percent().into())),
            Level::EVERY.map(Some)
        );
        assert_eq!(Level::from_percent(51), None);
    }
}
