//! Webhooks: what is told, to whom, how it is signed, and what has not been heard yet.
//!
//! Owns the outbox and the signature. An event is kept until the endpoint has answered 2xx or the retries are over. It
//! never decides what an event means.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::calendar::HOUR_S;

/// Events kept for inspection; the oldest go first.
const MAX_EVENTS: usize = 10_000;
/// Events that can wait for their delivery.
const MAX_UNDELIVERED: usize = 10_000;
/// How long the endpoint has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between the attempts, in seconds of Stripe's clock: about three days in all.
const RETRY_DELAYS_S: [i64; 9] =
    [300, 1_800, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 12 * HOUR_S, 12 * HOUR_S, 12 * HOUR_S, 12 * HOUR_S];
/// The API version that events are written in.
pub(super) const API_VERSION: &str = "2026-09-30.endive";

/// Where events are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// `http://127.0.0.1:...`
    pub url: String,
    /// The signing secret, `whsec_...`.
    pub secret: String,
}

impl std::fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookEndpoint").field("url", &self.url).field("secret", &"redacted").finish()
    }
}

/// An event that Stripe has made.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookEvent {
    /// `evt_...`
    pub id: String,
    /// Such as `invoice.created`.
    pub kind: String,
    /// When, in Unix seconds of Stripe's clock.
    pub created_s: i64,
    /// The object as it was then.
    pub object: Value,
}

/// An event that the endpoint has not answered 2xx yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// `evt_...`
    pub id: String,
    /// Such as `invoice.created`.
    pub kind: String,
    /// How often it was sent.
    pub attempts: usize,
    /// When it is sent next, in Unix seconds of Stripe's clock.
    pub next_attempt_s: i64,
}

/// What an event is about.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) kind: &'static str,
    pub(super) object: Value,
    pub(super) previous: Option<Value>,
    /// The invoice that waits for the answer.
    pub(super) invoice: Option<String>,
}

#[derive(Debug)]
struct Delivery {
    status: Undelivered,
    body: String,
    invoice: Option<String>,
}

/// One attempt to be made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: String,
    pub(super) body: String,
    pub(super) endpoint: WebhookEndpoint,
}

/// Which events to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those whose time has come.
    Due,
    /// All that wait.
    All,
}

/// What is to be told, and what was.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    endpoint: Option<WebhookEndpoint>,
    events: VecDeque<WebhookEvent>,
    waiting: VecDeque<Delivery>,
}

impl Outbox {
    pub(super) fn set_endpoint(&mut self, endpoint: Option<WebhookEndpoint>) {
        self.endpoint = endpoint;
    }

    pub(super) fn has_endpoint(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Makes an event and, if somebody listens, queues it.
    pub(super) fn emit(&mut self, id: String, subject: Subject, now_s: i64) {
        let Subject { kind, object, previous, invoice } = subject;
        let mut data = json!({ "object": object });
        if let (Some(previous), Some(fields)) = (previous, data.as_object_mut()) {
            fields.insert("previous_attributes".to_owned(), previous);
        }
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": now_s,
            "data": data,
            "livemode": false,
            "pending_webhooks": i64::from(self.has_endpoint()),
            "request": { "id": null, "idempotency_key": null },
            "type": kind,
        });
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(WebhookEvent {
            id: id.clone(),
            kind: kind.to_owned(),
            created_s: now_s,
            object,
        });
        if self.endpoint.is_none() {
            return;
        }
        if self.waiting.len() == MAX_UNDELIVERED {
            tracing::error!(kind, id, "too many events wait for their delivery: this one is never sent");
            return;
        }
        let status = Undelivered { id, kind: kind.to_owned(), attempts: 0, next_attempt_s: now_s };
        self.waiting.push_back(Delivery { status, body: body.to_string(), invoice });
    }

    /// The ids of the events to send now.
    pub(super) fn ready(&self, which: Which, now_s: i64) -> Vec<String> {
        let ready = self.waiting.iter().map(|delivery| &delivery.status);
        let ready = ready.filter(|status| which == Which::All || status.next_attempt_s <= now_s);
        ready.map(|status| status.id.clone()).collect()
    }

    /// When the next event is to be sent.
    pub(super) fn next_attempt_s(&self) -> i64 {
        self.waiting.iter().map(|delivery| delivery.status.next_attempt_s).min().unwrap_or(i64::MAX)
    }

    /// The attempt for one event, if it still waits and somebody listens.
    pub(super) fn attempt(&self, id: &str) -> Option<Attempt> {
        let endpoint = self.endpoint.clone()?;
        let delivery = self.waiting.iter().find(|delivery| delivery.status.id == id)?;
        Some(Attempt { id: id.to_owned(), body: delivery.body.clone(), endpoint })
    }

    /// Notes the outcome. The invoice that was waiting for this event, if it was `invoice.created` and was heard.
    pub(super) fn note(&mut self, id: &str, heard: bool, now_s: i64) -> Option<String> {
        let at = self.waiting.iter().position(|delivery| delivery.status.id == id)?;
        if heard {
            let delivery = self.waiting.remove(at)?;
            return delivery.invoice.filter(|_| delivery.status.kind == "invoice.created");
        }
        let status = &mut self.waiting.get_mut(at)?.status;
        let delay_s = RETRY_DELAYS_S.get(status.attempts).copied();
        status.attempts += 1;
        if let Some(delay_s) = delay_s {
            status.next_attempt_s = now_s + delay_s;
        } else {
            tracing::warn!(id, kind = status.kind, "the last attempt failed: the event is given up");
            self.waiting.remove(at);
        }
        None
    }

    pub(super) fn events(&self) -> Vec<WebhookEvent> {
        self.events.iter().cloned().collect()
    }

    pub(super) fn undelivered(&self) -> Vec<Undelivered> {
        self.waiting.iter().map(|delivery| delivery.status.clone()).collect()
    }
}

/// The value of `Stripe-Signature` for a body; `None` for a secret that no MAC can take.
pub(super) fn signature(secret: &str, body: &str, at_s: i64) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("{at_s}.").as_bytes());
    mac.update(body.as_bytes());
    let mut header = format!("t={at_s},v1=");
    for byte in mac.finalize().into_bytes() {
        write!(header, "{byte:02x}").ok()?;
    }
    Some(header)
}

/// Sends one event; whether it was heard.
pub(super) async fn send(client: &reqwest::Client, attempt: &Attempt, at_s: i64) -> bool {
    let Some(signature) = signature(&attempt.endpoint.secret, &attempt.body, at_s) else { return false };
    let request = client
        .post(&attempt.endpoint.url)
        .timeout(ANSWER_TIMEOUT)
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature)
        .body(attempt.body.clone());
    match request.send().await {
        Ok(answer) if answer.status().is_success() => true,
        Ok(answer) => {
            tracing::debug!(id = attempt.id, status = answer.status().as_u16(), "an event was refused");
            false
        }
        Err(error) => {
            tracing::debug!(id = attempt.id, %error, "an event did not arrive");
            false
        }
    }
}
