//! Cross-origin answers. A browser may call from the origins that are listed, letter by letter, and from no other. The gateway answers no preflight itself, since it could name one origin only.

use ::http::{HeaderMap, HeaderValue, Response, StatusCode, header};

/// Request headers that a browser may send: what the AI SDK's hooks send, and what this API reads.
const ALLOW_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, user-agent, idempotency-key, x-inkmeter-protocol");
/// Answer headers that a script may read.
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "retry-after, ratelimit, ratelimit-policy, www-authenticate, idempotency-replayed, \
     x-vercel-ai-ui-message-stream, x-vercel-ai-data-stream",
);
/// Seconds for which a browser may keep a preflight's answer.
const PREFLIGHT_MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

/// The origins that may call.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// These origins, each as a browser writes it: scheme, host and port, no slash at the end.
    ///
    /// # Errors
    /// The first entry that is no origin, `*` included: an answer concerns one user.
    pub fn new(origins: &[String]) -> Result<Self, String> {
        let parse = |origin: &String| {
            let url: Option<reqwest::Url> = origin.parse().ok();
            url.filter(|url| url.origin().ascii_serialization() == *origin)
                .and_then(|_| HeaderValue::from_str(origin).ok())
                .ok_or_else(|| format!("{origin:?} is not an origin such as https://app.example.com"))
        };
        Ok(Self { origins: origins.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// The answer to a preflight: 204, with leave to call by `methods` for an origin that is listed.
    pub fn preflight<B: Default>(&self, request: &HeaderMap, methods: &'static str) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if self.origin(request).is_some() {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_S);
        }
        self.apply(request, response.headers_mut());
        response
    }

    /// Adds to an answer what lets a script of a listed origin read it.
    pub fn apply(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        response.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.origin(request) {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
        }
    }

    /// Whether an address lies on a page of a listed origin, so that a browser may be sent there. It has to begin with the
    /// origin, letter by letter, and to have nothing in it that two readers could read differently.
    pub fn lists(&self, url: &str) -> bool {
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let is_below = |origin: &HeaderValue| {
            let rest = origin.to_str().ok().and_then(|origin| url.strip_prefix(origin));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
        };
        is_plain && self.origins.iter().any(is_below)
    }

    fn origin(&self, request: &HeaderMap) -> Option<&HeaderValue> {
        let origin = request.get(header::ORIGIN)?;
        self.origins.iter().find(|listed| *listed == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))])
    }

    #[test]
    fn only_a_listed_origin_is_let_in() {
        let cors = Cors::new(&["https://app.test".to_owned()]).unwrap();
        let yes: Response<String> = cors.preflight(&from("https://app.test"), "POST");
        assert_eq!(yes.status(), StatusCode::NO_CONTENT);
        assert_eq!(yes.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.test");
        assert_eq!(yes.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "POST");
        assert_eq!(
            yes.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS],
            "authorization, content-type, user-agent, idempotency-key, x-inkmeter-protocol"
        );
        assert_eq!(
            yes.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS],
            "retry-after, ratelimit, ratelimit-policy, www-authenticate, idempotency-replayed, \
             x-vercel-ai-ui-message-stream, x-vercel-ai-data-stream"
        );
        for other in ["https://app.test.evil.test", "http://app.test", "null"] {
            let no: Response<String> = cors.preflight(&from(other), "POST");
            assert!(no.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none(), "{other}");
            assert_eq!(no.headers()[header::VARY], "origin");
        }
        let closed: Response<String> = Cors::default().preflight(&from("https://app.test"), "POST");
        assert!(closed.headers().is_empty());
    }

    #[test]
    fn only_an_address_of_a_listed_origin_is_gone_to() {
        let cors = Cors::new(&["https://app.test".to_owned(), "http://127.0.0.1:8787".to_owned()]).unwrap();
        for good in [
            "https://app.test",
            "https://app.test/",
            "https://app.test/done?session={CHECKOUT_SESSION_ID}#top",
            "https://app.test?done",
            "http://127.0.0.1:8787/a",
        ] {
            assert!(cors.lists(good), "{good}");
        }
        for bad in [
            "",
            "/done",
            "http://app.test/",
            "https://app.test.evil.test/",
            "https://app.test@evil.test/",
            "https://app.test:8443/",
            "https://app.test\\@evil.test/",
            "https://app.test/\\evil.test",
            "https://APP.test/",
            "https://app.test/a b",
            "https://app.test/\n",
            "https://app.test/ü",
            "http://127.0.0.1:87871/",
            "javascript:alert(1)",
        ] {
            assert!(!cors.lists(bad), "{bad}");
        }
        assert!(!Cors::default().lists("https://app.test/"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in ["*", "https://app.test/", "app.test", "https://APP.test"] {
            assert!(Cors::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
