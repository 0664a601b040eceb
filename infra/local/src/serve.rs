//! The HTTP/1.1 server under each stand-in. It owns the accept loop, the connections and their end: a stand-in only
//! turns a whole request into an [`Answer`].
//!
//! It must never hold a response back: `TCP_NODELAY` is set and every body frame is flushed on its own. It must
//! never outlive its [`Server`]: when the last clone is dropped, or on [`Server::shutdown`], every connection ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections open at once on one stand-in. The next one waits in the listener's backlog.
const CONNECTIONS_MAX: usize = 1_024;
/// Bytes of one request body. A larger one is handed over as [`Payload::TooLarge`].
const BODY_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Bytes of one request's head.
const HEAD_BYTES_MAX: usize = 64 * 1_024;
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Seconds since the Unix epoch, as a stand-in sees them: real time, or a clock that a test moves.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The machine's own clock, in seconds since the Unix epoch.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "a stand-in is a vendor: it has a clock of its own")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    })
}

/// A response body. An `Err` frame drops the connection without ending the body.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a stand-in does with a request.
pub(crate) enum Answer {
    /// Answers it.
    Http(Response<Body>),
    /// Drops the connection without a byte, as a vendor whose answer is lost does.
    HangUp,
}

/// A request's body.
pub(crate) enum Payload {
    /// All of it.
    Whole(Bytes),
    /// More than [`BODY_BYTES_MAX`]; it was not kept.
    TooLarge,
}

/// A stand-in: whole requests in, answers out.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers one request. Dropped half-way when the peer goes away.
    fn answer(self: Arc<Self>, request: Request<Payload>) -> impl Future<Output = Answer> + Send;
}

/// A running server. The last clone stops it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Serves `service` on `listener`.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub(crate) fn start<S: Service>(listener: TcpListener, service: Arc<S>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, service, stop.clone(), tasks.clone()));
        Ok(Self { inner: Arc::new(Inner { address, stop, tasks }) })
    }

    /// `http://host:port`, without a trailing slash.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// Drops the listener and every connection, and returns once they are gone. May be called more than once.
    pub(crate) async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

async fn accept<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            // The semaphore is never closed, so the permit is only absent in theory: then nothing is accepted.
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((listener.accept().await, slot))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = next => accepted,
        };
        match accepted {
            Some((Ok((stream, _)), slot)) => {
                tasks.spawn(connection(stream, Arc::clone(&service), stop.clone(), slot));
            }
            Some((Err(error), _)) => {
                tracing::warn!(%error, "a stand-in could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => return,
        }
    }
}

async fn connection<S: Service>(
    stream: TcpStream,
    service: Arc<S>,
    stop: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the peer left before its connection was served");
        return;
    }
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move {
            match service.answer(gather(request).await?).await {
                Answer::Http(response) => Ok(response),
                Answer::HangUp => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    let serve = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        served = serve => if let Err(error) = served {
            // Peers that leave and cuts that a test asked for both end here: neither is news.
            tracing::debug!(%error, "a stand-in's connection ended early");
        }
    }
}

async fn gather(request: Request<Incoming>) -> io::Result<Request<Payload>> {
    let (head, body) = request.into_parts();
    let payload = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(whole) => Payload::Whole(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Payload::TooLarge,
        Err(error) => return Err(io::Error::other(error)),
    };
    Ok(Request::from_parts(head, payload))
}

/// A body that is there from the start.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Bytes in lower-case hex.
pub(crate) fn hex<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.into_iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

/// What the tests of every stand-in need.
#[cfg(test)]
pub(crate) mod testing {
    use std::future::Future;
    use std::sync::OnceLock;
    use std::time::Duration;

    use tokio::net::TcpListener;

    /// A client that opens a connection for each request, so that one request's end is its connection's end, and
    /// that no test's runtime owns a connection of another's.
    pub(crate) fn client() -> reqwest::Client {
        // Building one reads the machine's root certificates: once is enough.
        static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
        let build = || {
            // Only the first of a process is installed; the others find it there.
            drop(rustls::crypto::ring::default_provider().install_default());
            reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().build().unwrap()
        };
        CLIENT.get_or_init(build).clone()
    }

    /// What `future` gives; a test that waits for what never comes fails instead of hanging.
    #[track_caller]
    pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
        let caller = std::panic::Location::caller();
        async move {
            let limit = Duration::from_secs(20);
            tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("nothing came: {caller}"))
        }
    }

    /// A free port of this machine.
    pub(crate) async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }
}
