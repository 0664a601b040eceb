//! The Lambda service: the Runtime API, and a pool of real function processes for each function.
//!
//! Owns processes, who gets which invocation, deadlines and deaths. Must never hand a process more invocations
//! at once than its concurrency, tell a function that its caller has left, or leave a process behind.

mod api;
mod pool;
mod process;
mod watchdog;

use std::{
    collections::BTreeMap,
    fmt, io,
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{clock::CloudClock, logs::LogSink};
use pool::Pool;
use watchdog::Watchdog;

/// The largest event of one invocation, in bytes (Lambda's quota for synchronous calls).
pub const EVENT_BYTES_MAX: usize = 6 * 1024 * 1024;
/// The largest buffered response, in bytes (Lambda's quota: 6 MB and a little for its envelope).
pub const RESPONSE_BYTES_MAX: usize = 6_291_556;
/// The largest streamed response, in bytes (Lambda's quota).
pub const STREAM_BYTES_MAX: usize = 200 * 1024 * 1024;
/// How many chunks of one streamed response wait for its reader before the function has to wait.
pub const STREAM_PARTS_MAX: usize = 16;
/// How many invocations of one function wait for a process; the next one is refused at once.
pub const QUEUE_MAX: usize = 1024;
/// How long a new process may take to ask for its first event, as on Lambda.
pub const INIT_MAX: Duration = Duration::from_secs(10);
/// How long the connections of a dead process may take to deliver what it had already sent.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A function: its binary, its configuration and its bounds.
#[derive(Debug, Clone)]
pub struct FunctionSpec {
    /// The name that routes and callers use.
    pub name: String,
    /// The binary, an ordinary Lambda `bootstrap` built for this machine.
    pub binary: PathBuf,
    /// The function's own variables. Nothing of the caller's environment is inherited.
    pub environment: BTreeMap<String, String>,
    /// How long one invocation may run; then its process is killed.
    pub timeout: Duration,
    /// Invocations at once in one process: 1 as on classic Lambda, more as on Managed Instances.
    pub concurrency: NonZeroU32,
    /// The most processes at once.
    pub pool_max: NonZeroU32,
    /// How long an invocation may wait for a process before it is refused as throttled.
    pub queue_wait_max: Duration,
    /// What the function is told about its memory, in MB. Not enforced.
    pub memory_mb: u32,
    /// The clock that deadlines are told by. They are kept by the monotonic one.
    pub clock: CloudClock,
}

/// Why an invocation gave no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// No function of this name was configured.
    #[error("there is no function {0}")]
    UnknownFunction(String),
    /// Every process is busy, the pool is at its bound, and the wait for one was too long (Lambda: 429).
    #[error("TooManyRequestsException: all processes of the function are busy")]
    TooManyRequests,
    /// The event exceeds [`EVENT_BYTES_MAX`] (Lambda: 413).
    #[error("RequestTooLargeException: the event exceeds {EVENT_BYTES_MAX} bytes")]
    EventTooLarge,
    /// The process died, or reported an error, before it asked for its first event.
    #[error("the function failed to initialise: {0}")]
    Init(String),
    /// The process died during the invocation.
    #[error("the function's process died: {0}")]
    Exited(String),
    /// The deadline passed and the process was killed.
    #[error("task timed out after {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The function reported an error for this invocation.
    #[error("the function failed: {error_type}")]
    Function {
        /// The type that it reported, e.g. `Unhandled`.
        error_type: String,
        /// The error's body, usually JSON with `errorMessage`.
        payload: Bytes,
    },
    /// A buffered response exceeds [`RESPONSE_BYTES_MAX`].
    #[error("Function.ResponseSizeTooLarge: the response exceeds {RESPONSE_BYTES_MAX} bytes")]
    ResponseTooLarge,
    /// A streamed response ended before its end.
    #[error("the function's response was cut")]
    Cut,
    /// The response of a direct call is not JSON.
    #[error("the function's response is not JSON")]
    NotJson,
    /// The cloud is being stopped.
    #[error("the local cloud is stopping")]
    Stopping,
}

/// A function's answer to one invocation.
#[derive(Debug)]
pub struct Response {
    /// The invocation's id, as the function was told.
    pub request_id: String,
    /// The answer.
    pub body: ResponseBody,
}

/// The two ways in which a function answers.
#[derive(Debug)]
pub enum ResponseBody {
    /// At once, when it was complete.
    Buffered(Bytes),
    /// Chunk by chunk, as it is written.
    Streamed(ChunkReader),
}

/// A streamed response being written. Dropping it does not stop the function: the rest is read and discarded.
#[derive(Debug)]
pub struct ChunkReader {
    parts: mpsc::Receiver<Part>,
    ended: bool,
}

/// A piece of a streamed response. A channel that closes without `End` was cut.
#[derive(Debug)]
enum Part {
    Data(Bytes),
    End,
}

impl ChunkReader {
    fn new(parts: mpsc::Receiver<Part>) -> Self {
        Self { parts, ended: false }
    }

    /// The next chunk, or `None` at the response's proper end.
    ///
    /// # Errors
    /// [`InvokeError::Cut`] if the function died or gave up before the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, InvokeError> {
        if self.ended {
            return Ok(None);
        }
        match self.parts.recv().await {
            Some(Part::Data(data)) => Ok(Some(data)),
            Some(Part::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(InvokeError::Cut),
        }
    }
}

/// What a direct call got back.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The invocation's id, as the function was told.
    pub request_id: String,
    /// The function's answer.
    pub payload: serde_json::Value,
}

/// What happened to a function's processes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Invocations handed to a process.
    pub invocations: u64,
    /// Processes started.
    pub cold_starts: u64,
    /// Processes that ended other than by stopping the cloud.
    pub deaths: u64,
    /// Invocations whose deadline passed.
    pub timeouts: u64,
    /// Invocations refused because every process was busy.
    pub throttles: u64,
}

/// The Lambda service. Cloning shares it; dropping the last clone kills every process.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    pools: BTreeMap<String, Arc<Pool>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        for pool in self.pools.values() {
            pool.kill_all();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("functions", &self.inner.pools.keys()).finish()
    }
}

impl Runtime {
    /// Takes the functions. No process starts before its first invocation.
    ///
    /// # Errors
    /// The watchdog, which kills the processes if this one is killed, cannot be started.
    pub fn start(functions: Vec<FunctionSpec>, sink: &LogSink) -> io::Result<Self> {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let watchdog = Watchdog::start()?;
        let pools = functions
            .into_iter()
            .map(|spec| {
                let name = spec.name.clone();
                let pool = Pool::new(spec, sink.clone(), watchdog.clone(), tasks.clone(), stop.clone());
                (name, Arc::new(pool))
            })
            .collect();
        Ok(Self { inner: Arc::new(Inner { pools, tasks, stop }) })
    }

    /// A way to invoke functions that does not keep them alive.
    pub fn invoker(&self) -> Invoker {
        Invoker { inner: Arc::downgrade(&self.inner) }
    }

    /// Invokes a function with a JSON event and waits for its whole answer, as a schedule or a test does.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(&self, function: &str, event: &serde_json::Value) -> Result<Invocation, InvokeError> {
        self.invoker().call(function, event).await
    }

    /// Kills (SIGKILL) one process that is in the middle of an invocation, and says which.
    pub fn kill_one(&self, function: &str) -> Option<u32> {
        self.inner.pools.get(function)?.kill_one()
    }

    /// The live processes of a function.
    pub fn pids(&self, function: &str) -> Vec<u32> {
        self.inner.pools.get(function).map(|pool| pool.pids()).unwrap_or_default()
    }

    /// What happened to a function's processes so far; all zero for an unknown one.
    pub fn counts(&self, function: &str) -> Counts {
        self.inner.pools.get(function).map(|pool| pool.counts()).unwrap_or_default()
    }

    /// Kills every process and waits until all are gone.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        for pool in self.inner.pools.values() {
            pool.close();
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Invokes the functions of a [`Runtime`] without keeping it alive.
#[derive(Clone)]
pub struct Invoker {
    inner: Weak<Inner>,
}

impl fmt::Debug for Invoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invoker")
    }
}

impl Invoker {
    /// Invokes a function and returns as soon as it answers or begins to.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(&self, function: &str, event: Bytes) -> Result<Response, InvokeError> {
        if event.len() > EVENT_BYTES_MAX {
            return Err(InvokeError::EventTooLarge);
        }
        let pool = {
            let inner = self.inner.upgrade().ok_or(InvokeError::Stopping)?;
            inner.pools.get(function).map(Arc::clone)
        };
        pool.ok_or_else(|| InvokeError::UnknownFunction(function.to_owned()))?.invoke(event).await
    }

    /// Invokes a function with a JSON event and waits for its whole answer, as a schedule or a test does.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn call(&self, function: &str, event: &serde_json::Value) -> Result<Invocation, InvokeError> {
        let response = self.invoke(function, Bytes::from(event.to_string())).await?;
        let body = match response.body {
            ResponseBody::Buffered(body) => body,
            ResponseBody::Streamed(mut chunks) => {
                // The Runtime API bounds a stream at STREAM_BYTES_MAX.
                let mut body = BytesMut::new();
                while let Some(chunk) = chunks.next().await? {
                    body.extend_from_slice(&chunk);
                }
                body.freeze()
            }
        };
        let payload = serde_json::from_slice(&body).map_err(|_| InvokeError::NotJson)?;
        Ok(Invocation { request_id: response.request_id, payload })
    }
}
