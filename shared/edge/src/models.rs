//! The price list: `infra/models.toml`, the models that may be called and what the provider takes for them.

use domain::{ModelId, ModelPrice, ModelPrices, Tokens};
use serde::Deserialize;
use std::num::{NonZeroU32, NonZeroU64};

/// The file as it is compiled in.
const BUILT_IN: &str = include_str!("../../../infra/models.toml");

/// Why a price list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidModels {
    /// It is not the TOML that a price list is. The message names line and field.
    #[error("not a price list: {0}")]
    Malformed(String),
    /// A model's name is none.
    #[error("model {0:?}: {1}")]
    Name(String, #[source] domain::InvalidId),
    /// There is no model, or one is listed twice.
    #[error("a price list needs at least one model, and each once")]
    List,
}

/// The prices that were compiled in.
///
/// # Errors
/// When the file that was compiled in is not a price list; a test holds that it is.
pub fn built_in() -> Result<ModelPrices, InvalidModels> {
    parse(BUILT_IN)
}

/// Reads a price list. The first model is the default.
///
/// # Errors
/// When a field is missing, unknown or not positive, or a model is listed twice.
pub fn parse(text: &str) -> Result<ModelPrices, InvalidModels> {
    let file: ListToml = toml::from_str(text).map_err(|error| InvalidModels::Malformed(error.to_string()))?;
    let version = file.version;
    let prices: Result<Vec<_>, _> = file.model.into_iter().map(|model| model.parse(version)).collect();
    ModelPrices::new(prices?).ok_or(InvalidModels::List)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListToml {
    version: u32,
    model: Vec<ModelToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelToml {
    name: String,
    input_nano_usd_per_million_tokens: NonZeroU64,
    cached_input_nano_usd_per_million_tokens: NonZeroU64,
    cache_write_nano_usd_per_million_tokens: NonZeroU64,
    output_nano_usd_per_million_tokens: NonZeroU64,
    max_output_tokens: NonZeroU32,
    reasoning_effort: Option<Effort>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
}

impl Effort {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl ModelToml {
    fn parse(self, version: u32) -> Result<ModelPrice, InvalidModels> {
        Ok(ModelPrice {
            model: ModelId::parse(&self.name).map_err(|error| InvalidModels::Name(self.name, error))?,
            version,
            input: self.input_nano_usd_per_million_tokens,
            cached_input: self.cached_input_nano_usd_per_million_tokens,
            cache_write: self.cache_write_nano_usd_per_million_tokens,
            output: self.output_nano_usd_per_million_tokens,
            output_max: Tokens::from_u32(self.max_output_tokens.get()),
            reasoning_effort: self.reasoning_effort.map(Effort::as_str),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_that_is_compiled_in_is_one() {
        let prices = built_in().unwrap();
        let first = prices.iter().next().unwrap();
        assert_eq!(first.model.as_str(), "gpt-6-luna");
        assert_eq!(first.input.get(), 100_000_000);
        assert_eq!(first.reasoning_effort, Some("none"));
    }

    #[track_caller]
    fn check(line: &str, instead: &str, complaint: &str) {
        assert!(BUILT_IN.contains(line));
        let error = parse(&BUILT_IN.replacen(line, instead, 1)).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }

    #[test]
    fn f07_a_price_that_is_zero_negative_or_missing_is_refused() {
        let line = "output_nano_usd_per_million_tokens = 500_000_000";
        check(line, "output_nano_usd_per_million_tokens = 0", "output_nano_usd_per_million_tokens");
        check(line, "output_nano_usd_per_million_tokens = -1", "output_nano_usd_per_million_tokens");
        check(line, "", "output_nano_usd_per_million_tokens");
        check("max_output_tokens = 2_048", "max_output_tokens = 2_048\nfree = true", "free");
        check("\"gpt-4o-mini\"", "\"gpt-6-luna\"", "each once");
        check("\"gpt-4o-mini\"", "\"gpt 4o\"", "gpt 4o");
    }
}
