//! The HTTP client of every vendor: TLS by rustls and ring with the roots compiled in, because loading the system's costs
//! a cold start milliseconds, and because a function has no business trusting what a system or a proxy adds.

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{sync::Arc, time::Duration};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept. Shorter than what vendors keep theirs, so that a request does not run into a
/// connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The most unused connections kept for one host.
const IDLE_PER_HOST_MAX: usize = 64;
/// How often a peer that speaks HTTP/2 is asked for a sign of life while a stream is open.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to give one, before the connection counts as lost.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client. A matter of the build, never of the network.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS protocol versions and ciphers do not go together.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
    /// The parts of the client do not go together.
    #[error("the HTTP client could not be set up")]
    Http(#[source] reqwest::Error),
}

/// A client; clones share its connections. Timeouts other than for connecting are each request's own affair. Redirects are not
/// followed, because requests carry keys; proxies that the environment names are ignored.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> Result<reqwest::Client, ClientError> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http2_keep_alive_interval(ALIVE_INTERVAL)
        .http2_keep_alive_timeout(ALIVE_TIMEOUT)
        .build()
        .map_err(ClientError::Http)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_client_is_built_without_a_process_wide_provider() {
        super::client().unwrap();
    }
}
