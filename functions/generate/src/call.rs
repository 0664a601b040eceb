//! The calls to the provider for one request, until one of them answers with text.
//!
//! Another call is made only before the first text: what was streamed is served, and a second answer would cost twice. Each
//! call that fails is counted on the request's hold, with the most that it can have cost. No call is made that the owner's budgets
//! do not cover.

use domain::{HoldSize, ModelPrice, Tokens};
use edge::log::chain;
use ledger::{OpenHold, Store};
use openai::{Advice, CallError, ChatRequest, ChatStream, Event, StreamError};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{budget::Allowance, prompts::Question};

/// The most calls for one request, over all models.
const CALLS_MAX: u32 = 4;
/// The most calls of one model.
const MODEL_CALLS_MAX: u32 = 2;
/// The pause before a second call where the provider asks for none, in milliseconds.
const PAUSE_MS: u64 = 250;
/// By how much a pause is prolonged at most, in milliseconds, so that those who failed together do not come back together.
const JITTER_MS_MAX: u64 = 250;
const TOO_MANY_REQUESTS: u16 = 429;

/// An answer that has begun.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) stream: ChatStream,
    /// Its first text, or its finish where it has none.
    pub(crate) first: Event,
    /// Who answers, at which price.
    pub(crate) price: ModelPrice,
}

/// No model answered.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// For how long the provider asks to be left alone, in milliseconds.
    pub(crate) retry_after_ms: Option<u64>,
}

/// One request's calls.
pub(crate) struct Calls<'a> {
    pub(crate) provider: &'a openai::Client,
    pub(crate) question: &'a Question,
    /// The most that the question can have of tokens, however little of that is held.
    pub(crate) prompt_most: Tokens,
    /// Those that may answer, in the order of preference.
    pub(crate) models: &'a [&'a ModelPrice],
    /// When it has to be over.
    pub(crate) by: Instant,
    /// A number below its argument.
    pub(crate) chance: &'a (dyn Fn(u64) -> u64 + Send + Sync),
    /// Whose call is under way, for whoever does not wait for its end.
    pub(crate) under_way: &'a Mutex<Option<ModelPrice>>,
}

/// Why one call has no text.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl Failure {
    fn advice(&self) -> Advice {
        match self {
            Self::Call(error) => error.advice(),
            Self::Stream(error) => error.advice_before_text(),
        }
    }

    fn may_have_cost(&self) -> bool {
        match self {
            Self::Call(error) => error.may_have_cost(),
            Self::Stream(_) => true,
        }
    }

    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Call(CallError::Status { status: TOO_MANY_REQUESTS, retry_after_ms, .. }) => {
                *retry_after_ms
            }
            Self::Call(_) | Self::Stream(_) => None,
        }
    }
}

impl Calls<'_> {
    /// Calls until there is text. Notes each call that failed on `hold`. What the answer's call can cost is reserved then, and that
    /// of one that failed and may have cost counts as spent.
    pub(crate) async fn first_text<S: Store>(
        &self,
        hold: &mut OpenHold,
        allowance: &mut Allowance<S>,
    ) -> Result<Started, NoAnswer> {
        let mut calls = 0;
        let mut retry_after_ms = None;
        'models: for model in self.models {
            for tried in 1..=MODEL_CALLS_MAX {
                if calls == CALLS_MAX || Instant::now() >= self.by {
                    break 'models;
                }
                let cost_most = model.cost_most(self.prompt_most, cap(model, hold.size()));
                if let Err(error) = allowance.cover(cost_most).await {
                    tracing::warn!(error = chain(&error), user = %hold.user(), id = %hold.id(), calls,
                        "no budget for another call");
                    break 'models;
                }
                calls += 1;
                self.set_under_way(Some((*model).clone()));
                let failure = match self.call(model, hold.size()).await {
                    Ok((stream, first)) => return Ok(Started { stream, first, price: (*model).clone() }),
                    Err(failure) => failure,
                };
                self.set_under_way(None);
                note(hold, model, &failure, calls);
                if failure.may_have_cost() {
                    allowance.spent();
                }
                retry_after_ms = failure.retry_after_ms();
                match failure.advice() {
                    Advice::Retry { after_ms } if tried < MODEL_CALLS_MAX => {
                        let pause = after_ms.unwrap_or(PAUSE_MS) + (self.chance)(JITTER_MS_MAX);
                        sleep_until(self.by.min(Instant::now() + Duration::from_millis(pause))).await;
                    }
                    Advice::Retry { .. } | Advice::NextModel => continue 'models,
                    Advice::GiveUp => break 'models,
                }
            }
        }
        Err(NoAnswer { retry_after_ms })
    }

    fn set_under_way(&self, price: Option<ModelPrice>) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = price;
    }

    async fn call(&self, model: &ModelPrice, size: HoldSize) -> Result<(ChatStream, Event), Failure> {
        let question = ChatRequest {
            model,
            system: &self.question.system,
            turns: &self.question.turns,
            output_cap: cap(model, size),
        };
        let timeout = |_| CallError::Timeout;
        let mut stream = timeout_at(self.by, self.provider.stream(&question)).await.map_err(timeout)??;
        match timeout_at(self.by, stream.next()).await.map_err(timeout)? {
            Some(first) => Ok((stream, first?)),
            // A stream says `Done` or fails before it has nothing more.
            None => Err(StreamError::Cut.into()),
        }
    }
}

/// The most that a model may write under this hold.
fn cap(model: &ModelPrice, size: HoldSize) -> Tokens {
    size.output.min(model.output_max)
}

fn note(hold: &mut OpenHold, model: &ModelPrice, failure: &Failure, calls: u32) {
    let size = hold.size();
    let may_have_cost = failure.may_have_cost();
    hold.note_failed_call(may_have_cost.then(|| model.cost_most(size.prompt, cap(model, size))));
    let (user, id, error) = (hold.user(), hold.id(), chain(failure));
    if matches!(failure, Failure::Call(error) if error.needs_owner()) {
        tracing::error!(error, may_have_cost, %user, %id, model = %model.model, calls,
            "the provider refuses: look at its key, its account and the list of models");
    } else {
        tracing::warn!(error, may_have_cost, %user, %id, model = %model.model, calls, "a call had no text");
    }
}
