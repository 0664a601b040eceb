//! `POST /v1/portal`: where invoices are paid and a subscription is canceled.

use crate::{
    body::Fields,
    handler::{AccountApi, STRIPE_PATIENCE, not_sold, unavailable},
};
use domain::{Timestamp, UserId};
use edge::{problem::Problem, respond};
use http::{Response, StatusCode};
use lambda_http::{Body, Request};
use ledger::Store;
use serde::Serialize;
use stripe::SaleError;

const EXAMPLE: &str = r#"{"returnUrl": "https://..."}"#;

/// The answer.
#[derive(Debug, Serialize)]
struct Opened {
    url: String,
}

impl<S: Store> AccountApi<S> {
    /// The page where a bill is paid.
    pub(crate) async fn portal(
        &self,
        user: &UserId,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response<Body>, Problem> {
        let mut fields = Fields::read(request.headers(), request.body(), &["returnUrl"], EXAMPLE)?;
        let return_url = fields.address("returnUrl", &self.front.cors)?;
        let account = self.ledger.account(user, now).await.map_err(|error| unavailable(user, &error))?;
        let customer = account.customer.ok_or_else(Problem::no_customer)?;
        let opening = self.sale.stripe.open_portal(&customer, &return_url, self.sale.portal.as_ref());
        let too_slow = || SaleError::Unavailable("it took too long".into());
        let url = tokio::time::timeout(STRIPE_PATIENCE, opening).await.unwrap_or_else(|_| Err(too_slow()));
        let url = url.map_err(|error| match error {
            // Deleted at Stripe: with it went every subscription and the way to its invoices.
            SaleError::NoCustomer(_) => Problem::no_customer(),
            error => not_sold(user, &error),
        })?;
        Ok(respond::json(StatusCode::OK, &Opened { url }))
    }
}
