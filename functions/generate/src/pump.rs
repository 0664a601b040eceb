//! The pump: reads the provider's answer to its end, settles, and only then lets the body close.
//!
//! It depends on nobody listening. A client that left, or that does not take what it is sent, changes nothing but
//! that no more is sent: what was asked for is read to its end and paid for. It ends before the function's own deadline, because
//! Lambda kills what is still running then, and with it the settle.

use crate::{
    answer::{Answer, Ending},
    budget::Allowance,
    call::Started,
    stop::StopWatch,
    wire::Protocol,
};
use bytes::Bytes;
use domain::{ANSWER_BYTES_MAX, Classes, ModelPrice, Receipt, Timestamp, Tokens, Usage};
use edge::log::chain;
use ledger::{Ledger, OpenClaim, OpenHold, Store};
use openai::{Event, FinishReason, StreamError};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Chunks that wait for the client. Few, because the gateway reads ahead anyway, and each may be a line of text.
const CHUNKS_MAX: usize = 64;
/// How long a client may leave a full queue as it is, before nothing more is sent to it.
const STALL: Duration = Duration::from_secs(30);
/// After so much silence of the provider the connection is kept open with a comment: gateways close idle ones, at the
/// edge after 30 s.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
/// What is kept free at the end of an invocation for cutting the provider and settling.
const SETTLE_MARGIN_MS: u64 = 15_000;
/// What is kept free after that for saying that it did not work.
const LAST_WORDS_MS: u64 = 1_000;
/// How long keeping an answer may delay its settle.
const KEEP_WAIT: Duration = Duration::from_secs(5);
/// The least time for an answer that makes it worth asking.
const ANSWER_MS_MIN: u64 = 1_000;
/// How much longer than the invocation a hold lives: more than any two clocks differ.
const HOLD_MARGIN_MS: u64 = 15_000;
/// How long an invocation lasts where nothing says so, which is outside of Lambda only.
const INVOCATION_MS_DEFAULT: u64 = 300_000;

/// By when what has to have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// The provider is cut.
    pub cut_by: Instant,
    /// The settle has to be through.
    pub settled_by: Instant,
    /// How long a hold lives, in milliseconds from now.
    pub hold_ms: u64,
    /// How long a client may take nothing.
    pub stall: Duration,
    /// After how much silence of the provider a comment is sent.
    pub keep_alive_after: Duration,
}

impl Deadlines {
    /// Those of an invocation that is killed at `killed_at`; none if there is no time to answer and settle.
    pub fn of(killed_at: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let left_ms = killed_at.map_or(INVOCATION_MS_DEFAULT, |at| at.ms_since(now));
        let answer_ms = left_ms.checked_sub(SETTLE_MARGIN_MS).filter(|ms| *ms >= ANSWER_MS_MIN)?;
        let settle_ms = left_ms.saturating_sub(LAST_WORDS_MS);
        let begun = Instant::now();
        Some(Self {
            cut_by: begun + Duration::from_millis(answer_ms),
            settled_by: begun + Duration::from_millis(settle_ms),
            hold_ms: left_ms.saturating_add(HOLD_MARGIN_MS),
            stall: STALL,
            keep_alive_after: KEEP_ALIVE_AFTER,
        })
    }
}

/// Whoever reads the answer, as long as there is anybody.
struct Listener {
    sender: Option<mpsc::Sender<Bytes>>,
    /// The place of the last chunk, so that a client that was too slow still learns that its text is not whole.
    last: Option<mpsc::OwnedPermit<Bytes>>,
    deadlines: Deadlines,
}

impl Listener {
    fn new(deadlines: Deadlines) -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX + 1);
        let last = sender.clone().try_reserve_owned().ok();
        (Self { sender: Some(sender), last, deadlines }, receiver)
    }

    /// Sends a chunk; to a client that is gone, or takes nothing for [`STALL`], this one and all later ones are lost.
    async fn send(&mut self, chunk: Bytes) {
        let Some(sender) = &self.sender else { return };
        let by = self.deadlines.cut_by.min(Instant::now() + self.deadlines.stall);
        if !matches!(timeout_at(by, sender.send(chunk)).await, Ok(Ok(()))) {
            self.sender = None;
        }
    }

    /// Whether everything so far was taken.
    fn has_all(&self) -> bool {
        self.sender.is_some()
    }

    /// Sends the last chunk and closes the body.
    fn close(self, chunk: Bytes) {
        if let Some(last) = self.last {
            drop(last.send(chunk));
        }
    }
}

/// How the provider's answer ended.
#[derive(Debug)]
enum End {
    /// As it should.
    Complete(FinishReason, Option<Classes>),
    /// Before its end, by the provider.
    Failed(StreamError),
    /// Before its end, by us.
    OutOfTime,
    /// Before its end, by the user.
    Stopped,
}

impl End {
    fn ending(&self) -> Ending {
        match self {
            Self::Complete(reason, _) => (*reason).into(),
            Self::Failed(_) => Ending::Cut,
            Self::OutOfTime => Ending::OutOfTime,
            Self::Stopped => Ending::Stopped,
        }
    }
}

/// Ends holds in the ledger, by the invocation's deadline.
#[derive(Clone)]
pub(crate) struct Closing<S> {
    pub(crate) ledger: Ledger<S>,
    pub(crate) deadlines: Deadlines,
    /// The clock.
    pub(crate) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// A request whose answer has begun.
pub(crate) struct Begun<S> {
    pub(crate) hold: OpenHold,
    /// What its call can cost, reserved.
    pub(crate) allowance: Allowance<S>,
    pub(crate) started: Started,
    pub(crate) watch: StopWatch,
}

/// What is kept for a repeat.
pub(crate) struct Keeping {
    claim: OpenClaim,
    /// The text so far; none where answers are not kept, or this one is too long to be.
    text: Option<String>,
}

impl Keeping {
    pub(crate) fn new(claim: OpenClaim, keeps_answers: bool) -> Self {
        Self { claim, text: keeps_answers.then(String::new) }
    }

    fn push(&mut self, more: &str) {
        self.text.take_if(|text| text.len() + more.len() > ANSWER_BYTES_MAX);
        if let Some(text) = &mut self.text {
            text.push_str(more);
        }
    }
}

/// One answer on its way from the provider to the client and into the ledger.
pub(crate) struct Pump<S> {
    closing: Closing<S>,
    begun: Begun<S>,
    protocol: Protocol,
    keeping: Option<Keeping>,
    listener: Listener,
}

impl<S: Store> Pump<S> {
    /// A pump for one answer, and the chunks that it will send. It must be run: dropping it leaves the hold to its expiry.
    pub(crate) fn new(
        closing: Closing<S>,
        begun: Begun<S>,
        protocol: Protocol,
        keeping: Option<Keeping>,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (listener, chunks) = Listener::new(closing.deadlines);
        (Self { closing, begun, protocol, keeping, listener }, chunks)
    }

    /// Runs it to its end: start, text, keep, settle, finish or error, in this order.
    pub(crate) async fn run(mut self) {
        self.listener.send(self.protocol.start(self.begun.hold.id())).await;
        let end = self.pour().await;
        let Self { closing, begun, protocol, keeping, listener } = self;
        let Begun { hold, mut allowance, started, watch } = begun;
        let Started { stream, price, .. } = started;
        let (served, counted) = (stream.estimate(), stream.counted());
        // Only a closed connection makes a provider stop, and stop charging.
        drop((stream, watch));
        log_end(&end, &hold, served);
        let ending = end.ending();
        let whole = listener.has_all() || matches!(end, End::Stopped);
        let usage = match end {
            End::Complete(_, usage) => usage,
            // An answer that ended before its first text served nothing, so nothing is charged, whatever it may have cost; of what
            // was reserved nothing comes back.
            _ if served.completion() == Tokens::ZERO => {
                closing.void(hold, Some(&price)).await;
                closing.drop_claim(keeping.map(|keeping| keeping.claim)).await;
                return listener.close(ending.chunk(protocol, None));
            }
            // What the provider counted, if that came before the end.
            End::Failed(_) | End::OutOfTime | End::Stopped => counted,
        };
        let usage = usage.map_or(Usage::Estimated(served), Usage::Exact);
        let answer = Answer {
            text: String::new(),
            ending,
            usage,
            model: price.model.clone(),
            clamped: hold.clamped(),
        };
        let receipt = closing.keep_and_settle(hold, keeping, &answer, &price).await;
        allowance.used(price.cost(usage.classes()));
        let metadata = answer.metadata(receipt.as_ref(), false);
        listener.close(if whole {
            ending.chunk(protocol, Some(&metadata))
        } else {
            protocol.cut("The connection was too slow; part of the answer is missing here.", Some(&metadata))
        });
    }

    /// Passes text on until the answer ends. Each turn takes an event, of which a stream has a bounded number, or a
    /// [`KEEP_ALIVE_AFTER`] of the time.
    async fn pour(&mut self) -> End {
        let mut reason = FinishReason::Other;
        let mut usage = None;
        let Deadlines { cut_by, keep_alive_after, .. } = self.closing.deadlines;
        let mut first = Some(self.begun.started.first.clone());
        while Instant::now() < cut_by {
            let until = cut_by.min(Instant::now() + keep_alive_after);
            let next = if let Some(first) = first.take() {
                Ok(Some(Ok(first)))
            } else {
                tokio::select! {
                    biased;
                    () = self.begun.watch.stopped() => return End::Stopped,
                    next = timeout_at(until, self.begun.started.stream.next()) => next,
                }
            };
            let chunk = match next {
                Err(_) => self.protocol.keep_alive(),
                Ok(Some(Ok(Event::Text(text)))) => {
                    if let Some(keeping) = &mut self.keeping {
                        keeping.push(&text);
                    }
                    Some(self.protocol.delta(&text))
                }
                Ok(Some(Ok(Event::Finish(why)))) => {
                    reason = why;
                    None
                }
                Ok(Some(Ok(Event::Usage(classes)))) => {
                    usage = Some(classes);
                    None
                }
                Ok(Some(Ok(Event::Done))) => return End::Complete(reason, usage),
                Ok(Some(Err(error))) => return End::Failed(error),
                // A stream says `Done` or fails before it has nothing more.
                Ok(None) => return End::Failed(StreamError::Cut),
            };
            let Some(chunk) = chunk else { continue };
            // Whoever has pressed Stop reads no more, and a full queue must not keep that from being seen.
            tokio::select! {
                biased;
                () = self.begun.watch.stopped() => return End::Stopped,
                () = self.listener.send(chunk) => {}
            }
        }
        End::OutOfTime
    }
}

fn log_end(end: &End, hold: &OpenHold, served: Classes) {
    let (user, id, output_tokens_served) = (hold.user(), hold.id(), served.completion().get());
    match end {
        End::Complete(..) => {}
        End::Failed(error) => tracing::warn!(error = chain(error), %user, %id, output_tokens_served,
            "the provider's answer ended before its end"),
        End::OutOfTime => {
            tracing::warn!(%user, %id, output_tokens_served, "the answer took too long and was cut");
        }
        End::Stopped => tracing::info!(%user, %id, output_tokens_served, "stopped by the user"),
    }
}

impl<S: Store> Closing<S> {
    /// Keeps the answer for a repeat, then settles: whoever is killed in between has given an answer away, and not
    /// charged for one that is lost. Where the store is slow to keep it, what was served is settled first.
    pub(crate) async fn keep_and_settle(
        &self,
        hold: OpenHold,
        keeping: Option<Keeping>,
        answer: &Answer,
        price: &ModelPrice,
    ) -> Option<Receipt> {
        let Some(Keeping { claim, text }) = keeping else {
            return self.settle(hold, answer.usage, price).await;
        };
        let kept = text.and_then(|text| Answer { text, ..answer.clone() }.write());
        let reference = hold.reference();
        let end = || self.ledger.end_claim(&claim, reference.clone(), kept.clone());
        let in_time = self.deadlines.settled_by.min(Instant::now() + KEEP_WAIT);
        let done = matches!(timeout_at(in_time, end()).await, Ok(Ok(())));
        let (user, id) = (hold.user().clone(), hold.id().clone());
        let receipt = self.settle(hold, answer.usage, price).await;
        // The client waits for the last words meanwhile, so not for long.
        let in_time = self.deadlines.settled_by.min(Instant::now() + KEEP_WAIT);
        if !done && !matches!(timeout_at(in_time, end()).await, Ok(Ok(()))) {
            tracing::error!(%user, %id, "the answer is not kept; a repeat will be told that it was given");
        }
        receipt
    }

    /// Settles. Usage that could not be stored is money lost: its line is what an alarm is set on.
    async fn settle(&self, hold: OpenHold, usage: Usage, price: &ModelPrice) -> Option<Receipt> {
        let (user, id) = (hold.user().clone(), hold.id().clone());
        let tokens = usage.classes().total().get();
        let settle = self.ledger.settle(hold, usage, price, (self.now)());
        match timeout_at(self.deadlines.settled_by, settle).await {
            Ok(Ok(receipt)) => {
                tracing::info!(%user, %id, model = %price.model, tokens, charged = receipt.charged.get(),
                    absorbed = receipt.absorbed.get(), cost_nano_usd = receipt.cost.get(),
                    estimated = matches!(usage, Usage::Estimated(_)), "settled");
                Some(receipt)
            }
            Ok(Err(error)) => {
                tracing::error!(alarm = "usage_lost", error = chain(&error), %user, %id, tokens, "not settled");
                None
            }
            Err(_) => {
                tracing::error!(alarm = "usage_lost", error = "out of time", %user, %id, tokens, "not settled");
                None
            }
        }
    }

    /// Takes back a request that was never served. Where that fails, the hold's expiry does it, later. `called` is the price
    /// of a call that had an answer, though no text.
    pub(crate) async fn void(&self, mut hold: OpenHold, called: Option<&ModelPrice>) {
        if let Some(price) = called {
            let size = hold.size();
            hold.note_failed_call(Some(price.cost_most(size.prompt, size.output)));
        }
        let (user, id) = (hold.user().clone(), hold.id().clone());
        let void = self.ledger.void(hold, (self.now)());
        match timeout_at(self.deadlines.settled_by, void).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), %user, %id, "not voided; its hold will expire");
            }
            Err(_) => tracing::error!(error = "out of time", %user, %id, "not voided; its hold will expire"),
        }
    }
    /// Gives an idempotency key free. Where that fails, repeats wait until the claim's time is out.
    pub(crate) async fn drop_claim(&self, claim: Option<OpenClaim>) {
        let Some(claim) = claim else { return };
        match timeout_at(self.deadlines.settled_by, self.ledger.drop_claim(claim)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "an idempotency key is not free yet"),
            Err(_) => tracing::warn!(error = "out of time", "an idempotency key is not free yet"),
        }
    }
}
