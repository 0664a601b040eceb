//! The requests of this function: which route, by whom, about what. What is generated is generated elsewhere.

use crate::{
    answer,
    budget::Budgets,
    config::Front,
    denials::Denials,
    generation::{Asked, Repeatable},
    parse::{self, IdempotencyKey, Wish},
    prompts::Question,
    pump::Deadlines,
    quote::QuoteWire,
    routes::Route,
    wire::{AnswerBody, Protocol},
};
use bus::Bus;
use domain::{Demand, Digest, HoldId, Refusal, Timestamp, Tokens, UserId};
use edge::{drain::Drain, ids, log::chain, problem::Problem, request, respond, session};
use http::{HeaderValue, Method, Response, StatusCode, header};
use lambda_http::{Request, RequestExt};
use ledger::{Ledger, OfKey, Store, Unavailable};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::num::NonZeroU64;
use std::sync::Arc;

/// What part of the prompt's bound is held where the whole of it does not fit: a third of its bytes, which is more than text in
/// any usual language takes.
const PROMPT_LEAST_DIVISOR: NonZeroU64 = NonZeroU64::MIN.saturating_add(2);
/// The shortest answer that is worth asking for, in tokens.
const OUTPUT_TOKENS_MIN: u32 = 64;
/// The query parameter that names the answer's protocol.
const PROTOCOL: &str = "protocol";

/// What a request reads from outside while it works: time and chance. Given, so that a simulation can give its own.
#[derive(Clone)]
pub struct Outside {
    /// The instant that it is.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// An id that no other hold has.
    pub new_id: Arc<dyn Fn() -> HoldId + Send + Sync>,
    /// A number below its argument, which is positive.
    pub chance: Arc<dyn Fn(u64) -> u64 + Send + Sync>,
}

impl Outside {
    /// The machine's clock and its source of randomness.
    pub fn real() -> Self {
        Self {
            now: Arc::new(edge::clock::now),
            new_id: Arc::new(ids::new_hold_id),
            chance: Arc::new(ids::chance),
        }
    }
}

/// The function. Clones share connections and cache.
#[derive(Clone)]
pub struct Generate<S> {
    pub(crate) ledger: Ledger<S>,
    pub(crate) provider: openai::Client,
    pub(crate) front: Arc<Front>,
    pub(crate) outside: Outside,
    pub(crate) denials: Denials,
    pub(crate) budgets: Budgets<S>,
}

impl<S: Store + Clone + 'static> Generate<S> {
    /// A function over this ledger and provider.
    pub fn new(ledger: Ledger<S>, provider: openai::Client, front: Front, outside: Outside) -> Self {
        let budgets = Budgets::new(ledger.clone(), front.ceilings, Arc::clone(&outside.now));
        Self { ledger, provider, front: Arc::new(front), outside, denials: Denials::new(), budgets }
    }

    /// The same, which tells the owner on this bus how much of a budget is used.
    #[must_use]
    pub fn telling(mut self, bus: Bus) -> Self {
        self.budgets.bus = Some(bus);
        self
    }

    /// Answers one request. What outlives the answer runs on `drain`.
    pub async fn handle(&self, request: Request, drain: &Drain, now: Timestamp) -> Response<AnswerBody> {
        let cors = &self.front.cors;
        let answer = match Route::of(request::path(&request)) {
            None => Err(Problem::not_found()),
            Some(route) if *request.method() == Method::OPTIONS => {
                return cors.preflight(request.headers(), route.methods());
            }
            Some(route) => self.route(&route, &request, drain, now).await,
        };
        let mut response = answer.unwrap_or_else(Problem::into_response);
        cors.apply(request.headers(), response.headers_mut());
        response
    }

    async fn route(
        &self,
        route: &Route,
        request: &Request,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        match (route, request.method()) {
            (Route::Generate, &Method::POST) => self.post(request, drain, now).await,
            (Route::Quote, &Method::POST) => self.quote(request, now).await,
            (Route::Stream(id), &Method::GET) => self.stream(request, id, now).await,
            (Route::Stop(id), &Method::POST) => self.stop(request, id, now).await,
            _ => Err(Problem::method_not_allowed(route.methods())),
        }
    }

    async fn post(
        &self,
        request: &Request,
        drain: &Drain,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        // First, for they are reckoned from this instant.
        let deadlines = Deadlines::of(request::deadline(request), now);
        let user = self.authenticate(request, now).await?;
        let protocol = protocol(request)?;
        let key = parse::idempotency_key(request.headers())?;
        let wish = parse::parse(request.headers(), request.body(), &self.front.menu)?;
        let repeatable =
            key.map(|key| Repeatable { key: digest(key.as_str().as_bytes()), body: digest(request.body()) });
        let deadlines = deadlines.ok_or_else(|| {
            tracing::error!("the function's timeout leaves no time to answer and settle");
            Problem::internal()
        })?;
        let asked = Asked { user, wish, protocol, repeatable };
        self.generate(&asked, deadlines, drain, now).await
    }

    /// `POST /v1/quote`: what a request would hold and cost, decided and not written.
    async fn quote(&self, request: &Request, now: Timestamp) -> Result<Response<AnswerBody>, Problem> {
        let user = self.authenticate(request, now).await?;
        let wish = parse::parse(request.headers(), request.body(), &self.front.menu)?;
        let question = wish.question();
        let demand = self.demand(&wish, &question);
        let quote = self.ledger.quote(&user, &demand, now).await.map_err(|error| unavailable(&error))?;
        let estimate = openai::estimate(&question.system, &question.turns, 0).prompt();
        let refused = |refusal: &Refusal| self.front.refusal(refusal, now);
        Ok(respond::json(StatusCode::OK, &QuoteWire::new(&quote, &demand, estimate, refused)))
    }

    /// `GET /v1/generate/{id}/stream`: the answer that was given to the request with this key, or 204.
    async fn stream(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        let user = self.authenticate(request, now).await?;
        let protocol = protocol(request)?;
        let ended = match key_digest(id) {
            Some(key) => self.ledger.ended(&user, key, now).await.map_err(|error| unavailable(&error))?,
            None => None,
        };
        let replayed = ended.and_then(|ended| answer::replay(&ended, protocol));
        Ok(replayed.unwrap_or_else(|| {
            let mut nothing = Response::new(AnswerBody::default());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            nothing.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            nothing
        }))
    }

    /// `POST /v1/generate/{id}/stop`: the request with this key, or with this message id, is to end.
    async fn stop(
        &self,
        request: &Request,
        id: &str,
        now: Timestamp,
    ) -> Result<Response<AnswerBody>, Problem> {
        let user = self.authenticate(request, now).await?;
        let of_key = match key_digest(id) {
            Some(key) => self.ledger.of_key(&user, key).await.map_err(|error| unavailable(&error))?,
            None => OfKey::Nothing,
        };
        let hold = match of_key {
            OfKey::Hold(hold) => Some(hold),
            // Its request has only just come: whoever sends this again in a moment finds it.
            OfKey::NotYetAdmitted => None,
            OfKey::Nothing => ids::parse_hold_id(id),
        };
        let hold = hold.ok_or_else(Problem::not_found)?;
        self.ledger.stop(&user, &hold, now).await.map_err(|error| unavailable(&error))?;
        tracing::info!(%user, id = %hold, "stop asked for");
        Ok(respond::json(StatusCode::ACCEPTED, &json!({ "id": id, "stopping": true })))
    }

    async fn authenticate(&self, request: &Request, now: Timestamp) -> Result<UserId, Problem> {
        session::authenticate(&self.front.verifier, request.headers(), now).await
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
}

fn protocol(request: &Request) -> Result<Protocol, Problem> {
    parse::protocol(
        request.query_string_parameters_ref().and_then(|query| query.first(PROTOCOL)),
        request.headers(),
    )
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::new(Sha256::digest(bytes).into())
}

/// The digest of an idempotency key; none of what cannot be one.
fn key_digest(id: &str) -> Option<Digest> {
    IdempotencyKey::parse(id).ok().map(|key| digest(key.as_str().as_bytes()))
}

pub(crate) fn unavailable(error: &Unavailable) -> Problem {
    tracing::error!(error = chain(error), "the ledger does not answer");
    Problem::store_unavailable()
}
