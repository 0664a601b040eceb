//! How a call fails. Holds nothing that the user or the model wrote, and no key: of a provider's error only its short
//! labels are kept, because its message may quote the prompt or the key. What a failure advises is in [`crate::advice`].

use serde_json::Value;
use std::fmt;

/// The longest label kept of a provider's error, in bytes.
const LABEL_BYTES_MAX: usize = 64;

/// A provider's name for an error, such as `rate_limit_exceeded`: 1 to 64 characters of `A-Z a-z 0-9 _ . -`.
#[derive(Clone, PartialEq, Eq)]
pub struct Label(Box<str>);

impl Label {
    fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let fits = !text.is_empty() && text.len() <= LABEL_BYTES_MAX;
        (fits && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// Some providers give a number as the code.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is kept of a provider's error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderError {
    /// Its `code`.
    pub code: Option<Label>,
    /// Its `type`.
    pub kind: Option<Label>,
    /// Its `param`: the member of the request that it is about.
    pub param: Option<Label>,
    /// Its message has the word "model" in it. Most compatible providers have no label for a model that they lack.
    pub mentions_model: bool,
}

impl ProviderError {
    /// From the value of `error`, which some providers give as a text.
    pub(crate) fn of(error: &Value) -> Self {
        let label = |name: &str| error.get(name).and_then(Label::of);
        let message = error.as_str().or_else(|| error.get("message")?.as_str()).unwrap_or_default();
        Self {
            code: label("code"),
            kind: label("type"),
            param: label("param"),
            mentions_model: mentions(message, "model"),
        }
    }

    /// An error of which only this name is known.
    pub(crate) fn coded(code: &str) -> Self {
        Self { code: Label::parse(code), ..Self::default() }
    }

    /// From the body of a refusal; empty labels when the body is of another form. Some providers put the members of
    /// `error` at the top.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        Self::of(body.get("error").filter(|error| !error.is_null()).unwrap_or(&body))
    }
}

pub(crate) fn mentions(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |label: &'_ Option<Label>| label.as_ref().map_or("-", Label::as_str).to_owned();
        write!(f, "code {}, type {}", text(&self.code), text(&self.kind))
    }
}

/// Why a call had no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection came about. Nothing was sent.
    #[error("the provider could not be reached")]
    Connect(#[source] reqwest::Error),
    /// The connection broke before the head of an answer.
    #[error("the provider closed the connection before it answered")]
    Broken(#[source] reqwest::Error),
    /// There was no head of an answer within [`crate::Timeouts::first_token_ms`].
    #[error("the provider did not answer in time")]
    Timeout,
    /// The provider refused.
    #[error("the provider answered {status} ({error})")]
    Status {
        /// The HTTP status; not 2xx.
        status: u16,
        /// When it asks to be asked again, in milliseconds from now, at most an hour; none when it does not say.
        retry_after_ms: Option<u64>,
        /// Whether it says itself that the same request may be sent again; none when it does not say.
        should_retry: Option<bool>,
        /// What it calls the error.
        error: ProviderError,
    },
    /// The provider answered 2xx, and not with a stream of events.
    #[error("the provider did not answer with a stream of events")]
    NotAStream,
}

impl CallError {
    /// Whether the provider may have worked, and charge, for this call: it had the request, and did not refuse it.
    pub fn may_have_cost(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Status { .. } => false,
            Self::Broken(_) | Self::Timeout | Self::NotAStream => true,
        }
    }
}

/// Why an answer ended before its end. What was streamed until then was served and is charged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The body ended or broke before the answer did.
    #[error("the provider's stream was cut")]
    Cut,
    /// The first text, or the next chunk, did not come in time.
    #[error("the provider's stream stood still")]
    Idle,
    /// The provider reported an error inside the stream.
    #[error("the provider's stream ended in an error ({0})")]
    InBand(ProviderError),
    /// A chunk that cannot be understood.
    #[error("the provider's stream is malformed")]
    Malformed,
    /// A chunk or the whole answer is beyond its bound.
    #[error("the provider's stream is too long")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, code: Option<&str>, kind: Option<&str>) {
        let error = ProviderError::of_body(body.as_bytes());
        assert_eq!(error.code.as_ref().map(Label::as_str), code, "{body}");
        assert_eq!(error.kind.as_ref().map(Label::as_str), kind, "{body}");
    }

    #[test]
    fn of_an_error_body_only_its_labels_are_kept() {
        check(
            r#"{"error":{"message":"Incorrect API key provided: sk-secret","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
            Some("invalid_api_key"),
            Some("invalid_request_error"),
        );
        check(r#"{"error":{"code":429,"message":"x"}}"#, Some("429"), None);
        check(r#"{"error":{"code":null,"type":"server_error"}}"#, None, Some("server_error"));
        check(r#"{"error":"x"}"#, None, None);
        check(
            r#"{"object":"error","message":"x","type":"NotFoundError","param":null,"code":404}"#,
            Some("404"),
            Some("NotFoundError"),
        );
        check(r#"{"error":{"code":"the prompt, quoted","type":""}}"#, None, None);
        check(&format!(r#"{{"error":{{"code":"{}"}}}}"#, "x".repeat(65)), None, None);
        check("<html>", None, None);
        check("", None, None);
    }
}
