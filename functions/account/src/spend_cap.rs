//! `PUT /v1/spend-cap`: the user's own cap.
//!
//! One that lies below what is used and held stops everything at once, so it takes a second word. The ledger asks for it at the
//! instant of the write, so that no request that is admitted meanwhile goes unseen.

use crate::{
    body::Fields,
    handler::{AccountApi, unavailable},
};
use domain::{Timestamp, Tokens, UserId};
use edge::problem::Problem;
use http::Response;
use lambda_http::{Body, Request};
use ledger::{CapError, Store};

const EXAMPLE: &str = r#"{"tokens": 1000000}"#;

impl<S: Store> AccountApi<S> {
    /// Sets the cap or takes it away.
    pub(crate) async fn spend_cap(
        &self,
        user: &UserId,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response<Body>, Problem> {
        let mut fields = Fields::read(request.headers(), request.body(), &["tokens", "confirm"], EXAMPLE)?;
        let cap = fields.tokens("tokens")?;
        let confirmed = fields.flag("confirm")?;
        self.ledger.set_spend_cap(user, cap, confirmed, now).await.map_err(|error| match error {
            CapError::BelowUsed { cap, settled, held } => Problem::spend_cap_below_used(cap, settled, held),
            CapError::Unavailable(error) => unavailable(user, &error),
        })?;
        tracing::info!(%user, cap = ?cap.map(Tokens::get), "the spend cap was set");
        self.usage(user, now).await
    }
}
