//! What a handler reads from a request beside its body.

use ::http::{HeaderMap, HeaderValue, Request, header};
use domain::Timestamp;
use lambda_http::RequestExt;

/// The path as the client wrote it, without a stage.
pub fn path<B>(request: &Request<B>) -> &str {
    // Before a custom domain the event's path is the resource's own; the URI's may begin with the stage.
    match request.raw_http_path() {
        "" => request.uri().path(),
        raw => raw,
    }
}

/// The cookie in which Clerk's frontend keeps the session token.
const SESSION_COOKIE: &[u8] = b"__session";
/// The most bytes of cookies that are looked through: what the gateway takes of headers in all.
const COOKIE_BYTES_MAX: usize = 10_240;
const SEC_FETCH_SITE: header::HeaderName = header::HeaderName::from_static("sec-fetch-site");

/// A request that sends two tokens, or more cookies than are looked through: two readers may disagree on whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousToken;

/// The session token that a request brings: that of `authorization: Bearer <token>`; without such a header, the cookie
/// `__session`, if the browser says that a page of this very origin sends it. Any page can make a browser send a cookie,
/// but no page can make it say that.
///
/// # Errors
/// When it is not clear which token is meant.
pub fn session_token(headers: &HeaderMap) -> Result<Option<&str>, AmbiguousToken> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Ok(only(headers, &header::AUTHORIZATION)?.and_then(bearer));
    }
    match only(headers, &SEC_FETCH_SITE) {
        Ok(Some(site)) if site == "same-origin" => session_cookie(headers),
        Ok(_) | Err(AmbiguousToken) => Ok(None),
    }
}

/// A header that may be there once.
fn only<'h>(
    headers: &'h HeaderMap,
    name: &header::HeaderName,
) -> Result<Option<&'h HeaderValue>, AmbiguousToken> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(AmbiguousToken) } else { Ok(first) }
}

fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// The one cookie of that name. A second may be another's: a neighbouring domain can set cookies for this one.
fn session_cookie(headers: &HeaderMap) -> Result<Option<&str>, AmbiguousToken> {
    let lines = || headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    if lines().map(<[u8]>::len).fold(0, usize::saturating_add) > COOKIE_BYTES_MAX {
        return Err(AmbiguousToken);
    }
    let mut found = lines().flat_map(|line| line.split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(SESSION_COOKIE.len())?;
        (name == SESSION_COOKIE).then(|| value.strip_prefix(b"="))?
    });
    let first = found.next();
    if found.next().is_some() {
        return Err(AmbiguousToken);
    }
    // What is not text is no token either.
    Ok(first.and_then(|value| str::from_utf8(value).ok()).filter(|value| !value.is_empty()))
}

/// The instant at which Lambda kills the invocation; none outside of Lambda.
pub fn deadline<B>(request: &Request<B>) -> Option<Timestamp> {
    request.lambda_context_ref().map(|context| Timestamp::from_ms(context.deadline))
}

/// Lambda's id of the invocation, for logs; empty outside of Lambda.
pub fn invocation_id<B>(request: &Request<B>) -> &str {
    request.lambda_context_ref().map_or("", |context| context.request_id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Result<Option<&'static str>, AmbiguousToken>;

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], expect: Found) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        assert_eq!(session_token(&headers), expect, "{headers:?}");
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        check(&[("authorization", "Bearer abc")], Ok(Some("abc")));
        check(&[("authorization", "bearer  abc ")], Ok(Some("abc")));
        check(&[("authorization", "Basic abc")], Ok(None));
        check(&[("authorization", "Bearer")], Ok(None));
        check(&[("authorization", "Bearer ")], Ok(None));
        check(&[("authorization", "Bearer abc"), ("authorization", "Bearer abc")], Err(AmbiguousToken));
        check(&[], Ok(None));
    }

    #[test]
    fn a_cookie_counts_only_for_a_page_of_this_origin() {
        let cookie = ("cookie", "__session=abc");
        check(&[cookie, ("sec-fetch-site", "same-origin")], Ok(Some("abc")));
        for site in ["same-site", "cross-site", "none", "", "Same-Origin", "same-origin, cross-site"] {
            check(&[cookie, ("sec-fetch-site", site)], Ok(None));
        }
        check(&[cookie], Ok(None));
        check(&[cookie, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], Ok(None));
        check(&[cookie, ("origin", "https://app.test")], Ok(None));
    }

    #[test]
    fn an_authorization_header_of_any_kind_leaves_the_cookie_unread() {
        let with = |authorization, expect| {
            let headers = [
                ("cookie", "__session=abc"),
                ("sec-fetch-site", "same-origin"),
                ("authorization", authorization),
            ];
            check(&headers, expect);
        };
        with("Bearer xyz", Ok(Some("xyz")));
        with("Bearer ", Ok(None));
        with("Basic dTpw", Ok(None));
        with("", Ok(None));
    }

    #[test]
    fn one_session_cookie_is_found_among_others_and_two_are_refused() {
        let with = |cookies: &[&str], expect: Found| {
            let mut headers = vec![("sec-fetch-site", "same-origin")];
            headers.extend(cookies.iter().map(|cookies| ("cookie", *cookies)));
            check(&headers, expect);
        };
        with(&["a=1; __session=abc; b=2"], Ok(Some("abc")));
        with(&["a=1;__session=abc;b"], Ok(Some("abc")));
        with(&["a=1", "__session=abc"], Ok(Some("abc")));
        with(&["__session=a=b"], Ok(Some("a=b")));
        with(&["__session=\"abc\""], Ok(Some("\"abc\"")));
        for none in [
            "",
            ";",
            "__session",
            "__session=",
            "__session =abc",
            "__session_x=abc",
            "__Session=abc",
            "x__session=abc",
            "a=__session=abc",
            "a=\u{fc}",
        ] {
            with(&[none], Ok(None));
        }
        with(&["__session=\u{fc}"], Ok(Some("\u{fc}")));
        for two in
            ["__session=abc; __session=abc", "__session=abc; __session=", "__session=; a=1; __session=abc"]
        {
            with(&[two], Err(AmbiguousToken));
        }
        with(&["__session=abc", "__session=xyz"], Err(AmbiguousToken));
    }

    #[test]
    fn i8_cookies_beyond_the_bound_are_not_looked_through() {
        let session = "; __session=abc";
        let room = COOKIE_BYTES_MAX - session.len();
        for (padding, expect) in [(room, Ok(Some("abc"))), (room + 1, Err(AmbiguousToken))] {
            let cookies = format!("{}{session}", "a".repeat(padding));
            check(&[("sec-fetch-site", "same-origin"), ("cookie", &cookies)], expect);
        }
    }
}
