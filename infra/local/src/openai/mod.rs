//! A strict stand-in for OpenAI's chat completions: `POST /v1/chat/completions`, `GET /v1/models`.
//!
//! It owns the protocol as the vendor speaks it, and deterministic marketing copy: one token is one short word, and
//! one delta. What the vendor refuses it refuses with the vendor's words; parameters whose effect it cannot show
//! (tools, audio, `stop`, several choices) it refuses as `unsupported_by_stand_in` instead of ignoring them.
//! It must never depend on the product's own crates: it checks them.
//!
//! How it answers is set by [`Options::behaviour`], [`Handle::set_behaviour`], [`Handle::script`] for the next
//! requests, or by a directive anywhere in the last user message:
//!
//! ```text
//! [[tokens=400 delay_ms=20 first_ms=100 head_ms=5 prompt=exact:512 completion=9 cached=100 cache_write=50
//!   cut=7 inband=7 stall=7 error=503 retry_after=2 drop_head fail_first=2 gone=gpt-6-luna,gpt-4o-mini
//!   overrun=beyond moderation no_usage omit_done gate gate_from=1]]
//! ```
//!
//! `fail_first` lets the faults before it in this list happen to the first calls with the same last user message only;
//! where none is named, they get a 500.
//! `prompt` is one of `quarter`, `exact:N`, `bytes:N` (the text's bytes plus N) and `beyond` (also `overrun=beyond`).
//! A directive with an unknown item is refused with `invalid_directive`. Text in double brackets that does not begin
//! with one of these words is ordinary text.

mod answer;
mod behaviour;
mod copy;
mod record;
mod request;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use self::behaviour::{Behaviour, PromptCount, StatusError};
pub use self::record::{Counters, Outcome, RequestRecord, Usage};
pub use crate::serve::{Clock, system_clock};

use self::answer::{Broken, Plan};
use self::copy::Draws;
use self::record::{Book, Ticket};
use self::request::{Chat, MODELS, Model, Refusal};
use crate::serve::{Answer, Body, Payload, Server, Service, whole};

/// Behaviours waiting for their requests.
const SCRIPT_LENGTH_MAX: usize = 1_000;
/// Prompts whose calls are counted for `fail_first`.
const COUNTED_PROMPTS_MAX: usize = 1_000;
/// Letters of a completion's id behind its prefix.
const ID_LENGTH: usize = 29;

/// How the stand-in is started.
#[derive(Clone)]
pub struct Options {
    /// The one bearer key that is accepted.
    pub api_key: String,
    /// How requests are answered unless something says otherwise.
    pub behaviour: Behaviour,
    /// Dates `created`.
    pub clock: Clock,
}

impl Default for Options {
    /// Key `sk-local`, default behaviour, the machine's clock.
    fn default() -> Self {
        Self { api_key: "sk-local".to_owned(), behaviour: Behaviour::default(), clock: system_clock() }
    }
}

struct State {
    api_key: String,
    clock: Clock,
    behaviour: Mutex<Behaviour>,
    script: Mutex<VecDeque<Behaviour>>,
    /// The seeds of prompts that ask for the first calls to fail, each with how many there were; the oldest first.
    calls: Mutex<VecDeque<(u64, u64)>>,
    book: Arc<Book>,
    gate: Semaphore,
}

/// A running stand-in. The last clone stops it.
#[derive(Clone)]
pub struct Handle {
    server: Server,
    state: Arc<State>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("openai::Handle").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

/// Serves the stand-in on `listener`.
///
/// # Errors
/// When the listener has no local address.
#[expect(clippy::unused_async, reason = "every stand-in starts alike, and some wait")]
pub async fn start(listener: TcpListener, options: Options) -> io::Result<Handle> {
    let state = Arc::new(State {
        api_key: options.api_key,
        clock: options.clock,
        behaviour: Mutex::new(options.behaviour),
        script: Mutex::default(),
        calls: Mutex::default(),
        book: Arc::new(Book::new()),
        gate: Semaphore::new(0),
    });
    let server = Server::start(listener, Arc::clone(&state))?;
    Ok(Handle { server, state })
}

impl Handle {
    /// `http://host:port`, without `/v1` and without a trailing slash.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// Drops every connection and returns once they are gone.
    pub async fn shutdown(&self) {
        self.server.shutdown().await;
    }

    /// Answers like this from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.state.behaviour) = behaviour;
    }

    /// Answers the next request like this, or, after earlier calls, the one after theirs. Only requests that are
    /// accepted count. Returns whether there was room: at most 1,000 wait.
    #[must_use = "a behaviour that found no room is not played"]
    pub fn script(&self, behaviour: Behaviour) -> bool {
        let mut script = lock(&self.state.script);
        let room = script.len() < SCRIPT_LENGTH_MAX;
        if room {
            script.push_back(behaviour);
        }
        room
    }

    /// Lets gated requests, together, write this many more text deltas.
    pub fn release(&self, deltas: usize) {
        let room = Semaphore::MAX_PERMITS.saturating_sub(self.state.gate.available_permits());
        self.state.gate.add_permits(deltas.min(room));
    }

    /// The newest 10,000 requests for a completion, oldest first.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.book.records()
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        self.state.book.counters()
    }

    /// Requests that have not ended.
    pub fn in_flight(&self) -> u64 {
        self.counters().in_flight
    }

    /// Text deltas written, of all requests. A delta counts when it is handed to its connection.
    pub fn deltas_written(&self) -> u64 {
        self.counters().deltas_written
    }

    /// Everything that was ever put on the wire as usage, added up.
    pub fn total_reported(&self) -> Usage {
        self.state.book.reported()
    }

    /// Waits until the counters are as wanted, and returns them.
    pub async fn until(&self, wanted: impl FnMut(&Counters) -> bool) -> Counters {
        let mut counters = self.state.book.watch();
        // The sender lives in the state that `self` holds, so waiting cannot fail.
        counters.wait_for(wanted).await.map_or_else(|_| self.counters(), |counters| *counters)
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        self.until(|counters| counters.in_flight == 0).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole, so a poisoned one is still a whole one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service for State {
    async fn answer(self: Arc<Self>, request: Request<Payload>) -> Answer {
        let (head, payload) = request.into_parts();
        let path = head.uri.path();
        let chat = path == "/v1/chat/completions";
        if chat && head.method == Method::POST {
            return self.complete(&head.headers, payload).await;
        }
        let answer = self.authorized(&head.headers).and_then(|()| match path.strip_prefix("/v1/models") {
            Some(rest) if head.method == Method::GET => models(rest),
            Some(_) => Err(wrong_method(&head.method, path)),
            None if chat => Err(wrong_method(&head.method, path)),
            None => Err(Refusal::invalid(format!("Invalid URL ({} {path})", head.method))
                .status(StatusCode::NOT_FOUND)),
        });
        Answer::Http(match answer {
            Ok(body) => json_answer(StatusCode::OK, body),
            Err(refusal) => refused(&refusal),
        })
    }
}

fn wrong_method(method: &Method, path: &str) -> Refusal {
    Refusal::invalid(format!(
        "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
    ))
    .status(StatusCode::METHOD_NOT_ALLOWED)
    .code("method_not_supported")
}

fn models(rest: &str) -> Result<Vec<u8>, Refusal> {
    let entry = |model: &Model| json!({"id": model.id, "object": "model", "created": model.created_s, "owned_by": "system"});
    let body = match rest.strip_prefix('/') {
        None if rest.is_empty() => {
            json!({"object": "list", "data": MODELS.iter().map(entry).collect::<Vec<_>>()})
        }
        id => {
            let id = id.unwrap_or(rest);
            MODELS.iter().find(|model| model.id == id).map(entry).ok_or_else(|| {
                Refusal::invalid(format!("The model '{id}' does not exist"))
                    .status(StatusCode::NOT_FOUND)
                    .param("model")
                    .code("model_not_found")
            })?
        }
    };
    Ok(body.to_string().into_bytes())
}

impl State {
    /// Checks the bearer key.
    fn authorized(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refusal = |message: String| Refusal::invalid(message).status(StatusCode::UNAUTHORIZED);
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match given.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(key) if key == self.api_key => Ok(()),
            Some(key) if !key.is_empty() => Err(refusal(format!(
                "Incorrect API key provided: {}. You can find your API key at \
                 https://platform.openai.com/account/api-keys.",
                masked(key)
            ))
            .code("invalid_api_key")),
            _ => Err(refusal(
                "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                 Bearer auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from \
                 https://platform.openai.com/account/api-keys."
                    .to_owned(),
            )),
        }
    }

    async fn complete(self: Arc<Self>, headers: &HeaderMap, payload: Payload) -> Answer {
        let mut ticket = Arc::clone(&self.book).open(completion_id);
        match self.plan(headers, payload, &ticket) {
            Ok(plan) => self.play(plan, ticket).await,
            Err(refusal) => {
                ticket.end(Outcome::Refused(refusal.status.as_u16()));
                Answer::Http(refused(&refusal))
            }
        }
    }

    /// Reads the request and decides the whole answer.
    fn plan(&self, headers: &HeaderMap, payload: Payload, ticket: &Ticket) -> Result<Plan, Refusal> {
        self.authorized(headers)?;
        let body = json_body(headers, payload)?;
        let chat = request::parse(&body)?;
        let (behaviour, seed) = self.directed(&chat)?;
        let plan = Plan::new(ticket.id().to_owned(), (self.clock)(), &chat, behaviour, seed);
        ticket.note(|record| {
            record.model = Some(chat.model.id.to_owned());
            record.limit = chat.limit;
            record.stream = chat.stream;
            record.include_usage = chat.include_usage;
            record.text_bytes = chat.text_bytes();
            record.planned = plan.usage;
        });
        Ok(plan)
    }

    /// The behaviour for this request, and the seed of its text, which a directive does not change.
    fn directed(&self, chat: &Chat) -> Result<(Behaviour, u64), Refusal> {
        chat.check_context()?;
        let last = chat.last_user.and_then(|index| Some((index, chat.texts.get(index)?)));
        let found = last.and_then(|(index, text)| Some((index, behaviour::find_directive(text)?)));
        let texts = chat.texts.iter().enumerate().map(|(index, text)| match &found {
            Some((place, (_, rest))) if *place == index => rest.as_str(),
            _ => text.as_str(),
        });
        let seed = copy::seed(texts);
        let next = lock(&self.script).pop_front();
        let behaviour = next.unwrap_or_else(|| lock(&self.behaviour).clone());
        let mut behaviour = match found {
            None => behaviour,
            Some((_, (inside, _))) => behaviour.directed(inside).map_err(|item| {
                Refusal::invalid(format!("The stand-in's directive is wrong: {item}."))
                    .param("messages")
                    .code("invalid_directive")
            })?,
        };
        if behaviour.gone.iter().any(|gone| gone == chat.model.id) {
            return Err(request::no_such_model(chat.model.id));
        }
        if let (Some(failing), Some((_, text))) = (behaviour.fail_first, last)
            && self.calls_before(copy::seed([text.as_str()].into_iter())) >= failing
        {
            behaviour = behaviour.without_faults();
        }
        Ok((behaviour, seed))
    }

    /// How many calls with this prompt there were before this one, which is counted from now on.
    fn calls_before(&self, prompt: u64) -> u64 {
        let mut calls = lock(&self.calls);
        if let Some((_, count)) = calls.iter_mut().find(|(seed, _)| *seed == prompt) {
            *count += 1;
            return *count - 1;
        }
        if calls.len() == COUNTED_PROMPTS_MAX {
            calls.pop_front();
        }
        calls.push_back((prompt, 1));
        0
    }

    /// Answers as planned.
    async fn play(self: Arc<Self>, plan: Plan, mut ticket: Ticket) -> Answer {
        let behaviour = &plan.behaviour;
        if !behaviour.head_delay.is_zero() {
            tokio::time::sleep(behaviour.head_delay).await;
        }
        if behaviour.drop_before_head {
            ticket.end(Outcome::Cut);
            return Answer::HangUp;
        }
        if let Some(error) = behaviour.status_error {
            ticket.end(Outcome::Refused(error.status));
            return Answer::Http(status_error(error));
        }
        if plan.stream {
            let id = ticket.id().to_owned();
            let mut response = Response::new(answer::streamed(plan, self, ticket));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            return Answer::Http(dressed(response, &id));
        }
        match answer::whole(&plan, &self, &mut ticket).await {
            Ok(body) => Answer::Http(dressed(json_answer(StatusCode::OK, body), ticket.id())),
            Err(Broken::Cut) => {
                ticket.end(Outcome::Cut);
                Answer::HangUp
            }
            Err(Broken::Failed) => {
                ticket.end(Outcome::Refused(StatusCode::INTERNAL_SERVER_ERROR.as_u16()));
                Answer::Http(refused(&server_error()))
            }
        }
    }
}

/// The id of the request with this number: stable, unlike its neighbours', as long as the vendor's.
fn completion_id(number: u64) -> String {
    format!("chatcmpl-{}", Draws::new(number).letters(ID_LENGTH))
}

/// A key as the vendor shows it: its first and last characters.
fn masked(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    if letters.len() <= 8 {
        return "*".repeat(letters.len());
    }
    let head: String = letters.iter().take(4).collect();
    let tail: String = letters.iter().skip(letters.len() - 4).collect();
    format!("{head}{}{tail}", "*".repeat(letters.len() - 8))
}

fn json_body(headers: &HeaderMap, payload: Payload) -> Result<Bytes, Refusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::invalid(format!(
            "Unsupported content type: '{kind}'. This API method only accepts 'application/json' requests, but you \
             specified the header 'Content-Type: {given}'. Please try again with a supported content type."
        ))
        .code("unsupported_content_type"));
    }
    match payload {
        Payload::Whole(body) => Ok(body),
        Payload::TooLarge => {
            Err(Refusal::invalid("The request body is too large.").status(StatusCode::PAYLOAD_TOO_LARGE))
        }
    }
}

/// The error of a provider that fails, in a body or in a stream.
fn server_error() -> Refusal {
    let mut refusal =
        Refusal::invalid("The server had an error while processing your request. Sorry about that!")
            .status(StatusCode::INTERNAL_SERVER_ERROR);
    refusal.kind = "server_error";
    refusal
}

fn status_error(error: StatusError) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut refusal = server_error().status(status);
    if status == StatusCode::TOO_MANY_REQUESTS {
        "Rate limit reached on tokens per min (TPM). Please try again later."
            .clone_into(&mut refusal.message);
        refusal.kind = "tokens";
        refusal.code = Some("rate_limit_exceeded");
    } else if status.is_client_error() {
        "The request was refused, as the stand-in was told to.".clone_into(&mut refusal.message);
        refusal.kind = "invalid_request_error";
    }
    let mut response = refused(&refusal);
    if let Some(seconds) = error.retry_after_s {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, seconds.into());
        headers.insert(HeaderName::from_static("retry-after-ms"), seconds.saturating_mul(1_000).into());
    }
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    json_answer(refusal.status, refusal.body().to_string().into_bytes())
}

fn json_answer(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds the headers that the vendor puts on every completion.
fn dressed(mut response: Response<Body>, id: &str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("openai-version"), HeaderValue::from_static("2020-10-01"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}
