//! What the product relies on of Stripe, said once and asked of two servers: the stand-in, and the real one in test mode
//! when `STRIPE_CONTRACT_KEY` holds a test key (`infra/check/stripe_live.sh` sets it).
//!
//! Each test makes its own objects and cleans up. Nothing here knows the stand-in's inside.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail as its assertions do"
)]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use local::stripe::{Options, Stripe, start};
use serde_json::{Value, json};

const VERSION: &str = "2026-09-30.endive";
const REAL: &str = "https://api.stripe.com/";
const LOCAL_KEY: &str = "sk_test_contract";

struct Api {
    http: reqwest::Client,
    base: String,
    key: String,
    /// Keeps the stand-in running.
    _local: Option<Stripe>,
    run: String,
}

struct Reply {
    status: u16,
    replayed: bool,
    json: Value,
}

impl Reply {
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.json);
        self.json
    }

    fn id(self) -> String {
        self.ok()["id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.json);
        if !code.is_empty() {
            assert_eq!(self.json["error"]["code"], code, "{}", self.json);
        }
    }
}

fn now() -> std::time::Duration {
    #[expect(clippy::disallowed_methods, reason = "the real Stripe keeps real time")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

impl Api {
    async fn new() -> Self {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.unwrap().with_root_certificates(roots).with_no_client_auth();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let run = now().as_nanos().to_string();
        #[expect(
            clippy::disallowed_methods,
            reason = "the test asks for the key of the server that it is to test"
        )]
        if let Ok(key) = std::env::var("STRIPE_CONTRACT_KEY") {
            assert!(key.starts_with("sk_test_"), "a key of test mode is wanted");
            return Self { http, base: REAL.to_owned(), key, _local: None, run };
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options { api_key: LOCAL_KEY.to_owned(), ..Options::default() };
        let stripe = start(listener, options).await.unwrap();
        Self { http, base: stripe.base_url(), key: LOCAL_KEY.to_owned(), _local: Some(stripe), run }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.base, path.trim_start_matches('/'));
        let request = self.http.request(method.parse().unwrap(), url);
        request.bearer_auth(&self.key).header("stripe-version", VERSION)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let replayed = answer.headers().get("idempotent-replayed").is_some();
        Reply { status, replayed, json: answer.json().await.unwrap() }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.send(self.request("POST", path).form(form)).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(self.request("GET", path)).await
    }

    async fn product(&self) -> String {
        self.post("/v1/products", &[("name", &format!("Contract {}", self.run))]).await.id()
    }

    async fn base_price(&self, product: &str) -> String {
        let form = [
            ("product", product),
            ("currency", "usd"),
            ("unit_amount", "2000"),
            ("recurring[interval]", "month"),
        ];
        self.post("/v1/prices", &form).await.id()
    }

    /// A meter and a graduated price that it backs.
    async fn metered_price(&self, product: &str) -> (String, String) {
        let event = format!("contract_{}", self.run);
        let form = [
            ("display_name", "Contract"),
            ("event_name", event.as_str()),
            ("default_aggregation[formula]", "sum"),
        ];
        let meter = self.post("/v1/billing/meters", &form).await.id();
        let form = [
            ("product", product),
            ("currency", "usd"),
            ("billing_scheme", "tiered"),
            ("tiers_mode", "graduated"),
            ("tiers[0][up_to]", "500000"),
            ("tiers[0][unit_amount]", "0"),
            ("tiers[1][up_to]", "inf"),
            ("tiers[1][unit_amount_decimal]", "0.0002"),
            ("recurring[interval]", "month"),
            ("recurring[usage_type]", "metered"),
            ("recurring[meter]", meter.as_str()),
        ];
        let price = self.post("/v1/prices", &form).await.id();
        (meter, price)
    }

    /// Puts away what can be put away. It proves nothing, so that it does not fail.
    async fn clean(&self, product: &str, prices: &[&str], meter: Option<&str>, customer: Option<&str>) {
        for price in prices {
            self.post(&format!("/v1/prices/{price}"), &[("active", "false")]).await;
        }
        self.post(&format!("/v1/products/{product}"), &[("active", "false")]).await;
        if let Some(meter) = meter {
            self.post(&format!("/v1/billing/meters/{meter}/deactivate"), &[]).await;
        }
        if let Some(customer) = customer {
            self.send(self.request("DELETE", &format!("/v1/customers/{customer}"))).await;
        }
    }
}

#[tokio::test]
async fn a_price_is_never_edited_and_a_lookup_key_moves_only_when_told() {
    let api = Api::new().await;
    let product = api.product().await;
    let (old, new) = (api.base_price(&product).await, api.base_price(&product).await);
    api.post(&format!("/v1/prices/{old}"), &[("unit_amount", "1")]).await.refused(400, "parameter_unknown");
    let key = format!("contract_{}", api.run);
    api.post(&format!("/v1/prices/{old}"), &[("lookup_key", &key)]).await.ok();
    api.post(&format!("/v1/prices/{new}"), &[("lookup_key", &key)]).await.refused(400, "");
    let moved = [("lookup_key", key.as_str()), ("transfer_lookup_key", "true")];
    api.post(&format!("/v1/prices/{new}"), &moved).await.ok();
    let found = api.get(&format!("/v1/prices?lookup_keys[0]={key}")).await.ok();
    assert_eq!(found["data"][0]["id"], new);
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    let metered = [
        ("product", product.as_str()),
        ("currency", "usd"),
        ("unit_amount", "1"),
        ("recurring[interval]", "month"),
        ("recurring[usage_type]", "metered"),
    ];
    api.post("/v1/prices", &metered).await.refused(400, "");
    api.clean(&product, &[&old, &new], None, None).await;
}

#[tokio::test]
async fn a_checkout_takes_a_quantity_for_the_base_only_and_expires_once() {
    let api = Api::new().await;
    let product = api.product().await;
    let base = api.base_price(&product).await;
    let (meter, tokens) = api.metered_price(&product).await;
    let customer = api.post("/v1/customers", &[("email", "contract@example.com")]).await.id();
    let order = [
        ("mode", "subscription"),
        ("customer", customer.as_str()),
        ("line_items[0][price]", base.as_str()),
        ("line_items[0][quantity]", "1"),
        ("line_items[1][price]", tokens.as_str()),
        ("success_url", "https://example.com/done?s={CHECKOUT_SESSION_ID}"),
        ("cancel_url", "https://example.com/back"),
    ];
    let path = "/v1/checkout/sessions";
    let with = |extra: (&'static str, &'static str)| {
        let mut order = order.to_vec();
        order.push(extra);
        order
    };
    api.post(path, &with(("line_items[1][quantity]", "1"))).await.refused(400, "");
    api.post(path, &with(("made_up", "1"))).await.refused(400, "parameter_unknown");
    api.post(path, &with(("customer_email", "a@example.com"))).await.refused(400, "");
    api.post(path, &with(("expires_at", "1"))).await.refused(400, "");
    let session = api.post(path, &with(("client_reference_id", "user_1"))).await.ok();
    assert_eq!(session["status"], "open");
    assert_eq!(session["amount_total"], 2000);
    let id = session["id"].as_str().unwrap();
    let open = api.get(&format!("{path}?customer={customer}&status=open")).await.ok();
    assert_eq!(open["data"][0]["id"], id);
    assert_eq!(api.post(&format!("{path}/{id}/expire"), &[]).await.ok()["status"], "expired");
    api.post(&format!("{path}/{id}/expire"), &[]).await.refused(400, "");
    api.clean(&product, &[&base, &tokens], Some(&meter), Some(&customer)).await;
}

#[tokio::test]
async fn a_portal_configuration_is_made_changed_and_put_out_of_use() {
    let api = Api::new().await;
    let path = "/v1/billing_portal/configurations";
    api.post(path, &[]).await.refused(400, "parameter_missing");
    let form = [
        ("features[subscription_cancel][enabled]", "true"),
        ("features[subscription_cancel][mode]", "at_period_end"),
        ("features[invoice_history][enabled]", "true"),
        ("default_return_url", "https://example.com/"),
        ("login_page[enabled]", "true"),
    ];
    let made = api.post(path, &form).await.ok();
    assert_eq!(made["is_default"], false);
    assert!(made["login_page"]["url"].is_string());
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let changed = api.post(&one, &[("login_page[enabled]", "false"), ("active", "false")]).await.ok();
    assert_eq!((&changed["active"], &changed["login_page"]["url"]), (&json!(false), &Value::Null));
    assert_eq!(changed["features"]["invoice_history"]["enabled"], true);
}

#[tokio::test]
async fn a_webhook_endpoint_takes_known_events_and_shows_its_secret_once() {
    let api = Api::new().await;
    let path = "/v1/webhook_endpoints";
    let url = ("url", "https://example.com/hook");
    api.post(path, &[url, ("enabled_events[0]", "invoice.made_up")]).await.refused(400, "");
    api.post(path, &[url]).await.refused(400, "parameter_missing");
    let form = [url, ("enabled_events[0]", "invoice.created"), ("api_version", VERSION)];
    let made = api.post(path, &form).await.ok();
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let read = api.get(&one).await.ok();
    assert_eq!(read.get("secret"), None);
    assert_eq!(api.post(&one, &[("disabled", "true")]).await.ok()["status"], "disabled");
    assert_eq!(api.send(api.request("DELETE", &one)).await.ok()["deleted"], true);
    api.get(&one).await.refused(404, "resource_missing");
}

#[tokio::test]
async fn an_event_destination_needs_json_and_a_version() {
    let api = Api::new().await;
    let path = "/v2/core/event_destinations";
    let body = json!({
        "name": "Contract", "type": "webhook_endpoint", "event_payload": "thin",
        "enabled_events": ["v1.billing.meter.error_report_triggered"],
        "webhook_endpoint": { "url": "https://example.com/thin" },
        "include": ["webhook_endpoint.signing_secret"],
    });
    let made = api.send(api.request("POST", path).json(&body)).await.ok();
    assert!(made["webhook_endpoint"]["signing_secret"].is_string());
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let read = api.send(api.request("GET", &one)).await.ok();
    assert_eq!((&read["status"], &read["event_payload"]), (&json!("enabled"), &json!("thin")));
    let mut wrong = body.clone();
    wrong["enabled_events"] = json!(["invoice.created"]);
    api.send(api.request("POST", path).json(&wrong)).await.refused(400, "");
    let bare = api.http.get(format!("{}{}", api.base, path.trim_start_matches('/'))).bearer_auth(&api.key);
    assert_eq!(api.send(bare).await.status, 400);
    api.send(api.request("DELETE", &one)).await.ok();
    assert_eq!(api.send(api.request("GET", &one)).await.status, 404);
}

#[tokio::test]
async fn an_idempotency_key_replays_its_answer_and_refuses_another_request() {
    let api = Api::new().await;
    let key = format!("contract-{}", api.run);
    let create = |name: &'static str| {
        api.request("POST", "/v1/customers").header("idempotency-key", &key).form(&[("name", name)])
    };
    let first = api.send(create("A")).await;
    let again = api.send(create("A")).await;
    assert!(!first.replayed && again.replayed);
    let customer = first.id();
    assert_eq!(again.id(), customer);
    let other = api.send(create("B")).await;
    assert_eq!((other.status, &other.json["error"]["type"]), (400, &json!("idempotency_error")));
    let unknown = api.request("GET", "/v1/customers").query(&[("made_up", "1")]);
    api.send(unknown).await.refused(400, "parameter_unknown");
    let nowhere = api.get("/v1/customers/cus_none").await;
    nowhere.refused(404, "resource_missing");
    api.send(api.request("DELETE", &format!("/v1/customers/{customer}"))).await;
}

#[tokio::test]
async fn a_meter_event_is_taken_once_by_its_identifier() {
    let api = Api::new().await;
    let product = api.product().await;
    let (meter, tokens) = api.metered_price(&product).await;
    let customer = api.post("/v1/customers", &[("email", "contract@example.com")]).await.id();
    let (event, identifier) = (format!("contract_{}", api.run), format!("id-{}", api.run));
    let at = now().as_secs().to_string();
    let form = [
        ("event_name", event.as_str()),
        ("identifier", identifier.as_str()),
        ("timestamp", at.as_str()),
        ("payload[stripe_customer_id]", customer.as_str()),
        ("payload[value]", "1000"),
    ];
    let taken = api.post("/v1/billing/meter_events", &form).await.ok();
    assert_eq!(taken["identifier"], identifier);
    let again = api.post("/v1/billing/meter_events", &form).await;
    again.refused(400, "");
    assert!(again.json["error"]["message"].as_str().unwrap().contains(&identifier));
    api.clean(&product, &[&tokens], Some(&meter), Some(&customer)).await;
}

#[tokio::test]
async fn a_schedule_takes_a_subscription_over_and_gives_it_back() {
    let api = Api::new().await;
    let product = api.product().await;
    // A metered price alone is active without a card.
    let ((meter, tokens), base) = (api.metered_price(&product).await, api.base_price(&product).await);
    let customer = api.post("/v1/customers", &[("email", "contract@example.com")]).await.id();
    let subscribe = [("customer", customer.as_str()), ("items[0][price]", &tokens)];
    let of = api.post("/v1/subscriptions", &subscribe).await.ok();
    let (of, item) = (of["id"].as_str().unwrap(), &of["items"]["data"][0]);
    let (start, end) = (item["current_period_start"].to_string(), item["current_period_end"].to_string());

    let schedules = "/v1/subscription_schedules";
    let with_more = [("from_subscription", of), ("metadata[a]", "b")];
    api.post(schedules, &with_more).await.refused(400, "");
    let made = api.post(schedules, &[("from_subscription", of)]).await.ok();
    let path = format!("{schedules}/{}", made["id"].as_str().unwrap());
    assert_eq!((&made["status"], &made["end_behavior"]), (&json!("active"), &json!("release")));
    assert_eq!(made["phases"].as_array().unwrap().len(), 1);
    assert_eq!(made["current_phase"]["start_date"].to_string(), start);
    assert_eq!(made["current_phase"]["end_date"].to_string(), end);
    api.post(schedules, &[("from_subscription", of)]).await.refused(400, "");

    let next = [("phases[1][items][0][price]", base.as_str()), ("phases[1][proration_behavior]", "none")];
    api.post(&path, &next).await.refused(400, "");
    let mut form = vec![
        ("phases[0][start_date]", start.as_str()),
        ("phases[0][end_date]", end.as_str()),
        ("phases[0][items][0][price]", tokens.as_str()),
    ];
    form.extend(next);
    let updated = api.post(&path, &form).await.ok();
    assert_eq!(updated["phases"][1]["start_date"].to_string(), end);
    assert_eq!(updated["phases"][1]["items"][0]["price"], base);
    form.push(("phases[0][items][0][quantity]", "1"));
    api.post(&path, &form).await.refused(400, "");

    let subscription = format!("/v1/subscriptions/{of}");
    api.post(&subscription, &[("cancel_at_period_end", "true")]).await.refused(400, "");
    let changed = api.post(&subscription, &[("metadata[a]", "b")]).await.ok();
    assert_eq!(changed["schedule"], made["id"]);
    let released = api.post(&format!("{path}/release"), &[]).await.ok();
    assert_eq!((&released["status"], &released["released_subscription"]), (&json!("released"), &json!(of)));
    assert_eq!(api.get(&subscription).await.ok()["schedule"], Value::Null);
    api.post(&format!("{path}/release"), &[]).await.refused(400, "");
    api.clean(&product, &[&tokens, &base], Some(&meter), Some(&customer)).await;
}
