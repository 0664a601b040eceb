//! Where a provider is, with what key, and how long it may take.

use reqwest::{Url, header::HeaderValue};
use std::fmt;

/// The longest key accepted, in bytes.
const API_KEY_BYTES_MAX: usize = 512;

/// A provider.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its API begins, as its own clients take it: `https://api.openai.com/v1`.
    pub base_url: BaseUrl,
    /// The key that is sent as a bearer token; none for a provider that takes none.
    pub api_key: Option<ApiKey>,
    /// How long to wait for it.
    pub timeouts: Timeouts,
}

/// How long a call may stand still. How long it may take as a whole is the caller's to say, and how long a connection
/// may take to open is the HTTP client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the call to the first text (or the first reasoning, where a provider shows it), in milliseconds; the head of
    /// the answer is part of it.
    pub first_token_ms: u64,
    /// From one chunk to the next after that, in milliseconds. A comment is not a chunk: it shows that the connection
    /// lives, not that the answer grows.
    pub idle_ms: u64,
}

/// The URL of a provider's API, `http` or `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    completions: Url,
}

/// A text that is not the base of an API. Does not repeat it: it may have credentials in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https URL without credentials, query and fragment")]
pub struct InvalidBaseUrl;

impl BaseUrl {
    /// Reads a base URL, with or without a slash at its end.
    ///
    /// # Errors
    /// When it is not an `http` or `https` URL, or has credentials, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, InvalidBaseUrl> {
        let mut url: Url = text.parse().map_err(|_| InvalidBaseUrl)?;
        let web = matches!(url.scheme(), "http" | "https");
        let credentials = !url.username().is_empty() || url.password().is_some();
        if !web || credentials || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidBaseUrl);
        }
        url.path_segments_mut().map_err(|()| InvalidBaseUrl)?.pop_if_empty().extend(["chat", "completions"]);
        Ok(Self { completions: url })
    }

    pub(crate) fn completions(&self) -> Url {
        self.completions.clone()
    }
}

/// A provider's key. Prints as `redacted`.
#[derive(Clone)]
pub struct ApiKey {
    authorization: HeaderValue,
}

/// A text that cannot be a key. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: it must be 1 to {API_KEY_BYTES_MAX} visible ASCII characters")]
pub struct InvalidApiKey;

impl ApiKey {
    /// Reads a key.
    ///
    /// # Errors
    /// When it is empty, longer than 512 bytes, or has a character that is not visible ASCII, such as a line break
    /// that was copied with it.
    pub fn parse(text: &str) -> Result<Self, InvalidApiKey> {
        let fits = !text.is_empty() && text.len() <= API_KEY_BYTES_MAX;
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidApiKey);
        }
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| InvalidApiKey)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization })
    }

    pub(crate) fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_takes_its_slash_or_not() {
        for base in ["https://api.example.com/v1", "https://api.example.com/v1/"] {
            let url = BaseUrl::parse(base).unwrap().completions();
            assert_eq!(url.as_str(), "https://api.example.com/v1/chat/completions");
        }
        let url = BaseUrl::parse("http://127.0.0.1:9000").unwrap().completions();
        assert_eq!(url.as_str(), "http://127.0.0.1:9000/chat/completions");
    }

    #[test]
    fn a_base_url_holds_nothing_that_would_be_lost_or_leak() {
        for bad in [
            "",
            "v1",
            "ftp://a/",
            "data:x",
            "https://u:p@a/v1",
            "https://u@a/v1",
            "https://a/?k=1",
            "https://a/#x",
        ] {
            assert_eq!(BaseUrl::parse(bad), Err(InvalidBaseUrl), "{bad}");
        }
    }

    #[test]
    fn a_key_never_prints() {
        let key = ApiKey::parse("sk-secret").unwrap();
        let settings = Settings {
            base_url: BaseUrl::parse("https://a/v1").unwrap(),
            api_key: Some(key.clone()),
            timeouts: Timeouts { first_token_ms: 1, idle_ms: 1 },
        };
        for printed in [format!("{key:?}"), format!("{settings:?}"), format!("{:?}", key.authorization())] {
            assert!(!printed.contains("secret"), "{printed}");
        }
        for bad in ["", "sk-secret\n", "sk secret", "sk-é", &"k".repeat(513)] {
            assert!(ApiKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
