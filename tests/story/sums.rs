//! What every invoice has to say, reckoned from what was served and what was bought, without any of the product's code: not its
//! periods, not its prices, not its meters.

use crate::story::{
    calendar::{months_after, shown},
    town::{Bought, Ended, Served},
};
use local::stripe::InvoiceView;

/// Longer than any story.
const MONTHS_MAX: i64 = 120;

/// What a plan costs, as it is on the price list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Price {
    /// $20 with 500,000 tokens, then $0.002 for 1,000.
    Pro,
    /// $99 with 5,000,000 tokens, then $0.0015 for 1,000.
    Agency,
}

impl Price {
    pub(crate) fn base_cents(self) -> i64 {
        match self {
            Self::Pro => 2_000,
            Self::Agency => 9_900,
        }
    }

    /// A thousand tokens cost 0.2 or 0.15 cents: a token so many hundred-thousandths of a cent. The sum is rounded once, half up.
    pub(crate) fn overage_cents(self, tokens: u64) -> i64 {
        let (included, price) = match self {
            Self::Pro => (500_000, 20),
            Self::Agency => (5_000_000, 15),
        };
        i64::try_from((tokens.saturating_sub(included) * price + 50_000) / 100_000).unwrap()
    }
}

/// What a subscription's invoice has to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The period whose usage it bills.
    pub(crate) from_s: i64,
    pub(crate) to_s: i64,
    pub(crate) tokens: u64,
    pub(crate) overage_cents: i64,
    /// The next period's flat price.
    pub(crate) base_cents: i64,
    /// What changes of plan gave back and billed, if there were any.
    pub(crate) proration_cents: Option<i64>,
}

impl Due {
    pub(crate) fn total_cents(&self) -> i64 {
        self.overage_cents + self.base_cents + self.proration_cents.unwrap_or(0)
    }

    pub(crate) fn shown(&self) -> String {
        format!(
            "{} to {}: {} tokens, {} cents",
            shown(self.from_s),
            shown(self.to_s),
            self.tokens,
            self.total_cents()
        )
    }
}

/// The end of the period that holds `at_s`.
pub(crate) fn period_end_s(anchor_s: i64, at_s: i64) -> i64 {
    (1..=MONTHS_MAX).map(|months| months_after(anchor_s, months)).find(|end_s| *end_s > at_s).unwrap()
}

/// When a subscription ends, if it does.
pub(crate) fn ends_s(bought: &Bought) -> Option<i64> {
    bought.ended.map(|ended| match ended {
        Ended::Now(at_s) | Ended::ByStripe(at_s) => at_s,
        Ended::AtEnd(asked_s) => period_end_s(bought.joined_s, asked_s),
    })
}

/// Half away from zero.
fn share(cents: i64, part: i64, whole: i64) -> i64 {
    (cents * part * 2 + whole) / (whole * 2)
}

/// The plan at a time, and from then on until when.
pub(crate) fn plan_at(bought: &Bought, at_s: i64) -> (Price, i64) {
    let since = bought.plans.iter().rev().find(|(since_s, _)| *since_s <= at_s).unwrap().1;
    (
        since,
        bought.plans.iter().map(|(since_s, _)| *since_s).find(|since_s| *since_s > at_s).unwrap_or(i64::MAX),
    )
}

fn tokens_in(served: &[Served], from_s: i64, to_s: i64) -> u64 {
    served.iter().filter(|served| (from_s..to_s).contains(&served.at_s)).map(|served| served.tokens).sum()
}

/// What was used and changed from `from_s` until `to_s`, within a period that would end at `whole_s`.
fn of_period(bought: &Bought, served: &[Served], (from_s, to_s, whole_s): (i64, i64, i64)) -> Due {
    let mut due = Due { from_s, to_s, tokens: tokens_in(served, from_s, to_s), ..Due::default() };
    let (mut at_s, mut billed) = (from_s, (plan_at(bought, from_s).0.base_cents(), from_s));
    loop {
        let (price, until_s) = plan_at(bought, at_s);
        due.overage_cents += price.overage_cents(tokens_in(served, at_s, until_s.min(to_s)));
        if until_s >= to_s {
            return due;
        }
        let left_s = whole_s - until_s;
        let back = share(billed.0, left_s, whole_s - billed.1);
        let rest = share(plan_at(bought, until_s).0.base_cents(), left_s, whole_s - from_s);
        due.proration_cents = Some(due.proration_cents.unwrap_or(0) + rest - back);
        (at_s, billed) = (until_s, (rest, until_s));
    }
}

/// The invoices of one subscription that are made until `until_s`, oldest first; and what no invoice is made for, because Stripe
/// ended it in the middle of a period.
pub(crate) fn due(bought: &Bought, served: &[Served], until_s: i64) -> (Vec<Due>, Option<Due>) {
    let at = bought.joined_s;
    let mut due = vec![Due { from_s: at, to_s: at, base_cents: Price::Pro.base_cents(), ..Due::default() }];
    let ends_s = ends_s(bought);
    for months in 0..MONTHS_MAX {
        let (from_s, whole_s) = (months_after(at, months), months_after(at, months + 1));
        let to_s = ends_s.map_or(whole_s, |ends_s| whole_s.min(ends_s));
        if to_s > until_s {
            break;
        }
        let mut of_period = of_period(bought, served, (from_s, to_s, whole_s));
        if ends_s != Some(to_s) {
            of_period.base_cents = plan_at(bought, to_s).0.base_cents();
            due.push(of_period);
            continue;
        }
        if matches!(bought.ended, Some(Ended::ByStripe(_))) {
            return (due, Some(of_period));
        }
        due.push(of_period);
        break;
    }
    (due, None)
}

/// Holds one customer's invoices against what is due, and answers what is wrong.
pub(crate) fn compare(due: &[Due], invoices: &[InvoiceView]) -> Vec<String> {
    let mut wrong = Vec::new();
    if due.len() != invoices.len() {
        wrong.push(format!("{} invoices, and {} are due", invoices.len(), due.len()));
    }
    for (due, invoice) in due.iter().zip(invoices) {
        // In a period with two plans part of the first one's usage is an item without a meter's quantity.
        let tokens = if due.proration_cents.is_some() { due.tokens } else { invoice.metered_quantity() };
        let is = (invoice.period_start_s, invoice.period_end_s, tokens, invoice.total_cents);
        if is != (due.from_s, due.to_s, due.tokens, due.total_cents()) || invoice.finalized_s.is_none() {
            wrong.push(format!("due {}; invoiced {invoice:?}", due.shown()));
        }
    }
    wrong
}

#[test]
fn what_is_above_the_included_tokens_is_rounded_once() {
    let cents =
        [0, 500_000, 502_499, 502_500, 507_499, 507_500, 1_000_000].map(|n| Price::Pro.overage_cents(n));
    assert_eq!(cents, [0, 0, 0, 1, 1, 2, 100]);
    assert_eq!([5_000_000, 5_003_334, 6_000_000].map(|n| Price::Agency.overage_cents(n)), [0, 1, 150]);
    assert_eq!([share(2_000, 1, 3), share(2_000, 2, 3), share(1, 1, 2)], [667, 1_333, 1]);
}
