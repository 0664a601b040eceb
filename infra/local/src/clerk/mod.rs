//! A stand-in for Clerk: a key of its own, `GET /.well-known/jwks.json`, and session tokens for named test users. A test
//! can change the key, take old ones back, and have the key set late, refused or never answered.
//!
//! It owns the tokens' shape (RS256, version 2). `GET /mint?user=alice` answers a fresh token of `user_local_alice`
//! as plain text, for curl; the real Clerk has no such door. It must never depend on the product's own crates.

mod key;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

pub use self::token::Claims;
pub use crate::openai::{Clock, system_clock};

use self::key::Key;
use crate::serve::{Answer, Body, Payload, Server, Service, whole};

/// Characters of a test user's name.
const NAME_LENGTH_MAX: usize = 40;
/// The longest lifetime that `GET /mint` gives, in seconds.
const LIFETIME_S_MAX: u64 = 86_400;
/// The most keys in the key set: the one that signs, and those before it. The oldest is taken back for a new one.
const KEYS_MAX: usize = 4;

/// How the stand-in is started.
#[derive(Clone)]
pub struct Options {
    /// The private key in PKCS#8 PEM. Without one, the process makes a key once and keeps it in memory.
    pub key_pem: Option<String>,
    /// The `iss` of tokens, without a trailing slash. Without one, the stand-in's own URL.
    pub issuer: Option<String>,
    /// The `azp` of tokens: the origin that the frontend is served from.
    pub authorized_party: String,
    /// Seconds from `iat` to `exp`.
    pub lifetime_s: u64,
    /// Dates the tokens of `GET /mint`.
    pub clock: Clock,
}

impl Default for Options {
    /// The process's key, own URL as issuer, `http://localhost:3000`, 60 s, the machine's clock.
    fn default() -> Self {
        Self {
            key_pem: None,
            issuer: None,
            authorized_party: "http://localhost:3000".to_owned(),
            lifetime_s: 60,
            clock: system_clock(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor the clock has anything to show.
        f.debug_struct("Options")
            .field("issuer", &self.issuer)
            .field("authorized_party", &self.authorized_party)
            .field("lifetime_s", &self.lifetime_s)
            .finish_non_exhaustive()
    }
}

/// What a request for the key set gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySet {
    /// The keys.
    #[default]
    Served,
    /// The keys, after this long.
    Late(Duration),
    /// An error with this status.
    Refused(StatusCode),
    /// A connection that ends without an answer.
    HungUp,
    /// A connection on which nothing ever comes.
    Silent,
}

struct State {
    /// The key that signs, and those before it that are still published; never empty.
    keys: Mutex<Vec<Arc<Key>>>,
    key_set: Mutex<KeySet>,
    issuer: String,
    authorized_party: String,
    lifetime_s: u64,
    clock: Clock,
    jwks_fetches: AtomicU64,
}

/// A running stand-in. The last clone stops it.
#[derive(Clone)]
pub struct Handle {
    server: Server,
    state: Arc<State>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("clerk::Handle").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

/// Serves the stand-in on `listener`.
///
/// # Errors
/// When the listener has no local address, the PEM holds no usable RSA key, or no key could be made.
pub async fn start(listener: TcpListener, options: Options) -> io::Result<Handle> {
    let key = match &options.key_pem {
        Some(pem) => Arc::new(Key::from_pem(pem)?),
        // Making a key takes a good part of a second: not on a thread that serves others.
        None => tokio::task::spawn_blocking(Key::of_process).await.map_err(io::Error::other)??,
    };
    let own = format!("http://{}", listener.local_addr()?);
    let state = Arc::new(State {
        keys: Mutex::new(vec![key]),
        key_set: Mutex::default(),
        issuer: options.issuer.unwrap_or(own),
        authorized_party: options.authorized_party,
        lifetime_s: options.lifetime_s,
        clock: options.clock,
        jwks_fetches: AtomicU64::new(0),
    });
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

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.state.issuer
    }

    /// The `azp` of its tokens.
    pub fn authorized_party(&self) -> &str {
        &self.state.authorized_party
    }

    /// The public half of the key that signs, in SPKI PEM: what Clerk's dashboard calls the JWKS public key.
    pub fn public_key_pem(&self) -> String {
        self.state.key().public_pem().to_owned()
    }

    /// The id of the key that signs: the `kid` of new tokens.
    pub fn key_id(&self) -> String {
        self.state.key().kid().to_owned()
    }

    /// Signs with a new key from now on. The old one stays in the key set.
    ///
    /// # Errors
    /// When no key could be made.
    pub async fn rotate_key(&self) -> io::Result<()> {
        let key = tokio::task::spawn_blocking(Key::generate).await.map_err(io::Error::other)??;
        let mut keys = self.state.keys();
        keys.truncate(KEYS_MAX.saturating_sub(1));
        keys.insert(0, key);
        Ok(())
    }

    /// Takes every key back but the one that signs.
    pub fn take_old_keys_back(&self) {
        self.state.keys().truncate(1);
    }

    /// What requests for the key set get from now on.
    pub fn set_key_set(&self, key_set: KeySet) {
        *self.state.key_set.lock().unwrap_or_else(PoisonError::into_inner) = key_set;
    }

    /// A good session token of `user_id`, minted at `now_s` (seconds since the Unix epoch).
    pub fn mint(&self, user_id: &str, now_s: u64) -> String {
        self.mint_with(Claims::new(user_id, now_s))
    }

    /// A token with these claims.
    pub fn mint_with(&self, claims: Claims) -> String {
        self.state.mint(claims)
    }

    /// How often the key set was fetched.
    pub fn jwks_fetches(&self) -> u64 {
        self.state.jwks_fetches.load(Ordering::SeqCst)
    }
}

/// The user id of a named test user: `alice` is `user_local_alice`. None unless the name is 1 to 40 of `a-z`, `0-9`,
/// `_` and `-`.
pub fn user_id(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let good = (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.chars().all(plain);
    good.then(|| format!("user_local_{name}"))
}

/// Why `GET /mint` refuses.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, code, message: message.into() }
    }

    fn answer(self) -> Answer {
        let error = json!({"message": self.message, "long_message": self.message, "code": self.code});
        let body = json!({"errors": [error]}).to_string();
        Answer::Http(response(self.status, "application/json", body))
    }
}

impl State {
    fn keys(&self) -> MutexGuard<'_, Vec<Arc<Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that signs.
    fn key(&self) -> Arc<Key> {
        #[expect(
            clippy::expect_used,
            reason = "one is put in at the start, and the first is never taken out"
        )]
        let key = self.keys().first().cloned().expect("there is a key");
        key
    }

    /// One request for the key set; it is counted, whatever it gets.
    async fn key_set(&self) -> Answer {
        self.jwks_fetches.fetch_add(1, Ordering::SeqCst);
        let key_set = *self.key_set.lock().unwrap_or_else(PoisonError::into_inner);
        match key_set {
            KeySet::Served => {}
            KeySet::Late(by) => tokio::time::sleep(by).await,
            KeySet::Refused(status) => {
                let message = "the key set is not to be had".to_owned();
                return Refusal { status, code: "internal_clerk_error", message }.answer();
            }
            KeySet::HungUp => return Answer::HangUp,
            KeySet::Silent => std::future::pending().await,
        }
        let keys: Vec<_> = self.keys().iter().map(|key| key.jwk()).collect();
        Answer::Http(response(StatusCode::OK, "application/json", json!({ "keys": keys }).to_string()))
    }

    fn mint(&self, claims: Claims) -> String {
        claims.sign(&self.key(), &self.issuer, &self.authorized_party, self.lifetime_s)
    }

    /// A token for `user=<name>` and, if given, `lifetime_s=<seconds>` and `plan=<plan>`.
    fn mint_for_query(&self, query: &str) -> Result<String, Refusal> {
        let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(|_| {
            Refusal::invalid("form_param_format_invalid", "the query is not a list of fields")
        })?;
        let mut user = None;
        let mut lifetime_s = self.lifetime_s;
        let mut plan = None;
        for (name, value) in fields {
            match name.as_str() {
                "user" => {
                    user = Some(user_id(&value).ok_or_else(|| {
                        Refusal::invalid(
                            "form_param_format_invalid",
                            "user must be 1 to 40 of a-z, 0-9, _ and -",
                        )
                    })?);
                }
                "lifetime_s" => {
                    lifetime_s = value
                        .parse()
                        .ok()
                        .filter(|seconds| (1..=LIFETIME_S_MAX).contains(seconds))
                        .ok_or_else(|| {
                            Refusal::invalid("form_param_value_invalid", "lifetime_s must be 1 to 86400")
                        })?;
                }
                "plan" => plan = Some(value),
                _ => {
                    return Err(Refusal::invalid(
                        "form_param_unknown",
                        format!("{name} is not a valid parameter"),
                    ));
                }
            }
        }
        let Some(user) = user else {
            return Err(Refusal::invalid("form_param_missing", "user must be included"));
        };
        let claims = Claims::new(user, (self.clock)()).lifetime_s(lifetime_s);
        Ok(self.mint(match plan {
            Some(plan) => claims.plan(&plan),
            None => claims,
        }))
    }
}

impl Service for State {
    async fn answer(self: Arc<Self>, request: Request<Payload>) -> Answer {
        let path = request.uri().path();
        let answer = match path {
            "/.well-known/jwks.json" | "/mint" if request.method() != Method::GET => Err(Refusal {
                status: StatusCode::METHOD_NOT_ALLOWED,
                code: "method_not_allowed",
                message: format!("{} is not allowed here", request.method()),
            }),
            "/.well-known/jwks.json" => return self.key_set().await,
            "/mint" => self.mint_for_query(request.uri().query().unwrap_or_default()),
            _ => Err(Refusal {
                status: StatusCode::NOT_FOUND,
                code: "resource_not_found",
                message: "not found".to_owned(),
            }),
        };
        match answer {
            Ok(token) => Answer::Http(response(StatusCode::OK, "text/plain; charset=utf-8", token)),
            Err(refusal) => refusal.answer(),
        }
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
