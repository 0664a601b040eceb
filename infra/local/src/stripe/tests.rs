//! The stand-in is held to two things: what async-stripe's strict types parse, and what Stripe's documentation says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::Value;
use stripe_billing::billing_meter::{
    CreateBillingMeter, CreateBillingMeterDefaultAggregation, CreateBillingMeterDefaultAggregationFormula,
    ListBillingMeter, RetrieveBillingMeter,
};
use stripe_billing::billing_meter_event::CreateBillingMeterEvent;
use stripe_billing::billing_meter_event_summary::{
    ListIdBillingMeterEventSummary, ListIdBillingMeterEventSummaryValueGroupingWindow,
};
use stripe_billing::invoice::{FinalizeInvoiceInvoice, ListInvoice, RetrieveInvoice};
use stripe_billing::subscription::{
    CancelSubscription, CreateSubscription, CreateSubscriptionItems, ListSubscription, RetrieveSubscription,
    UpdateSubscription,
};
use stripe_core::customer::{
    CreateCustomer, ListCustomer, RetrieveCustomer, RetrieveCustomerReturned, UpdateCustomer,
};
use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType,
    CreatePriceTiers, CreatePriceTiersUpTo, ListPrice, RetrievePrice, UpdatePrice,
};
use stripe_product::product::{CreateProduct, ListProduct, RetrieveProduct, UpdateProduct};
use stripe_webhook::{EventObject, Webhook, WebhookError};
use tokio::net::TcpListener;

use super::calendar::{Cycle, DAY_S, HOUR_S, Interval};
use super::clock::Clock;
use super::*;

const KEY: &str = "sk_test_of_the_tests";
const SECRET: &str = "whsec_of_the_tests";
const EVENTS: &str = "/v1/billing/meter_events";

/// (tokens used, cents beyond the base), worked out by hand: 500,000 tokens included, then 0.0002 cents each, half up.
const AMOUNTS: [(u64, i64); 11] = [
    (0, 0),
    (499_999, 0),
    (500_000, 0),
    (500_001, 0),
    (502_499, 0), // 0.4998 cents
    (502_500, 1), // 0.5 cents
    (507_499, 1), // 1.4998 cents
    (507_500, 2), // 1.5 cents
    (512_345, 2), // 2.469 cents
    (1_500_000, 200),
    (10_000_000_000, 1_999_900),
];

struct Reply {
    status: u16,
    headers: axum::http::HeaderMap,
    json: Value,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn error(&self) -> &Value {
        &self.json["error"]
    }

    fn id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.json);
        self.json["id"].as_str().unwrap().to_owned()
    }
}

struct Fixture {
    stripe: Stripe,
    http: reqwest::Client,
    client: ::stripe::Client,
}

/// Noon of a day, UTC, in Unix seconds.
fn noon(year: i32, month: u32, day: u32) -> i64 {
    let date = chrono::NaiveDate::from_ymd_opt(year, month, day).unwrap();
    date.and_hms_opt(12, 0, 0).unwrap().and_utc().timestamp()
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Options { api_key: KEY.to_owned(), delivery: Delivery::OnDemand, ..Options::default() })
            .await
    }

    async fn with(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stripe = start(listener, options).await.unwrap();
        let client = ::stripe::ClientBuilder::new(KEY).url(stripe.base_url()).build().unwrap();
        Self { stripe, http: super::client().unwrap(), client }
    }

    fn set_clock(&self, at_s: i64) {
        self.stripe.set_offset(at_s - Clock::real_s());
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.stripe.base_url(), path.trim_start_matches('/'));
        self.http.request(method.parse().unwrap(), url).bearer_auth(KEY)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Reply { status, headers, json: answer.json().await.unwrap() }
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        self.send(self.request("POST", path).form(form)).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(self.request("GET", path)).await
    }

    async fn customer(&self) -> String {
        self.post("/v1/customers", &[("email", "ada@example.com")]).await.id()
    }

    async fn meter(&self) -> String {
        let form = [
            ("display_name", "Tokens"),
            ("event_name", "tokens"),
            ("default_aggregation[formula]", "sum"),
            ("customer_mapping[type]", "by_id"),
            ("customer_mapping[event_payload_key]", "stripe_customer_id"),
            ("value_settings[event_payload_key]", "value"),
        ];
        self.post("/v1/billing/meters", &form).await.id()
    }

    /// The Pro plan: $20 and 500,000 tokens, then 0.0002 cents for each.
    async fn pro(&self) -> Plan {
        let meter = self.meter().await;
        let product = self.post("/v1/products", &[("name", "Pro")]).await.id();
        let base = [
            ("product", product.as_str()),
            ("currency", "usd"),
            ("unit_amount", "2000"),
            ("recurring[interval]", "month"),
            ("lookup_key", "pro_base"),
        ];
        let base = self.post("/v1/prices", &base).await.id();
        let mut form = tiered(&product, &meter);
        form.push(("lookup_key", "pro_tokens"));
        let tokens = self.post("/v1/prices", &form).await.id();
        Plan { meter, base, tokens }
    }

    async fn subscribe(&self, customer: &str, plan: &Plan) -> Value {
        let form =
            [("customer", customer), ("items[0][price]", &plan.base), ("items[1][price]", &plan.tokens)];
        let reply = self.post("/v1/subscriptions", &form).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        reply.json
    }

    async fn use_tokens(&self, customer: &str, identifier: &str, tokens: &str, at_s: i64) -> Reply {
        let at = at_s.to_string();
        self.post(EVENTS, &event(customer, identifier, tokens, &at)).await
    }
}

struct Plan {
    meter: String,
    base: String,
    tokens: String,
}

fn tiered<'a>(product: &'a str, meter: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
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
        ("recurring[meter]", meter),
    ]
}

fn event<'a>(
    customer: &'a str,
    identifier: &'a str,
    tokens: &'a str,
    at: &'a str,
) -> [(&'a str, &'a str); 5] {
    [
        ("event_name", "tokens"),
        ("identifier", identifier),
        ("timestamp", at),
        ("payload[stripe_customer_id]", customer),
        ("payload[value]", tokens),
    ]
}

fn period(subscription: &Value) -> (i64, i64) {
    let item = &subscription["items"]["data"][0];
    (item["current_period_start"].as_i64().unwrap(), item["current_period_end"].as_i64().unwrap())
}

/// An endpoint that notes what it hears and answers what it is told to.
#[derive(Clone)]
struct Endpoint {
    heard: Arc<Mutex<Vec<(String, String)>>>,
    answer: Arc<Mutex<u16>>,
    url: String,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let endpoint = Self { heard: Arc::default(), answer: Arc::new(Mutex::new(200)), url };
        let router = Router::new().fallback(Self::hear).with_state(endpoint.clone());
        #[expect(clippy::disallowed_methods, reason = "the endpoint lives as long as the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        endpoint
    }

    async fn hear(State(endpoint): State<Self>, request: Request) -> StatusCode {
        let signature = request.headers()["stripe-signature"].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        lock(&endpoint.heard).push((signature, body));
        StatusCode::from_u16(*lock(&endpoint.answer)).unwrap()
    }

    fn answer(&self, status: u16) {
        *lock(&self.answer) = status;
    }

    fn kinds(&self) -> Vec<String> {
        let heard = lock(&self.heard);
        let kinds =
            heard.iter().map(|(_, body)| serde_json::from_str::<Value>(body).unwrap()["type"].clone());
        kinds.map(|kind| kind.as_str().unwrap().to_owned()).collect()
    }

    fn options(&self) -> Options {
        Options {
            api_key: KEY.to_owned(),
            webhook: Some(WebhookEndpoint { url: self.url.clone(), secret: SECRET.to_owned() }),
            delivery: Delivery::OnDemand,
            ..Options::default()
        }
    }
}

// ---- What async-stripe parses ----

#[tokio::test]
async fn async_stripe_parses_customers() {
    let f = Fixture::new().await;
    let metadata = std::collections::HashMap::from([("user".to_owned(), "user_1".to_owned())]);
    let made =
        CreateCustomer::new().email("ada@example.com").metadata(metadata).send(&f.client).await.unwrap();
    assert_eq!(made.metadata.as_ref().unwrap()["user"], "user_1");
    let RetrieveCustomerReturned::Customer(found) =
        RetrieveCustomer::new(made.id.clone()).send(&f.client).await.unwrap()
    else {
        panic!("the customer was not deleted");
    };
    assert_eq!(found.email.as_deref(), Some("ada@example.com"));
    let changed = UpdateCustomer::new(made.id.clone()).name("Ada").send(&f.client).await.unwrap();
    assert_eq!((changed.name.as_deref(), changed.email.as_deref()), (Some("Ada"), Some("ada@example.com")));
    let listed = ListCustomer::new().email("ada@example.com").send(&f.client).await.unwrap();
    assert_eq!(listed.data.len(), 1);
    assert!(ListCustomer::new().email("eve@example.com").send(&f.client).await.unwrap().data.is_empty());
}

#[tokio::test]
async fn async_stripe_parses_products_and_meters() {
    let f = Fixture::new().await;
    let made = CreateProduct::new("Pro").id("inkmeter_pro").send(&f.client).await.unwrap();
    assert_eq!(RetrieveProduct::new(made.id.clone()).send(&f.client).await.unwrap().name, "Pro");
    let changed = UpdateProduct::new(made.id.clone()).name("Pro 2").send(&f.client).await.unwrap();
    assert_eq!(changed.name, "Pro 2");
    assert_eq!(ListProduct::new().send(&f.client).await.unwrap().data[0].name, "Pro 2");

    let sum = CreateBillingMeterDefaultAggregation::new(CreateBillingMeterDefaultAggregationFormula::Sum);
    let meter = CreateBillingMeter::new(sum, "Tokens", "tokens").send(&f.client).await.unwrap();
    assert_eq!(meter.value_settings.event_payload_key, "value");
    assert_eq!(meter.customer_mapping.event_payload_key, "stripe_customer_id");
    assert_eq!(
        RetrieveBillingMeter::new(meter.id.clone()).send(&f.client).await.unwrap().event_name,
        "tokens"
    );
    assert_eq!(ListBillingMeter::new().send(&f.client).await.unwrap().data[0].id, meter.id);
}

#[tokio::test]
async fn async_stripe_makes_the_metered_price_and_sees_tiers_only_when_expanded() {
    let f = Fixture::new().await;
    let plan = f.pro().await;
    let base = RetrievePrice::new(plan.base.as_str()).send(&f.client).await.unwrap();
    let tier = |up_to, decimal: &str| {
        let mut tier = CreatePriceTiers::new(up_to);
        tier.unit_amount_decimal = Some(decimal.to_owned());
        tier
    };
    let mut recurring = CreatePriceRecurring::new(CreatePriceRecurringInterval::Month);
    recurring.usage_type = Some(CreatePriceRecurringUsageType::Metered);
    recurring.meter = Some(plan.meter.clone());
    let price = CreatePrice::new(base.currency.clone())
        .product(base.product.clone().into_id().to_string())
        .billing_scheme(stripe_shared::PriceBillingScheme::Tiered)
        .tiers_mode(stripe_shared::PriceTiersMode::Graduated)
        .tiers([tier(CreatePriceTiersUpTo::I64(500_000), "0"), tier(CreatePriceTiersUpTo::Inf, "0.0002")])
        .recurring(recurring)
        .lookup_key("pro_tokens_2")
        .send(&f.client)
        .await
        .unwrap();
    assert!(price.tiers.is_none());
    let expanded =
        RetrievePrice::new(price.id.clone()).expand(["tiers".to_owned()]).send(&f.client).await.unwrap();
    let tiers = expanded.tiers.unwrap();
    assert_eq!((tiers[0].up_to, tiers[0].unit_amount), (Some(500_000), Some(0)));
    assert_eq!((tiers[1].up_to, tiers[1].unit_amount_decimal.as_deref()), (None, Some("0.0002")));

    let keys = ["pro_base".to_owned(), "pro_tokens_2".to_owned()];
    let listed =
        ListPrice::new().lookup_keys(keys).expand(["data.tiers".to_owned()]).send(&f.client).await.unwrap();
    assert_eq!(listed.data.len(), 2);
    let closed = UpdatePrice::new(price.id.clone()).active(false).send(&f.client).await.unwrap();
    assert!(!closed.active);
}

#[tokio::test]
async fn async_stripe_parses_the_life_of_a_subscription_and_its_invoices() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let item = |price: &str| {
        let mut item = CreateSubscriptionItems::new();
        item.price = Some(price.to_owned());
        item
    };
    let made = CreateSubscription::new()
        .customer(customer.as_str())
        .items([item(&plan.base), item(&plan.tokens)])
        .metadata(std::collections::HashMap::from([("user".to_owned(), "user_1".to_owned())]))
        .send(&f.client)
        .await
        .unwrap();
    assert_eq!(made.status, stripe_shared::SubscriptionStatus::Active);
    assert_eq!(made.items.data[0].quantity, Some(1));
    assert_eq!(made.items.data[1].quantity, None);
    let end_s = made.items.data[0].current_period_end;

    let payload = std::collections::HashMap::from([
        ("stripe_customer_id".to_owned(), customer.clone()),
        ("value".to_owned(), "512345".to_owned()),
    ]);
    let at_s = made.items.data[0].current_period_start + 60;
    let sent = CreateBillingMeterEvent::new("tokens", payload)
        .identifier("row-1")
        .timestamp(at_s)
        .send(&f.client)
        .await
        .unwrap();
    assert_eq!((sent.identifier.as_str(), sent.timestamp), ("row-1", at_s));

    let id = made.id.clone();
    let ending =
        UpdateSubscription::new(id.clone()).cancel_at_period_end(true).send(&f.client).await.unwrap();
    assert_eq!((ending.cancel_at_period_end, ending.cancel_at), (true, Some(end_s)));
    UpdateSubscription::new(id.clone()).cancel_at_period_end(false).send(&f.client).await.unwrap();
    f.stripe.advance_to(end_s).await.unwrap();
    let rolled = RetrieveSubscription::new(id.clone())
        .expand(["latest_invoice".to_owned(), "customer".to_owned()])
        .send(&f.client)
        .await
        .unwrap();
    assert_eq!(rolled.items.data[0].current_period_start, end_s);
    assert!(rolled.latest_invoice.as_ref().unwrap().is_object() && rolled.customer.is_object());

    let drafts = ListInvoice::new()
        .customer(customer.as_str())
        .status(stripe_shared::InvoiceStatus::Draft)
        .send(&f.client)
        .await
        .unwrap();
    let draft = drafts.data[0].id.clone().unwrap();
    let open = FinalizeInvoiceInvoice::new(draft.clone()).send(&f.client).await.unwrap();
    assert_eq!(open.status, Some(stripe_shared::InvoiceStatus::Open));
    let found = RetrieveInvoice::new(draft).send(&f.client).await.unwrap();
    assert_eq!(found.total, 2002);
    assert_eq!(found.lines.data.len(), 3);

    let ended = CancelSubscription::new(id).send(&f.client).await.unwrap();
    assert_eq!(ended.status, stripe_shared::SubscriptionStatus::Canceled);
    assert!(
        ListSubscription::new().customer(customer.as_str()).send(&f.client).await.unwrap().data.is_empty()
    );
}

#[tokio::test]
async fn async_stripe_parses_summaries_newest_first() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let noon_s = noon(2026, 4, 10);
    for (identifier, tokens, at_s) in
        [("a", "5", noon_s - 7200), ("b", "7", noon_s - 10), ("c", "8", noon_s - 9)]
    {
        assert_eq!(f.use_tokens(&customer, identifier, tokens, at_s).await.status, 200);
    }
    let query = ListIdBillingMeterEventSummary::new(
        plan.meter.as_str(),
        customer,
        noon_s + HOUR_S,
        noon_s - DAY_S / 2,
    );
    let whole = query.send(&f.client).await.unwrap();
    assert_eq!(whole.data.len(), 1);
    assert!((whole.data[0].aggregated_value - 20.0).abs() < f64::EPSILON);
    let hourly = query.value_grouping_window(ListIdBillingMeterEventSummaryValueGroupingWindow::Hour);
    let hourly = hourly.send(&f.client).await.unwrap();
    let starts: Vec<i64> = hourly.data.iter().map(|summary| summary.start_time).collect();
    assert_eq!(starts, [noon_s - HOUR_S, noon_s - 2 * HOUR_S]);
    assert!((hourly.data[0].aggregated_value - 15.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn async_stripe_parses_the_errors() {
    let f = Fixture::new().await;
    let error = RetrieveCustomer::new("cus_nobody").send(&f.client).await.unwrap_err();
    let ::stripe::StripeError::Stripe(error, status) = error else {
        panic!("not an error of the API: {error}")
    };
    assert_eq!((status, error.code), (404, Some(::stripe::ApiErrorsCode::ResourceMissing)));
    let stranger = ::stripe::ClientBuilder::new("sk_test_other").url(f.stripe.base_url()).build().unwrap();
    let error = CreateCustomer::new().send(&stranger).await.unwrap_err();
    assert!(matches!(error, ::stripe::StripeError::Stripe(_, 401)), "{error}");
}

#[tokio::test]
async fn async_stripe_verifies_and_parses_every_webhook() {
    let endpoint = Endpoint::start().await;
    let f = Fixture::with(endpoint.options()).await;
    let (plan, customer) = (f.pro().await, f.customer().await);
    let subscription = f.subscribe(&customer, &plan).await;
    let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
    f.post(&path, &[("cancel_at_period_end", "true")]).await;
    f.stripe.advance_to(f.stripe.now_s() + 60).await.unwrap();
    assert_eq!(f.send(f.request("DELETE", &path).form(&[("invoice_now", "true")])).await.status, 200);
    assert_eq!(f.stripe.deliver_pending().await, 0);
    let mut kinds = endpoint.kinds();
    kinds.sort_unstable();
    let expected = [
        "customer.subscription.created",
        "customer.subscription.deleted",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
    ];
    assert_eq!(kinds, expected);
    for (signature, body) in lock(&endpoint.heard).iter() {
        let event = Webhook::construct_event(body, signature, SECRET).unwrap();
        match event.data.object {
            EventObject::CustomerSubscriptionCreated(object)
            | EventObject::CustomerSubscriptionUpdated(object)
            | EventObject::CustomerSubscriptionDeleted(object) => {
                assert_eq!(object.id.as_str(), subscription["id"]);
            }
            EventObject::InvoiceCreated(object)
            | EventObject::InvoiceFinalized(object)
            | EventObject::InvoicePaid(object)
            | EventObject::InvoicePaymentSucceeded(object) => {
                assert_eq!(object.customer.unwrap().into_id().as_str(), customer);
            }
            other => panic!("unexpected event {other:?}"),
        }
        let wrong = Webhook::construct_event(body, signature, "whsec_other");
        assert!(matches!(wrong, Err(WebhookError::BadSignature)));
    }
}

// ---- Strictness ----

#[track_caller]
fn check_error(reply: &Reply, status: u16, code: Option<&str>, param: Option<&str>) {
    let error = reply.error();
    assert_eq!(reply.status, status, "{error}");
    assert_eq!(error["type"], "invalid_request_error", "{error}");
    assert_eq!(error.get("code").and_then(Value::as_str), code, "{error}");
    assert_eq!(error.get("param").and_then(Value::as_str), param, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(reply.header("request-id").unwrap().starts_with("req_"));
}

#[tokio::test]
async fn a_request_without_the_right_key_is_a_401() {
    let f = Fixture::new().await;
    let url = format!("{}v1/customers", f.stripe.base_url());
    let missing = f.send(f.http.get(&url)).await;
    check_error(&missing, 401, None, None);
    assert!(missing.header("www-authenticate").is_some());
    check_error(&f.send(f.http.get(&url).bearer_auth("sk_test_wrong")).await, 401, None, None);
    assert_eq!(f.send(f.http.get(&url).basic_auth(KEY, Some(""))).await.status, 200);
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_by_its_full_name() {
    let f = Fixture::new().await;
    let reply = f.post("/v1/customers", &[("emial", "ada@example.com")]).await;
    check_error(&reply, 400, Some("parameter_unknown"), Some("emial"));
    assert_eq!(reply.header("stripe-should-retry"), Some("false"));
    let meter = f.meter().await;
    let product = f.post("/v1/products", &[("name", "Pro")]).await.id();
    let mut form = tiered(&product, &meter);
    form.push(("tiers[0][price]", "1"));
    check_error(&f.post("/v1/prices", &form).await, 400, Some("parameter_unknown"), Some("tiers[0][price]"));
    check_error(&f.get("/v1/prices?lookup_key=a").await, 400, Some("parameter_unknown"), Some("lookup_key"));
    let usage = f.post("/v1/subscription_items/si_1/usage_records", &[("quantity", "1")]).await;
    check_error(&usage, 404, None, None);
}

#[tokio::test]
async fn a_parameter_that_only_the_real_stripe_has_is_a_501_and_not_a_typing_error() {
    let f = Fixture::new().await;
    check_error(&f.post("/v1/customers", &[("address[city]", "Paris")]).await, 501, None, Some("address"));
}

#[tokio::test]
async fn a_missing_or_malformed_parameter_is_named() {
    let f = Fixture::new().await;
    check_error(&f.post("/v1/products", &[]).await, 400, Some("parameter_missing"), Some("name"));
    check_error(
        &f.post("/v1/products", &[("name", "")]).await,
        400,
        Some("parameter_invalid_empty"),
        Some("name"),
    );
    check_error(&f.post("/v1/customers", &[("email", "nobody")]).await, 400, None, Some("email"));
    check_error(&f.get("/v1/prices?limit=many").await, 400, Some("parameter_invalid_integer"), Some("limit"));
    check_error(&f.get("/v1/prices?limit=101").await, 400, None, Some("limit"));
    check_error(&f.post("/v1/customers", &[("metadata", "x")]).await, 400, None, Some("metadata"));
    check_error(&f.post("/v1/customers", &[("name", "a"), ("name", "b")]).await, 400, None, Some("name"));
    check_error(
        &f.post("/v1/customers", &[("name[a", "b")]).await,
        400,
        Some("parameter_unknown"),
        Some("name[a"),
    );
    let json = f.request("POST", "/v1/customers").json(&serde_json::json!({ "name": "Ada" }));
    check_error(&f.send(json).await, 400, None, None);
    let version = f.request("GET", "/v1/customers").header("stripe-version", "latest");
    check_error(&f.send(version).await, 400, None, None);
}

#[tokio::test]
async fn what_does_not_exist_is_404_in_the_path_and_400_in_a_parameter() {
    let f = Fixture::new().await;
    check_error(&f.get("/v1/invoices/in_1").await, 404, Some("resource_missing"), Some("id"));
    check_error(&f.get("/v1/nothing").await, 404, None, None);
    let plan = f.pro().await;
    let form = [("customer", "cus_1"), ("items[0][price]", plan.base.as_str())];
    check_error(&f.post("/v1/subscriptions", &form).await, 400, Some("resource_missing"), Some("customer"));
}

#[tokio::test]
async fn a_price_breaks_no_rule_of_tiers_or_meters() {
    let f = Fixture::new().await;
    let meter = f.meter().await;
    let product = f.post("/v1/products", &[("name", "Pro")]).await.id();
    let changed = |name: &'static str, value: Option<&'static str>| {
        let mut form = tiered(&product, &meter);
        form.retain(|(key, _)| *key != name);
        form.extend(value.map(|value| (name, value)));
        form
    };
    let check = async |name, value, code, param| {
        check_error(&f.post("/v1/prices", &changed(name, value)).await, 400, code, Some(param));
    };
    check("recurring[meter]", None, None, "recurring[meter]").await;
    check("recurring[meter]", Some("mtr_1"), Some("resource_missing"), "recurring[meter]").await;
    check("recurring[usage_type]", Some("licensed"), None, "recurring[meter]").await;
    check("tiers_mode", None, Some("parameter_missing"), "tiers_mode").await;
    check("tiers[1][up_to]", Some("900000"), None, "tiers[1][up_to]").await;
    check("tiers[1][unit_amount_decimal]", Some("0.0000000000001"), None, "tiers[1][unit_amount_decimal]")
        .await;
    check("tiers[1][unit_amount_decimal]", Some("-1"), None, "tiers[1][unit_amount_decimal]").await;
    check("tiers[1][unit_amount]", Some("1"), Some("parameters_exclusive"), "tiers[1][unit_amount]").await;
    check(
        "transform_quantity[divide_by]",
        Some("1000"),
        Some("parameter_missing"),
        "transform_quantity[round]",
    )
    .await;
    check("unit_amount", Some("5"), Some("parameters_exclusive"), "unit_amount").await;
    check("currency", Some("USD"), None, "currency").await;
    assert_eq!(f.post("/v1/prices", &tiered(&product, &meter)).await.status, 200);
}

#[tokio::test]
async fn a_lookup_key_belongs_to_one_price_and_can_be_transferred() {
    let f = Fixture::new().await;
    let plan = f.pro().await;
    let product = f.post("/v1/products", &[("name", "New")]).await.id();
    let mut form = vec![("product", product.as_str()), ("currency", "usd"), ("unit_amount", "2500")];
    form.extend([("recurring[interval]", "month"), ("lookup_key", "pro_base")]);
    check_error(&f.post("/v1/prices", &form).await, 400, None, Some("lookup_key"));
    form.push(("transfer_lookup_key", "true"));
    let new = f.post("/v1/prices", &form).await.id();
    let listed = f.get("/v1/prices?lookup_keys[]=pro_base").await;
    assert_eq!(listed.json["data"][0]["id"], new);
    assert!(f.get(&format!("/v1/prices/{}", plan.base)).await.json["lookup_key"].is_null());
}

#[tokio::test]
async fn a_metered_item_takes_no_quantity() {
    let f = Fixture::new().await;
    let (plan, customer) = (f.pro().await, f.customer().await);
    let form =
        [("customer", customer.as_str()), ("items[0][price]", &plan.tokens), ("items[0][quantity]", "1")];
    check_error(&f.post("/v1/subscriptions", &form).await, 400, None, Some("items[0][quantity]"));
}

#[tokio::test]
async fn lists_are_paged_newest_first() {
    let f = Fixture::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(f.customer().await);
    }
    let first = f.get("/v1/customers?limit=2").await.json;
    assert_eq!(
        (first["data"][0]["id"].as_str(), first["has_more"].as_bool()),
        (Some(made[4].as_str()), Some(true))
    );
    let last = f.get(&format!("/v1/customers?limit=10&starting_after={}", made[3])).await.json;
    assert_eq!((last["data"].as_array().unwrap().len(), last["has_more"].as_bool()), (3, Some(false)));
    let before = f.get(&format!("/v1/customers?limit=1&ending_before={}", made[0])).await.json;
    assert_eq!(
        (before["data"][0]["id"].as_str(), before["has_more"].as_bool()),
        (Some(made[1].as_str()), Some(true))
    );
    let all = ListCustomer::new().limit(1).paginate();
    let all: Vec<_> = all.stream(&f.client).collect().await;
    assert_eq!(all.len(), 5);
}

// ---- Meter events ----

#[tokio::test]
async fn f10_a_repeated_identifier_is_a_400_without_code_that_says_not_to_retry() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 200);
    let again = f.use_tokens(&customer, "row-1", "10", now_s).await;
    check_error(&again, 400, None, None);
    assert_eq!(again.error()["message"], "An event already exists with identifier row-1.");
    assert_eq!(again.header("stripe-should-retry"), Some("false"));
    assert_eq!(f.stripe.counted(&customer, 0, now_s + 1), 10);
}

#[tokio::test]
async fn an_identifier_is_forgotten_after_24_hours_and_then_counts_again() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    f.use_tokens(&customer, "row-1", "10", now_s).await;
    f.stripe.advance_to(now_s + DAY_S - 60).await.unwrap();
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 400);
    f.stripe.advance_to(now_s + DAY_S + 60).await.unwrap();
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 200);
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 20);
}

#[tokio::test]
async fn f11_a_timestamp_lies_within_35_days_back_and_5_minutes_ahead() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    for (identifier, at_s, status) in [
        ("old", now_s - 35 * DAY_S - 1, 400),
        ("oldest", now_s - 35 * DAY_S + 60, 200),
        ("ahead", now_s + 290, 200),
        ("beyond", now_s + 360, 400),
    ] {
        let reply = f.use_tokens(&customer, identifier, "1", at_s).await;
        assert_eq!(reply.status, status, "{identifier}: {}", reply.json);
    }
    assert_eq!(f.stripe.meter_events().len(), 2);
}

#[tokio::test]
async fn a_malformed_event_is_refused_and_not_counted() {
    let f = Fixture::new().await;
    let (_, customer) = (f.pro().await, f.customer().await);
    let at = f.stripe.now_s().to_string();
    let long = "x".repeat(101);
    let check = async |name: &str, value: &str, code, param| {
        let mut form = event(&customer, "row-1", "10", &at).to_vec();
        form.retain(|(key, _)| *key != name);
        form.push((name, value));
        check_error(&f.post(EVENTS, &form).await, 400, code, Some(param));
    };
    check("payload[value]", "1.5", None, "payload[value]").await;
    check("payload[value]", "-1", None, "payload[value]").await;
    check("payload[value]", "+1", None, "payload[value]").await;
    check("payload[value]", "1000000000000000", None, "payload[value]").await;
    check("payload[value]", "", Some("parameter_invalid_empty"), "payload[value]").await;
    check("identifier", &long, None, "identifier").await;
    check("timestamp", "now", Some("parameter_invalid_integer"), "timestamp").await;
    check("event_name", "words", None, "event_name").await;
    check("quantity", "1", Some("parameter_unknown"), "quantity").await;
    let bare = f.post(EVENTS, &[("event_name", "tokens"), ("payload[value]", "1")]).await;
    check_error(&bare, 400, Some("parameter_missing"), Some("payload[stripe_customer_id]"));
    assert!(f.stripe.meter_events().is_empty());
}

#[tokio::test]
async fn an_event_for_an_unknown_customer_is_accepted_and_never_counted() {
    let f = Fixture::new().await;
    let (_, now_s) = (f.pro().await, f.stripe.now_s());
    assert_eq!(f.use_tokens("cus_nobody", "row-1", "10", now_s).await.status, 200);
    assert_eq!(f.stripe.counted("cus_nobody", 0, i64::MAX), 0);
    let rejected = f.stripe.rejected_meter_events();
    assert_eq!(rejected[0].code, "meter_event_customer_not_found");
    assert_eq!(f.use_tokens("cus_nobody", "row-1", "10", now_s).await.status, 400);
}

#[tokio::test]
async fn one_call_at_a_time_for_a_customer_and_meter() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    let other = f.customer().await;
    let held = f.stripe.hold_meter_events();
    let first = f.use_tokens(&customer, "row-1", "10", now_s);
    let rest = async {
        held.arrived(1).await;
        let second = f.use_tokens(&customer, "row-2", "20", now_s).await;
        check_error(&second, 429, Some("lock_timeout"), None);
        let third = f.use_tokens(&other, "row-3", "30", now_s);
        let release = async {
            held.arrived(2).await;
            drop(held);
        };
        tokio::join!(third, release).0
    };
    let both = async { tokio::join!(first, rest) };
    let (first, third) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!((first.status, third.status), (200, 200));
    assert_eq!(f.use_tokens(&customer, "row-2", "20", now_s).await.status, 200);
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 30);
}

#[tokio::test]
async fn summaries_want_aligned_times_and_may_lag() {
    let f = Fixture::new().await;
    let (plan, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    let minute_s = now_s - now_s % 60;
    let path = |start_s: i64, end_s: i64, more: &str| {
        let base = format!("/v1/billing/meters/{}/event_summaries", plan.meter);
        format!("{base}?customer={customer}&start_time={start_s}&end_time={end_s}{more}")
    };
    f.use_tokens(&customer, "row-1", "10", minute_s).await;
    check_error(&f.get(&path(minute_s - 59, minute_s, "")).await, 400, None, Some("start_time"));
    let day = f.get(&path(minute_s - minute_s % DAY_S, minute_s + 60, "&value_grouping_window=day")).await;
    check_error(&day, 400, None, Some("end_time"));
    check_error(&f.get(&path(minute_s, minute_s, "")).await, 400, None, Some("end_time"));
    let shown = f.get(&path(minute_s, minute_s + 60, "")).await;
    assert_eq!(shown.json["data"][0]["aggregated_value"], 10);
    f.stripe.set_summary_lag(600);
    assert_eq!(f.get(&path(minute_s, minute_s + 60, "")).await.json["data"].as_array().unwrap().len(), 0);
    f.stripe.advance_to(now_s + 700).await.unwrap();
    assert_eq!(f.get(&path(minute_s, minute_s + 60, "")).await.json["data"][0]["aggregated_value"], 10);
}

// ---- Idempotency and faults ----

#[tokio::test]
async fn an_idempotency_key_replays_its_answer_500s_included_for_24_hours() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    let at = now_s.to_string();
    let send = async |key: &str| {
        let request = f.request("POST", EVENTS).header("idempotency-key", key);
        f.send(request.form(&event(&customer, "row-1", "10", &at))).await
    };
    f.stripe.fail_next(1, Fault::Status(500));
    let failed = send("key-1").await;
    assert_eq!((failed.status, failed.error()["type"].as_str()), (500, Some("api_error")));
    let replayed = send("key-1").await;
    assert_eq!((replayed.status, replayed.header("idempotent-replayed")), (500, Some("true")));
    assert_eq!(replayed.header("original-request"), failed.header("request-id"));
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 0);
    assert_eq!(send("key-2").await.status, 200);
    assert_eq!(send("key-2").await.status, 200, "the saved answer, not a duplicate");
    assert_eq!(send("key-3").await.status, 400, "a fresh key executes, and finds the identifier");
    f.stripe.advance_to(now_s + DAY_S + 60).await.unwrap();
    assert_eq!(send("key-1").await.status, 200, "the key is forgotten");
}

#[tokio::test]
async fn an_idempotency_key_with_other_parameters_or_another_path_is_an_error() {
    let f = Fixture::new().await;
    let send = async |path: &str, name: &str, extra: &str| {
        let form = [("name", name), ("description", extra)];
        f.send(f.request("POST", path).header("idempotency-key", "key-1").form(&form)).await
    };
    let made = send("/v1/customers", "Ada", "x").await;
    assert_eq!(made.json, send("/v1/customers", "Ada", "x").await.json);
    let swapped = [("description", "x"), ("name", "Ada")];
    let swapped = f.request("POST", "/v1/customers").header("idempotency-key", "key-1").form(&swapped);
    assert_eq!(f.send(swapped).await.status, 200, "the order of the parameters means nothing");
    for reply in [send("/v1/customers", "Eve", "x").await, send("/v1/products", "Ada", "x").await] {
        assert_eq!((reply.status, reply.error()["type"].as_str()), (400, Some("idempotency_error")));
    }
    let refused =
        f.request("POST", "/v1/customers").header("idempotency-key", "key-2").form(&[("nmae", "Ada")]);
    assert_eq!(f.send(refused).await.status, 400);
    let corrected =
        f.request("POST", "/v1/customers").header("idempotency-key", "key-2").form(&[("name", "Ada")]);
    assert_eq!(f.send(corrected).await.status, 200, "refused parameters are not saved");
}

#[tokio::test]
async fn an_idempotency_key_in_use_is_a_409() {
    let f = Fixture::new().await;
    let (_, customer) = (f.pro().await, f.customer().await);
    let at = f.stripe.now_s().to_string();
    let send = async || {
        let request = f.request("POST", EVENTS).header("idempotency-key", "key-1");
        f.send(request.form(&event(&customer, "row-1", "10", &at))).await
    };
    let held = f.stripe.hold_meter_events();
    let second = async {
        held.arrived(1).await;
        let second = send().await;
        drop(held);
        second
    };
    let (first, second) = tokio::join!(send(), second);
    assert_eq!((first.status, second.status), (200, 409));
}

#[tokio::test]
async fn f09_a_timeout_after_commit_is_counted_once_when_it_is_sent_again() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    let at = now_s.to_string();
    let form = event(&customer, "row-1", "10", &at);
    f.stripe.fail_next_on(EVENTS, 1, Fault::TimeoutAfterCommit);
    let impatient = f.request("POST", EVENTS).form(&form).timeout(Duration::from_millis(300));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 10);
    assert_eq!(f.post(EVENTS, &form).await.status, 400);
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 10);
}

#[tokio::test]
async fn a_timeout_before_commit_counts_nothing() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    f.stripe.fail_next_on(EVENTS, 1, Fault::TimeoutBeforeCommit);
    let at = now_s.to_string();
    let form = event(&customer, "row-1", "10", &at);
    let impatient = f.request("POST", EVENTS).form(&form).timeout(Duration::from_millis(300));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 0);
    assert_eq!(f.post(EVENTS, &form).await.status, 200);
}

#[tokio::test]
async fn a_fault_meets_only_its_path_and_an_outage_meets_everybody() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    f.stripe.fail_next_on(EVENTS, 1, Fault::ErrorAfterCommit);
    assert_eq!(f.get("/v1/customers").await.status, 200);
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 500);
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 400, "the 500 was counted");
    f.stripe.fail_next(2, Fault::Status(429));
    let limited = f.get("/v1/customers").await;
    check_error(&limited, 429, Some("rate_limit"), None);
    assert_eq!(limited.header("stripe-should-retry"), Some("true"));
    f.stripe.fail_next(1, Fault::Status(409));
    assert_eq!(f.get("/v1/customers").await.status, 429);
    assert_eq!(f.get("/v1/customers").await.status, 409);
    assert_eq!(f.stripe.faults_waiting(), 0);
    f.stripe.set_outage(true);
    assert_eq!(f.use_tokens(&customer, "row-2", "10", now_s).await.status, 503);
    f.stripe.set_outage(false);
    assert_eq!(f.use_tokens(&customer, "row-2", "10", now_s).await.status, 200);
}

#[tokio::test]
async fn a_rate_limit_refuses_the_request_above_it() {
    let limit = NonZeroU32::new(1);
    let f =
        Fixture::with(Options { api_key: KEY.to_owned(), requests_per_s_max: limit, ..Options::default() })
            .await;
    // Three requests cannot each have a second of their own unless two seconds pass between them.
    let replies = [f.get("/v1/customers").await, f.get("/v1/customers").await, f.get("/v1/customers").await];
    assert!(replies.iter().any(|reply| reply.status == 429));
}

// ---- Money and time ----

#[test]
fn f21_a_line_is_rounded_half_up_once_for_all_its_tokens() {
    use super::money::{Price, Tier, graduated};
    let unit = |text| Price::parse(text).unwrap();
    let tiers = [
        Tier { up_to: Some(500_000), unit: Some(unit("0")), flat: None },
        Tier { up_to: None, unit: Some(unit("0.0002")), flat: None },
    ];
    for (tokens, cents) in AMOUNTS {
        let charges = graduated(&tiers, tokens).unwrap();
        assert_eq!(charges.iter().map(|charge| charge.cents).sum::<i64>(), cents, "{tokens} tokens");
        assert_eq!(charges.iter().map(|charge| charge.quantity).sum::<u64>(), tokens);
    }
    let flat = [
        Tier { up_to: Some(10), unit: Some(unit("3")), flat: Some(unit("100")) },
        Tier { up_to: Some(20), unit: Some(unit("2.5")), flat: None },
        Tier { up_to: None, unit: None, flat: Some(unit("7")) },
    ];
    let cents =
        |quantity| graduated(&flat, quantity).unwrap().iter().map(|charge| charge.cents).collect::<Vec<_>>();
    assert_eq!(cents(0), [0]);
    assert_eq!(cents(10), [130]);
    assert_eq!(cents(11), [130, 3]);
    assert_eq!(cents(21), [130, 25, 7]);
}

#[test]
fn a_price_keeps_twelve_decimals_and_takes_no_more() {
    use super::money::Price;
    for text in ["0", "0.0002", "2000", "0.000000000001", "99999999"] {
        assert_eq!(Price::parse(text).unwrap().decimal(), text);
    }
    assert_eq!(Price::parse("1.500").unwrap().decimal(), "1.5");
    for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000000001", "100000000", "1 ", "१"] {
        assert!(Price::parse(text).is_none(), "{text}");
    }
}

#[test]
fn periods_of_the_31st_end_with_the_month_and_come_back_to_the_31st() {
    let monthly = Cycle { interval: Interval::Month, count: 1 };
    let anchor_s = noon(2027, 12, 31);
    let ends: Vec<i64> = (1..=4).map(|index| monthly.boundary(anchor_s, index).unwrap()).collect();
    assert_eq!(ends, [noon(2028, 1, 31), noon(2028, 2, 29), noon(2028, 3, 31), noon(2028, 4, 30)]);
    let yearly = Cycle { interval: Interval::Year, count: 1 };
    assert_eq!(yearly.boundary(noon(2028, 2, 29), 1), Some(noon(2029, 2, 28)));
    let weekly = Cycle { interval: Interval::Week, count: 2 };
    assert_eq!(weekly.boundary(anchor_s, 1), Some(anchor_s + 14 * DAY_S));
}

#[tokio::test]
async fn a_month_of_512_345_tokens_costs_20_dollars_and_2_cents() {
    let f = Fixture::new().await;
    f.set_clock(noon(2027, 1, 31));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (start_s, end_s) = period(&f.subscribe(&customer, &plan).await);
    assert_eq!(end_s - start_s, 28 * DAY_S);
    let first = f.stripe.invoices(&customer);
    assert_eq!((first[0].status, first[0].total_cents), (InvoiceStatus::Paid, 2000));
    assert_eq!(f.use_tokens(&customer, "row-1", "500000", start_s).await.status, 200);
    f.stripe.advance_to(end_s - 10).await.unwrap();
    assert_eq!(f.use_tokens(&customer, "row-2", "12345", end_s - 20).await.status, 200);
    f.stripe.advance_to(end_s + HOUR_S).await.unwrap();
    let invoices = f.stripe.invoices(&customer);
    assert_eq!(invoices.len(), 2);
    let invoice = &invoices[1];
    assert_eq!((invoice.period_start_s, invoice.period_end_s), (start_s, end_s));
    let lines: Vec<(u64, i64, bool)> =
        invoice.lines.iter().map(|line| (line.quantity, line.cents, line.metered)).collect();
    assert_eq!(lines, [(1, 2000, false), (500_000, 0, true), (12_345, 2, true)]);
    assert_eq!(
        (invoice.total_cents, invoice.metered_quantity(), invoice.metered_cents()),
        (2002, 512_345, 2)
    );
    // In advance for the base: the month that begins, which ends on the 31st again.
    assert_eq!((invoice.lines[0].start_s, invoice.lines[0].end_s), (end_s, start_s + 59 * DAY_S));
    assert_eq!((invoice.lines[2].start_s, invoice.lines[2].end_s), (start_s, end_s));
    assert_eq!((invoice.created_s, invoice.finalized_s), (end_s, Some(end_s + HOUR_S)));
}

#[tokio::test]
async fn f11_an_event_that_comes_after_finalization_is_on_no_invoice() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (_, end_s) = period(&f.subscribe(&customer, &plan).await);
    f.stripe.advance_to(end_s + HOUR_S - 60).await.unwrap();
    assert_eq!(f.stripe.invoices(&customer)[1].status, InvoiceStatus::Draft);
    assert_eq!(f.use_tokens(&customer, "in-time", "600000", end_s - 1).await.status, 200);
    assert_eq!(f.stripe.invoices(&customer)[1].total_cents, 2020, "a draft follows the meter");
    f.stripe.advance_to(end_s + HOUR_S + 60).await.unwrap();
    assert_eq!(f.use_tokens(&customer, "late", "1000000", end_s - 1).await.status, 200);
    let invoices = f.stripe.invoices(&customer);
    assert_eq!((invoices[1].total_cents, invoices[1].metered_quantity()), (2020, 600_000));
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 1_600_000, "counted, and billed to nobody");
    f.stripe.advance_to(period(&f.get("/v1/subscriptions").await.json["data"][0]).1).await.unwrap();
    assert_eq!(f.stripe.invoices(&customer)[2].metered_quantity(), 0);
    let again = f.post(&format!("/v1/invoices/{}/finalize", invoices[1].id), &[]).await;
    check_error(&again, 400, None, None);
}

#[tokio::test]
async fn a_subscription_that_ends_is_billed_for_its_last_usage_and_then_no_more() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let subscription = f.subscribe(&customer, &plan).await;
    let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
    let (start_s, end_s) = period(&subscription);
    f.use_tokens(&customer, "row-1", "1500000", start_s).await;
    f.post(&path, &[("cancel_at_period_end", "true")]).await;
    f.stripe.advance_to(end_s + 70 * DAY_S).await.unwrap();
    let ended = f.get(&path).await.json;
    assert_eq!((ended["status"].as_str(), ended["ended_at"].as_i64()), (Some("canceled"), Some(end_s)));
    let totals: Vec<i64> = f.stripe.invoices(&customer).iter().map(|invoice| invoice.total_cents).collect();
    assert_eq!(totals, [2000, 200]);
}

#[tokio::test]
async fn a_clock_that_jumps_over_months_makes_every_invoice_in_order() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 1, 31));
    let (plan, customer) = (f.pro().await, f.customer().await);
    f.subscribe(&customer, &plan).await;
    f.set_clock(noon(2026, 7, 1));
    let ends: Vec<i64> = f.stripe.invoices(&customer).iter().map(|invoice| invoice.period_end_s).collect();
    let drift_s = ends[0] - noon(2026, 1, 31);
    let expected = [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31), (6, 30)];
    assert_eq!(ends, expected.map(|(month, day)| noon(2026, month, day) + drift_s));
    assert_eq!(f.stripe.advance_to(i64::MAX).await, Err(AdvanceTooFar));
}

// ---- Webhooks ----

#[tokio::test]
async fn an_unanswered_invoice_created_holds_the_draft_back_until_an_hour_after_it_is_heard() {
    let endpoint = Endpoint::start().await;
    let f = Fixture::with(endpoint.options()).await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (_, end_s) = period(&f.subscribe(&customer, &plan).await);
    f.stripe.deliver_pending().await;
    endpoint.answer(503);
    f.stripe.advance_to(end_s + 10 * HOUR_S).await.unwrap();
    assert_eq!(f.stripe.invoices(&customer)[1].status, InvoiceStatus::Draft);
    let waiting = f.stripe.undelivered();
    assert!(waiting.iter().any(|event| event.kind == "invoice.created" && event.attempts > 1), "{waiting:?}");
    f.use_tokens(&customer, "drained", "700000", end_s - 1).await;
    endpoint.answer(200);
    assert_eq!(f.stripe.deliver_pending().await, 0);
    let heard_s = f.stripe.now_s();
    f.stripe.advance_to(heard_s + HOUR_S + 60).await.unwrap();
    let invoice = f.stripe.invoices(&customer)[1].clone();
    assert_eq!((invoice.status, invoice.total_cents), (InvoiceStatus::Paid, 2040));
    assert!((heard_s + HOUR_S - invoice.finalized_s.unwrap()).abs() <= 60, "{invoice:?}");
}

#[tokio::test]
async fn an_invoice_created_that_is_never_answered_holds_the_draft_back_for_72_hours() {
    let endpoint = Endpoint::start().await;
    endpoint.answer(500);
    let f = Fixture::with(endpoint.options()).await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (_, end_s) = period(&f.subscribe(&customer, &plan).await);
    f.stripe.advance_to(end_s + 72 * HOUR_S - 1).await.unwrap();
    assert_eq!(f.stripe.invoices(&customer)[1].status, InvoiceStatus::Draft);
    f.stripe.advance_to(end_s + 72 * HOUR_S).await.unwrap();
    assert_eq!(f.stripe.invoices(&customer)[1].finalized_s, Some(end_s + 72 * HOUR_S));
    f.stripe.advance_to(end_s + 20 * DAY_S).await.unwrap();
    assert!(f.stripe.undelivered().is_empty(), "the retries are bounded");
}

#[tokio::test]
async fn events_are_sent_without_being_asked_for_and_carry_what_changed() {
    let endpoint = Endpoint::start().await;
    let f = Fixture::with(Options { delivery: Delivery::Automatic, ..endpoint.options() }).await;
    let (plan, customer) = (f.pro().await, f.customer().await);
    let subscription = f.subscribe(&customer, &plan).await;
    let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
    f.post(&path, &[("cancel_at_period_end", "true")]).await;
    let all_heard = async {
        while endpoint.kinds().len() < 6 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_heard).await.unwrap();
    let heard = lock(&endpoint.heard).clone();
    let updated = heard.iter().find(|(_, body)| body.contains("customer.subscription.updated")).unwrap();
    let updated: Value = serde_json::from_str(&updated.1).unwrap();
    assert_eq!(updated["data"]["previous_attributes"]["cancel_at_period_end"], false);
    assert_eq!(updated["data"]["object"]["cancel_at_period_end"], true);
    assert_eq!(f.stripe.events().len(), 6);
}

#[tokio::test]
async fn shutdown_ends_the_server_even_while_a_request_hangs() {
    let f = Fixture::new().await;
    f.stripe.fail_next(1, Fault::TimeoutBeforeCommit);
    let hanging = f.request("GET", "/v1/customers").send();
    let shutdown = async {
        while f.stripe.faults_waiting() > 0 {
            tokio::task::yield_now().await;
        }
        f.stripe.shutdown().await;
    };
    let (hanging, ()) = tokio::join!(hanging, shutdown);
    assert!(hanging.is_err() || hanging.unwrap().status() == 504);
    assert!(f.request("GET", "/v1/customers").send().await.is_err());
}

#[test]
fn debug_shows_no_secret() {
    let webhook = Some(WebhookEndpoint { url: "http://127.0.0.1:1/".to_owned(), secret: SECRET.to_owned() });
    let options = Options { api_key: KEY.to_owned(), webhook, ..Options::default() };
    let text = format!("{options:?}");
    assert!(!text.contains(KEY) && !text.contains(SECRET), "{text}");
}

mod changes;
mod collection;
mod schedules;
mod told;
