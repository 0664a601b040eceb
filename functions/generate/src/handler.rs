//! One request: authenticate, parse, admit, call, answer. Nothing is retried: a second call to the provider could be paid for
//! twice.

use crate::{
    config::Front,
    parse::{self, Wish},
    prompts::{self, Question},
    pump::{Closing, Deadlines, Pump},
    wire::{AnswerBody, Protocol},
};
use domain::{Demand, HoldId, Timestamp, Tokens, UserId};
use edge::{
    drain::Drain,
    log::chain,
    problem::{Code, Problem, UNAVAILABLE_RETRY_AFTER_S},
    request,
};
use http::{Method, Response};
use lambda_http::Request;
use ledger::{AdmitError, Ledger, OpenHold, Store};
use openai::{CallError, ChatRequest, ChatStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use tokio::time::timeout_at;

const PATH: &str = "/v1/generate";
const METHODS: &str = "POST, OPTIONS";
/// What part of the prompt's bound is held where the whole of it does not fit: a third of its bytes, which is more than text in
/// any usual language takes.
const PROMPT_LEAST_DIVISOR: NonZeroU64 = NonZeroU64::MIN.saturating_add(2);
/// The shortest answer that is worth asking for, in tokens.
const OUTPUT_TOKENS_MIN: u32 = 64;
const MS_PER_S: u64 = 1_000;
const TOO_MANY_REQUESTS: u16 = 429;

/// What a request reads from outside while it works: time and chance. Given, so that a simulation can give its own.
#[derive(Clone)]
pub struct Outside {
    /// The instant that it is.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// An id that no other hold has.
    pub new_id: Arc<dyn Fn() -> HoldId + Send + Sync>,
}

impl Outside {
    /// The machine's clock and its source of randomness.
    pub fn real() -> Self {
        Self { now: Arc::new(edge::clock::now), new_id: Arc::new(edge::ids::new_hold_id) }
    }
}

/// The function. Clones share connections and cache.
#[derive(Clone)]
pub struct Generate<S> {
    ledger: Ledger<S>,
    provider: openai::Client,
    front: Arc<Front>,
    outside: Outside,
}

impl<S: Store + Clone + 'static> Generate<S> {
    /// A function over this ledger and provider.
    pub fn new(ledger: Ledger<S>, provider: openai::Client, front: Front, outside: Outside) -> Self {
        Self { ledger, provider, front: Arc::new(front), outside }
    }

    /// Answers one request. What outlives the answer runs on `drain`.
    pub async fn handle(&self, request: Request, drain: &Drain, now: Timestamp) -> Response<AnswerBody> {
        let cors = &self.front.cors;
        let mut response = match *request.method() {
            _ if request::path(&request) != PATH => Problem::not_found().into_response(),
            Method::OPTIONS => return cors.preflight(request.headers(), METHODS),
            Method::POST => self.post(&request, drain, now).await.unwrap_or_else(Problem::into_response),
            _ => Problem::method_not_allowed(METHODS).into_response(),
        };
        cors.apply(request.headers(), response.headers_mut());
        response
    }

    async fn post(
        &self,
        request: &Request,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        let user = self.authenticate(request, now)?;
        let wish = parse::parse(request.headers(), request.body(), &self.front.menu)?;
        let deadlines = Deadlines::of(request::deadline(request), now).ok_or_else(|| {
            tracing::error!("the function's timeout leaves no time to answer and settle");
            Problem::internal()
        })?;
        self.generate(&user, &wish, deadlines, drain, now).await
    }

    fn authenticate(&self, request: &Request, now: Timestamp) -> Result<UserId, Problem> {
        let token = request::bearer(request.headers()).ok_or_else(Problem::token_missing)?;
        let session = self.front.verifier.verify(token, now).map_err(|rejection| {
            tracing::info!(reason = rejection.reason(), "session token refused");
            Problem::token_refused(rejection.reason())
        })?;
        Ok(session.user)
    }

    /// Generates for a user who is known: holds, calls, and leaves the rest to a pump.
    ///
    /// # Errors
    /// The limit that refused; or that the store or the provider does not answer, with nothing consumed.
    pub async fn generate(
        &self,
        user: &UserId,
        wish: &Wish,
        deadlines: Deadlines,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        let asked = wish.question();
        let demand = self.demand(wish, &asked);
        let model = wish.model.as_ref().unwrap_or(&self.front.menu.default);
        let new_id = &*self.outside.new_id;
        let admitted = self.ledger.admit(user, &demand, model, deadlines.hold_ms, new_id, now).await;
        let hold = admitted.map_err(|error| not_admitted(&error, user, now))?;
        tracing::info!(%user, id = %hold.id(), kind = wish.kind.as_str(), prompts = prompts::VERSION,
            model = %model.model, held = hold.size().total().get(), clamped = hold.clamped(), "admitted");
        let question =
            ChatRequest { model, system: &asked.system, turns: &asked.turns, output_cap: hold.size().output };
        let closing = Closing { ledger: self.ledger.clone(), deadlines, now: Arc::clone(&self.outside.now) };
        let (hold, stream) = self.call(hold, &question, &closing).await?;
        let (pump, chunks) = Pump::new(closing, hold, model.clone(), stream);
        drain.spawn(pump.run());
        Ok(Protocol::UiMessage.streamed(chunks))
    }

    /// The most that a request can take, and the least that it is worth answering with. `question` is the wish's, as it will
    /// be sent.
    pub fn demand(&self, wish: &Wish, question: &Question) -> Demand {
        let model = wish.model.as_ref().unwrap_or(&self.front.menu.default);
        let prompt_most = openai::prompt_bound(&question.system, &question.turns);
        let output_most = self.front.menu.output_max.min(model.output_max);
        Demand {
            prompt_most,
            prompt_least: prompt_most.div_ceil(PROMPT_LEAST_DIVISOR),
            output_most,
            output_least: output_most.min(Tokens::from_u32(OUTPUT_TOKENS_MIN)),
        }
    }

    /// Calls the provider. Where it does not begin to answer, the hold is void: nothing is charged and the rate slot is
    /// given back.
    async fn call(
        &self,
        hold: OpenHold,
        question: &ChatRequest<'_>,
        closing: &Closing<S>,
    ) -> Result<(OpenHold, ChatStream), Problem> {
        let answer = timeout_at(closing.deadlines.cut_by, self.provider.stream(question)).await;
        let error = match answer.unwrap_or(Err(CallError::Timeout)) {
            Ok(stream) => return Ok((hold, stream)),
            Err(error) => error,
        };
        tracing::error!(error = chain(&error), may_have_cost = error.may_have_cost(),
            user = %hold.user(), id = %hold.id(), model = %question.model.model, "the provider did not answer");
        closing.void(hold).await;
        Err(provider_unavailable(&error))
    }
}

fn not_admitted(error: &AdmitError, user: &UserId, now: Timestamp) -> Problem {
    match error {
        AdmitError::Refused(refusal) => {
            let problem = Problem::refusal(refusal, now);
            tracing::info!(%user, code = problem.code().as_str(), "not admitted");
            problem
        }
        AdmitError::Unavailable(unavailable) => {
            tracing::error!(%user, error = chain(unavailable), "not admitted: the ledger does not answer");
            Problem::store_unavailable()
        }
    }
}

/// Only a provider that asks for patience is taken at its word on when to come back.
fn provider_unavailable(error: &CallError) -> Problem {
    let asked_s = match error {
        CallError::Status { status: TOO_MANY_REQUESTS, retry_after_ms, .. } => {
            retry_after_ms.map(|ms| ms.div_ceil(MS_PER_S))
        }
        _ => None,
    };
    let detail = "The model does not answer right now. Nothing was charged. Please try again.";
    let retry_after_s = asked_s.unwrap_or(UNAVAILABLE_RETRY_AFTER_S).max(1);
    Problem::new(Code::ProviderUnavailable, detail).retry_after(retry_after_s)
}
