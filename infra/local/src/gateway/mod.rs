//! API Gateway's REST flavour: HTTP in, proxy events out, and a function's answer back, streamed or buffered.
//!
//! Owns routes, limits and timeouts. Like the real one it never tells a function that its client has left: it
//! goes on reading the answer to the end and discards it.

mod event;
mod response;
mod routes;

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response as HttpResponse, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use routes::{BUFFERED_TIMEOUT, Route, RouteTable, STREAM_IDLE_MAX, STREAM_TIMEOUT_MAX, Transfer};

use crate::{
    clock::{now_ms, request_id},
    net::PromptStream,
    page::Page,
    runtime::{ChunkReader, InvokeError, Invoker, Response, ResponseBody},
};
use event::{Call, proxy_event};
use response::{Head, MetadataReader, parse_buffered};

/// The largest request body, in bytes (API Gateway's quota).
pub const REQUEST_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Client connections at once; the next one waits to be accepted.
pub const CONNECTIONS_MAX: usize = 4096;
/// How many chunks wait for one slow client.
pub const CLIENT_CHUNKS_MAX: usize = 16;
/// How long a client may take to send a request's head.
pub const HEAD_READ_MAX: Duration = Duration::from_secs(30);
/// The pause after an accept that failed (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type GatewayBody = Either<Full<Bytes>, ClientBody>;
type Answer = HttpResponse<GatewayBody>;

/// What a gateway needs.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The routes.
    pub routes: RouteTable,
    /// The stage's name, part of `requestContext` as on AWS.
    pub stage: String,
    /// What is at the paths that are not the API's, if anything.
    pub page: Option<Page>,
}

/// A running gateway. Dropping it closes its listener and its connections; invocations under way go on.
pub struct Gateway {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Inner {
    options: GatewayOptions,
    functions: Invoker,
    /// Reads every answer to its end, whoever has left.
    pumps: TaskTracker,
}

impl Gateway {
    /// Serves the routes on a listener.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener, functions: Invoker, options: GatewayOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let inner = Arc::new(Inner { options, functions, pumps: tasks.clone() });
        tasks.spawn(accept(listener, inner, stop.clone()));
        Ok(Self { address, stop, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a base URL without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the listener and all connections, and waits for the answers under way. Stop the runtime first if
    /// they are not to be waited for.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(serve(Arc::clone(&inner), stream, peer));
                }
                Err(error) => {
                    tracing::warn!(%error, "the gateway cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn serve(inner: Arc<Inner>, stream: TcpStream, peer: SocketAddr) {
    let Ok(stream) = PromptStream::new(stream) else { return };
    let service = service_fn(move |request| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, Infallible>(handle(&inner, request, peer).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_READ_MAX);
    // A connection that breaks is the client's doing, or a cut that the client must see as one.
    server.serve_connection(TokioIo::new(stream), service).await.unwrap_or_default();
}

async fn handle(inner: &Inner, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let id = request_id();
    let mut answer = route(inner, request, peer, &id).await;
    for name in ["x-amzn-requestid", "x-amz-apigw-id"] {
        if let Ok(value) = HeaderValue::from_str(&id) {
            answer.headers_mut().entry(name).or_insert(value);
        }
    }
    answer
}

async fn route(inner: &Inner, request: Request<Incoming>, peer: SocketAddr, id: &str) -> Answer {
    let (parts, body) = request.into_parts();
    let Some((route, parameters)) = inner.options.routes.find(&parts.method, parts.uri.path()) else {
        if let Some(page) = &inner.options.page
            && let Some(answer) = page.answer(&parts, body).await
        {
            return answer.map(Either::Left);
        }
        return refusal(
            StatusCode::FORBIDDEN,
            "MissingAuthenticationTokenException",
            r#"{"message":"Missing Authentication Token"}"#,
        );
    };
    let body = match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = r#"{"message":"HTTP content length exceeded 10485760 bytes."}"#;
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", message);
        }
        Err(_) => {
            return refusal(StatusCode::BAD_REQUEST, "BadRequestException", r#"{"message":"Bad Request"}"#);
        }
    };
    let call = Call {
        resource: &route.resource,
        parameters: &parameters,
        stage: &inner.options.stage,
        request_id: id,
        peer,
        now_ms: now_ms(),
    };
    let event = proxy_event(&call, &parts, &body);
    let (client, answer) = oneshot::channel();
    let pump = Pump { functions: inner.functions.clone(), route: route.clone(), client };
    inner.pumps.spawn(pump.run(event));
    answer.await.unwrap_or_else(|_| internal_error())
}

/// Carries one invocation from its event to its end, whether or not the client stays for it.
struct Pump {
    functions: Invoker,
    route: Route,
    client: oneshot::Sender<Answer>,
}

impl Pump {
    async fn run(self, event: Bytes) {
        let Self { functions, route, client } = self;
        let deadline = Instant::now() + route.timeout;
        let mut invocation = std::pin::pin!(functions.invoke(&route.function, event));
        let Ok(response) = timeout_at(deadline, &mut invocation).await else {
            client.send(timed_out()).ok();
            if let Ok(Response { body: ResponseBody::Streamed(chunks), .. }) = invocation.await {
                discard(chunks).await;
            }
            return;
        };
        match (response, route.transfer) {
            (Err(error), _) => {
                client.send(failed(&route, &error)).ok();
            }
            (Ok(Response { body: ResponseBody::Buffered(body), .. }), Transfer::Buffered) => {
                client.send(buffered(&route, &body)).ok();
            }
            (Ok(Response { body: ResponseBody::Streamed(chunks), .. }), Transfer::Stream) => {
                stream(chunks, &route, deadline, client).await;
            }
            // The response in the other form than the integration's has no metadata, or nothing but: malformed.
            (Ok(Response { body, .. }), _) => {
                tracing::warn!(
                    function = route.function,
                    "the answer is not in the integration's response mode"
                );
                client.send(internal_error()).ok();
                if let ResponseBody::Streamed(chunks) = body {
                    discard(chunks).await;
                }
            }
        }
    }
}

fn buffered(route: &Route, body: &Bytes) -> Answer {
    match parse_buffered(body) {
        Ok((head, body)) => with_head(head, Either::Left(Full::new(body))),
        Err(malformed) => {
            tracing::warn!(function = route.function, %malformed, "malformed proxy response");
            internal_error()
        }
    }
}

async fn stream(mut chunks: ChunkReader, route: &Route, deadline: Instant, client: oneshot::Sender<Answer>) {
    let mut metadata = MetadataReader::default();
    let (head, first) = loop {
        let answer = match timeout_at(quiet_until(route, deadline), chunks.next()).await {
            Ok(Ok(Some(chunk))) => match metadata.push(&chunk) {
                Ok(Some(found)) => break found,
                Ok(None) => continue,
                Err(malformed) => {
                    tracing::warn!(function = route.function, %malformed, "malformed streamed response");
                    internal_error()
                }
            },
            Ok(Ok(None)) => internal_error(),
            Ok(Err(error)) => failed(route, &error),
            Err(_) => timed_out(),
        };
        client.send(answer).ok();
        return discard(chunks).await;
    };
    let (to_client, body) = mpsc::channel(CLIENT_CHUNKS_MAX);
    client.send(with_head(head, Either::Right(ClientBody { parts: body, ended: false }))).ok();
    if !first.is_empty() {
        to_client.send(ClientPart::Data(first)).await.ok();
    }
    loop {
        match timeout_at(quiet_until(route, deadline), chunks.next()).await {
            Ok(Ok(Some(chunk))) => {
                match timeout_at(deadline, to_client.send(ClientPart::Data(chunk))).await {
                    Ok(Ok(())) => {}
                    // The client has left, or is too slow to be served in time.
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            Ok(Ok(None)) => {
                to_client.send(ClientPart::End).await.ok();
                return;
            }
            Ok(Err(_)) | Err(_) => break,
        }
    }
    // Without `End` the client's connection is cut: it must not take a part for the whole.
    drop(to_client);
    discard(chunks).await;
}

/// Reads an answer that nobody wants any more to its end; the function's own timeout bounds this.
async fn discard(mut chunks: ChunkReader) {
    while let Ok(Some(_)) = chunks.next().await {}
}

fn quiet_until(route: &Route, deadline: Instant) -> Instant {
    deadline.min(Instant::now() + route.idle_max)
}

/// A streamed body on its way to a client.
struct ClientBody {
    parts: mpsc::Receiver<ClientPart>,
    ended: bool,
}

/// A piece of it. A channel that closes without `End` is a cut.
enum ClientPart {
    Data(Bytes),
    End,
}

/// The answer was cut; the connection has to be closed so that the client notices.
#[derive(Debug, thiserror::Error)]
#[error("the function's answer was cut")]
struct Severed;

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Severed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.parts.poll_recv(cx).map(|part| match part {
            Some(ClientPart::Data(data)) => Some(Ok(Frame::data(data))),
            Some(ClientPart::End) => {
                self.ended = true;
                None
            }
            None => Some(Err(Severed)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn with_head(head: Head, body: GatewayBody) -> Answer {
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    answer
}

fn failed(route: &Route, error: &InvokeError) -> Answer {
    tracing::warn!(function = route.function, %error, "an invocation failed");
    match error {
        InvokeError::EventTooLarge => refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLargeException",
            r#"{"message":"Request Too Long"}"#,
        ),
        // The REST flavour does not pass a throttled function's 429 on.
        InvokeError::TooManyRequests | InvokeError::UnknownFunction(_) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerErrorException",
            r#"{"message": "Internal server error"}"#,
        ),
        InvokeError::Init(_)
        | InvokeError::Exited(_)
        | InvokeError::TimedOut(_)
        | InvokeError::Function { .. }
        | InvokeError::ResponseTooLarge
        | InvokeError::Cut
        | InvokeError::NotJson
        | InvokeError::Stopping => internal_error(),
    }
}

fn internal_error() -> Answer {
    refusal(
        StatusCode::BAD_GATEWAY,
        "InternalServerErrorException",
        r#"{"message": "Internal server error"}"#,
    )
}

fn timed_out() -> Answer {
    refusal(
        StatusCode::GATEWAY_TIMEOUT,
        "InternalServerErrorException",
        r#"{"message": "Endpoint request timed out"}"#,
    )
}

/// An answer of the gateway itself.
fn refusal(status: StatusCode, error_type: &'static str, body: &'static str) -> Answer {
    let mut answer = HttpResponse::new(Either::Left(Full::new(Bytes::from_static(body.as_bytes()))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(error_type));
    answer
}
