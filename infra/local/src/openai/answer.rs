//! Writes answers: one JSON object, or a stream of chunks of which each text delta is a frame of its own. It owns
//! the wire's shapes; it must never write a delta before its time, its gate or its turn.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use serde_json::{Value, json};

use super::State;
use super::behaviour::Behaviour;
use super::copy::{Draws, Prose};
use super::record::{Outcome, Ticket, Usage};
use super::request::{Chat, Model, size};
use crate::serve::Body;

/// The `system_fingerprint` of every answer.
const FINGERPRINT: &str = "fp_local00001";
/// A chunk's padding brings its delta to at least this many characters.
const PADDED_DELTA_LENGTH: usize = 16;

/// An answer, decided before its first byte.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) created_s: u64,
    pub(super) model: &'static Model,
    pub(super) behaviour: Behaviour,
    /// Tokens of text.
    visible_tokens: u64,
    finish_reason: &'static str,
    pub(super) usage: Usage,
    include_usage: bool,
    obfuscate: bool,
    seed: u64,
    /// Whether the answer is a stream.
    pub(super) stream: bool,
}

impl Plan {
    pub(super) fn new(id: String, created_s: u64, chat: &Chat, behaviour: Behaviour, seed: u64) -> Self {
        let limit = chat.limit_in_force();
        let reasoning_tokens = chat.reasoning_tokens.min(limit);
        let visible_tokens = behaviour.output_tokens.min(limit - reasoning_tokens);
        let cut = reasoning_tokens < chat.reasoning_tokens || visible_tokens < behaviour.output_tokens;
        let prompt_tokens = behaviour.prompt_tokens.count(&chat.size());
        let cached_tokens = behaviour.cached_tokens.min(prompt_tokens);
        let completion_tokens = behaviour.completion_tokens.unwrap_or(visible_tokens + reasoning_tokens);
        let usage = Usage {
            prompt_tokens,
            cached_tokens,
            cache_write_tokens: behaviour.cache_write_tokens.min(prompt_tokens - cached_tokens),
            completion_tokens,
            reasoning_tokens: reasoning_tokens.min(completion_tokens),
        };
        Self {
            id,
            created_s,
            model: chat.model,
            behaviour,
            visible_tokens,
            finish_reason: if cut { "length" } else { "stop" },
            usage,
            include_usage: chat.include_usage,
            obfuscate: chat.obfuscate,
            seed,
            stream: chat.stream,
        }
    }
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens(),
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

/// Waits for the turn of text token `k`: its delay, then its release by the test.
async fn turn(behaviour: &Behaviour, state: &State, k: u64) {
    let delay = if k == 0 { behaviour.first_token_delay } else { behaviour.inter_token_delay };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if behaviour.gate && k >= behaviour.gate_from {
        // The gate is never closed, so there is no error to handle.
        if let Ok(permit) = state.gate.acquire().await {
            permit.forget();
        }
    }
}

/// What keeps an answer that is not streamed from being written.
pub(super) enum Broken {
    /// The connection is to be dropped.
    Cut,
    /// The provider failed half-way.
    Failed,
}

/// The answer as one JSON object.
///
/// # Errors
/// When the behaviour breaks the answer off.
pub(super) async fn whole(plan: &Plan, state: &State, ticket: &mut Ticket) -> Result<Vec<u8>, Broken> {
    let mut prose = Prose::new(plan.seed);
    let mut text = String::new();
    for k in 0..=plan.visible_tokens {
        if plan.behaviour.cut_after == Some(k) {
            return Err(Broken::Cut);
        }
        if plan.behaviour.stall_after == Some(k) {
            std::future::pending::<()>().await;
        }
        if plan.behaviour.in_band_error_after == Some(k) {
            return Err(Broken::Failed);
        }
        if k < plan.visible_tokens {
            turn(&plan.behaviour, state, k).await;
            text.push_str(&prose.next_token());
        }
    }
    let mut body = json!({
        "id": plan.id,
        "object": "chat.completion",
        "created": plan.created_s,
        "model": plan.model.snapshot,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": null, "annotations": []},
            "logprobs": null,
            "finish_reason": plan.finish_reason,
        }],
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    });
    if !plan.behaviour.no_usage_chunk
        && let Some(fields) = body.as_object_mut()
    {
        fields.insert("usage".to_owned(), usage_json(plan.usage));
        ticket.reported(plan.usage);
    }
    let body = body.to_string().into_bytes();
    ticket.wrote(size(body.len()));
    ticket.end(Outcome::Complete);
    Ok(body)
}

/// One chunk, its fields in the vendor's order.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'static str,
    service_tier: &'static str,
    system_fingerprint: &'static str,
    choices: Value,
    /// Absent unless asked for; then null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    obfuscation: Option<String>,
}

/// What the stream writes next.
enum Step {
    PromptFilter,
    Role,
    /// The text token with this index, or what follows if there is none.
    Token(u64),
    /// What the filter says of the whole text.
    TextFilter,
    Usage,
    Done,
    End,
}

struct Writer {
    plan: Plan,
    state: Arc<State>,
    ticket: Ticket,
    prose: Prose,
    padding: Draws,
    /// Letters of the text so far.
    written: usize,
    step: Step,
}

/// A filter that found nothing.
fn nothing_found() -> Value {
    let kinds = ["hate", "self_harm", "sexual", "violence"];
    kinds.into_iter().map(|kind| (kind, json!({"filtered": false, "severity": "safe"}))).collect()
}

type Written = io::Result<Frame<Bytes>>;

/// The answer as a stream of chunks.
pub(super) fn streamed(plan: Plan, state: Arc<State>, ticket: Ticket) -> Body {
    let prose = Prose::new(plan.seed);
    let padding = Draws::new(!plan.seed);
    let step = if plan.behaviour.moderation { Step::PromptFilter } else { Step::Role };
    let writer = Writer { plan, state, ticket, prose, padding, written: 0, step };
    StreamBody::new(stream::unfold(writer, Writer::next)).boxed_unsync()
}

impl Writer {
    /// The next frame. The connection flushes the one before it while this one yields: no two share a write.
    async fn next(mut self) -> Option<(Written, Self)> {
        tokio::task::yield_now().await;
        let frame = match self.step {
            Step::PromptFilter => {
                self.step = Step::Role;
                let found = json!([{"prompt_index": 0, "content_filter_results": nothing_found()}]);
                let empty = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": found});
                self.data(&empty.to_string())
            }
            Step::TextFilter => {
                self.step = self.after_text();
                let offsets = json!({"check_offset": 0, "start_offset": 0, "end_offset": self.written});
                let choice = json!({"index": 0, "finish_reason": null, "content_filter_results": nothing_found(), "content_filter_offsets": offsets});
                let late = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [choice]});
                self.data(&late.to_string())
            }
            Step::Role => {
                self.step = Step::Token(0);
                self.chunk(&json!({"role": "assistant", "content": "", "refusal": null}), None, 0)
            }
            Step::Token(k) => return self.token(k).await,
            Step::Usage => {
                self.step = Step::Done;
                self.ticket.reported(self.plan.usage);
                let usage = usage_json(self.plan.usage);
                self.frame(json!([]), Some(usage), 0)
            }
            Step::Done if self.plan.behaviour.omit_done => {
                self.ticket.end(Outcome::Complete);
                return None;
            }
            Step::Done => {
                self.step = Step::End;
                let frame = self.data("[DONE]");
                self.ticket.end(Outcome::Complete);
                frame
            }
            Step::End => return None,
        };
        Some((Ok(frame), self))
    }

    async fn token(mut self, k: u64) -> Option<(Written, Self)> {
        if self.plan.behaviour.cut_after == Some(k) {
            self.step = Step::End;
            self.ticket.end(Outcome::Cut);
            return Some((Err(io::ErrorKind::ConnectionAborted.into()), self));
        }
        if self.plan.behaviour.stall_after == Some(k) {
            // The peer's leaving drops this, and so ends the ticket.
            std::future::pending::<()>().await;
        }
        if self.plan.behaviour.in_band_error_after == Some(k) {
            self.step = Step::End;
            let frame = self.data(&super::server_error().body().to_string());
            self.ticket.end(Outcome::InBandError);
            return Some((Ok(frame), self));
        }
        if k == self.plan.visible_tokens {
            let frame = self.finish();
            return Some((Ok(frame), self));
        }
        turn(&self.plan.behaviour, &self.state, k).await;
        self.step = Step::Token(k + 1);
        let token = self.prose.next_token();
        self.written += token.len();
        let frame = self.chunk(&json!({"content": token}), None, token.len());
        self.ticket.wrote_delta();
        Some((Ok(frame), self))
    }

    fn finish(&mut self) -> Frame<Bytes> {
        self.step = if self.plan.behaviour.moderation { Step::TextFilter } else { self.after_text() };
        self.chunk(&json!({}), Some(self.plan.finish_reason), 0)
    }

    fn after_text(&self) -> Step {
        let usage = self.plan.include_usage && !self.plan.behaviour.no_usage_chunk;
        if usage { Step::Usage } else { Step::Done }
    }

    /// A chunk with one choice.
    fn chunk(&mut self, delta: &Value, finish_reason: Option<&str>, length: usize) -> Frame<Bytes> {
        let mut choice =
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason});
        if self.plan.behaviour.moderation
            && let Some(fields) = choice.as_object_mut()
        {
            fields.insert("content_filter_results".to_owned(), nothing_found());
        }
        self.frame(json!([choice]), None, length)
    }

    /// A chunk whose text has `length` characters, padded so that its size does not tell.
    fn frame(&mut self, choices: Value, usage: Option<Value>, length: usize) -> Frame<Bytes> {
        let padding = PADDED_DELTA_LENGTH.saturating_sub(length).max(1);
        let chunk = Chunk {
            id: &self.plan.id,
            object: "chat.completion.chunk",
            created: self.plan.created_s,
            model: self.plan.model.snapshot,
            service_tier: "default",
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.plan.include_usage.then(|| usage.unwrap_or(Value::Null)),
            obfuscation: self.plan.obfuscate.then(|| self.padding.letters(padding)),
        };
        // Strings and numbers only: serialization has no way to fail.
        let json = serde_json::to_string(&chunk).unwrap_or_default();
        self.data(&json)
    }

    fn data(&mut self, payload: &str) -> Frame<Bytes> {
        let event = format!("data: {payload}\n\n");
        self.ticket.wrote(size(event.len()));
        Frame::data(Bytes::from(event))
    }
}
