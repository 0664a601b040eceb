//! A subscription as Stripe has it now. Read by the few fields that are used, so that nothing else in it can stop us.

use crate::client::Stripe;
use crate::failure::Failure;
use domain::{CustomerId, Period, SubscriptionId, Timestamp, UserId};
use miniserde::json::Value;
use std::collections::BTreeMap;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The metadata key, on the subscription or else its customer, that names the user.
const USER_KEY: &str = "user_id";

/// Where a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Paid.
    Active,
    /// In its trial.
    Trialing,
    /// The last invoice is unpaid; Stripe is still trying.
    PastDue,
    /// The first invoice is not paid yet.
    Incomplete,
    /// The first invoice was never paid.
    IncompleteExpired,
    /// Ended.
    Canceled,
    /// Stripe has given up on the last invoice.
    Unpaid,
    /// A trial ended without a way to pay.
    Paused,
    /// A status that Stripe added since.
    Other(String),
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Who pays.
    pub customer: CustomerId,
    /// Whose it is: `user_id` in its own metadata or, where it has none, its customer's. None: nobody said, or not in the form of
    /// a user id.
    pub user: Option<UserId>,
    /// Where it stands.
    pub status: Status,
    /// When it was created.
    pub created: Timestamp,
    /// The instant that its periods are counted from.
    pub anchor: Timestamp,
    /// The current period of its first item.
    pub period: Option<Period>,
    /// The lookup keys of its prices.
    pub lookup_keys: Vec<String>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// The subscription is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// Stripe knows none with this id.
    #[error("Stripe knows no such subscription: {0}")]
    NotFound(String),
    /// No answer, or none now; ask again later.
    #[error("the subscription is not to be had now: {0}")]
    Unavailable(String),
    /// Refused; every such question would be, until a person looks.
    #[error("Stripe refused to show the subscription: {0}")]
    Refused(String),
    /// An answer that cannot be a subscription.
    #[error("Stripe's subscription has no usable {0}")]
    Malformed(&'static str),
}

impl Stripe {
    /// Fetches a subscription with its customer.
    ///
    /// # Errors
    /// When Stripe does not know it, does not answer, refuses, or answers with what is no subscription.
    pub async fn subscription(&self, id: &SubscriptionId) -> Result<Subscription, SubscriptionError> {
        // A subscription id has no character that a path would read otherwise, but for `/` and `.`.
        if id.as_str().contains(['/', '.']) {
            return Err(SubscriptionError::NotFound("not in the form of a subscription id".into()));
        }
        let request = RequestBuilder::new(StripeMethod::Get, format!("/subscriptions/{id}"))
            .query(&Query { expand: ["customer"] })
            .customize::<Wire>();
        let wire = self.call(StripeMethod::Get, request).await?;
        wire.read()
    }
}

#[derive(serde::Serialize)]
struct Query {
    expand: [&'static str; 1],
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    customer: Value,
    metadata: Option<BTreeMap<String, String>>,
    status: String,
    created: u64,
    billing_cycle_anchor: u64,
    ended_at: Option<u64>,
    items: WireItems,
}

#[derive(miniserde::Deserialize)]
struct WireItems {
    data: Vec<WireItem>,
}

#[derive(miniserde::Deserialize)]
struct WireItem {
    current_period_start: Option<u64>,
    current_period_end: Option<u64>,
    price: WirePrice,
}

#[derive(miniserde::Deserialize)]
struct WirePrice {
    lookup_key: Option<String>,
}

impl Wire {
    fn read(self) -> Result<Subscription, SubscriptionError> {
        let (customer, customers_user) = match &self.customer {
            Value::String(id) => (Some(id.as_str()), None),
            Value::Object(customer) => (text(customer.get("id")), user_in(customer.get("metadata"))),
            _ => (None, None),
        };
        let named = self.metadata.as_ref().and_then(|metadata| metadata.get(USER_KEY));
        let user = named.map(String::as_str).or(customers_user).and_then(|user| UserId::parse(user).ok());
        let first = self.items.data.first();
        let period = first.and_then(|item| {
            let (start, end) = (item.current_period_start?, item.current_period_end?);
            Period::new(Timestamp::from_s(start), Timestamp::from_s(end))
        });
        Ok(Subscription {
            id: SubscriptionId::parse(&self.id).map_err(|_| SubscriptionError::Malformed("id"))?,
            customer: customer
                .and_then(|id| CustomerId::parse(id).ok())
                .ok_or(SubscriptionError::Malformed("customer"))?,
            user,
            status: Status::parse(self.status),
            created: Timestamp::from_s(self.created),
            anchor: Timestamp::from_s(self.billing_cycle_anchor),
            period,
            lookup_keys: self.items.data.into_iter().filter_map(|item| item.price.lookup_key).collect(),
            ended_at: self.ended_at.map(Timestamp::from_s),
        })
    }
}

impl Status {
    fn parse(text: String) -> Self {
        match text.as_str() {
            "active" => Self::Active,
            "trialing" => Self::Trialing,
            "past_due" => Self::PastDue,
            "incomplete" => Self::Incomplete,
            "incomplete_expired" => Self::IncompleteExpired,
            "canceled" => Self::Canceled,
            "unpaid" => Self::Unpaid,
            "paused" => Self::Paused,
            _ => Self::Other(text),
        }
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn user_in(metadata: Option<&Value>) -> Option<&str> {
    match metadata {
        Some(Value::Object(metadata)) => text(metadata.get(USER_KEY)),
        _ => None,
    }
}

impl From<Failure> for SubscriptionError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Lost(reason) => Self::Unavailable(reason),
            Failure::Unusable(reason) => Self::Refused(reason),
            Failure::Answered(answer) if answer.status == 404 => Self::NotFound(answer.to_string()),
            Failure::Answered(answer) if answer.busy() => Self::Unavailable(answer.to_string()),
            Failure::Answered(answer) => Self::Refused(answer.to_string()),
        }
    }
}
