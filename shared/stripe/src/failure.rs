//! What an answer that is no success means. This is the only place that knows the library's errors and Stripe's codes.
//!
//! | what came back | class |
//! |---|---|
//! | no connection was made | `NotSent` |
//! | timeout, connection lost, an answer that is not Stripe's JSON (whatever its status) | `Lost` |
//! | 409, 424, 429, 408, any 5xx, or an idempotency error | `Answered`, `busy` |
//! | 401, 403, 404; a code about the key, mode or account; an unknown or archived meter or event name | `Answered`, `setup` |
//! | any other 4xx | `Answered`, neither |

use async_stripe::StripeError;
use stripe_shared::{ApiErrors, ApiErrorsType};

/// The most characters of a reason that are kept: it goes into a log line and an event.
const REASON_CHARS_MAX: usize = 300;

/// Codes that are about the key, the mode or the account, never about what was sent.
const SETUP_CODES: [&str; 8] = [
    "account_invalid",
    "api_key_expired",
    "livemode_mismatch",
    "platform_api_key_expired",
    "secret_key_required",
    "testmode_charges_only",
    "tls_version_unsupported",
    "url_invalid",
];

/// Codes that say that the meter itself is missing or archived.
const METER_CODES: [&str; 3] = ["archived_meter", "no_meter", "billing_meter_archived"];

/// Why a call gave no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing left this machine.
    NotSent(String),
    /// It may or may not have been carried out.
    Lost(String),
    /// Stripe said no.
    Answered(Answer),
    /// No request can be made with these settings.
    Unusable(String),
}

/// Stripe's error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Stripe's error code, if it gave one.
    pub(crate) code: Option<String>,
    /// Stripe's message, shortened.
    pub(crate) reason: String,
    /// The parameter it is about.
    param: Option<String>,
    idempotency: bool,
}

impl Answer {
    /// Whether the same request may pass later.
    pub(crate) fn busy(&self) -> bool {
        self.idempotency || matches!(self.status, 408 | 409 | 424 | 425 | 429 | 500..)
    }

    /// Whether the fault lies in how this installation is set up, so that every request would meet it. All reports have one
    /// shape, so a complaint about the shape is one about the meter or the API version.
    pub(crate) fn setup(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        matches!(self.status, 401 | 403 | 404)
            || SETUP_CODES.contains(&code)
            || METER_CODES.contains(&code)
            || code.starts_with("parameter_")
            || self.param.as_deref() == Some("event_name")
    }

    /// Whether it is about an object, named by this parameter, that Stripe does not have.
    pub(crate) fn misses(&self, param: &str) -> bool {
        self.code.as_deref() == Some("resource_missing") && self.param.as_deref() == Some(param)
    }

    /// Whether Stripe has this meter event already. It says so with a 400 and no code, so that the words are the mark; the code is
    /// that of its other APIs for meter events.
    pub(crate) fn already_exists(&self) -> bool {
        let said = self.reason.to_ascii_lowercase().contains("event already exists with identifier");
        self.status == 400 && (said || self.code.as_deref() == Some("duplicate_meter_event"))
    }
}

impl From<StripeError> for Failure {
    fn from(error: StripeError) -> Self {
        match error {
            StripeError::Stripe(answer, status) => Self::Answered(Answer::new(*answer, status)),
            // The library keeps the words only. These are hyper-util's for a connection that was never made; a test
            // against a closed port holds them to it.
            StripeError::ClientError(reason) if reason == "client error (Connect)" => Self::NotSent(reason),
            StripeError::JSONDeserialize(reason) | StripeError::ClientError(reason) => Self::Lost(reason),
            StripeError::ConfigError(reason) => Self::Unusable(reason),
            StripeError::Timeout => Self::Lost("no answer in time".into()),
        }
    }
}

impl Answer {
    /// An error of the v2 API, which has a code and a message only.
    pub(crate) fn of_v2(status: u16, code: Option<String>, message: Option<&str>) -> Self {
        let reason = message.unwrap_or("no message").chars().take(REASON_CHARS_MAX).collect();
        Self { status, code, reason, param: None, idempotency: false }
    }

    fn new(answer: ApiErrors, status: u16) -> Self {
        let reason = answer.message.unwrap_or_else(|| "no message".into());
        Self {
            status,
            code: answer.code.map(|code| code.as_str().to_owned()),
            reason: reason.chars().take(REASON_CHARS_MAX).collect(),
            param: answer.param,
            idempotency: matches!(answer.type_, ApiErrorsType::IdempotencyError),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.as_deref().unwrap_or("no code");
        write!(f, "HTTP {} ({code}): {}", self.status, self.reason)
    }
}
