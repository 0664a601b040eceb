//! The errors of the API, in Stripe's own shape.
//!
//! Owns the error's JSON, its HTTP status, the retry hint, and whether an idempotency key keeps it. It decides nothing:
//! the handlers choose which of these to answer.

use serde_json::{Map, Value, json};

/// What the `type` of an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorType {
    InvalidRequest,
    Idempotency,
    Card,
    Api,
}

impl ErrorType {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Idempotency => "idempotency_error",
            Self::Card => "card_error",
            Self::Api => "api_error",
        }
    }
}

/// Whether an idempotency key replays this answer.
///
/// Stripe saves an answer only once the endpoint has begun to execute: refused parameters, limits and conflicts are
/// found before that and are not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Yes,
    No,
}

/// One refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) should_retry: Option<bool>,
    pub(super) saved: Saved,
    kind: ErrorType,
    code: Option<&'static str>,
    message: String,
    param: Option<String>,
}

impl ApiError {
    fn refused(code: Option<&'static str>, param: Option<String>, message: String) -> Self {
        Self {
            status: 400,
            should_retry: Some(false),
            saved: Saved::No,
            kind: ErrorType::InvalidRequest,
            code,
            message,
            param,
        }
    }

    /// A parameter that the endpoint does not have.
    pub(super) fn unknown_parameter(param: &str) -> Self {
        let message = format!("Received unknown parameter: {param}");
        Self::refused(Some("parameter_unknown"), Some(param.to_owned()), message)
    }

    /// A parameter that Stripe has and this stand-in does not. It must not be mistaken for a typing error.
    pub(super) fn not_modelled(param: &str) -> Self {
        let message = format!("The local Stripe does not model `{param}`; the real one does.");
        Self { status: 501, ..Self::refused(None, Some(param.to_owned()), message) }
    }

    /// A parameter that the table of endpoints knows and the handler left unread: Stripe has it, the stand-in does not.
    pub(super) fn or_not_modelled(self) -> Self {
        match (self.code, &self.param) {
            (Some("parameter_unknown"), Some(param)) => Self::not_modelled(param),
            _ => self,
        }
    }

    /// A version of the API that this stand-in does not speak.
    pub(super) fn version_not_modelled(param: &str, version: &str) -> Self {
        let message =
            format!("The local Stripe speaks one version of the API only, and that is not {version}.");
        Self { status: 501, ..Self::refused(None, Some(param.to_owned()), message) }
    }

    /// There is no live mode here.
    pub(super) fn live_not_modelled() -> Self {
        let message = "The local Stripe has a sandbox only: it does not model live mode.".to_owned();
        Self { status: 501, ..Self::refused(None, None, message) }
    }

    /// What went wrong, in words.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// A text with too many characters.
    pub(super) fn too_long(param: &str, message: String) -> Self {
        Self::refused(Some("parameter_invalid_string_length"), Some(param.to_owned()), message)
    }

    /// A text that is no URL.
    pub(super) fn not_a_url(param: &str) -> Self {
        Self::refused(Some("url_invalid"), Some(param.to_owned()), "Not a valid URL".to_owned())
    }

    /// A required parameter that is absent.
    pub(super) fn missing(param: &str) -> Self {
        let message = format!("Missing required param: {param}.");
        Self::refused(Some("parameter_missing"), Some(param.to_owned()), message)
    }

    /// An empty value where the parameter cannot be unset.
    pub(super) fn empty(param: &str) -> Self {
        let message = format!(
            "You passed an empty string for '{param}'. We assume empty values are an attempt to unset a parameter; \
             however '{param}' cannot be unset. You should remove '{param}' from your request or supply a non-empty value."
        );
        Self::refused(Some("parameter_invalid_empty"), Some(param.to_owned()), message)
    }

    /// A value that is not an integer.
    pub(super) fn not_an_integer(param: &str, value: &str) -> Self {
        let message = format!("Invalid integer: {value}");
        Self::refused(Some("parameter_invalid_integer"), Some(param.to_owned()), message)
    }

    /// A value that breaks a rule of its parameter.
    pub(super) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::refused(None, Some(param.to_owned()), message.into())
    }

    /// A request that breaks a rule without a parameter to blame.
    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::refused(None, None, message.into())
    }

    /// Two parameters that exclude each other.
    pub(super) fn exclusive(param: &str, message: impl Into<String>) -> Self {
        Self::refused(Some("parameters_exclusive"), Some(param.to_owned()), message.into())
    }

    /// The object of the request's path does not exist.
    pub(super) fn no_such(object: &str, id: &str) -> Self {
        let message = format!("No such {object}: '{id}'");
        let refused = Self::refused(Some("resource_missing"), Some("id".to_owned()), message);
        Self { status: 404, ..refused }
    }

    /// An object named by a parameter does not exist: Stripe answers 400, not 404.
    pub(super) fn no_such_for(param: &str, object: &str, id: &str) -> Self {
        let message = format!("No such {object}: '{id}'");
        Self::refused(Some("resource_missing"), Some(param.to_owned()), message)
    }

    /// An identifier of the caller's choice that is taken.
    pub(super) fn already_exists(param: &str, message: impl Into<String>) -> Self {
        let refused = Self::refused(Some("resource_already_exists"), Some(param.to_owned()), message.into());
        Self { saved: Saved::Yes, ..refused }
    }

    /// A meter event that was delivered before: no `code`, and not to be retried.
    pub(super) fn duplicate_event(identifier: &str) -> Self {
        let message = format!("An event already exists with identifier {identifier}.");
        Self { saved: Saved::Yes, ..Self::refused(None, None, message) }
    }

    /// A cancellation that is the schedule's to decide.
    pub(super) fn managed_by_a_schedule(schedule: &str) -> Self {
        let message = format!(
            "The subscription is managed by the subscription schedule `{schedule}`, and updating any cancelation \
             behavior directly is not allowed. Please update the schedule instead."
        );
        Self::refused(None, None, message)
    }

    /// A price from before there were meters, which is attached to nothing any more.
    pub(super) fn legacy_price(param: &str) -> Self {
        let message =
            "Starting with Stripe version `2025-03-31.basil`, metered prices must be backed by meters.";
        Self::refused(None, Some(param.to_owned()), message.to_owned())
    }

    /// A card that was declined: the attempt was made, and is remembered.
    pub(super) fn card_declined() -> Self {
        let message = "Your card was declined.".to_owned();
        let refused = Self::refused(Some("card_declined"), None, message);
        Self { status: 402, kind: ErrorType::Card, saved: Saved::Yes, ..refused }
    }

    /// A payment is wanted at once and there is nothing to pay with.
    pub(super) fn no_payment_method() -> Self {
        let message = "This customer has no attached payment source or default payment method. Please consider adding \
                       a default payment method.";
        Self::refused(Some("resource_missing"), None, message.to_owned())
    }

    /// The object is in use by another request at this moment.
    pub(super) fn lock_timeout() -> Self {
        let message = "This object cannot be accessed right now because another API request or Stripe process is \
                       currently accessing it. If you see this error intermittently, retry the request. If you see \
                       this error frequently and are making multiple concurrent requests to a single object, make \
                       your requests serially or at a lower rate.";
        let refused = Self::refused(Some("lock_timeout"), None, message.to_owned());
        Self { status: 429, should_retry: Some(true), ..refused }
    }

    /// Too many requests in this second.
    pub(super) fn rate_limited() -> Self {
        let message = "Request rate limit exceeded. Learn more about rate limits here \
                       https://stripe.com/docs/rate-limits.";
        let refused = Self::refused(Some("rate_limit"), None, message.to_owned());
        Self { status: 429, should_retry: Some(true), ..refused }
    }

    /// The same idempotency key is being executed at this moment.
    pub(super) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key (that probably means you \
             submitted twice, and the other request is still going through): {key}"
        );
        Self {
            status: 409,
            should_retry: Some(true),
            kind: ErrorType::Idempotency,
            ..Self::refused(Some("idempotency_key_in_use"), None, message)
        }
    }

    /// The idempotency key was used before, for something else.
    pub(super) fn key_reused(message: String) -> Self {
        Self { kind: ErrorType::Idempotency, ..Self::refused(None, None, message) }
    }

    /// No key, or not this account's.
    pub(super) fn unauthenticated(message: String) -> Self {
        Self { status: 401, ..Self::refused(None, None, message) }
    }

    /// A path that the API does not have.
    pub(super) fn unknown_url(method: &str, path: &str) -> Self {
        let message =
            format!("Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs.");
        Self { status: 404, ..Self::refused(None, None, message) }
    }

    /// A failure on Stripe's side: the caller cannot know what happened. It says nothing on retrying.
    pub(super) fn server(status: u16) -> Self {
        let message = "An unknown error occurred. Please contact support.".to_owned();
        Self {
            status,
            should_retry: None,
            saved: Saved::Yes,
            kind: ErrorType::Api,
            code: None,
            message,
            param: None,
        }
    }

    /// Stripe cannot be reached: nothing was executed and nothing is saved.
    pub(super) fn outage() -> Self {
        Self { saved: Saved::No, ..Self::server(503) }
    }

    /// A bound of this stand-in is reached: it refuses instead of forgetting.
    pub(super) fn full(what: &str) -> Self {
        let message = format!("The local Stripe holds as many {what} as it can.");
        Self { saved: Saved::No, message, ..Self::server(507) }
    }

    /// The body, as the endpoints under `/v2` give it: the code says what it is, and most errors have no type.
    pub(super) fn body_v2(&self) -> Value {
        let code = match (self.status, self.code) {
            (404, _) => "not_found",
            (401, _) => "unauthenticated",
            (_, Some(code)) if self.kind == ErrorType::Idempotency || self.status == 429 => code,
            (500.., _) => "api_error",
            _ => "invalid_fields",
        };
        let mut error = Map::new();
        error.insert("code".to_owned(), json!(code));
        error.insert("message".to_owned(), json!(self.message));
        if self.kind == ErrorType::Idempotency {
            error.insert("type".to_owned(), json!("idempotency_error"));
        } else if self.status == 429 {
            error.insert("type".to_owned(), json!("rate_limit"));
        }
        json!({ "error": error })
    }

    /// The body, as Stripe gives it.
    pub(super) fn body(&self) -> Value {
        let mut error = Map::new();
        if let Some(code) = self.code {
            error.insert("code".to_owned(), json!(code));
            let page = code.replace('_', "-");
            error.insert("doc_url".to_owned(), json!(format!("https://stripe.com/docs/error-codes/{page}")));
        }
        error.insert("message".to_owned(), json!(self.message));
        if let Some(param) = &self.param {
            error.insert("param".to_owned(), json!(param));
        }
        error.insert("type".to_owned(), json!(self.kind.as_str()));
        json!({ "error": error })
    }
}
