//! Idempotency keys: one execution for each key, and the same answer for whoever asks again.
//!
//! Owns the saved answers. It never executes anything.

use std::collections::{HashMap, VecDeque};

use super::calendar::DAY_S;
use super::error::ApiError;
use super::form::Params;

/// Longest key, in characters.
const MAX_KEY_CHARS: usize = 255;
/// Most keys that are remembered.
const MAX_KEYS: usize = 200_000;
/// How long a key is remembered, in seconds of Stripe's clock.
const MEMORY_S: i64 = DAY_S;

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) request_id: String,
    pub(super) should_retry: Option<bool>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    params: Params,
    /// `None` while the first request is being executed.
    answer: Option<Answer>,
}

/// What to do with a request that carries a key.
#[derive(Debug)]
pub(super) enum Begin {
    Execute,
    Replay(Answer),
}

/// The keys of the last 24 hours.
#[derive(Debug, Default)]
pub(super) struct Keys {
    entries: HashMap<String, Entry>,
    /// The keys that have an answer, with the time of it.
    order: VecDeque<(i64, String)>,
}

impl Keys {
    /// Claims a key for a request, or finds what it was answered before.
    pub(super) fn begin(
        &mut self,
        key: &str,
        path: &str,
        params: &Params,
        now_s: i64,
    ) -> Result<Begin, ApiError> {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            let message = format!("Idempotency-Key must have between 1 and {MAX_KEY_CHARS} characters.");
            return Err(ApiError::invalid_request(message));
        }
        self.forget(now_s);
        if let Some(entry) = self.entries.get(key) {
            return entry.reuse(key, path, params);
        }
        if self.entries.len() >= MAX_KEYS {
            return Err(ApiError::full("idempotency keys"));
        }
        let entry = Entry { path: path.to_owned(), params: params.clone(), answer: None };
        self.entries.insert(key.to_owned(), entry);
        Ok(Begin::Execute)
    }

    /// Saves the answer of a claimed key, or releases the key.
    pub(super) fn end(&mut self, key: &str, answer: Option<&Answer>, now_s: i64) {
        let Some(answer) = answer else {
            self.entries.remove(key);
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            entry.answer = Some(answer.clone());
            self.order.push_back((now_s, key.to_owned()));
        }
    }

    fn forget(&mut self, now_s: i64) {
        while let Some((saved_s, _)) = self.order.front() {
            if now_s.saturating_sub(*saved_s) < MEMORY_S {
                return;
            }
            if let Some((_, key)) = self.order.pop_front() {
                self.entries.remove(&key);
            }
        }
    }
}

impl Entry {
    fn reuse(&self, key: &str, path: &str, params: &Params) -> Result<Begin, ApiError> {
        let hint = format!("Try using a key other than '{key}' if you meant to execute a different request.");
        if self.path != path {
            let message = format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for \
                 ('{path}' vs '{}'). {hint}",
                self.path
            );
            return Err(ApiError::key_reused(message));
        }
        if self.params != *params {
            let message = format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 {hint}"
            );
            return Err(ApiError::key_reused(message));
        }
        self.answer.clone().map(Begin::Replay).ok_or_else(|| ApiError::key_in_use(key))
    }
}
