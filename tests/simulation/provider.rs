//! A provider that is strict about what it is asked and may do anything about its answer.

use crate::simulation::{
    actors::front,
    checks::request_of,
    keys,
    scenario::Mishap,
    world::{Process, Step, World},
};
use domain::{Hold, HoldId, ModelId, NanoUsd, Tokens};
use futures_util::stream;
use openai::testing::Memory;
use reqwest::{Body, Response};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    io,
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// Longer than the function waits for a provider that has fallen silent, in milliseconds.
const SILENCE_MS: u64 = 40_000;

/// The most calls for one request, and of one model for it.
const CALLS_MAX: usize = 4;
const MODEL_CALLS_MAX: usize = 2;

/// Between two pieces of a slow answer, in milliseconds: a long one does not end before the function has to cut it.
const SLOW_MS: u64 = 6_000;

/// Calls by request, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    made: BTreeMap<u64, Vec<Call>>,
    /// How long each piece of an answer takes, in milliseconds, where that is not at once.
    paces: BTreeMap<u64, u64>,
}

impl Calls {
    pub(crate) fn of(&self, request: u64) -> &[Call] {
        self.made.get(&request).map_or(&[], Vec::as_slice)
    }

    /// The one whose text, or whose end, was served: none after it.
    pub(crate) fn served(&self, request: u64) -> Option<&Call> {
        self.of(request).last().filter(|call| call.has_begun())
    }

    pub(crate) fn pace(&mut self, request: u64, pace_ms: u64) {
        self.paces.insert(request, pace_ms);
    }
}

/// One call, and what was written for it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The hold under which it was made.
    pub(crate) hold: HoldId,
    pub(crate) model: ModelId,
    /// The most that may be written.
    cap: u64,
    prompt: u64,
    hidden: u64,
    /// Tokens of text that have been read.
    pub(crate) written: u64,
    pub(crate) text: String,
    /// The answer was read to where it says why it ends: all of its text has come then.
    pub(crate) complete: bool,
    /// The provider's count has come.
    pub(crate) counted: bool,
    /// The provider refused it, so that it cost nothing.
    refused: bool,
    pub(crate) begun_ms: u64,
    /// When its connection was closed; none of a process that died.
    pub(crate) closed_ms: Option<u64>,
}

impl Call {
    /// What the provider counts.
    pub(crate) fn used(&self) -> u64 {
        self.prompt + self.hidden + self.written
    }

    /// Whether there was any of an answer.
    pub(crate) fn has_begun(&self) -> bool {
        self.written > 0 || self.complete
    }

    /// The most that it can have cost.
    pub(crate) fn cost_most(&self, prompt_most: Tokens) -> NanoUsd {
        let price = front().menu.prices.get(&self.model).unwrap();
        let most = price.cost_most(prompt_most, Tokens::new(self.cap).unwrap());
        if self.refused { NanoUsd::ZERO } else { most }
    }
}

/// A connection to the provider. Dropping it closes it.
struct Connection {
    world: Arc<World>,
    process: Arc<Process>,
    request: u64,
    call: usize,
}

impl Connection {
    fn with<T>(&self, f: impl FnOnce(&mut Call) -> T) -> T {
        self.world.with(|inner| f(&mut inner.calls.made.get_mut(&self.request).unwrap()[self.call]))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let ms = self.world.ms();
        // Of a process that died nobody knows when its connections went.
        if !self.process.is_dead() {
            self.with(|call| call.closed_ms = Some(ms));
        }
    }
}

enum Piece {
    Text(u64),
    Stop(&'static str),
    Usage,
    Done,
    Error,
    Cut,
    Silence,
}

struct Answer {
    connection: Connection,
    pieces: VecDeque<Piece>,
    /// Before each piece, in milliseconds.
    pause_ms: u64,
}

/// The provider as a process reaches it.
pub(crate) fn reached_by(world: &Arc<World>, process: &Arc<Process>) -> Memory {
    let (world, process) = (Arc::clone(world), Arc::clone(process));
    Memory::new(move |body| answer(Arc::clone(&world), Arc::clone(&process), body))
}

async fn answer(world: Arc<World>, process: Arc<Process>, body: Vec<u8>) -> Response {
    let step = world.step(&process, "call provider").await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let request = request_in(&body);
    let (connection, pieces) = connect(&world, &process, request, &body);
    if matches!(step, Step::DiesAfter) {
        pending::<()>().await;
    }
    if world.happens(Mishap::ProviderHangs) {
        pending::<()>().await;
    }
    if world.happens(Mishap::ProviderRefuses) {
        // Busy, broken, or without that model any more.
        let status = world.with(|inner| inner.dice.pick(&[429, 500, 503, 404]));
        connection.with(|call| call.refused = true);
        let body = json!({"error": {"message": "no", "type": "server_error"}}).to_string();
        return http::Response::builder().status(status).body(Body::from(body)).unwrap().into();
    }
    let pieces = spoil(&world, pieces);
    let pace_ms = world.with(|inner| inner.calls.paces.get(&request).copied().unwrap_or(0));
    let pause_ms = if world.happens(Mishap::ProviderSlow) { SLOW_MS } else { pace_ms };
    let answer = Answer { connection, pieces, pause_ms };
    let body = Body::wrap_stream(stream::unfold(answer, next));
    let head = http::Response::builder().header("content-type", "text/event-stream");
    head.body(body).unwrap().into()
}

/// Writes a call down, with what it is going to be answered.
fn connect(
    world: &Arc<World>,
    process: &Arc<Process>,
    request: u64,
    body: &Value,
) -> (Connection, VecDeque<Piece>) {
    let cap = body["max_completion_tokens"].as_u64().unwrap();
    let hold = check(world, request, cap, body);
    let bytes: usize =
        body["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap().len()).sum();
    let bytes = u64::try_from(bytes).unwrap();
    let begun_ms = world.ms();
    let (call, pieces) = world.with(|inner| {
        let prompt = inner.dice.between(bytes / 5, bytes);
        let hidden = if inner.dice.in_thousand(300) { inner.dice.below(cap / 2) } else { 0 };
        let pieces = script(inner.dice.between(1, 12), cap - hidden);
        let calls = inner.calls.made.entry(request).or_default();
        calls.push(Call {
            hold,
            model: ModelId::parse(body["model"].as_str().unwrap()).unwrap(),
            cap,
            prompt,
            hidden,
            written: 0,
            text: String::new(),
            complete: false,
            counted: false,
            refused: false,
            begun_ms,
            closed_ms: None,
        });
        (calls.len() - 1, pieces)
    });
    (Connection { world: Arc::clone(world), process: Arc::clone(process), request, call }, pieces)
}

fn request_in(body: &Value) -> u64 {
    let prompt = body["messages"][1]["content"].as_str().unwrap();
    let (_, rest) = prompt.split_once("request-").unwrap();
    rest.split_once(';').unwrap().0.parse().unwrap()
}

/// I4 and I6: nobody calls but for a hold that is open, large enough, and not taken back. F19: nor after the first text, nor
/// more often than the bounds say. Answers the hold.
fn check(world: &World, request: u64, cap: u64, body: &Value) -> HoldId {
    if body["stream_options"]["include_usage"] != true {
        world.violated("F5: a stream was asked for without its usage".into());
    }
    let kept = world.store.kept();
    let confirmed = kept.meters.iter().find_map(|(key, meter)| {
        let open = |(id, hold): &(&HoldId, &Hold)| {
            let void = kept.receipts.contains_key(&(key.clone(), (*id).clone()));
            request_of(id) == request && hold.tokens.get() >= cap && !void
        };
        meter.holds.iter().find(open).map(|(id, _)| id.clone())
    });
    drop(kept);
    let before = world.with(|inner| inner.calls.of(request).to_vec());
    if before.iter().any(Call::has_begun) {
        world.violated(format!("F19: request {request} called again after its first text"));
    }
    let model = body["model"].as_str().unwrap();
    let same = before.iter().filter(|call| call.model.as_str() == model).count();
    if before.len() >= CALLS_MAX || same >= MODEL_CALLS_MAX {
        world.violated(format!("F19: request {request} called {} times before", before.len()));
    }
    if before.iter().any(|call| call.closed_ms.is_none()) {
        world.violated(format!("F19: request {request} has two connections at once"));
    }
    keys::call_is_due(world, request, confirmed.as_ref());
    confirmed.unwrap_or_else(|| {
        world.violated(format!("I4: request {request} called the provider without a hold"));
        HoldId::parse(&format!("{request}x0")).unwrap()
    })
}

/// An answer of so many pieces, if nothing goes wrong, that keeps to the cap.
fn script(pieces: u64, cap: u64) -> VecDeque<Piece> {
    let mut left = cap;
    let mut script = VecDeque::new();
    for number in 0..pieces {
        let tokens = (number * 7 % 30 + 1).min(left);
        if tokens > 0 {
            left -= tokens;
            script.push_back(Piece::Text(tokens));
        }
    }
    script.extend([Piece::Stop(if left == 0 { "length" } else { "stop" }), Piece::Usage, Piece::Done]);
    script
}

/// What becomes of it.
fn spoil(world: &World, mut script: VecDeque<Piece>) -> VecDeque<Piece> {
    if world.happens(Mishap::ProviderHidesUsage) {
        script.retain(|piece| !matches!(piece, Piece::Usage));
    }
    let at = world.with(|inner| inner.dice.below(u64::try_from(script.len()).unwrap() + 1));
    let at = usize::try_from(at).unwrap();
    if world.happens(Mishap::ProviderStalls) {
        script.insert(at, Piece::Silence);
    }
    if world.happens(Mishap::ProviderErrs) {
        script.insert(at, Piece::Error);
    }
    if world.happens(Mishap::ProviderCuts) {
        script.insert(at, Piece::Cut);
    }
    script
}

async fn next(mut answer: Answer) -> Option<(io::Result<String>, Answer)> {
    let piece = answer.pieces.pop_front()?;
    sleep(Duration::from_millis(answer.pause_ms)).await;
    let connection = &answer.connection;
    if matches!(connection.world.step(&connection.process, "read the answer").await, Step::DiesAfter) {
        pending::<()>().await;
    }
    let data = match piece {
        Piece::Text(tokens) => {
            let text = "word".repeat(usize::try_from(tokens).unwrap());
            connection.with(|call| {
                call.written += tokens;
                call.text.push_str(&text);
            });
            json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
        }
        Piece::Stop(why) => {
            connection.with(|call| call.complete = true);
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": why}], "usage": null})
        }
        Piece::Usage => {
            let call = connection.with(|call| {
                call.counted = true;
                call.clone()
            });
            let cached = call.prompt / 3;
            json!({"choices": [], "usage": {"prompt_tokens": call.prompt,
                "completion_tokens": call.written + call.hidden,
                "prompt_tokens_details": {"cached_tokens": cached},
                "completion_tokens_details": {"reasoning_tokens": call.hidden}}})
        }
        Piece::Done => return Some((Ok("data: [DONE]\n\n".into()), answer)),
        Piece::Error => json!({"error": {"message": "overloaded", "type": "server_error"}}),
        Piece::Cut => return Some((Err(io::Error::other("cut")), answer)),
        Piece::Silence => {
            sleep(Duration::from_millis(SILENCE_MS)).await;
            return Some((Ok(": still here\n\n".into()), answer));
        }
    };
    Some((Ok(format!("data: {data}\n\n")), answer))
}
