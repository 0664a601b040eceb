//! Which path is what. Knows nothing of what is done there.

use percent_encoding::percent_decode_str;

const GENERATE: &str = "/v1/generate";
const QUOTE: &str = "/v1/quote";
const STREAM: &str = "stream";
const STOP: &str = "stop";

/// A path of this function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v1/generate`
    Generate,
    /// `/v1/generate/{id}/stream`
    Stream(String),
    /// `/v1/generate/{id}/stop`
    Stop(String),
    /// `/v1/quote`
    Quote,
}

impl Route {
    /// The one of this path, percent-encoded as clients write it.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            GENERATE => return Some(Self::Generate),
            QUOTE => return Some(Self::Quote),
            _ => {}
        }
        let (id, action) = path.strip_prefix(GENERATE)?.strip_prefix('/')?.split_once('/')?;
        let id = percent_decode_str(id).decode_utf8().ok().filter(|id| !id.is_empty())?.into_owned();
        match action {
            STREAM => Some(Self::Stream(id)),
            STOP => Some(Self::Stop(id)),
            _ => None,
        }
    }

    /// The methods that it takes, as in the header `allow`.
    pub(crate) const fn methods(&self) -> &'static str {
        match self {
            Self::Generate | Self::Stop(_) | Self::Quote => "POST, OPTIONS",
            Self::Stream(_) => "GET, OPTIONS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_route_or_nothing() {
        assert_eq!(Route::of("/v1/generate"), Some(Route::Generate));
        assert_eq!(Route::of("/v1/quote"), Some(Route::Quote));
        assert_eq!(Route::of("/v1/generate/a%2Fb%20/stream"), Some(Route::Stream("a/b ".to_owned())));
        assert_eq!(Route::of("/v1/generate/x/stop"), Some(Route::Stop("x".to_owned())));
        for nothing in [
            "",
            "/",
            "/v1/generate/",
            "/v1/generate/x",
            "/v1/generate//stop",
            "/v1/generate/%FF/stop",
            "/v1/generate/a/b/stop",
            "/v1/generate/x/stop/",
            "/v1/generatex/stop",
            "/v1/quote/",
        ] {
            assert_eq!(Route::of(nothing), None, "{nothing}");
        }
    }
}
