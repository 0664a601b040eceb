//! Owns one function process: its environment, its own Runtime API address, its connections and its end.
//!
//! Must never let a process keep its connections or its group longer than it lives.

use std::{convert::Infallible, process::Stdio, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    DRAIN_MAX, FunctionSpec, INIT_MAX, api,
    pool::{Pool, ProcessKey},
};
use crate::{
    logs::forward,
    net::{PromptStream, bind_loopback},
};

/// Connections that a process may have open beyond one for each poll and one for each response.
const SPARE_CONNECTIONS: usize = 8;
/// The pause after an accept that failed (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How far away "no deadline" is.
const NO_DEADLINE: Duration = Duration::from_hours(24);

/// A process that was started and is not yet supervised.
pub(super) struct Started {
    child: Child,
    pid: u32,
    listener: TcpListener,
}

impl Started {
    /// Starts the binary with a Runtime API address of its own, so that the cloud knows which process asks.
    pub(super) fn spawn(spec: &FunctionSpec) -> std::io::Result<Self> {
        let listener = bind_loopback()?;
        let address = listener.local_addr()?;
        let mut command = Command::new(&spec.binary);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &spec.name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory_mb.to_string())
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", spec.name))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env("_HANDLER", "bootstrap")
            .env("TZ", ":UTC")
            .env("LANG", "en_US.UTF-8")
            .envs(&spec.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if spec.concurrency.get() > 1 {
            command.env("AWS_LAMBDA_MAX_CONCURRENCY", spec.concurrency.to_string());
        }
        let child = command.spawn()?;
        let pid = child.id().ok_or_else(|| std::io::Error::other("the process ended at once"))?;
        Ok(Self { child, pid, listener })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }
}

/// Sends SIGKILL to a process and everything it started. A group that is already gone is no error.
pub(super) fn kill_group(pid: u32) {
    if let Some(group) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
}

/// Serves a process its Runtime API, keeps its deadlines and tells the pool how it ended.
pub(super) async fn supervise(pool: Arc<Pool>, key: ProcessKey, started: Started, changed: Arc<Notify>) {
    let Started { mut child, pid, listener } = started;
    let mut connections: JoinSet<()> = JoinSet::new();
    let connections_max = connections_max(&pool);
    let mut logs = JoinSet::new();
    if let Some(output) = child.stdout.take() {
        logs.spawn(forward(output, pool.spec().name.clone(), pid, pool.sink().clone()));
    }
    if let Some(output) = child.stderr.take() {
        logs.spawn(forward(output, pool.spec().name.clone(), pid, pool.sink().clone()));
    }
    let init_until = Instant::now() + INIT_MAX;
    let mut stopping = false;
    let status = loop {
        let until = pool.deadline(key, init_until).unwrap_or_else(|| Instant::now() + NO_DEADLINE);
        tokio::select! {
            status = child.wait() => break status,
            () = sleep_until(until) => pool.expire(key, Instant::now(), init_until),
            () = changed.notified() => {}
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = pool.stopped(), if !stopping => {
                stopping = true;
                kill_group(pid);
            }
            accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(Arc::clone(&pool), key, stream));
                }
                Err(error) => {
                    tracing::warn!(%error, function = pool.spec().name, "cannot accept a function's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    pool.exited(key, &how);
    drop(listener);
    // What the process had sent before it died is still in the kernel and still counts.
    timeout(DRAIN_MAX, async {
        while connections.join_next().await.is_some() {}
        while logs.join_next().await.is_some() {}
    })
    .await
    .unwrap_or_default();
}

fn connections_max(pool: &Pool) -> usize {
    usize::try_from(pool.spec().concurrency.get()).unwrap_or(usize::MAX).saturating_mul(2) + SPARE_CONNECTIONS
}

async fn serve(pool: Arc<Pool>, key: ProcessKey, stream: TcpStream) {
    let Ok(stream) = PromptStream::new(stream) else { return };
    let service = service_fn(move |request| {
        let pool = Arc::clone(&pool);
        async move { Ok::<_, Infallible>(api::handle(&pool, key, request).await) }
    });
    // A broken connection is the process's end or its own doing; either shows in the process itself.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap_or_default();
}
