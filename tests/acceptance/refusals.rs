//! Every refusal as its client gets it: a problem that says what to do, and nothing consumed.

use crate::support::{Client, Events, cloud, gate, items, one_plan};
use local::{cloud::Cloud, logs::LogSink};
use reqwest::Response;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const README: &str = include_str!("../../README.md");

/// The answer's problem, held to what every problem has.
pub(crate) async fn problem(answer: Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.status(), status, "{code}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{code}");
    assert_eq!(answer.headers()["cache-control"], "no-store", "{code}");
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)));
    assert_eq!(body["retryAfter"].as_u64().map(|seconds| seconds.to_string()), retry_after, "{code}");
    assert!(README.contains(&format!("| `{code}` | {status} |")), "README's API section lacks `{code}`");
    listed(&body);
    for text in ["type", "title", "detail"] {
        assert!(body[text].as_str().is_some_and(|text| !text.is_empty()), "{code} has no {text}");
    }
    body
}

/// README shows a body of this code: the same members and the same title.
fn listed(body: &Value) {
    let members = |body: &Value| body.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let shown = README.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_code = shown.filter(|shown| shown["code"] == body["code"]);
    let like = |shown: &Value| members(shown) == members(body) && shown["title"] == body["title"];
    assert!(of_code.any(|shown| like(&shown)), "README shows no such body: {body}");
}

/// Nothing was held, counted or called for this user.
fn consumed_nothing(cloud: &Cloud, user: &str) {
    assert_eq!(items(cloud, user, ""), Vec::<Value>::new());
    assert!(cloud.openai().unwrap().requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_request_that_is_not_understood_names_the_field_and_the_limit() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "alice");
    let long = "x".repeat(32_769);
    let table: Vec<(Value, u16, &str, Value, Value)> = vec![
        (json!([1]), 422, "invalid_json", Value::Null, Value::Null),
        (json!({ "type": "rewrite" }), 422, "invalid_field", json!("prompt"), Value::Null),
        (json!({ "prompt": 1, "type": "rewrite" }), 422, "invalid_field", json!("prompt"), Value::Null),
        (json!({ "prompt": " \n", "type": "rewrite" }), 422, "invalid_field", json!("prompt"), Value::Null),
        (json!({ "prompt": "a" }), 422, "invalid_field", json!("type"), Value::Null),
        (json!({ "prompt": "a", "type": "poem" }), 422, "invalid_field", json!("type"), Value::Null),
        (
            json!({ "prompt": "a", "type": "rewrite", "model": "gpt-7" }),
            422,
            "unknown_model",
            json!("model"),
            Value::Null,
        ),
        (
            json!({ "prompt": long, "type": "rewrite" }),
            413,
            "prompt_too_long",
            json!("prompt"),
            json!(32_768),
        ),
        (
            json!({ "prompt": "x".repeat(70_000), "type": "rewrite" }),
            413,
            "too_large",
            Value::Null,
            json!(65_536),
        ),
    ];
    for (body, status, code, field, limit) in table {
        let problem = problem(client.generate_json(&body).await, status, code).await;
        assert_eq!((&problem["field"], &problem["limit"]), (&field, &limit), "{code}");
    }
    let not_json =
        client.post().bearer_auth(&client.token).header("content-type", "application/json").body("{");
    problem(not_json.send().await.unwrap(), 422, "invalid_json").await;
    let form = client.post().bearer_auth(&client.token).body("prompt=a");
    problem(form.send().await.unwrap(), 415, "unsupported_media_type").await;
    consumed_nothing(&cloud, &client.user);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_token_that_does_not_hold_is_refused() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "alice");
    let body = json!({ "prompt": "a", "type": "rewrite" });
    let missing = client.post().json(&body).send().await.unwrap();
    assert!(missing.headers().contains_key("x-amzn-remapped-www-authenticate"), "API Gateway renames it");
    problem(missing, 401, "unauthenticated").await;
    let expired = cloud.clerk().unwrap().mint(&client.user, 1_000_000);
    let forged = format!("{}x", client.token);
    for token in [expired.as_str(), &forged, "not.a.token", &"a".repeat(9_000)] {
        let refused = client.post().bearer_auth(token).json(&body).send().await.unwrap();
        problem(refused, 401, "unauthenticated").await;
    }
    consumed_nothing(&cloud, &client.user);
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_the_rate_window_and_the_concurrency_say_when_to_come_back() {
    let plans = one_plan(1_000_000, 3, 2);
    let cloud = cloud(|options| {
        options.plans = Some(plans.path().to_owned());
        gate(options);
    })
    .await;
    let client = Client::new(&cloud, "alice");
    let first = Events::of(client.generate("[[tokens=3]] a").await);
    let second = Events::of(client.generate("[[tokens=3]] a").await);
    let busy = problem(client.generate("a").await, 429, "concurrency").await;
    assert_eq!((&busy["limit"], &busy["upperBound"]), (&json!(2), &json!(true)));
    cloud.openai().unwrap().release(1_000);
    first.rest().await;
    second.rest().await;
    Events::of(client.generate("[[tokens=3]] a").await).rest().await;
    let answer = client.generate("a").await;
    assert_eq!(answer.headers()["ratelimit-policy"], "\"requests\";q=3;w=86400");
    let full = problem(answer, 429, "rate_limited").await;
    assert!(full["upperBound"].is_null() && full["retryAt"].is_string(), "{full}");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_a_provider_that_does_not_begin_to_answer_costs_nothing() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "alice");
    for (directive, retry_after) in [("error=500", 5), ("error=429 retry_after=7", 7), ("drop_head", 5)] {
        let answer = client.generate(&format!("[[{directive}]] a")).await;
        let problem = problem(answer, 503, "provider_unavailable").await;
        assert_eq!(problem["retryAfter"], retry_after, "{directive}");
    }
    let usage = client.usage().await;
    assert_eq!((&usage["usage"]["settled"], &usage["usage"]["held"]), (&json!(0), &json!(0)));
    let meter = crate::support::meter(&cloud, &client.user);
    let counts = meter["rate"].as_object().unwrap();
    assert!(counts.values().all(|count| *count == 0), "a rate slot was kept: {counts:?}");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f14_without_the_store_nobody_generates() {
    let cloud = cloud(|options| {
        options.extra.insert("DYNAMODB_ENDPOINT".to_owned(), "http://127.0.0.1:9".to_owned());
    })
    .await;
    let client = Client::new(&cloud, "alice");
    problem(client.generate("a").await, 503, "store_unavailable").await;
    assert!(cloud.openai().unwrap().requests().is_empty());
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_may_call_from_where_a_token_may_be_made_for_and_from_nowhere_else() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "alice");
    let origin = cloud.clerk().unwrap().authorized_party().to_owned();
    let allowed = client.preflight(&origin).await;
    assert_eq!(allowed.headers()["access-control-allow-origin"], origin.as_str());
    assert!(allowed.headers()["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    let refused = client.preflight("https://elsewhere.example").await;
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
    // A refusal can be read by the page too.
    let body = json!({ "prompt": "a", "type": "rewrite" });
    let unauthenticated = client.post().header("origin", &origin).json(&body).send().await.unwrap();
    assert_eq!(unauthenticated.headers()["access-control-allow-origin"], origin.as_str());
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_prompt_a_token_or_a_key_is_ever_logged() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let cloud = cloud(|options| {
        options.logs = LogSink::callback(move |line| sink.lock().unwrap().push(line.text));
        options.extra.insert("RUST_LOG".to_owned(), "debug".to_owned());
    })
    .await;
    let client = Client::new(&cloud, "alice");
    let secret = "Zanzibar";
    for directive in ["tokens=5", "cut=3", "error=500", "inband=2"] {
        drop(client.generate(&format!("[[{directive}]] {secret}")).await.text().await);
    }
    drop(client.generate_json(&json!({ "prompt": secret, "type": secret })).await);
    let forged = client.post().bearer_auth(format!("{}x", client.token)).json(&json!({ "prompt": secret }));
    drop(forged.send().await.unwrap());
    let keys = [cloud.openai().map(|_| "sk-local"), Some(secret), client.token.rsplit('.').next()];
    cloud.shutdown().await;
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("settled")), "nothing was logged at all");
    for line in lines.iter() {
        for secret in keys.iter().flatten() {
            assert!(!line.contains(secret), "logged: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_seen_user_is_free_however_many_requests_see_him_first() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "new");
    let seen = futures_util::future::join_all((0..20).map(|_| client.usage())).await;
    assert!(seen.iter().all(|usage| usage == &seen[0]), "{seen:?}");
    assert_eq!((&seen[0]["plan"], &seen[0]["usage"]["cap"]), (&json!("free"), &json!(20_000)));
    assert_eq!(items(&cloud, &client.user, "").len(), 2, "one account, one meter");
    cloud.shutdown().await;
}
