//! Session tokens, version 2, as Clerk mints them, and every way to spoil one. It owns the claims' shapes; the
//! signature is the [`Key`](super::key::Key)'s and always valid: a test that wants a forged one changes the text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::key::Key;

/// The `cat` header of a session token, which tells it from Clerk's other tokens.
const SESSION_CATEGORY: &str = "cl_B7d4PD111AAA";
/// Clerk dates `nbf` this many seconds before `iat`.
const NOT_BEFORE_SLACK_S: u64 = 10;

/// The claims of one token: a good one, until something is changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    user_id: String,
    now_s: u64,
    lifetime_s: Option<u64>,
    header_changes: Map<String, Value>,
    changes: Map<String, Value>,
    without: Vec<String>,
}

impl Claims {
    /// The claims of `user_id`, minted at `now_s` (seconds since the Unix epoch).
    pub fn new(user_id: impl Into<String>, now_s: u64) -> Self {
        Self {
            user_id: user_id.into(),
            now_s,
            lifetime_s: None,
            header_changes: Map::new(),
            changes: Map::new(),
            without: Vec::new(),
        }
    }

    /// Seconds from `iat` to `exp`, instead of the stand-in's default.
    #[must_use]
    pub fn lifetime_s(mut self, seconds: u64) -> Self {
        self.lifetime_s = Some(seconds);
        self
    }

    /// The plan, as in Clerk's billing: `pla` becomes `u:<plan>`.
    #[must_use]
    pub fn plan(self, plan: &str) -> Self {
        self.claim("pla", format!("u:{plan}"))
    }

    /// Sets a claim to any value, right or wrong.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.changes.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// Sets a header field (`alg`, `kid`, `typ`, `cat`) to any value; null leaves it out. The signature stays RS256.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header_changes.insert(name.to_owned(), value.into());
        self
    }

    /// The token.
    pub(super) fn sign(self, key: &Key, issuer: &str, authorized_party: &str, lifetime_s: u64) -> String {
        let mut header = json!({"alg": "RS256", "cat": SESSION_CATEGORY, "kid": key.kid(), "typ": "JWT"});
        let mut claims = json!({
            "azp": authorized_party,
            "exp": self.now_s.saturating_add(self.lifetime_s.unwrap_or(lifetime_s)),
            "fea": "u:generate",
            "fva": [0, -1],
            "iat": self.now_s,
            "iss": issuer,
            "nbf": self.now_s.saturating_sub(NOT_BEFORE_SLACK_S),
            "pla": "u:free",
            "sid": format!("sess_{}", self.user_id.trim_start_matches("user_")),
            "sts": "active",
            "sub": self.user_id,
            "v": 2,
        });
        if let Some(header) = header.as_object_mut() {
            header.extend(self.header_changes);
            header.retain(|_, value| !value.is_null());
        }
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(self.changes);
            claims.retain(|name, _| !self.without.contains(name));
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = key.sign(&message);
        format!("{message}.{signature}")
    }
}
