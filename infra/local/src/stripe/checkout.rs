//! Checkout sessions: a subscription that somebody has still to pay for on a page.
//!
//! Owns the parameters of the endpoint, the rules for what can be bought together, and the three ends of a session:
//! completed, expired by the caller, expired by the clock. The subscription itself is made by `subscriptions`, from the
//! same parameters that the API takes: there is no second way to make one.

use serde_json::{Value, json};

use super::calendar::{DAY_S, MINUTE_S};
use super::catalog::{email, merge_metadata};
use super::error::ApiError;
use super::form::{Metadata, Params};
use super::money;
use super::payments::Card;
use super::urls::{self, Scheme};
use super::webhooks::Subject;
use super::world::{Identified, Price, Scheme as Amounts, World};
use super::{billing, catalog, subscriptions, wire};

/// Most lines with a recurring price.
const MAX_LINES: usize = 20;
/// The earliest that a session can expire, in seconds after its creation.
const MIN_LIFE_S: i64 = 30 * MINUTE_S;
/// The latest that a session can expire, and when it does by itself, in seconds after its creation.
const MAX_LIFE_S: i64 = DAY_S;
/// Where the caller wants the session's id in its URL.
const PLACEHOLDER: &str = "{CHECKOUT_SESSION_ID}";

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Open,
    Complete,
    Expired,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Expired => "expired",
        }
    }
}

/// One price to be bought.
#[derive(Clone, Debug)]
pub(super) struct Line {
    id: String,
    pub(super) price: String,
    /// `None` for a metered price.
    pub(super) quantity: Option<u64>,
}

/// A checkout session in mode `subscription`.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: String,
    created_s: i64,
    expires_s: i64,
    pub(super) status: Status,
    customer: Option<String>,
    email: Option<String>,
    client_reference_id: Option<String>,
    pub(super) lines: Vec<Line>,
    pub(super) currency: String,
    metadata: Metadata,
    subscription_metadata: Metadata,
    subscription_description: Option<String>,
    success_url: String,
    pub(super) cancel_url: Option<String>,
    subscription: Option<String>,
    invoice: Option<String>,
}

impl Identified for Session {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Session {
    /// Where the customer goes after payment.
    pub(super) fn landing(&self) -> String {
        self.success_url.replace(PLACEHOLDER, &self.id)
    }
}

/// Why a session could not be completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutError {
    /// There is no such session.
    #[error("there is no such checkout session")]
    Unknown,
    /// It was completed or has expired.
    #[error("the checkout session is {0}")]
    NotOpen(&'static str),
    /// The subscription could not be made or paid; the session stays open.
    #[error("the subscription was refused: {0}")]
    Refused(String),
}

/// `POST /v1/checkout/sessions`
pub(super) fn create(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let modes = [("subscription", true), ("payment", false), ("setup", false)];
    if !params.required_choice("mode", &modes)? {
        return Err(ApiError::not_modelled("mode"));
    }
    let (customer, email) = buyer(world, &mut params)?;
    let success_url = urls::parse(&params.required("success_url")?, "success_url", Scheme::Any)?;
    let cancel_url =
        params.text("cancel_url")?.map(|url| urls::parse(&url, "cancel_url", Scheme::Any)).transpose()?;
    let client_reference_id = params.text("client_reference_id")?;
    let expires_s = expiry(&mut params, now_s)?;
    let mut metadata = Metadata::new();
    merge_metadata(&mut metadata, params.metadata()?);
    let mut subscription_metadata = Metadata::new();
    let mut subscription_description = None;
    if let Some(mut data) = params.hash("subscription_data")? {
        merge_metadata(&mut subscription_metadata, data.metadata()?);
        subscription_description = data.text("description")?;
        data.finish()?;
    }
    let (lines, currency) = lines(world, &mut params)?;
    let expand = params.expand(&["line_items"])?;
    params.finish()?;
    let session = Session {
        id: world.ids.next("cs_test"),
        created_s: now_s,
        expires_s,
        status: Status::Open,
        customer,
        email,
        client_reference_id,
        lines,
        currency,
        metadata,
        subscription_metadata,
        subscription_description,
        success_url,
        cancel_url,
        subscription: None,
        invoice: None,
    };
    let answer = object(world, &session, expand.contains("line_items"));
    world.checkout_sessions.insert(session)?;
    world.next_due_s = None;
    Ok(answer)
}

/// Who buys: a customer, or an address for a new one, or nobody yet.
fn buyer(world: &World, params: &mut Params) -> Result<(Option<String>, Option<String>), ApiError> {
    let customer = params.text("customer")?;
    let email = email(params, "customer_email")?.filter(|email| !email.is_empty());
    if customer.is_some() && email.is_some() {
        let message = "You may only specify one of these parameters: customer, customer_email.";
        return Err(ApiError::exclusive("customer", message));
    }
    if let Some(id) = customer.as_ref().filter(|id| !world.has_customer(id)) {
        return Err(ApiError::no_such_for("customer", "customer", id));
    }
    Ok((customer, email))
}

fn expiry(params: &mut Params, now_s: i64) -> Result<i64, ApiError> {
    let Some(at_s) = params.integer("expires_at")? else { return Ok(now_s + MAX_LIFE_S) };
    let bounds = [
        (at_s < now_s + MIN_LIFE_S, "at least 30 minutes"),
        (at_s > now_s + MAX_LIFE_S, "less than 24 hours"),
    ];
    match bounds.iter().find(|(broken, _)| *broken) {
        None => Ok(at_s),
        Some((_, rule)) => {
            let message =
                format!("The `expires_at` timestamp must be {rule} from Checkout Session creation.");
            Err(ApiError::invalid("expires_at", message))
        }
    }
}

fn lines(world: &mut World, params: &mut Params) -> Result<(Vec<Line>, String), ApiError> {
    let hashes = params.hashes("line_items")?;
    if hashes.is_empty() {
        return Err(ApiError::missing("line_items"));
    }
    if hashes.len() > MAX_LINES {
        let message = format!("You can have up to {MAX_LINES} line items with recurring prices.");
        return Err(ApiError::invalid("line_items", message));
    }
    let mut lines: Vec<Line> = Vec::new();
    let mut terms = None;
    for mut hash in hashes {
        let name = hash.name("price");
        hash.refuse_unmodelled(&[
            "adjustable_quantity",
            "dynamic_tax_rates",
            "metadata",
            "price_data",
            "tax_rates",
        ])?;
        let id = hash.required("price")?;
        let price = world.prices.get(&id).ok_or_else(|| ApiError::no_such_for(&name, "price", &id))?;
        let quantity = quantity(price, &mut hash)?;
        hash.finish()?;
        let Some(recurring) = &price.recurring else {
            return Err(ApiError::not_modelled(&format!("{name} of a one-time price")));
        };
        let term = (price.currency.clone(), recurring.cycle);
        if *terms.get_or_insert_with(|| term.clone()) != term {
            let message =
                "All line items of a subscription must have the same currency and the same billing interval.";
            return Err(ApiError::invalid("line_items", message));
        }
        if lines.iter().any(|line| line.price == id) {
            let message = format!("The price `{id}` is in more than one line item.");
            return Err(ApiError::invalid(&name, message));
        }
        lines.push(Line { id: world.ids.next("li"), price: id, quantity });
    }
    let (currency, _) = terms.ok_or_else(|| ApiError::missing("line_items"))?;
    Ok((lines, currency))
}

/// A licensed price needs a quantity, a metered one must not have any.
fn quantity(price: &Price, hash: &mut Params) -> Result<Option<u64>, ApiError> {
    let name = hash.name("quantity");
    if !price.active {
        let message =
            format!("The price specified is inactive. This field only accepts active prices: {}", price.id);
        return Err(ApiError::invalid(&hash.name("price"), message));
    }
    let quantity = hash.natural("quantity")?;
    if billing::is_legacy(price) {
        return Err(ApiError::legacy_price(&hash.name("price")));
    }
    match (billing::is_metered(price), quantity) {
        (true, None) => Ok(None),
        (true, Some(_)) => {
            let message = "Quantity should not be specified where usage_type is `metered`. Remove `quantity` from `line_items`.";
            Err(ApiError::invalid(&name, message))
        }
        (false, None) => Err(ApiError::missing(&name)),
        (false, Some(0)) => Err(ApiError::invalid(&name, "This value must be greater than or equal to 1.")),
        (false, quantity) => Ok(quantity),
    }
}

/// `GET /v1/checkout/sessions/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let expand = params.expand(&["line_items"])?;
    params.finish()?;
    let session = world.checkout_sessions.get(id).ok_or_else(|| no_such(id))?;
    Ok(object(world, session, expand.contains("line_items")))
}

/// `GET /v1/checkout/sessions/:id/line_items`
pub(super) fn line_items(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let session = world.checkout_sessions.get(id).ok_or_else(|| no_such(id))?;
    let lines = session.lines.iter().collect();
    let (lines, more) = super::world::paginate(lines, &page, |line: &&Line| &line.id, "line item")?;
    let data: Vec<Value> = lines.iter().map(|line| line_object(world, session, line)).collect();
    Ok(wire::list(&format!("/v1/checkout/sessions/{id}/line_items"), &data, more))
}

/// `GET /v1/checkout/sessions`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    let customer = params.text("customer")?;
    let subscription = params.text("subscription")?;
    let statuses = [("open", Status::Open), ("complete", Status::Complete), ("expired", Status::Expired)];
    let status = params.choice("status", &statuses)?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.checkout_sessions.page(&page, |session| {
        status.is_none_or(|status| session.status == status)
            && customer.is_none_or_is(session.customer.as_ref())
            && subscription.is_none_or_is(session.subscription.as_ref())
    })?;
    let data: Vec<Value> = found.into_iter().map(|session| object(world, session, false)).collect();
    Ok(wire::list("/v1/checkout/sessions", &data, more))
}

/// A filter that lets everything pass when it is not given.
trait Filter {
    fn is_none_or_is(&self, value: Option<&String>) -> bool;
}

impl Filter for Option<String> {
    fn is_none_or_is(&self, value: Option<&String>) -> bool {
        self.is_none() || self.as_ref() == value
    }
}

/// `POST /v1/checkout/sessions/:id/expire`
pub(super) fn expire(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    let session = world.checkout_sessions.get(id).ok_or_else(|| no_such(id))?;
    if session.status != Status::Open {
        let message = format!(
            "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of \
             \"{}\".",
            session.status.as_str()
        );
        return Err(ApiError::invalid_request(message));
    }
    end(world, id, now_s);
    retrieve(world, id, Params::default())
}

fn no_such(id: &str) -> ApiError {
    ApiError::no_such("checkout session", id)
}

/// When the next open session expires, and which.
pub(super) fn next_expiry(world: &World) -> Option<(i64, String)> {
    let open = world.checkout_sessions.iter().filter(|session| session.status == Status::Open);
    open.min_by_key(|session| session.expires_s).map(|session| (session.expires_s, session.id.clone()))
}

/// Expires an open session, and tells of it.
pub(super) fn end(world: &mut World, id: &str, at_s: i64) {
    let Some(session) = world.checkout_sessions.get_mut(id) else { return };
    session.status = Status::Expired;
    world.next_due_s = None;
    announce(world, id, "checkout.session.expired", at_s);
}

fn announce(world: &mut World, id: &str, kind: &'static str, at_s: i64) {
    let Some(session) = world.checkout_sessions.get(id) else { return };
    let object = object(world, session, false);
    let subject = Subject { kind, object, previous: None, invoice: None };
    let event = world.ids.next("evt");
    world.outbox.emit(event, subject, at_s);
}

/// Pays: makes the customer if there is none, then the subscription, and tells of all of it.
pub(super) fn complete(world: &mut World, id: &str, now_s: i64) -> Result<(), CheckoutError> {
    let session = world.checkout_sessions.get(id).ok_or(CheckoutError::Unknown)?.clone();
    if session.status != Status::Open {
        return Err(CheckoutError::NotOpen(session.status.as_str()));
    }
    let refused = |error: ApiError| CheckoutError::Refused(error.message().to_owned());
    let customer = if let Some(customer) = session.customer {
        customer
    } else {
        let email = session.email.iter().map(|email| ("email", email.as_str()));
        let made = catalog::create_customer(world, Params::of(email), now_s).map_err(refused)?;
        made.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if let Some(session) = world.checkout_sessions.get_mut(id) {
        // Also when the payment fails: the next try is the same customer's.
        session.customer = Some(customer.clone());
    }
    // Whoever has no card gives one on the page. One that fails leaves the session open, and no subscription behind.
    if let Some(customer) = world.customers.get_mut(&customer).filter(|found| found.card == Card::None) {
        customer.card = Card::Works;
    }
    let mut form = vec![
        ("customer".to_owned(), customer),
        ("payment_behavior".to_owned(), "error_if_incomplete".to_owned()),
    ];
    for (index, line) in session.lines.iter().enumerate() {
        form.push((format!("items[{index}][price]"), line.price.clone()));
        form.extend(line.quantity.map(|count| (format!("items[{index}][quantity]"), count.to_string())));
    }
    let metadata = session.subscription_metadata.iter();
    form.extend(metadata.map(|(key, value)| (format!("metadata[{key}]"), value.clone())));
    form.extend(session.subscription_description.map(|text| ("description".to_owned(), text)));
    let form = form.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let made = subscriptions::create(world, Params::of(form), catalog::Era::Now, now_s).map_err(refused)?;
    let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(session) = world.checkout_sessions.get_mut(id) {
        session.status = Status::Complete;
        session.subscription = text("id");
        session.invoice = text("latest_invoice");
    }
    world.next_due_s = None;
    announce(world, id, "checkout.session.completed", now_s);
    Ok(())
}

/// What a line costs now, in cents: usage costs nothing yet.
pub(super) fn cents(world: &World, line: &Line) -> i64 {
    let price = world.prices.get(&line.price);
    let cents = price.zip(line.quantity).and_then(|(price, quantity)| match &price.scheme {
        Amounts::PerUnit(unit) => unit.charge(quantity, money::Price::default()),
        Amounts::Graduated(tiers) => money::graduated(tiers, quantity)
            .map(|charges| charges.iter().fold(0, |sum: i64, charge| sum.saturating_add(charge.cents))),
    });
    cents.unwrap_or_default()
}

/// What is to be paid now, in cents.
pub(super) fn total(world: &World, session: &Session) -> i64 {
    session.lines.iter().fold(0, |sum, line| i64::saturating_add(sum, cents(world, line)))
}

fn line_object(world: &World, session: &Session, line: &Line) -> Value {
    let price = world.prices.get(&line.price);
    let cents = cents(world, line);
    let name = price.and_then(|price| world.products.get(&price.product)).map(|product| &product.name);
    let mut object = json!({
        "id": line.id,
        "object": "item",
        "adjustable_quantity": null,
        "amount_discount": 0,
        "amount_subtotal": cents,
        "amount_tax": 0,
        "amount_total": cents,
        "currency": session.currency,
        "description": name,
        "metadata": {},
        "price": price.map(|price| wire::price(price, false)),
        "quantity": null,
    });
    if let (Some(quantity), Some(fields)) = (line.quantity, object.as_object_mut()) {
        fields.insert("quantity".to_owned(), json!(quantity));
    }
    object
}

fn object(world: &World, session: &Session, with_lines: bool) -> Value {
    let total = total(world, session);
    let paid = match (session.status, total) {
        (Status::Complete, 0) => "no_payment_required",
        (Status::Complete, _) => "paid",
        _ => "unpaid",
    };
    let open = session.status == Status::Open;
    let customer = session.customer.as_ref().and_then(|id| world.customers.get(id));
    let email = session.email.as_ref().or_else(|| customer.and_then(|customer| customer.email.as_ref()));
    let details = (email.is_some() || !open).then(|| {
        json!({
            "address": null,
            "business_name": null,
            "email": email,
            "individual_name": null,
            "name": customer.and_then(|customer| customer.name.as_ref()),
            "phone": null,
            "tax_exempt": "none",
            "tax_ids": [],
        })
    });
    let mut what = json!({
        "id": session.id,
        "object": "checkout.session",
        "amount_subtotal": total,
        "amount_total": total,
        "cancel_url": session.cancel_url,
        "client_reference_id": session.client_reference_id,
        "created": session.created_s,
        "currency": session.currency,
        "customer": session.customer,
        "customer_creation": if session.customer.is_some() && session.email.is_none() { None } else { Some("always") },
        "customer_details": details,
        "customer_email": session.email,
        "expires_at": session.expires_s,
        "invoice": session.invoice,
        "livemode": false,
        "metadata": session.metadata,
        "mode": "subscription",
        "payment_status": paid,
        "status": session.status.as_str(),
        "subscription": session.subscription,
        "success_url": session.success_url,
        "total_details": { "amount_discount": 0, "amount_shipping": 0, "amount_tax": 0 },
        "url": open.then(|| format!("{}c/pay/{}", world.base_url, session.id)),
    });
    if let (true, Some(fields)) = (with_lines, what.as_object_mut()) {
        let lines: Vec<Value> = session.lines.iter().map(|line| line_object(world, session, line)).collect();
        let url = format!("/v1/checkout/sessions/{}/line_items", session.id);
        fields.insert("line_items".to_owned(), wire::list(&url, &lines, false));
    }
    wire::merged([what, plain()])
}

/// The fields of a session that are always the same here.
fn plain() -> Value {
    json!({
        "adaptive_pricing": { "enabled": false },
        "after_expiration": null,
        "allow_promotion_codes": null,
        "allowed_payment_method_types": null,
        "automatic_tax": { "enabled": false, "liability": null, "provider": null, "status": null },
        "billing_address_collection": null,
        "client_secret": null,
        "collected_information": null,
        "consent": null,
        "consent_collection": null,
        "currency_conversion": null,
        "custom_fields": [],
        "custom_text": {
            "after_submit": null, "shipping_address": null, "submit": null, "terms_of_service_acceptance": null,
        },
        "customer_account": null,
        "discounts": [],
        "integration_identifier": null,
        "invoice_creation": null,
        "locale": null,
        "managed_payments": null,
        "origin_context": null,
        "payment_intent": null,
        "payment_link": null,
        "payment_method_collection": "always",
        "payment_method_configuration_details": null,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "permissions": null,
        "recovered_from": null,
        "saved_payment_method_options": null,
        "setup_intent": null,
        "shipping_address_collection": null,
        "shipping_cost": null,
        "shipping_options": [],
        "submit_type": null,
        "ui_mode": "hosted_page",
        "wallet_options": null,
    })
}
