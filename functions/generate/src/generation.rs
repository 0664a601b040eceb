//! One request from its claim to its first text: nothing is called that was not admitted, and what does not begin to answer is
//! taken back. The rest is a pump's.

use crate::{
    answer::{self, Answer, Ending},
    budget::{Allowance, NotReserved},
    call::{Calls, NoAnswer},
    handler::{Generate, unavailable},
    parse::Wish,
    prompts,
    pump::{Begun, Closing, Deadlines, Keeping, Pump},
    stop::StopWatch,
    wire::{AnswerBody, Protocol},
};
use domain::{Claim, Demand, Denial, Digest, ModelPrice, Timestamp, Usage, UserId};
use edge::{
    drain::Drain,
    log::chain,
    problem::{Code, Problem, UNAVAILABLE_RETRY_AFTER_S},
};
use http::Response;
use ledger::{AdmitError, Claimed, OpenClaim, OpenHold, Store};
use std::sync::{Arc, Mutex, PoisonError};

const MS_PER_S: u64 = 1_000;
/// Seconds after which a repeat of a request that is at work is worth another try. Nobody knows when it ends.
const IN_PROGRESS_RETRY_AFTER_S: u64 = 2;

/// One request of a user who is known.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whose.
    pub user: UserId,
    /// For what.
    pub wish: Wish,
    /// In which form the answer goes out.
    pub protocol: Protocol,
    /// How it is told from others when it is repeated; none: every request is a new one.
    pub repeatable: Option<Repeatable>,
}

/// By what a repeat is known.
#[derive(Clone, Copy, Debug)]
pub struct Repeatable {
    /// The digest of the idempotency key.
    pub key: Digest,
    /// The digest of the body.
    pub body: Digest,
}

/// What a request's claim came to.
enum Turn {
    /// It has no key.
    Unclaimed,
    /// It is the one that works.
    Ours(OpenClaim),
    /// It was answered before.
    Answered(Response<AnswerBody>),
}

/// Why there is no answer to pump.
enum NotBegun {
    Refused(Problem),
    /// By its user, before its first text; with whom was being asked, and what they had been sent, if anybody was.
    Stopped(Box<OpenHold>, Option<(ModelPrice, Usage)>),
}

impl From<Problem> for NotBegun {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl<S: Store + Clone + 'static> Generate<S> {
    /// Generates for a user who is known: claims, holds, calls until there is text, and leaves the rest to a pump.
    ///
    /// # Errors
    /// The limit that refused; that it is a repeat which has to wait; or that the store or the provider does not answer, with
    /// nothing consumed.
    pub async fn generate(
        &self,
        asked: &Asked,
        deadlines: Deadlines,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        let mut claim = match self.claim(asked, deadlines, now).await? {
            Turn::Unclaimed => None,
            Turn::Ours(claim) => Some(claim),
            Turn::Answered(answer) => return Ok(answer),
        };
        let closing = Closing { ledger: self.ledger.clone(), deadlines, now: Arc::clone(&self.outside.now) };
        let protocol = asked.protocol;
        match self.begin(asked, claim.as_mut(), &closing, drain, now).await {
            Ok(begun) => {
                let keeping = claim.map(|claim| Keeping::new(claim, self.front.keeps_answers));
                let (pump, chunks) = Pump::new(closing, begun, protocol, keeping);
                drain.spawn(pump.run());
                Ok(protocol.streamed(chunks))
            }
            Err(not_begun) => match not_begun {
                NotBegun::Refused(problem) => {
                    closing.drop_claim(claim).await;
                    Err(problem)
                }
                NotBegun::Stopped(hold, sent) => {
                    Ok(self.end_stopped(*hold, sent, claim, &closing, protocol).await)
                }
            },
        }
    }

    /// Ends a request that its user stopped before its first text. Who was being asked has the prompt and works on it, so the
    /// prompt is charged: else whoever stops at once could have providers work for nothing, without end.
    async fn end_stopped(
        &self,
        hold: OpenHold,
        sent: Option<(ModelPrice, Usage)>,
        claim: Option<OpenClaim>,
        closing: &Closing<S>,
        protocol: Protocol,
    ) -> Response<AnswerBody> {
        let id = hold.id().clone();
        let metadata = if let Some((price, usage)) = sent {
            let (model, clamped) = (price.model.clone(), hold.clamped());
            let answer = Answer { text: String::new(), ending: Ending::Stopped, usage, model, clamped };
            let keeping = claim.map(|claim| Keeping::new(claim, self.front.keeps_answers));
            let receipt = closing.keep_and_settle(hold, keeping, &answer, &price).await;
            Some(answer.metadata(receipt.as_ref(), false))
        } else {
            closing.void(hold, None).await;
            closing.drop_claim(claim).await;
            None
        };
        protocol.whole([protocol.start(&id), protocol.stopped(metadata.as_ref())].concat().into())
    }

    async fn claim(&self, asked: &Asked, deadlines: Deadlines, now: Timestamp) -> Result<Turn, Problem> {
        let Some(Repeatable { key, body }) = asked.repeatable else { return Ok(Turn::Unclaimed) };
        let owner = (self.outside.new_id)();
        let wanted = Claim::begin(asked.user.clone(), key, body, owner, deadlines.hold_ms, now);
        match self.ledger.claim(wanted, now).await.map_err(|error| unavailable(&error))? {
            Claimed::Ours(claim) => Ok(Turn::Ours(claim)),
            Claimed::OtherBody => {
                let detail =
                    "This idempotency key was used for another request. Take a new one for each request.";
                Err(Problem::new(Code::IdempotencyKeyReused, detail).field("idempotency-key"))
            }
            Claimed::Running => {
                let detail = "This request is being answered already. Wait for that answer, or try again in a moment to \
                              have it once more.";
                Err(Problem::new(Code::InProgress, detail).retry_after(IN_PROGRESS_RETRY_AFTER_S))
            }
            Claimed::Ended(ended) => {
                if let Some(answer) = answer::replay(&ended, asked.protocol) {
                    tracing::info!(user = %asked.user, id = %ended.hold.id, "replayed");
                    return Ok(Turn::Answered(answer));
                }
                let detail = "This request was answered before, and its answer is not kept. Take a new idempotency key \
                              to have it answered again, at its price.";
                Err(Problem::new(Code::AlreadyAnswered, detail).receipt(ended.hold.id.as_str()))
            }
        }
    }

    async fn begin(
        &self,
        asked: &Asked,
        claim: Option<&mut OpenClaim>,
        closing: &Closing<S>,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<Begun<S>, NotBegun> {
        let question = asked.wish.question();
        let demand = self.demand(&asked.wish, &question);
        let models = self.front.menu.candidates(asked.wish.model.as_ref());
        let (mut hold, mut allowance) = self.admit(asked, &demand, &models, closing, drain, now).await?;
        if let Some(claim) = claim
            && let Err(error) = self.ledger.note_hold(claim, &hold).await
        {
            allowance.unused();
            closing.void(hold, None).await;
            return Err(unavailable(&error).into());
        }
        let by = closing.deadlines.cut_by;
        let (user, id) = (hold.user().clone(), hold.id().clone());
        let watch = StopWatch::begin(drain, self.ledger.clone(), user, id, by);
        let (chance, under_way) = (&*self.outside.chance, &Mutex::new(None));
        let (provider, question, models) = (&self.provider, &question, models.as_slice());
        let prompt_most = demand.prompt_most;
        let calls = Calls { provider, question, prompt_most, models, by, chance, under_way };
        let started = tokio::select! {
            biased;
            () = watch.stopped() => None,
            started = calls.first_text(&mut hold, &mut allowance) => Some(started),
        };
        match started {
            Some(Ok(started)) => Ok(Begun { hold, allowance, started, watch }),
            Some(Err(none)) => {
                tracing::error!(user = %hold.user(), id = %hold.id(), "no model answered");
                allowance.unused();
                closing.void(hold, None).await;
                Err(provider_unavailable(&none).into())
            }
            None => {
                tracing::info!(user = %hold.user(), id = %hold.id(), "stopped by the user before the first text");
                let asked_of = under_way.lock().unwrap_or_else(PoisonError::into_inner).take();
                let prompt = openai::estimate(&question.system, &question.turns, 0);
                // A model may have reasoned all the while, which nobody has seen and the owner pays.
                if asked_of.is_some() {
                    allowance.spent();
                } else {
                    allowance.unused();
                }
                let sent = asked_of.map(|price| (price, Usage::Estimated(prompt)));
                Err(NotBegun::Stopped(Box::new(hold), sent))
            }
        }
    }

    /// Reserves what a call can cost the owner, then admits: a request that is refused either way has consumed nothing.
    async fn admit(
        &self,
        asked: &Asked,
        demand: &Demand,
        models: &[&ModelPrice],
        closing: &Closing<S>,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<(OpenHold, Allowance<S>), Problem> {
        let Asked { user, wish, repeatable, .. } = asked;
        let Deadlines { hold_ms, settled_by, .. } = closing.deadlines;
        // Whichever of them answers, the hold says the most that it can cost.
        let cost_most = |model: &&ModelPrice| model.cost_most(demand.prompt_most, demand.output_most);
        let dearest = models.iter().copied().max_by_key(cost_most).unwrap_or(&self.front.menu.default);
        let reserved = self.budgets.reserve(user, cost_most(&dearest), drain, settled_by).await;
        let mut allowance = reserved.map_err(|error| self.not_reserved(&error, user, demand, drain, now))?;
        let new_id = &*self.outside.new_id;
        let hold = match self.ledger.admit(user, demand, dearest, hold_ms, new_id, now).await {
            Ok(hold) => hold,
            Err(error) => {
                allowance.unused();
                return Err(self.not_admitted(&error, user, demand, drain, now));
            }
        };
        if let Err(error) = allowance.follow(hold.standing().0).await {
            closing.void(hold, None).await;
            return Err(self.not_reserved(&error, user, demand, drain, now));
        }
        tracing::info!(%user, id = %hold.id(), kind = wish.kind.as_str(), prompts = prompts::VERSION,
            held = hold.size().total().get(), clamped = hold.clamped(), repeatable = repeatable.is_some(), "admitted");
        Ok((hold, allowance))
    }

    /// What a request that is not admitted is answered with. That a limit refused it is kept for its user to see, while the
    /// answer goes out.
    fn not_admitted(
        &self,
        error: &AdmitError,
        user: &UserId,
        demand: &Demand,
        drain: &Drain,
        now: Timestamp,
    ) -> Problem {
        match error {
            AdmitError::Refused { refusal, period_start } => {
                let problem = self.front.refusal(refusal, now);
                tracing::info!(%user, code = problem.code().as_str(), "not admitted");
                self.keep(Denial::of(refusal, (user.clone(), *period_start), demand.least(), now), drain);
                problem
            }
            AdmitError::Unavailable(unavailable) => {
                tracing::error!(%user, error = chain(unavailable), "not admitted: the ledger does not answer");
                Problem::store_unavailable()
            }
        }
    }

    /// What a request that no budget covers is answered with. Nothing of its user's was touched, and nothing is: of somebody who
    /// was never seen no denial is kept, for whoever makes a thousand accounts must not have a thousand items written.
    fn not_reserved(
        &self,
        error: &NotReserved,
        user: &UserId,
        demand: &Demand,
        drain: &Drain,
        now: Timestamp,
    ) -> Problem {
        match error {
            NotReserved::UsedUp { pool, resets_at } => {
                tracing::warn!(%user, pool = pool.as_str(), "not admitted: the day's budget is used up");
                if let Some(period_start) = self.ledger.remembered_period(user, now) {
                    let place = (user.clone(), period_start);
                    self.keep(Denial::of_budget((*pool, *resets_at), place, demand.least(), now), drain);
                }
            }
            NotReserved::Unavailable(_) | NotReserved::OutOfTime => {
                tracing::error!(%user, error = chain(error), "not admitted: no budget can be leased");
            }
        }
        error.problem(now)
    }

    /// Keeps a denial for its user to see, unless one of its kind was just kept.
    fn keep(&self, denial: Denial, drain: &Drain) {
        if self.denials.is_due(&denial) {
            let ledger = self.ledger.clone();
            drain.spawn(async move { ledger.deny(&denial).await });
        }
    }
}

/// Only a provider that asks for patience is taken at its word on when to come back.
fn provider_unavailable(none: &NoAnswer) -> Problem {
    let asked_s = none.retry_after_ms.map(|ms| ms.div_ceil(MS_PER_S));
    let detail = "The model does not answer right now. Nothing was charged. Please try again.";
    let retry_after_s = asked_s.unwrap_or(UNAVAILABLE_RETRY_AFTER_S).max(1);
    Problem::new(Code::ProviderUnavailable, detail).retry_after(retry_after_s)
}
