//! Sending one meter event, once, and saying what is known of its outcome.

use crate::client::Stripe;
use crate::failure::Failure;
use domain::{CustomerId, Timestamp, Tokens};
use std::collections::HashMap;
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_client_core::StripeRequest;

/// The payload's key for the customer: the default of a meter's customer mapping, which `ops setup` keeps.
const CUSTOMER_KEY: &str = "stripe_customer_id";
/// The payload's key for the value: the default of a meter's value settings, which `ops setup` keeps.
const VALUE_KEY: &str = "value";

/// What one customer consumed.
#[derive(Clone, Copy, Debug)]
pub struct MeterEvent<'a> {
    /// The meter's event name.
    pub event_name: &'a str,
    /// Who pays.
    pub customer: &'a CustomerId,
    /// The value: raw tokens. Stripe rounds, once, on the invoice.
    pub tokens: Tokens,
    /// Stripe counts each identifier once, for at least 24 hours; at most 100 characters.
    pub identifier: &'a str,
    /// When it was consumed, to the second: at most 35 days ago and 5 minutes ahead.
    pub timestamp: Timestamp,
}

/// Stripe has the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It took it now.
    Accepted,
    /// It had taken it before: an earlier attempt, whose answer was lost, arrived.
    AlreadyExists,
}

/// Stripe does not have the event, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Refused for good, for a reason that lies in this event: a person has to look, and nothing else waits for it.
    #[error("refused for good: HTTP {status} ({}): {reason}", code.as_deref().unwrap_or("no code"))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Stripe's error code.
        code: Option<String>,
        /// Stripe's message, shortened.
        reason: String,
    },
    /// Not taken now: busy, too fast, out of order, or there was no connection. The same event may pass later.
    #[error("not taken now: {0}")]
    Retry(String),
    /// Nobody knows whether it arrived. The same event may be sent again under the same identifier.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Refused for a reason that lies in this installation (key, mode, meter): every event would be. Keep it, and tell
    /// the owner.
    #[error("refused for how this installation is set up: {0}")]
    Misconfigured(String),
}

impl Stripe {
    /// Sends one meter event, once, under an idempotency key of its own.
    ///
    /// # Errors
    /// See [`SendError`]: each variant says what is known and who is to act.
    pub async fn send(&self, event: &MeterEvent<'_>) -> Result<Sent, SendError> {
        let payload = HashMap::from([
            (CUSTOMER_KEY.to_owned(), event.customer.to_string()),
            (VALUE_KEY.to_owned(), event.tokens.to_string()),
        ]);
        let timestamp = i64::try_from(event.timestamp.s())
            .map_err(|_| SendError::Misconfigured("a time that does not fit Stripe's".into()))?;
        let request = CreateBillingMeterEvent::new(event.event_name, payload)
            .identifier(event.identifier)
            .timestamp(timestamp)
            .customize();
        match self.call_with_event(request).await {
            Ok(_) => Ok(Sent::Accepted),
            Err(Failure::Answered(answer)) if answer.already_exists() => Ok(Sent::AlreadyExists),
            Err(failure) => Err(SendError::from(failure)),
        }
    }
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) => Self::Retry(reason),
            Failure::Lost(reason) => Self::Unknown(reason),
            Failure::Unusable(reason) => Self::Misconfigured(reason),
            Failure::Answered(answer) if answer.setup() => Self::Misconfigured(answer.to_string()),
            Failure::Answered(answer) if answer.busy() => Self::Retry(answer.to_string()),
            Failure::Answered(answer) => {
                Self::Refused { status: answer.status, code: answer.code, reason: answer.reason }
            }
        }
    }
}
