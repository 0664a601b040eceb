//! A strict stand-in for Amazon EventBridge: `PutEvents`, and the rules that wake functions.
//!
//! It owns the events that it took, for tests to look at and for whoever asked for some of them, and the faults that the real service has and a laptop does
//! not: entries that fail, answers that are lost after the event was taken, throttling. It must never depend on the
//! product's own crates.
//!
//! Stricter than the vendor on purpose: unknown members are an error (AWS ignores them), and so is a bus that does
//! not exist. A signature must be there, complete and scoped to `events`; its value is not checked.

mod rules;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Number, Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub use self::rules::Rule;

use self::wire::{Entry, EntryRefusal, Refusal};
use crate::serve::{Answer, Body, Payload, Server, Service, hex, whole};

/// Bytes of all entries of one request together, as the vendor counts them: 1 MiB since 2026-01-29, 256 KiB before.
pub const ENTRIES_BYTES_MAX: usize = 1_024 * 1_024;
/// Events that are remembered. Older ones are forgotten.
const EVENTS_MAX: usize = 20_000;
/// Events on their way to one rule's function. Those beyond are dropped, as the vendor drops what no retry delivers.
const ON_THEIR_WAY_MAX: usize = 1_000;
/// Faults waiting for their requests.
const FAULTS_MAX: usize = 1_000;

/// How the stand-in is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The buses that exist. An entry without a bus goes to `default`.
    pub buses: Vec<String>,
    /// Bytes of all entries of one request together.
    pub entries_bytes_max: usize,
}

impl Default for Options {
    /// The bus `default`, and the vendor's limit.
    fn default() -> Self {
        Self { buses: vec!["default".to_owned()], entries_bytes_max: ENTRIES_BYTES_MAX }
    }
}

/// An event that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, as it was (or, for a lost answer, would have been) answered.
    pub id: String,
    /// The bus it is on.
    pub bus: String,
    /// `Source`.
    pub source: String,
    /// `DetailType`.
    pub detail_type: String,
    /// `Detail`.
    pub detail: Map<String, Value>,
    /// `Resources`.
    pub resources: Vec<String>,
    /// `Time`, in seconds since the Unix epoch, if it was given.
    pub time_s: Option<Number>,
}

/// Why an entry fails that has nothing wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFault {
    /// `InternalFailure`.
    InternalFailure,
    /// `ThrottlingException`.
    Throttling,
}

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The entries with these indices (from 0) fail, the others are taken.
    FailEntries(Vec<usize>, EntryFault),
    /// Everything is taken, and the connection dropped without an answer.
    LoseAnswer,
    /// 400 `ThrottlingException`; nothing is taken.
    Throttle,
    /// 500 `InternalException`; nothing is taken.
    InternalError,
}

#[derive(Default)]
struct Store {
    events: VecDeque<Event>,
    faults: VecDeque<Fault>,
    rules: Vec<(Rule, mpsc::Sender<Event>)>,
    taken: u64,
    requests: u64,
}

struct State {
    options: Options,
    store: Mutex<Store>,
    taken: watch::Sender<u64>,
}

/// A running stand-in. The last clone stops it.
#[derive(Clone)]
pub struct Handle {
    server: Server,
    state: Arc<State>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("events::Handle").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

/// Serves the stand-in on `listener`.
///
/// # Errors
/// When the listener has no local address.
#[expect(clippy::unused_async, reason = "every stand-in starts alike, and some wait")]
pub async fn start(listener: TcpListener, options: Options) -> io::Result<Handle> {
    let state = Arc::new(State { options, store: Mutex::default(), taken: watch::Sender::new(0) });
    let server = Server::start(listener, Arc::clone(&state))?;
    Ok(Handle { server, state })
}

impl Handle {
    /// `http://host:port`, without a trailing slash.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// Drops every connection and returns once they are gone.
    pub async fn shutdown(&self) {
        self.server.shutdown().await;
    }

    /// The newest 20,000 events that were taken, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.state.store().events.iter().cloned().collect()
    }

    /// Requests that were sent, refused ones included.
    pub fn requests(&self) -> u64 {
        self.state.store().requests
    }

    /// Every event from now on that matches a rule.
    pub fn matching(&self, rule: Rule) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(ON_THEIR_WAY_MAX);
        self.state.store().rules.push((rule, sender));
        receiver
    }

    /// Plays a fault on the next request that is itself in order, or, after earlier calls, on the one after theirs.
    /// Returns whether there was room: at most 1,000 wait.
    #[must_use = "a fault that found no room is not played"]
    pub fn inject(&self, fault: Fault) -> bool {
        let mut store = self.state.store();
        let room = store.faults.len() < FAULTS_MAX;
        if room {
            store.faults.push_back(fault);
        }
        room
    }

    /// Waits until this many events were taken since the start, and returns [`Handle::events`].
    pub async fn until_taken(&self, count: u64) -> Vec<Event> {
        // The sender lives in the state that `self` holds, so waiting cannot fail.
        drop(self.state.taken.subscribe().wait_for(|taken| *taken >= count).await);
        self.events()
    }
}

impl State {
    fn store(&self) -> MutexGuard<'_, Store> {
        // Every change is complete before its guard is dropped, so a poisoned store is still a true one.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what can be taken. None when the answer is to be lost.
    fn put(&self, entries: &[Entry]) -> Result<Option<Value>, Refusal> {
        let mut store = self.store();
        let fault = store.faults.pop_front();
        match &fault {
            Some(Fault::Throttle) => return Err(Refusal::new("ThrottlingException", "Rate exceeded")),
            Some(Fault::InternalError) => {
                let mut refusal = Refusal::new("InternalException", "The service failed. Try again.");
                refusal.status = StatusCode::INTERNAL_SERVER_ERROR;
                return Err(refusal);
            }
            Some(Fault::FailEntries(..) | Fault::LoseAnswer) | None => {}
        }
        let mut failed = 0;
        let results: Vec<Value> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| match self.take(&mut store, entry, entry_fault(fault.as_ref(), index)) {
                Ok(id) => json!({"EventId": id}),
                Err(refusal) => {
                    failed += 1;
                    json!({"ErrorCode": refusal.code, "ErrorMessage": refusal.message})
                }
            })
            .collect();
        self.taken.send_replace(store.taken);
        drop(store);
        let lost = fault == Some(Fault::LoseAnswer);
        Ok((!lost).then(|| json!({"FailedEntryCount": failed, "Entries": results})))
    }

    /// Takes one entry. Returns its event's id.
    fn take(
        &self,
        store: &mut Store,
        entry: &Entry,
        fault: Option<EntryRefusal>,
    ) -> Result<String, EntryRefusal> {
        let good = entry.check(&self.options.buses)?;
        if let Some(refusal) = fault {
            return Err(refusal);
        }
        let id = event_id(store.taken);
        store.taken += 1;
        let event = Event {
            id: id.clone(),
            bus: good.bus,
            source: good.source,
            detail_type: good.detail_type,
            detail: good.detail,
            resources: entry.resources.clone(),
            time_s: entry.time_s.clone(),
        };
        for (_, sender) in store.rules.iter().filter(|(rule, _)| rule.matches(&event)) {
            if let Err(error) = sender.try_send(event.clone()) {
                tracing::warn!(%error, "an event did not reach its rule's function");
            }
        }
        store.events.push_back(event);
        if store.events.len() > EVENTS_MAX {
            store.events.pop_front();
        }
        Ok(id)
    }

    fn answer_to(&self, request: &Request<Payload>) -> Result<Option<Value>, Refusal> {
        self.store().requests += 1;
        if request.method() != Method::POST || request.uri().path() != "/" {
            return Err(Refusal::new("UnknownOperationException", "Operations are posted to '/'."));
        }
        wire::check_head(request.headers())?;
        match request.body() {
            Payload::Whole(body) => self.put(&wire::entries(body, self.options.entries_bytes_max)?),
            Payload::TooLarge => {
                let mut refusal = Refusal::new("RequestEntityTooLargeException", "The request is too large.");
                refusal.status = StatusCode::PAYLOAD_TOO_LARGE;
                Err(refusal)
            }
        }
    }
}

fn entry_fault(fault: Option<&Fault>, index: usize) -> Option<EntryRefusal> {
    let Some(Fault::FailEntries(entries, kind)) = fault else {
        return None;
    };
    entries.contains(&index).then_some(match kind {
        EntryFault::InternalFailure => {
            EntryRefusal { code: "InternalFailure", message: "Unexpected error occurred." }
        }
        EntryFault::Throttling => EntryRefusal { code: "ThrottlingException", message: "Rate exceeded" },
    })
}

/// An id in the form of a UUID, made from how many events there were before.
fn event_id(number: u64) -> String {
    let digest = Sha256::digest(number.to_be_bytes());
    let mut id = String::new();
    for (place, digit) in hex(digest.iter().take(16)).chars().enumerate() {
        if [8, 12, 16, 20].contains(&place) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

impl Service for State {
    async fn answer(self: Arc<Self>, request: Request<Payload>) -> Answer {
        match self.answer_to(&request) {
            Ok(Some(body)) => Answer::Http(response(StatusCode::OK, &body)),
            Ok(None) => Answer::HangUp,
            Err(refusal) => Answer::Http(response(refusal.status, &refusal.body())),
        }
    }
}

fn response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(whole(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    headers.insert(HeaderName::from_static("x-amzn-requestid"), HeaderValue::from_static("local-request"));
    response
}
