//! URLs that a caller gives: where customers are sent and where events go.
//!
//! Owns what counts as a URL. It opens none.

use super::error::ApiError;

/// Longest URL, in characters.
const MAX_URL_CHARS: usize = 5_000;

/// Which URLs will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `http` or `https`: for browsers, in test mode.
    Any,
    /// `https`, or `http` on this machine's loopback interface, because the stand-in is local.
    SecureOrLoopback,
}

/// Checks a URL; it is kept as it was written.
pub(super) fn parse(url: &str, param: &str, scheme: Scheme) -> Result<String, ApiError> {
    let parsed =
        reqwest::Url::parse(&url.replace(['{', '}'], "_")).map_err(|_| ApiError::not_a_url(param))?;
    let host = parsed.host_str().unwrap_or_default();
    let web = matches!(parsed.scheme(), "http" | "https") && !host.is_empty();
    if !web || url.chars().count() > MAX_URL_CHARS || !parsed.username().is_empty() {
        return Err(ApiError::not_a_url(param));
    }
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    if scheme == Scheme::SecureOrLoopback && parsed.scheme() != "https" && !local {
        let message = "Invalid URL: URLs must begin with https:// (or be on the loopback interface, as this is a local \
                       stand-in).";
        return Err(ApiError::invalid(param, message));
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_urls_of_the_web_will_do() {
        let fits = |url: &str, scheme| parse(url, "url", scheme).is_ok();
        assert!(fits("https://a.example/done?id={CHECKOUT_SESSION_ID}", Scheme::Any));
        assert!(fits("http://localhost:3000/", Scheme::Any));
        for url in [
            "/done",
            "a.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://user@a.example/",
            "http:",
        ] {
            assert!(!fits(url, Scheme::Any), "{url}");
        }
        assert!(fits("http://127.0.0.1:1/hook", Scheme::SecureOrLoopback));
        assert!(!fits("http://a.example/hook", Scheme::SecureOrLoopback));
        assert!(!fits("http://127.0.0.1.a.example/hook", Scheme::SecureOrLoopback));
    }
}
