//! Sets the plans up in Stripe's stand-in, over its API: the meter, and for each reported plan a product, its flat
//! price and its metered, graduated price.
//!
//! Reads the plan book by itself: what checks the product must not be the product's code.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::environment::METER_EVENT_NAME;
use crate::net;

/// A cent per token is this many nano-dollars per million tokens.
const NANO_USD_PER_MILLION_IN_A_CENT_PER_TOKEN_DIGITS: usize = 13;
/// The decimals that Stripe takes in a unit amount.
const DECIMALS_MAX: usize = 12;

/// Why Stripe is not set up.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The plan book is malformed.
    #[error("the plan book is malformed: {0}")]
    Plans(#[from] toml::de::Error),
    /// A plan that is sold lacks what Stripe has to know.
    #[error("the plan {plan} lacks {field}")]
    Missing {
        /// The plan.
        plan: String,
        /// The field.
        field: &'static str,
    },
    /// A price per token has more decimals than Stripe takes.
    #[error(
        "{0} nano-dollars per million tokens cannot be told to Stripe: more than {DECIMALS_MAX} decimals of a cent"
    )]
    TooFine(u64),
    /// Stripe was not reached.
    #[error("Stripe was not reached at {path}")]
    Send {
        /// Which resource.
        path: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Stripe refused.
    #[error("Stripe refused {path}: {answer}")]
    Refused {
        /// Which resource.
        path: &'static str,
        /// Its answer.
        answer: String,
    },
}

/// What was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The meter, `mtr_...`.
    pub meter_id: String,
    /// The plans that are sold, by their ids.
    pub plans: BTreeMap<String, PlanPrices>,
    /// The most tokens of a period for a user who bought none: 0 where every plan is sold.
    pub first_cap_tokens: u64,
    /// The configuration of the customer portal, `bpc_...`.
    pub portal_id: String,
    /// The portal's page to sign in at.
    pub portal_url: String,
}

/// A plan in Stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanPrices {
    /// `prod_...`
    pub product_id: String,
    /// The flat price of a period, `price_...`.
    pub base_price_id: String,
    /// The metered price, `price_...`.
    pub metered_price_id: String,
    /// The flat price in US cents.
    pub base_cents: u64,
    /// Tokens that the flat price includes.
    pub included_tokens: u64,
    /// The most tokens of a period.
    pub cap_tokens: u64,
    /// Nano-dollars for a million tokens above them.
    pub overage_nano_usd_per_million_tokens: u64,
}

#[derive(Deserialize)]
struct PlanBook {
    plan: Vec<Plan>,
}

#[derive(Deserialize)]
struct Plan {
    id: String,
    price_cents_per_month: u64,
    included_tokens: u64,
    overage_nano_usd_per_million_tokens: Option<u64>,
    cap_tokens: u64,
    base_lookup_key: Option<String>,
    metered_lookup_key: Option<String>,
}

/// Calls Stripe's stand-in as anybody with its key would.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    base_url: String,
    secret: String,
}

impl Catalog {
    /// Sets the plan book (TOML) up at a Stripe that has nothing yet. `base_url` ends with a slash.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn set_up(base_url: &str, api_key: &str, plans: &str) -> Result<Self, CatalogError> {
        let book: PlanBook = toml::from_str(plans)?;
        let api = Api::new(base_url, api_key)?;
        let meter = [
            ("display_name", "Tokens"),
            ("event_name", METER_EVENT_NAME),
            ("default_aggregation[formula]", "sum"),
            ("customer_mapping[type]", "by_id"),
            ("customer_mapping[event_payload_key]", "stripe_customer_id"),
            ("value_settings[event_payload_key]", "value"),
        ];
        let meter_id = api.create("v1/billing/meters", &meter).await?;
        let mut plans = BTreeMap::new();
        let mut unsold_cap_tokens = None;
        for plan in book.plan {
            if plan.base_lookup_key.is_none() && plan.metered_lookup_key.is_none() {
                unsold_cap_tokens.get_or_insert(plan.cap_tokens);
                continue;
            }
            let prices = set_up_plan(&api, &plan, &meter_id).await?;
            plans.insert(plan.id, prices);
        }
        let portal = [
            ("metadata[inkmeter]", "portal"),
            ("features[invoice_history][enabled]", "true"),
            ("features[payment_method_update][enabled]", "true"),
            ("features[subscription_cancel][enabled]", "true"),
            ("features[subscription_cancel][mode]", "at_period_end"),
            ("login_page[enabled]", "true"),
        ];
        let (portal_id, portal) = api.created("v1/billing_portal/configurations", &portal).await?;
        let portal_url = portal.pointer("/login_page/url").and_then(Value::as_str).unwrap_or_default();
        let (first_cap_tokens, portal_url) = (unsold_cap_tokens.unwrap_or_default(), portal_url.to_owned());
        Ok(Self { meter_id, plans, first_cap_tokens, portal_id, portal_url })
    }
}

async fn set_up_plan(api: &Api, plan: &Plan, meter_id: &str) -> Result<PlanPrices, CatalogError> {
    let missing = |field| CatalogError::Missing { plan: plan.id.clone(), field };
    let base_key = plan.base_lookup_key.as_deref().ok_or_else(|| missing("base_lookup_key"))?;
    let metered_key = plan.metered_lookup_key.as_deref().ok_or_else(|| missing("metered_lookup_key"))?;
    let overage = plan.overage_nano_usd_per_million_tokens;
    let overage = overage.ok_or_else(|| missing("overage_nano_usd_per_million_tokens"))?;
    let unit_cents = cents_per_token(overage).ok_or(CatalogError::TooFine(overage))?;
    let (base_cents, included) = (plan.price_cents_per_month.to_string(), plan.included_tokens.to_string());

    let product = [("name", plan.id.as_str()), ("metadata[inkmeter_plan]", &plan.id)];
    let product_id = api.create("v1/products", &product).await?;
    let base = [
        ("currency", "usd"),
        ("product", &product_id),
        ("lookup_key", base_key),
        ("recurring[interval]", "month"),
        ("unit_amount", &base_cents),
    ];
    let base_price_id = api.create("v1/prices", &base).await?;
    let metered = [
        ("currency", "usd"),
        ("product", &product_id),
        ("lookup_key", metered_key),
        ("recurring[interval]", "month"),
        ("recurring[usage_type]", "metered"),
        ("recurring[meter]", meter_id),
        ("billing_scheme", "tiered"),
        ("tiers_mode", "graduated"),
        ("tiers[0][up_to]", &included),
        ("tiers[0][unit_amount]", "0"),
        ("tiers[1][up_to]", "inf"),
        ("tiers[1][unit_amount_decimal]", &unit_cents),
    ];
    let metered_price_id = api.create("v1/prices", &metered).await?;
    Ok(PlanPrices {
        product_id,
        base_price_id,
        metered_price_id,
        base_cents: plan.price_cents_per_month,
        included_tokens: plan.included_tokens,
        cap_tokens: plan.cap_tokens,
        overage_nano_usd_per_million_tokens: overage,
    })
}

impl Api {
    /// `base_url` ends with a slash.
    pub(crate) fn new(base_url: &str, api_key: &str) -> Result<Self, CatalogError> {
        let client = net::client().map_err(|source| CatalogError::Send { path: "/", source })?;
        Ok(Self { client, base_url: base_url.to_owned(), secret: api_key.to_owned() })
    }

    /// Creates a resource and returns its id.
    async fn create(&self, path: &'static str, form: &[(&str, &str)]) -> Result<String, CatalogError> {
        self.created(path, form).await.map(|(id, _)| id)
    }

    /// Creates a resource and returns its id and all of it.
    pub(crate) async fn created(
        &self,
        path: &'static str,
        form: &[(&str, &str)],
    ) -> Result<(String, Value), CatalogError> {
        let send = |source| CatalogError::Send { path, source };
        let request =
            self.client.post(format!("{}{path}", self.base_url)).bearer_auth(&self.secret).form(form);
        let answer = request.send().await.map_err(send)?;
        let succeeded = answer.status().is_success();
        let text = answer.text().await.map_err(send)?;
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        match body.get("id").and_then(Value::as_str) {
            Some(id) if succeeded => Ok((id.to_owned(), body)),
            _ => Err(CatalogError::Refused { path, answer: text }),
        }
    }
}

/// The exact decimal of cents per token, or `None` if Stripe does not take as many decimals.
fn cents_per_token(nano_usd_per_million_tokens: u64) -> Option<String> {
    let digits = NANO_USD_PER_MILLION_IN_A_CENT_PER_TOKEN_DIGITS;
    let padded = format!("{nano_usd_per_million_tokens:0width$}", width = digits.saturating_add(1));
    let (whole, decimals) = padded.split_at(padded.len().saturating_sub(digits));
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > DECIMALS_MAX {
        return None;
    }
    Some(if decimals.is_empty() { whole.to_owned() } else { format!("{whole}.{decimals}") })
}

#[cfg(test)]
mod tests {
    use super::{Catalog, CatalogError, cents_per_token};

    #[test]
    fn a_price_per_token_is_exact_or_refused() {
        assert_eq!(cents_per_token(2_000_000_000).as_deref(), Some("0.0002"));
        assert_eq!(cents_per_token(10_000_000_000_000).as_deref(), Some("1"));
        assert_eq!(cents_per_token(12_345_000_000_000_000).as_deref(), Some("1234.5"));
        assert_eq!(cents_per_token(10).as_deref(), Some("0.000000000001"));
        assert_eq!(cents_per_token(1), None);
    }

    #[tokio::test]
    async fn a_plan_with_half_its_prices_is_named() {
        let listener = crate::net::bind_loopback().unwrap();
        let stripe = crate::stripe::start(listener, crate::stripe::Options::default()).await.unwrap();
        let plans = "[[plan]]\nid = \"pro\"\nprice_cents_per_month = 1\nincluded_tokens = 1\ncap_tokens = 1\nmetered_lookup_key = \"k\"\n";
        let error = Catalog::set_up(&stripe.base_url(), "sk_test_local", plans).await.unwrap_err();
        assert!(matches!(error, CatalogError::Missing { field: "base_lookup_key", .. }), "{error}");
    }
}
