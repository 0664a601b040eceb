//! `POST /v1/quote`: the answer's JSON. Names are the ledger's.

use domain::{Demand, HoldSize, NanoUsd, Refusal, Tokens, overage_between};
use edge::{money::decimal_usd, problem::Problem};
use ledger::{Quote, Standing};
use serde::Serialize;

/// What a request would hold, cost and come to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuoteWire {
    prompt_tokens: PromptTokens,
    output_tokens: Most,
    tokens: Most,
    cost_usd: MostUsd,
    passes: bool,
    /// Whether the answer's cap would be lowered to what is left.
    clamped: bool,
    /// The cap that the answer would have; absent where the request would not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_cap: Option<u64>,
    /// Why it would not pass, as the refusal's own body.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Problem>,
}

#[derive(Debug, Serialize)]
struct PromptTokens {
    /// What is held for it: more than it can be.
    most: u64,
    /// What it probably is.
    estimate: u64,
}

#[derive(Debug, Serialize)]
struct Most {
    most: u64,
}

/// US dollars, exact.
#[derive(Debug, Serialize)]
struct MostUsd {
    most: String,
}

impl QuoteWire {
    pub(crate) fn new(
        quote: &Quote,
        demand: &Demand,
        estimate: Tokens,
        refused: impl Fn(&Refusal) -> Problem,
    ) -> Self {
        let full = HoldSize { prompt: demand.prompt_most, output: demand.output_most };
        let size = quote.decision.as_ref().copied().unwrap_or(full);
        Self {
            prompt_tokens: PromptTokens { most: size.prompt.get(), estimate: estimate.get() },
            output_tokens: Most { most: size.output.get() },
            tokens: Most { most: size.total().get() },
            cost_usd: MostUsd { most: decimal_usd(cost_most(&quote.standing, size.total()).get()) },
            passes: quote.decision.is_ok(),
            clamped: quote.decision.is_ok() && size.output < demand.output_most,
            output_cap: quote.decision.is_ok().then(|| size.output.get()),
            refusal: quote.decision.as_ref().err().map(refused),
        }
    }
}

/// The most that so many tokens can add to the invoice after everything that is settled or held, as their receipt will say it.
fn cost_most(standing: &Standing, tokens: Tokens) -> NanoUsd {
    let Standing { plan, meter, .. } = standing;
    overage_between(plan, meter.committed, meter.committed.saturating_add(tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Account, Opening, Timestamp, UserId};
    use edge::plans::PlanBook;
    use std::num::NonZeroU64;

    #[test]
    fn f21_a_quote_costs_what_the_receipts_will_say() {
        let book = PlanBook::built_in().unwrap();
        let mut plan = book.plans().iter().find(|plan| plan.id.as_str() == "pro").unwrap().clone();
        // 0.7 nano-dollars a token, so that it matters where is rounded.
        plan.overage_per_million = NonZeroU64::new(700_001);
        let now = Timestamp::from_s(1_800_000_000);
        let account = Account::first_seen(UserId::parse("user_1").unwrap(), plan.id.clone(), now);
        let Opening { account, mut meter, .. } = Opening::first(account, now).unwrap();
        let t = Tokens::from_u32;
        for (above, tokens, nano) in [(0, 1, 1), (1, 1, 1), (3, 1, 0), (3, 2, 1)] {
            meter.committed = plan.included.saturating_add(t(above));
            let standing = Standing { account: account.clone(), plan: plan.clone(), meter: meter.clone() };
            assert_eq!(cost_most(&standing, t(tokens)).get(), nano, "{tokens} after {above}");
        }
        meter.committed = t(0);
        let standing = Standing { account, plan: plan.clone(), meter };
        assert_eq!(cost_most(&standing, plan.included), NanoUsd::ZERO);
    }
}
