//! A record of what was asked and answered, for a check against Stripe's own types.
//!
//! Owns one file, one JSON object a line. It is off unless `STRIPE_RECORD` names the file, and it holds what tests send,
//! never a key.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::lock;

/// The variable that names the file.
const VARIABLE: &str = "STRIPE_RECORD";

/// Where requests and answers are written.
#[derive(Debug)]
pub(super) struct Record(Option<Mutex<File>>);

impl Record {
    /// The record that the environment asks for, if it does.
    ///
    /// # Errors
    /// If its file cannot be opened: a check must not pass because nothing was written.
    pub(super) fn from_env() -> std::io::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a stand-in has no configuration of its own; only tests set this"
        )]
        let Ok(path) = std::env::var(VARIABLE) else { return Ok(Self(None)) };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Some(Mutex::new(file))))
    }

    /// Writes one answer of an endpoint.
    pub(super) fn note(&self, endpoint: &str, status: u16, body: &str) {
        let Some(file) = &self.0 else { return };
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let mut line = json!({ "endpoint": endpoint, "status": status, "answer": answer }).to_string();
        line.push('\n');
        // One write for a whole line: several processes append to the same file.
        if let Err(error) = lock(file).write_all(line.as_bytes()) {
            tracing::error!(%error, "an answer was not recorded");
        }
    }
}
