//! What lies between the AWS SDK and the server, in the tests' hands: a connector under the SDK's own retries and
//! time-outs and over the embedded engine. It does what AWS does and no stand-in shows.
//!
//! Owns the fate of each request, the log of what was sent, and the checks that every request has to pass. Reaches the
//! engine without a socket, so that a paused clock makes a run as exact as its seed.

use super::{
    limits,
    support::{TABLE, user},
};
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame};
use ledger::{DynamoSettings, DynamoStore};
use local::dynamo::{Dynamo, DynamoOptions, TableDefinition};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

/// The operations that the ledger sends. There is no batch among them: what comes nearest is the paging of the dirty
/// index, a transaction, and a protocol that writes several times.
pub(crate) const OPERATIONS: [&str; 5] = ["GetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"];
/// Longer than any try of any operation: by then the SDK has given up.
const GIVEN_UP_MS: u64 = 10_000;
/// Time-to-live sweeps are not what is tested here.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fate {
    /// It takes effect and is answered.
    Pass,
    /// The connection is cut before the server has it.
    CutBefore,
    /// It takes effect; the connection is cut before the answer.
    CutAfter,
    /// It takes effect; the answer breaks off in its middle.
    CutAnswer,
    /// Neither effect nor answer: the SDK's time-out ends it.
    Silence,
    /// It takes effect; the answer comes after the SDK has given up.
    SlowAnswer,
    /// It takes effect so many milliseconds later, when nobody waits for it any more.
    Late(u64),
    /// Throttled under one of the names that AWS has for it: not done.
    Throttled(Throttle),
    /// Another transaction is under way on the item: not done.
    Conflict,
    /// 500: not done.
    Failed,
    /// 500: done all the same.
    FailedAfter,
    /// 503: not done.
    Unavailable,
    /// The index answers what it would have answered before the latest writes.
    Stale,
}

/// The names under which AWS throttles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Throttle {
    /// One partition, or the index behind it.
    Partition,
    /// An on-demand table that has not scaled yet.
    Table,
    /// The account.
    Account,
}

impl Fate {
    /// Its kind, whatever its numbers.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::CutBefore => "cut before",
            Self::CutAfter => "cut after",
            Self::CutAnswer => "cut answer",
            Self::Silence => "silence",
            Self::SlowAnswer => "slow answer",
            Self::Late(_) => "late",
            Self::Throttled(_) => "throttled",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::FailedAfter => "failed after",
            Self::Unavailable => "unavailable",
            Self::Stale => "stale",
        }
    }
}

/// One request as the SDK sent it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `UpdateItem` and the like.
    pub(crate) operation: String,
    /// Its body.
    pub(crate) body: Value,
}

impl Call {
    /// Whether it can change something.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.operation.as_str(), "GetItem" | "Query")
    }

    /// Whether it reads the dirty index.
    pub(crate) fn is_index_read(&self) -> bool {
        self.body.get("IndexName").is_some()
    }

    /// Which page of the index it reads.
    fn page(&self) -> String {
        let of = |path: &str| self.body.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (shard, user) = (of("/ExpressionAttributeValues/:shard/S"), of("/ExclusiveStartKey/pk/S"));
        format!("{shard} {user} {}", of("/ExclusiveStartKey/sk/S"))
    }

    /// The sort key that it writes: what tells a receipt from a report.
    pub(crate) fn sort_key(&self) -> &str {
        let of = |name: &str| self.body.pointer(&format!("/{name}/sk/S")).and_then(Value::as_str);
        of("Item").or_else(|| of("Key")).unwrap_or_default()
    }

    /// The id of the hold that it adds, if it is an admission: the one map that an update sets below `holds`.
    pub(crate) fn admits(&self) -> Option<&str> {
        let values = self.body.get("ExpressionAttributeValues")?.as_object()?;
        let (alias, _) = values.iter().find(|(_, value)| value.pointer("/M/expires_ms").is_some())?;
        let update = self.body.get("UpdateExpression")?.as_str()?;
        let (path, _) = update.split_once(&format!(" = {alias}"))?;
        let name = &path[path.rfind('.')? + 1..];
        self.body.get("ExpressionAttributeNames")?.get(name)?.as_str()
    }

    /// The partition keys that it touches.
    pub(crate) fn users(&self) -> Vec<String> {
        let mut found: Vec<String> = ["/Key/pk/S", "/Item/pk/S"]
            .iter()
            .filter_map(|path| self.body.pointer(path))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        for item in self.body.get("TransactItems").and_then(Value::as_array).into_iter().flatten() {
            let parts = ["/Put/Item/pk/S", "/Update/Key/pk/S"];
            found.extend(parts.iter().filter_map(|path| item.pointer(path)?.as_str()).map(str::to_owned));
        }
        found.dedup();
        found
    }
}

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// What was sent.
    pub(crate) call: Call,
    /// What became of it.
    pub(crate) fate: Fate,
}

/// Decides a request's fate, and after how many milliseconds it reaches its server.
pub(crate) type Decide = Box<dyn FnMut(&Call) -> (Fate, u64) + Send>;
/// Looks at the table right after a request has had its effect; answers what is wrong with it.
pub(crate) type Watch = Box<dyn FnMut(&Dynamo, &Call, u16) -> Vec<String> + Send>;

struct Inner {
    dynamo: Dynamo,
    decide: Mutex<Decide>,
    watch: Mutex<Watch>,
    log: Mutex<Vec<Sent>>,
    violations: Mutex<Vec<String>>,
    /// The last answer of each index read, by its page: what a lagging index still says.
    index: Mutex<HashMap<String, String>>,
}

/// The connector; clones share everything.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// A wire to an empty table of its own, on which everything passes.
    pub(crate) fn new() -> Self {
        let table = TableDefinition::from_template(include_str!("../../../../infra/template.yaml")).unwrap();
        let options = DynamoOptions { data: None, table_name: TABLE.to_owned(), table, sweep_every: NEVER };
        Self(Arc::new(Inner {
            dynamo: Dynamo::start(&options).unwrap(),
            decide: Mutex::new(Box::new(|_| (Fate::Pass, 0))),
            watch: Mutex::new(Box::new(|_, _, _| Vec::new())),
            log: Mutex::default(),
            violations: Mutex::default(),
            index: Mutex::default(),
        }))
    }

    /// A store over this wire, with the retries and time-outs of the functions. `name` keeps apart what the SDK shares
    /// between clients of a process: how many retries they have left together.
    pub(crate) async fn store(&self, name: &str) -> DynamoStore {
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(name.replace('_', "-")))
            .credentials_provider(Credentials::new("local", "local", None, None, "tests"))
            .http_client(self.clone());
        let endpoint = Some("http://wire.invalid".to_owned());
        DynamoStore::configured(loader, DynamoSettings { table: TABLE.to_owned(), endpoint }).await
    }

    /// From now on `decide` decides.
    pub(crate) fn decide(&self, decide: impl FnMut(&Call) -> (Fate, u64) + Send + 'static) {
        *self.0.decide.lock().unwrap() = Box::new(decide);
    }

    /// From now on everything passes.
    pub(crate) fn calm(&self) {
        self.decide(|_| (Fate::Pass, 0));
    }

    /// The next requests that `of` picks have these fates; all others pass.
    pub(crate) fn script(&self, of: impl Fn(&Call) -> bool + Send + 'static, fates: &[Fate]) {
        let mut fates = Vec::from(fates).into_iter();
        self.decide(move |call| {
            let fate = if of(call) { fates.next() } else { None };
            (fate.unwrap_or(Fate::Pass), 0)
        });
    }

    /// From now on `watch` looks at the table after every effect.
    pub(crate) fn watch(&self, watch: impl FnMut(&Dynamo, &Call, u16) -> Vec<String> + Send + 'static) {
        *self.0.watch.lock().unwrap() = Box::new(watch);
    }

    /// What was sent so far.
    pub(crate) fn log(&self) -> Vec<Sent> {
        self.0.log.lock().unwrap().clone()
    }

    /// Forgets what was sent so far.
    pub(crate) fn forget(&self) {
        self.0.log.lock().unwrap().clear();
    }

    /// How many requests of so far `of` picks.
    pub(crate) fn count(&self, of: impl Fn(&Call) -> bool) -> usize {
        self.0.log.lock().unwrap().iter().filter(|sent| of(&sent.call)).count()
    }

    /// What was wrong so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.violations.lock().unwrap().clone()
    }

    /// The database behind it.
    pub(crate) fn dynamo(&self) -> &Dynamo {
        &self.0.dynamo
    }

    /// Has its effect on the table, and is looked at.
    fn effect(&self, call: &Call) -> (u16, String) {
        let (status, body) = serve(&self.0.dynamo, call);
        let found = (self.0.watch.lock().unwrap())(&self.0.dynamo, call, status);
        self.0.violations.lock().unwrap().extend(found);
        if call.is_index_read() {
            self.0.index.lock().unwrap().insert(call.page(), body.clone());
        }
        (status, body)
    }

    async fn send(self, call: Call) -> Result<HttpResponse, ConnectorError> {
        let mut wrong = limits::check(&call.operation, &call.body);
        if !OPERATIONS.contains(&call.operation.as_str()) {
            wrong.push(format!("an operation nobody knows: {}", call.operation));
        }
        self.0.violations.lock().unwrap().extend(wrong);
        let (fate, delay_ms) = (self.0.decide.lock().unwrap())(&call);
        self.0.log.lock().unwrap().push(Sent { call: call.clone(), fate });
        wait(delay_ms).await;
        match fate {
            Fate::Pass => Ok(answer(self.effect(&call))),
            Fate::CutBefore => Err(cut()),
            Fate::CutAfter => {
                self.effect(&call);
                Err(cut())
            }
            Fate::CutAnswer => {
                let (status, body) = self.effect(&call);
                Ok(HttpResponse::new(StatusCode::try_from(status).unwrap(), broken(&body)))
            }
            Fate::Silence => std::future::pending().await,
            Fate::SlowAnswer => {
                let effect = self.effect(&call);
                wait(GIVEN_UP_MS).await;
                Ok(answer(effect))
            }
            Fate::Late(ms) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "it outlives its sender: that is what it is for"
                )]
                tokio::spawn(async move {
                    wait(ms).await;
                    self.effect(&call);
                });
                std::future::pending().await
            }
            Fate::Throttled(throttle) => Ok(answer(throttled(&call, throttle))),
            Fate::Conflict => Ok(answer(conflict(&call))),
            Fate::Failed => Ok(answer(failed(500, "InternalServerError"))),
            Fate::FailedAfter => {
                self.effect(&call);
                Ok(answer(failed(500, "InternalServerError")))
            }
            Fate::Unavailable => Ok(answer(failed(503, "ServiceUnavailable"))),
            Fate::Stale => {
                let before = self.0.index.lock().unwrap().get(&call.page()).cloned();
                Ok(answer((200, before.unwrap_or_else(|| json!({ "Count": 0, "Items": [] }).to_string()))))
            }
        }
    }
}

/// One thread under a clock that only waiting moves; the SDK's chance is the seed's.
pub(crate) fn runtime(seed: u64) -> Runtime {
    fastrand::seed(seed);
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Runs one test over a wire of its own, under a clock that only waiting moves.
pub(crate) fn on_a_wire<F>(test: impl FnOnce(Wire, DynamoStore) -> F)
where
    F: Future<Output = ()>,
{
    runtime(1).block_on(async {
        let wire = Wire::new();
        let store = wire.store(user().as_str()).await;
        test(wire.clone(), store).await;
        assert_eq!(wire.violations(), [""; 0]);
    });
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        HttpConnectorFuture::new(self.clone().send(Call { operation, body }))
    }
}

impl HttpClient for Wire {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

async fn wait(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn cut() -> ConnectorError {
    ConnectorError::io("the connection was cut".into())
}

fn answer((status, body): (u16, String)) -> HttpResponse {
    HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body))
}

/// A body of which only the first half arrives.
struct Broken(Option<Bytes>);

impl Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(match self.0.take() {
            Some(half) => Ok(Frame::data(half)),
            None => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        }))
    }
}

fn broken(body: &str) -> SdkBody {
    SdkBody::from_body_1_x(Broken(Some(Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]))))
}

fn typed(kind: &str) -> String {
    format!("com.amazonaws.dynamodb.v20120810#{kind}")
}

fn failed(status: u16, kind: &str) -> (u16, String) {
    (status, json!({ "__type": typed(kind), "message": "injected" }).to_string())
}

/// A transaction says of each of its items what was in its way: here the last one only, so that a part was throttled.
fn canceled(call: &Call, code: &str) -> Option<(u16, String)> {
    let items = call.body.get("TransactItems")?.as_array()?.len();
    let reason = |n: usize| if n + 1 == items { json!({ "Code": code }) } else { json!({ "Code": "None" }) };
    let reasons: Vec<Value> = (0..items).map(reason).collect();
    let kind = typed("TransactionCanceledException");
    Some((400, json!({ "__type": kind, "Message": "injected", "CancellationReasons": reasons }).to_string()))
}

fn throttled(call: &Call, throttle: Throttle) -> (u16, String) {
    match throttle {
        Throttle::Partition => canceled(call, "ProvisionedThroughputExceeded")
            .unwrap_or_else(|| failed(400, "ProvisionedThroughputExceededException")),
        Throttle::Table => {
            canceled(call, "ThrottlingError").unwrap_or_else(|| failed(400, "ThrottlingException"))
        }
        Throttle::Account => failed(400, "RequestLimitExceeded"),
    }
}

fn conflict(call: &Call) -> (u16, String) {
    canceled(call, "TransactionConflict").unwrap_or_else(|| failed(400, "TransactionConflictException"))
}

/// The engine's answer, as its server words it.
fn serve(dynamo: &Dynamo, call: &Call) -> (u16, String) {
    let (database, body) = (dynamo.database(), call.body.clone());
    macro_rules! served {
        ($operation:ident) => {
            match database.$operation(serde_json::from_value(body).unwrap()) {
                Ok(output) => (200, serde_json::to_string(&output).unwrap()),
                Err(error) => (error.status_code(), error.to_json()),
            }
        };
    }
    match call.operation.as_str() {
        "GetItem" => served!(get_item),
        "PutItem" => served!(put_item),
        "Query" => served!(query),
        "TransactWriteItems" => served!(transact_write_items),
        "UpdateItem" => served!(update_item),
        other => failed(400, other),
    }
}
