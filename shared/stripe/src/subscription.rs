//! A subscription as Stripe has it now. Read by the few fields that are used, so that nothing else in it can stop us.

use crate::adopt::ADOPTED_KEY;
use crate::client::Stripe;
use crate::fetch::FetchError;
use crate::setup::SOLD_BY_KEY;
use domain::{CustomerId, InvoiceId, Period, SubscriptionId, Timestamp, UserId};
use miniserde::json::Value;
use std::collections::BTreeMap;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The metadata key, on the subscription or else its customer, that names the user.
pub(crate) const USER_KEY: &str = "user_id";
/// The metadata key of what an owner has marked as this product's.
pub(crate) const MARK_KEY: &str = "inkmeter";
/// Its value on a subscription that a schedule is about to bring to our prices.
pub(crate) const MARK_ADOPT: &str = "adopt";
/// The most subscriptions of one customer, and unpaid invoices of one subscription, that are looked at: Stripe's page.
const PAGE_MAX: u32 = 100;

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

/// What becomes of the invoices that a subscription makes while their collection is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// They stay drafts, to be collected later.
    KeepAsDraft,
    /// Nobody will pay them.
    MarkUncollectible,
    /// They are void.
    Void,
    /// A behaviour that Stripe added since.
    Other(String),
}

/// One of a subscription's prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The lookup key of its price, or the one that it was sold by before another price took it over.
    pub lookup_key: Option<String>,
    /// How many of a price that is not metered.
    pub quantity: Option<u64>,
    /// Its current period.
    pub period: Option<Period>,
    /// When it was added to the subscription. A price that was exchanged in its place leaves it as it was.
    pub created: Option<Timestamp>,
}

/// A subscription's newest invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestInvoice {
    /// Its id.
    pub id: InvoiceId,
    /// Whether it is not final yet.
    pub is_draft: bool,
    /// When it became final.
    pub finalized_at: Option<Timestamp>,
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
    /// Whether it was taken over in its current period, and is about to be sold by our prices: `inkmeter` is `adopt` in its
    /// metadata, and `inkmeter_adopted` is the period's start. In a later period it should have been sold by them.
    pub adopted_soon: bool,
    /// What becomes of its invoices, if their collection is paused.
    pub paused_collection: Option<Collection>,
    /// When it was created.
    pub created: Timestamp,
    /// The instant that its periods are counted from.
    pub anchor: Timestamp,
    /// Its prices.
    pub items: Vec<Item>,
    /// When it will end, or has, because somebody canceled it for then.
    pub cancel_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its newest invoice.
    pub latest_invoice: Option<LatestInvoice>,
}

impl Subscription {
    /// The lookup keys of its prices.
    pub fn lookup_keys(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(|item| item.lookup_key.as_deref())
    }
}

impl Stripe {
    /// Fetches a subscription with its customer and its newest invoice.
    ///
    /// # Errors
    /// When Stripe does not have it, does not answer, refuses, or answers with what is no subscription.
    pub async fn subscription(&self, id: &SubscriptionId) -> Result<Subscription, FetchError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/subscriptions/{id}"))
            .query(&Expanded { expand: ["customer", "latest_invoice"] })
            .customize::<Wire>();
        self.call(StripeMethod::Get, request).await?.read()
    }

    /// The subscriptions of a customer that have not ended, at most 100, the newest first. Their users are those of their own
    /// metadata only.
    ///
    /// # Errors
    /// When Stripe does not have the customer, does not answer, refuses, or answers with what is no list of subscriptions.
    pub async fn subscriptions_of(&self, customer: &CustomerId) -> Result<Vec<Subscription>, FetchError> {
        let query = OfCustomer { customer: customer.as_str(), limit: PAGE_MAX };
        let request = RequestBuilder::new(StripeMethod::Get, "/subscriptions")
            .query(&query)
            .customize::<WireList<Wire>>();
        let list = self.call(StripeMethod::Get, request).await?;
        list.data.into_iter().map(Wire::read).collect()
    }

    /// Since when a subscription has had an invoice that is final and unpaid, the oldest such counting; none: it has none.
    ///
    /// # Errors
    /// When Stripe does not have the subscription, does not answer, refuses, or answers with what is no list of invoices.
    pub async fn unpaid_since(&self, id: &SubscriptionId) -> Result<Option<Timestamp>, FetchError> {
        let query = Unpaid { subscription: id.as_str(), status: "open", limit: PAGE_MAX };
        let request = RequestBuilder::new(StripeMethod::Get, "/invoices")
            .query(&query)
            .customize::<WireList<WireInvoice>>();
        let list = self.call(StripeMethod::Get, request).await?;
        Ok(list.data.iter().filter_map(WireInvoice::finalized_at).min())
    }
}

#[derive(serde::Serialize)]
struct Expanded {
    expand: [&'static str; 2],
}

#[derive(serde::Serialize)]
struct OfCustomer<'a> {
    customer: &'a str,
    limit: u32,
}

#[derive(serde::Serialize)]
struct Unpaid<'a> {
    subscription: &'a str,
    status: &'static str,
    limit: u32,
}

#[derive(miniserde::Deserialize)]
struct WireList<T> {
    data: Vec<T>,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    customer: Value,
    metadata: Option<BTreeMap<String, String>>,
    status: String,
    pause_collection: Option<WirePause>,
    created: u64,
    billing_cycle_anchor: u64,
    cancel_at: Option<u64>,
    ended_at: Option<u64>,
    items: WireList<WireItem>,
    latest_invoice: Option<Value>,
}

#[derive(miniserde::Deserialize)]
struct WirePause {
    behavior: String,
}

#[derive(miniserde::Deserialize)]
struct WireItem {
    current_period_start: Option<u64>,
    current_period_end: Option<u64>,
    created: Option<u64>,
    quantity: Option<u64>,
    price: WirePrice,
}

#[derive(miniserde::Deserialize)]
struct WirePrice {
    lookup_key: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(miniserde::Deserialize)]
struct WireInvoice {
    status_transitions: Option<WireTransitions>,
}

#[derive(miniserde::Deserialize)]
struct WireTransitions {
    finalized_at: Option<u64>,
}

impl WireInvoice {
    fn finalized_at(&self) -> Option<Timestamp> {
        self.status_transitions.as_ref()?.finalized_at.map(Timestamp::from_s)
    }
}

impl Wire {
    fn read(self) -> Result<Subscription, FetchError> {
        let (customer, customers_user) = match &self.customer {
            Value::String(id) => (Some(id.as_str()), None),
            Value::Object(customer) => (text(customer.get("id")), user_in(customer.get("metadata"))),
            _ => (None, None),
        };
        let named = self.metadata.as_ref().and_then(|metadata| metadata.get(USER_KEY));
        let mark = self.metadata.as_ref().and_then(|metadata| metadata.get(MARK_KEY));
        let adopted = self.metadata.as_ref().and_then(|metadata| metadata.get(ADOPTED_KEY));
        let adopted: Option<u64> = adopted.and_then(|start_s| start_s.parse().ok());
        let start = self.items.data.iter().find_map(|item| item.current_period_start);
        let user = named.map(String::as_str).or(customers_user).and_then(|user| UserId::parse(user).ok());
        Ok(Subscription {
            id: SubscriptionId::parse(&self.id).map_err(|_| FetchError::Malformed("id"))?,
            customer: customer
                .and_then(|id| CustomerId::parse(id).ok())
                .ok_or(FetchError::Malformed("customer"))?,
            user,
            status: Status::parse(self.status),
            adopted_soon: mark.is_some_and(|mark| mark == MARK_ADOPT) && start.is_some() && start == adopted,
            paused_collection: self.pause_collection.map(|pause| Collection::parse(pause.behavior)),
            created: Timestamp::from_s(self.created),
            anchor: Timestamp::from_s(self.billing_cycle_anchor),
            items: self.items.data.into_iter().map(WireItem::read).collect(),
            cancel_at: self.cancel_at.map(Timestamp::from_s),
            ended_at: self.ended_at.map(Timestamp::from_s),
            latest_invoice: self.latest_invoice.as_ref().and_then(latest_invoice),
        })
    }
}

impl WireItem {
    fn read(self) -> Item {
        let bounds = self.current_period_start.zip(self.current_period_end);
        let period =
            bounds.and_then(|(start, end)| Period::new(Timestamp::from_s(start), Timestamp::from_s(end)));
        let sold_by = self.price.metadata.and_then(|mut metadata| metadata.remove(SOLD_BY_KEY));
        let lookup_key = self.price.lookup_key.or(sold_by);
        Item { lookup_key, quantity: self.quantity, period, created: self.created.map(Timestamp::from_s) }
    }
}

/// None where it was not expanded too: in a list, nothing is made of it.
fn latest_invoice(value: &Value) -> Option<LatestInvoice> {
    let Value::Object(invoice) = value else { return None };
    let finalized_at = match invoice.get("status_transitions") {
        Some(Value::Object(transitions)) => seconds(transitions.get("finalized_at")),
        _ => None,
    };
    Some(LatestInvoice {
        id: InvoiceId::parse(text(invoice.get("id"))?).ok()?,
        is_draft: text(invoice.get("status")) == Some("draft"),
        finalized_at,
    })
}

impl Status {
    pub(crate) fn parse(text: String) -> Self {
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

impl Collection {
    fn parse(text: String) -> Self {
        match text.as_str() {
            "keep_as_draft" => Self::KeepAsDraft,
            "mark_uncollectible" => Self::MarkUncollectible,
            "void" => Self::Void,
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

fn seconds(value: Option<&Value>) -> Option<Timestamp> {
    match value {
        Some(Value::Number(miniserde::json::Number::U64(s))) => Some(Timestamp::from_s(*s)),
        _ => None,
    }
}

fn user_in(metadata: Option<&Value>) -> Option<&str> {
    match metadata {
        Some(Value::Object(metadata)) => text(metadata.get(USER_KEY)),
        _ => None,
    }
}
