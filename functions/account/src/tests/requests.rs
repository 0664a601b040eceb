//! What is refused, the cap, and receipts.

use super::{APP, NOW, api, ask, fake::Fake, meanwhile::Meanwhile, request, user};
use crate::handler::AccountApi;
use domain::{
    Classes, CustomerId, Denial, Hold, HoldId, NanoUsd, Outcome, PlanId, Receipt, Refusal, ReportRow,
    RowFate, Timestamp, Tokens, Usage, Window,
};
use http::{Method, header};
use ledger::{MemoryStore, MeterKey, Store};
use serde_json::{Value, json};

fn plain(store: &MemoryStore) -> AccountApi<MemoryStore> {
    api(store.clone(), Fake::new(0).stripe())
}

async fn unauthenticated(method: Method, path: &str, authorization: Option<&str>) -> (u16, Value) {
    let mut request = request(method, path, &Value::Null);
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
    }
    let store = MemoryStore::new();
    let response = plain(&store).handle(request, NOW).await;
    assert!(store.every_meter().is_empty(), "a refused request left something behind");
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or_default())
}

#[tokio::test]
async fn nobody_sees_or_buys_anything_without_a_session() {
    for (method, path) in [
        (Method::GET, "/v1/usage"),
        (Method::GET, "/v1/receipts"),
        (Method::POST, "/v1/checkout"),
        (Method::POST, "/v1/portal"),
        (Method::PUT, "/v1/spend-cap"),
    ] {
        for authorization in [None, Some("Bearer a.b.c"), Some("Basic dTpw")] {
            let (status, body) = unauthenticated(method.clone(), path, authorization).await;
            assert_eq!((status, &body["code"]), (401, &Value::from("unauthenticated")), "{path}");
        }
        assert_eq!(unauthenticated(Method::OPTIONS, path, None).await.0, 204);
        assert_eq!(unauthenticated(Method::DELETE, path, None).await.0, 405);
    }
    assert_eq!(unauthenticated(Method::GET, "/v1/other", None).await.0, 404);
}

#[tokio::test]
async fn a_user_seen_for_the_first_time_is_on_the_first_plan() {
    let store = MemoryStore::new();
    let (_, body) = ask(&plain(&store), Method::GET, "/v1/usage", &Value::Null, NOW).await;
    assert_eq!((&body["plan"], &body["status"]), (&"free".into(), &"none".into()));
    assert_eq!(body["usage"]["settled"], 0);
    assert_eq!(body["usage"]["left"], 20_000);
    assert_eq!(body["resetsAt"], body["period"]["end"]);
    assert_eq!(store.every_meter().len(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_exactly_what_it_has_to_be_is_refused_by_name() {
    let store = MemoryStore::new();
    let api = plain(&store);
    let (good, evil) = (format!("{APP}/done"), "https://app.example.com.evil.test/");
    let long = format!("{APP}/{}", "x".repeat(1_100));
    let urls =
        |success: &Value, cancel: &Value| json!({"plan": "pro", "successUrl": success, "cancelUrl": cancel});
    for (path, body, status, code, field) in [
        ("/v1/checkout", json!([]), 422, "invalid_json", Value::Null),
        ("/v1/checkout", json!({}), 422, "invalid_field", "plan".into()),
        ("/v1/checkout", json!({"plan": "free"}), 422, "invalid_field", "plan".into()),
        ("/v1/checkout", json!({"plan": 1}), 422, "invalid_field", "plan".into()),
        ("/v1/checkout", json!({"plan": "pro"}), 422, "invalid_field", "successUrl".into()),
        ("/v1/checkout", urls(&evil.into(), &good.clone().into()), 422, "invalid_field", "successUrl".into()),
        ("/v1/checkout", urls(&good.clone().into(), &long.into()), 422, "invalid_field", "cancelUrl".into()),
        ("/v1/checkout", json!({"plan": "pro", "quantity": 2}), 422, "invalid_field", "body".into()),
        ("/v1/portal", json!({"returnUrl": null}), 422, "invalid_field", "returnUrl".into()),
        ("/v1/portal", json!({"returnUrl": "x".repeat(5_000)}), 413, "too_large", Value::Null),
        ("/v1/spend-cap", json!({}), 422, "invalid_field", "tokens".into()),
        ("/v1/spend-cap", json!({"tokens": -1}), 422, "invalid_field", "tokens".into()),
        ("/v1/spend-cap", json!({"tokens": 1.5}), 422, "invalid_field", "tokens".into()),
        (
            "/v1/spend-cap",
            json!({"tokens": 1_000_000_000_000_000_u64}),
            422,
            "invalid_field",
            "tokens".into(),
        ),
        ("/v1/spend-cap", json!({"tokens": 1, "confirm": "yes"}), 422, "invalid_field", "confirm".into()),
    ] {
        let method = if path == "/v1/spend-cap" { Method::PUT } else { Method::POST };
        let (got, problem) = ask(&api, method, path, &body, NOW).await;
        assert_eq!(
            (got, &problem["code"], &problem["field"]),
            (status, &code.into(), &field),
            "{path} {body}"
        );
    }
    let mut text = request(Method::PUT, "/v1/spend-cap", &json!({"tokens": 1}));
    text.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    assert_eq!(api.as_user(&user(), text, NOW).await.status(), 415);
    assert!(store.every_meter().is_empty(), "a refused request left something behind");
}

/// The current meter of the user, changed without more ado.
async fn used(api: &AccountApi<MemoryStore>, store: &MemoryStore, settled: u32, held: u32) -> MeterKey {
    api.ledger.standing(&user(), NOW).await.unwrap();
    let mut kept = store.kept();
    let (key, meter) = kept.meters.iter_mut().next().unwrap();
    meter.settled = Tokens::from_u32(settled);
    meter.committed = Tokens::from_u32(settled + held);
    key.clone()
}

#[tokio::test]
async fn a_cap_below_what_is_used_and_held_takes_a_second_word() {
    let store = MemoryStore::new();
    let api = plain(&store);
    used(&api, &store, 900, 100).await;
    let put = async |body: Value| ask(&api, Method::PUT, "/v1/spend-cap", &body, NOW).await;
    let (status, problem) = put(json!({"tokens": 999})).await;
    assert_eq!((status, &problem["code"]), (409, &"spend_cap_below_used".into()));
    assert_eq!(
        (&problem["limit"], &problem["used"], &problem["held"]),
        (&999.into(), &900.into(), &100.into())
    );
    assert_eq!(ask(&api, Method::GET, "/v1/usage", &Value::Null, NOW).await.1["spendCap"], Value::Null);
    let (status, usage) = put(json!({"tokens": 1_000})).await;
    assert_eq!((status, &usage["spendCap"], &usage["usage"]["cap"]), (200, &1_000.into(), &1_000.into()));
    let (status, usage) = put(json!({"tokens": 0, "confirm": true})).await;
    assert_eq!((status, &usage["spendCap"], &usage["usage"]["left"]), (200, &0.into(), &0.into()));
    let (status, usage) = put(json!({"tokens": null})).await;
    assert_eq!((status, &usage["spendCap"]), (200, &Value::Null));
}

fn receipt(number: u32, period_start: Timestamp, charged: u32) -> Receipt {
    let classes = Classes { output: Tokens::from_u32(charged), ..Classes::default() };
    let model = domain::ModelId::parse("gpt-6-luna").unwrap();
    Receipt {
        user: user(),
        period_start,
        id: HoldId::parse(&format!("H{number:025}")).unwrap(),
        at: NOW,
        outcome: Outcome::Settled { usage: Usage::Exact(classes), model, price_version: 1 },
        charged: Tokens::from_u32(charged),
        absorbed: Tokens::ZERO,
        cost: NanoUsd::ZERO,
        failed_calls: 0,
    }
}

#[tokio::test]
async fn receipts_come_newest_first_in_pages_and_their_costs_add_up_to_the_overage() {
    let store = MemoryStore::new();
    let api = plain(&store);
    // 250 of 2,500 each: the first 200 are included, the others cost half a cent.
    let key = used(&api, &store, 250 * 2_500, 0).await;
    {
        let mut kept = store.kept();
        let meter = kept.meters.get_mut(&key).unwrap();
        meter.plan = PlanId::parse("pro").unwrap();
        meter.customer = CustomerId::parse("cus_1").ok();
    }
    for number in 0..250 {
        store.put_receipt(&receipt(number, key.period_start, 2_500)).await.unwrap();
    }
    let (mut path, mut all) = ("/v1/receipts?limit=70".to_owned(), Vec::new());
    let mut pages = 0;
    loop {
        let (status, body) = ask(&api, Method::GET, &path, &Value::Null, NOW).await;
        assert_eq!(status, 200, "{body}");
        all.extend(body["receipts"].as_array().unwrap().clone());
        pages += 1;
        let Some(next) = body["next"].as_str() else { break };
        path = format!("/v1/receipts?limit=70&cursor={next}");
    }
    assert_eq!((pages, all.len()), (4, 250));
    let ids: Vec<&str> = all.iter().map(|receipt| receipt["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first, each once");
    let dear = all.iter().filter(|receipt| receipt["costUsd"] == "0.005").count();
    let free = all.iter().filter(|receipt| receipt["costUsd"] == "0.00").count();
    assert_eq!((dear, free), (50, 200));
    assert_eq!(all[0]["costUsd"], "0.005");
    let first = &all[249];
    assert_eq!((&first["outcome"], &first["model"]), (&"settled".into(), &"gpt-6-luna".into()));
    let usage = json!({"promptTokens": 0, "completionTokens": 2_500, "totalTokens": 2_500});
    assert_eq!((&first["usage"], &first["charged"]), (&usage, &2_500.into()));
}

#[tokio::test]
async fn what_was_imported_costs_nothing_here_and_what_was_used_besides_is_priced_above_it() {
    let store = MemoryStore::new();
    let api = plain(&store);
    let key = used(&api, &store, 1_300_000, 0).await;
    {
        let mut kept = store.kept();
        let meter = kept.meters.get_mut(&key).unwrap();
        meter.plan = PlanId::parse("pro").unwrap();
        meter.customer = CustomerId::parse("cus_1").ok();
        meter.billing = domain::Billing::Item;
    }
    let imported = Receipt::imported(
        user(),
        key.period_start,
        HoldId::parse("adopted").unwrap(),
        Tokens::from_u32(600_000),
        NOW,
    );
    for receipt in [receipt(0, key.period_start, 400_000), receipt(1, key.period_start, 300_000), imported] {
        store.put_receipt(&receipt).await.unwrap();
    }
    let (_, body) = ask(&api, Method::GET, "/v1/receipts", &Value::Null, NOW).await;
    assert_eq!(body["receipts"][0]["outcome"], "imported");
    assert_eq!(costs(&body), [None, Some("0.60"), Some("0.80")]);
}

/// A subscriber who has used three times 400,000 tokens of the 500,000 that are included.
async fn thrice(store: &MemoryStore) -> MeterKey {
    let key = used(&plain(store), store, 1_200_000, 0).await;
    let mut kept = store.kept();
    let meter = kept.meters.get_mut(&key).unwrap();
    meter.plan = PlanId::parse("pro").unwrap();
    meter.customer = CustomerId::parse("cus_1").ok();
    for number in 0..3 {
        let receipt = receipt(number, key.period_start, 400_000);
        kept.receipts.insert((key.clone(), receipt.id.clone()), receipt);
    }
    key
}

fn costs(body: &Value) -> Vec<Option<&str>> {
    body["receipts"].as_array().unwrap().iter().map(|receipt| receipt["costUsd"].as_str()).collect()
}

#[tokio::test]
async fn i2_a_settle_between_the_readings_of_a_page_shows_in_no_wrong_cost() {
    for (settles, expected) in [
        (0, vec!["0.80", "0.60", "0.00"]),
        (1, vec!["0.80", "0.80", "0.60", "0.00"]),
        (2, vec!["0.80", "0.80", "0.80", "0.60", "0.00"]),
    ] {
        let store = MemoryStore::new();
        let key = thrice(&store).await;
        let settle = |number: u32| -> Box<dyn Fn(&MemoryStore) + Send> {
            let (key, receipt) = (key.clone(), receipt(number, key.period_start, 400_000));
            Box::new(move |store| {
                let mut kept = store.kept();
                kept.receipts.insert((key.clone(), receipt.id.clone()), receipt.clone());
                let meter = kept.meters.get_mut(&key).unwrap();
                meter.settled = meter.settled.saturating_add(receipt.charged);
            })
        };
        let meanwhile = Meanwhile::new(store, (0..settles).map(|n| settle(3 + n)).collect());
        let api = api(meanwhile.clone(), Fake::new(0).stripe());
        let (status, body) = ask(&api, Method::GET, "/v1/receipts", &Value::Null, NOW).await;
        assert_eq!((status, meanwhile.left()), (200, 0), "{body}");
        assert_eq!(costs(&body), expected.into_iter().map(Some).collect::<Vec<_>>(), "{settles} meanwhile");
    }
}

#[tokio::test]
async fn i8_a_page_whose_meter_never_stands_still_is_given_up_rather_than_guessed() {
    let store = MemoryStore::new();
    let key = thrice(&store).await;
    let settle = |_| -> Box<dyn Fn(&MemoryStore) + Send> {
        let key = key.clone();
        Box::new(move |store| {
            let mut kept = store.kept();
            let meter = kept.meters.get_mut(&key).unwrap();
            meter.settled = meter.settled.saturating_add(Tokens::from_u32(1));
        })
    };
    let api = api(Meanwhile::new(store, (0..100).map(settle).collect()), Fake::new(0).stripe());
    let (status, body) = ask(&api, Method::GET, "/v1/receipts", &Value::Null, NOW).await;
    assert_eq!((status, &body["code"]), (503, &"store_unavailable".into()));
}

#[tokio::test]
async fn a_receipt_whose_hold_is_open_still_has_no_cost_and_shifts_nobody_elses() {
    let store = MemoryStore::new();
    let key = thrice(&store).await;
    {
        let mut kept = store.kept();
        // Put, and its meter has not moved yet; not the newest, for an old request may take long.
        let put = Receipt {
            id: HoldId::parse(&format!("H{:024}5", 0)).unwrap(),
            ..receipt(0, key.period_start, 90)
        };
        let hold = Hold {
            tokens: Tokens::from_u32(100),
            cost_most: NanoUsd::ZERO,
            window: Window::from_index(0),
            expires_at: NOW,
        };
        kept.meters.get_mut(&key).unwrap().holds.insert(put.id.clone(), hold);
        kept.receipts.insert((key.clone(), put.id.clone()), put);
    }
    let api = plain(&store);
    let (_, body) = ask(&api, Method::GET, "/v1/receipts", &Value::Null, NOW).await;
    assert_eq!(costs(&body), [None, Some("0.80"), Some("0.60"), Some("0.00")]);
}

#[tokio::test]
async fn the_first_page_says_what_was_refused_why_and_what_came_late() {
    let store = MemoryStore::new();
    let api = plain(&store);
    let key = used(&api, &store, 10, 0).await;
    let refusal = Refusal::Rate { limit: 10, window_ms: 60_000, retry_at: NOW.plus_ms(5) };
    let place = (user(), key.period_start);
    let _ = store.put_denial(&Denial::of(&refusal, place.clone(), Tokens::from_u32(90), NOW)).await.unwrap();
    let row = ReportRow {
        seq: 3,
        customer: CustomerId::parse("cus_1").unwrap(),
        identifier: "user_1-1-3".to_owned(),
        tokens: Tokens::from_u32(7),
        timestamp: NOW,
        first_attempt_at: None,
        last_attempt_at: None,
        fence: 0,
    };
    store.put_report(&key, &row, RowFate::Invoiced, NOW, Some("ii_1")).await.unwrap();
    store.kept().meters.get_mut(&key).unwrap().invoiced = Tokens::from_u32(7);
    let imported = ReportRow { seq: 2, identifier: "adopted-user_1-1".to_owned(), ..row };
    let note = "counted and billed before the subscription was adopted";
    store.put_report(&key, &imported, RowFate::Invoiced, NOW, Some(note)).await.unwrap();
    for number in 0..2 {
        store.put_receipt(&receipt(number, key.period_start, 5)).await.unwrap();
    }
    let (_, body) = ask(&api, Method::GET, "/v1/receipts?limit=1", &Value::Null, NOW).await;
    let denial = json!({
        "code": "rate_limited", "reason": "Too many requests", "at": "2027-01-15T08:00:00.000Z", "needed": 90,
        "until": "2027-01-15T08:00:00.005Z",
    });
    assert_eq!(body["denials"], json!([denial]));
    let late = json!({
        "periodStart": "2027-01-15T08:00:00.000Z", "tokens": 7, "at": "2027-01-15T08:00:00.000Z", "invoiceItem": "ii_1",
    });
    assert_eq!(body["lateUsage"], json!([late]));
    let next = format!("/v1/receipts?limit=1&cursor={}", body["next"].as_str().unwrap());
    let (_, body) = ask(&api, Method::GET, &next, &Value::Null, NOW).await;
    assert_eq!((&body["denials"], &body["lateUsage"], &body["next"]), (&json!([]), &json!([]), &Value::Null));
    assert_eq!(body["receipts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_limit_or_cursor_of_no_answers_is_refused() {
    let api = plain(&MemoryStore::new());
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=+1", "limit"),
        ("limit=", "limit"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=UiMwMDE.1.2", "cursor"),
    ] {
        let path = format!("/v1/receipts?{query}");
        let (status, problem) = ask(&api, Method::GET, &path, &Value::Null, NOW).await;
        assert_eq!((status, &problem["field"]), (422, &field.into()), "{query}");
    }
}
