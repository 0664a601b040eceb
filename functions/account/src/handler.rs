//! One request: authenticate, look, answer.

use crate::{config::Front, wire};
use domain::{Timestamp, UserId};
use edge::{log::chain, problem::Problem, request, respond, session};
use http::{Method, Response, StatusCode};
use lambda_http::{Body, Request};
use ledger::{Ledger, Store};
use std::sync::Arc;

const PATH: &str = "/v1/usage";
const METHODS: &str = "GET, OPTIONS";

/// The function. Clones share connections.
#[derive(Clone)]
pub(crate) struct Usage<S> {
    ledger: Ledger<S>,
    front: Arc<Front>,
}

impl<S: Store> Usage<S> {
    /// A function over this ledger.
    pub(crate) fn new(ledger: Ledger<S>, front: Front) -> Self {
        Self { ledger, front: Arc::new(front) }
    }

    /// Answers one request.
    pub(crate) async fn handle(&self, request: Request, now: Timestamp) -> Response<Body> {
        let cors = &self.front.cors;
        let mut response = match *request.method() {
            _ if request::path(&request) != PATH => Problem::not_found().into_response(),
            Method::OPTIONS => return cors.preflight(request.headers(), METHODS),
            Method::GET => self.get(&request, now).await.unwrap_or_else(Problem::into_response),
            _ => Problem::method_not_allowed(METHODS).into_response(),
        };
        cors.apply(request.headers(), response.headers_mut());
        response
    }

    async fn get(&self, request: &Request, now: Timestamp) -> Result<Response<Body>, Problem> {
        let user = session::authenticate(&self.front.verifier, request.headers(), now).await?;
        self.usage(&user, now).await
    }

    /// The usage of a user who is known.
    ///
    /// # Errors
    /// That the store does not answer.
    async fn usage(&self, user: &UserId, now: Timestamp) -> Result<Response<Body>, Problem> {
        let standing = self.ledger.standing(user, now).await.map_err(|unavailable| {
            tracing::error!(%user, error = chain(&unavailable), "the ledger does not answer");
            Problem::store_unavailable()
        })?;
        Ok(respond::json(StatusCode::OK, &wire::UsageWire::from(&standing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk::{Settings, Verifier, VerifyingKey};
    use edge::{cors::Cors, plans::PlanBook};
    use ledger::MemoryStore;
    use serde_json::Value;

    /// A public key whose private half was thrown away.
    const CLERK_JWT_KEY: &str = include_str!("clerk_jwt_key.pem");
    const NOW: Timestamp = Timestamp::from_s(1_800_000_000);

    fn function(store: MemoryStore) -> Usage<MemoryStore> {
        let verifier = Verifier::new(Settings {
            issuer: "https://clerk.example.com".to_owned(),
            keys: VerifyingKey::from_pem(CLERK_JWT_KEY).unwrap().into(),
            authorized_parties: vec!["https://app.example.com".to_owned()],
        });
        let front = Front { verifier: verifier.unwrap(), cors: Cors::default() };
        Usage::new(Ledger::new(store, PlanBook::built_in().unwrap().plans().clone()), front)
    }

    async fn answer(method: Method, path: &str, authorization: Option<&str>) -> (u16, Value) {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(value) = authorization {
            request = request.header(http::header::AUTHORIZATION, value);
        }
        let store = MemoryStore::new();
        let response = function(store.clone()).handle(request.body(Body::Empty).unwrap(), NOW).await;
        assert!(store.every_meter().is_empty(), "a refused request left something behind");
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or_default())
    }

    #[tokio::test]
    async fn nobody_sees_usage_without_a_session() {
        for authorization in [None, Some("Bearer a.b.c"), Some("Basic dTpw")] {
            let (status, body) = answer(Method::GET, "/v1/usage", authorization).await;
            assert_eq!((status, &body["code"]), (401, &Value::from("unauthenticated")));
        }
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        assert_eq!(answer(Method::GET, "/v1/other", None).await.0, 404);
        assert_eq!(answer(Method::POST, "/v1/usage", None).await.0, 405);
        assert_eq!(answer(Method::OPTIONS, "/v1/usage", None).await.0, 204);
    }

    #[tokio::test]
    async fn a_user_seen_for_the_first_time_is_on_the_first_plan() {
        let store = MemoryStore::new();
        let user = UserId::parse("user_1").unwrap();
        let response = function(store.clone()).usage(&user, NOW).await.unwrap();
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["plan"], "free");
        assert_eq!(body["usage"]["settled"], 0);
        assert_eq!(body["usage"]["left"], 20_000);
        assert_eq!(body["resetsAt"], body["period"]["end"]);
        assert_eq!(store.every_meter().len(), 1);
    }
}
