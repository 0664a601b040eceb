//! The gateway and the Lambda service together, with real processes of the fixture function.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its assertions do")]

use std::{
    collections::BTreeMap, future::Future, num::NonZeroU32, path::PathBuf, process::Stdio, sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use local::{
    binaries::{Cargo, Targets},
    gateway::{Gateway, GatewayOptions, Route, RouteTable},
    logs::LogSink,
    net::bind_loopback,
    runtime::{FunctionSpec, InvokeError, Runtime},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Longer than anything here takes on a machine that is busy with other builds.
const PATIENCE: Duration = Duration::from_mins(1);
/// Ends before a test does, begins well after a process has started.
const SHORT: Duration = Duration::from_secs(2);

/// Waits for what must happen, and fails loudly if it does not.
#[track_caller]
fn soon<F: Future>(what: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { timeout(PATIENCE, what).await.unwrap_or_else(|_| panic!("nothing happened at {caller}")) }
}

fn fixture() -> PathBuf {
    static FIXTURE: OnceLock<PathBuf> = OnceLock::new();
    // On a thread of its own: the tests that wait for it have no runtime in common.
    let build = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let targets = Targets::Example("fixture");
        runtime.block_on(Cargo::of_this_build().build(targets, |_| {})).unwrap().remove("fixture").unwrap()
    };
    let build = || std::thread::spawn(build).join().unwrap();
    FIXTURE.get_or_init(build).clone()
}

fn spec(name: &str, mode: &str) -> FunctionSpec {
    FunctionSpec {
        name: name.to_owned(),
        binary: fixture(),
        environment: BTreeMap::from([("FIXTURE_MODE".to_owned(), mode.to_owned())]),
        timeout: PATIENCE * 2,
        concurrency: NonZeroU32::MIN,
        pool_max: NonZeroU32::new(4).unwrap(),
        queue_wait_max: PATIENCE,
        memory_mb: 128,
        clock: local::clock::CloudClock::default(),
    }
}

/// A gateway over three fixtures: one that streams, one that buffers, one that answers plain JSON.
struct Bed {
    runtime: Runtime,
    gateway: Gateway,
    client: reqwest::Client,
}

impl Bed {
    fn new(tune: impl Fn(&mut FunctionSpec), route: impl Fn(Route) -> Route) -> Self {
        Self::with_sink(tune, route, &LogSink::discard())
    }

    fn with_sink(tune: impl Fn(&mut FunctionSpec), route: impl Fn(Route) -> Route, sink: &LogSink) -> Self {
        let mut functions = vec![
            spec("stream", "stream"),
            spec("buffered", "buffered"),
            spec("raw", "raw"),
            spec("broken", "no mode"),
        ];
        functions.iter_mut().for_each(tune);
        let runtime = Runtime::start(functions, sink).unwrap();
        let mut routes: Vec<Route> = ["/gated", "/pid", "/huge", "/die", "/fail", "/hang"]
            .map(|path| Route::stream(Method::GET, path, "stream"))
            .into_iter()
            .chain(
                [Method::GET, Method::HEAD]
                    .map(|method| Route::buffered(method, "/buffered/{what+}", "buffered")),
            )
            .collect();
        routes.push(Route::stream(Method::POST, "/echo", "stream"));
        routes.push(Route::buffered(Method::GET, "/raw", "raw"));
        routes.push(Route::buffered(Method::GET, "/event", "raw"));
        routes.push(Route::stream(Method::GET, "/raw-stream", "raw"));
        routes.push(Route::buffered(Method::GET, "/pid-buffered", "stream"));
        routes.push(Route::stream(Method::GET, "/broken", "broken"));
        let routes = RouteTable::new(routes.into_iter().map(route).collect());
        let options = GatewayOptions { routes, stage: "local".to_owned(), page: None };
        let gateway = Gateway::start(bind_loopback().unwrap(), runtime.invoker(), options).unwrap();
        let client = local::net::client().unwrap();
        Self { runtime, gateway, client }
    }

    fn plain() -> Self {
        Self::new(|_| {}, |route| route)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        soon(self.client.get(format!("{}{path}", self.gateway.url())).send()).await.unwrap()
    }

    /// The process that answers next.
    async fn pid(&self) -> u32 {
        let answer = self.get("/pid").await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        soon(answer.text()).await.unwrap().parse().unwrap()
    }

    async fn gated(&self, size: usize) -> (Gate, reqwest::Response) {
        let gate = Gate::new();
        let path = format!("/gated?gate={}&size={size}", gate.port());
        let (answer, gate) = tokio::join!(self.get(&path), gate.open());
        assert_eq!(answer.status(), StatusCode::CREATED);
        (gate, answer)
    }
}

async fn refused(answer: reqwest::Response, status: StatusCode, body: &str) {
    assert_eq!(answer.status(), status);
    assert!(
        answer.headers().contains_key("x-amzn-errortype")
            && answer.headers().contains_key("x-amzn-requestid")
    );
    assert_eq!(soon(answer.text()).await.unwrap(), body);
}

/// What lets a gated function write its next chunk.
struct Gate {
    listener: TcpListener,
    socket: Option<TcpStream>,
}

impl Gate {
    fn new() -> Self {
        Self { listener: bind_loopback().unwrap(), socket: None }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    async fn open(mut self) -> Self {
        self.socket = Some(soon(self.listener.accept()).await.unwrap().0);
        self
    }

    async fn push(&mut self, byte: u8) {
        self.socket.as_mut().unwrap().write_u8(byte).await.unwrap();
    }

    /// The function has been asked for the chunk after the one of this byte; `None`: it is gone.
    async fn acknowledged(&mut self) -> Option<u8> {
        soon(self.socket.as_mut().unwrap().read_u8()).await.ok()
    }
}

#[tokio::test]
async fn chunks_reach_the_client_one_by_one_while_the_function_still_runs() {
    let bed = Bed::plain();
    let (mut gate, mut answer) = bed.gated(1).await;
    assert_eq!(answer.headers()["x-fixture"], "stream");
    assert_eq!(answer.headers().get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    for byte in b'a'..=b'z' {
        gate.push(byte).await;
        // The function cannot have written more: it has not been let.
        assert_eq!(soon(answer.chunk()).await.unwrap().unwrap(), Bytes::from(vec![byte]));
    }
    drop(gate);
    assert_eq!(soon(answer.chunk()).await.unwrap(), None);
}

#[tokio::test]
async fn f04_a_client_that_leaves_does_not_stop_its_function() {
    let bed = Bed::plain();
    // More than all socket buffers on the way together would hold.
    let (mut gate, mut answer) = bed.gated(512 * 1024).await;
    gate.push(b'a').await;
    assert_eq!(soon(answer.chunk()).await.unwrap().unwrap()[0], b'a');
    drop(answer);
    for byte in [b'b'; 40] {
        gate.push(byte).await;
        assert!(gate.acknowledged().await.is_some());
    }
    drop(gate);
    assert_eq!(bed.runtime.pids("stream"), [bed.pid().await]);
    assert_eq!(bed.runtime.counts("stream").deaths, 0);
}

#[tokio::test]
async fn a_process_killed_while_it_streams_cuts_its_client_and_is_replaced() {
    let bed = Bed::new(|spec| spec.pool_max = NonZeroU32::MIN, |route| route);
    let (mut gate, mut answer) = bed.gated(1).await;
    gate.push(b'a').await;
    assert_eq!(soon(answer.chunk()).await.unwrap().unwrap(), "a");
    let killed = bed.runtime.kill_one("stream").unwrap();
    assert!(soon(answer.chunk()).await.is_err(), "the client must notice");
    assert_ne!(bed.pid().await, killed);
    let counts = bed.runtime.counts("stream");
    assert_eq!((counts.deaths, counts.cold_starts, counts.timeouts), (1, 2, 0));
    assert_eq!(bed.runtime.kill_one("stream"), None, "nothing runs");
}

#[tokio::test]
async fn a_process_that_dies_before_it_answers_is_a_502_and_is_replaced() {
    let bed = Bed::plain();
    let first = bed.pid().await;
    refused(bed.get("/die").await, StatusCode::BAD_GATEWAY, r#"{"message": "Internal server error"}"#).await;
    assert_ne!(bed.pid().await, first);
}

#[tokio::test]
async fn a_function_past_its_deadline_is_killed_before_and_after_its_head() {
    let bed = Bed::new(
        |spec| {
            spec.pool_max = NonZeroU32::MIN;
            spec.timeout = SHORT;
        },
        |route| route,
    );
    let first = bed.pid().await;
    refused(bed.get("/hang").await, StatusCode::BAD_GATEWAY, r#"{"message": "Internal server error"}"#).await;
    let second = bed.pid().await;
    assert_ne!(first, second);
    let (mut gate, mut answer) = bed.gated(1).await;
    gate.push(b'a').await;
    assert_eq!(soon(answer.chunk()).await.unwrap().unwrap(), "a");
    assert!(soon(answer.chunk()).await.is_err(), "the client must notice");
    assert_ne!(bed.pid().await, second);
    assert_eq!(bed.runtime.counts("stream").timeouts, 2);
}

#[tokio::test]
async fn an_integration_timeout_is_a_504_or_a_cut_and_the_function_goes_on() {
    let bed = Bed::new(|_| {}, |route| route.with_timeout(SHORT));
    bed.pid().await;
    refused(
        bed.get("/hang").await,
        StatusCode::GATEWAY_TIMEOUT,
        r#"{"message": "Endpoint request timed out"}"#,
    )
    .await;
    let (mut gate, mut answer) = bed.gated(1).await;
    gate.push(b'a').await;
    assert_eq!(soon(answer.chunk()).await.unwrap().unwrap(), "a");
    assert!(soon(answer.chunk()).await.is_err(), "the client must notice");
    assert_eq!(gate.acknowledged().await, Some(b'a'));
    gate.push(b'b').await;
    assert_eq!(gate.acknowledged().await, Some(b'b'));
    let counts = bed.runtime.counts("stream");
    assert_eq!((counts.deaths, counts.timeouts), (0, 0));
}

#[tokio::test]
async fn the_pool_grows_to_its_bound_and_then_refuses() {
    let bed = Bed::new(
        |spec| {
            spec.pool_max = NonZeroU32::new(2).unwrap();
            spec.queue_wait_max = SHORT;
        },
        |route| route,
    );
    let (first, answer) = bed.gated(1).await;
    let (_second, _other) = bed.gated(1).await;
    let pids = bed.runtime.pids("stream");
    assert_eq!(pids.len(), 2);
    let message = r#"{"message": "Internal server error"}"#;
    refused(bed.get("/pid").await, StatusCode::INTERNAL_SERVER_ERROR, message).await;
    assert_eq!(bed.runtime.counts("stream").throttles, 1);
    drop(first);
    assert_eq!(soon(answer.bytes()).await.unwrap(), "");
    assert!(pids.contains(&bed.pid().await));
    assert_eq!(bed.runtime.pids("stream"), pids);
}

#[tokio::test]
async fn one_process_serves_as_many_at_once_as_its_concurrency_and_no_more() {
    let bed = Bed::new(
        |spec| {
            spec.pool_max = NonZeroU32::MIN;
            spec.concurrency = NonZeroU32::new(4).unwrap();
            spec.queue_wait_max = SHORT;
        },
        |route| route,
    );
    let mut open = tokio::join!(bed.gated(1), bed.gated(1), bed.gated(1), bed.gated(1));
    for (gate, answer) in [&mut open.0, &mut open.1, &mut open.2, &mut open.3] {
        gate.push(b'a').await;
        assert_eq!(soon(answer.chunk()).await.unwrap().unwrap(), "a");
    }
    let pids = bed.runtime.pids("stream");
    assert_eq!(pids.len(), 1);
    assert_eq!(bed.get("/pid").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    drop(open.0);
    assert_eq!(bed.pid().await, pids[0]);
    assert_eq!(bed.runtime.counts("stream").cold_starts, 1);
}

#[tokio::test]
async fn a_new_process_opens_all_its_slots_before_another_is_started() {
    let bed = Bed::new(|spec| spec.concurrency = NonZeroU32::new(4).unwrap(), |route| route);
    let _open = tokio::join!(bed.gated(1), bed.gated(1), bed.gated(1), bed.gated(1));
    assert_eq!(bed.runtime.counts("stream").cold_starts, 1);
    let _fifth = bed.gated(1).await;
    assert_eq!(bed.runtime.pids("stream").len(), 2);
}

#[tokio::test]
async fn only_a_streamed_answer_may_exceed_6_mb() {
    // One process at most, so that a second cold start can only be the replacement of one that died.
    let bed = Bed::new(|spec| spec.pool_max = NonZeroU32::MIN, |route| route);
    let answer = bed.get("/huge?size=12").await;
    assert_eq!(soon(answer.bytes()).await.unwrap().len(), 12 * 1024 * 1024);
    let fits = bed.get("/buffered/huge?size=6000000").await;
    assert_eq!(soon(fits.bytes()).await.unwrap().len(), 6_000_000);
    let message = r#"{"message": "Internal server error"}"#;
    refused(bed.get("/buffered/huge?size=7000000").await, StatusCode::BAD_GATEWAY, message).await;
    bed.get("/buffered/x").await;
    assert_eq!(bed.runtime.counts("buffered").cold_starts, 1, "the function survives");
}

#[tokio::test]
async fn binary_bodies_arrive_as_they_were_sent() {
    let bed = Bed::plain();
    let body: Vec<u8> = (0..=255).collect();
    let url = format!("{}/echo", bed.gateway.url());
    let answer = soon(bed.client.post(url).body(body.clone()).send()).await.unwrap();
    assert_eq!(soon(answer.bytes()).await.unwrap(), body);
    let answer = bed.get("/buffered/binary").await;
    assert_eq!(soon(answer.bytes()).await.unwrap(), &[0, 159, 146, 150][..]);
}

#[tokio::test]
async fn methods_headers_and_query_arrive_with_all_their_values() {
    let bed = Bed::plain();
    let url = format!("{}/buffered/a%20b?tag=1&tag=2%263", bed.gateway.url());
    let head = soon(bed.client.head(&url).send()).await.unwrap();
    assert_eq!((head.status(), &head.headers()["x-method"]), (StatusCode::OK, &"HEAD".parse().unwrap()));
    assert_eq!(head.headers().get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(soon(head.bytes()).await.unwrap(), "");
    let answer = soon(bed.client.get(&url).header("x-many", "1").header("x-many", "2").send()).await.unwrap();
    let seen: Value = serde_json::from_slice(&soon(answer.bytes()).await.unwrap()).unwrap();
    assert_eq!(seen["tag"], json!(["1", "2&3"]));
    assert_eq!(seen["path"], "/buffered/a%20b");
    assert_eq!(seen["method"], "GET");
    // All values are in the event, of which lambda_http 1.3 keeps the last.
    assert_eq!(seen["x-many"], json!(["2"]));
    let url = format!("{}/event", bed.gateway.url());
    let answer = soon(bed.client.get(url).header("x-many", "1").header("x-many", "2").send()).await.unwrap();
    let event: Value = serde_json::from_slice(&soon(answer.bytes()).await.unwrap()).unwrap();
    assert_eq!(event["multiValueHeaders"]["x-many"], json!(["1", "2"]));
    assert_eq!(event["requestContext"]["stage"], "local");
}

#[tokio::test]
async fn what_the_gateway_refuses_never_reaches_a_function() {
    let bed = Bed::plain();
    let missing = r#"{"message":"Missing Authentication Token"}"#;
    refused(bed.get("/nowhere").await, StatusCode::FORBIDDEN, missing).await;
    refused(bed.get("/echo").await, StatusCode::FORBIDDEN, missing).await;
    let url = format!("{}/echo", bed.gateway.url());
    let too_long = r#"{"message":"HTTP content length exceeded 10485760 bytes."}"#;
    let body = vec![b'x'; 10 * 1024 * 1024 + 1];
    refused(
        soon(bed.client.post(&url).body(body).send()).await.unwrap(),
        StatusCode::PAYLOAD_TOO_LARGE,
        too_long,
    )
    .await;
    let body = vec![b'x'; 6 * 1024 * 1024];
    let too_long = r#"{"message":"Request Too Long"}"#;
    refused(
        soon(bed.client.post(&url).body(body).send()).await.unwrap(),
        StatusCode::PAYLOAD_TOO_LARGE,
        too_long,
    )
    .await;
    assert_eq!(bed.runtime.counts("stream").cold_starts, 0);
}

#[tokio::test]
async fn a_malformed_or_failed_answer_is_a_502_and_the_process_lives() {
    let bed = Bed::plain();
    let message = r#"{"message": "Internal server error"}"#;
    for path in ["/fail", "/raw", "/raw-stream", "/pid-buffered"] {
        refused(bed.get(path).await, StatusCode::BAD_GATEWAY, message).await;
    }
    bed.pid().await;
    assert_eq!((bed.runtime.counts("stream").deaths, bed.runtime.counts("raw").deaths), (0, 0));
}

#[tokio::test]
async fn a_function_that_cannot_start_costs_one_process_for_each_request() {
    let bed = Bed::plain();
    let message = r#"{"message": "Internal server error"}"#;
    for starts in 1..=3 {
        refused(bed.get("/broken").await, StatusCode::BAD_GATEWAY, message).await;
        assert_eq!(bed.runtime.counts("broken").cold_starts, starts);
    }
    let error = soon(bed.runtime.invoke("broken", &json!({}))).await.unwrap_err();
    assert!(matches!(&error, InvokeError::Init(how) if how.contains("exit status: 3")), "{error}");
}

#[tokio::test]
async fn a_direct_call_gets_the_functions_json_its_error_and_its_logs() {
    let (lines, mut logged) = mpsc::unbounded_channel();
    let sink = LogSink::callback(move |line| lines.send(line).unwrap_or_default());
    let bed = Bed::with_sink(|_| {}, |route| route, &sink);
    let answer = soon(bed.runtime.invoke("raw", &json!({ "detail-type": "Scheduled Event" }))).await.unwrap();
    assert_eq!(answer.payload["echo"], json!({ "detail-type": "Scheduled Event" }));
    let left = answer.payload["deadline"].as_i64().unwrap() - local::clock::now_ms();
    assert!((1..=120_000).contains(&left), "{left} ms left");
    let line = soon(logged.recv()).await.unwrap();
    assert_eq!(
        (line.function.as_str(), u64::from(line.pid)),
        ("raw", answer.payload["pid"].as_u64().unwrap())
    );
    assert_eq!(line.text, r#"raw event {"detail-type":"Scheduled Event"}"#);
    let failed = soon(bed.runtime.invoke("raw", &json!({ "do": "fail" }))).await.unwrap_err();
    let InvokeError::Function { payload, .. } = failed else { panic!("{failed}") };
    assert!(String::from_utf8_lossy(&payload).contains("as asked"));
    let unknown = soon(bed.runtime.invoke("nobody", &json!({}))).await.unwrap_err();
    assert_eq!(unknown, InvokeError::UnknownFunction("nobody".to_owned()));
}

#[tokio::test]
async fn stopping_leaves_no_process_and_refuses_what_comes() {
    let bed = Bed::plain();
    let (mut gate, answer) = bed.gated(1).await;
    let pids = bed.runtime.pids("stream");
    soon(bed.runtime.shutdown()).await;
    assert_eq!(gate.acknowledged().await, None);
    assert!(soon(answer.bytes()).await.is_err());
    assert!(
        pids.iter().all(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()),
        "{pids:?} are still there"
    );
    assert_eq!(soon(bed.runtime.invoke("raw", &json!({}))).await.unwrap_err(), InvokeError::Stopping);
    assert_eq!(bed.get("/pid").await.status(), StatusCode::BAD_GATEWAY);
    soon(bed.gateway.shutdown()).await;
}

#[tokio::test]
async fn dropping_everything_kills_a_process_in_the_middle_of_its_work() {
    let bed = Bed::plain();
    let (mut gate, answer) = bed.gated(1).await;
    drop(bed);
    assert_eq!(gate.acknowledged().await, None);
    assert!(soon(answer.bytes()).await.is_err());
}

#[tokio::test]
async fn a_function_exits_by_itself_when_its_runtime_api_is_gone() {
    let api = bind_loopback().unwrap();
    let mut child = tokio::process::Command::new(fixture())
        .env("FIXTURE_MODE", "stream")
        .env("AWS_LAMBDA_RUNTIME_API", api.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "stream")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (poll, _) = soon(api.accept()).await.unwrap();
    drop((poll, api));
    assert!(!soon(child.wait()).await.unwrap().success());
}
