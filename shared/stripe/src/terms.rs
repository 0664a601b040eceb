//! What a subscription says about the price of its usage: by which price of the meter it is billed, and until when nothing is.

use crate::client::Stripe;
use crate::fetch::FetchError;
use crate::setup::ObjectId;
use domain::{SubscriptionId, Timestamp};
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The terms of a subscription, as they are now; of one that has ended, as they were last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Until when Stripe bills nothing for what its meter counts; none: it never had a trial.
    pub trial_ends_at: Option<Timestamp>,
    /// The price that bills what the meter counts; none: it has none, or several.
    pub price: Option<ObjectId>,
}

impl Stripe {
    /// Reads what a subscription says about what the meter `meter_id` (`mtr_...`) counts.
    ///
    /// # Errors
    /// When Stripe does not have the subscription, does not answer, refuses, or answers with what is no subscription.
    pub async fn terms(&self, id: &SubscriptionId, meter_id: &str) -> Result<Terms, FetchError> {
        let request =
            RequestBuilder::new(StripeMethod::Get, format!("/subscriptions/{id}")).customize::<Wire>();
        Ok(self.call(StripeMethod::Get, request).await?.read(meter_id))
    }
}

#[derive(miniserde::Deserialize)]
struct Wire {
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
    fn read(self, meter_id: &str) -> Terms {
        let is_of_meter = |price: &WirePrice| {
            price.recurring.as_ref().and_then(|recurring| recurring.meter.as_deref()) == Some(meter_id)
        };
        let mut prices = self.items.data.into_iter().map(|item| item.price).filter(is_of_meter);
        let only = prices.next().filter(|_| prices.next().is_none());
        let price = only.and_then(|price| ObjectId::parse(&price.id));
        Terms { trial_ends_at: self.trial_end.map(Timestamp::from_s), price }
    }
}
