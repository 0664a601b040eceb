//! What every invoice has to say, reckoned from what was served and what was bought, without any of the product's code: not its
//! periods, not its prices, not its meters.

use crate::{
    calendar::{months_after, shown},
    town::{Bought, Served},
};
use local::stripe::InvoiceView;

/// Pro, in cents.
pub(crate) const BASE_CENTS: i64 = 2_000;
/// Tokens that it includes.
const INCLUDED: u64 = 500_000;

/// What a subscription's invoice has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// The period whose usage it bills.
    pub(crate) from_s: i64,
    pub(crate) to_s: i64,
    pub(crate) tokens: u64,
    pub(crate) overage_cents: i64,
    /// The next period's flat price.
    pub(crate) base_cents: i64,
}

impl Due {
    pub(crate) fn total_cents(&self) -> i64 {
        self.overage_cents + self.base_cents
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

/// $0.002 for 1,000 tokens is two ten-thousandths of a cent for one; the sum is rounded once, half up.
pub(crate) fn overage_cents(tokens: u64) -> i64 {
    i64::try_from((tokens.saturating_sub(INCLUDED) * 2 + 5_000) / 10_000).unwrap()
}

/// The end of the period that holds `at_s`.
pub(crate) fn period_end_s(anchor_s: i64, at_s: i64) -> i64 {
    (1..).map(|months| months_after(anchor_s, months)).find(|end_s| *end_s > at_s).unwrap()
}

/// When a subscription ends, if it does.
pub(crate) fn ends_s(bought: &Bought) -> Option<i64> {
    bought.canceled.map(|(at_s, at_once)| if at_once { at_s } else { period_end_s(bought.joined_s, at_s) })
}

/// The invoices of one subscription that are made until `until_s`, oldest first.
pub(crate) fn due(bought: &Bought, served: &[Served], until_s: i64) -> Vec<Due> {
    let first = Due {
        from_s: bought.joined_s,
        to_s: bought.joined_s,
        tokens: 0,
        overage_cents: 0,
        base_cents: BASE_CENTS,
    };
    let (ends_s, mut due) = (ends_s(bought), vec![first]);
    for months in 0.. {
        let (from_s, whole_s) =
            (months_after(bought.joined_s, months), months_after(bought.joined_s, months + 1));
        let to_s = ends_s.map_or(whole_s, |ends_s| whole_s.min(ends_s));
        if to_s > until_s {
            break;
        }
        let of_period = served.iter().filter(|served| (from_s..to_s).contains(&served.at_s));
        let tokens = of_period.map(|served| served.tokens).sum();
        let ends = ends_s == Some(to_s);
        let base_cents = if ends { 0 } else { BASE_CENTS };
        due.push(Due { from_s, to_s, tokens, overage_cents: overage_cents(tokens), base_cents });
        if ends {
            break;
        }
    }
    due
}

/// Holds one customer's invoices against what is due, and answers what is wrong.
pub(crate) fn compare(due: &[Due], invoices: &[InvoiceView]) -> Vec<String> {
    let mut wrong = Vec::new();
    if due.len() != invoices.len() {
        wrong.push(format!("{} invoices, and {} are due", invoices.len(), due.len()));
    }
    for (due, invoice) in due.iter().zip(invoices) {
        let is =
            (invoice.period_start_s, invoice.period_end_s, invoice.metered_quantity(), invoice.total_cents);
        if is != (due.from_s, due.to_s, due.tokens, due.total_cents()) || invoice.finalized_s.is_none() {
            wrong.push(format!("due {}; invoiced {invoice:?}", due.shown()));
        }
    }
    wrong
}

#[test]
fn a_token_above_the_included_ones_costs_two_ten_thousandths_of_a_cent() {
    let cents = [0, 500_000, 502_499, 502_500, 507_499, 507_500, 1_000_000].map(overage_cents);
    assert_eq!(cents, [0, 0, 0, 1, 1, 2, 100]);
}
