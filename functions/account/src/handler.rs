//! The requests of this function: which route, by whom, about what. What each does is in a module of its own.

use crate::{config::Front, prices::Prices};
use domain::{Timestamp, UserId};
use edge::{log::chain, plans::PlanBook, problem::Problem, request, session};
use http::{Method, Response};
use lambda_http::{Body, Request};
use ledger::{ChangeError, Ledger, Store, StoreError, Unavailable};
use std::{sync::Arc, time::Duration};
use stripe::{SaleError, Stripe, setup::ObjectId};

/// How long everything that one request asks of Stripe may take.
pub(crate) const STRIPE_PATIENCE: Duration = Duration::from_secs(10);
/// How long one call of it may.
const CALL_PATIENCE: Duration = Duration::from_secs(6);

/// Where plans are bought and bills are paid. Clones share connections and what is remembered of the prices.
#[derive(Clone, Debug)]
pub struct Sale {
    pub(crate) stripe: Stripe,
    pub(crate) book: Arc<PlanBook>,
    pub(crate) prices: Prices,
    pub(crate) portal: Option<ObjectId>,
}

impl Sale {
    /// Of these plans, at this Stripe, with this configuration of its portal.
    pub fn new(stripe: Stripe, book: PlanBook, portal: Option<ObjectId>) -> Self {
        let stripe = stripe.timeout(CALL_PATIENCE);
        Self { stripe, book: Arc::new(book), prices: Prices::default(), portal }
    }
}

/// The function. Clones share connections.
#[derive(Clone)]
pub struct AccountApi<S> {
    pub(crate) ledger: Ledger<S>,
    pub(crate) sale: Sale,
    pub(crate) front: Arc<Front>,
}

/// What this function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Usage,
    Receipts,
    Checkout,
    Portal,
    SpendCap,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/usage" => Some(Self::Usage),
            "/v1/receipts" => Some(Self::Receipts),
            "/v1/checkout" => Some(Self::Checkout),
            "/v1/portal" => Some(Self::Portal),
            "/v1/spend-cap" => Some(Self::SpendCap),
            _ => None,
        }
    }

    /// As in the header `allow`.
    const fn methods(self) -> &'static str {
        match self {
            Self::Usage | Self::Receipts => "GET, OPTIONS",
            Self::Checkout | Self::Portal => "POST, OPTIONS",
            Self::SpendCap => "PUT, OPTIONS",
        }
    }
}

impl<S: Store> AccountApi<S> {
    /// A function over this ledger.
    pub fn new(ledger: Ledger<S>, sale: Sale, front: Front) -> Self {
        Self { ledger, sale, front: Arc::new(front) }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request, now: Timestamp) -> Response<Body> {
        let cors = &self.front.cors;
        let answer = match Route::of(request::path(&request)) {
            None => Err(Problem::not_found()),
            Some(route) if *request.method() == Method::OPTIONS => {
                return cors.preflight(request.headers(), route.methods());
            }
            Some(route) => self.route(route, &request, now).await,
        };
        let mut response = answer.unwrap_or_else(Problem::into_response);
        cors.apply(request.headers(), response.headers_mut());
        response
    }

    async fn route(
        &self,
        route: Route,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response<Body>, Problem> {
        let allowed = match route {
            Route::Usage | Route::Receipts => Method::GET,
            Route::Checkout | Route::Portal => Method::POST,
            Route::SpendCap => Method::PUT,
        };
        if *request.method() != allowed {
            return Err(Problem::method_not_allowed(route.methods()));
        }
        let user = session::authenticate(&self.front.verifier, request.headers(), now).await?;
        self.answer(route, &user, request, now).await
    }

    /// Answers a user who is known.
    async fn answer(
        &self,
        route: Route,
        user: &UserId,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response<Body>, Problem> {
        match route {
            Route::Usage => self.usage(user, now).await,
            Route::Receipts => self.receipts(user, request, now).await,
            Route::Checkout => self.checkout(user, request, now).await,
            Route::Portal => self.portal(user, request, now).await,
            Route::SpendCap => self.spend_cap(user, request, now).await,
        }
    }
}

#[cfg(test)]
impl<S: Store> AccountApi<S> {
    /// Answers a request as if it had come with the session token of this user.
    pub(crate) async fn as_user(&self, user: &UserId, request: Request, now: Timestamp) -> Response<Body> {
        let route = Route::of(request::path(&request)).unwrap();
        self.answer(route, user, &request, now).await.unwrap_or_else(Problem::into_response)
    }
}

/// The ledger does not answer.
pub(crate) fn unavailable(user: &UserId, error: &Unavailable) -> Problem {
    tracing::error!(%user, error = chain(error), "the ledger does not answer");
    Problem::store_unavailable()
}

pub(crate) fn not_stored(user: &UserId, error: StoreError) -> Problem {
    unavailable(user, &Unavailable(error))
}

pub(crate) fn not_changed(user: &UserId, error: &ChangeError) -> Problem {
    tracing::error!(%user, error = chain(error), "the account was not changed");
    Problem::store_unavailable()
}

/// Stripe did not do what was asked of it. A refusal is logged as an error: it is one of how this installation is set up.
pub(crate) fn not_sold(user: &UserId, error: &SaleError) -> Problem {
    match error {
        SaleError::Unavailable(_) | SaleError::NoCustomer(_) => {
            tracing::warn!(%user, error = chain(error), "Stripe does not answer");
        }
        SaleError::Refused(_) | SaleError::Malformed(_) => {
            tracing::error!(%user, error = chain(error), "Stripe refuses");
        }
    }
    Problem::stripe_unavailable()
}
