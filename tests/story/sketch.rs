//! The sketch that this project began with, written again from its description: counters in Redis, an hourly job that rounds the
//! difference up to thousands and tells Stripe. It knows one plan: Pro. Each of its defects can be mended, to see what the others cost.

use crate::story::{
    sums::{Price, period_end_s},
    town::{Bought, Served},
};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// F21: each report is rounded up to a thousand tokens.
    RoundsUp,
    /// F22: what was reported is one counter, that no period resets.
    Unscoped,
    /// F23: a crash between the call and the note of it sends again.
    SendsAgain,
    /// F24: nobody is ever put on the list of those to report.
    ReportsNobody,
}

/// What is wrong with its invoices in cents, charged too much and too little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) over_cents: i64,
    pub(crate) under_cents: i64,
}

type Period = (usize, i64);

/// Runs it over what was served: hourly until `until_s`, dying at `deaths_s`.
pub(crate) fn run(
    defects: &[Defect],
    bought: &BTreeMap<usize, Bought>,
    served: &[Served],
    (from_s, until_s): (i64, i64),
    deaths_s: &[i64],
) -> Wrong {
    let has = |defect| defects.contains(&defect);
    let period_of = |served: &Served| {
        let bought = bought.get(&served.who).filter(|bought| bought.joined_s <= served.at_s)?;
        Some((served.who, period_end_s(bought.joined_s, served.at_s)))
    };
    let (mut usage, mut reported) = (BTreeMap::<Period, i64>::new(), BTreeMap::<Period, i64>::new());
    let (mut active, mut stripe) = (BTreeSet::<usize>::new(), BTreeMap::<Period, i64>::new());
    let mut served = served.iter().peekable();
    for hour_s in (from_s + 3_600..=until_s).step_by(3_600) {
        while let Some(one) = served.next_if(|served| served.at_s < hour_s) {
            let Some(period) = period_of(one) else { continue };
            *usage.entry(period).or_default() += i64::try_from(one.tokens).unwrap();
            if !has(Defect::ReportsNobody) {
                active.insert(one.who);
            }
        }
        let mut dies = deaths_s.iter().any(|death_s| (hour_s - 3_600..hour_s).contains(death_s))
            && has(Defect::SendsAgain);
        for who in &active {
            // `usage` and, unless it is unscoped, `reported` are keyed by the period that is now, or that has just ended.
            let current = |at_s| (*who, period_end_s(bought[who].joined_s, at_s));
            let periods = if has(Defect::Unscoped) {
                vec![current(hour_s)]
            } else {
                vec![current(hour_s - 3_600), current(hour_s)]
            };
            for period in periods {
                let key = if has(Defect::Unscoped) { (*who, 0) } else { period };
                let used = usage.get(&period).copied().unwrap_or_default();
                let delta = used - reported.get(&key).copied().unwrap_or_default();
                if delta <= 0 {
                    continue;
                }
                let sent = if has(Defect::RoundsUp) { (delta + 999) / 1_000 * 1_000 } else { delta };
                *stripe.entry(period).or_default() += sent;
                if !std::mem::take(&mut dies) {
                    reported.insert(key, used);
                }
            }
        }
    }
    compare(&usage, &stripe)
}

fn compare(usage: &BTreeMap<Period, i64>, stripe: &BTreeMap<Period, i64>) -> Wrong {
    let cents = |of: &BTreeMap<Period, i64>, period| {
        Price::Pro.overage_cents(u64::try_from(of.get(period).copied().unwrap_or_default()).unwrap())
    };
    let differences = usage.keys().map(|period| cents(stripe, period) - cents(usage, period));
    differences.fold(Wrong::default(), |wrong, cents| Wrong {
        over_cents: wrong.over_cents + cents.max(0),
        under_cents: wrong.under_cents + (-cents).max(0),
    })
}
