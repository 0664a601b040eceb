//! One webhook: bound, verify, sort, fetch, answer. Any answer but a 2xx makes Stripe deliver it again, for three days.

use crate::sync::{Accounts, SyncError, Synced};
use domain::{SubscriptionId, Timestamp};
use edge::{
    problem::{Code, Problem, UNAVAILABLE_RETRY_AFTER_S},
    request, respond,
};
use http::{Method, Response, StatusCode};
use lambda_http::{Body, Request};
use ledger::Store;
use serde::Serialize;
use std::sync::Arc;
use stripe::{Event, Secret, SubscriptionError, WebhookError, verify_webhook};

const PATH: &str = "/v1/webhooks/stripe";
const SIGNATURE: &str = "stripe-signature";
/// The most bytes of a webhook's body. Stripe's events of a subscription take a few thousand.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// What is acted on.
const KINDS: [&str; 3] =
    ["customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted"];

/// The function. Clones share connections.
#[derive(Clone)]
pub struct Webhook<S> {
    accounts: Accounts<S>,
    secrets: Arc<[Secret]>,
}

/// Says to whoever looks at Stripe's list of deliveries what was done.
#[derive(Clone, Copy, Debug, Serialize)]
struct Received {
    received: bool,
    outcome: &'static str,
}

impl<S: Store> Webhook<S> {
    /// A function over these accounts; a delivery is good if any of `secrets` signed it.
    pub fn new(accounts: Accounts<S>, secrets: Vec<Secret>) -> Self {
        Self { accounts, secrets: secrets.into() }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request, now: Timestamp) -> Response<Body> {
        let outcome = if request::path(&request) != PATH {
            Err(Problem::not_found())
        } else if *request.method() != Method::POST {
            Err(Problem::method_not_allowed("POST"))
        } else {
            self.receive(&request, now).await
        };
        match outcome {
            Ok(outcome) => respond::json(StatusCode::OK, &Received { received: true, outcome }),
            Err(problem) => problem.into_response(),
        }
    }

    async fn receive(&self, request: &Request, now: Timestamp) -> Result<&'static str, Problem> {
        let event = self.verify(request, now).map_err(|problem| *problem)?;
        if !KINDS.contains(&event.kind.as_str()) {
            return Ok("ignored");
        }
        let id = event.object.as_deref().and_then(|id| SubscriptionId::parse(id).ok());
        let Some(id) = id else {
            tracing::error!(event = event.id, kind = event.kind, "a subscription's event without its id");
            return Err(invalid("The event names no subscription."));
        };
        match self.accounts.sync(&id, now).await {
            Ok(Synced::InLine) => Ok("in_line"),
            Ok(Synced::NoUser) => {
                tracing::error!(event = event.id, subscription = %id,
                    "neither the subscription nor its customer has a user_id in its metadata; nobody gets what was paid");
                Ok("no_user")
            }
            Err(error) => Err(failed(&error, &event, &id)),
        }
    }

    fn verify(&self, request: &Request, now: Timestamp) -> Result<Event, Box<Problem>> {
        let body: &[u8] = request.body();
        if body.len() > BODY_BYTES_MAX {
            let detail = format!("A webhook has at most {BODY_BYTES_MAX} bytes.");
            return Err(Box::new(Problem::new(Code::TooLarge, detail)));
        }
        let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok());
        verify_webhook(body, signature.unwrap_or_default(), &self.secrets, now).map_err(|error| {
            tracing::warn!(error = edge::log::chain(&error), "a webhook was refused");
            Box::new(match error {
                WebhookError::Header | WebhookError::Signature | WebhookError::Stale { .. } => {
                    Problem::new(Code::Unauthenticated, "The signature does not hold.")
                }
                WebhookError::Body(_) => invalid("The signed body is not an event."),
            })
        })
    }
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(Code::InvalidJson, detail)
}

/// Every failure is answered so that Stripe delivers again: none of them says that the event needs nothing.
fn failed(error: &SyncError, event: &Event, id: &SubscriptionId) -> Problem {
    tracing::error!(error = edge::log::chain(error), event = event.id, kind = event.kind, subscription = %id,
        "an account may not be in line with its subscription until this is delivered again");
    match error {
        SyncError::Stripe(SubscriptionError::Malformed(_)) => Problem::internal(),
        SyncError::Stripe(_) | SyncError::Read(_) | SyncError::Write(_) | SyncError::Contended => {
            Problem::new(Code::StoreUnavailable, "Nothing was changed. Please deliver it again.")
                .retry_after(UNAVAILABLE_RETRY_AFTER_S)
        }
    }
}
