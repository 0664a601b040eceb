//! The endpoints that sell and tell, and the strictness of all of them, over HTTP.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::clock::Clock;
use super::*;

const KEY: &str = "sk_test_endpoints";
const VERSION: &str = "2026-09-30.endive";
const SESSIONS: &str = "/v1/checkout/sessions";
const DESTINATIONS: &str = "/v2/core/event_destinations";

struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    fn id(self) -> String {
        self.ok()["id"].as_str().unwrap().to_owned()
    }

    /// The status, the code and the parameter of an error.
    fn refusal(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |name: &str| json["error"][name].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("param"))
    }

    fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

struct Shop {
    stripe: Stripe,
    http: reqwest::Client,
    product: String,
    base: String,
    tokens: String,
}

impl Shop {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options { api_key: KEY.to_owned(), delivery: Delivery::OnDemand, ..Options::default() };
        let stripe = start(listener, options).await.unwrap();
        let mut shop = Self {
            stripe,
            http: client().unwrap(),
            product: String::new(),
            base: String::new(),
            tokens: String::new(),
        };
        shop.product = shop.post("/v1/products", "name=Pro").await.id();
        let meter = "display_name=Tokens&event_name=tokens&default_aggregation[formula]=sum";
        let meter = shop.post("/v1/billing/meters", meter).await.id();
        let product = shop.product.clone();
        let base = format!(
            "product={product}&currency=usd&unit_amount=2000&recurring[interval]=month&lookup_key=base"
        );
        shop.base = shop.post("/v1/prices", &base).await.id();
        let tokens = format!(
            "product={product}&currency=usd&billing_scheme=tiered&tiers_mode=graduated&tiers[0][up_to]=500000\
             &tiers[0][unit_amount]=0&tiers[1][up_to]=inf&tiers[1][unit_amount_decimal]=0.0002\
             &recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}"
        );
        shop.tokens = shop.post("/v1/prices", &tokens).await.id();
        shop
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.stripe.base_url(), path.trim_start_matches('/'));
        self.http.request(method.parse().unwrap(), url).bearer_auth(KEY)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Reply { status, headers, text: answer.text().await.unwrap() }
    }

    fn form(&self, path: &str, form: &str) -> reqwest::RequestBuilder {
        let form = form.replace('[', "%5B").replace(']', "%5D");
        self.request("POST", path).header("content-type", "application/x-www-form-urlencoded").body(form)
    }

    async fn post(&self, path: &str, form: &str) -> Reply {
        self.send(self.form(path, form)).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(self.request("GET", path)).await
    }

    async fn v2(&self, method: &str, path: &str, body: &Value) -> Reply {
        let request = self.request(method, path).header("stripe-version", VERSION);
        let request = if method == "POST" { request.json(body) } else { request };
        self.send(request).await
    }

    async fn customer(&self) -> String {
        self.post("/v1/customers", "email=ada@example.com").await.id()
    }

    /// Both lines of the plan, and where to go.
    fn order(&self) -> String {
        format!(
            "mode=subscription&line_items[0][price]={}&line_items[0][quantity]=1&line_items[1][price]={}\
             &success_url=https://app.example/done?s={{CHECKOUT_SESSION_ID}}&cancel_url=https://app.example/back",
            self.base, self.tokens
        )
    }

    fn kinds(&self) -> Vec<String> {
        self.stripe.events().into_iter().map(|event| event.kind).collect()
    }
}

#[tokio::test]
async fn a_completed_checkout_makes_the_subscription_with_its_metadata() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    let form = format!(
        "{}&customer={customer}&client_reference_id=user_1&subscription_data[metadata][user_id]=user_1&metadata[a]=b",
        shop.order()
    );
    let session = shop.post(SESSIONS, &form).await.ok();
    let id = session["id"].as_str().unwrap();
    assert!(id.starts_with("cs_test_"));
    assert_eq!(session["status"], "open");
    assert_eq!(session["payment_status"], "unpaid");
    assert_eq!(session["amount_total"], 2000);
    assert_eq!(session["expires_at"].as_i64().unwrap() - session["created"].as_i64().unwrap(), 86_400);
    assert_eq!(session["url"], format!("{}c/pay/{id}", shop.stripe.base_url()));
    shop.stripe.complete_checkout(id).unwrap();
    let done = shop.get(&format!("{SESSIONS}/{id}?expand[]=line_items")).await.ok();
    assert_eq!(done["status"], "complete");
    assert_eq!(done["payment_status"], "paid");
    assert_eq!(done["url"], Value::Null);
    assert_eq!(done["client_reference_id"], "user_1");
    assert_eq!(done["line_items"]["data"].as_array().unwrap().len(), 2);
    let subscription = done["subscription"].as_str().unwrap();
    let made = shop.get(&format!("/v1/subscriptions/{subscription}")).await.ok();
    assert_eq!(made["customer"], customer);
    assert_eq!(made["metadata"], json!({ "user_id": "user_1" }));
    assert_eq!(made["latest_invoice"], done["invoice"]);
    assert_eq!(made["items"]["data"][1].get("quantity"), None);
    let kinds = shop.kinds();
    for kind in ["checkout.session.completed", "customer.subscription.created", "invoice.created"] {
        assert_eq!(kinds.iter().filter(|found| *found == kind).count(), 1, "{kind}");
    }
    let again = shop.stripe.complete_checkout(id);
    assert_eq!(again, Err(CheckoutError::NotOpen("complete")));
    assert_eq!(shop.stripe.complete_checkout("cs_test_none"), Err(CheckoutError::Unknown));
}

#[tokio::test]
async fn a_checkout_without_a_customer_makes_one_with_the_address() {
    let shop = Shop::open().await;
    let form = format!("{}&customer_email=bo@example.com", shop.order());
    let id = shop.post(SESSIONS, &form).await.id();
    shop.stripe.complete_checkout(&id).unwrap();
    let done = shop.get(&format!("{SESSIONS}/{id}")).await.ok();
    let customer = done["customer"].as_str().unwrap();
    assert_eq!(shop.get(&format!("/v1/customers/{customer}")).await.ok()["email"], "bo@example.com");
}

#[tokio::test]
async fn what_cannot_be_bought_is_refused() {
    let shop = Shop::open().await;
    let (order, customer) = (shop.order(), shop.customer().await);
    let now_s = shop.stripe.now_s();
    let cases = [
        (format!("{order}&line_items[1][quantity]=1"), 400, "", "line_items[1][quantity]"),
        (
            order.replace("&line_items[0][quantity]=1", ""),
            400,
            "parameter_missing",
            "line_items[0][quantity]",
        ),
        (order.replace("[quantity]=1", "[quantity]=0"), 400, "", "line_items[0][quantity]"),
        (order.replace("mode=subscription&", ""), 400, "parameter_missing", "mode"),
        (order.replace("mode=subscription", "mode=payment"), 501, "", "mode"),
        (order.replace("https://app.example/done", "/done"), 400, "url_invalid", "success_url"),
        (order.replace("https://app.example/back", "back"), 400, "url_invalid", "cancel_url"),
        (order.replace("success_url", "success"), 400, "parameter_unknown", "success"),
        (
            format!("{order}&customer={customer}&customer_email=a@b.c"),
            400,
            "parameters_exclusive",
            "customer",
        ),
        (format!("{order}&customer=cus_none"), 400, "resource_missing", "customer"),
        (format!("{order}&customer_email=nobody"), 400, "", "customer_email"),
        (format!("{order}&expires_at={}", now_s + 60), 400, "", "expires_at"),
        (format!("{order}&expires_at={}", now_s + 90_000), 400, "", "expires_at"),
        (format!("{order}&allow_promotion_codes=true"), 501, "", "allow_promotion_codes"),
        (format!("{order}&line_items[2][price]={}", shop.tokens), 400, "", "line_items[2][price]"),
        (order.replace(&shop.base, "price_none"), 400, "resource_missing", "line_items[0][price]"),
        (
            format!("{order}&client_reference_id={}", "x".repeat(201)),
            400,
            "parameter_invalid_string_length",
            "client_reference_id",
        ),
    ];
    for (form, status, code, param) in cases {
        let refusal = shop.post(SESSIONS, &form).await.refusal();
        assert_eq!(refusal, (status, code.to_owned(), param.to_owned()), "{form}");
    }
    assert_eq!(shop.get(SESSIONS).await.ok()["data"], json!([]));
    shop.post(&format!("/v1/prices/{}", shop.base), "active=false").await.ok();
    assert_eq!(shop.post(SESSIONS, &order).await.refusal().2, "line_items[0][price]");
}

#[tokio::test]
async fn a_session_expires_once_by_the_caller_or_by_the_clock() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    let form = format!("{}&customer={customer}", shop.order());
    let first = shop.post(SESSIONS, &form).await.id();
    let now_s = shop.stripe.now_s();
    let second = shop.post(SESSIONS, &format!("{form}&expires_at={}", now_s + 3_600)).await.id();
    let third = shop.post(SESSIONS, &form).await.id();
    let expired = shop.post(&format!("{SESSIONS}/{first}/expire"), "").await.ok();
    assert_eq!((&expired["status"], &expired["url"]), (&json!("expired"), &Value::Null));
    let again = shop.post(&format!("{SESSIONS}/{first}/expire"), "").await;
    assert!(again.status == 400 && again.message().contains("status of \"expired\""), "{}", again.text);
    shop.stripe.advance_to(now_s + 3_599).await.unwrap();
    let open = shop.get(&format!("{SESSIONS}?customer={customer}&status=open")).await.ok();
    assert_eq!(open["data"].as_array().unwrap().len(), 2);
    shop.stripe.advance_to(now_s + 3_601).await.unwrap();
    let open = shop.get(&format!("{SESSIONS}?customer={customer}&status=open")).await.ok();
    assert_eq!(open["data"][0]["id"], third);
    assert_eq!(open["data"].as_array().unwrap().len(), 1);
    assert_eq!(shop.stripe.complete_checkout(&second), Err(CheckoutError::NotOpen("expired")));
    assert_eq!(shop.kinds().iter().filter(|kind| *kind == "checkout.session.expired").count(), 2);
}

#[tokio::test]
async fn the_page_of_payment_shows_what_is_bought_and_pays() {
    let shop = Shop::open().await;
    shop.post(&format!("/v1/products/{}", shop.product), "name=<Pro>").await.ok();
    let session = shop.post(SESSIONS, &shop.order()).await.ok();
    let url = session["url"].as_str().unwrap();
    let page = shop.send(shop.http.get(url)).await;
    assert_eq!(page.status, 200);
    for part in [
        "<html lang=\"en\">",
        "&lt;Pro&gt;",
        "Pay USD 20.00",
        "href=\"https://app.example/back\"",
        "billed later",
    ] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert!(!page.text.contains("<Pro>"));
    let paid = shop.send(shop.http.post(url)).await;
    assert_eq!(paid.status, 303);
    let id = session["id"].as_str().unwrap();
    assert_eq!(paid.headers["location"], format!("https://app.example/done?s={id}"));
    let reload = shop.send(shop.http.post(url)).await;
    assert!(reload.status == 200 && reload.text.contains("Already paid"));
    assert_eq!(shop.get("/v1/subscriptions").await.ok()["data"].as_array().unwrap().len(), 1);
    let none = shop.send(shop.http.get(format!("{}c/pay/cs_test_none", shop.stripe.base_url()))).await;
    assert_eq!(none.status, 404);
}

#[tokio::test]
async fn a_portal_configuration_is_strict_and_changes_only_what_is_given() {
    let shop = Shop::open().await;
    let path = "/v1/billing_portal/configurations";
    assert_eq!(
        shop.post(path, "").await.refusal(),
        (400, "parameter_missing".to_owned(), "features".to_owned())
    );
    let features = "features[subscription_cancel][enabled]=true&features[invoice_history][enabled]=true";
    let form =
        format!("{features}&default_return_url=https://app.example/&login_page[enabled]=true&metadata[k]=v");
    let made = shop.post(path, &form).await.ok();
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["features"]["subscription_cancel"]["mode"], "at_period_end");
    assert_eq!(made["login_page"]["url"], format!("{}p/login/{id}", shop.stripe.base_url()));
    assert_eq!(made["is_default"], false);
    let one = format!("{path}/{id}");
    let changed = shop.post(&one, "features[subscription_cancel][enabled]=true&features[subscription_cancel][mode]=immediately&login_page[enabled]=false").await.ok();
    assert_eq!(changed["features"]["subscription_cancel"]["mode"], "immediately");
    assert_eq!(changed["features"]["invoice_history"]["enabled"], true);
    assert_eq!(changed["login_page"]["url"], Value::Null);
    assert_eq!(changed["default_return_url"], "https://app.example/");
    let update = "features[subscription_update][enabled]=true&features[subscription_update][default_allowed_updates][0]=price";
    let refused = shop.post(&one, update).await;
    assert_eq!(refused.refusal().2, "features[subscription_update][products]");
    let products = format!(
        "{update}&features[subscription_update][products][0][product]={}&features[subscription_update][products][0][prices][0]",
        shop.product
    );
    assert_eq!(shop.post(&one, &format!("{products}=price_none")).await.refusal().1, "resource_missing");
    let allowed = shop.post(&one, &format!("{products}={}", shop.base)).await.ok();
    assert_eq!(allowed["features"]["subscription_update"]["products"][0]["prices"][0], shop.base);
    assert_eq!(shop.post(&one, "active=false").await.ok()["active"], false);
    assert_eq!(shop.get(&format!("{path}?active=true")).await.ok()["data"], json!([]));
    assert_eq!(shop.get(path).await.ok()["data"][0]["id"], id);
}

#[tokio::test]
async fn a_portal_session_needs_an_active_configuration_and_its_page_cancels_and_resumes() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    let path = "/v1/billing_portal/sessions";
    let form = format!("customer={customer}&return_url=https://app.example/account");
    let refused = shop.post(path, &form).await;
    assert!(refused.status == 400 && refused.message().starts_with("No configuration provided"));
    assert_eq!(shop.post(path, "return_url=https://a.example/").await.refusal().2, "customer");
    let configuration = shop.stripe.save_default_portal().unwrap();
    let off = format!("/v1/billing_portal/configurations/{configuration}");
    assert_eq!(shop.post(&off, "active=false").await.refusal().2, "active");
    let session = shop.post(path, &form).await.ok();
    assert_eq!(session["configuration"], configuration);
    let subscribe =
        format!("customer={customer}&items[0][price]={}&items[1][price]={}", shop.base, shop.tokens);
    let subscription = shop.post("/v1/subscriptions", &subscribe).await.id();
    let url = session["url"].as_str().unwrap();
    let page = shop.send(shop.http.get(url)).await;
    for part in ["Cancel subscription", "Renews on", "Invoices", "href=\"https://app.example/account\""] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    for (action, ending) in [("cancel", true), ("resume", false)] {
        let form = [("subscription", subscription.as_str()), ("action", action)];
        assert_eq!(shop.send(shop.http.post(url).form(&form)).await.status, 303);
        let now = shop.get(&format!("/v1/subscriptions/{subscription}")).await.ok();
        assert_eq!(now["cancel_at_period_end"], ending);
    }
    let other = shop.customer().await;
    let subscribe = format!("customer={other}&items[0][price]={}", shop.base);
    let foreign = shop.post("/v1/subscriptions", &subscribe).await.id();
    let form = [("subscription", foreign.as_str()), ("action", "cancel")];
    assert!(shop.send(shop.http.post(url).form(&form)).await.text.contains("No such subscription"));
    shop.stripe.set_offset(3_601);
    assert_eq!(shop.send(shop.http.get(url)).await.status, 410);
}

#[tokio::test]
async fn the_login_page_opens_the_portal_of_whoever_has_the_address() {
    let shop = Shop::open().await;
    shop.customer().await;
    let form = "features[subscription_cancel][enabled]=true&login_page[enabled]=true";
    let made = shop.post("/v1/billing_portal/configurations", form).await.ok();
    let url = made["login_page"]["url"].as_str().unwrap();
    assert!(shop.send(shop.http.get(url)).await.text.contains("<label for=\"email\">"));
    let wrong = shop.send(shop.http.post(url).form(&[("email", "eve@example.com")])).await;
    assert!(wrong.text.contains("role=\"alert\""));
    let right = shop.send(shop.http.post(url).form(&[("email", "ada@example.com")])).await;
    assert!(right.headers["location"].to_str().unwrap().starts_with("/p/session/bps_"));
}

#[tokio::test]
async fn a_webhook_endpoint_shows_its_secret_once_and_takes_known_events_only() {
    let shop = Shop::open().await;
    let path = "/v1/webhook_endpoints";
    let good =
        "url=https://hook.example/stripe&enabled_events[]=invoice.created&enabled_events[]=invoice.paid";
    let made =
        shop.post(path, &format!("{good}&api_version={VERSION}&description=d&metadata[k]=v")).await.ok();
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(made["api_version"], VERSION);
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(shop.get(&one).await.ok().get("secret"), None);
    assert_eq!(shop.post(&one, "disabled=true").await.ok()["status"], "disabled");
    let changed = shop.post(&one, "enabled_events[]=*&url=http://127.0.0.1:9/x").await.ok();
    assert_eq!((&changed["enabled_events"], &changed["status"]), (&json!(["*"]), &json!("disabled")));
    let cases = [
        ("enabled_events[]=invoice.created".to_owned(), "parameter_missing", "url"),
        ("url=https://hook.example/".to_owned(), "parameter_missing", "enabled_events"),
        ("url=http://hook.example/&enabled_events[]=*".to_owned(), "", "url"),
        ("url=hook&enabled_events[]=*".to_owned(), "url_invalid", "url"),
        ("url=https://hook.example/&enabled_events[]=invoice.made".to_owned(), "", "enabled_events[0]"),
        (format!("{good}&enabled_events[]=*"), "", "enabled_events"),
        (format!("{good}&secret=whsec_1"), "parameter_unknown", "secret"),
    ];
    for (form, code, param) in cases {
        assert_eq!(
            shop.post(path, &form).await.refusal(),
            (400, code.to_owned(), param.to_owned()),
            "{form}"
        );
    }
    assert_eq!(shop.post(path, &format!("{good}&api_version=2020-08-27")).await.status, 501);
    assert_eq!(shop.send(shop.request("DELETE", &one)).await.ok()["deleted"], true);
    assert_eq!(shop.get(&one).await.status, 404);
    assert_eq!(shop.get(path).await.ok()["data"], json!([]));
    for _ in 0..16 {
        shop.post(path, good).await.ok();
    }
    assert!(shop.post(path, good).await.message().contains("maximum of 16"));
}

#[tokio::test]
async fn an_event_destination_speaks_json_with_a_named_version_and_shows_its_secret_when_asked() {
    let shop = Shop::open().await;
    let body = json!({
        "name": "errors", "type": "webhook_endpoint", "event_payload": "thin",
        "enabled_events": ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"],
        "webhook_endpoint": { "url": "https://hook.example/thin" },
        "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"], "metadata": { "k": "v" },
    });
    let made = shop.v2("POST", DESTINATIONS, &body).await.ok();
    assert_eq!(made["object"], "v2.core.event_destination");
    assert!(made["webhook_endpoint"]["signing_secret"].as_str().unwrap().starts_with("whsec_"));
    let one = format!("{DESTINATIONS}/{}", made["id"].as_str().unwrap());
    let plain = shop.v2("GET", &one, &Value::Null).await.ok();
    assert_eq!(plain["webhook_endpoint"], json!({}));
    let listed =
        shop.v2("GET", &format!("{DESTINATIONS}?include[0]=webhook_endpoint.url"), &Value::Null).await.ok();
    assert_eq!(listed["data"][0]["webhook_endpoint"]["url"], "https://hook.example/thin");
    assert_eq!(listed["next_page_url"], Value::Null);
    let secret =
        shop.v2("GET", &format!("{one}?include[0]=webhook_endpoint.signing_secret"), &Value::Null).await;
    assert_eq!(secret.status, 400);
    let changed = shop.v2("POST", &one, &json!({ "name": "other", "metadata": { "k": null } })).await.ok();
    assert_eq!((&changed["name"], &changed["metadata"]), (&json!("other"), &json!({})));
    let off = shop.v2("POST", &format!("{one}/disable"), &json!({})).await.ok();
    assert_eq!(off["status"], "disabled");
    assert_eq!(off["status_details"]["disabled"]["reason"], "user");
    let unversioned = shop.send(shop.request("GET", DESTINATIONS)).await;
    assert!(unversioned.status == 400 && unversioned.message().contains("Stripe-Version"));
    assert_eq!(unversioned.json()["error"].get("type"), None);
    let form = shop.send(shop.form(DESTINATIONS, "name=x").header("stripe-version", VERSION)).await;
    assert!(form.message().contains("application/json"));
    for (name, value) in [
        ("enabled_events", json!(["invoice.created"])),
        ("enabled_events", json!("v1.billing.meter.no_meter_found")),
        ("event_payload", json!("fat")),
        ("snapshot_api_version", json!(VERSION)),
        ("webhook_endpoint", json!({ "url": "http://hook.example/" })),
        ("webhook_endpoint", json!({ "url": "https://hook.example/", "secret": "s" })),
        ("made_up", json!(1)),
    ] {
        let mut body = body.clone();
        body[name] = value;
        let refused = shop.v2("POST", DESTINATIONS, &body).await;
        assert_eq!((refused.status, refused.refusal().1), (400, "invalid_fields".to_owned()), "{body}");
    }
    shop.v2("DELETE", &one, &Value::Null).await.ok();
    assert_eq!(
        shop.v2("GET", &one, &Value::Null).await.refusal(),
        (404, "not_found".to_owned(), String::new())
    );
}

/// A listener that notes what it hears: the header with the signature, and the body.
async fn listener() -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let heard: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let notes = heard.clone();
    let router = Router::new().fallback(async move |headers: HeaderMap, body: String| {
        let signature = headers["stripe-signature"].to_str().unwrap().to_owned();
        lock(&notes).push((signature, serde_json::from_str(&body).unwrap()));
    });
    #[expect(clippy::disallowed_methods, reason = "the listener lives as long as the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard)
}

#[tokio::test]
async fn whoever_is_listed_hears_what_they_asked_for_signed_with_their_own_secret() {
    let shop = Shop::open().await;
    let (url, heard) = listener().await;
    let form = format!(
        "url={url}&enabled_events[]=checkout.session.completed&enabled_events[]=customer.subscription.created"
    );
    let made = shop.post("/v1/webhook_endpoints", &form).await.ok();
    let (thin_url, thin_heard) = listener().await;
    let body = json!({
        "name": "errors", "type": "webhook_endpoint", "event_payload": "thin",
        "enabled_events": ["v1.billing.meter.error_report_triggered"],
        "webhook_endpoint": { "url": thin_url }, "include": ["webhook_endpoint.signing_secret"],
    });
    let destination = shop.v2("POST", DESTINATIONS, &body).await.ok();
    let id = shop.post(SESSIONS, &shop.order()).await.id();
    shop.stripe.complete_checkout(&id).unwrap();
    shop.stripe.deliver_pending().await;
    let told = lock(&heard).clone();
    let kinds: Vec<&str> = told.iter().map(|(_, body)| body["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    let (signature, body) = &told[0];
    let at_s = signature.split_once("t=").unwrap().1.split_once(',').unwrap().0.parse().unwrap();
    let secret = made["secret"].as_str().unwrap();
    let events = shop.get(&format!("/v1/events/{}", body["id"].as_str().unwrap())).await;
    assert_eq!(events.ok()["type"], body["type"]);
    // The body was sent as it is listed: the signature is over its text.
    let text = webhooks::signature(secret, &body.to_string(), at_s).unwrap();
    assert_eq!(*signature, text);
    let event = "event_name=tokens&payload[stripe_customer_id]=cus_gone&payload[value]=5&identifier=lost";
    shop.post("/v1/billing/meter_events", event).await.ok();
    shop.stripe.advance_to(shop.stripe.now_s() + 7_200).await.unwrap();
    shop.stripe.deliver_pending().await;
    let thin = lock(&thin_heard).clone();
    assert_eq!(thin.len(), 1);
    assert_eq!(thin[0].1["type"], "v1.billing.meter.error_report_triggered");
    assert!(thin[0].1.get("data").is_none(), "it is thin");
    let one = format!("/v1/webhook_endpoints/{}", made["id"].as_str().unwrap());
    shop.post(&one, "disabled=true").await.ok();
    let id = shop.post(SESSIONS, &shop.order()).await.id();
    shop.stripe.complete_checkout(&id).unwrap();
    shop.stripe.deliver_pending().await;
    assert_eq!(lock(&heard).len(), 2, "a disabled endpoint hears nothing");
    let path = format!("{DESTINATIONS}/{}", destination["id"].as_str().unwrap());
    shop.v2("DELETE", &path, &Value::Null).await.ok();
}

#[tokio::test]
async fn a_card_that_is_declined_leaves_the_checkout_open() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    shop.stripe.set_card(&customer, Card::Fails).unwrap();
    let session = shop.post(SESSIONS, &format!("{}&customer={customer}", shop.order())).await.ok();
    let (id, url) = (session["id"].as_str().unwrap(), session["url"].as_str().unwrap());
    let declined = shop.send(shop.http.post(url)).await;
    assert!(declined.status == 200 && declined.text.contains("Your card was declined."), "{}", declined.text);
    assert_eq!(shop.get(&format!("{SESSIONS}/{id}")).await.ok()["status"], "open");
    let all = shop.get("/v1/subscriptions?status=all").await.ok();
    assert_eq!(all["data"], json!([]));
    shop.stripe.set_card(&customer, Card::None).unwrap();
    shop.stripe.complete_checkout(id).unwrap();
    let made = shop.get("/v1/subscriptions").await.ok();
    assert_eq!(made["data"][0]["status"], "active");
    // In the portal the card can be made to fail, and to work again.
    shop.stripe.save_default_portal().unwrap();
    let portal = shop.post("/v1/billing_portal/sessions", &format!("customer={customer}")).await.ok();
    let url = portal["url"].as_str().unwrap();
    for (action, state) in [("card_fails", "Your card is declined."), ("card_works", "Your card works.")] {
        assert_eq!(shop.send(shop.http.post(url).form(&[("action", action)])).await.status, 303);
        assert!(shop.send(shop.http.get(url)).await.text.contains(state));
    }
}

#[tokio::test]
async fn a_checkout_session_is_what_async_stripe_takes_for_one() {
    let shop = Shop::open().await;
    let id = shop.post(SESSIONS, &shop.order()).await.id();
    let path = format!("{SESSIONS}/{id}?expand[]=line_items");
    for status in ["open", "complete"] {
        let answer = shop.get(&path).await.ok();
        let session: stripe_shared::CheckoutSession = serde_json::from_value(answer).unwrap();
        assert_eq!(session.status.unwrap().as_str(), status);
        assert_eq!(session.line_items.unwrap().data.len(), 2);
        if status == "open" {
            shop.stripe.complete_checkout(&id).unwrap();
        }
    }
}

#[tokio::test]
async fn nothing_of_what_a_price_costs_can_be_changed() {
    let shop = Shop::open().await;
    let one = format!("/v1/prices/{}", shop.base);
    let before = shop.get(&one).await.ok();
    for change in [
        "unit_amount=1",
        "unit_amount_decimal=1",
        "currency=eur",
        "product=p",
        "recurring[interval]=year",
        "billing_scheme=tiered",
        "tiers[0][up_to]=inf",
        "tiers_mode=graduated",
        "transform_quantity[divide_by]=2",
    ] {
        let refused = shop.post(&one, change).await;
        assert_eq!((refused.status, refused.refusal().1), (400, "parameter_unknown".to_owned()), "{change}");
    }
    assert_eq!(shop.get(&one).await.ok(), before);
}

#[tokio::test]
async fn every_request_is_held_to_the_table_of_its_endpoint() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    let one = format!("/v1/customers/{customer}");
    let unknown = |param: &str| (400, "parameter_unknown".to_owned(), param.to_owned());
    assert_eq!(shop.post("/v1/customers", "emial=a@b.c").await.refusal(), unknown("emial"));
    assert_eq!(shop.post(&one, "address[street]=x").await.refusal(), unknown("address[street]"));
    assert_eq!(shop.get(&format!("{one}?limit=1")).await.refusal(), unknown("limit"));
    assert_eq!(shop.post("/v1/customers", "email[0]=a@b.c").await.refusal().2, "email");
    assert_eq!(shop.post("/v1/customers", "metadata=x").await.refusal().0, 400);
    assert_eq!(shop.post("/v1/customers", "metadata=").await.refusal().0, 501);
    assert_eq!(
        shop.post("/v1/customers", "phone=123").await.refusal(),
        (501, String::new(), "phone".to_owned())
    );
    let name = "n".repeat(257);
    assert_eq!(shop.post(&one, &format!("name={name}")).await.refusal().1, "parameter_invalid_string_length");
    let keys: Vec<String> = (0..51).map(|key| format!("metadata[k{key}]=v")).collect();
    assert_eq!(shop.post(&one, &keys.join("&")).await.status, 400);
    assert_eq!(shop.post(&one, &keys[..50].join("&")).await.status, 200);
    let json = shop.request("POST", &one).json(&json!({ "name": "x" }));
    assert!(shop.send(json).await.message().contains("x-www-form-urlencoded"));
    assert_eq!(shop.get("/v1/invoices/search?query=x").await.status, 501);
    assert_eq!(shop.get("/v1/made_up").await.status, 404);
    let report = shop.stripe.strictness_report();
    let customers = report.endpoints["POST /v1/customers/:id"];
    assert_eq!((customers.calls, customers.refused), (5, 4));
    assert_eq!(report.endpoints["unknown"], EndpointCalls { calls: 1, refused: 1 });
    assert_eq!(report.endpoints.get("POST /v1/checkout/sessions"), None);
}

#[tokio::test]
async fn a_version_is_the_pinned_one_or_none_and_a_key_is_this_accounts() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    let one = format!("/v1/customers/{customer}");
    let with = |version: &str| shop.request("GET", &one).header("stripe-version", version.to_owned());
    assert_eq!(shop.send(with(VERSION)).await.status, 200);
    assert_eq!(shop.send(with("2020-08-27")).await.status, 501);
    let strange = shop.send(with("latest")).await;
    assert!(strange.status == 400 && strange.message() == "Invalid Stripe API version: latest");
    let live = shop
        .http
        .get(format!("{}v1/customers/{customer}", shop.stripe.base_url()))
        .bearer_auth("sk_live_endpoints");
    let live = shop.send(live).await;
    assert!(
        live.status == 404 && live.message().contains("similar object exists in test mode"),
        "{}",
        live.text
    );
    let wrong = shop.http.get(format!("{}v1/customers", shop.stripe.base_url())).bearer_auth("sk_live_other");
    assert_eq!(shop.send(wrong).await.status, 401);
}

#[tokio::test]
async fn a_key_replays_a_saved_500_and_means_nothing_to_a_get() {
    let shop = Shop::open().await;
    shop.stripe.fail_next_on("/v1/customers", 1, Fault::ErrorAfterCommit);
    let keyed = || shop.form("/v1/customers", "name=A").header("idempotency-key", "k1");
    let first = shop.send(keyed()).await;
    let again = shop.send(keyed()).await;
    assert_eq!((first.status, again.status), (500, 500));
    assert_eq!(first.text, again.text);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert!(first.headers.get("idempotent-replayed").is_none());
    let other = shop.send(shop.form("/v1/customers", "name=B").header("idempotency-key", "k1")).await;
    assert!(other.status == 400 && other.json()["error"]["type"] == "idempotency_error");
    let listed = shop.send(shop.request("GET", "/v1/customers").header("idempotency-key", "k1")).await;
    assert_eq!(listed.headers.get("idempotency-key"), None);
    assert_eq!(listed.ok()["data"].as_array().unwrap().len(), 1, "done once");
    let refused = || shop.form("/v1/customers", "made_up=1").header("idempotency-key", "k2");
    assert_eq!(shop.send(refused()).await.status, 400);
    assert!(
        shop.send(refused()).await.headers.get("idempotent-replayed").is_none(),
        "refused before it began"
    );
}

#[tokio::test]
async fn two_changes_of_one_object_or_customer_at_a_time_are_one_too_many() {
    let shop = Shop::open().await;
    let customer = shop.customer().await;
    let subscribe = format!("customer={customer}&items[0][price]={}", shop.base);
    let subscription = shop.post("/v1/subscriptions", &subscribe).await.id();
    let path = format!("/v1/subscriptions/{subscription}");
    let held = shop.stripe.hold_requests("/v1/subscriptions/");
    let first = shop.post(&path, "metadata[a]=1");
    let keyed = || shop.form(&path, "metadata[a]=2").header("idempotency-key", "k1");
    let rest = async {
        held.arrived(1).await;
        for request in [
            keyed(),
            shop.form(&format!("/v1/customers/{customer}"), "name=A"),
            shop.form("/v1/subscriptions", &subscribe),
            shop.form("/v1/subscription_schedules", &format!("from_subscription={subscription}")),
        ] {
            let busy = shop.send(request).await;
            assert_eq!((busy.status, busy.refusal().1), (429, "lock_timeout".to_owned()));
            assert_eq!(busy.headers["stripe-should-retry"], "true");
        }
        assert_eq!(shop.get(&path).await.status, 200, "reading takes no lock");
        assert_eq!(shop.post("/v1/customers", "name=B").await.status, 200, "another customer is free");
        drop(held);
    };
    let (first, ()) = tokio::join!(first, rest);
    assert_eq!(first.status, 200);
    assert_eq!(shop.send(keyed()).await.ok()["metadata"]["a"], "2", "the refusal was not saved");
}

#[tokio::test]
async fn a_key_that_is_under_way_is_refused_until_it_is_done() {
    let shop = Shop::open().await;
    let held = shop.stripe.hold_requests("/v1/customers");
    let keyed = || shop.form("/v1/customers", "name=A").header("idempotency-key", "k1");
    let rest = async {
        held.arrived(1).await;
        let busy = shop.send(keyed()).await;
        assert_eq!((busy.status, busy.refusal().1), (409, "idempotency_key_in_use".to_owned()));
        drop(held);
    };
    let (first, ()) = tokio::join!(shop.send(keyed()), rest);
    let again = shop.send(keyed()).await;
    assert_eq!(first.text, again.text);
    assert_eq!(again.headers["idempotent-replayed"], "true");
}

#[tokio::test]
async fn the_default_clock_runs_with_the_machine() {
    let shop = Shop::open().await;
    assert!((shop.stripe.now_s() - Clock::real_s()).abs() <= 1);
}
