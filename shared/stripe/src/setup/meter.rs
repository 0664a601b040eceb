//! Meters: what counts the tokens, found by the name of its events.

use super::form::Form;
use super::{Listed, ObjectId, SetupError, object_id};
use crate::client::Stripe;
use miniserde::Deserialize;

/// A meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its id.
    pub id: ObjectId,
    /// The name of its events.
    pub event_name: String,
    /// Whether it counts.
    pub active: bool,
    /// How it counts, `sum` for instance.
    pub formula: String,
    /// The key in an event's payload that names the customer.
    pub customer_key: String,
    /// The key in an event's payload that has the number.
    pub value_key: String,
}

/// A meter that sums tokens up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewMeter<'a> {
    /// What the dashboard calls it.
    pub display_name: &'a str,
    /// The name of its events.
    pub event_name: &'a str,
}

impl NewMeter<'_> {
    /// How it counts.
    pub const FORMULA: &'static str = "sum";
    /// The key that names the customer, as [`Stripe::send`] sends it.
    pub const CUSTOMER_KEY: &'static str = "stripe_customer_id";
    /// The key that has the number, as [`Stripe::send`] sends it.
    pub const VALUE_KEY: &'static str = "value";
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    event_name: String,
    status: String,
    default_aggregation: Aggregation,
    customer_mapping: Key,
    value_settings: Key,
}

#[derive(Deserialize)]
struct Aggregation {
    formula: String,
}

#[derive(Deserialize)]
struct Key {
    event_payload_key: String,
}

impl Listed for Wire {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Wire {
    fn read(self) -> Result<Meter, SetupError> {
        Ok(Meter {
            id: object_id(&self.id)?,
            event_name: self.event_name,
            active: self.status == "active",
            formula: self.default_aggregation.formula,
            customer_key: self.customer_mapping.event_payload_key,
            value_key: self.value_settings.event_payload_key,
        })
    }
}

impl Stripe {
    /// Every meter, deactivated ones too.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn meters(&self) -> Result<Vec<Meter>, SetupError> {
        let mut all = Vec::new();
        for status in ["active", "inactive"] {
            let query = Form::default().set("status", status);
            all.extend(self.list::<Wire>("/billing/meters", &query).await?);
        }
        all.into_iter().map(Wire::read).collect()
    }

    /// Creates a meter.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn create_meter(&self, new: &NewMeter<'_>) -> Result<Meter, SetupError> {
        let form = Form::default()
            .set("display_name", new.display_name)
            .set("event_name", new.event_name)
            .set("default_aggregation[formula]", NewMeter::FORMULA)
            .set("customer_mapping[type]", "by_id")
            .set("customer_mapping[event_payload_key]", NewMeter::CUSTOMER_KEY)
            .set("value_settings[event_payload_key]", NewMeter::VALUE_KEY);
        self.post::<Wire>("/billing/meters".into(), &form).await?.read()
    }
}
