//! What usage costs in whole cents: golden vectors, and that a period is rounded once whatever rows it comes in.

use crate::support::{cases, plan, tokens};
use domain::{NanoUsd, Plan, Tokens, invoice_cents, late_cents, overage, overage_cents};
use proptest::prelude::*;
use std::num::NonZeroU64;

const PRO_INCLUDED: u32 = 500_000;

/// $20, 500,000 tokens included, $2 a million above: two ten-thousandths of a cent a token.
fn pro() -> Plan {
    priced(2_000, PRO_INCLUDED, 2_000_000_000)
}

fn priced(price_cents: u32, included: u32, per_million: u64) -> Plan {
    let overage_per_million = NonZeroU64::new(per_million);
    Plan { price_cents, cap: Tokens::MAX, overage_per_million, ..plan("pro", included, 1, 1) }
}

#[test]
fn what_usage_costs_is_rounded_half_up_to_the_cent() {
    let pro = pro();
    for (used, nano, cents) in [
        (0, 0, 0),
        (500_000, 0, 0),
        (500_001, 2_000, 0),
        (502_499, 4_998_000, 0),
        (502_500, 5_000_000, 1),
        (505_000, 10_000_000, 1),
        (507_499, 14_998_000, 1),
        (507_500, 15_000_000, 2),
        (1_000_000, 1_000_000_000, 100),
        (5_000_000, 9_000_000_000, 900),
        (4_000_000_000, 7_999_000_000_000, 799_900),
    ] {
        assert_eq!(overage(&pro, tokens(used)), NanoUsd::new(nano).unwrap(), "{used}");
        assert_eq!(overage_cents(&pro, tokens(used)), Some(cents), "{used}");
        assert_eq!(invoice_cents(&pro, tokens(used)), Some(2_000 + cents), "{used}");
    }
    // 4,999,999.6 nano-dollars are not half a cent, though they round up to it.
    let odd = priced(0, 0, 4_999_999_600_000);
    assert_eq!(overage(&odd, tokens(1)), NanoUsd::new(5_000_000).unwrap());
    assert_eq!(overage_cents(&odd, tokens(1)), Some(0), "rounded twice");
}

#[test]
fn what_comes_late_costs_what_it_adds() {
    let pro = pro();
    for (before, row, cents) in [
        (0, 500_000, 0),
        (0, 502_499, 0),
        (0, 502_500, 1),
        (500_000, 2_499, 0),
        (500_000, 2_500, 1),
        (502_499, 1, 1),
        (502_500, 2_500, 0),
        (502_500, 5_000, 1),
        (499_999, 1_000_001, 200),
        (700_000, 0, 0),
    ] {
        assert_eq!(late_cents(&pro, tokens(before), tokens(row)), Some(cents), "{row} above {before}");
    }
}

#[test]
fn f07_what_no_invoice_could_have_is_none_and_never_a_small_amount() {
    let pro = pro();
    let one = tokens(1);
    assert_eq!(late_cents(&pro, Tokens::MAX, one), None);
    let all = invoice_cents(&pro, Tokens::MAX).unwrap();
    assert_eq!(
        all,
        199_999_999_900 + 2_000,
        "a quadrillion tokens less one, and half a million of them included"
    );
    let dearest = priced(u32::MAX, 0, u64::MAX);
    assert_eq!(overage_cents(&dearest, Tokens::MAX), None);
    assert_eq!(late_cents(&dearest, Tokens::ZERO, Tokens::MAX), None);
    assert_eq!(invoice_cents(&dearest, Tokens::MAX), None);
    // A plan without overage has a cap that leaves nothing above what is included.
    let free = plan("free", 100, 1, 1);
    assert_eq!(
        (overage(&free, tokens(100)), late_cents(&free, tokens(0), tokens(100))),
        (NanoUsd::ZERO, Some(0))
    );
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let per_million = prop_oneof![Just(2_000_000_000), 1_u64..10_000_000_000, 1_u64..u64::MAX];
    (any::<u32>(), prop_oneof![Just(PRO_INCLUDED), any::<u32>()], per_million)
        .prop_map(|(price, included, per_million)| priced(price, included, per_million))
}

fn any_tokens() -> impl Strategy<Value = Tokens> {
    prop_oneof![0_u64..2_000_000, 0_u64..=999_999_999_999_999].prop_map(|value| Tokens::new(value).unwrap())
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn i2_a_period_is_rounded_once_whatever_rows_it_comes_in(
        plan in any_plan(), before in any_tokens(), a in any_tokens(), b in any_tokens(),
    ) {
        let both = a.checked_add(b).and_then(|both| late_cents(&plan, before, both));
        let first = late_cents(&plan, before, a);
        let second = before.checked_add(a).and_then(|before| late_cents(&plan, before, b));
        let apart = first.zip(second).and_then(|(first, second)| first.checked_add(second));
        prop_assert_eq!(both, apart);
    }

    #[test]
    fn more_usage_never_costs_less_and_its_price_is_the_exact_one_to_half_a_cent(
        plan in any_plan(), a in any_tokens(), b in any_tokens(),
    ) {
        let (less, more) = (a.min(b), a.max(b));
        if let Some(dearer) = overage_cents(&plan, more) {
            prop_assert!(overage_cents(&plan, less).unwrap() <= dearer);
            // Twice the distance between the cents and the exact price, in ten-trillionths of a cent.
            let above = u128::from(more.get().saturating_sub(plan.included.get()));
            let exact = above * u128::from(plan.overage_per_million.unwrap().get());
            let rounded = u128::from(dearer) * 10_000_000_000_000;
            let (up, down) = (rounded.saturating_sub(exact), exact.saturating_sub(rounded));
            prop_assert!(2 * up <= 10_000_000_000_000 && 2 * down < 10_000_000_000_000);
        }
    }
}
