//! The HTTP side: who may ask, what is asked, in which order a request meets outage, key, faults, idempotency and locks.
//!
//! Owns the routes and the headers. Everything that changes the account happens under one lock, in one step, so that a
//! request is either done or not done.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use base64::Engine as _;
use serde_json::Value;

use super::catalog::Era;
use super::error::{ApiError, Saved};
use super::faults::Fault;
use super::form::Params;
use super::idempotency::{Answer, Begin};
use super::webhooks::API_VERSION;
use super::{Key, Shared, catalog, contract, lock, meter_events, pages, subscriptions};
use super::{billing, checkout, destinations, endpoints, portal, world::World};
use super::{
    customers, disputes, invoice_items, invoices, payments, schedules, subscription_update, webhooks,
};

/// Largest request body, in bytes.
const MAX_BODY: usize = 1 << 20;
/// How long a request that is never answered is kept, if its client does not leave.
const MAX_HANG: Duration = Duration::from_mins(2);

/// A request, read.
struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    query: String,
    body: String,
}

impl Call {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The newer half of the API: JSON instead of forms, a version that must be named, and its own shape of errors.
    fn is_v2(&self) -> bool {
        self.path.starts_with("/v2/")
    }
}

/// How a request ends: with an answer or, for the faults that want it, never.
enum Outcome {
    Answer { answer: Answer, replayed: bool },
    Silence,
}

/// Answers every request.
pub(super) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let id = shared.next_request_id();
    let (parts, body) = request.into_parts();
    let Some(body) =
        to_bytes(body, MAX_BODY).await.ok().and_then(|body| String::from_utf8(body.to_vec()).ok())
    else {
        let error = ApiError::invalid_request("The request's body could not be read.");
        return respond(&failure(&error, &id, parts.uri.path().starts_with("/v2/")), None, false);
    };
    let call = Call {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body,
    };
    if let Some(page) = page(&shared, &call) {
        return page;
    }
    let key = call.header("idempotency-key").filter(|_| call.method == Method::POST).map(str::to_owned);
    let outcome = answer(&shared, &call, key.as_deref(), &id).await;
    shared.wake_if_due();
    match outcome {
        Outcome::Answer { answer, replayed } => {
            respond(&answer, key.as_deref().map(|key| (key, id.as_str())), replayed)
        }
        Outcome::Silence => {
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = tokio::time::sleep(MAX_HANG) => {}
            }
            respond(&failure(&ApiError::server(504), &id, call.is_v2()), None, false)
        }
    }
}

/// The pages are for browsers: they need no key and meet no fault.
fn page(shared: &Shared, call: &Call) -> Option<Response<Body>> {
    let now_s = shared.clock.now_s();
    let mut world = lock(&shared.world);
    billing::catch_up(&mut world, now_s);
    let page = pages::answer(&mut world, call.method.as_str(), &call.path, &call.body, now_s);
    drop(world);
    if page.is_some() {
        shared.wake_if_due();
    }
    page
}

async fn answer(shared: &Arc<Shared>, call: &Call, key: Option<&str>, id: &str) -> Outcome {
    let endpoint = contract::endpoint(call.method.as_str(), &call.path);
    let refuse = |error: &ApiError| {
        if error.status != 401 {
            lock(&shared.report).note(endpoint, true);
        }
        Outcome::Answer { answer: failure(error, id, call.is_v2()), replayed: false }
    };
    let fault = match admit(shared, call) {
        Ok(fault) => fault,
        Err(error) => return refuse(&error),
    };
    match fault {
        Some(Fault::TimeoutBeforeCommit) => return Outcome::Silence,
        Some(Fault::Status(409)) => return refuse(&ApiError::key_in_use(key.unwrap_or_default())),
        Some(Fault::Status(429)) => return refuse(&ApiError::rate_limited()),
        _ => {}
    }
    let params = params(call).and_then(|params| {
        endpoint.map_or(Ok(()), |endpoint| endpoint.check(&params))?;
        Ok(params)
    });
    let params = match params {
        Ok(params) => params,
        Err(error) => return refuse(&error),
    };
    let mut claim = None;
    if let Some(key) = key {
        match lock(&shared.keys).begin(key, &call.path, &params, shared.clock.now_s()) {
            Ok(Begin::Execute) => {}
            Ok(Begin::Replay(answer)) => return Outcome::Answer { answer, replayed: true },
            Err(error) => return refuse(&error),
        }
        claim = Some(Claim { shared, key, saved: None });
    }
    let result = match fault {
        Some(Fault::Status(status)) => Err(ApiError::server(status)),
        _ => execute(shared, call, params).await,
    };
    let result = match (fault, result) {
        (Some(Fault::ErrorAfterCommit), Ok(_)) => Err(ApiError::server(500)),
        (_, result) => result,
    };
    let (answer, saved) = match result {
        Ok(body) => (success(&body, id), Saved::Yes),
        Err(error) => {
            // The table of endpoints knows the parameter: it is Stripe's, and no handler reads it.
            let error = if endpoint.is_some() { error.or_not_modelled() } else { error };
            (failure(&error, id, call.is_v2()), error.saved)
        }
    };
    lock(&shared.report).note(endpoint, answer.status >= 400);
    if let Some(endpoint) = endpoint {
        shared.record.note(endpoint.name, answer.status, &answer.body);
    }
    if let Some(claim) = claim.as_mut().filter(|_| saved == Saved::Yes) {
        claim.saved = Some(answer.clone());
    }
    if fault == Some(Fault::TimeoutAfterCommit) {
        Outcome::Silence
    } else {
        Outcome::Answer { answer, replayed: false }
    }
}

/// A claimed idempotency key; released when the request ends, also when its client leaves.
struct Claim<'a> {
    shared: &'a Shared,
    key: &'a str,
    saved: Option<Answer>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.shared.keys).end(self.key, self.saved.as_ref(), self.shared.clock.now_s());
    }
}

/// Outage, key, version, limit: what is looked at before the request itself. The fault that it meets, if any.
fn admit(shared: &Shared, call: &Call) -> Result<Option<Fault>, ApiError> {
    if lock(&shared.faults).outage {
        return Err(ApiError::outage());
    }
    authenticate(shared, call)?;
    check_version(call)?;
    if !lock(&shared.rate).admit(shared.clock.now_s()) {
        return Err(ApiError::rate_limited());
    }
    Ok(lock(&shared.faults).take(&call.path))
}

fn authenticate(shared: &Shared, call: &Call) -> Result<(), ApiError> {
    let given = call.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, credentials)) = given.and_then(|value| value.split_once(' ')) else {
        let message = "You did not provide an API key. You need to provide your API key in the Authorization header, \
                       using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').";
        return Err(ApiError::unauthenticated(message.to_owned()));
    };
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        Some(credentials.trim().to_owned())
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.map(|pair| pair.split_once(':').map_or(pair.clone(), |(user, _)| user.to_owned()))
    } else {
        None
    };
    match shared.key_of(key.as_deref().unwrap_or_default()) {
        Some(Key::Account) => Ok(()),
        Some(Key::Live) => Err(no_live_object(call)),
        None => Err(ApiError::unauthenticated("Invalid API Key provided: ****".to_owned())),
    }
}

/// What the live key of an account hears of a sandbox: its objects are not there.
fn no_live_object(call: &Call) -> ApiError {
    let id = call.path.split('/').find(|part| part.contains("_1Local"));
    match id {
        Some(id) => ApiError::no_such(
            "object",
            &format!(
                "{id}'; a similar object exists in test mode, but a live mode key was used to make this request. '"
            ),
        ),
        None => ApiError::live_not_modelled(),
    }
}

/// The version must be the one that is modelled. Without one `/v1` takes the account's, and `/v2` refuses.
fn check_version(call: &Call) -> Result<(), ApiError> {
    match call.header("stripe-version") {
        None if call.is_v2() => {
            let message = "A Stripe-Version header is required for requests to API v2.";
            Err(ApiError::invalid_request(message))
        }
        None | Some(API_VERSION) => Ok(()),
        Some(version) if is_version(version) => {
            Err(ApiError::version_not_modelled("Stripe-Version", version))
        }
        Some(version) => Err(ApiError::invalid_request(format!("Invalid Stripe API version: {version}"))),
    }
}

/// `2026-09-30.endive`: a date, then perhaps a name.
fn is_version(text: &str) -> bool {
    let (date, name) = text.split_once('.').unwrap_or((text, "a"));
    let shape = date.len() == 10
        && date
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    shape && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn params(call: &Call) -> Result<Params, ApiError> {
    let kind = call.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    if call.is_v2() && call.method == Method::POST {
        if !call.body.is_empty() && !kind.starts_with("application/json") {
            return Err(ApiError::invalid_request(
                "Requests to API v2 need a Content-Type of application/json.",
            ));
        }
        return if call.body.is_empty() { Ok(Params::default()) } else { Params::from_json(&call.body) };
    }
    if !call.body.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
        let message =
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded).";
        return Err(ApiError::invalid_request(message));
    }
    Params::parse(&[&call.query, &call.body])
}

async fn execute(shared: &Arc<Shared>, call: &Call, params: Params) -> Result<Value, ApiError> {
    if (&call.method, call.path.as_str()) == (&Method::POST, "/v1/billing/meter_events") {
        return meter_event(shared, params).await;
    }
    // One change at a time of an object and of its customer; the locks last until this request is answered.
    let _working = if call.method == Method::GET {
        None
    } else {
        let objects = objects(&lock(&shared.world), call, &params);
        let working = shared.work_on_objects(objects).await?;
        shared.pass_held(&call.path).await;
        Some(working)
    };
    let now_s = shared.clock.now_s();
    let mut world = lock(&shared.world);
    billing::catch_up(&mut world, now_s);
    let answer = route(&mut world, call, params, now_s);
    if ["/v1/webhook_endpoints", "/v2/core/event_destinations"].iter().any(|path| call.path.starts_with(path))
    {
        webhooks::follow_lists(&mut world);
    }
    answer
}

/// The objects that a request changes: the one of its path, the customer that it names or whose it is.
fn objects(world: &World, call: &Call, params: &Params) -> Vec<String> {
    let mut objects: Vec<String> = params.leaf_at("customer").map(str::to_owned).into_iter().collect();
    if let Some(of) = params.leaf_at("from_subscription") {
        objects.push(of.to_owned());
        objects.extend(world.subscriptions.get(of).map(|found| found.customer.clone()));
    }
    // An id is the one part of a path that has the mark of every id made here, or that the caller chose for a product.
    if let Some(id) = call.path.split('/').skip(3).find(|part| !part.is_empty()) {
        objects.push(id.to_owned());
        let subscription = world.subscriptions.get(id).map(|found| found.customer.clone());
        let invoice = world.invoices.get(id).map(|found| found.customer.clone());
        objects.extend(subscription.or(invoice));
        objects.extend(world.schedules.get(id).into_iter().flat_map(schedules::Schedule::objects));
    }
    objects.sort_unstable();
    objects.dedup();
    objects
}

async fn meter_event(shared: &Arc<Shared>, params: Params) -> Result<Value, ApiError> {
    let proposed = meter_events::propose(&lock(&shared.world), params)?;
    // One call at a time for a customer and meter; the lock lasts until this request is answered or its client leaves.
    let _working = shared.work_on((proposed.meter.id.clone(), proposed.customer.clone()))?;
    shared.pass_gate().await;
    let now_s = shared.clock.now_s();
    let mut world = lock(&shared.world);
    billing::catch_up(&mut world, now_s);
    meter_events::accept(&mut world, proposed, now_s)
}

fn route(world: &mut World, call: &Call, params: Params, now_s: i64) -> Result<Value, ApiError> {
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("POST", ["v1", "customers"]) => catalog::create_customer(world, params, now_s),
        ("GET", ["v1", "customers"]) => catalog::list_customers(world, params),
        ("GET", ["v1", "customers", id]) => catalog::retrieve_customer(world, id, params),
        ("POST", ["v1", "customers", id]) => catalog::update_customer(world, id, params),
        ("DELETE", ["v1", "customers", id]) => customers::delete(world, id, params, now_s),
        ("POST", ["v1", "products"]) => catalog::create_product(world, params, now_s),
        ("GET", ["v1", "products"]) => catalog::list_products(world, params),
        ("GET", ["v1", "products", id]) => catalog::retrieve_product(world, id, params),
        ("POST", ["v1", "products", id]) => catalog::update_product(world, id, params, now_s),
        ("POST", ["v1", "prices"]) => catalog::create_price(world, params, Era::Now, now_s),
        ("GET", ["v1", "prices"]) => catalog::list_prices(world, params),
        ("GET", ["v1", "prices", id]) => catalog::retrieve_price(world, id, params),
        ("POST", ["v1", "prices", id]) => catalog::update_price(world, id, params),
        ("POST", ["v1", "billing", "meters"]) => catalog::create_meter(world, params, now_s),
        ("GET", ["v1", "billing", "meters"]) => catalog::list_meters(world, params),
        ("GET", ["v1", "billing", "meters", id]) => catalog::retrieve_meter(world, id, params),
        ("GET", ["v1", "billing", "meters", id, "event_summaries"]) => {
            meter_events::summaries(world, id, params, now_s)
        }
        ("POST", ["v1", "billing", "meters", id, "deactivate"]) => {
            meter_events::set_meter_active(world, id, params, false, now_s)
        }
        ("POST", ["v1", "billing", "meters", id, "reactivate"]) => {
            meter_events::set_meter_active(world, id, params, true, now_s)
        }
        ("POST", ["v1", "subscriptions"]) => subscriptions::create(world, params, Era::Now, now_s),
        ("GET", ["v1", "subscriptions"]) => subscriptions::list(world, params),
        ("GET", ["v1", "subscriptions", id]) => subscriptions::retrieve(world, id, params),
        ("POST", ["v1", "subscriptions", id]) => subscription_update::update(world, id, params, now_s),
        ("POST", ["v1", "subscriptions", id, "resume"]) => {
            subscription_update::resume(world, id, params, now_s)
        }
        ("POST", ["v1", "subscriptions", id, "migrate"]) => {
            subscription_update::migrate(world, id, params, now_s)
        }
        ("DELETE", ["v1", "subscriptions", id]) => subscriptions::cancel(world, id, params, now_s),
        (_, ["v1", "subscription_schedules", ..]) => route_schedules(world, call, &segments, params, now_s),
        _ => route_money(world, call, &segments, params, now_s),
    }
}

/// What changes subscriptions over time.
fn route_schedules(
    world: &mut World,
    call: &Call,
    segments: &[&str],
    params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    match (call.method.as_str(), segments) {
        ("POST", [_, _]) => schedules::create(world, params, now_s),
        ("GET", [_, _]) => schedules::list(world, params),
        ("GET", [_, _, id]) => schedules::retrieve(world, id, params),
        ("POST", [_, _, id]) => schedules::update(world, id, params, now_s),
        ("POST", [_, _, id, "release"]) => schedules::release(world, id, params, now_s),
        ("POST", [_, _, id, "cancel"]) => schedules::cancel(world, id, params, now_s),
        (method, _) => Err(ApiError::unknown_url(method, &call.path)),
    }
}

/// Invoices and what becomes of them, and what was told of them.
fn route_money(
    world: &mut World,
    call: &Call,
    segments: &[&str],
    params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    match (call.method.as_str(), segments) {
        ("GET", ["v1", "invoices"]) => invoices::list(world, params),
        ("GET", ["v1", "invoices", id]) => invoices::retrieve(world, id, params),
        ("GET", ["v1", "invoices", id, "lines"]) => invoices::list_lines(world, id, params),
        ("POST", ["v1", "invoices", id, "finalize"]) => invoices::finalize_now(world, id, params, now_s),
        ("POST", ["v1", "invoices", id, "pay"]) => invoices::pay(world, id, params, now_s),
        ("POST", ["v1", "invoices", id, "void"]) => invoices::void(world, id, params, now_s),
        ("POST", ["v1", "invoices", id, "mark_uncollectible"]) => {
            invoices::mark_uncollectible(world, id, params, now_s)
        }
        ("POST", ["v1", "invoiceitems"]) => invoice_items::create(world, params, now_s),
        ("GET", ["v1", "invoiceitems"]) => invoice_items::list(world, params),
        ("GET", ["v1", "invoiceitems", id]) => invoice_items::retrieve(world, id, params),
        ("DELETE", ["v1", "invoiceitems", id]) => invoice_items::delete(world, id, params),
        ("GET", ["v1", "charges"]) => payments::list_charges(world, params),
        ("GET", ["v1", "charges", id]) => payments::retrieve_charge(world, id, params),
        ("GET", ["v1", "disputes", id]) => disputes::retrieve(world, id, params),
        ("GET", ["v1", "events"]) => webhooks::list_events(world, params, now_s),
        ("GET", ["v1", "events", id]) => webhooks::retrieve_event(world, id, params, now_s),
        ("GET", ["v2", "core", "events", id]) => webhooks::retrieve_thin_event(world, id, params, now_s),
        _ => route_shop(world, call, params, now_s),
    }
}

/// The endpoints that sell, that let customers manage what they bought, and that tell others.
fn route_shop(world: &mut World, call: &Call, params: Params, now_s: i64) -> Result<Value, ApiError> {
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("POST", ["v1", "checkout", "sessions"]) => checkout::create(world, params, now_s),
        ("GET", ["v1", "checkout", "sessions"]) => checkout::list(world, params),
        ("GET", ["v1", "checkout", "sessions", id]) => checkout::retrieve(world, id, params),
        ("GET", ["v1", "checkout", "sessions", id, "line_items"]) => checkout::line_items(world, id, params),
        ("POST", ["v1", "checkout", "sessions", id, "expire"]) => checkout::expire(world, id, params, now_s),
        ("POST", ["v1", "billing_portal", "configurations"]) => {
            portal::create_configuration(world, params, now_s)
        }
        ("GET", ["v1", "billing_portal", "configurations"]) => portal::list_configurations(world, params),
        ("GET", ["v1", "billing_portal", "configurations", id]) => {
            portal::retrieve_configuration(world, id, params)
        }
        ("POST", ["v1", "billing_portal", "configurations", id]) => {
            portal::update_configuration(world, id, params, now_s)
        }
        ("POST", ["v1", "billing_portal", "sessions"]) => portal::create_session(world, params, now_s),
        ("POST", ["v1", "webhook_endpoints"]) => endpoints::create(world, params, now_s),
        ("GET", ["v1", "webhook_endpoints"]) => endpoints::list(world, params),
        ("GET", ["v1", "webhook_endpoints", id]) => endpoints::retrieve(world, id, params),
        ("POST", ["v1", "webhook_endpoints", id]) => endpoints::update(world, id, params),
        ("DELETE", ["v1", "webhook_endpoints", id]) => endpoints::delete(world, id, params),
        _ => route_v2(world, call, params, now_s),
    }
}

/// The newer half of the API.
fn route_v2(world: &mut World, call: &Call, params: Params, now_s: i64) -> Result<Value, ApiError> {
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("POST", ["v2", "core", "event_destinations"]) => destinations::create(world, params, now_s),
        ("GET", ["v2", "core", "event_destinations"]) => destinations::list(world, params),
        ("GET", ["v2", "core", "event_destinations", id]) => destinations::retrieve(world, id, params),
        ("POST", ["v2", "core", "event_destinations", id]) => destinations::update(world, id, params, now_s),
        ("DELETE", ["v2", "core", "event_destinations", id]) => destinations::delete(world, id, params),
        ("POST", ["v2", "core", "event_destinations", id, "enable"]) => {
            destinations::enable(world, id, params, true, now_s)
        }
        ("POST", ["v2", "core", "event_destinations", id, "disable"]) => {
            destinations::enable(world, id, params, false, now_s)
        }
        (method, _) if contract::endpoint(method, &call.path).is_some() => {
            Err(ApiError::not_modelled(&format!("{method} {}", call.path)))
        }
        (method, _) => Err(ApiError::unknown_url(method, &call.path)),
    }
}

fn success(body: &Value, id: &str) -> Answer {
    Answer { status: 200, body: body.to_string(), request_id: id.to_owned(), should_retry: None }
}

fn failure(error: &ApiError, id: &str, v2: bool) -> Answer {
    let body = if v2 { error.body_v2() } else { error.body() };
    Answer {
        status: error.status,
        body: body.to_string(),
        request_id: id.to_owned(),
        should_retry: error.should_retry,
    }
}

/// `key`: the idempotency key and the id of the request that brought it now.
fn respond(answer: &Answer, key: Option<(&str, &str)>, replayed: bool) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body.clone()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("stripe-version", HeaderValue::from_static(API_VERSION));
    if answer.status == 401 {
        headers.insert("www-authenticate", HeaderValue::from_static("Basic realm=\"Stripe\""));
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let request_id = key.map_or(answer.request_id.as_str(), |(_, now)| now);
    set("request-id", request_id);
    if let Some(should_retry) = answer.should_retry {
        set("stripe-should-retry", if should_retry { "true" } else { "false" });
    }
    if let Some((key, _)) = key {
        set("idempotency-key", key);
        set("original-request", &answer.request_id);
        if replayed {
            set("idempotent-replayed", "true");
        }
    }
    response
}
