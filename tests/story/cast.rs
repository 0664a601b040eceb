//! Who does what and when: two months of 182 subscribers, drawn from one seed, so that every run is the same.

use crate::story::calendar::{DAY_S, HOUR_S, midnight};
use fastrand::Rng;

/// Those who subscribe.
pub(crate) const PEOPLE: usize = 182;
/// January and February of a leap year.
pub(crate) const DAYS: i64 = 31 + 29;
/// Days after them, so that every invoice of the two months is final: a period, the days that Stripe may wait, and some.
pub(crate) const DAYS_AFTER: i64 = 31 + 5;

/// When it begins, in Unix seconds.
pub(crate) fn begin_s() -> i64 {
    midnight(2028, 1, 1)
}

/// How much somebody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A post now and then.
    Light,
    /// Something every day.
    Daily,
    /// A shop with many products.
    Shop,
    /// Writes for others, all day.
    Agency,
}

impl Kind {
    fn of(number: usize) -> Self {
        match number % 26 {
            0 | 13 => Self::Agency,
            1..=4 => Self::Shop,
            5..=12 => Self::Daily,
            _ => Self::Light,
        }
    }

    /// Requests of ten days.
    fn requests_of_ten_days(self) -> u64 {
        match self {
            Self::Light => 2,
            Self::Daily => 9,
            Self::Shop => 30,
            Self::Agency => 80,
        }
    }

    /// The most tokens of a prompt and of an answer.
    fn tokens(self) -> (u32, u32) {
        match self {
            Self::Light => (300, 500),
            Self::Daily => (1_500, 900),
            Self::Shop => (9_000, 1_000),
            Self::Agency => (26_000, 1_000),
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// Somebody looks at the page where Pro is bought, and does not pay yet.
    Shop(usize),
    /// Somebody pays there.
    Join(usize),
    /// Somebody cancels, for the end of the period.
    CancelAtEnd(usize),
    /// Somebody cancels, at once, with a last invoice.
    CancelNow(usize),
    /// Somebody has a text written.
    Ask {
        /// Who.
        who: usize,
        /// What the provider counts for the prompt.
        prompt: u32,
        /// And for the answer.
        answer: u32,
        /// The browser is closed in the middle of it.
        leaves: bool,
    },
    /// Somebody changes to the agency plan, or back to Pro, in the middle of a period.
    ChangePlan {
        /// Who.
        who: usize,
        /// To the agency plan.
        to_agency: bool,
    },
    /// From now on somebody's card works, or does not.
    Card {
        /// Who.
        who: usize,
        /// Whether it works.
        works: bool,
    },
    /// Somebody disputes the latest invoice that was paid.
    Dispute(usize),
    /// From now on Stripe's API answers nobody, or everybody again.
    StripeDown(bool),
    /// From now on the webhook's endpoint takes nothing, or everything again.
    EndpointDown(bool),
    /// The scheduled reporter.
    Report,
    /// The scheduled reporter, whose process dies after a report has reached Stripe and before anybody has noted it.
    ReportAndDie,
}

/// When, in Unix seconds, and what.
pub(crate) type Plan = Vec<(i64, Deed)>;

/// When somebody joins: a third within the first day, then two or three each day, at any second.
fn joins_s(number: usize, dice: &mut Rng) -> i64 {
    let day = if number < PEOPLE / 3 { 0 } else { 1 + i64::try_from(number).unwrap() % (DAYS - 1) };
    begin_s() + day * DAY_S + dice.i64(60..DAY_S - 60)
}

/// What somebody does about his purchase: he looks at the page to pay on, and some try the free plan first. Who buys on the day
/// on which nobody is told of it writes something all the same.
fn hesitates(who: usize, joined_s: i64, plan: &mut Plan) {
    let looks_s = joined_s - 20 - i64::try_from(who % 40).unwrap();
    plan.push((looks_s, Deed::Shop(who)));
    if who.is_multiple_of(5) {
        plan.push((looks_s + 10, Deed::Ask { who, prompt: 200, answer: 40, leaves: false }));
    }
    if (joined_s - begin_s()) / DAY_S == LOST_DAY {
        plan.push((joined_s + 600, Deed::Ask { who, prompt: 400, answer: 80, leaves: false }));
    }
}

/// When somebody cancels, and how: one on each day after the tenth.
fn leaves(number: usize, joined_s: i64, dice: &mut Rng) -> Option<(i64, Deed)> {
    let day = i64::try_from(number).unwrap() + 10;
    let at_s = begin_s() + day * DAY_S + dice.i64(60..DAY_S - 60);
    let cancel = if number.is_multiple_of(3) { Deed::CancelNow(number) } else { Deed::CancelAtEnd(number) };
    (day < DAYS && at_s > joined_s + DAY_S).then_some((at_s, cancel))
}

/// Those who change to the agency plan, on which day, and on which day back if ever.
const CHANGES: [(usize, i64, Option<i64>); 6] =
    [(0, 9, None), (26, 17, Some(44)), (52, 22, None), (54, 30, None), (78, 41, None), (104, 48, Some(56))];
/// Whose card fails from when on, and when it works again if ever. A subscription whose invoice is never paid is canceled 15 days
/// after it.
const CARDS: [(usize, i64, Option<i64>); 6] = [
    (55, 15, Some(33)),
    (56, 20, Some(36)),
    (57, 12, None),
    (58, 14, Some(45)),
    (79, 29, None),
    (105, 49, Some(58)),
];
/// Who disputes on which day.
const DISPUTES: [(usize, i64); 3] = [(59, 35), (60, 41), (130, 50)];

/// The days of the two outages of Stripe, in hours from the beginning, from and to. The second is longer than an identifier
/// may be sent again.
const OUTAGES_H: [(i64, i64); 2] = [(11 * 24 + 9, 11 * 24 + 16), (37 * 24 + 20, 39 * 24 + 3)];
/// The day on which no webhook is taken.
const LOST_DAY: i64 = 25;
/// The days on which a reporter dies.
pub(crate) const DEATHS: [i64; 4] = [6, 20, 33, 52];

/// Everything that happens, in order.
pub(crate) fn plan() -> Plan {
    let mut dice = Rng::with_seed(2_028);
    let mut plan = Plan::new();
    for who in 0..PEOPLE {
        let joined_s = joins_s(who, &mut dice);
        hesitates(who, joined_s, &mut plan);
        plan.push((joined_s, Deed::Join(who)));
        let stays =
            CHANGES.iter().any(|(other, ..)| *other == who) || CARDS.iter().any(|(other, ..)| *other == who);
        let left = leaves(who, joined_s, &mut dice).filter(|_| !stays);
        let until_s = match left {
            Some((at_s, Deed::CancelNow(_))) => at_s,
            Some(_) | None => begin_s() + DAYS * DAY_S,
        };
        plan.extend(left);
        asks(who, (joined_s + 60, until_s - 60), &mut dice, &mut plan);
    }
    let on = |day: i64, dice: &mut Rng| begin_s() + day * DAY_S + dice.i64(60..DAY_S - 60);
    for (who, day, back) in CHANGES {
        plan.push((on(day, &mut dice), Deed::ChangePlan { who, to_agency: true }));
        plan.extend(back.map(|day| (on(day, &mut dice), Deed::ChangePlan { who, to_agency: false })));
    }
    for (who, day, again) in CARDS {
        plan.push((on(day, &mut dice), Deed::Card { who, works: false }));
        plan.extend(again.map(|day| (on(day, &mut dice), Deed::Card { who, works: true })));
    }
    plan.extend(DISPUTES.map(|(who, day)| (on(day, &mut dice), Deed::Dispute(who))));
    for hour in 1..=DAYS * 24 {
        let dies = hour % 24 == 15 && DEATHS.contains(&(hour / 24));
        plan.push((begin_s() + hour * HOUR_S, if dies { Deed::ReportAndDie } else { Deed::Report }));
    }
    // Afterwards nobody writes, and few runs show as much as many.
    for run in 1..=DAYS_AFTER * 4 {
        plan.push((begin_s() + DAYS * DAY_S + run * 6 * HOUR_S, Deed::Report));
    }
    for (from_h, to_h) in OUTAGES_H {
        plan.push((begin_s() + from_h * HOUR_S + 1, Deed::StripeDown(true)));
        plan.push((begin_s() + to_h * HOUR_S + 1, Deed::StripeDown(false)));
    }
    plan.push((begin_s() + LOST_DAY * DAY_S, Deed::EndpointDown(true)));
    plan.push((begin_s() + (LOST_DAY + 1) * DAY_S, Deed::EndpointDown(false)));
    plan.sort_unstable();
    plan
}

fn asks(who: usize, (from_s, until_s): (i64, i64), dice: &mut Rng, plan: &mut Plan) {
    let kind = Kind::of(who);
    let mean_s = u64::try_from(10 * DAY_S).unwrap() / kind.requests_of_ten_days();
    let (prompt_most, answer_most) = kind.tokens();
    let mut at_s = from_s + i64::try_from(dice.u64(0..mean_s)).unwrap();
    while at_s < until_s {
        let (prompt, answer) = (dice.u32(prompt_most / 4..=prompt_most), dice.u32(1..=answer_most));
        plan.push((at_s, Deed::Ask { who, prompt, answer, leaves: dice.u32(0..20) == 0 }));
        at_s += i64::try_from(dice.u64(mean_s / 10..mean_s * 19 / 10)).unwrap();
    }
}
