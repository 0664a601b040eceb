//! What the provider remembers of the requests it was sent: never their text, only sizes, counts and how they ended.
//! It owns the counters that tests wait on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Requests that are remembered. Older ones are forgotten; the totals keep counting them.
const RECORDS_MAX: usize = 10_000;

/// Token counts as the provider reports them. Tokens read from and written to the cache are part of the prompt,
/// reasoning tokens part of the completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Of these, read from the provider's cache.
    pub cached_tokens: u64,
    /// Of these, written to the provider's cache.
    pub cache_write_tokens: u64,
    /// Tokens of the completion, reasoning included.
    pub completion_tokens: u64,
    /// Of these, spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Prompt and completion together.
    pub fn total_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    InFlight,
    /// Everything was written.
    Complete,
    /// The peer closed the connection (or the stand-in was shut down) before everything was written.
    PeerClosed,
    /// The stand-in dropped the connection, as it was told to.
    Cut,
    /// The stream ended in an error of its own, as it was told to.
    InBandError,
    /// It was answered with this status and no output.
    Refused(u16),
}

/// One request for a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// The completion's id, which is also the answer's `x-request-id`.
    pub id: String,
    /// The model that was asked for; absent when the request could not be read.
    pub model: Option<String>,
    /// The output limit that was asked for, in tokens.
    pub limit: Option<u64>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether usage was asked for.
    pub include_usage: bool,
    /// Bytes of all messages' text.
    pub text_bytes: u64,
    /// What a whole answer reports.
    pub planned: Usage,
    /// What was put on the wire.
    pub reported: Option<Usage>,
    /// Text deltas written.
    pub deltas_written: u64,
    /// Bytes of the body written.
    pub bytes_written: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// Counters over the stand-in's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests for a completion, refused ones included.
    pub requests: u64,
    /// Of these, not ended yet.
    pub in_flight: u64,
    /// The most that were in flight at once.
    pub in_flight_max: u64,
    /// Text deltas written, of all requests.
    pub deltas_written: u64,
}

#[derive(Debug, Default)]
struct Pages {
    records: VecDeque<RequestRecord>,
    forgotten: u64,
    reported: Usage,
}

#[derive(Debug)]
pub(super) struct Book {
    pages: Mutex<Pages>,
    counters: watch::Sender<Counters>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self { pages: Mutex::default(), counters: watch::Sender::new(Counters::default()) }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Every change is complete before its guard is dropped, so a poisoned book is still a true one.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn records(&self) -> Vec<RequestRecord> {
        self.pages().records.iter().cloned().collect()
    }

    pub(super) fn reported(&self) -> Usage {
        self.pages().reported
    }

    pub(super) fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Counters> {
        self.counters.subscribe()
    }

    /// Opens the record of a new request. `id` makes its id from how many there were before.
    pub(super) fn open(self: Arc<Self>, id: impl FnOnce(u64) -> String) -> Ticket {
        let (number, id) = {
            let mut pages = self.pages();
            let kept = super::request::size(pages.records.len());
            let number = pages.forgotten.saturating_add(kept);
            let id = id(number);
            pages.records.push_back(RequestRecord {
                id: id.clone(),
                model: None,
                limit: None,
                stream: false,
                include_usage: false,
                text_bytes: 0,
                planned: Usage::default(),
                reported: None,
                deltas_written: 0,
                bytes_written: 0,
                outcome: Outcome::InFlight,
            });
            if pages.records.len() > RECORDS_MAX {
                pages.records.pop_front();
                pages.forgotten += 1;
            }
            (number, id)
        };
        self.counters.send_modify(|counters| {
            counters.requests += 1;
            counters.in_flight += 1;
            counters.in_flight_max = counters.in_flight_max.max(counters.in_flight);
        });
        Ticket { book: self, number, id, ended: false }
    }
}

/// A request in flight. Dropping it unended means that its peer left.
#[derive(Debug)]
pub(super) struct Ticket {
    book: Arc<Book>,
    number: u64,
    id: String,
    ended: bool,
}

impl Ticket {
    /// The completion's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Changes this request's record, unless it is forgotten.
    pub(super) fn note(&self, change: impl FnOnce(&mut RequestRecord)) {
        let mut pages = self.book.pages();
        let index = self.number.checked_sub(pages.forgotten).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| pages.records.get_mut(index)) {
            change(record);
        }
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.note(|record| record.bytes_written += bytes);
    }

    pub(super) fn wrote_delta(&self) {
        self.note(|record| record.deltas_written += 1);
        self.book.counters.send_modify(|counters| counters.deltas_written += 1);
    }

    pub(super) fn reported(&self, usage: Usage) {
        self.note(|record| record.reported = Some(usage));
        let mut pages = self.book.pages();
        pages.reported = pages.reported.plus(usage);
    }

    /// Ends the request. Only the first end counts.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.note(|record| record.outcome = outcome);
        self.book.counters.send_modify(|counters| counters.in_flight = counters.in_flight.saturating_sub(1));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(Outcome::PeerClosed);
    }
}
