//! The keys that Clerk publishes, fetched when a token needs them. Owns the request and its bounds; what to make of the
//! time is `cache`'s.
//!
//! A fetch runs inside the request that needs it, never in a task of its own: Lambda freezes a process between two
//! requests. At most one runs at a time. Requests whose key is known wait for none; those whose key is not known wait
//! for the one that runs, which ends within [`FETCH_TIMEOUT`], and all of them go by what it brought.

use crate::{
    KeyId, VerifyingKey,
    cache::{Cache, Look},
    jwks::{InvalidKeySet, KeySet},
};
use domain::Timestamp;
use reqwest::{StatusCode, Url, header::ACCEPT};
use std::{
    fmt, iter,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a fetch may take, from the connection to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest key set that is read, in bytes. Clerk's take about one thousand.
const DOCUMENT_BYTES_MAX: usize = 65_536;

/// The key that a token names cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// Clerk publishes no such key.
    Unknown,
    /// Clerk does not answer, and what it answered before is too old or does not have the key.
    Unavailable,
}

/// The keys of one instance, at the address where Clerk publishes them. Clones share what is known.
#[derive(Clone)]
pub struct PublishedKeys(Arc<Shared>);

struct Shared {
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
    /// Never held across an await.
    cache: Mutex<Cache>,
    /// Held by the request that asks Clerk.
    gate: tokio::sync::Mutex<()>,
}

/// An address from which no key may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an https URL (http only on this machine), so that anybody on the way could put in a key")]
pub struct NotSecure;

impl PublishedKeys {
    /// The keys at `url`, fetched when the first token needs one. `http` must not follow redirects.
    ///
    /// # Errors
    /// When what comes from there could be anybody's.
    pub fn at(url: Url, http: reqwest::Client) -> Result<Self, NotSecure> {
        Self::within(FETCH_TIMEOUT, url, http)
    }

    pub(crate) fn within(timeout: Duration, url: Url, http: reqwest::Client) -> Result<Self, NotSecure> {
        let here = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && here) {
            return Err(NotSecure);
        }
        let (cache, gate) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self(Arc::new(Shared { http, url, timeout, cache, gate })))
    }

    /// Keys that are known as of `now`, and are asked for nowhere.
    #[cfg(test)]
    pub(crate) fn known(keys: KeySet, now: Timestamp) -> Self {
        let nowhere = Url::parse("http://127.0.0.1:1/").unwrap();
        let known = Self::at(nowhere, crate::tests::http_client()).unwrap();
        known.with_cache(|cache| cache.answered(keys, None, now));
        known
    }

    /// The key with this id, as of `now`.
    pub(crate) async fn key(&self, id: &KeyId, now: Timestamp) -> Result<VerifyingKey, NoKey> {
        let gate = match self.look(id, now) {
            Look::Key(key) => return Ok(key),
            Look::Unknown => return Err(NoKey::Unknown),
            Look::Unavailable => return Err(NoKey::Unavailable),
            Look::Due(_) => self.0.gate.try_lock().ok(),
            Look::Ask => Some(self.0.gate.lock().await),
        };
        if let Some(_gate) = gate {
            // Whoever had the gate before may have asked already, or was dropped while it did.
            self.with_cache(Cache::nobody_asks);
            if matches!(self.look(id, now), Look::Ask | Look::Due(_)) {
                self.ask(id, now).await;
            }
        }
        match self.look(id, now) {
            Look::Key(key) | Look::Due(key) => Ok(key),
            Look::Unknown => Err(NoKey::Unknown),
            Look::Ask | Look::Unavailable => Err(NoKey::Unavailable),
        }
    }

    fn look(&self, id: &KeyId, now: Timestamp) -> Look {
        self.with_cache(|cache| cache.look(id, now))
    }

    fn with_cache<T>(&self, what: impl FnOnce(&mut Cache) -> T) -> T {
        // Nothing in there panics; and each change leaves it whole.
        what(&mut self.0.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask(&self, id: &KeyId, now: Timestamp) {
        self.with_cache(|cache| cache.asking(now));
        match self.fetch().await {
            Ok(keys) => self.with_cache(|cache| cache.answered(keys, Some(id), now)),
            // Here, because with a key that is still good enough nobody else learns of it.
            Err(error) => {
                tracing::error!(error = chain(&error), "the key set could not be fetched");
                self.with_cache(Cache::nobody_asks);
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let get = self.0.http.get(self.0.url.clone()).header(ACCEPT, "application/json");
        let mut response = get.timeout(self.0.timeout).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if document.len().saturating_add(chunk.len()) > DOCUMENT_BYTES_MAX {
                return Err(FetchError::TooLong);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(KeySet::parse(&document)?)
    }
}

impl fmt::Debug for PublishedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishedKeys").field("url", &self.0.url.as_str()).finish_non_exhaustive()
    }
}

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the key set's address does not answer")]
    Http(#[from] reqwest::Error),
    #[error("the key set's address answered {0}")]
    Status(StatusCode),
    #[error("the key set is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("the key set cannot be used")]
    Invalid(#[from] InvalidKeySet),
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
