//! What a request used: token classes that never overlap, and what the provider takes for them.

use crate::{ModelId, NanoUsd, Tokens};
use std::num::NonZeroU64;

/// Tokens by class. The classes are disjoint: a provider's figure that includes another class (cached tokens in the
/// prompt's, reasoning tokens in the completion's) is split before it comes here, so that nothing is counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Prompt tokens read for the first time.
    pub input: Tokens,
    /// Prompt tokens read from the provider's cache.
    pub cached_input: Tokens,
    /// Prompt tokens written to the provider's cache.
    pub cache_write: Tokens,
    /// Tokens that the user sees.
    pub output: Tokens,
    /// Tokens that the model thought with.
    pub reasoning: Tokens,
}

impl Classes {
    /// All tokens of the prompt.
    pub fn prompt(&self) -> Tokens {
        [self.input, self.cached_input, self.cache_write].into_iter().sum()
    }

    /// All tokens of the answer.
    pub fn completion(&self) -> Tokens {
        self.output.saturating_add(self.reasoning)
    }

    /// Every token once.
    pub fn total(&self) -> Tokens {
        self.prompt().saturating_add(self.completion())
    }

    /// Class by class, the sum of both.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cached_input: self.cached_input.saturating_add(other.cached_input),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
}

/// How well the usage of a request is known. Unknown usage is never zero: it is an estimate that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The provider's own count.
    Exact(Classes),
    /// An estimate of what was streamed before the stream was cut.
    Estimated(Classes),
}

impl Usage {
    /// The tokens by class, however well known.
    pub fn classes(&self) -> &Classes {
        match self {
            Self::Exact(classes) | Self::Estimated(classes) => classes,
        }
    }
}

/// A provider's price for one model, in nano-dollars a million tokens. A price is positive by type: a missing or zero
/// price cannot make a request free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    /// The model.
    pub model: ModelId,
    /// The version of the price list that this price is of.
    pub version: u32,
    /// For [`Classes::input`].
    pub input: NonZeroU64,
    /// For [`Classes::cached_input`].
    pub cached_input: NonZeroU64,
    /// For [`Classes::cache_write`].
    pub cache_write: NonZeroU64,
    /// For [`Classes::output`] and [`Classes::reasoning`].
    pub output: NonZeroU64,
    /// The most tokens that the model writes in one answer.
    pub output_max: Tokens,
    /// Sent as `reasoning_effort`, for models that would otherwise think at the user's expense.
    pub reasoning_effort: Option<&'static str>,
}

impl ModelPrice {
    /// What the provider takes for these tokens.
    pub fn cost(&self, used: &Classes) -> NanoUsd {
        [
            (used.input, self.input),
            (used.cached_input, self.cached_input),
            (used.cache_write, self.cache_write),
            (used.completion(), self.output),
        ]
        .into_iter()
        .fold(NanoUsd::ZERO, |sum, (tokens, price)| sum.saturating_add(NanoUsd::of(tokens, price)))
    }

    /// The most that a hold of this size can cost: its prompt at the dearer of the two input prices that a first read
    /// can have, its answer at the output price.
    pub fn cost_most(&self, prompt: Tokens, output: Tokens) -> NanoUsd {
        NanoUsd::of(prompt, self.input.max(self.cache_write)).saturating_add(NanoUsd::of(output, self.output))
    }
}

/// The models that may be called. A model that is not listed has no price, so it cannot be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrices(Vec<ModelPrice>);

impl ModelPrices {
    /// The price list; none when it is empty or names a model twice.
    pub fn new(prices: Vec<ModelPrice>) -> Option<Self> {
        let unique = prices.iter().all(|a| prices.iter().filter(|b| a.model == b.model).count() == 1);
        (unique && !prices.is_empty()).then_some(Self(prices))
    }

    /// The price of this model.
    pub fn get(&self, model: &ModelId) -> Option<&ModelPrice> {
        self.0.iter().find(|price| price.model == *model)
    }

    /// All of them, in the order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &ModelPrice> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luna() -> ModelPrice {
        let price = |n| NonZeroU64::new(n).unwrap();
        ModelPrice {
            model: ModelId::parse("gpt-6-luna").unwrap(),
            version: 1,
            input: price(100_000_000),
            cached_input: price(10_000_000),
            cache_write: price(125_000_000),
            output: price(500_000_000),
            output_max: Tokens::from_u32(4_096),
            reasoning_effort: Some("none"),
        }
    }

    #[test]
    fn every_class_costs_its_own_price_once() {
        let t = Tokens::from_u32;
        let used =
            Classes { input: t(10), cached_input: t(20), cache_write: t(4), output: t(3), reasoning: t(2) };
        assert_eq!(used.total(), t(39));
        // 10 * 100 + 20 * 10 + 4 * 125 + 5 * 500 nano-dollars
        assert_eq!(luna().cost(&used).get(), 1_000 + 200 + 500 + 2_500);
    }

    #[test]
    fn sums_of_usage_are_kept_by_class() {
        let t = Tokens::from_u32;
        let of = |[input, cached_input, cache_write, output, reasoning]: [u32; 5]| Classes {
            input: t(input),
            cached_input: t(cached_input),
            cache_write: t(cache_write),
            output: t(output),
            reasoning: t(reasoning),
        };
        let sum = of([1, 2, 3, 4, 5]).saturating_add(&of([10, 20, 30, 40, 50]));
        assert_eq!(sum, of([11, 22, 33, 44, 55]));
        assert_eq!((sum.prompt(), sum.completion(), sum.total()), (t(66), t(99), t(165)));
    }

    #[test]
    fn a_model_is_found_by_its_name_and_the_list_keeps_its_order() {
        let terra = ModelPrice { model: ModelId::parse("gpt-6-terra").unwrap(), ..luna() };
        let prices = ModelPrices::new(vec![luna(), terra.clone()]).unwrap();
        assert_eq!(prices.get(&terra.model), Some(&terra));
        assert_eq!(prices.iter().collect::<Vec<_>>(), [&luna(), &terra]);
    }

    #[test]
    fn the_most_that_a_hold_can_cost_is_at_the_dearer_input_price() {
        let t = Tokens::from_u32;
        // 10 * 125 (first read, written to the cache) + 5 * 500 nano-dollars
        assert_eq!(luna().cost_most(t(10), t(5)).get(), 1_250 + 2_500);
        let plain = ModelPrice { cache_write: NonZeroU64::new(1).unwrap(), ..luna() };
        assert_eq!(plain.cost_most(t(10), t(5)).get(), 1_000 + 2_500);
    }

    #[test]
    fn f07_an_unknown_model_has_no_price() {
        let prices = ModelPrices::new(vec![luna()]).unwrap();
        assert!(prices.get(&ModelId::parse("gpt-7").unwrap()).is_none());
        assert_eq!(ModelPrices::new(vec![]), None);
        assert_eq!(ModelPrices::new(vec![luna(), luna()]), None);
    }
}
