//! A hand on the store: what the functions take for DynamoDB can be stopped and started, its requests are counted, and one
//! of them can be caught before it is done, or after it is done and before anybody hears of it.
//!
//! Owns no data and answers nothing itself: a request goes to the cloud's database, or nowhere.

use crate::support::{cloud, soon};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use local::{
    cloud::{Cloud, Options},
    net,
};
use std::{
    collections::BTreeMap,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Where on its way a request is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caught {
    /// It has arrived and is not done, and will not be.
    Undone,
    /// It is done, and its answer is kept.
    Unanswered,
}

/// The store's front.
pub(crate) struct Store {
    address: SocketAddr,
    /// Keeps the port while nothing listens on it: a connection is refused, and nobody else gets the port.
    _port: TcpSocket,
    desk: Arc<Desk>,
    open: Mutex<Option<Open>>,
}

struct Open {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A cloud whose functions reach the database through a [`Store`].
pub(crate) async fn cloud_with_store(change: impl FnOnce(&mut Options)) -> (Cloud, Store) {
    let store = Store::open();
    let cloud = cloud(|options| {
        options.extra.insert("DYNAMODB_ENDPOINT".to_owned(), format!("http://{}", store.address));
        change(options);
    })
    .await;
    store.desk.database.set(cloud.dynamo().unwrap().endpoint()).unwrap();
    (cloud, store)
}

impl Store {
    fn open() -> Self {
        let port = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = port.local_addr().unwrap();
        let desk = Desk {
            database: OnceLock::new(),
            http: net::client().unwrap(),
            counts: Mutex::default(),
            trap: Mutex::default(),
        };
        let store = Self { address, _port: port, desk: Arc::new(desk), open: Mutex::default() };
        store.start();
        store
    }

    /// Listens, with the data as they are.
    pub(crate) fn start(&self) {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let listener = socket(self.address).listen(BACKLOG).unwrap();
        tasks.spawn(accept(listener, self.desk.clone(), stop.clone(), tasks.clone()));
        assert!(self.open.lock().unwrap().replace(Open { stop, tasks }).is_none(), "it was open");
    }

    /// Refuses connections, and breaks those that are open wherever they are: what was under way may be done or not.
    pub(crate) async fn stop(&self) {
        let open = self.open.lock().unwrap().take().expect("it was not open");
        open.stop.cancel();
        open.tasks.close();
        soon(open.tasks.wait()).await;
    }

    /// How many requests arrived, by operation.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.desk.counts.lock().unwrap().clone()
    }

    /// Catches the next request of this operation that names this user's items, or the one after `skipped` of them. It is never
    /// answered, nor is any repeat of it until the snare is dropped; it ends with its sender.
    pub(crate) fn catch(
        &self,
        operation: &'static str,
        user: &str,
        skipped: u32,
        caught: Caught,
    ) -> Snare<'_> {
        let (tell, heard) = oneshot::channel();
        let trap = Trap { operation, key: format!("\"U#{user}\""), skipped, caught, tell: Some(tell) };
        assert!(self.desk.trap.lock().unwrap().replace(trap).is_none(), "another snare is set");
        Snare { desk: &self.desk, heard }
    }
}

/// A snare that is set.
#[must_use = "dropped, it catches nothing"]
pub(crate) struct Snare<'a> {
    desk: &'a Desk,
    heard: oneshot::Receiver<()>,
}

impl Snare<'_> {
    /// Ends when something is caught.
    pub(crate) async fn sprung(&mut self) {
        soon(&mut self.heard).await.unwrap();
    }
}

impl Drop for Snare<'_> {
    fn drop(&mut self) {
        *self.desk.trap.lock().unwrap() = None;
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// What every connection shares.
struct Desk {
    database: OnceLock<String>,
    http: reqwest::Client,
    counts: Mutex<BTreeMap<String, u64>>,
    trap: Mutex<Option<Trap>>,
}

struct Trap {
    operation: &'static str,
    key: String,
    skipped: u32,
    caught: Caught,
    /// Taken by the first that is caught.
    tell: Option<oneshot::Sender<()>>,
}

async fn accept(listener: TcpListener, desk: Arc<Desk>, stop: CancellationToken, tasks: TaskTracker) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, _) = accepted.unwrap();
        tasks.spawn(serve(stream, desk.clone(), stop.clone()));
    }
}

async fn serve(stream: TcpStream, desk: Arc<Desk>, stop: CancellationToken) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(move |request| desk.clone().answer(request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A function that is killed breaks its connections: no news.
    drop(stop.run_until_cancelled(served).await);
}

impl Desk {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> reqwest::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return pending().await };
        let body = body.to_bytes();
        let target = head.headers["x-amz-target"].to_str().unwrap();
        let operation = target.rsplit('.').next().unwrap();
        *self.counts.lock().unwrap().entry(operation.to_owned()).or_default() += 1;
        let Some((caught, tell)) = self.caught(operation, &body) else {
            return self.pass_on(head.headers, body).await;
        };
        if let Some(tell) = tell {
            if caught == Caught::Unanswered {
                self.pass_on(head.headers, body).await?;
            }
            tell.send(()).ok();
        }
        pending().await
    }

    /// Where this request is caught, if it is, and whom to tell if it is the first.
    fn caught(&self, operation: &str, body: &[u8]) -> Option<(Caught, Option<oneshot::Sender<()>>)> {
        let body = std::str::from_utf8(body).unwrap();
        let mut trap = self.trap.lock().unwrap();
        let trap = trap.as_mut().filter(|trap| trap.operation == operation && body.contains(&trap.key))?;
        if let Some(left) = trap.skipped.checked_sub(1) {
            trap.skipped = left;
            return None;
        }
        Some((trap.caught, trap.tell.take()))
    }

    async fn pass_on(&self, mut headers: HeaderMap, body: Bytes) -> reqwest::Result<Response<Full<Bytes>>> {
        for own in [HOST, CONTENT_LENGTH, CONNECTION] {
            headers.remove(own);
        }
        let database = self.database.get().expect("the cloud runs");
        let answer = self.http.post(database).headers(headers).body(body).send().await?;
        let mut response = Response::new(Full::default());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        for own in [CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING] {
            response.headers_mut().remove(own);
        }
        *response.body_mut() = Full::new(answer.bytes().await?);
        Ok(response)
    }
}
