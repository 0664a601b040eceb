//! `PUT /v1/spend-cap`: the user's own cap.
//!
//! One that lies below what is used and held stops everything at once, so it takes a second word. What is admitted in the
//! instant between the look and the write is not looked at again: the answer says what is left, and that is nothing then.

use crate::{
    body::Fields,
    handler::{AccountApi, not_changed, unavailable},
};
use domain::{Timestamp, UserId};
use edge::problem::Problem;
use http::Response;
use lambda_http::{Body, Request};
use ledger::Store;

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
        let standing = self.ledger.standing(user, now).await.map_err(|error| unavailable(user, &error))?;
        let meter = &standing.meter;
        if let Some(cap) = cap.filter(|cap| !confirmed && *cap < meter.committed) {
            let held = meter.committed.saturating_sub(meter.settled);
            return Err(Problem::spend_cap_below_used(cap, meter.settled, held));
        }
        self.ledger.set_spend_cap(user, cap, now).await.map_err(|error| not_changed(user, &error))?;
        tracing::info!(%user, cap = ?cap.map(domain::Tokens::get), "the spend cap was set");
        self.usage(user, now).await
    }
}
