//! What a request says outside of its body: in which protocol to answer, and by which key it is known when it is repeated.

use super::{invalid, options::listed};
use crate::wire::Protocol;
use edge::problem::Problem;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

const PROTOCOL: HeaderName = HeaderName::from_static("x-inkmeter-protocol");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The protocol of the answer: `query`, the value of the query parameter `protocol`, or else the header, or else the default.
///
/// # Errors
/// When what is asked for is none of [`Protocol::ALL`], or two headers ask.
pub fn protocol(query: Option<&str>, headers: &HeaderMap) -> Result<Protocol, Problem> {
    let refused = || {
        let allowed = listed(&Protocol::ALL, Protocol::as_str);
        let detail = format!(
            "The query parameter `protocol` or the header `{PROTOCOL}` must be one of {allowed}, or absent."
        );
        invalid("protocol", detail)
    };
    let name = match query {
        Some(name) => name,
        None => match only(headers, &PROTOCOL).map_err(|TwoOrMore| refused())? {
            Some(value) => value.to_str().map_err(|_| refused())?,
            None => return Ok(Protocol::default()),
        },
    };
    Protocol::parse(name).ok_or_else(refused)
}

/// The key by which a client marks the repeats of a request: 1 to 255 visible ASCII characters. Prints as its length, since it may
/// be anything of the client's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

/// A text that cannot be a key. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidIdempotencyKey;

impl fmt::Display for InvalidIdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not 1 to {} visible ASCII characters", IdempotencyKey::LENGTH_MAX)
    }
}

impl std::error::Error for InvalidIdempotencyKey {}

impl IdempotencyKey {
    /// The longest key, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Reads a key, from a path decoded already.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character that is not visible ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let fits = !text.is_empty() && text.len() <= Self::LENGTH_MAX;
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidIdempotencyKey);
        }
        Ok(Self(text.into()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({} bytes)", self.0.len())
    }
}

/// The key of a request that has one.
///
/// # Errors
/// When the header is no key, or there is more than one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let refused = || {
        let most = IdempotencyKey::LENGTH_MAX;
        let detail = format!(
            "Send one header `{IDEMPOTENCY_KEY}` of 1 to {most} visible ASCII characters, such as a random UUID, or none."
        );
        invalid("idempotency-key", detail)
    };
    let Some(value) = only(headers, &IDEMPOTENCY_KEY).map_err(|TwoOrMore| refused())? else {
        return Ok(None);
    };
    let key = value.to_str().ok().and_then(|text| IdempotencyKey::parse(text).ok());
    key.map(Some).ok_or_else(refused)
}

/// A header that may be there once is there more often.
struct TwoOrMore;

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, TwoOrMore> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(TwoOrMore),
    }
}
