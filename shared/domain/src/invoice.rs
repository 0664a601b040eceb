//! The next invoice of a subscription as it would be now: what is known here, priced and rounded as Stripe does it, line by line.
//!
//! It owns the sum, and nothing is charged by it. It takes a change of plan to be billed as Stripe does where nobody asks for
//! anything else: what is left of the month is given back at the old flat price and billed at the new, on the next invoice.

use crate::{Period, Plan, Timestamp, Tokens, overage_cents};

/// What was used under one plan in the month that the invoice closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used<'a> {
    /// The plan that prices it.
    pub plan: &'a Plan,
    /// From when on the plan counted.
    pub since: Timestamp,
    /// Tokens that are charged.
    pub tokens: Tokens,
}

/// An invoice, in whole US cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextInvoice {
    /// The flat price of the month that begins then; zero where none does.
    pub base_cents: u64,
    /// What was used above what each plan includes.
    pub overage_cents: u64,
    /// What changes of plan within the month bill and give back of flat prices; below zero, they give back more.
    pub changes_cents: i64,
    /// Usage of earlier months that came too late for their invoices.
    pub late_cents: u64,
    /// The sum, which is below zero where changes gave back more than there is to bill.
    pub total_cents: i64,
}

/// The invoice of a month in which `used` came one plan after the other, the earliest first; `next` is the plan whose flat price
/// it bills for the month that follows, and none where the subscription ends. None: no invoice could have such an amount.
pub fn next_invoice(
    month: Period,
    used: &[Used<'_>],
    next: Option<&Plan>,
    late_cents: u64,
) -> Option<NextInvoice> {
    let base_cents = next.map_or(0, |plan| u64::from(plan.price_cents));
    // After a pause the same price goes on, and Stripe's tiers with it; a change of plan begins them anew.
    let mut overage = used.chunk_by(|one, next| one.plan.id == next.plan.id).map(|same| {
        let tokens = same.iter().try_fold(Tokens::ZERO, |sum, used| sum.checked_add(used.tokens))?;
        overage_cents(same.first()?.plan, tokens)
    });
    let overage_cents = overage.try_fold(0_u64, |sum, cents| sum.checked_add(cents?))?;
    let changes_cents = changes(month, used)?;
    let billed = base_cents.checked_add(overage_cents)?.checked_add(late_cents)?;
    let total_cents = i64::try_from(billed).ok()?.checked_add(changes_cents)?;
    Some(NextInvoice { base_cents, overage_cents, changes_cents, late_cents, total_cents })
}

/// What each change gives back of what was billed until the month's end, and bills for the time from the change to it; to the
/// second, each rounded once.
fn changes(month: Period, used: &[Used<'_>]) -> Option<i64> {
    let Some(first) = used.first() else { return Some(0) };
    let (mut sum, mut before) = (0_i64, first.plan);
    // What was billed last, and from when on.
    let mut billed = (u64::from(first.plan.price_cents), month.start());
    for after in used.iter().filter(|used| month.contains(used.since)) {
        if after.plan.id == before.id {
            continue;
        }
        let left_s = month.end().s_after(after.since);
        let back = share(billed.0, left_s, month.end().s_after(billed.1))?;
        let rest = share(u64::from(after.plan.price_cents), left_s, month.end().s_after(month.start()))?;
        sum = sum.checked_add(i64::try_from(rest).ok()?)?.checked_sub(i64::try_from(back).ok()?)?;
        (before, billed) = (after.plan, (rest, after.since));
    }
    Some(sum)
}

/// `part_s` of `whole_s` seconds of an amount, half a cent rounded up; none of no time at all.
fn share(cents: u64, part_s: u64, whole_s: u64) -> Option<u64> {
    let exact = u128::from(cents).checked_mul(u128::from(part_s))?;
    let twice = u128::from(whole_s).checked_mul(2)?;
    let rounded = exact.checked_mul(2)?.checked_add(u128::from(whole_s))?.checked_div(twice)?;
    u64::try_from(rounded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PlanId, RateLimit};
    use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

    const DAY_MS: u64 = 86_400_000;
    const START: Timestamp = Timestamp::from_s(1_800_000_000);

    fn plan(id: &str, price_cents: u32, included: u32, overage_per_million: u64) -> Plan {
        Plan {
            id: PlanId::parse(id).unwrap(),
            price_cents,
            included: Tokens::from_u32(included),
            cap: Tokens::from_u32(50_000_000),
            overage_per_million: NonZeroU64::new(overage_per_million),
            rate: RateLimit {
                requests: NonZeroU32::new(60).unwrap(),
                window_ms: NonZeroU64::new(60_000).unwrap(),
            },
            concurrency: NonZeroU16::new(10).unwrap(),
        }
    }

    fn month() -> Period {
        Period::new(START, START.plus_ms(30 * DAY_MS)).unwrap()
    }

    fn used(plan: &Plan, after_days: u64, tokens: u32) -> Used<'_> {
        let since = START.plus_ms(after_days.saturating_mul(DAY_MS));
        Used { plan, since, tokens: Tokens::from_u32(tokens) }
    }

    #[test]
    fn f21_each_plans_usage_is_a_line_of_its_own_and_rounded_once() {
        let (pro, agency) =
            (plan("pro", 2_000, 500_000, 2_000_000_000), plan("agency", 9_900, 5_000_000, 1_500_000_000));
        // 2,500 tokens above are half a cent of Pro; 3,000 above are 0.45 cents of Agency.
        let both = [used(&pro, 0, 502_500), used(&agency, 10, 5_003_000)];
        let invoice = next_invoice(month(), &both, Some(&agency), 7).unwrap();
        assert_eq!((invoice.overage_cents, invoice.base_cents, invoice.late_cents), (1, 9_900, 7));
        // Two thirds of 20 and 99 dollars.
        assert_eq!(invoice.changes_cents, 6_600 - 1_333);
        assert_eq!(invoice.total_cents, 9_900 + 1 + 7 + 6_600 - 1_333);
        let alone = next_invoice(month(), &both[..1], None, 0).unwrap();
        assert_eq!((alone.base_cents, alone.changes_cents, alone.total_cents), (0, 0, 1), "it ends");
    }

    #[test]
    fn a_change_back_gives_back_what_the_first_change_has_billed() {
        let (pro, agency) = (plan("pro", 2_000, 500_000, 1), plan("agency", 9_900, 5_000_000, 1));
        let back = [used(&pro, 0, 0), used(&agency, 10, 0), used(&pro, 20, 0)];
        let invoice = next_invoice(month(), &back, Some(&pro), 0).unwrap();
        // 66.00 of 20 days: half of it; and a third of 20 dollars, 6.67.
        assert_eq!(invoice.changes_cents, (6_600 - 1_333) + (667 - 3_300));
        let same = [used(&pro, 0, 0), used(&pro, 20, 0)];
        assert_eq!(next_invoice(month(), &same, Some(&pro), 0).unwrap().changes_cents, 0);
        let down = next_invoice(month(), &[used(&agency, 0, 0), used(&pro, 1, 0)], Some(&pro), 0).unwrap();
        assert_eq!(down.total_cents, 2_000 + 1_933 - 9_570);
        assert!(down.total_cents < 0, "more is given back than billed");
    }

    #[test]
    fn what_comes_before_and_after_a_pause_is_one_line_with_what_is_included_once() {
        let (pro, agency) = (plan("pro", 2_000, 500_000, 2_000_000_000), plan("agency", 9_900, 500_000, 1));
        let overage = |used: &[Used<'_>]| next_invoice(month(), used, None, 0).unwrap().overage_cents;
        assert_eq!(overage(&[used(&pro, 0, 500_000), used(&pro, 10, 500_000)]), 100);
        // A plan that came back begins anew.
        assert_eq!(overage(&[used(&pro, 0, 500_000), used(&agency, 5, 1), used(&pro, 10, 500_000)]), 0);
    }

    #[test]
    fn an_amount_that_no_invoice_can_have_is_none() {
        let dear = plan("dear", 0, 0, u64::MAX);
        let all = Used { plan: &dear, since: START, tokens: Tokens::MAX };
        assert_eq!(overage_cents(&dear, Tokens::MAX), None);
        assert_eq!(next_invoice(month(), &[all], None, 0), None);
    }
}
