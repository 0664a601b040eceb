//! Prices, found by lookup key. What a price charges is never changed: a new one takes the lookup key over.

use super::form::Form;
use super::{Cents, Listed, ObjectId, SOLD_BY_KEY, SetupError, object_id};
use crate::client::Stripe;
use miniserde::Deserialize;
use miniserde::json::Value;
use std::collections::BTreeMap;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// Lookup keys of one query: Stripe's most.
pub const LOOKUP_KEYS_MAX: usize = 10;
/// The currency of every price of ours.
const CURRENCY: &str = "usd";

/// How often a price is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interval {
    /// Once a month.
    Month,
    /// Anything else, in words.
    Other(String),
}

/// One tier of a metered price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The last token of the period that it holds; none: all that are left.
    pub up_to: Option<u64>,
    /// The price of a token.
    pub unit: Cents,
}

/// What a price charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// This much for each period, in advance.
    Flat(Cents),
    /// What a meter counted, at graduated tiers.
    Metered {
        /// The meter.
        meter: ObjectId,
        /// The tiers, lowest first.
        tiers: Vec<Tier>,
    },
}

/// A price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Its id.
    pub id: ObjectId,
    /// Whether it can be sold.
    pub active: bool,
    /// `usd` for instance.
    pub currency: String,
    /// What it is a price of.
    pub product: ObjectId,
    /// What it is found by.
    pub lookup_key: Option<String>,
    /// The lookup key that its metadata keep for those who pay by it, whatever becomes of its own.
    pub sold_by: Option<String>,
    /// How often it is charged.
    pub interval: Interval,
    /// What it charges; none: in a way that we never do.
    pub charge: Option<Charge>,
}

/// A monthly price in US dollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPrice<'a> {
    /// What it is a price of.
    pub product: &'a ObjectId,
    /// What it is found by.
    pub lookup_key: &'a str,
    /// Whether the lookup key is taken from the price that has it.
    pub takes_over: bool,
    /// What it charges.
    pub charge: &'a Charge,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    active: bool,
    currency: String,
    product: Value,
    lookup_key: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    billing_scheme: String,
    tiers_mode: Option<String>,
    unit_amount_decimal: Option<String>,
    transform_quantity: Option<Value>,
    recurring: Option<WireRecurring>,
    tiers: Option<Vec<WireTier>>,
}

#[derive(Deserialize)]
struct WireRecurring {
    interval: String,
    interval_count: u64,
    usage_type: String,
    meter: Option<String>,
}

#[derive(Deserialize)]
struct WireTier {
    up_to: Option<u64>,
    unit_amount_decimal: Option<String>,
    flat_amount_decimal: Option<String>,
}

impl Listed for Wire {
    fn id(&self) -> &str {
        &self.id
    }
}

impl WireTier {
    /// None: with a flat part, or an amount that we never write.
    fn read(&self) -> Option<Tier> {
        let is_zero = |text: &String| Cents::parse(text) == Ok(Cents::ZERO);
        if !self.flat_amount_decimal.as_ref().is_none_or(is_zero) {
            return None;
        }
        let unit = Cents::parse(self.unit_amount_decimal.as_deref()?).ok()?;
        Some(Tier { up_to: self.up_to, unit })
    }
}

impl WireRecurring {
    fn interval(&self) -> Interval {
        match (self.interval.as_str(), self.interval_count) {
            ("month", 1) => Interval::Month,
            (interval, count) => Interval::Other(format!("every {count} {interval}")),
        }
    }
}

impl Wire {
    fn charge(&self) -> Option<Charge> {
        let recurring = self.recurring.as_ref()?;
        if self.transform_quantity.is_some() {
            return None;
        }
        match (recurring.usage_type.as_str(), self.billing_scheme.as_str(), self.tiers_mode.as_deref()) {
            ("licensed", "per_unit", None) => {
                Cents::parse(self.unit_amount_decimal.as_deref()?).ok().map(Charge::Flat)
            }
            ("metered", "tiered", Some("graduated")) => {
                let meter = ObjectId::parse(recurring.meter.as_deref()?)?;
                let tiers: Option<Vec<Tier>> = self.tiers.as_ref()?.iter().map(WireTier::read).collect();
                Some(Charge::Metered { meter, tiers: tiers? })
            }
            _ => None,
        }
    }

    fn read(self) -> Result<Price, SetupError> {
        let product = match &self.product {
            Value::String(id) => ObjectId::parse(id),
            _ => None,
        };
        Ok(Price {
            id: object_id(&self.id)?,
            active: self.active,
            product: product.ok_or(SetupError::Malformed("product of a price"))?,
            interval: self
                .recurring
                .as_ref()
                .map_or_else(|| Interval::Other("once".into()), WireRecurring::interval),
            charge: self.charge(),
            currency: self.currency,
            lookup_key: self.lookup_key,
            sold_by: self.metadata.and_then(|mut metadata| metadata.remove(SOLD_BY_KEY)),
        })
    }
}

impl Price {
    /// Whether it is in US dollars.
    pub fn is_in_dollars(&self) -> bool {
        self.currency == CURRENCY
    }
}

impl Charge {
    fn fill(&self, form: Form) -> Form {
        let form = form.set("recurring[interval]", "month");
        match self {
            Self::Flat(cents) => form.set("unit_amount_decimal", cents.to_string()),
            Self::Metered { meter, tiers } => {
                let form = form
                    .set("recurring[usage_type]", "metered")
                    .set("recurring[meter]", meter.as_str())
                    .set("billing_scheme", "tiered")
                    .set("tiers_mode", "graduated");
                tiers.iter().enumerate().fold(form, |form, (index, tier)| {
                    let up_to = tier.up_to.map_or_else(|| "inf".into(), |up_to| up_to.to_string());
                    form.set(format!("tiers[{index}][up_to]"), up_to)
                        .set(format!("tiers[{index}][unit_amount_decimal]"), tier.unit.to_string())
                })
            }
        }
    }
}

impl Stripe {
    /// The prices that have these lookup keys, archived ones too, with their tiers.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn prices(&self, lookup_keys: &[&str]) -> Result<Vec<Price>, SetupError> {
        let mut all = Vec::new();
        for keys in lookup_keys.chunks(LOOKUP_KEYS_MAX) {
            let query =
                Form::default().list("lookup_keys", keys.iter().copied()).list("expand", ["data.tiers"]);
            all.extend(self.list::<Wire>("/prices", &query).await?);
        }
        all.into_iter().map(Wire::read).collect()
    }

    /// One price, with its tiers.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn price(&self, id: &ObjectId) -> Result<Price, SetupError> {
        let mut request = RequestBuilder::new(StripeMethod::Get, format!("/prices/{}", id.as_str()));
        request.query = Some(Form::default().list("expand", ["tiers"]).encode());
        self.call(StripeMethod::Get, request.customize::<Wire>()).await?.read()
    }

    /// Notes in a price's metadata the lookup key that it was sold by, as prices that are created here have it from the start.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn mark_price(&self, id: &ObjectId, lookup_key: &str) -> Result<Price, SetupError> {
        let form =
            Form::default().set(format!("metadata[{SOLD_BY_KEY}]"), lookup_key).list("expand", ["tiers"]);
        self.post::<Wire>(format!("/prices/{id}"), &form).await?.read()
    }

    /// Creates a price.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn create_price(&self, new: &NewPrice<'_>) -> Result<Price, SetupError> {
        let mut form = Form::default()
            .set("currency", CURRENCY)
            .set("product", new.product.as_str())
            .set("lookup_key", new.lookup_key)
            .set(format!("metadata[{SOLD_BY_KEY}]"), new.lookup_key);
        if new.takes_over {
            form = form.set("transfer_lookup_key", "true");
        }
        let form = new.charge.fill(form).list("expand", ["tiers"]);
        self.post::<Wire>("/prices".into(), &form).await?.read()
    }
}
