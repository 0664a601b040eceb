//! What a subscription says about the price of its usage: by which price of the meter it is billed, and in which time nothing is.

use crate::client::Stripe;
use crate::fetch::FetchError;
use crate::setup::ObjectId;
use domain::{CustomerId, Period, SubscriptionId, Timestamp};
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The most subscriptions of one customer that are looked at: Stripe's page.
const PAGE_MAX: u32 = 100;
/// How far a period may reach beyond a trial and be of it, in milliseconds: a minute, for two clocks.
const BEYOND_MS_MAX: u64 = 60 * 1_000;

/// The terms of a subscription, as they are now; of one that has ended, as they were last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whose they are.
    pub subscription: SubscriptionId,
    /// When the subscription was created.
    pub created: Timestamp,
    /// When it ended; none: it goes on.
    pub ended_at: Option<Timestamp>,
    /// When Stripe bills nothing for what its meter counts; none: it never had a trial.
    pub trial: Option<Period>,
    /// Whether it has a price that bills what the meter counts.
    pub is_metered: bool,
    /// The price that bills what the meter counts; none: it has none, or several.
    pub price: Option<ObjectId>,
}

impl Terms {
    /// Whether nothing is billed for what was used in a period, since all of it was a trial.
    pub fn is_trial(&self, period: Period) -> bool {
        self.trial.is_some_and(|trial| {
            trial.start() <= period.start().plus_ms(BEYOND_MS_MAX)
                && period.end() <= trial.end().plus_ms(BEYOND_MS_MAX)
        })
    }
}

impl Stripe {
    /// Reads what a subscription says about what the meter `meter_id` (`mtr_...`) counts.
    ///
    /// # Errors
    /// When Stripe does not have the subscription, does not answer, refuses, or answers with what is no subscription.
    pub async fn terms(&self, id: &SubscriptionId, meter_id: &str) -> Result<Terms, FetchError> {
        let request =
            RequestBuilder::new(StripeMethod::Get, format!("/subscriptions/{id}")).customize::<Wire>();
        self.call(StripeMethod::Get, request).await?.read(meter_id)
    }

    /// The same of all subscriptions of a customer, those that have ended too: at most 100, the newest first.
    ///
    /// # Errors
    /// When Stripe does not have the customer, does not answer, refuses, or answers with what is no list of subscriptions.
    pub async fn all_terms(&self, customer: &CustomerId, meter_id: &str) -> Result<Vec<Terms>, FetchError> {
        let query = OfCustomer { customer: customer.as_str(), status: "all", limit: PAGE_MAX };
        let request =
            RequestBuilder::new(StripeMethod::Get, "/subscriptions").query(&query).customize::<WirePage>();
        let page = self.call(StripeMethod::Get, request).await?;
        page.data.into_iter().map(|wire| wire.read(meter_id)).collect()
    }
}

#[derive(serde::Serialize)]
struct OfCustomer<'a> {
    customer: &'a str,
    status: &'static str,
    limit: u32,
}

#[derive(miniserde::Deserialize)]
struct WirePage {
    data: Vec<Wire>,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    created: u64,
    ended_at: Option<u64>,
    trial_start: Option<u64>,
    trial_end: Option<u64>,
    items: WireList,
}

#[derive(miniserde::Deserialize)]
struct WireList {
    data: Vec<WireItem>,
}

#[derive(miniserde::Deserialize)]
struct WireItem {
    price: WirePrice,
}

#[derive(miniserde::Deserialize)]
struct WirePrice {
    id: String,
    recurring: Option<WireRecurring>,
}

#[derive(miniserde::Deserialize)]
struct WireRecurring {
    meter: Option<String>,
}

impl Wire {
    fn read(self, meter_id: &str) -> Result<Terms, FetchError> {
        let is_of_meter = |price: &WirePrice| {
            price.recurring.as_ref().and_then(|recurring| recurring.meter.as_deref()) == Some(meter_id)
        };
        let mut prices = self.items.data.into_iter().map(|item| item.price).filter(is_of_meter);
        let first = prices.next();
        let is_metered = first.is_some();
        let only = first.filter(|_| prices.next().is_none());
        let bounds = self.trial_start.zip(self.trial_end);
        Ok(Terms {
            subscription: SubscriptionId::parse(&self.id).map_err(|_| FetchError::Malformed("id"))?,
            created: Timestamp::from_s(self.created),
            ended_at: self.ended_at.map(Timestamp::from_s),
            trial: bounds
                .and_then(|(start, end)| Period::new(Timestamp::from_s(start), Timestamp::from_s(end))),
            is_metered,
            price: only.and_then(|price| ObjectId::parse(&price.id)),
        })
    }
}
