//! The function over a store in memory and a Stripe that is a function of the test.

mod buying;
mod fake;
mod invoices;
mod meanwhile;
mod requests;

use crate::{
    config::Front,
    handler::{AccountApi, Sale},
};
use clerk::{Settings, Verifier, VerifyingKey};
use domain::{Timestamp, UserId};
use edge::{cors::Cors, plans::PlanBook};
use http::Method;
use lambda_http::{Body, Request, RequestExt};
use ledger::{Ledger, Store};
use serde_json::Value;
use std::collections::HashMap;

/// A public key whose private half was thrown away.
const CLERK_JWT_KEY: &str = include_str!("tests/clerk_jwt_key.pem");
const NOW: Timestamp = Timestamp::from_s(1_800_000_000);
const APP: &str = "https://app.example.com";
/// The built-in book's two plans, and a third.
const AGENCY: &str = include_str!("../../../tests/agency.toml");

fn book() -> PlanBook {
    PlanBook::parse(&format!("{}{AGENCY}", include_str!("../../../infra/plans.toml"))).unwrap()
}

fn user() -> UserId {
    UserId::parse("user_1").unwrap()
}

fn api<S: Store>(store: S, stripe: stripe::Stripe) -> AccountApi<S> {
    let verifier = Verifier::new(Settings {
        issuer: "https://clerk.example.com".to_owned(),
        keys: VerifyingKey::from_pem(CLERK_JWT_KEY).unwrap().into(),
        authorized_parties: vec![APP.to_owned()],
    });
    let front = Front { verifier: verifier.unwrap(), cors: Cors::new(&[APP.to_owned()]).unwrap() };
    let ledger = Ledger::new(store, book().plans().clone());
    AccountApi::new(ledger, Sale::new(stripe, book(), None), front)
}

fn request(method: Method, path: &str, body: &Value) -> Request {
    let builder = http::Request::builder().method(method).uri(path);
    let builder = builder.header(http::header::CONTENT_TYPE, "application/json");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    // As the gateway gives them.
    let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let query: HashMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    builder.body(Body::from(body)).unwrap().with_query_string_parameters(query)
}

/// What the user is answered: status and body.
async fn ask<S: Store>(
    api: &AccountApi<S>,
    method: Method,
    path: &str,
    body: &Value,
    now: Timestamp,
) -> (u16, Value) {
    let response = api.as_user(&user(), request(method, path, body), now).await;
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or_default())
}
