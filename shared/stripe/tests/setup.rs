//! The calls that set Stripe up, against a scripted peer: what goes over the wire, and what is read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; the helpers are part of it")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use stripe::setup::{
    Cents, Channel, Charge, EndpointChange, Interval, NewEndpoint, NewMeter, NewPrice, ObjectId,
    PortalSettings, ProductChange, SetupError, Tier,
};
use stripe::testing::{Peer, Reply, Request};
use stripe::{Secret, Settings, Stripe};

async fn peer(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Peer, Stripe) {
    let peer = Peer::start(answer).await.unwrap();
    let settings = Settings { base_url: Some(peer.url().into()), secret_key: Secret::new("sk_test_x") };
    (peer, Stripe::new(settings).unwrap())
}

fn answer(body: &Value) -> Reply {
    Reply::Answer(200, body.to_string())
}

fn id(text: &str) -> ObjectId {
    ObjectId::parse(text).unwrap()
}

fn form(request: &Request) -> Vec<(&str, &str)> {
    request.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn metered_price() -> Value {
    json!({
        "id": "price_m", "object": "price", "active": true, "currency": "usd", "product": "prod_1",
        "lookup_key": "tokens", "billing_scheme": "tiered", "tiers_mode": "graduated", "unit_amount_decimal": null,
        "transform_quantity": null,
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "metered", "meter": "mtr_1"},
        "tiers": [
            {"up_to": 500_000, "unit_amount": 0, "unit_amount_decimal": "0", "flat_amount": null, "flat_amount_decimal": null},
            {"up_to": null, "unit_amount": null, "unit_amount_decimal": "0.0002", "flat_amount": null,
             "flat_amount_decimal": null},
        ],
    })
}

fn metered_charge() -> Charge {
    let unit = Cents::parse("0.0002").unwrap();
    let tiers = vec![Tier { up_to: Some(500_000), unit: Cents::ZERO }, Tier { up_to: None, unit }];
    Charge::Metered { meter: id("mtr_1"), tiers }
}

#[tokio::test]
async fn f21_a_metered_price_charges_raw_tokens_at_an_exact_decimal() {
    let (peer, stripe) = peer(|_| answer(&metered_price())).await;
    let (product, charge) = (id("prod_1"), metered_charge());
    let new = NewPrice { product: &product, lookup_key: "tokens", takes_over: true, charge: &charge };
    let price = stripe.create_price(&new).await.unwrap();
    assert_eq!((price.charge, price.interval), (Some(metered_charge()), Interval::Month));
    let requests = peer.requests();
    let expected = [
        ("billing_scheme", "tiered"),
        ("currency", "usd"),
        ("expand[0]", "tiers"),
        ("lookup_key", "tokens"),
        ("metadata[inkmeter_lookup_key]", "tokens"),
        ("product", "prod_1"),
        ("recurring[interval]", "month"),
        ("recurring[meter]", "mtr_1"),
        ("recurring[usage_type]", "metered"),
        ("tiers[0][unit_amount_decimal]", "0"),
        ("tiers[0][up_to]", "500000"),
        ("tiers[1][unit_amount_decimal]", "0.0002"),
        ("tiers[1][up_to]", "inf"),
        ("tiers_mode", "graduated"),
        ("transfer_lookup_key", "true"),
    ];
    assert_eq!(form(&requests[0]), expected);
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/v1/prices"));
    assert_eq!(requests[0].headers["stripe-version"], "2026-09-30.endive");
}

#[tokio::test]
async fn a_price_in_a_way_that_we_never_charge_is_read_as_such() {
    let odd = |field: &str, value: Value| {
        let mut price = metered_price();
        price[field] = value;
        price
    };
    let mut flat_part = metered_price();
    flat_part["tiers"][0]["flat_amount_decimal"] = json!("100");
    let prices = vec![
        metered_price(),
        odd("tiers_mode", json!("volume")),
        odd("transform_quantity", json!({"divide_by": 1_000, "round": "up"})),
        odd("recurring", Value::Null),
        flat_part,
    ];
    let (peer, stripe) =
        peer(move |_| answer(&json!({"object": "list", "data": prices, "has_more": false}))).await;
    let keys: Vec<String> = (0..11).map(|number| format!("key{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let read = stripe.prices(&keys).await.unwrap();
    let charges: Vec<bool> = read.iter().take(5).map(|price| price.charge.is_some()).collect();
    assert_eq!(charges, [true, false, false, false, false]);
    assert_eq!(read[3].interval, Interval::Other("once".into()));
    // Stripe takes ten lookup keys in one query.
    let requests = peer.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].query["lookup_keys[9]"], "key9");
    assert_eq!(requests[1].query["lookup_keys[0]"], "key10");
    assert_eq!(requests[0].query["expand[0]"], "data.tiers");
}

#[tokio::test]
async fn a_list_is_read_to_its_end() {
    let product =
        |id: &str| json!({"id": id, "name": "n", "active": true, "metadata": {"inkmeter_plan": "pro"}});
    let (peer, stripe) = peer(move |request| match request.query.get("starting_after").map(String::as_str) {
        None => answer(&json!({"data": [product("prod_1"), product("prod_2")], "has_more": true})),
        Some("prod_2") => answer(&json!({"data": [product("prod_3")], "has_more": false})),
        Some(_) => Reply::Answer(400, String::new()),
    })
    .await;
    let products = stripe.products().await.unwrap();
    let ids: Vec<&str> = products.iter().map(|product| product.id.as_str()).collect();
    assert_eq!(ids, ["prod_1", "prod_2", "prod_3"]);
    assert_eq!(products[0].plan.as_deref(), Some("pro"));
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn a_create_has_a_fresh_key_and_is_sent_once_whatever_comes_back() {
    let (peer, stripe) = peer(|_| Reply::Cut).await;
    for _ in 0..2 {
        let new = NewMeter { display_name: "Tokens", event_name: "tokens" };
        assert!(matches!(stripe.create_meter(&new).await, Err(SetupError::Unknown(_))));
    }
    let requests = peer.requests();
    let keys: BTreeSet<&String> =
        requests.iter().map(|request| &request.headers["idempotency-key"]).collect();
    assert_eq!((requests.len(), keys.len()), (2, 2));
    let expected = [
        ("customer_mapping[event_payload_key]", "stripe_customer_id"),
        ("customer_mapping[type]", "by_id"),
        ("default_aggregation[formula]", "sum"),
        ("display_name", "Tokens"),
        ("event_name", "tokens"),
        ("value_settings[event_payload_key]", "value"),
    ];
    assert_eq!(form(&requests[0]), expected);
}

#[tokio::test]
async fn a_product_changes_in_what_is_said_only() {
    let (peer, stripe) =
        peer(|_| answer(&json!({"id": "prod_1", "name": "n", "active": true, "metadata": {}}))).await;
    let change = ProductChange { name: Some("Ink & Co".into()), ..ProductChange::default() };
    stripe.update_product(&id("prod_1"), &change).await.unwrap();
    let requests = peer.requests();
    assert_eq!(form(&requests[0]), [("name", "Ink & Co")]);
    assert_eq!(requests[0].path, "/v1/products/prod_1");
}

#[tokio::test]
async fn a_webhook_endpoint_is_pinned_to_the_version_that_is_read_and_its_secret_stays_out_of_sight() {
    let endpoint = json!({
        "id": "we_2", "url": "https://a.example", "enabled_events": ["invoice.paid"], "api_version": "2026-09-30.endive",
        "status": "enabled", "metadata": {"inkmeter_replaces": "we_1"}, "secret": "whsec_hush",
    });
    let (peer, stripe) = peer(move |_| answer(&endpoint)).await;
    let (events, old) = (BTreeSet::from(["invoice.paid".to_owned()]), id("we_1"));
    let new = NewEndpoint { url: "https://a.example", events: &events, replaces: Some(&old) };
    let (endpoint, secret) = stripe.create_endpoint(Channel::Snapshot, &new).await.unwrap();
    assert_eq!((endpoint.replaces, secret.expose()), (Some(old), "whsec_hush"));
    assert!(!format!("{secret:?}").contains("hush"));
    let requests = peer.requests();
    assert_eq!(requests[0].form["api_version"], "2026-09-30.endive");
    assert_eq!(requests[0].form["enabled_events[0]"], "invoice.paid");
    assert_eq!(requests[0].form["metadata[inkmeter_replaces]"], "we_1");
}

fn destination(name: &str, payload: &str) -> Value {
    json!({
        "id": name, "object": "v2.core.event_destination", "type": "webhook_endpoint", "event_payload": payload,
        "enabled_events": ["v1.billing.meter.no_meter_found"], "status": "disabled", "metadata": {},
        "webhook_endpoint": {"url": "https://a.example", "signing_secret": null},
    })
}

#[tokio::test]
async fn thin_events_need_a_destination_of_the_v2_api() {
    let (peer, stripe) = peer(|request| {
        let mut body = destination("ed_1", "thin");
        if request.path == "/v2/core/event_destinations" {
            body["webhook_endpoint"]["signing_secret"] = json!("whsec_thin");
        }
        answer(&body)
    })
    .await;
    let events = BTreeSet::from(["v1.billing.meter.no_meter_found".to_owned()]);
    let new = NewEndpoint { url: "https://a.example", events: &events, replaces: None };
    let (endpoint, secret) = stripe.create_endpoint(Channel::Thin, &new).await.unwrap();
    assert_eq!((endpoint.id.as_str(), endpoint.enabled, secret.expose()), ("ed_1", false, "whsec_thin"));
    let change = EndpointChange { events: Some(events), enable: true };
    stripe.update_endpoint(Channel::Thin, &endpoint.id, &change).await.unwrap();
    stripe.delete_endpoint(Channel::Thin, &endpoint.id).await.unwrap();

    let requests = peer.requests();
    let calls: Vec<(&str, &str)> =
        requests.iter().map(|request| (request.method.as_str(), request.path.as_str())).collect();
    let expected = [
        ("POST", "/v2/core/event_destinations"),
        ("POST", "/v2/core/event_destinations/ed_1"),
        ("POST", "/v2/core/event_destinations/ed_1/enable"),
        ("DELETE", "/v2/core/event_destinations/ed_1"),
    ];
    assert_eq!(calls, expected);
    let keys: BTreeSet<&String> =
        requests.iter().map(|request| &request.headers["idempotency-key"]).collect();
    assert_eq!(keys.len(), 4);
    for request in &requests {
        assert_eq!(request.headers["stripe-version"], "2026-09-30.endive");
        assert_eq!(request.headers["authorization"], "Bearer sk_test_x");
    }
    assert_eq!(requests[0].headers["content-type"], "application/json");
    let body: Value = serde_json::from_str(&requests[0].body).unwrap();
    let expected = json!({
        "name": "Inkmeter", "type": "webhook_endpoint", "event_payload": "thin",
        "enabled_events": ["v1.billing.meter.no_meter_found"], "webhook_endpoint": {"url": "https://a.example"},
        "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"],
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn destinations_are_read_page_by_page_and_the_key_goes_nowhere_else() {
    let (peer, stripe) = peer(|request| match request.query.get("page") {
        None => answer(&json!({
            "data": [destination("ed_1", "thin"), destination("ed_2", "snapshot")],
            "next_page_url": "https://elsewhere.example/v2/core/event_destinations?page=two",
        })),
        Some(_) => answer(&json!({"data": [destination("ed_3", "thin")], "next_page_url": null})),
    })
    .await;
    let read = stripe.endpoints(Channel::Thin).await.unwrap();
    let ids: Vec<&str> = read.iter().map(|endpoint| endpoint.id.as_str()).collect();
    assert_eq!(ids, ["ed_1", "ed_3"]);
    let requests = peer.requests();
    assert_eq!(requests[0].query["include[0]"], "webhook_endpoint.url");
    assert_eq!((requests.len(), requests[1].query["page"].as_str()), (2, "two"));
}

#[track_caller]
fn check(error: &SetupError, expected: &str) {
    let name = format!("{error:?}");
    assert!(name.starts_with(expected), "{name}");
}

#[tokio::test]
async fn an_error_of_the_v2_api_says_what_is_known() {
    let error = r#"{"error":{"code":"invalid_parameters","message":"no such event","type":"x"}}"#;
    for (reply, expected) in [
        (Reply::Answer(400, error.into()), "Refused(\"HTTP 400 (invalid_parameters): no such event\")"),
        (Reply::Answer(429, error.into()), "Unavailable"),
        (Reply::Answer(500, error.into()), "Unknown"),
        (Reply::Answer(502, "<html>".into()), "Unknown"),
        (Reply::Answer(200, "{".into()), "Unknown"),
        (Reply::Cut, "Unknown"),
    ] {
        let (_peer, stripe) = peer(move |_| reply.clone()).await;
        check(&stripe.endpoints(Channel::Thin).await.unwrap_err(), expected);
    }
    let (gone, stripe) = peer(|_| Reply::Cut).await;
    let url = gone.url().to_owned();
    drop(gone);
    tokio::task::yield_now().await;
    check(&stripe.endpoints(Channel::Thin).await.unwrap_err(), "Unavailable");
    assert!(!url.is_empty());
}

#[tokio::test]
async fn the_portal_lets_customers_cancel_with_the_period_and_change_no_plan() {
    let portal = json!({
        "id": "bpc_1", "active": true, "default_return_url": "https://app.example", "metadata": {"inkmeter": "portal"},
        "features": {
            "customer_update": {"enabled": false}, "invoice_history": {"enabled": true},
            "payment_method_update": {"enabled": true},
            "subscription_cancel": {"enabled": true, "mode": "at_period_end"}, "subscription_update": {"enabled": false},
        },
        "login_page": {"enabled": true, "url": "https://login.example"},
    });
    let (peer, stripe) = peer(move |_| answer(&portal)).await;
    let settings = PortalSettings {
        return_url: Some("https://app.example".into()),
        invoices: true,
        payment_methods: true,
        cancel_at_period_end: true,
        change_plan: false,
        login_page: true,
    };
    let portal = stripe.create_portal(&settings).await.unwrap();
    assert_eq!((portal.ours, &portal.settings), (true, &settings));
    assert_eq!(portal.login_url.as_deref(), Some("https://login.example"));
    let requests = peer.requests();
    let expected = [
        ("default_return_url", "https://app.example"),
        ("features[invoice_history][enabled]", "true"),
        ("features[payment_method_update][enabled]", "true"),
        ("features[subscription_cancel][enabled]", "true"),
        ("features[subscription_cancel][mode]", "at_period_end"),
        ("features[subscription_update][enabled]", "false"),
        ("login_page[enabled]", "true"),
        ("metadata[inkmeter]", "portal"),
    ];
    assert_eq!(form(&requests[0]), expected);
}
