//! A stand-in for Stripe that is strict and keeps state, for one machine.
//!
//! It owns an account in memory: customers, products, prices with graduated tiers, billing meters, subscriptions with
//! periods, meter events, invoices and webhooks, at API version 2026-09-30.endive. It refuses what Stripe refuses, in
//! Stripe's words; what Stripe has and this does not is a 501 that says so. It must never depend on the product: code
//! that checks the product must not be the product's.
//!
//! Which rules it models and where Stripe documents them, and what it does not model:
#![doc = include_str!("README.md")]

mod billing;
mod calendar;
mod catalog;
mod checkout;
mod clock;
mod contract;
mod customers;
mod destinations;
mod disputes;
#[cfg(test)]
mod endpoint_tests;
mod endpoints;
mod error;
mod faults;
mod form;
mod http;
mod idempotency;
mod invoice_items;
mod invoices;
mod meter_errors;
mod meter_events;
mod money;
mod pages;
mod payments;
mod portal;
mod proration;
mod record;
mod schedules;
mod subscription_update;
mod subscriptions;
#[cfg(test)]
mod tests;
mod urls;
mod view;
mod webhooks;
mod wire;
mod world;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use calendar::DAY_S;
use clock::Clock;
use error::ApiError;
use faults::{Busy, Faults, RateLimit};
use idempotency::Keys;
use record::Record;
use webhooks::{Payload, Which};
use world::World;

pub use checkout::CheckoutError;
pub use contract::{EndpointCalls, StrictnessReport};
pub use faults::Fault;
pub use payments::{Card, DunningEnd};
pub use view::{
    InvoiceLine, InvoiceStatus, InvoiceView, MeterEventView, NoSuchObject, RefusedBefore, RejectedEvent,
};
pub use webhooks::{Mischief, Undelivered, WebhookEndpoint, WebhookEvent};

/// How often the clock is looked at for what has become due.
const TICK: Duration = Duration::from_secs(1);
/// Events that are sent at the same time.
const MAX_SENDING: usize = 4;
/// How long a change waits for the locks of its objects.
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// Farthest that the clock can be moved on at once, in seconds: ten years.
const MAX_ADVANCE_S: i64 = 10 * 366 * DAY_S;

/// Who sends webhooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The server, as soon as they are due by its clock.
    #[default]
    Automatic,
    /// Only [`Stripe::deliver_pending`] and [`Stripe::advance_to`].
    OnDemand,
}

/// Which clock the `t` of a webhook's signature is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureClock {
    /// The machine's, as with the test clocks of the real Stripe: the receiver's own clock agrees with it.
    #[default]
    Machine,
    /// Stripe's, with its offset: for receivers whose clock is moved too.
    Stripe,
}

/// How the stand-in behaves.
#[derive(Clone)]
pub struct Options {
    /// The secret key that every request must bring.
    pub api_key: String,
    /// Where events are sent; `None`: nowhere.
    pub webhook: Option<WebhookEndpoint>,
    /// Who sends them.
    pub delivery: Delivery,
    /// Which clock signs them.
    pub signature_clock: SignatureClock,
    /// Most requests in one second; `None`: no limit. The real limits are 1,000 live and 25 in a sandbox.
    pub requests_per_s_max: Option<NonZeroU32>,
    /// How long a meter event is worked on, and holds its customer's lock.
    pub meter_event_latency: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api_key: "sk_test_local".to_owned(),
            webhook: None,
            delivery: Delivery::default(),
            signature_clock: SignatureClock::default(),
            requests_per_s_max: None,
            meter_event_latency: Duration::ZERO,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("api_key", &"redacted")
            .field("webhook", &self.webhook)
            .field("delivery", &self.delivery)
            .field("signature_clock", &self.signature_clock)
            .field("requests_per_s_max", &self.requests_per_s_max)
            .field("meter_event_latency", &self.meter_event_latency)
            .finish()
    }
}

/// The clock was to be moved on by more than ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Stripe's clock cannot be moved on by more than ten years at once")]
pub struct AdvanceTooFar;

/// What the server, the worker and the handle share.
struct Shared {
    api_key: String,
    delivery: Delivery,
    signature_clock: SignatureClock,
    meter_event_latency: Duration,
    clock: Clock,
    world: Mutex<World>,
    keys: Mutex<Keys>,
    faults: Mutex<Faults>,
    rate: Mutex<RateLimit>,
    report: Mutex<StrictnessReport>,
    record: Record,
    /// The beginnings of the paths whose requests wait, and how many wait.
    held: watch::Sender<Vec<String>>,
    at_held: watch::Sender<usize>,
    busy: Mutex<Busy>,
    /// Told whenever the locks of some objects are free again.
    released: Notify,
    /// How many holders keep the gate of meter events shut.
    gate: watch::Sender<usize>,
    /// How many meter events are between their lock and their answer.
    at_gate: watch::Sender<usize>,
    client: reqwest::Client,
    /// Only one pass over the undelivered events at a time: none is sent twice at once.
    delivering: tokio::sync::Mutex<()>,
    wake: Notify,
    requests: AtomicU64,
    run: u32,
    stop: CancellationToken,
}

/// A poisoned lock is a panic elsewhere, which that test or task reports; the account itself is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn next_request_id(&self) -> String {
        format!("req_Local{:08x}{:08}", self.run, self.requests.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes the lock of a meter and customer, unless another request has it.
    fn work_on(&self, pair: (String, String)) -> Result<Working<'_>, ApiError> {
        if !lock(&self.busy).insert(pair.clone()) {
            return Err(ApiError::lock_timeout());
        }
        self.at_gate.send_modify(|count| *count += 1);
        Ok(Working { shared: self, pair })
    }

    /// Takes the locks of the objects that a request changes, all or none. It waits for a while, as the real one does.
    async fn work_on_objects(&self, objects: Vec<String>) -> Result<WorkingOn<'_>, ApiError> {
        let taken = async {
            loop {
                // Before the look, so that no release is missed after it.
                let released = self.released.notified();
                if self.try_lock(&objects) {
                    return;
                }
                released.await;
            }
        };
        let taken = tokio::time::timeout(LOCK_WAIT, taken).await;
        taken.map_err(|_| ApiError::lock_timeout())?;
        Ok(WorkingOn { shared: self, objects })
    }

    fn try_lock(&self, objects: &[String]) -> bool {
        let mut busy = lock(&self.busy);
        let free = !objects.iter().any(|id| busy.contains(&(String::new(), id.clone())));
        if free {
            busy.extend(objects.iter().map(|id| (String::new(), id.clone())));
        }
        free
    }

    /// Waits while requests with this path are held.
    async fn pass_held(&self, path: &str) {
        let is_held = |held: &Vec<String>| held.iter().any(|prefix| path.starts_with(prefix.as_str()));
        let mut held = self.held.subscribe();
        if !is_held(&held.borrow_and_update()) {
            return;
        }
        let _waiting = Waiting::new(&self.at_held);
        tokio::select! {
            _ = held.wait_for(|held| !is_held(held)) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Whose key this is.
    fn key_of(&self, key: &str) -> Option<Key> {
        let live = self.api_key.strip_prefix("sk_test_").map(|rest| format!("sk_live_{rest}"));
        match key {
            key if key == self.api_key => Some(Key::Account),
            key if Some(key) == live.as_deref() => Some(Key::Live),
            _ => None,
        }
    }

    async fn pass_gate(&self) {
        if !self.meter_event_latency.is_zero() {
            tokio::time::sleep(self.meter_event_latency).await;
        }
        let mut gate = self.gate.subscribe();
        tokio::select! {
            _ = gate.wait_for(|holders| *holders == 0) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn catch_up(&self) {
        billing::catch_up(&mut lock(&self.world), self.clock.now_s());
    }

    fn wake_if_due(&self) {
        if lock(&self.world).outbox.next_attempt_s() <= self.clock.now_s() {
            self.wake.notify_one();
        }
    }

    /// Sends what waits, and notes what was heard.
    async fn deliver(&self, which: Which) {
        let _turn = self.delivering.lock().await;
        let (ready, sending) = {
            let outbox = &lock(&self.world).outbox;
            (outbox.ready(which, self.clock.now_s()), if outbox.one_by_one() { 1 } else { MAX_SENDING })
        };
        let deliveries = ready.into_iter().map(|number| self.deliver_one(number));
        futures_util::stream::iter(deliveries).for_each_concurrent(sending, |delivery| delivery).await;
    }

    async fn deliver_one(&self, number: u64) {
        let Some(attempt) = lock(&self.world).outbox.attempt(number, self.clock.now_s()) else { return };
        let signed_s = match self.signature_clock {
            SignatureClock::Machine => Clock::real_s(),
            SignatureClock::Stripe => self.clock.now_s(),
        };
        let heard = webhooks::send(&self.client, &attempt, signed_s).await;
        let now_s = self.clock.now_s();
        let mut world = lock(&self.world);
        let Some(invoice) = world.outbox.note(attempt.number, heard, now_s) else { return };
        if let Some(invoice) = world.invoices.get_mut(&invoice) {
            invoice.announced_s = Some(now_s);
        }
        world.next_due_s = None;
    }

    /// Keeps up with the clock until the server stops.
    async fn work(&self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            self.catch_up();
            if self.delivery == Delivery::Automatic {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = self.deliver(Which::Due) => {}
                }
            }
        }
    }
}

/// The lock of a meter and customer.
struct Working<'a> {
    shared: &'a Shared,
    pair: (String, String),
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        lock(&self.shared.busy).remove(&self.pair);
        self.shared.at_gate.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Whose key a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// The key that the stand-in was started with.
    Account,
    /// The live key of the same account: the same name with `sk_live_`.
    Live,
}

/// The locks of the objects that a request changes.
struct WorkingOn<'a> {
    shared: &'a Shared,
    objects: Vec<String>,
}

impl Drop for WorkingOn<'_> {
    fn drop(&mut self) {
        let mut busy = lock(&self.shared.busy);
        for id in std::mem::take(&mut self.objects) {
            busy.remove(&(String::new(), id));
        }
        drop(busy);
        self.shared.released.notify_waiters();
    }
}

/// Counts a request while it waits, also if its client leaves.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Keeps requests with a path from being done; they wait, holding the locks of their objects, until this is dropped.
#[must_use = "dropping it lets the requests pass"]
pub struct HeldRequests {
    shared: Arc<Shared>,
    prefix: String,
}

impl HeldRequests {
    /// Waits until `n` requests wait.
    pub async fn arrived(&self, n: usize) {
        let mut waiting = self.shared.at_held.subscribe();
        // The sender lives in `shared`, so that this cannot fail.
        let _arrived = waiting.wait_for(|count| *count >= n).await;
    }
}

impl Drop for HeldRequests {
    fn drop(&mut self) {
        self.shared.held.send_modify(|held| {
            if let Some(at) = held.iter().position(|prefix| *prefix == self.prefix) {
                held.remove(at);
            }
        });
    }
}

/// Keeps meter events from being taken; they wait, holding their customer's lock, until this is dropped.
#[must_use = "dropping it lets the meter events pass"]
pub struct HeldMeterEvents {
    shared: Arc<Shared>,
}

impl HeldMeterEvents {
    /// Waits until `n` meter events wait.
    pub async fn arrived(&self, n: usize) {
        let mut waiting = self.shared.at_gate.subscribe();
        // The sender lives in `shared`, so that this cannot fail.
        let _arrived = waiting.wait_for(|count| *count >= n).await;
    }
}

impl Drop for HeldMeterEvents {
    fn drop(&mut self) {
        self.shared.gate.send_modify(|holders| *holders = holders.saturating_sub(1));
    }
}

/// A running stand-in. Clones are the same one; the last one that is dropped stops it.
#[derive(Clone)]
pub struct Stripe {
    running: Arc<Running>,
}

struct Running {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: TaskTracker,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl std::fmt::Debug for Stripe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stripe").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

/// Starts the stand-in on a listener, which must be on the loopback interface.
///
/// # Errors
/// If the listener has no address, is not on the loopback interface, or the client for the webhooks cannot be built.
#[expect(
    clippy::unused_async,
    reason = "it spawns tasks, so that it needs a runtime: an async signature says so"
)]
pub async fn start(listener: TcpListener, options: Options) -> std::io::Result<Stripe> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(std::io::Error::other("the stand-in for Stripe listens on the loopback interface only"));
    }
    let run = rand::random();
    let mut world = World::new(run);
    world.outbox.set_simple(Payload::Snapshot, options.webhook);
    world.base_url = format!("http://{address}/");
    let shared = Arc::new(Shared {
        api_key: options.api_key,
        delivery: options.delivery,
        signature_clock: options.signature_clock,
        meter_event_latency: options.meter_event_latency,
        clock: Clock::default(),
        world: Mutex::new(world),
        keys: Mutex::default(),
        faults: Mutex::default(),
        rate: Mutex::new(RateLimit::new(options.requests_per_s_max)),
        report: Mutex::default(),
        record: Record::from_env()?,
        held: watch::Sender::default(),
        at_held: watch::Sender::default(),
        busy: Mutex::default(),
        released: Notify::new(),
        gate: watch::Sender::new(0),
        at_gate: watch::Sender::new(0),
        client: client()?,
        delivering: tokio::sync::Mutex::new(()),
        wake: Notify::new(),
        requests: AtomicU64::new(1),
        run,
        stop: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    let router = Router::new().fallback(http::handle).with_state(shared.clone());
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    });
    let server = axum::serve(listener, router).with_graceful_shutdown(shared.stop.clone().cancelled_owned());
    tasks.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the stand-in for Stripe stopped");
        }
    });
    let worker = shared.clone();
    tasks.spawn(async move { worker.work().await });
    tasks.close();
    Ok(Stripe { running: Arc::new(Running { shared, address, tasks }) })
}

/// The client for the webhooks: the endpoint is on this machine, so that it trusts no certificate and follows nothing.
fn client() -> std::io::Result<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(std::io::Error::other)
}

impl Stripe {
    fn shared(&self) -> &Shared {
        &self.running.shared
    }

    /// The URL to point a client at, with a `/` at its end.
    pub fn base_url(&self) -> String {
        format!("http://{}/", self.running.address)
    }

    /// Stops the server and waits until everything it does has ended.
    pub async fn shutdown(&self) {
        self.shared().stop.cancel();
        self.running.tasks.wait().await;
    }

    /// Stripe's time, in Unix seconds.
    pub fn now_s(&self) -> i64 {
        self.shared().clock.now_s()
    }

    /// Sets Stripe's time to the machine's plus this many seconds, which may be negative. Moving it back undoes nothing;
    /// moving it on makes everything due at once, before any webhook is sent. [`Stripe::advance_to`] is the gentle way.
    pub fn set_offset(&self, offset_s: i64) {
        self.shared().clock.set_offset_s(offset_s);
        self.shared().catch_up();
        self.shared().wake_if_due();
    }

    /// Moves Stripe's clock on to a time, in Unix seconds. On the way it stops at every time at which something is due
    /// (a period ends, a draft becomes final, an event is sent again) and sends the webhooks of that time before it goes
    /// on. A time that has passed only catches up.
    ///
    /// # Errors
    /// [`AdvanceTooFar`] beyond ten years.
    pub async fn advance_to(&self, unix_s: i64) -> Result<(), AdvanceTooFar> {
        let shared = self.shared();
        if unix_s.saturating_sub(shared.clock.now_s()) > MAX_ADVANCE_S {
            return Err(AdvanceTooFar);
        }
        // Every pass makes what is due done or sends it later, so that the passes end.
        loop {
            shared.catch_up();
            shared.deliver(Which::Due).await;
            let next_s = {
                let mut world = lock(&shared.world);
                // What waits for nobody does not count, and does not stop the clock.
                let sends_s = world.outbox.next_attempt_s();
                billing::next_due_s(&mut world).min(sends_s)
            };
            if next_s > unix_s {
                break;
            }
            shared.clock.move_on_to(next_s);
        }
        shared.clock.move_on_to(unix_s);
        shared.catch_up();
        shared.deliver(Which::Due).await;
        Ok(())
    }

    /// Lets the next `n` requests fail.
    pub fn fail_next(&self, n: usize, fault: Fault) {
        self.fail_next_on("/", n, fault);
    }

    /// Lets the next `n` requests fail whose path begins with `prefix`, such as `/v1/billing/meter_events`.
    pub fn fail_next_on(&self, prefix: &str, n: usize, fault: Fault) {
        lock(&self.shared().faults).push(prefix, n, fault);
    }

    /// How many faults still wait for a request.
    pub fn faults_waiting(&self) -> usize {
        lock(&self.shared().faults).waiting()
    }

    /// Whether every request is answered 503, with nothing done.
    pub fn set_outage(&self, outage: bool) {
        lock(&self.shared().faults).outage = outage;
    }

    /// Keeps meter events from being taken until the answer is dropped.
    pub fn hold_meter_events(&self) -> HeldMeterEvents {
        self.shared().gate.send_modify(|holders| *holders += 1);
        HeldMeterEvents { shared: self.running.shared.clone() }
    }

    /// Keeps changes (not reads) whose path begins with `prefix` from being done until the answer is dropped; meter events have
    /// their own gate.
    pub fn hold_requests(&self, prefix: &str) -> HeldRequests {
        self.shared().held.send_modify(|held| held.push(prefix.to_owned()));
        HeldRequests { shared: self.running.shared.clone(), prefix: prefix.to_owned() }
    }

    /// Which endpoints were called, and how often they refused.
    pub fn strictness_report(&self) -> StrictnessReport {
        lock(&self.shared().report).clone()
    }

    /// Does what the button on the page of a checkout session does: pays, and makes the subscription.
    ///
    /// # Errors
    /// If the session is not open, or the subscription is refused; the session is then as it was.
    pub fn complete_checkout(&self, session_id: &str) -> Result<(), CheckoutError> {
        let now_s = self.now_s();
        self.shared().catch_up();
        let done = checkout::complete(&mut lock(&self.shared().world), session_id, now_s);
        self.shared().wake_if_due();
        done
    }

    /// Does what saving the portal's settings in the dashboard does: makes the default configuration, which lets customers
    /// cancel at the period's end, see invoices and change cards. Without it a portal session must name a configuration.
    /// Its id; `None` if the account is full.
    pub fn save_default_portal(&self) -> Option<String> {
        let now_s = self.now_s();
        portal::save_default(&mut lock(&self.shared().world), now_s).ok()
    }

    /// How long a meter event takes from now on to show in the summaries, in seconds of Stripe's clock: the real ones are
    /// only eventually consistent.
    pub fn set_summary_lag(&self, lag_s: u32) {
        lock(&self.shared().world).summary_lag_s = i64::from(lag_s);
    }

    /// Where events are sent from now on, while no endpoint is listed; what waits goes there too.
    pub fn set_webhook(&self, webhook: Option<WebhookEndpoint>) {
        lock(&self.shared().world).outbox.set_simple(Payload::Snapshot, webhook);
        self.shared().wake_if_due();
    }

    /// Sends every event that waits until it is taken, at most so many times. How many still wait.
    pub async fn deliver_all(&self, times_max: u32) -> usize {
        let mut waiting = self.undelivered().len();
        for _ in 0..times_max {
            if waiting == 0 {
                break;
            }
            waiting = self.deliver_pending().await;
        }
        waiting
    }

    /// Sends every event that waits, due or not, once. How many still wait.
    pub async fn deliver_pending(&self) -> usize {
        self.shared().deliver(Which::All).await;
        self.undelivered().len()
    }
}
