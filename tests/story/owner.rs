//! The figures as the owner would see them.

use crate::story::{
    calendar::{midnight, shown},
    sums::{Due, ends_s, plan_at},
    town::{Bought, Town},
};
/// Ten millions of nano-dollars are a cent.
const NANO_USD_PER_CENT: u64 = 10_000_000;

fn usd(cents: i64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

fn is_subscribed(bought: &Bought, at_s: i64) -> bool {
    bought.joined_s <= at_s && ends_s(bought).is_none_or(|ends_s| ends_s > at_s)
}

/// Prints month by month what came in and what went out.
pub(crate) fn tell(town: &Town, due: &[Due]) {
    let months = [midnight(2028, 1, 1), midnight(2028, 2, 1), midnight(2028, 3, 1)];
    for (from_s, to_s) in months.windows(2).map(|pair| (pair[0], pair[1])) {
        let subscribed = |at_s| town.bought.values().filter(|bought| is_subscribed(bought, at_s)).count();
        let left =
            town.bought.values().filter(|b| ends_s(b).is_some_and(|s| (from_s..to_s).contains(&s))).count();
        let (before, after) = (subscribed(from_s), subscribed(to_s - 1));
        let at_the_end = town.bought.values().filter(|bought| is_subscribed(bought, to_s - 1));
        let mrr = at_the_end.map(|bought| plan_at(bought, to_s - 1).0.base_cents()).sum();
        let of_month = due.iter().filter(|due| (from_s..to_s).contains(&due.to_s));
        let (base, overage) = of_month.fold((0, 0), |(b, o), due| {
            (b + due.base_cents + due.proration_cents.unwrap_or(0), o + due.overage_cents)
        });
        let cost = cost_cents(town, from_s, to_s);
        let revenue = base + overage;
        println!(
            "{}: {after} subscribers (+{}, -{left}); MRR {}; invoiced {} base + {} metered; provider {}; gross margin {}.{}%; \
             churn {}.{}%",
            &shown(from_s)[..7],
            after + left - before,
            usd(mrr),
            usd(base),
            usd(overage),
            usd(cost),
            (revenue - cost) * 100 / revenue,
            (revenue - cost) * 1_000 / revenue % 10,
            left * 100 / (before + after).max(1),
            left * 1_000 / (before + after).max(1) % 10,
        );
    }
}

/// What the provider took, by the receipts.
fn cost_cents(town: &Town, from_s: i64, to_s: i64) -> i64 {
    let range = u64::try_from(from_s).unwrap()..u64::try_from(to_s).unwrap();
    let kept = town.store.kept();
    let of_month = kept.receipts.values().filter(|receipt| range.contains(&receipt.at.s()));
    let nano: u64 = of_month.map(|receipt| receipt.cost.get()).sum();
    i64::try_from(nano / NANO_USD_PER_CENT).unwrap()
}
