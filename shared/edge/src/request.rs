//! What a handler reads from a request beside its body.

use ::http::{HeaderMap, Request, header};
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

/// The token of `authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
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

    #[track_caller]
    fn check(value: &'static str, expect: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        assert_eq!(bearer(&headers), expect);
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer", None);
        check("Bearer ", None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
