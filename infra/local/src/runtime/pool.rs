//! The processes of one function and the invocations that wait for them.
//!
//! Owns who gets what: an invocation goes to a process that asked for one, else it waits, and a process is
//! started for it while the pool is below its bound. Every decision is made under one lock, without I/O; what
//! has to be started or killed is done after. Must never lose an invocation: each is answered, or its sender is
//! dropped with its process's end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Counts, FunctionSpec, InvokeError, QUEUE_MAX, Response,
    process::{Started, kill_group, supervise},
    watchdog::Watchdog,
};
use crate::{clock::request_id, logs::LogSink};

/// Names a process within its pool; never reused, unlike a process id.
pub(super) type ProcessKey = u64;
/// Where an invocation's answer goes.
pub(super) type Reply = oneshot::Sender<Result<Response, InvokeError>>;

/// An invocation as a process gets it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) request_id: String,
    pub(super) payload: Bytes,
    /// Milliseconds since 1970.
    pub(super) deadline_ms: i64,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    /// This process has no such invocation, or no longer.
    Unknown,
    /// It has been answered already.
    Answered,
}

pub(super) struct Pool {
    spec: FunctionSpec,
    sink: LogSink,
    watchdog: Watchdog,
    tasks: TaskTracker,
    stop: CancellationToken,
    state: Mutex<State>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    invocations: AtomicU64,
    cold_starts: AtomicU64,
    deaths: AtomicU64,
    timeouts: AtomicU64,
    throttles: AtomicU64,
}

#[derive(Default)]
struct State {
    processes: BTreeMap<ProcessKey, Process>,
    /// The polls that wait for an event; the latest is served first, so that a quiet pool stays small and warm.
    polls: Vec<Poll>,
    queue: VecDeque<Job>,
    next_key: ProcessKey,
    stopping: bool,
}

struct Process {
    pid: Option<u32>,
    phase: Phase,
    /// What it reported of a failed initialisation.
    failure: Option<String>,
    /// How many of its slots have been opened by a first poll; the others are still coming.
    opened: usize,
    running: BTreeMap<String, Running>,
    /// The deadlines of invocations that are answered while their process has not asked for the next one: what
    /// it does in between still belongs to them, and still times out.
    lingering: VecDeque<Instant>,
    changed: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Started, has not asked for an event yet.
    Starting,
    /// Killed before it asked for one.
    FailedStart,
    /// Has asked for an event at least once.
    Ready,
    /// Killed; gets nothing more.
    Condemned,
}

struct Running {
    deadline: Instant,
    /// Taken when the answer begins.
    reply: Option<Reply>,
}

struct Poll {
    key: ProcessKey,
    give: oneshot::Sender<Event>,
}

struct Job {
    request_id: String,
    payload: Bytes,
    reply: Reply,
}

impl Pool {
    pub(super) fn new(
        spec: FunctionSpec,
        sink: LogSink,
        watchdog: Watchdog,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { spec, sink, watchdog, tasks, stop, state: Mutex::default(), counters: Counters::default() }
    }

    pub(super) fn spec(&self) -> &FunctionSpec {
        &self.spec
    }

    pub(super) fn sink(&self) -> &LogSink {
        &self.sink
    }

    /// Queues an event, grows the pool if it must and waits until the function answers or begins to.
    pub(super) async fn invoke(self: &Arc<Self>, payload: Bytes) -> Result<Response, InvokeError> {
        let id = request_id();
        let (reply, mut answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.stopping {
                return Err(InvokeError::Stopping);
            }
            state.queue.push_back(Job { request_id: id.clone(), payload, reply });
            let launches = self.assign(&mut state);
            if state.queue.len() > QUEUE_MAX {
                state.queue.pop_back();
                return Err(self.throttled());
            }
            drop(state);
            self.launch(launches);
        }
        tokio::select! {
            answer = &mut answer => return answer.unwrap_or(Err(InvokeError::Stopping)),
            () = sleep(self.spec.queue_wait_max) => {}
        }
        if self.withdraw(&id) {
            return Err(self.throttled());
        }
        answer.await.unwrap_or(Err(InvokeError::Stopping))
    }

    /// A process asks for an event. `None`: it asks for more at once than its concurrency.
    pub(super) fn poll(self: &Arc<Self>, key: ProcessKey) -> Option<oneshot::Receiver<Event>> {
        let (give, waiting) = oneshot::channel();
        let mut state = self.lock();
        state.polls.retain(|poll| !poll.give.is_closed());
        let polls = state.polls.iter().filter(|poll| poll.key == key).count();
        let process = state.processes.get_mut(&key)?;
        if polls + process.running.len() >= concurrency(&self.spec) {
            return None;
        }
        match process.phase {
            Phase::Starting => process.phase = Phase::Ready,
            Phase::Ready => {}
            Phase::FailedStart | Phase::Condemned => return None,
        }
        process.lingering.pop_front();
        process.opened = process.opened.saturating_add(1);
        process.changed.notify_one();
        state.polls.push(Poll { key, give });
        let launches = self.assign(&mut state);
        drop(state);
        self.launch(launches);
        Some(waiting)
    }

    /// A process begins to answer an invocation.
    pub(super) fn begin_answer(&self, key: ProcessKey, id: &str) -> Result<Reply, Stale> {
        let mut state = self.lock();
        let running = state.processes.get_mut(&key).and_then(|process| process.running.get_mut(id));
        running.ok_or(Stale::Unknown)?.reply.take().ok_or(Stale::Answered)
    }

    /// A process has answered an invocation completely.
    pub(super) fn finish(&self, key: ProcessKey, id: &str) {
        let mut state = self.lock();
        if let Some(process) = state.processes.get_mut(&key)
            && let Some(running) = process.running.remove(id)
        {
            process.lingering.push_back(running.deadline);
        }
    }

    /// A process says that it cannot initialise; it is expected to exit.
    pub(super) fn init_failed(&self, key: ProcessKey, what: String) {
        if let Some(process) = self.lock().processes.get_mut(&key) {
            process.failure = Some(what);
        }
    }

    /// The earliest moment at which `expire` has something to do.
    pub(super) fn deadline(&self, key: ProcessKey, init_until: Instant) -> Option<Instant> {
        let state = self.lock();
        let process = state.processes.get(&key)?;
        match process.phase {
            Phase::FailedStart | Phase::Condemned => None,
            Phase::Starting => Some(init_until),
            Phase::Ready => process.earliest(),
        }
    }

    /// Kills a process of which a deadline has passed, as Lambda does.
    pub(super) fn expire(&self, key: ProcessKey, now: Instant, init_until: Instant) {
        let mut state = self.lock();
        let Some(process) = state.processes.get_mut(&key) else { return };
        let late = match process.phase {
            Phase::FailedStart | Phase::Condemned => false,
            Phase::Starting => init_until <= now,
            Phase::Ready => process.earliest().is_some_and(|deadline| deadline <= now),
        };
        if !late {
            return;
        }
        for running in process.running.values_mut().filter(|running| running.deadline <= now) {
            self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = running.reply.take() {
                reply.send(Err(InvokeError::TimedOut(self.spec.timeout))).ok();
            }
        }
        process.condemn();
        state.polls.retain(|poll| poll.key != key);
    }

    /// A process has ended: what it was doing fails, and whoever waits gets a new one.
    pub(super) fn exited(self: &Arc<Self>, key: ProcessKey, how: &str) {
        let mut state = self.lock();
        let launches = self.bury(&mut state, key, how);
        drop(state);
        self.launch(launches);
    }

    /// Kills one process that is in the middle of an invocation, one that is streaming if there is any.
    pub(super) fn kill_one(&self) -> Option<u32> {
        let mut state = self.lock();
        let busy = |process: &Process| process.phase == Phase::Ready && !process.running.is_empty();
        let streaming = |process: &Process| process.running.values().any(|running| running.reply.is_none());
        let mut victims = state.processes.iter().filter(|(_, process)| busy(process));
        let first = victims.clone().next();
        let key = *victims.find(|(_, process)| streaming(process)).or(first)?.0;
        let pid = state.processes.get_mut(&key).and_then(Process::condemn);
        state.polls.retain(|poll| poll.key != key);
        pid
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.lock().processes.values().filter_map(|process| process.pid).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let Counters { invocations, cold_starts, deaths, timeouts, throttles } = &self.counters;
        let [invocations, cold_starts, deaths, timeouts, throttles] =
            [invocations, cold_starts, deaths, timeouts, throttles]
                .map(|count| count.load(Ordering::Relaxed));
        Counts { invocations, cold_starts, deaths, timeouts, throttles }
    }

    /// Takes no more invocations, refuses those that wait and kills every process.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for job in state.queue.drain(..) {
            job.reply.send(Err(InvokeError::Stopping)).ok();
        }
        state.polls.clear();
        drop(state);
        self.kill_all();
    }

    pub(super) fn kill_all(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for process in state.processes.values_mut() {
            process.condemn();
        }
    }

    /// Resolves when the cloud stops.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant is broken half-way through by a panic: each change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttled(&self) -> InvokeError {
        self.counters.throttles.fetch_add(1, Ordering::Relaxed);
        InvokeError::TooManyRequests
    }

    fn withdraw(&self, id: &str) -> bool {
        let mut state = self.lock();
        let before = state.queue.len();
        state.queue.retain(|job| job.request_id != id);
        state.queue.len() < before
    }

    /// Hands waiting events to waiting polls; returns the processes to start for those that are left.
    fn assign(&self, state: &mut State) -> VecDeque<ProcessKey> {
        while let Some(job) = state.queue.pop_front() {
            if job.reply.is_closed() {
                continue;
            }
            if let Some(job) = self.hand_out(state, job) {
                state.queue.push_front(job);
                break;
            }
        }
        let mut launches = VecDeque::new();
        if state.stopping {
            return launches;
        }
        let slots = concurrency(&self.spec);
        let mut coming: usize = state.processes.values().map(|process| process.coming(slots)).sum();
        let pool_max = usize::try_from(self.spec.pool_max.get()).unwrap_or(usize::MAX);
        while state.queue.len() > coming && state.processes.len() < pool_max {
            let key = state.next_key;
            state.next_key = key.wrapping_add(1);
            state.processes.insert(key, Process::starting());
            launches.push_back(key);
            coming = coming.saturating_add(slots);
        }
        launches
    }

    /// Gives an event to a poll that still waits; gives it back if there is none.
    fn hand_out(&self, state: &mut State, job: Job) -> Option<Job> {
        let timeout_ms = i64::try_from(self.spec.timeout.as_millis()).unwrap_or(i64::MAX);
        while let Some(poll) = state.polls.pop() {
            let Some(process) = state.processes.get_mut(&poll.key) else { continue };
            let event = Event {
                request_id: job.request_id.clone(),
                payload: job.payload.clone(),
                deadline_ms: self.spec.clock.now_ms().saturating_add(timeout_ms),
            };
            if poll.give.send(event).is_err() {
                continue;
            }
            let deadline = Instant::now() + self.spec.timeout;
            process.running.insert(job.request_id, Running { deadline, reply: Some(job.reply) });
            process.changed.notify_one();
            self.counters.invocations.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(job)
    }

    /// Starts the processes that were decided on. One that cannot start costs one invocation, so this ends.
    fn launch(self: &Arc<Self>, mut launches: VecDeque<ProcessKey>) {
        while let Some(key) = launches.pop_front() {
            match Started::spawn(&self.spec) {
                Ok(started) => self.adopt(key, started),
                Err(error) => {
                    let how = format!("cannot start {}: {error}", self.spec.binary.display());
                    tracing::error!(function = self.spec.name, "{how}");
                    launches.extend(self.bury(&mut self.lock(), key, &how));
                }
            }
        }
    }

    fn adopt(self: &Arc<Self>, key: ProcessKey, started: Started) {
        let pid = started.pid();
        self.watchdog.watch(pid);
        self.counters.cold_starts.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let Some(process) = state.processes.get_mut(&key) else {
            return kill_group(pid);
        };
        process.pid = Some(pid);
        if process.phase != Phase::Starting {
            kill_group(pid);
        }
        let changed = Arc::clone(&process.changed);
        drop(state);
        self.tasks.spawn(supervise(Arc::clone(self), key, started, changed));
    }

    fn bury(&self, state: &mut State, key: ProcessKey, how: &str) -> VecDeque<ProcessKey> {
        let Some(process) = state.processes.remove(&key) else { return VecDeque::new() };
        if let Some(pid) = process.pid {
            self.watchdog.forget(pid);
        }
        state.polls.retain(|poll| poll.key != key);
        if state.stopping {
            return VecDeque::new();
        }
        self.counters.deaths.fetch_add(1, Ordering::Relaxed);
        for reply in process.running.into_values().filter_map(|running| running.reply) {
            reply.send(Err(InvokeError::Exited(how.to_owned()))).ok();
        }
        if matches!(process.phase, Phase::Starting | Phase::FailedStart) {
            // On Lambda a failed start fails the invocation that it was for. So a function that cannot start
            // costs one process for each invocation, and never a loop of restarts.
            if let Some(job) = state.queue.pop_front() {
                job.reply
                    .send(Err(InvokeError::Init(process.failure.unwrap_or_else(|| how.to_owned()))))
                    .ok();
            }
        }
        self.assign(state)
    }
}

impl Process {
    fn starting() -> Self {
        Self {
            pid: None,
            phase: Phase::Starting,
            failure: None,
            opened: 0,
            running: BTreeMap::new(),
            lingering: VecDeque::new(),
            changed: Arc::default(),
        }
    }

    /// Slots that this process will open by itself, of the `slots` that it has.
    fn coming(&self, slots: usize) -> usize {
        match self.phase {
            Phase::Starting | Phase::Ready => slots.saturating_sub(self.opened),
            Phase::FailedStart | Phase::Condemned => 0,
        }
    }

    fn earliest(&self) -> Option<Instant> {
        self.running.values().map(|running| running.deadline).chain(self.lingering.iter().copied()).min()
    }

    /// Kills the process; it stays in the pool, without work, until it is known to have ended.
    fn condemn(&mut self) -> Option<u32> {
        self.phase = match self.phase {
            Phase::Starting | Phase::FailedStart => Phase::FailedStart,
            Phase::Ready | Phase::Condemned => Phase::Condemned,
        };
        let pid = self.pid?;
        kill_group(pid);
        Some(pid)
    }
}

fn concurrency(spec: &FunctionSpec) -> usize {
    usize::try_from(spec.concurrency.get()).unwrap_or(usize::MAX)
}
