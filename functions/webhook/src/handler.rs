//! One webhook: bound, verify, sort, look it up, work, note, answer. Any answer but a 2xx makes Stripe deliver it again, for
//! three days.

use crate::{
    left::Draft,
    sync::{Accounts, SyncError},
    task::{self, Task},
    work::{Outcome, WorkError, Worker},
};
use domain::Timestamp;
use edge::{
    problem::{Code, Problem, UNAVAILABLE_RETRY_AFTER_S},
    request, respond,
};
use http::{Method, Response, StatusCode};
use lambda_http::{Body, Request};
use ledger::{Changed, Store};
use report::Deps;
use serde::Serialize;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stripe::{Event, SigningSecrets, WebhookError, verify_webhook};

const PATH: &str = "/v1/webhooks/stripe";
const SIGNATURE: &str = "stripe-signature";
/// The most bytes of a webhook's body. Stripe's events of a subscription take a few thousand.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long one delivery may be worked on, in milliseconds. What is not done by then is begun anew by the next delivery, and what is
/// not reported by then is the reporter's.
pub const WORK_MS_MAX: u64 = 1_450;
/// How long after its event a delivery is one of those that Stripe makes again, in milliseconds: 5 minutes.
const AGAIN_AFTER_MS: u64 = 5 * 60 * 1_000;
/// How long such a one may be worked on, in milliseconds: what a slow Stripe left no time for the first time would never have any.
pub const WORK_AGAIN_MS_MAX: u64 = 8_000;
/// How long word of what is left may take, in milliseconds: the bus may have to be connected to. With it every first delivery is
/// answered within 2 s.
pub const WORD_MS_MAX: u64 = 500;
/// How long one call to Stripe may take, in milliseconds. Reporting takes shorter ones.
pub const CALL_MS_MAX: u64 = 2_500;
/// How long an event is known, in milliseconds: 30 days, as long as Stripe itself can deliver one again.
const KNOWN_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The function. Clones share connections.
#[derive(Clone)]
pub struct Webhook<S> {
    accounts: Accounts<S>,
    deps: Arc<Deps<S>>,
    secrets: Arc<SigningSecrets>,
}

/// Says to whoever looks at Stripe's list of deliveries what was done.
#[derive(Clone, Copy, Debug, Serialize)]
struct Received {
    received: bool,
    outcome: &'static str,
}

impl<S: Store> Webhook<S> {
    /// A function over these accounts; a delivery is good if one of `secrets` signed it that vouches for its form.
    pub fn new(accounts: Accounts<S>, deps: Arc<Deps<S>>, secrets: SigningSecrets) -> Self {
        Self { accounts, deps, secrets: secrets.into() }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request, clock: &(dyn Fn() -> Timestamp + Sync)) -> Response<Body> {
        let outcome = if request::path(&request) != PATH {
            Err(Problem::not_found())
        } else if *request.method() != Method::POST {
            Err(Problem::method_not_allowed("POST"))
        } else {
            self.receive(&request, clock).await
        };
        match outcome {
            Ok(outcome) => {
                respond::json(StatusCode::OK, &Received { received: true, outcome: outcome.name() })
            }
            Err(problem) => problem.into_response(),
        }
    }

    async fn receive(
        &self,
        request: &Request,
        clock: &(dyn Fn() -> Timestamp + Sync),
    ) -> Result<Outcome, Problem> {
        let now = clock();
        let event = self.verify(request, now).map_err(|problem| *problem)?;
        let task = task::task(&event).map_err(|task::Unnamed| {
            tracing::error!(event = %event.id, kind = event.kind, "an event that names no object of its type");
            invalid("The event names no object of its type.")
        })?;
        if task == Task::Nothing {
            return Ok(Outcome::Ignored);
        }
        let draft = Mutex::new(None);
        let work_ms = work_ms(&event, now);
        let work = self.work(&event, &task, (now, now.plus_ms(work_ms)), clock, &draft);
        let outcome = tokio::time::timeout(Duration::from_millis(work_ms), work).await;
        match outcome {
            Ok(Ok(outcome)) => {
                tracing::info!(event = %event.id, kind = event.kind, outcome = outcome.name(), "a webhook");
                Ok(outcome)
            }
            Ok(Err(error)) => {
                self.leave(&draft, Some(&error), clock()).await;
                Err(failed(&error, &event, &task))
            }
            Err(_elapsed) => {
                self.leave(&draft, None, clock()).await;
                tracing::error!(event = %event.id, kind = event.kind, ?task, "a webhook took too long");
                Err(again(Code::StripeUnavailable))
            }
        }
    }

    /// Does what the event asks for, unless that was done, and notes that it was.
    async fn work(
        &self,
        event: &Event,
        task: &Task,
        (now, deadline): (Timestamp, Timestamp),
        clock: &(dyn Fn() -> Timestamp + Sync),
        draft: &Mutex<Option<Draft>>,
    ) -> Result<Outcome, WorkError> {
        let ledger = &self.deps.ledger;
        if ledger.event(&event.id).await? {
            return Ok(Outcome::Known);
        }
        // Whatever else tells of a subscription may be older than what it has become since.
        let told_at = event.created.filter(|_| event.reprices).unwrap_or(now);
        let created = event.created.unwrap_or(now);
        let (accounts, deps) = (&self.accounts, &*self.deps);
        let worker = Worker { accounts, deps, told_at, created, deadline, draft, clock };
        let outcome = worker.work(task, &event.id, now).await?;
        if outcome == Outcome::NoUser {
            tracing::error!(event = %event.id, kind = event.kind, ?task,
                "no metadata has a user_id: nobody gets what was paid");
        }
        if outcome.is_final() {
            let forget_at = now.plus_ms(KNOWN_MS);
            // One that is not noted is done again when it is delivered again, which changes nothing.
            match ledger.put_event(&event.id, &event.kind, now, forget_at).await {
                Ok(Changed::Yes | Changed::No) => {}
                Err(error) => tracing::warn!(%error, event = %event.id, "an event was not noted"),
            }
        }
        Ok(outcome)
    }

    /// Says what is left of a draft that was worked on.
    async fn leave(&self, draft: &Mutex<Option<Draft>>, error: Option<&WorkError>, now: Timestamp) {
        let draft = draft.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(draft) = draft else { return };
        let announcements = draft.announcements(error, now);
        let said = self.deps.bus.announce(&announcements);
        // What the bus does not take is in the log, and the hourly run finds the same usage.
        if tokio::time::timeout(Duration::from_millis(WORD_MS_MAX), said).await.is_err() {
            tracing::error!(invoice = %draft.invoice, "there was no time to say what is left of a draft");
        }
    }

    fn verify(&self, request: &Request, now: Timestamp) -> Result<Event, Box<Problem>> {
        let body: &[u8] = request.body();
        if body.len() > BODY_BYTES_MAX {
            let detail = format!("A webhook has at most {BODY_BYTES_MAX} bytes.");
            let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
            return Err(Box::new(Problem::new(Code::TooLarge, detail).limit(limit)));
        }
        let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok());
        verify_webhook(body, signature.unwrap_or_default(), &self.secrets, now).map_err(|error| {
            tracing::warn!(error = edge::log::chain(&error), "a webhook was refused");
            Box::new(match error {
                WebhookError::Header
                | WebhookError::Signature
                | WebhookError::Stale { .. }
                | WebhookError::Form(_) => {
                    Problem::new(Code::Unauthenticated, "The signature does not hold.")
                }
                WebhookError::Body(_) => invalid("The signed body is not an event."),
            })
        })
    }
}

/// How long a delivery may be worked on, in milliseconds.
fn work_ms(event: &Event, now: Timestamp) -> u64 {
    let is_late = event.created.is_some_and(|created| now.ms_since(created) > AGAIN_AFTER_MS);
    if is_late { WORK_AGAIN_MS_MAX } else { WORK_MS_MAX }
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(Code::InvalidJson, detail)
}

/// Every failure is answered so that Stripe delivers again: none of them says that the event needs nothing.
fn failed(error: &WorkError, event: &Event, task: &Task) -> Problem {
    let code = match error {
        WorkError::Waiting(_) | WorkError::RowPending => {
            tracing::warn!(error = edge::log::chain(error), event = %event.id, kind = event.kind, ?task,
                "a webhook waits for what is still to be reported");
            return Problem::new(Code::UsagePending, "Please deliver it again.")
                .retry_after(UNAVAILABLE_RETRY_AFTER_S);
        }
        WorkError::Stripe(_) | WorkError::Sync(SyncError::Stripe(_)) => Code::StripeUnavailable,
        WorkError::Sync(SyncError::Read(_) | SyncError::Write(_) | SyncError::Contended)
        | WorkError::Store(_)
        | WorkError::Ledger(_) => Code::StoreUnavailable,
    };
    tracing::error!(error = edge::log::chain(error), event = %event.id, kind = event.kind, ?task,
        "an account may not be in line until this is delivered again");
    again(code)
}

fn again(code: Code) -> Problem {
    Problem::new(code, "What was done is kept. Please deliver it again.")
        .retry_after(UNAVAILABLE_RETRY_AFTER_S)
}
