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
