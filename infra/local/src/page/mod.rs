//! The page that a person looks at, on the API's own origin: its files, and who may try it.
//!
//! Owns every path that is not the API's. Only the local cloud has it: no function knows of it, and on AWS a frontend is
//! served from where its owner likes. Must never answer a path under `/v1/`.

mod files;
mod visitors;

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use visitors::{Billing, Parts as VisitorParts, Visitors};

/// Where the API is.
const API: &str = "/v1/";
/// Who may be signed in.
const PEOPLE: &str = "/local/people";
/// Signs one of them in.
const SIGN_IN: &str = "/local/sign-in";
/// The largest body of a request to sign in, in bytes.
const SIGN_IN_BYTES_MAX: usize = 1_024;
/// Scripts, styles and calls of this origin, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page. Clones share what was set up for its visitors.
#[derive(Debug, Clone)]
pub struct Page {
    directory: PathBuf,
    /// `http://host:port`, as a browser writes it.
    origin: String,
    /// Nobody with the real Clerk.
    visitors: Option<Visitors>,
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
    /// Whether somebody has just chosen the user, and not a token been renewed.
    #[serde(default)]
    anew: bool,
}

impl Page {
    /// The page whose built files are in `directory`, or will be: they are looked for with every request.
    pub(crate) fn new(directory: PathBuf, origin: String, visitors: Option<Visitors>) -> Self {
        Self { directory, origin, visitors }
    }

    /// The answer, unless the path is the API's.
    pub(crate) async fn answer<B>(&self, parts: &Parts, body: B) -> Option<Response<Full<Bytes>>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = parts.uri.path();
        if path == "/v1" || path.starts_with(API) {
            return None;
        }
        let mut answer = match (path, &parts.method) {
            _ if !self.is_own(&parts.headers) => plain(StatusCode::MISDIRECTED_REQUEST, "Not this host.\n"),
            (PEOPLE, &Method::GET) => self.people(),
            (SIGN_IN, &Method::POST) => match Limited::new(body, SIGN_IN_BYTES_MAX).collect().await {
                Ok(body) => self.sign_in(&parts.headers, &body.to_bytes()).await,
                Err(_) => plain(StatusCode::PAYLOAD_TOO_LARGE, "Too large.\n"),
            },
            (PEOPLE | SIGN_IN, _) => plain(StatusCode::METHOD_NOT_ALLOWED, "Not by this method.\n"),
            (_, &Method::GET | &Method::HEAD) => files::answer(&self.directory, path).await,
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "Not by this method.\n"),
        };
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // The page is built again while one works on it; what a browser kept would be the page of before.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(answer)
    }

    /// Whether the browser asked for this host: a name that somebody else made point here is not it, so that no page of
    /// theirs can sign in.
    fn is_own(&self, headers: &HeaderMap) -> bool {
        let Some(port) = self.origin.rsplit(':').next() else { return false };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.and_then(|host| host.strip_suffix(port))
            .is_some_and(|host| matches!(host, "127.0.0.1:" | "localhost:"))
    }

    fn people(&self) -> Response<Full<Bytes>> {
        match &self.visitors {
            Some(_) => json(StatusCode::OK, &Visitors::people()),
            None => {
                json(StatusCode::NOT_FOUND, &json!({ "error": "This cloud signs in with the real Clerk." }))
            }
        }
    }

    async fn sign_in(&self, headers: &HeaderMap, body: &[u8]) -> Response<Full<Bytes>> {
        let cross_site = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin");
        if cross_site || headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
            return plain(StatusCode::FORBIDDEN, "Only the page itself signs in, with JSON.\n");
        }
        let (Some(visitors), Ok(SignIn { user, anew })) = (&self.visitors, serde_json::from_slice(body))
        else {
            return json(
                StatusCode::UNPROCESSABLE_ENTITY,
                &json!({ "error": "Send {\"user\": \"alice\"}." }),
            );
        };
        match visitors.sign_in(&user, anew).await {
            Ok(token) => json(StatusCode::OK, &token),
            Err(error) => {
                tracing::warn!(%error, "a test user could not be signed in");
                json(error.status(), &json!({ "error": error.to_string() }))
            }
        }
    }
}

fn json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    whole(status, "application/json", Bytes::from(body.to_string()))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    whole(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const HOST: &str = "127.0.0.1:8787";

    fn page(directory: &std::path::Path) -> Page {
        Page::new(directory.to_owned(), format!("http://{HOST}"), None)
    }

    async fn ask(directory: &std::path::Path, method: &str, path: &str, host: &str) -> Option<(u16, String)> {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let (parts, body) = request.body(Full::new(Bytes::new())).unwrap().into_parts();
        let answer = page(directory).answer(&parts, body).await?;
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn status(directory: &std::path::Path, path: &str) -> u16 {
        ask(directory, "GET", path, HOST).await.unwrap().0
    }

    #[tokio::test]
    async fn without_a_build_the_page_says_how_to_make_it() {
        let empty = tempfile::tempdir().unwrap();
        let (status, text) = ask(empty.path(), "GET", "/", HOST).await.unwrap();
        assert_eq!(status, 200);
        assert!(text.contains("npm ci") && text.contains("npm run build"), "{text}");
    }

    #[tokio::test]
    async fn files_of_the_build_are_served_and_no_others() {
        let outside = tempfile::tempdir().unwrap();
        let build = outside.path().join("dist");
        std::fs::create_dir_all(build.join("assets")).unwrap();
        std::fs::write(build.join("index.html"), "<p>hello").unwrap();
        std::fs::write(build.join("assets/a-1.js"), "1").unwrap();
        std::fs::write(build.join(".env"), "secret").unwrap();
        std::fs::write(build.join("notes.exe"), "no such type").unwrap();
        std::fs::write(outside.path().join("secret.js"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.js"), build.join("link.js")).unwrap();

        assert_eq!(ask(&build, "GET", "/", HOST).await, Some((200, "<p>hello".to_owned())));
        assert_eq!(status(&build, "/assets/a-1.js").await, 200);
        for path in [
            "/assets",
            "/assets/",
            "/nothing.js",
            "/.env",
            "/notes.exe",
            "/link.js",
            "/../secret.js",
            "/assets/../../secret.js",
            "/%2e%2e/secret.js",
            "/..%2fsecret.js",
            "//secret.js",
            "/assets//a-1.js",
            "/a\\secret.js",
            "/dist/..\\..\\secret.js",
        ] {
            if path.parse::<http::Uri>().is_ok() {
                assert_eq!(status(&build, path).await, 404, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn the_api_is_not_the_pages_and_other_hosts_and_methods_are_refused() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(ask(empty.path(), "GET", "/v1/anything", HOST).await, None);
        assert_eq!(ask(empty.path(), "GET", "/v1", HOST).await, None);
        assert_eq!(ask(empty.path(), "GET", "/", "evil.example:8787").await.unwrap().0, 421);
        assert_eq!(ask(empty.path(), "GET", "/", "localhost:8787").await.unwrap().0, 200);
        assert_eq!(ask(empty.path(), "DELETE", "/", HOST).await.unwrap().0, 405);
        assert_eq!(ask(empty.path(), "GET", SIGN_IN, HOST).await.unwrap().0, 405);
        assert_eq!(ask(empty.path(), "POST", SIGN_IN, HOST).await.unwrap().0, 403);
        assert_eq!(ask(empty.path(), "GET", PEOPLE, HOST).await.unwrap().0, 404);
    }
}
