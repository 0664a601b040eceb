//! The whole function but for Lambda and AWS: the real handler, pump and provider client against a scripted provider on
//! a socket and the ledger in memory.

mod budgets;
mod denials;
mod repeats;
mod shaky;
mod stream;
mod upstream;

use crate::{
    budget::Ceilings,
    config::{Front, Menu},
    generation::{Asked, Repeatable},
    handler::{Generate, Outside},
    parse,
    pump::Deadlines,
    wire::{AnswerBody, Protocol},
};
use bytes::Bytes;
use clerk::{Settings as ClerkSettings, Verifier, VerifyingKey};
use domain::{Digest, Meter, NanoUsd, Timestamp, Tokens, UserId};
use edge::{cors::Cors, drain::Drain, models, plans::PlanBook, problem::Problem};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use ledger::{Ledger, MemoryStore};
use openai::{BaseUrl, Settings, Timeouts};
use serde_json::Value;
use shaky::ShakyStore;
use tokio::time::Instant;
use upstream::Upstream;

/// A public key whose private half was thrown away.
pub(crate) const CLERK_JWT_KEY: &str = include_str!("clerk_jwt_key.pem");
/// Where an unpaid invoice can be paid.
const PORTAL_URL: &str = "https://pay.example.com/p/login/1";
const BODY: &str = r#"{"prompt":"hello there","type":"rewrite"}"#;

/// The models that are compiled in.
pub(crate) fn menu() -> Menu {
    let prices = models::built_in().unwrap();
    let default = prices.iter().next().unwrap().clone();
    Menu { prices, default, output_max: Tokens::from_u32(1_024) }
}

/// Those of an invocation that has just begun.
fn deadlines() -> Deadlines {
    Deadlines::of(None, edge::clock::now()).unwrap()
}

/// The function and everything around it.
struct World {
    generate: Generate<ShakyStore>,
    store: ShakyStore,
    upstream: Upstream,
    drain: Drain,
    user: UserId,
}

impl World {
    async fn new() -> Self {
        Self::within(Ceilings { everyone: NanoUsd::of_usd(50), trial: NanoUsd::of_usd(5) }).await
    }

    /// One whose provider may cost so much in a day.
    async fn within(ceilings: Ceilings) -> Self {
        let store = ShakyStore::new(MemoryStore::new());
        let upstream = Upstream::start().await;
        let provider = Settings {
            base_url: BaseUrl::parse(&upstream.url()).unwrap(),
            api_key: None,
            timeouts: Timeouts { first_token_ms: 60_000, idle_ms: 60_000 },
        };
        let verifier = Verifier::new(ClerkSettings {
            issuer: "https://clerk.example.com".to_owned(),
            keys: VerifyingKey::from_pem(CLERK_JWT_KEY).unwrap().into(),
            authorized_parties: vec!["https://app.example.com".to_owned()],
        });
        let cors = Cors::new(&["https://app.example.com".to_owned()]).unwrap();
        let front = Front {
            verifier: verifier.unwrap(),
            cors,
            menu: menu(),
            keeps_answers: true,
            portal_url: Some(PORTAL_URL.to_owned()),
            ceilings,
        };
        let ledger = Ledger::new(store.clone(), PlanBook::built_in().unwrap().plans().clone());
        let client = openai::Client::new(edge::http::client().unwrap(), provider);
        let user = UserId::parse("user_1").unwrap();
        Self {
            generate: Generate::new(ledger, client, front, Outside::real()),
            store,
            upstream,
            drain: Drain::new(),
            user,
        }
    }

    /// A request of a user who is signed in.
    async fn ask(&self) -> Result<Response<AnswerBody>, Problem> {
        self.ask_within(deadlines()).await
    }

    async fn ask_within(&self, deadlines: Deadlines) -> Result<Response<AnswerBody>, Problem> {
        self.ask_as(BODY, None, deadlines).await
    }

    /// A request with this body and idempotency key.
    async fn ask_as(
        &self,
        body: &str,
        key: Option<u8>,
        deadlines: Deadlines,
    ) -> Result<Response<AnswerBody>, Problem> {
        let json =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let wish = parse::parse(&json, body.as_bytes(), &menu()).unwrap();
        let (user, protocol) = (self.user.clone(), Protocol::UiMessage);
        let of_body = [u8::try_from(body.len()).unwrap(); Digest::BYTES];
        let repeatable =
            key.map(|key| Repeatable { key: Digest::new([key; 32]), body: Digest::new(of_body) });
        let asked = Asked { user, wish, protocol, repeatable };
        self.generate.generate(&asked, deadlines, &self.drain, edge::clock::now()).await
    }

    /// The user's meter, once everything has ended.
    async fn meter(&self) -> Meter {
        self.drain.drained().await;
        let mut meters = self.store.inner().every_meter();
        assert_eq!(meters.len(), 1);
        let meter = meters.pop().unwrap();
        assert_eq!(meter.committed, meter.settled.saturating_add(meter.held()), "I1");
        let key = ledger::MeterKey::of(&meter);
        let charged: Tokens =
            self.store.inner().receipts_of(&key).iter().map(|receipt| receipt.charged).sum();
        assert_eq!(charged, meter.settled, "I2");
        meter
    }

    /// Requests that the rate window has counted.
    async fn rate_count(&self) -> u32 {
        self.meter().await.rate.counts.values().sum()
    }
}

/// The chunks of a body, as JSON; `[DONE]` as a string, comments left out.
async fn chunks(response: Response<AnswerBody>) -> Vec<Value> {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    parsed(&bytes)
}

fn parsed(bytes: &Bytes) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| event.strip_prefix("data: ").unwrap())
        .map(|data| if data == "[DONE]" { Value::from(data) } else { serde_json::from_str(data).unwrap() })
        .collect()
}

fn types(chunks: &[Value]) -> Vec<&str> {
    chunks.iter().map(|chunk| chunk["type"].as_str().or(chunk.as_str()).unwrap()).collect()
}

fn problem(problem: Problem) -> (http::response::Parts, Value) {
    let (head, text) = problem.into_response::<String>().into_parts();
    (head, serde_json::from_str(&text).unwrap())
}

mod front {
    use super::*;
    use lambda_http::Body;

    async fn answer(method: &str, path: &str, authorization: Option<&str>) -> (http::response::Parts, Value) {
        let world = World::new().await;
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::ORIGIN, "https://app.example.com")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Body::from(BODY)).unwrap();
        let response = world.generate.handle(request, &world.drain, edge::clock::now()).await;
        assert_eq!(world.upstream.calls(), 0);
        assert!(world.store.inner().every_meter().is_empty(), "a refused request left something behind");
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn f15_nobody_generates_without_a_session() {
        for authorization in [None, Some("Bearer a.b.c"), Some("Basic dTpw"), Some("Bearer ")] {
            let (head, body) = answer("POST", "/v1/generate", authorization).await;
            assert_eq!((head.status.as_u16(), &body["code"]), (401, &Value::from("unauthenticated")));
            assert!(head.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
            assert_eq!(head.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        }
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused_and_a_preflight_is_answered() {
        assert_eq!(answer("POST", "/v1/other", None).await.0.status, 404);
        let (head, _) = answer("GET", "/v1/generate", None).await;
        assert_eq!(
            (head.status.as_u16(), &head.headers[header::ALLOW]),
            (405, &"POST, OPTIONS".parse().unwrap())
        );
        let (head, _) = answer("OPTIONS", "/v1/generate", None).await;
        assert_eq!(head.status, 204);
        assert_eq!(head.headers[header::ACCESS_CONTROL_ALLOW_METHODS], "POST, OPTIONS");
    }

    #[test]
    fn without_time_to_settle_nothing_is_begun() {
        let now = Timestamp::from_s(1_000);
        assert!(Deadlines::of(Some(now.plus_ms(15_500)), now).is_none());
        assert!(Deadlines::of(Some(Timestamp::from_s(1)), now).is_none());
        let deadlines = Deadlines::of(Some(now.plus_ms(100_000)), now).unwrap();
        assert!(deadlines.cut_by < deadlines.settled_by);
        assert!(deadlines.settled_by < Instant::now() + std::time::Duration::from_secs(100));
        assert!(deadlines.hold_ms > 100_000, "a hold must outlive its invocation");
    }
}
