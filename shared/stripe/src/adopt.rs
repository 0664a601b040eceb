//! What stands at Stripe from before this product: customers and subscriptions as somebody else sold them, and the few marks
//! that are set on them. What a subscription becomes is the business of its schedule.
//!
//! Each change has a key of its own and is made once. Where its outcome is unknown it is not repeated here: whoever called
//! reads what is there again.

use crate::client::Stripe;
use crate::failure::Failure;
use crate::setup::form::Form;
use crate::setup::{ObjectId, SOLD_BY_KEY, SetupError};
use crate::subscription::{MARK_ADOPT, MARK_KEY, Status, USER_KEY};
use domain::{CustomerId, Period, SubscriptionId, Timestamp, UserId};
use miniserde::{Deserialize, json::Value};
use std::collections::BTreeMap;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The metadata key of a subscription that was taken over: the start of the period in which it was, in seconds since 1970.
pub(crate) const ADOPTED_KEY: &str = "inkmeter_adopted";
/// Subscriptions of one customer that are looked at: Stripe's page.
const PAGE_MAX: &str = "100";
const CURRENCY: &str = "usd";

/// A customer, as somebody else made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldCustomer {
    /// Whose it says it is, in whatever form; none: it does not say.
    pub user: Option<String>,
}

/// One price of a subscription that somebody else sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldItem {
    /// The price.
    pub price: ObjectId,
    /// Its lookup key, or the one that it was sold by.
    pub lookup_key: Option<String>,
    /// Whether it bills what was used.
    pub metered: bool,
    /// How many of a price that is not metered.
    pub quantity: Option<u64>,
    /// Its current period.
    pub period: Option<Period>,
}

/// A subscription that somebody else sold.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own at Stripe")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldSubscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose its own metadata says it is, in whatever form.
    pub user: Option<String>,
    /// The start of the period in which it was taken over; none: it was not.
    pub adopted: Option<Timestamp>,
    /// Whether it is marked as one whose prices are about to be ours.
    pub marked: bool,
    /// Where it stands.
    pub status: Status,
    /// Whether its collection is paused.
    pub paused: bool,
    /// When it is set to end.
    pub ends_at: Option<Timestamp>,
    /// Whether it is in flexible billing mode.
    pub flexible: bool,
    /// Whether Stripe reckons its taxes.
    pub automatic_tax: bool,
    /// The schedule that it has.
    pub schedule: Option<ObjectId>,
    /// The instant that its periods are counted from.
    pub anchor: Timestamp,
    /// Its prices.
    pub items: Vec<OldItem>,
    /// What it has that a schedule made here would lose, in words.
    pub special: Vec<&'static str>,
}

#[derive(Deserialize)]
struct WireCustomer {
    deleted: Option<bool>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WireId {
    #[expect(dead_code, reason = "that an object was answered is all that is wanted")]
    id: String,
}

#[derive(Deserialize)]
struct WireList {
    data: Vec<Wire>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    metadata: Option<BTreeMap<String, String>>,
    status: String,
    pause_collection: Option<Value>,
    cancel_at: Option<u64>,
    cancel_at_period_end: bool,
    billing_mode: Option<WireMode>,
    automatic_tax: Option<WireTax>,
    schedule: Option<String>,
    billing_cycle_anchor: u64,
    items: WireItems,
    currency: String,
    collection_method: Option<String>,
    discounts: Option<Vec<Value>>,
    default_tax_rates: Option<Vec<Value>>,
    transfer_data: Option<Value>,
    on_behalf_of: Option<Value>,
    application_fee_percent: Option<Value>,
    pending_update: Option<Value>,
}

#[derive(Deserialize)]
struct WireMode {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct WireTax {
    enabled: bool,
}

#[derive(Deserialize)]
struct WireItems {
    data: Vec<WireItem>,
    has_more: Option<bool>,
}

#[derive(Deserialize)]
struct WireItem {
    current_period_start: Option<u64>,
    current_period_end: Option<u64>,
    quantity: Option<u64>,
    price: WirePrice,
    discounts: Option<Vec<Value>>,
    tax_rates: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct WirePrice {
    id: String,
    lookup_key: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    recurring: Option<WireRecurring>,
}

#[derive(Deserialize)]
struct WireRecurring {
    usage_type: String,
}

fn is_some(list: Option<&Vec<Value>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

impl Wire {
    /// What it has that a schedule made here would lose.
    fn special(&self) -> Vec<&'static str> {
        let items = &self.items.data;
        let of_items =
            |list: fn(&WireItem) -> Option<&Vec<Value>>| items.iter().any(|item| is_some(list(item)));
        let has = [
            (self.currency != CURRENCY, "another currency than US dollars"),
            (self.collection_method.as_deref() == Some("send_invoice"), "invoices that are sent by e-mail"),
            (is_some(self.discounts.as_ref()) || of_items(|item| item.discounts.as_ref()), "a discount"),
            (
                is_some(self.default_tax_rates.as_ref()) || of_items(|item| item.tax_rates.as_ref()),
                "tax rates",
            ),
            (self.transfer_data.is_some() || self.on_behalf_of.is_some(), "another account that is paid"),
            (self.application_fee_percent.is_some(), "an application fee"),
            (self.pending_update.is_some(), "a pending update"),
            (self.items.has_more == Some(true), "more items than one page"),
        ];
        has.into_iter().filter_map(|(has, what)| has.then_some(what)).collect()
    }

    fn read(self) -> Result<OldSubscription, SetupError> {
        let special = self.special();
        let mut metadata = self.metadata.unwrap_or_default();
        let adopted = match metadata.remove(ADOPTED_KEY) {
            None => None,
            Some(text) => {
                let s =
                    text.parse().map_err(|_| SetupError::Malformed("inkmeter_adopted of a subscription"))?;
                Some(Timestamp::from_s(s))
            }
        };
        let items = self.items.data.into_iter().map(WireItem::read).collect::<Result<Vec<_>, _>>()?;
        let period_end = items.iter().find_map(|item| item.period).map(Period::end);
        let ends_at =
            self.cancel_at.map(Timestamp::from_s).or(period_end.filter(|_| self.cancel_at_period_end));
        Ok(OldSubscription {
            id: SubscriptionId::parse(&self.id).map_err(|_| SetupError::Malformed("id of a subscription"))?,
            user: metadata.remove(USER_KEY),
            marked: metadata.remove(MARK_KEY).is_some_and(|mark| mark == MARK_ADOPT),
            adopted,
            status: Status::parse(self.status),
            paused: self.pause_collection.is_some(),
            ends_at,
            flexible: self.billing_mode.is_some_and(|mode| mode.kind == "flexible"),
            automatic_tax: self.automatic_tax.is_some_and(|tax| tax.enabled),
            schedule: match self.schedule {
                None => None,
                Some(id) => Some(ObjectId::parse(&id).ok_or(SetupError::Malformed("id of a schedule"))?),
            },
            anchor: Timestamp::from_s(self.billing_cycle_anchor),
            items,
            special,
        })
    }
}

impl WireItem {
    fn read(self) -> Result<OldItem, SetupError> {
        let bounds = self.current_period_start.zip(self.current_period_end);
        let sold_by = self.price.metadata.and_then(|mut metadata| metadata.remove(SOLD_BY_KEY));
        Ok(OldItem {
            price: ObjectId::parse(&self.price.id).ok_or(SetupError::Malformed("id of a price"))?,
            lookup_key: self.price.lookup_key.or(sold_by),
            metered: self.price.recurring.is_some_and(|recurring| recurring.usage_type == "metered"),
            quantity: self.quantity,
            period: bounds
                .and_then(|(start, end)| Period::new(Timestamp::from_s(start), Timestamp::from_s(end))),
        })
    }
}

impl Stripe {
    /// A customer that somebody else made; none: Stripe has none, or has it no more.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn old_customer(&self, id: &CustomerId) -> Result<Option<OldCustomer>, SetupError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/customers/{id}"));
        match self.call(StripeMethod::Get, request.customize::<WireCustomer>()).await {
            Ok(WireCustomer { deleted: Some(true), .. }) => Ok(None),
            Ok(wire) => {
                let user = wire.metadata.and_then(|mut metadata| metadata.remove(USER_KEY));
                Ok(Some(OldCustomer { user }))
            }
            Err(Failure::Answered(answer)) if answer.status == 404 => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The subscriptions of a customer that have not ended.
    ///
    /// # Errors
    /// See [`SetupError`]; also where there are more than a hundred.
    pub async fn old_subscriptions(&self, customer: &CustomerId) -> Result<Vec<OldSubscription>, SetupError> {
        let mut request = RequestBuilder::new(StripeMethod::Get, "/subscriptions");
        request.query =
            Some(Form::default().set("customer", customer.as_str()).set("limit", PAGE_MAX).encode());
        let list = self.call(StripeMethod::Get, request.customize::<WireList>()).await?;
        if list.has_more {
            return Err(SetupError::Refused(format!("{customer} has more than {PAGE_MAX} subscriptions")));
        }
        list.data.into_iter().map(Wire::read).collect()
    }

    /// Says on a customer whose it is.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn name_customer(&self, id: &CustomerId, user: &UserId) -> Result<(), SetupError> {
        let form = Form::default().set(format!("metadata[{USER_KEY}]"), user.as_str());
        self.post::<WireId>(format!("/customers/{id}"), &form).await.map(drop)
    }

    /// Says on a subscription whose it is, and that it was taken over in the period that began at `adopted`; and marks it, so that
    /// nobody is told of its old prices.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn mark_subscription(
        &self,
        id: &SubscriptionId,
        user: &UserId,
        adopted: Timestamp,
    ) -> Result<(), SetupError> {
        let form = Form::default()
            .set(format!("metadata[{USER_KEY}]"), user.as_str())
            .set(format!("metadata[{ADOPTED_KEY}]"), adopted.s().to_string())
            .set(format!("metadata[{MARK_KEY}]"), MARK_ADOPT);
        self.post::<WireId>(format!("/subscriptions/{id}"), &form).await.map(drop)
    }

    /// Takes the mark off a subscription that has our prices.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn unmark_subscription(&self, id: &SubscriptionId) -> Result<(), SetupError> {
        let form = Form::default().set(format!("metadata[{MARK_KEY}]"), "");
        self.post::<WireId>(format!("/subscriptions/{id}"), &form).await.map(drop)
    }

    /// Takes a subscription from classic to flexible billing mode, in which a change of its metered price bills what was used
    /// before. Stripe refuses that while it has a metered price without a meter
    /// (docs.stripe.com/billing/subscriptions/billing-mode).
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn make_flexible(&self, id: &SubscriptionId) -> Result<(), SetupError> {
        let form = Form::default().set("billing_mode[type]", "flexible");
        self.post::<WireId>(format!("/subscriptions/{id}/migrate"), &form).await.map(drop)
    }
}
