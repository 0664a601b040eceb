//! The claims of a token whose signature is right, each read as the type that it must be. Times are whole seconds.

use crate::Rejection;
use domain::{Timestamp, UserId};
use serde_json::{Map, Value};
use std::fmt;

/// How far Clerk's clock and ours may be apart, in milliseconds: the default of Clerk's own backend.
const SKEW_MS: u64 = 5_000;

const MS_PER_S: i64 = 1_000;

/// Clerk's id of a session, `sess_...`: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// The longest accepted length, in bytes.
    pub const LENGTH_MAX: usize = 64;

    fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let fits = !text.is_empty() && text.len() <= Self::LENGTH_MAX;
        (fits && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Claims that are still to be checked, one question at a time.
pub(crate) struct Claims(pub(crate) Map<String, Value>);

impl Claims {
    /// A claim that is text; none when it is absent or of another type.
    fn text(&self, claim: &str) -> Option<&str> {
        self.0.get(claim).and_then(Value::as_str)
    }

    /// `sub`, which must be a user id.
    pub(crate) fn user(&self) -> Result<UserId, Rejection> {
        let sub = self.text("sub").ok_or(Rejection::Subject)?;
        UserId::parse(sub).map_err(|_| Rejection::Subject)
    }

    /// `aud` must not be there. We have no name as an audience, and RFC 7519 section 4.1.3 has who is not named refuse.
    pub(crate) fn no_audience(&self) -> Result<(), Rejection> {
        if self.0.contains_key("aud") { Err(Rejection::Audience) } else { Ok(()) }
    }

    /// `azp` must be one of `parties`, to the letter.
    pub(crate) fn authorized_party(&self, parties: &[String]) -> Result<(), Rejection> {
        let azp = self.text("azp").ok_or(Rejection::AuthorizedParty)?;
        if parties.iter().any(|party| party == azp) { Ok(()) } else { Err(Rejection::AuthorizedParty) }
    }

    /// `iss` must be `issuer`, to the letter.
    pub(crate) fn issuer(&self, issuer: &str) -> Result<(), Rejection> {
        if self.text("iss") == Some(issuer) { Ok(()) } else { Err(Rejection::Issuer) }
    }

    /// `exp`, which must lie ahead of `now` less the skew.
    pub(crate) fn expires_at(&self, now: Timestamp) -> Result<Timestamp, Rejection> {
        let exp = self.time("exp")?.ok_or(Rejection::Time { claim: "exp" })?;
        if exp.plus_ms(SKEW_MS) <= now { Err(Rejection::Expired) } else { Ok(exp) }
    }

    /// `nbf` and `iat`, which may be absent, must lie at or before `now` plus the skew.
    pub(crate) fn begun(&self, now: Timestamp) -> Result<(), Rejection> {
        let latest = now.plus_ms(SKEW_MS);
        if self.time("nbf")?.is_some_and(|nbf| nbf > latest) {
            return Err(Rejection::NotActiveYet);
        }
        if self.time("iat")?.is_some_and(|iat| iat > latest) {
            return Err(Rejection::IssuedInFuture);
        }
        Ok(())
    }

    /// `sts` must say that the session is active, or nothing. A status unknown to us is not active.
    pub(crate) fn active(&self) -> Result<(), Rejection> {
        match self.0.get("sts") {
            None => Ok(()),
            Some(Value::String(sts)) if sts == "active" => Ok(()),
            Some(_) => Err(Rejection::SessionPending),
        }
    }

    /// `sid`, where there is one.
    pub(crate) fn session_id(&self) -> Result<Option<SessionId>, Rejection> {
        match self.0.get("sid") {
            None => Ok(None),
            Some(sid) => sid.as_str().and_then(SessionId::parse).map(Some).ok_or(Rejection::SessionId),
        }
    }

    /// A time in whole seconds. One before 1970 is 1970: it is past either way.
    fn time(&self, claim: &'static str) -> Result<Option<Timestamp>, Rejection> {
        let Some(value) = self.0.get(claim) else { return Ok(None) };
        let s = value.as_i64().ok_or(Rejection::Time { claim })?;
        let ms = s.saturating_mul(MS_PER_S).max(0);
        Ok(Some(Timestamp::from_ms(ms.unsigned_abs())))
    }
}
