//! The pump: reads the provider's answer to its end, settles, and only then lets the body close.
//!
//! It depends on nobody listening. A client that left, or that does not take what it is sent, changes nothing but
//! that no more is sent: what was asked for is read to its end and paid for. It ends before the function's own deadline, because
//! Lambda kills what is still running then, and with it the settle.

use crate::wire::{Metadata, Protocol};
use bytes::Bytes;
use domain::{Classes, ModelPrice, Receipt, Timestamp, Tokens, Usage};
use edge::log::chain;
use ledger::{Ledger, OpenHold, Store};
use openai::{ChatStream, Event, FinishReason, StreamError};
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
}

/// Ends holds in the ledger, by the invocation's deadline.
pub(crate) struct Closing<S> {
    pub(crate) ledger: Ledger<S>,
    pub(crate) deadlines: Deadlines,
    /// The clock.
    pub(crate) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// One answer on its way from the provider to the client and into the ledger.
pub(crate) struct Pump<S> {
    closing: Closing<S>,
    hold: OpenHold,
    price: ModelPrice,
    stream: ChatStream,
    listener: Listener,
}

impl<S: Store> Pump<S> {
    /// A pump for one answer, and the chunks that it will send. It must be run: dropping it leaves the hold to its expiry.
    pub(crate) fn new(
        closing: Closing<S>,
        hold: OpenHold,
        price: ModelPrice,
        stream: ChatStream,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (listener, chunks) = Listener::new(closing.deadlines);
        (Self { closing, hold, price, stream, listener }, chunks)
    }

    /// Runs it to its end: start, text, settle, finish or error, in this order.
    pub(crate) async fn run(mut self) {
        self.listener.send(Protocol::UiMessage.start(self.hold.id())).await;
        let end = self.pour().await;
        let Self { closing, hold, price, stream, listener } = self;
        let clamped = hold.clamped();
        let (served, counted) = (stream.estimate(), stream.counted());
        // Only a closed connection makes a provider stop, and stop charging.
        drop(stream);
        let whole = listener.has_all();
        let chunk = match end {
            End::Complete(reason, usage) => {
                let usage = usage.map_or(Usage::Estimated(served), Usage::Exact);
                let receipt = closing.settle(hold, usage, &price).await;
                if whole {
                    let receipt = receipt.map(|receipt| (receipt.id, receipt.charged));
                    let model = price.model.clone();
                    let metadata = Metadata { usage, receipt, clamped, model, replayed: false };
                    Protocol::UiMessage.finish(reason, &metadata)
                } else {
                    cut("The connection was too slow; part of the answer is missing here.")
                }
            }
            End::Failed(error) => {
                tracing::warn!(error = chain(&error), user = %hold.user(), id = %hold.id(),
                    output_tokens_served = served.completion().get(), "the provider's answer ended before its end");
                closing.give_back_or_settle(hold, served, counted, &price).await;
                cut(
                    "The answer was cut short. You pay for the prompt and for what was written, if anything was.",
                )
            }
            End::OutOfTime => {
                tracing::warn!(user = %hold.user(), id = %hold.id(), "the answer took too long and was cut");
                closing.give_back_or_settle(hold, served, counted, &price).await;
                cut(
                    "The answer took too long and was cut. You pay for the prompt and for what was written, if anything was.",
                )
            }
        };
        listener.close(chunk);
    }

    /// Passes text on until the answer ends. Each turn takes an event, of which a stream has a bounded number, or a
    /// [`KEEP_ALIVE_AFTER`] of the time.
    async fn pour(&mut self) -> End {
        let mut reason = FinishReason::Other;
        let mut usage = None;
        let Deadlines { cut_by, keep_alive_after, .. } = self.closing.deadlines;
        while Instant::now() < cut_by {
            let until = cut_by.min(Instant::now() + keep_alive_after);
            match timeout_at(until, self.stream.next()).await {
                Err(_) => {
                    if let Some(comment) = Protocol::UiMessage.keep_alive() {
                        self.listener.send(comment).await;
                    }
                }
                Ok(Some(Ok(Event::Text(text)))) => self.listener.send(Protocol::UiMessage.delta(&text)).await,
                Ok(Some(Ok(Event::Finish(why)))) => reason = why,
                Ok(Some(Ok(Event::Usage(classes)))) => usage = Some(classes),
                Ok(Some(Ok(Event::Done))) => return End::Complete(reason, usage),
                Ok(Some(Err(error))) => return End::Failed(error),
                // A stream says `Done` or fails before it has nothing more.
                Ok(None) => return End::Failed(StreamError::Cut),
            }
        }
        End::OutOfTime
    }
}

fn cut(text: &str) -> Bytes {
    Protocol::UiMessage.cut(text, None)
}

impl<S: Store> Closing<S> {
    /// An answer that ended before its first text served nothing, so nothing is charged, whatever it may have cost. What was
    /// served before any other end is, by the provider's count if it came before the end.
    async fn give_back_or_settle(
        &self,
        hold: OpenHold,
        served: Classes,
        counted: Option<Classes>,
        price: &ModelPrice,
    ) {
        if served.completion() == Tokens::ZERO {
            tracing::warn!(user = %hold.user(), id = %hold.id(), may_have_cost = true, "nothing was served; void");
            self.void(hold).await;
        } else {
            self.settle(hold, counted.map_or(Usage::Estimated(served), Usage::Exact), price).await;
        }
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

    /// Takes back a request that was never served. Where that fails, the hold's expiry does it, later.
    pub(crate) async fn void(&self, hold: OpenHold) {
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
}
