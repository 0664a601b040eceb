//! `POST /v1/checkout`: where a plan is bought.
//!
//! Two things must never be: two sessions of one user that can both be paid, and a session that can be paid beside a
//! subscription. What there is is looked at before a session is made and again after: of two that were made at the same time
//! each side sees both, and the younger one stays. A session that was paid meanwhile shows as a subscription.
//!
//! The customer is noted in the account as soon as there is one, so that the next session is that customer's too. It is not
//! billed for anything: that takes a subscription, and that is the webhook's to note.

use crate::{
    body::{Fields, invalid},
    handler::{AccountApi, STRIPE_PATIENCE, Sale, not_changed, not_sold, unavailable},
    prices::{PlanPrices, PriceError},
};
use domain::{Account, CustomerId, PlanId, Timestamp, UserId};
use edge::{cors::Cors, log::chain, plans::PlanBook, problem::Problem, respond};
use http::{Response, StatusCode};
use lambda_http::{Body, Request};
use ledger::{ChangeError, Store, Unavailable};
use serde::Serialize;
use stripe::{Checkout, NewCheckout, Progress, SaleError};

/// How often everything is looked at again because something changed meanwhile.
const ROUNDS_MAX: u32 = 3;
/// Sessions that are asked for in one such span end at the same instant, in milliseconds: what two requests of the same have
/// in common must not depend on the millisecond.
const SLOT_MS: u64 = 30 * 60 * 1_000;
/// How long after the beginning of its span a session ends, in milliseconds. Stripe wants 30 minutes at least.
const LIFE_MS: u64 = 2 * 60 * 60 * 1_000;
/// What has to be left of an open session to hand it out again, in milliseconds: time to find one's card.
const LEFT_LEAST_MS: u64 = 10 * 60 * 1_000;
const EXAMPLE: &str = r#"{"plan": "pro", "successUrl": "https://...", "cancelUrl": "https://..."}"#;

/// What is asked for.
#[derive(Debug)]
struct Asked {
    plan: PlanId,
    success_url: String,
    cancel_url: String,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    url: String,
    expires_at: String,
}

/// Why there is no page to pay on.
#[derive(Debug, thiserror::Error)]
enum CheckoutError {
    #[error("there is a subscription")]
    Subscribed,
    #[error(transparent)]
    Read(#[from] Unavailable),
    #[error(transparent)]
    Write(#[from] ChangeError),
    #[error(transparent)]
    Stripe(#[from] SaleError),
    #[error(transparent)]
    Prices(#[from] PriceError),
    #[error("the customer's sessions kept changing")]
    Contended,
    #[error("Stripe took too long")]
    TooSlow,
}

impl Asked {
    fn read(request: &Request, book: &PlanBook, pages: &Cors) -> Result<Self, Problem> {
        let known = ["plan", "successUrl", "cancelUrl"];
        let mut fields = Fields::read(request.headers(), request.body(), &known, EXAMPLE)?;
        let plan = fields.text("plan")?;
        let Some((plan, _)) = book.sold().find(|(sold, _)| sold.id.as_str() == plan) else {
            let sold: Vec<&str> = book.sold().map(|(plan, _)| plan.id.as_str()).collect();
            return Err(invalid("plan", format!("`plan` must be one of `{}`.", sold.join("`, `"))));
        };
        Ok(Self {
            plan: plan.id.clone(),
            success_url: fields.address("successUrl", pages)?,
            cancel_url: fields.address("cancelUrl", pages)?,
        })
    }
}

impl<S: Store> AccountApi<S> {
    /// The page where a plan is bought.
    pub(crate) async fn checkout(
        &self,
        user: &UserId,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response<Body>, Problem> {
        let asked = Asked::read(request, &self.sale.book, &self.front.cors)?;
        let opening = tokio::time::timeout(STRIPE_PATIENCE, self.open(user, &asked, now));
        let opened = opening.await.unwrap_or(Err(CheckoutError::TooSlow)).map_err(|error| match error {
            CheckoutError::Subscribed => Problem::already_subscribed(),
            CheckoutError::Read(error) => unavailable(user, &error),
            CheckoutError::Write(error) => not_changed(user, &error),
            CheckoutError::Stripe(error) => not_sold(user, &error),
            CheckoutError::Prices(_) | CheckoutError::Contended | CheckoutError::TooSlow => {
                tracing::error!(%user, plan = %asked.plan, error = chain(&error), "nobody can buy this now");
                Problem::stripe_unavailable()
            }
        })?;
        Ok(respond::json(StatusCode::OK, &opened))
    }

    async fn open(&self, user: &UserId, asked: &Asked, now: Timestamp) -> Result<Opened, CheckoutError> {
        let account = self.ledger.standing(user, now).await?.account;
        if account.subscription.is_some() {
            return Err(CheckoutError::Subscribed);
        }
        let customer = self.customer(user, &account, now).await?;
        for _ in 0..ROUNDS_MAX {
            let Sale { stripe, book, prices, .. } = &self.sale;
            let PlanPrices { base, metered } = prices.of(&asked.plan, book, stripe, now).await?;
            let new = NewCheckout {
                user,
                customer: &customer,
                plan: &asked.plan,
                base: &base,
                metered: &metered,
                success_url: &asked.success_url,
                cancel_url: &asked.cancel_url,
            };
            match self.round(&new, now).await {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {}
                // It may be that a price was replaced since it was read.
                Err(CheckoutError::Stripe(SaleError::Refused(reason))) => {
                    tracing::warn!(%user, reason, "Stripe refused a checkout; reading the prices again");
                    prices.forget().await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(CheckoutError::Contended)
    }

    /// The user's customer at Stripe, created and noted if there is none, or none any more.
    async fn customer(
        &self,
        user: &UserId,
        account: &Account,
        now: Timestamp,
    ) -> Result<CustomerId, CheckoutError> {
        let lost = account.customer.as_ref();
        if let Some(customer) = lost
            && self.sale.stripe.has_customer(customer).await?
        {
            return Ok(customer.clone());
        }
        let made = self.sale.stripe.create_customer(user, lost).await?;
        let note = |account: &Account| {
            let as_read = account.subscription.is_none() && account.customer.as_ref() == lost;
            as_read.then(|| Account { customer: Some(made.clone()), ..account.clone() })
        };
        let after = self.ledger.change_account(user, now, note).await?;
        match after.customer {
            Some(customer) if after.subscription.is_none() => Ok(customer),
            Some(_) | None => Err(CheckoutError::Subscribed),
        }
    }

    /// One try; none: something changed meanwhile.
    async fn round(&self, new: &NewCheckout<'_>, now: Timestamp) -> Result<Option<Opened>, CheckoutError> {
        let before = self.look(new.customer).await?;
        let asked = new.digest();
        let good = |checkout: &&Checkout| {
            checkout.asked.as_ref() == Some(&asked) && checkout.expires_at >= now.plus_ms(LEFT_LEAST_MS)
        };
        let kept = open(&before).find(good);
        if !self.end_others(&before, kept).await? {
            return Ok(None);
        }
        if let Some(kept) = kept {
            return Ok(opened(kept));
        }
        let slot = now.ms().saturating_sub(now.ms() % SLOT_MS);
        let expires_at = Timestamp::from_ms(slot).plus_ms(LIFE_MS);
        let made = self.sale.stripe.create_checkout(new, before.first(), expires_at).await?;
        let after = self.look(new.customer).await?;
        let youngest = open(&after).max_by_key(|checkout| (checkout.created, &checkout.id));
        let Some(made) = youngest.filter(|youngest| youngest.id == made.id) else { return Ok(None) };
        Ok(if self.end_others(&after, Some(made)).await? { opened(made) } else { None })
    }

    /// The customer's sessions, the newest first. Beside a subscription none of them stays open.
    async fn look(&self, customer: &CustomerId) -> Result<Vec<Checkout>, CheckoutError> {
        let stripe = &self.sale.stripe;
        // The sessions first: one that is paid in between shows as a subscription, and one that is paid later as open.
        let checkouts = stripe.checkouts(customer).await?;
        // What else this customer has bought is in nobody's way.
        let is_ours = |key: &str| self.sale.book.plan_of_price(key).is_some();
        if !stripe.is_subscribed(customer, is_ours).await? {
            return Ok(checkouts);
        }
        for checkout in open(&checkouts) {
            // One that is not open any more is as good as ended.
            let _: bool = stripe.expire_checkout(&checkout.id).await?;
        }
        Err(CheckoutError::Subscribed)
    }

    /// Ends every open session but this one; false: one was not open any more, and was perhaps paid.
    async fn end_others(&self, all: &[Checkout], but: Option<&Checkout>) -> Result<bool, SaleError> {
        let others = open(all).filter(|checkout| but.is_none_or(|but| but.id != checkout.id));
        for other in others {
            if !self.sale.stripe.expire_checkout(&other.id).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn open(all: &[Checkout]) -> impl Iterator<Item = &Checkout> {
    all.iter().filter(|checkout| matches!(checkout.progress, Progress::Open { .. }))
}

/// The answer that hands a session out; none if it is not open.
fn opened(checkout: &Checkout) -> Option<Opened> {
    match &checkout.progress {
        Progress::Open { url } => {
            Some(Opened { url: url.clone(), expires_at: checkout.expires_at.to_string() })
        }
        Progress::Complete | Progress::Expired => None,
    }
}
