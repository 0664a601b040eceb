//! The client: where Stripe is, the key to it, and how one request is made. It repeats nothing but the creation of what
//! somebody waits for, under one key.

use crate::failure::Failure;
use crate::pace::{Lane, Pace};
use crate::v2::V2;
use std::{fmt, sync::Arc, time::Duration};
use stripe_client_core::{
    CustomizableStripeRequest, IdempotencyKey, RequestBuilder, RequestStrategy, StripeMethod,
};

/// How long one call may take, from connecting to the last byte of the answer, unless [`Stripe::timeout`] says
/// otherwise. The library underneath has no limit of its own.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How often one creation that somebody waits for is tried.
const CREATE_TRIES_MAX: u32 = 4;
/// Half of the pause before its second try, in milliseconds; it doubles with each further one.
const CREATE_PAUSE_MS: u64 = 50;

/// A secret as text: an API key or a webhook's signing secret. `Debug` does not show it, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Whether it is an API key to live mode: real money.
    pub fn is_live(&self) -> bool {
        self.0.starts_with("sk_live_") || self.0.starts_with("rk_live_")
    }

    /// The secret itself, for whoever it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// What the client needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API is, `https://...` or a loopback address; none: Stripe itself.
    pub base_url: Option<String>,
    /// The secret or restricted API key, `sk_...` or `rk_...`.
    pub secret_key: Secret,
}

/// Settings that no request can be made with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The key would be sent in the clear.
    #[error("the base URL of Stripe must begin with https://, or with http:// and a loopback address")]
    Insecure,
    /// Not a URL, or a key that cannot be a header.
    #[error("Stripe's client cannot be built: {0}")]
    Unusable(String),
}

/// Stripe's API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stripe {
    client: async_stripe::Client,
    pub(crate) v2: Arc<V2>,
    pub(crate) timeout: Duration,
    /// Whose turn it is; none: everybody's.
    pace: Option<Pace>,
    /// A function of a test that answers instead of a connection.
    #[cfg(feature = "testing")]
    pub(crate) memory: Option<crate::testing::Memory>,
}

impl Stripe {
    /// A client; it connects when it is first used.
    ///
    /// # Errors
    /// When the base URL is no URL or would carry the key in the clear, or the key is not printable ASCII.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let mut builder = async_stripe::ClientBuilder::new(settings.secret_key.expose());
        let mut base_url = settings.base_url;
        if let Some(url) = &mut base_url {
            if !keeps_a_secret(url) {
                return Err(InvalidSettings::Insecure);
            }
            if !url.ends_with('/') {
                url.push('/');
            }
            builder = builder.url(url.as_str());
        }
        let client = builder.build().map_err(|error| InvalidSettings::Unusable(error.to_string()))?;
        Ok(Self {
            client,
            v2: Arc::new(V2::new(base_url, settings.secret_key)),
            timeout: TIMEOUT,
            pace: None,
            #[cfg(feature = "testing")]
            memory: None,
        })
    }

    /// The same client, whose requests a function of the test answers, without a connection.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn in_memory(self, memory: crate::testing::Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// The same client with another limit for each call.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client, each of whose calls waits for its turn.
    #[must_use]
    pub fn paced(self, pace: Pace) -> Self {
        Self { pace: Some(pace), ..self }
    }

    /// How long one call may take, once it is its turn.
    pub fn call_timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes one request, once.
    pub(crate) async fn call<T: miniserde::Deserialize>(
        &self,
        method: StripeMethod,
        request: CustomizableStripeRequest<T>,
    ) -> Result<T, Failure> {
        let strategy = match method {
            StripeMethod::Get => RequestStrategy::Once,
            StripeMethod::Post | StripeMethod::Delete => RequestStrategy::Idempotent(fresh_key()?),
        };
        self.exchange(Lane::Other, strategy, request).await
    }

    /// Sends a meter event, once.
    pub(crate) async fn call_with_event<T: miniserde::Deserialize>(
        &self,
        request: CustomizableStripeRequest<T>,
    ) -> Result<T, Failure> {
        self.exchange(Lane::Event, RequestStrategy::Idempotent(fresh_key()?), request).await
    }

    /// Makes one request that changes something, once, under a key of the caller's: repeated under it, it is made once.
    pub(crate) async fn call_under<T: miniserde::Deserialize>(
        &self,
        key: IdempotencyKey,
        request: CustomizableStripeRequest<T>,
    ) -> Result<T, Failure> {
        self.exchange(Lane::Other, RequestStrategy::Idempotent(key), request).await
    }

    /// Makes one POST under a key of the caller's own: whoever makes the same one at the same time, or makes it again within a
    /// day, gets the object that the first one made.
    ///
    /// While Stripe is busy with it, or no answer comes, it is made again under the same key. A failure of Stripe's own is kept
    /// under its key as an answer is, so the next key of the same series is taken for the next try: everybody who makes this
    /// request goes through the same series.
    pub(crate) async fn create_once<T: miniserde::Deserialize>(
        &self,
        key: &str,
        path: &str,
        form: &impl serde::Serialize,
    ) -> Result<T, Failure> {
        let mut number = 0;
        let mut tried = 0;
        loop {
            let key = IdempotencyKey::new(format!("{key}-{number}"))
                .map_err(|error| Failure::Unusable(error.to_string()))?;
            let request = RequestBuilder::new(StripeMethod::Post, path).form(form).customize::<T>();
            let outcome = self.exchange(Lane::Other, RequestStrategy::Idempotent(key), request).await;
            tried += 1;
            match &outcome {
                Err(Failure::Answered(answer)) if answer.status >= 500 => number += 1,
                Err(Failure::Answered(answer)) if answer.busy() => {}
                Err(Failure::Lost(_) | Failure::NotSent(_)) => {}
                Ok(_) | Err(Failure::Answered(_) | Failure::Unusable(_)) => return outcome,
            }
            if tried >= CREATE_TRIES_MAX {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(CREATE_PAUSE_MS << tried)).await;
        }
    }

    async fn exchange<T: miniserde::Deserialize>(
        &self,
        lane: Lane,
        strategy: RequestStrategy,
        request: CustomizableStripeRequest<T>,
    ) -> Result<T, Failure> {
        if let Some(pace) = &self.pace {
            pace.turn(lane).await;
        }
        let request = request.request_strategy(strategy).timeout(self.timeout);
        #[cfg(feature = "testing")]
        if let Some(memory) = &self.memory {
            return request.send(memory).await.map_err(Failure::from);
        }
        request.send(&self.client).await.map_err(Failure::from)
    }
}

/// A key that no other call has. Stripe replays the saved answer of a key it knows, its own 500s included, so a repeated
/// attempt must not repeat the key; what makes a repeated meter event harmless is its `identifier`.
pub(crate) fn fresh_key() -> Result<IdempotencyKey, Failure> {
    let random: u128 = rand::random();
    IdempotencyKey::new(format!("{random:032x}")).map_err(|error| Failure::Unusable(error.to_string()))
}

fn keeps_a_secret(url: &str) -> bool {
    const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
    let is_loopback = |rest: &str| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_port = |rest: &str| rest.bytes().all(|byte| byte == b':' || byte.is_ascii_digit());
        LOOPBACK.iter().any(|host| authority.strip_prefix(host).is_some_and(is_port))
    };
    url.starts_with("https://") || url.strip_prefix("http://").is_some_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, accepted: bool) {
        let settings = Settings { base_url: Some(url.into()), secret_key: Secret::new("sk_test_x") };
        assert_eq!(Stripe::new(settings).is_ok(), accepted, "{url}");
    }

    #[test]
    fn the_key_never_travels_in_the_clear() {
        check("https://api.example", true);
        check("http://127.0.0.1:4000", true);
        check("http://localhost:4000/", true);
        check("http://[::1]:4000/", true);
        check("http://api.example", false);
        check("http://127.0.0.1.example", false);
        check("http://localhost@evil.example", false);
        check("http://localhost:x@evil.example", false);
        check("ftp://127.0.0.1", false);
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let settings = Settings { base_url: None, secret_key: Secret::new("sk_test_hush") };
        assert!(!format!("{settings:?}").contains("hush"));
        let client = Stripe::new(settings).unwrap();
        assert!(!format!("{client:?}").contains("hush"));
    }
}
