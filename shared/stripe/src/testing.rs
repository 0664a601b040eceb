//! What stands where Stripe would, for tests only: a scripted HTTP peer on a loopback port, which records each request and
//! answers as it is told, and a transport in memory for tests under a virtual clock. Both can be told not to answer. Neither
//! knows anything of Stripe; the test that scripts it does.

use crate::client::Secret;
use crate::webhook::mac;
use async_stripe::StripeError;
use hmac::Mac;
use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, pending},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use stripe_client_core::{CustomizedStripeRequest, RequestStrategy, StripeClient, StripeMethod};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The most bytes of one request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query's parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The form's fields, decoded.
    pub form: BTreeMap<String, String>,
    /// The body as it came.
    pub body: String,
}

/// What the peer does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Closes the connection without a word.
    Cut,
    /// Keeps the connection open and says nothing.
    Hang,
}

/// The peer. It stops listening when it is dropped.
#[derive(Debug)]
pub struct Peer {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Peer {
    /// Listens on a free loopback port and answers every request as `answer` says.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&requests));
        #[expect(clippy::disallowed_methods, reason = "a test's peer, aborted when it is dropped")]
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A client that goes away mid-request is part of what is tested.
                    drop(serve(stream, &*answer, &seen).await);
                });
            }
        });
        Ok(Self { url, requests, accepting })
    }

    /// Where it listens, `http://127.0.0.1:<port>/`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A transport that is a function. Clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Answering>);

type Answering = dyn Fn(Request) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

impl Memory {
    /// Answers every request as `answer` says. A connection that is [`Reply::Cut`] is lost after the request was sent.
    pub fn new<F>(answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(answer(request))))
    }
}

impl Memory {
    /// One exchange, as the test answers it.
    pub(crate) async fn exchange(&self, request: Request) -> Reply {
        (self.0)(request).await
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory(..)")
    }
}

impl StripeClient for Memory {
    type Err = StripeError;

    /// What the library's own client makes of an answer, without the connection.
    async fn execute(&self, request: CustomizedStripeRequest) -> Result<bytes::Bytes, StripeError> {
        let (request, config) = request.into_pieces();
        let key = config.request_strategy.as_ref().and_then(RequestStrategy::get_key);
        let headers = key.map(|key| ("idempotency-key".to_owned(), key.as_str().to_owned()));
        let body = request.body.unwrap_or_default();
        let request = Request {
            method: match request.method {
                StripeMethod::Get => "GET".to_owned(),
                StripeMethod::Post => "POST".to_owned(),
                StripeMethod::Delete => "DELETE".to_owned(),
            },
            path: format!("/v1{}", request.path),
            query: fields(&request.query.unwrap_or_default()),
            headers: headers.into_iter().collect(),
            form: fields(&body),
            body,
        };
        let answer = (self.0)(request);
        let reply = match config.timeout {
            Some(timeout) => tokio::time::timeout(timeout, answer).await.unwrap_or(Reply::Hang),
            None => answer.await,
        };
        match (reply, config.timeout) {
            (Reply::Answer(status, body), _) if (200..300).contains(&status) => Ok(body.into()),
            (Reply::Answer(status, body), _) => Err(match miniserde::json::from_str(&body) {
                Ok(stripe_shared::Error { error }) => StripeError::Stripe(error, status),
                Err(_) => StripeError::JSONDeserialize("not an error of Stripe's".into()),
            }),
            (Reply::Cut, _) => Err(StripeError::ClientError("connection lost".into())),
            (Reply::Hang, Some(_)) => Err(StripeError::Timeout),
            (Reply::Hang, None) => pending().await,
        }
    }
}

/// The hexadecimal `v1` signature of a webhook body at a time, in seconds.
pub fn sign(body: &str, secret: &str, time_s: u64) -> String {
    let mac = mac(&time_s.to_string(), body.as_bytes(), &Secret::new(secret));
    let bytes = mac.map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&Request) -> Reply + Send + Sync),
    seen: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let request = loop {
        if let Some(request) = parse(&bytes) {
            break request;
        }
        if bytes.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let reply = answer(&request);
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    match reply {
        Reply::Cut => Ok(()),
        Reply::Hang => {
            // Until the client gives up.
            stream.read_to_end(&mut bytes).await.map(|_| ())
        }
        Reply::Answer(status, body) => {
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            stream.shutdown().await
        }
    }
}

/// The request, once all of it is there.
fn parse(bytes: &[u8]) -> Option<Request> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?, first.next()?);
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    if body.len() < length {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Request {
        method: method.into(),
        path: path.into(),
        query: fields(query),
        headers,
        form: fields(body),
        body: body.into(),
    })
}

pub(crate) fn fields(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let escaped =
            rest.get(1..3).filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, length) = match (first, escaped) {
            (_, Some(byte)) => (byte, 3),
            (b'+', None) => (b' ', 1),
            (other, None) => (other, 1),
        };
        bytes.push(byte);
        // The texts are ASCII: anything else in them is escaped.
        rest = rest.get(length..).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
