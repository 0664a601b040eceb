//! The wire form of an answer: AI SDK UI message stream chunks as server-sent events. The SDK refuses an unknown type, an
//! unknown finish reason and, in some versions, a key too many: nothing may be added but inside `messageMetadata`.

use bytes::Bytes;
use domain::{Classes, HoldId, Receipt, Usage};
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame};
use openai::FinishReason;
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// The end of a stream.
pub(crate) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// A comment that keeps connections open while the provider is silent; readers skip it.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// A stream has one text.
const TEXT_ID: &str = "t1";
/// The header by which the AI SDK's tools tell this protocol.
const PROTOCOL: header::HeaderName = header::HeaderName::from_static("x-vercel-ai-ui-message-stream");
/// Asks reverse proxies not to collect the stream.
const BUFFERING: header::HeaderName = header::HeaderName::from_static("x-accel-buffering");

/// One chunk of a UI message stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum Chunk<'a> {
    Start { message_id: &'a str },
    StartStep,
    TextStart { id: &'static str },
    TextDelta { id: &'static str, delta: &'a str },
    TextEnd { id: &'static str },
    FinishStep,
    Finish { finish_reason: &'static str, message_metadata: Metadata<'a> },
    Error { error_text: &'a str },
}

/// What a finished message says about itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    usage: UsageWire,
    /// The hold's id, which is the receipt's; absent if no receipt could be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    /// Tokens charged; absent with the receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<u64>,
    /// Whether the answer's cap was lowered to what the quota had left.
    clamped: bool,
}

/// Tokens, as the AI SDK names them: the parts are parts of the wholes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageWire {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    cached_prompt_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    reasoning_tokens: u64,
    /// Whether the provider named no figures, so that these are an estimate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&Usage> for UsageWire {
    fn from(usage: &Usage) -> Self {
        let classes: &Classes = usage.classes();
        Self {
            prompt_tokens: classes.prompt().get(),
            completion_tokens: classes.completion().get(),
            total_tokens: classes.total().get(),
            cached_prompt_tokens: classes.cached_input.get(),
            reasoning_tokens: classes.reasoning.get(),
            estimated: matches!(usage, Usage::Estimated(_)),
        }
    }
}

/// What comes before the first text. The message's id is the hold's, which is the receipt's too.
pub(crate) fn start(id: &HoldId) -> Bytes {
    let chunks =
        [Chunk::Start { message_id: id.as_str() }, Chunk::StartStep, Chunk::TextStart { id: TEXT_ID }];
    events(&chunks)
}

/// More text.
pub(crate) fn delta(text: &str) -> Bytes {
    events(&[Chunk::TextDelta { id: TEXT_ID, delta: text }])
}

/// What comes after the last text of an answer that is complete and settled.
pub(crate) fn finish(reason: FinishReason, usage: &Usage, clamped: bool, receipt: Option<&Receipt>) -> Bytes {
    let message_metadata = Metadata {
        usage: usage.into(),
        receipt: receipt.map(|receipt| receipt.id.as_str()),
        charged: receipt.map(|receipt| receipt.charged.get()),
        clamped,
    };
    let finish_reason = finish_reason(reason);
    events(&[
        Chunk::TextEnd { id: TEXT_ID },
        Chunk::FinishStep,
        Chunk::Finish { finish_reason, message_metadata },
    ])
}

/// The end of an answer that is not complete. The SDK keeps the text so far and shows an error; it ignores whatever follows.
pub(crate) fn error(text: &str) -> Bytes {
    events(&[Chunk::Error { error_text: text }])
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content-filter",
        FinishReason::ToolCalls => "tool-calls",
        FinishReason::Other => "other",
    }
}

/// Chunks as events. They are text and numbers, so they always have a JSON form; a chunk that had none would be left out.
fn events(chunks: &[Chunk<'_>]) -> Bytes {
    let mut text = String::new();
    for chunk in chunks {
        match serde_json::to_string(chunk) {
            Ok(json) => text.extend(["data: ", &json, "\n\n"]),
            Err(error) => tracing::error!(%error, "a chunk could not be written as JSON"),
        }
    }
    Bytes::from(text)
}

/// The body of an answer: whole, or as a pump writes it. It never ends in an error, which Lambda would write into the
/// stream as text.
#[derive(Debug)]
pub enum AnswerBody {
    /// All there is.
    Whole(Option<Bytes>),
    /// What the pump sends, until it drops its end.
    Stream(mpsc::Receiver<Bytes>),
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl From<String> for AnswerBody {
    fn from(text: String) -> Self {
        Self::Whole(Some(Bytes::from(text)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Stream(chunks) => chunks.poll_recv(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A streamed answer: 200 and the headers of a UI message stream.
pub(crate) fn streamed(chunks: mpsc::Receiver<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(PROTOCOL, HeaderValue::from_static("v1"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ModelId, NanoUsd, Outcome, Timestamp, Tokens, UserId};

    fn usage() -> Classes {
        let t = Tokens::from_u32;
        Classes { input: t(10), cached_input: t(20), cache_write: t(4), output: t(3), reasoning: t(2) }
    }

    fn receipt(usage: Usage) -> Receipt {
        Receipt {
            user: UserId::parse("user_1").unwrap(),
            period_start: Timestamp::from_s(1),
            id: HoldId::parse("h1").unwrap(),
            at: Timestamp::from_s(2),
            outcome: Outcome::Settled { usage, model: ModelId::parse("m").unwrap(), price_version: 1 },
            charged: Tokens::from_u32(39),
            absorbed: Tokens::ZERO,
            cost: NanoUsd::ZERO,
            failed_calls: 0,
        }
    }

    #[track_caller]
    fn check(bytes: &Bytes, expect: &[&str]) {
        let text = std::str::from_utf8(bytes).unwrap();
        assert_eq!(text, format!("data: {}\n\n", expect.join("\n\ndata: ")));
    }

    #[test]
    fn every_chunk_is_exactly_what_the_sdk_takes() {
        check(
            &start(&HoldId::parse("h1").unwrap()),
            &[
                r#"{"type":"start","messageId":"h1"}"#,
                r#"{"type":"start-step"}"#,
                r#"{"type":"text-start","id":"t1"}"#,
            ],
        );
        check(&delta("Hel\n\"lo"), &[r#"{"type":"text-delta","id":"t1","delta":"Hel\n\"lo"}"#]);
        check(&error("cut"), &[r#"{"type":"error","errorText":"cut"}"#]);
        assert_eq!(DONE, "data: [DONE]\n\n");
        assert!(KEEP_ALIVE.starts_with(b":") && KEEP_ALIVE.ends_with(b"\n\n"));
    }

    #[test]
    fn f06_parts_of_the_usage_are_parts_of_its_wholes() {
        let exact = Usage::Exact(usage());
        check(
            &finish(FinishReason::Stop, &exact, false, Some(&receipt(exact))),
            &[
                r#"{"type":"text-end","id":"t1"}"#,
                r#"{"type":"finish-step"}"#,
                concat!(
                    r#"{"type":"finish","finishReason":"stop","messageMetadata":{"usage":{"promptTokens":34,"#,
                    r#""completionTokens":5,"totalTokens":39,"cachedPromptTokens":20,"reasoningTokens":2},"#,
                    r#""receipt":"h1","charged":39,"clamped":false}}"#
                ),
            ],
        );
    }

    #[test]
    fn an_estimate_says_so_and_a_missing_receipt_is_not_claimed() {
        let plain = Classes { input: Tokens::from_u32(4), output: Tokens::from_u32(1), ..Classes::default() };
        let bytes = finish(FinishReason::Length, &Usage::Estimated(plain), true, None);
        let text = std::str::from_utf8(&bytes).unwrap();
        let last = concat!(
            r#"data: {"type":"finish","finishReason":"length","messageMetadata":{"usage":{"promptTokens":4,"#,
            r#""completionTokens":1,"totalTokens":5,"estimated":true},"clamped":true}}"#,
            "\n\n"
        );
        assert!(text.ends_with(last), "{text}");
    }

    #[test]
    fn every_finish_reason_is_one_that_the_sdk_knows() {
        let known = ["stop", "length", "content-filter", "tool-calls", "error", "other"];
        for reason in [
            FinishReason::Stop,
            FinishReason::Length,
            FinishReason::ContentFilter,
            FinishReason::ToolCalls,
            FinishReason::Other,
        ] {
            assert!(known.contains(&finish_reason(reason)));
        }
    }
}
