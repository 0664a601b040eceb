//! Stripe's v2 API: JSON both ways, a version header in every request. One request at a time, never repeated.
//!
//! It has a client of its own because async-stripe speaks v1 only. The client is built when it is first used: most functions
//! never use it.

use crate::client::{Secret, Stripe, fresh_key};
use crate::failure::{Answer, Failure};
use reqwest::Method;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use stripe_client_core::StripeMethod;
use stripe_shared::version::VERSION;

/// Where Stripe is unless the settings say otherwise.
const BASE_URL: &str = "https://api.stripe.com/";
/// The most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What the v2 API needs of the settings.
#[derive(Debug)]
pub(crate) struct V2 {
    /// Ends with a slash.
    base_url: String,
    key: Secret,
    client: OnceLock<reqwest::Client>,
}

/// An error answer.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: Option<String>,
    message: Option<String>,
}

impl V2 {
    pub(crate) fn new(base_url: Option<String>, key: Secret) -> Self {
        Self { base_url: base_url.unwrap_or_else(|| BASE_URL.into()), key, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&reqwest::Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = build()?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl Stripe {
    /// Makes one request, once. `path` begins with `/v2/` and has its query.
    pub(crate) async fn call_v2<T: DeserializeOwned>(
        &self,
        method: StripeMethod,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let body = body.map(Value::to_string);
        let exchange = self.exchange_v2(method, path, body);
        let (status, answer) = tokio::time::timeout(self.timeout, exchange)
            .await
            .map_err(|_| Failure::Lost("no answer in time".into()))??;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&answer)
                .map_err(|error| Failure::Lost(format!("an answer that cannot be read: {error}")));
        }
        let error = serde_json::from_slice::<ErrorBody>(&answer)
            .map_err(|_| Failure::Lost(format!("HTTP {status} with what is no error of Stripe's")))?
            .error;
        Err(Failure::Answered(Answer::of_v2(status, error.code, error.message.as_deref())))
    }

    async fn exchange_v2(
        &self,
        method: StripeMethod,
        path: &str,
        body: Option<String>,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let key = match method {
            StripeMethod::Get => None,
            StripeMethod::Post | StripeMethod::Delete => Some(fresh_key()?),
        };
        let method = match method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        #[cfg(feature = "testing")]
        if let Some(memory) = &self.memory {
            let key = key.as_ref().map(stripe_client_core::IdempotencyKey::as_str);
            return in_memory(memory, &method, path, key, body).await;
        }
        let url = format!("{}{}", self.v2.base_url, path.trim_start_matches('/'));
        let mut request = self
            .v2
            .client()?
            .request(method, url)
            .bearer_auth(self.v2.key.expose())
            .header("stripe-version", VERSION.as_str());
        if let Some(key) = key {
            request = request.header("idempotency-key", key.as_str());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let mut response = request.send().await.map_err(not_answered)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(not_answered)? {
            if bytes.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(Failure::Lost("an answer without an end".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((response.status().as_u16(), bytes))
    }
}

/// Without the URL: a path holds ids, and the log has them already.
fn not_answered(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_connect() { Failure::NotSent(error.to_string()) } else { Failure::Lost(error.to_string()) }
}

/// As the client of every vendor is: the roots compiled in, no proxy, no redirect that would carry the key elsewhere.
fn build() -> Result<reqwest::Client, Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::Unusable(error.to_string());
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| unusable(&error))
}

#[cfg(feature = "testing")]
async fn in_memory(
    memory: &crate::testing::Memory,
    method: &Method,
    path: &str,
    key: Option<&str>,
    body: Option<String>,
) -> Result<(u16, Vec<u8>), Failure> {
    use crate::testing::{Reply, Request, fields};
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let version = ("stripe-version".to_owned(), VERSION.as_str().to_owned());
    let key = key.map(|key| ("idempotency-key".to_owned(), key.to_owned()));
    let request = Request {
        method: method.as_str().to_owned(),
        path: path.to_owned(),
        query: fields(query),
        headers: std::iter::once(version).chain(key).collect(),
        form: std::collections::BTreeMap::new(),
        body: body.unwrap_or_default(),
    };
    match memory.exchange(request).await {
        Reply::Answer(status, body) => Ok((status, body.into_bytes())),
        Reply::Cut => Err(Failure::Lost("connection lost".into())),
        Reply::Hang => std::future::pending().await,
    }
}
