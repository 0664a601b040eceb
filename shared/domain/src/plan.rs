//! Plans: what a period includes, caps and charges, and how fast and how wide one user may go.

use crate::{NanoUsd, PlanId, RateLimit, Tokens};
use std::num::{NonZeroU16, NonZeroU64};

/// The most open holds that one meter may have, whatever its plan says: it bounds the size of the stored item.
pub const HOLDS_MAX: u16 = 64;

/// One plan of `infra/plans.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, stable for ever.
    pub id: PlanId,
    /// The flat price of a period, in US cents.
    pub price_cents: u32,
    /// Tokens of a period that the flat price includes.
    pub included: Tokens,
    /// The most tokens of a period that a user of this plan may consume. At least `included`.
    pub cap: Tokens,
    /// Nano-dollars a million tokens above `included`; none where the cap leaves nothing above it.
    pub overage_per_million: Option<NonZeroU64>,
    /// Requests in a sliding window.
    pub rate: RateLimit,
    /// Requests at the same time, at most [`HOLDS_MAX`].
    pub concurrency: NonZeroU16,
}

/// Parts of a cent in a price of one nano-dollar a million tokens: 10,000,000 nano-dollars a cent, a million tokens.
const PARTS_PER_CENT: u128 = 10_000_000_000_000;

/// What `tokens` of one period cost above the flat price, rounded up to a whole nano-dollar; the invoice rounds to cents:
/// [`overage_cents`].
pub fn overage(plan: &Plan, tokens: Tokens) -> NanoUsd {
    let above = tokens.saturating_sub(plan.included);
    plan.overage_per_million.map_or(NanoUsd::ZERO, |price| NanoUsd::of(above, price))
}

/// What the tokens of one period from `below` to `up_to` add to [`overage`], so that the parts of a period add up to the whole.
pub fn overage_between(plan: &Plan, below: Tokens, up_to: Tokens) -> NanoUsd {
    overage(plan, up_to).saturating_sub(overage(plan, below))
}

/// What `tokens` of one period cost above the flat price in whole US cents, half a cent rounded up, as an invoice has it;
/// none where no invoice could.
pub fn overage_cents(plan: &Plan, tokens: Tokens) -> Option<u64> {
    let Some(price) = plan.overage_per_million else { return Some(0) };
    let above = u128::from(tokens.saturating_sub(plan.included).get());
    let parts = above.checked_mul(u128::from(price.get()))?;
    u64::try_from(parts.checked_add(PARTS_PER_CENT / 2)? / PARTS_PER_CENT).ok()
}

/// What the invoice comes to that charges `settled` tokens of a period and the flat price of one, in whole US cents; none
/// where no invoice could.
pub fn invoice_cents(plan: &Plan, settled: Tokens) -> Option<u64> {
    overage_cents(plan, settled)?.checked_add(u64::from(plan.price_cents))
}

/// What `row` adds to a period's price in whole US cents, when `before` is priced already: so that the whole is rounded once,
/// whatever rows it comes in. None where no invoice could have it.
pub fn late_cents(plan: &Plan, before: Tokens, row: Tokens) -> Option<u64> {
    overage_cents(plan, before.checked_add(row)?)?.checked_sub(overage_cents(plan, before)?)
}

/// Why a list of plans cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlans {
    /// There is none.
    #[error("there is no plan: list at least one; the first is what a new user gets")]
    Empty,
    /// Two have one id.
    #[error("plan {0} is listed twice")]
    Duplicate(PlanId),
    /// The cap is below what is included and paid for.
    #[error("plan {0}: the cap is below the included tokens")]
    CapBelowIncluded(PlanId),
    /// There is usage above what is included, and nobody pays for it.
    #[error("plan {0}: the cap is above the included tokens, so it needs an overage price")]
    FreeOverage(PlanId),
    /// The concurrency is above [`HOLDS_MAX`].
    #[error("plan {0}: at most {HOLDS_MAX} requests at the same time")]
    TooConcurrent(PlanId),
    /// A user keeps the rate window across a change of plan, so its length is one for all.
    #[error("plan {0}: the rate window must be as long as every other plan's")]
    WindowDiffers(PlanId),
}

/// The plans on offer, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans {
    first: Plan,
    others: Vec<Plan>,
}

impl Plans {
    /// Checks a list of plans; the first is what a new user gets.
    ///
    /// # Errors
    /// When the list is empty, repeats an id, or a plan contradicts itself or the others.
    pub fn new(plans: Vec<Plan>) -> Result<Self, InvalidPlans> {
        let mut plans = plans.into_iter();
        let first = plans.next().ok_or(InvalidPlans::Empty)?;
        let plans = Self { first, others: plans.collect() };
        for plan in plans.iter() {
            let id = || plan.id.clone();
            if plans.iter().filter(|other| other.id == plan.id).count() > 1 {
                return Err(InvalidPlans::Duplicate(id()));
            }
            if plan.cap < plan.included {
                return Err(InvalidPlans::CapBelowIncluded(id()));
            }
            if plan.cap > plan.included && plan.overage_per_million.is_none() {
                return Err(InvalidPlans::FreeOverage(id()));
            }
            if plan.concurrency.get() > HOLDS_MAX {
                return Err(InvalidPlans::TooConcurrent(id()));
            }
            if plan.rate.window_ms != plans.first.rate.window_ms {
                return Err(InvalidPlans::WindowDiffers(id()));
            }
        }
        Ok(plans)
    }

    /// The plan of a user seen for the first time.
    pub fn first(&self) -> &Plan {
        &self.first
    }

    /// The plan with this id.
    pub fn get(&self, id: &PlanId) -> Option<&Plan> {
        self.iter().find(|plan| plan.id == *id)
    }

    /// All of them, the first first.
    pub fn iter(&self) -> impl Iterator<Item = &Plan> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn plan(id: &str) -> Plan {
        Plan {
            id: PlanId::parse(id).unwrap(),
            price_cents: 0,
            included: Tokens::from_u32(100),
            cap: Tokens::from_u32(100),
            overage_per_million: None,
            rate: RateLimit {
                requests: NonZeroU32::new(10).unwrap(),
                window_ms: NonZeroU64::new(60_000).unwrap(),
            },
            concurrency: NonZeroU16::new(2).unwrap(),
        }
    }

    #[test]
    fn f21_the_parts_of_a_period_add_up_to_its_price_wherever_it_is_cut() {
        let mut pro = plan("pro");
        pro.overage_per_million = NonZeroU64::new(700_001);
        let t = Tokens::from_u32;
        for cut in [0, 40, 100, 101, 150, 777, 1_000] {
            let parts = [overage_between(&pro, t(0), t(cut)), overage_between(&pro, t(cut), t(1_000))];
            let sum: u64 = parts.iter().map(|part| part.get()).sum();
            assert_eq!(sum, overage(&pro, t(1_000)).get(), "cut at {cut}");
        }
        // 0.7 nano-dollars a token: the second one costs what is left of two, and not one rounded up anew.
        assert_eq!([1, 2, 3].map(|n| overage(&pro, t(100 + n)).get()), [1, 2, 3]);
        assert_eq!(overage_between(&pro, t(103), t(104)).get(), 0);
    }

    #[test]
    fn a_list_of_plans_that_contradicts_itself_is_refused_by_name() {
        let id = PlanId::parse("b").unwrap();
        assert_eq!(Plans::new(vec![]), Err(InvalidPlans::Empty));
        assert_eq!(Plans::new(vec![plan("b"), plan("b")]), Err(InvalidPlans::Duplicate(id.clone())));
        let mut low = plan("b");
        low.cap = Tokens::from_u32(99);
        assert_eq!(Plans::new(vec![low]), Err(InvalidPlans::CapBelowIncluded(id.clone())));
        let mut wide = plan("b");
        wide.concurrency = NonZeroU16::new(65).unwrap();
        assert_eq!(Plans::new(vec![wide]), Err(InvalidPlans::TooConcurrent(id.clone())));
        let mut slow = plan("b");
        slow.rate.window_ms = NonZeroU64::new(1).unwrap();
        assert_eq!(Plans::new(vec![plan("a"), slow]), Err(InvalidPlans::WindowDiffers(id)));
    }

    #[test]
    fn a_plan_is_found_by_its_id_and_the_first_is_a_new_users() {
        let mut widest = plan("b");
        widest.concurrency = NonZeroU16::new(HOLDS_MAX).unwrap();
        let plans = Plans::new(vec![plan("a"), widest.clone()]).unwrap();
        assert_eq!(plans.first(), &plan("a"));
        assert_eq!(plans.get(&widest.id), Some(&widest));
        assert_eq!(plans.get(&PlanId::parse("c").unwrap()), None);
        assert_eq!(plans.iter().collect::<Vec<_>>(), [&plan("a"), &widest]);
    }

    #[test]
    fn f07_usage_that_nobody_pays_for_is_no_plan() {
        let mut free_overage = plan("b");
        free_overage.cap = Tokens::from_u32(101);
        assert!(matches!(Plans::new(vec![free_overage]), Err(InvalidPlans::FreeOverage(_))));
    }
}
