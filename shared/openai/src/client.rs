//! One call: the request, and the head of its answer. Never retries, because only the caller knows whether a second
//! call may be paid for.

use crate::{CallError, ChatRequest, ChatStream, Settings, estimate, failure::ProviderError, request::Body};
use reqwest::{
    Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER},
};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How much of a refusal's body is read, in bytes.
const ERROR_BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest that a provider can ask to be left alone, in milliseconds: an hour.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

const MS_PER_S: u64 = 1_000;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const EVENT_STREAM: &str = "text/event-stream";

/// A client of one provider. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
    /// A function of a test that answers instead of a connection.
    #[cfg(feature = "testing")]
    memory: Option<crate::testing::Memory>,
}

impl Client {
    /// A client. `http` must not follow redirects, since requests carry the key, and brings the limit on connecting.
    pub fn new(http: reqwest::Client, settings: Settings) -> Self {
        Self {
            http,
            settings,
            #[cfg(feature = "testing")]
            memory: None,
        }
    }

    /// The same client, whose requests a function of the test answers, without a connection.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn in_memory(self, memory: crate::testing::Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Asks, and waits for the head of the answer, so that a caller can still answer with an error of its own.
    ///
    /// # Errors
    /// When the provider cannot be reached, does not answer in time, refuses, or does not answer with a stream.
    pub async fn stream(&self, request: &ChatRequest<'_>) -> Result<ChatStream, CallError> {
        let timeouts = self.settings.timeouts;
        let first_text_by = Instant::now() + Duration::from_millis(timeouts.first_token_ms);
        let mut post = self.http.post(self.settings.base_url.completions()).header(ACCEPT, EVENT_STREAM);
        if let Some(key) = &self.settings.api_key {
            post = post.header(AUTHORIZATION, key.authorization());
        }
        let post = post.json(&Body::from(request)).build().map_err(not_sent)?;
        let answer = timeout_at(first_text_by, self.execute(post)).await;
        let response = answer.map_err(|_| CallError::Timeout)?.map_err(not_sent)?;
        if !response.status().is_success() {
            return Err(refusal(response, first_text_by).await);
        }
        if !is_event_stream(response.headers()) {
            return Err(CallError::NotAStream);
        }
        let prompt = estimate(request.system, request.turns, 0);
        Ok(ChatStream::new(response, timeouts, first_text_by, prompt))
    }

    async fn execute(&self, request: reqwest::Request) -> reqwest::Result<Response> {
        #[cfg(feature = "testing")]
        if let Some(memory) = &self.memory {
            return Ok(memory.answer(request).await);
        }
        self.http.execute(request).await
    }
}

fn not_sent(error: reqwest::Error) -> CallError {
    // The URL says nothing new, and this error is logged.
    let error = error.without_url();
    if error.is_connect() || error.is_builder() {
        CallError::Connect(error)
    } else {
        CallError::Broken(error)
    }
}

/// Some compatible providers send no content type; none sends a wrong one with a right stream.
fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_none_or(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(EVENT_STREAM.as_bytes())
    })
}

/// Reads a refusal up to its bound, and no longer than the answer may take. What cannot be read is left out.
async fn refusal(mut response: Response, by: Instant) -> CallError {
    let status = response.status().as_u16();
    let retry_after_ms = retry_after_ms(response.headers());
    let should_retry = should_retry(response.headers());
    let mut body = Vec::new();
    while body.len() < ERROR_BODY_BYTES_MAX
        && let Ok(Ok(Some(bytes))) = timeout_at(by, response.chunk()).await
    {
        let room = ERROR_BODY_BYTES_MAX.saturating_sub(body.len());
        body.extend(bytes.iter().take(room));
    }
    CallError::Status { status, retry_after_ms, should_retry, error: ProviderError::of_body(&body) }
}

/// `retry-after-ms`, or else `retry-after` in seconds. A date is not read: it would need the provider's clock.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok().and_then(whole_up);
    let ms = number(&RETRY_AFTER_MS);
    let ms = ms.or_else(|| number(&RETRY_AFTER).map(|s| s.saturating_mul(MS_PER_S)));
    ms.map(|ms| ms.min(RETRY_AFTER_MS_MAX))
}

/// `x-should-retry`, with which OpenAI overrules what its clients would conclude from the status.
fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get(X_SHOULD_RETRY)?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// A decimal number, rounded up: providers send `0.5` where the standard has whole seconds.
fn whole_up(text: &str) -> Option<u64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let up = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    // Digits only, so it fails by its size alone.
    Some(whole.parse().unwrap_or(u64::MAX).saturating_add(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], expected: Option<u64>) {
        let map = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        assert_eq!(retry_after_ms(&map.collect()), expected, "{headers:?}");
    }

    #[test]
    fn a_wait_is_read_in_either_unit_and_bounded() {
        check(&[], None);
        check(&[("retry-after", "20")], Some(20_000));
        check(&[("retry-after", "0.5")], Some(1_000));
        check(&[("retry-after-ms", "1500"), ("retry-after", "9")], Some(1_500));
        check(&[("retry-after-ms", "soon"), ("retry-after", "9")], Some(9_000));
        check(&[("retry-after-ms", "12.0")], Some(12));
        check(&[("retry-after", "86400")], Some(3_600_000));
        check(&[("retry-after", "99999999999999999999999")], Some(3_600_000));
        for unread in ["", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "1e3", ".5", "1.x"] {
            check(&[("retry-after", unread)], None);
        }
    }

    #[test]
    fn whether_to_ask_again_is_read_as_openai_spells_it() {
        for (value, expected) in
            [(None, None), (Some("true"), Some(true)), (Some("false"), Some(false)), (Some("1"), None)]
        {
            let map = value.map(|value| (X_SHOULD_RETRY, value.parse().unwrap())).into_iter().collect();
            assert_eq!(should_retry(&map), expected, "{value:?}");
        }
    }
}
