//! Checkout sessions: the page at Stripe on which a subscription is bought, and what is in the way of buying one.

use crate::client::Stripe;
use crate::customer::{SaleError, Whose};
use crate::failure::Failure;
use crate::setup::{ObjectId, SOLD_BY_KEY};
use crate::subscription::{MARK_ADOPT, MARK_KEY};
use domain::{CustomerId, PlanId, Timestamp, UserId};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// How many of a customer's sessions, and subscriptions, are looked at: the newest. Each new session ends the others, and a
/// subscription rules out a second one.
const LOOKED_AT_MAX: u32 = 100;
/// The metadata key of the digest of what was asked for.
const ASKED: &str = "inkmeter_asked";

/// What is to be bought.
#[derive(Clone, Copy, Debug)]
pub struct NewCheckout<'a> {
    /// Who buys.
    pub user: &'a UserId,
    /// Who pays.
    pub customer: &'a CustomerId,
    /// The plan.
    pub plan: &'a PlanId,
    /// Its flat price.
    pub base: &'a ObjectId,
    /// Its metered price.
    pub metered: &'a ObjectId,
    /// Where the customer lands after paying.
    pub success_url: &'a str,
    /// Where the customer lands after turning back.
    pub cancel_url: &'a str,
}

/// How far a session has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It can be paid, there.
    Open {
        /// Stripe's page.
        url: String,
    },
    /// It was paid.
    Complete,
    /// It cannot be paid any more.
    Expired,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// Its id.
    pub id: ObjectId,
    /// How far it has come.
    pub progress: Progress,
    /// When it was created.
    pub created: Timestamp,
    /// From when on it cannot be paid.
    pub expires_at: Timestamp,
    /// The digest of what was asked for, see [`NewCheckout::digest`].
    pub asked: Option<String>,
}

impl NewCheckout<'_> {
    /// What two requests have in common that ask for the same.
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let parts = [
            self.user.as_str(),
            self.customer.as_str(),
            self.plan.as_str(),
            self.base.as_str(),
            self.metered.as_str(),
            self.success_url,
            self.cancel_url,
        ];
        for part in parts {
            // Lengths, so that no two lists of parts read alike.
            digest.update(part.len().to_be_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize().iter().take(16).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }
}

#[derive(Serialize)]
struct Form<'a> {
    mode: &'static str,
    customer: &'a str,
    client_reference_id: &'a str,
    line_items: [Line<'a>; 2],
    success_url: &'a str,
    cancel_url: &'a str,
    expires_at: u64,
    metadata: Noted<'a>,
    subscription_data: Data<'a>,
}

/// A metered price has no quantity.
#[derive(Serialize)]
struct Line<'a> {
    price: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<u32>,
}

#[derive(Serialize)]
struct Noted<'a> {
    user_id: &'a str,
    inkmeter_asked: &'a str,
}

#[derive(Serialize)]
struct Data<'a> {
    metadata: Whose<'a>,
}

#[derive(Serialize)]
struct OfCustomer<'a> {
    customer: &'a str,
    limit: u32,
}

#[derive(miniserde::Deserialize)]
struct Page<T> {
    data: Vec<T>,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    status: String,
    url: Option<String>,
    created: u64,
    expires_at: u64,
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(miniserde::Deserialize)]
struct WireSubscription {
    status: String,
    metadata: Option<BTreeMap<String, String>>,
    items: Page<WireItem>,
}

#[derive(miniserde::Deserialize)]
struct WireItem {
    price: WirePrice,
}

#[derive(miniserde::Deserialize)]
struct WirePrice {
    lookup_key: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

impl WireSubscription {
    /// A list without a status leaves out what was canceled, and nothing else.
    fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "canceled" | "incomplete_expired")
    }

    /// Whether its prices are about to be ours.
    fn is_being_adopted(&self) -> bool {
        let mark = self.metadata.as_ref().and_then(|metadata| metadata.get(MARK_KEY));
        mark.is_some_and(|mark| mark == MARK_ADOPT)
    }

    /// The lookup keys of its prices, or those that they were sold by before another price took them over.
    fn lookup_keys(&self) -> impl Iterator<Item = &str> {
        self.items.data.iter().filter_map(|item| item.price.sold_by())
    }
}

impl WirePrice {
    fn sold_by(&self) -> Option<&str> {
        let noted = || self.metadata.as_ref()?.get(SOLD_BY_KEY).map(String::as_str);
        self.lookup_key.as_deref().or_else(noted)
    }
}

impl Wire {
    fn is_ours(&self) -> bool {
        self.metadata.as_ref().is_some_and(|metadata| metadata.contains_key(ASKED))
    }

    fn read(mut self) -> Result<Checkout, SaleError> {
        let progress = match (self.status.as_str(), self.url) {
            ("open", Some(url)) => Progress::Open { url },
            ("open", None) => return Err(SaleError::Malformed("address of a checkout session")),
            ("complete", _) => Progress::Complete,
            _ => Progress::Expired,
        };
        Ok(Checkout {
            id: ObjectId::parse(&self.id).ok_or(SaleError::Malformed("id of a checkout session"))?,
            progress,
            created: Timestamp::from_s(self.created),
            expires_at: Timestamp::from_s(self.expires_at),
            asked: self.metadata.as_mut().and_then(|metadata| metadata.remove(ASKED)),
        })
    }
}

impl Stripe {
    /// A customer's sessions that [`Stripe::create_checkout`] made, the newest first. What else is sold under this account of
    /// Stripe's has sessions too, which are nobody's here to look at or to end.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn checkouts(&self, customer: &CustomerId) -> Result<Vec<Checkout>, SaleError> {
        let query = OfCustomer { customer: customer.as_str(), limit: LOOKED_AT_MAX };
        let request = RequestBuilder::new(StripeMethod::Get, "/checkout/sessions").query(&query);
        let page = self.call(StripeMethod::Get, request.customize::<Page<Wire>>()).await?;
        page.data.into_iter().filter(Wire::is_ours).map(Wire::read).collect()
    }

    /// Whether a customer has a subscription to what `is_ours` says of a price's lookup key, or that is about to have such prices,
    /// that has not ended.
    ///
    /// Whether it is paid does not matter, nor whether it counts now: one that is paused, incomplete or given away can come back
    /// into force, and would then bill its customer beside a second one.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn is_subscribed(
        &self,
        customer: &CustomerId,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<bool, SaleError> {
        let query = OfCustomer { customer: customer.as_str(), limit: LOOKED_AT_MAX };
        let request = RequestBuilder::new(StripeMethod::Get, "/subscriptions").query(&query);
        let page = self.call(StripeMethod::Get, request.customize::<Page<WireSubscription>>()).await?;
        let mut open = page.data.iter().filter(|subscription| !subscription.has_ended());
        Ok(open
            .any(|subscription| subscription.is_being_adopted() || subscription.lookup_keys().any(&is_ours)))
    }

    /// Creates a session. Whoever does so at the same time, of the same, behind the same `newest` session of the customer's
    /// and until the same instant, gets the same one.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn create_checkout(
        &self,
        new: &NewCheckout<'_>,
        newest: Option<&Checkout>,
        expires_at: Timestamp,
    ) -> Result<Checkout, SaleError> {
        let asked = new.digest();
        let newest = newest.map_or("first", |newest| newest.id.as_str());
        let key = format!("inkmeter-checkout-{asked}-{}-{newest}", expires_at.s());
        let user_id = new.user.as_str();
        let form = Form {
            mode: "subscription",
            customer: new.customer.as_str(),
            client_reference_id: user_id,
            line_items: [
                Line { price: new.base.as_str(), quantity: Some(1) },
                Line { price: new.metered.as_str(), quantity: None },
            ],
            success_url: new.success_url,
            cancel_url: new.cancel_url,
            expires_at: expires_at.s(),
            metadata: Noted { user_id, inkmeter_asked: &asked },
            subscription_data: Data { metadata: Whose { user_id } },
        };
        let wire: Wire = self.create_once(&key, "/checkout/sessions", &form).await?;
        wire.read()
    }

    /// Ends a session that is open; false: it was not open any more.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn expire_checkout(&self, id: &ObjectId) -> Result<bool, SaleError> {
        let path = format!("/checkout/sessions/{id}/expire");
        let request = RequestBuilder::new(StripeMethod::Post, path).customize::<Wire>();
        match self.call(StripeMethod::Post, request).await {
            Ok(_) => Ok(true),
            Err(Failure::Answered(answer)) if answer.status == 400 => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}
