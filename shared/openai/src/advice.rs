//! What a failure advises: to ask again, to ask another model, or to give up. Pure. Decides nothing about money: whether
//! another call may be paid for, and how many, is the caller's to say, and after the first text there is none.

use crate::{
    CallError, ProviderError, StreamError,
    failure::{Label, mentions},
};

/// The longest wait that is worth a retry within one request, in milliseconds. A provider that asks for more is left
/// alone: another model is asked.
pub const RETRY_WAIT_MS_MAX: u64 = 10_000;

/// Statuses that pass: a time-out, a lock, a rate, whatever went wrong at the provider's.
const REQUEST_TIMEOUT: u16 = 408;
const CONFLICT: u16 = 409;
const TOO_MANY_REQUESTS: u16 = 429;
const SERVER_ERROR_FIRST: u16 = 500;

const BAD_REQUEST: u16 = 400;
const UNAUTHORIZED: u16 = 401;
const PAYMENT_REQUIRED: u16 = 402;
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;
const UNPROCESSABLE: u16 = 422;

/// Codes and types of an error inside a stream that no second call would change: it is about the request or the account.
const IN_BAND_FINAL: [&str; 12] = [
    "400",
    "401",
    "402",
    "403",
    "413",
    "422",
    "authentication_error",
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "invalid_api_key",
    "invalid_prompt",
];

/// What may help after a failure before the first text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The same request may pass if it is sent again. When the caller's retries are used up, another model may answer.
    Retry {
        /// What the provider asks for, in milliseconds from now, at most [`RETRY_WAIT_MS_MAX`]; none when it does not
        /// say, and the caller waits as long as it does by default.
        after_ms: Option<u64>,
    },
    /// This model does not answer, and another one may.
    NextModel,
    /// The request, the key or the account is at fault: no further call would pass.
    GiveUp,
}

impl CallError {
    /// What may help.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Connect(_) | Self::Broken(_) => Advice::Retry { after_ms: None },
            // It has had its time, and a second wait as long is more than a user bears.
            Self::Timeout => Advice::NextModel,
            // What answers is not the API: a gateway's page, or a base URL that is not one.
            Self::NotAStream => Advice::GiveUp,
            Self::Status { status, retry_after_ms, should_retry, error } => {
                of_status(*status, *retry_after_ms, *should_retry, error)
            }
        }
    }

    /// Whether only the owner can mend this: a key, an account, a base URL or a list of models that is wrong. To be
    /// logged as an error, since it lasts until then.
    pub fn needs_owner(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Timeout => false,
            Self::NotAStream => true,
            Self::Status { status, error, .. } => {
                matches!(*status, UNAUTHORIZED | PAYMENT_REQUIRED | FORBIDDEN | NOT_FOUND | GONE)
                    || (300..400).contains(status)
                    || error.out_of_funds()
                    || error.names_model()
            }
        }
    }
}

fn of_status(status: u16, wait_ms: Option<u64>, should_retry: Option<bool>, error: &ProviderError) -> Advice {
    // It comes with the status and the `retry-after` of a rate that passes, and does not pass.
    if error.out_of_funds() {
        return Advice::GiveUp;
    }
    let passing =
        matches!(status, REQUEST_TIMEOUT | CONFLICT | TOO_MANY_REQUESTS) || status >= SERVER_ERROR_FIRST;
    if should_retry.unwrap_or(passing) {
        return if wait_ms.is_none_or(|ms| ms <= RETRY_WAIT_MS_MAX) {
            Advice::Retry { after_ms: wait_ms }
        } else {
            Advice::NextModel
        };
    }
    let of_model = match status {
        // A retired model; compatible providers have no code for it.
        NOT_FOUND | GONE => true,
        BAD_REQUEST | UNPROCESSABLE => error.names_model() || error.mentions_model,
        // The message of another refusal may mention a model too, such as one about what the prompt has in it.
        FORBIDDEN => error.names_model(),
        // Rates and capacity are a model's own.
        _ => passing,
    };
    if of_model { Advice::NextModel } else { Advice::GiveUp }
}

impl StreamError {
    /// What may help if no text has come yet. After the first text there is nothing to ask: whatever was streamed is
    /// served and charged, and a second answer would be another one.
    pub fn advice_before_text(&self) -> Advice {
        match self {
            Self::Cut => Advice::Retry { after_ms: None },
            Self::Idle | Self::Malformed | Self::TooLong => Advice::NextModel,
            Self::InBand(error) => {
                if error.out_of_funds() || error.has_label(|label| IN_BAND_FINAL.contains(&label)) {
                    Advice::GiveUp
                } else if error.names_model() || error.has_label(|label| label == "404") {
                    Advice::NextModel
                } else {
                    // The request was taken, so what is left is what passes: load, rates, a server's error.
                    Advice::Retry { after_ms: None }
                }
            }
        }
    }
}

impl ProviderError {
    /// Whether the account has no credit or quota left, which no wait mends.
    fn out_of_funds(&self) -> bool {
        const LABELS: [&str; 5] = [
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_hard_limit_reached",
            "billing_not_active",
            "insufficient_balance",
        ];
        self.has_label(|label| LABELS.contains(&label))
    }

    /// Whether it says by its labels that the model is what it is about.
    fn names_model(&self) -> bool {
        let about = |label: &str| mentions(label, "model") || mentions(label, "deployment");
        self.has_label(about) || self.param.as_ref().is_some_and(|param| param.as_str() == "model")
    }

    fn has_label(&self, is: impl Fn(&str) -> bool) -> bool {
        [&self.code, &self.kind].into_iter().flatten().map(Label::as_str).any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Advice = Advice::Retry { after_ms: None };

    fn status(
        status: u16,
        retry_after_ms: Option<u64>,
        should_retry: Option<bool>,
        error: &str,
    ) -> CallError {
        let body = format!(r#"{{"error":{error}}}"#);
        CallError::Status {
            status,
            retry_after_ms,
            should_retry,
            error: ProviderError::of_body(body.as_bytes()),
        }
    }

    #[track_caller]
    fn check(answered: u16, error: &str, expected: Advice, needs_owner: bool) {
        let error = status(answered, None, None, error);
        assert_eq!((error.advice(), error.needs_owner()), (expected, needs_owner), "{error}");
    }

    #[test]
    fn what_passes_is_asked_again() {
        for passing in [408, 409, 429, 500, 502, 503, 504, 529] {
            check(passing, "null", AGAIN, false);
        }
        check(503, r#"{"type":"service_unavailable_error","code":"server_is_overloaded"}"#, AGAIN, false);
        check(429, r#"{"type":"tokens","code":"rate_limit_exceeded","message":"for model x"}"#, AGAIN, false);
    }

    #[test]
    fn what_is_about_a_model_is_asked_of_the_next() {
        for (answered, error) in [
            (404, r#"{"type":"invalid_request_error","param":null,"code":"model_not_found"}"#),
            (404, r#"{"code":"DeploymentNotFound"}"#),
            (404, r#""model 'x' not found, try pulling it first""#),
            (410, "null"),
            (400, r#"{"type":"invalid_request_error","param":"model","code":null}"#),
            (400, r#"{"type":"invalid_model","code":"1500"}"#),
            (403, r#"{"type":"invalid_request_error","code":"model_not_found"}"#),
        ] {
            check(answered, error, Advice::NextModel, true);
        }
        check(
            400,
            r#"{"message":"Model Not Exist","code":"invalid_request_error"}"#,
            Advice::NextModel,
            false,
        );
        check(400, r#"{"message":"x is not a valid model ID","code":400}"#, Advice::NextModel, false);
        assert_eq!(CallError::Timeout.advice(), Advice::NextModel);
    }

    #[test]
    fn what_no_call_would_change_is_given_up() {
        check(401, r#"{"code":"invalid_api_key"}"#, Advice::GiveUp, true);
        check(402, r#"{"message":"Insufficient Balance"}"#, Advice::GiveUp, true);
        check(403, r#"{"code":"unsupported_country_region_territory"}"#, Advice::GiveUp, true);
        check(403, r#"{"message":"the model declines"}"#, Advice::GiveUp, true);
        check(429, r#"{"type":"insufficient_quota","code":"insufficient_quota"}"#, Advice::GiveUp, true);
        check(
            429,
            r#"{"type":"insufficient_quota","code":"credit_balance_exhausted"}"#,
            Advice::GiveUp,
            true,
        );
        check(302, "null", Advice::GiveUp, true);
        for fault in [400, 413, 415, 422, 431] {
            check(fault, r#"{"type":"invalid_request_error","param":"messages"}"#, Advice::GiveUp, false);
        }
        assert_eq!(
            (CallError::NotAStream.advice(), CallError::NotAStream.needs_owner()),
            (Advice::GiveUp, true)
        );
    }

    #[test]
    fn the_provider_has_the_last_word_on_whether_to_ask_again() {
        for (answered, should_retry, expected) in [
            (409, Some(true), AGAIN),
            (400, Some(true), AGAIN),
            (404, Some(true), AGAIN),
            (409, Some(false), Advice::NextModel),
            (429, Some(false), Advice::NextModel),
            (500, Some(false), Advice::NextModel),
            (400, Some(false), Advice::GiveUp),
        ] {
            assert_eq!(
                status(answered, None, should_retry, "null").advice(),
                expected,
                "{answered} {should_retry:?}"
            );
        }
        let broke = status(429, None, Some(true), r#"{"type":"insufficient_quota"}"#);
        assert_eq!(broke.advice(), Advice::GiveUp);
    }

    #[test]
    fn a_wait_is_taken_up_to_its_bound_and_a_longer_one_is_another_models_turn() {
        let wait = |ms| status(429, Some(ms), None, "null").advice();
        assert_eq!(wait(0), Advice::Retry { after_ms: Some(0) });
        assert_eq!(wait(RETRY_WAIT_MS_MAX), Advice::Retry { after_ms: Some(RETRY_WAIT_MS_MAX) });
        assert_eq!(wait(RETRY_WAIT_MS_MAX + 1), Advice::NextModel);
    }

    #[test]
    fn f19_an_error_before_the_first_text_says_whether_another_call_may_help() {
        for (error, expected) in [
            ("null", AGAIN),
            (r#"{"type":"server_error","code":null}"#, AGAIN),
            (r#"{"code":"rate_limit_exceeded"}"#, AGAIN),
            (r#"{"code":502,"message":"Provider disconnected"}"#, AGAIN),
            (r#"{"code":429}"#, AGAIN),
            (r#"{"code":"model_not_found"}"#, Advice::NextModel),
            (r#"{"code":404}"#, Advice::NextModel),
            (r#"{"type":"insufficient_quota"}"#, Advice::GiveUp),
            (r#"{"code":"context_length_exceeded"}"#, Advice::GiveUp),
            (r#"{"code":401}"#, Advice::GiveUp),
        ] {
            let body = format!(r#"{{"error":{error}}}"#);
            let in_band = StreamError::InBand(ProviderError::of_body(body.as_bytes()));
            assert_eq!(in_band.advice_before_text(), expected, "{error}");
        }
        assert_eq!(StreamError::Cut.advice_before_text(), AGAIN);
        for other in [StreamError::Idle, StreamError::Malformed, StreamError::TooLong] {
            assert_eq!(other.advice_before_text(), Advice::NextModel);
        }
    }
}
