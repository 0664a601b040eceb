//! The customer portal: its configurations and its sessions.
//!
//! Owns the parameters of their endpoints and what a session allows. The pages are in `pages`; what a customer does there
//! goes through `subscriptions`, as if the API were asked.

use serde_json::{Value, json};

use super::calendar::{HOUR_S, MINUTE_S};
use super::catalog::merge_metadata;
use super::error::ApiError;
use super::form::{Metadata, Params};
use super::payments::Card;
use super::urls::{self, Scheme};
use super::webhooks::Subject;
use super::world::{Identified, World};
use super::{subscription_update, subscriptions, wire};

/// Most products that customers can choose among.
const MAX_PRODUCTS: usize = 10;
/// Most prices of one of them.
const MAX_PRICES: usize = 10;
/// How long a session waits to be opened, in seconds.
const UNOPENED_LIFE_S: i64 = 5 * MINUTE_S;
/// How long an opened session lives after the last visit, in seconds.
const IDLE_LIFE_S: i64 = HOUR_S;

const CUSTOMER_UPDATES: &[&str] = &["address", "email", "name", "phone", "shipping", "tax_id"];
const ALLOWED_UPDATES: &[&str] = &["price", "promotion_code", "quantity"];
const PRORATIONS: [(&str, &str); 3] =
    [("none", "none"), ("create_prorations", "create_prorations"), ("always_invoice", "always_invoice")];

/// What customers can do.
#[derive(Clone, Debug)]
pub(super) struct Features {
    customer_update: (bool, Vec<String>),
    pub(super) invoice_history: bool,
    pub(super) payment_method_update: bool,
    pub(super) cancel: Cancel,
    update: Update,
}

/// Whether and how customers can cancel.
#[derive(Clone, Debug)]
pub(super) struct Cancel {
    pub(super) enabled: bool,
    pub(super) immediately: bool,
    proration: &'static str,
}

#[derive(Clone, Debug)]
struct Update {
    enabled: bool,
    allowed: Vec<String>,
    /// Products, each with the prices to choose from.
    products: Vec<(String, Vec<String>)>,
    proration: &'static str,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            customer_update: (false, Vec::new()),
            invoice_history: false,
            payment_method_update: false,
            cancel: Cancel { enabled: false, immediately: false, proration: "none" },
            update: Update { enabled: false, allowed: Vec::new(), products: Vec::new(), proration: "none" },
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Profile {
    headline: Option<String>,
    privacy_policy_url: Option<String>,
    terms_of_service_url: Option<String>,
}

/// A configuration of the portal.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub(super) id: String,
    created_s: i64,
    updated_s: i64,
    active: bool,
    is_default: bool,
    name: Option<String>,
    profile: Profile,
    default_return_url: Option<String>,
    pub(super) features: Features,
    pub(super) login_page: bool,
    metadata: Metadata,
}

/// A session of the portal.
#[derive(Clone, Debug)]
pub(super) struct PortalSession {
    pub(super) id: String,
    created_s: i64,
    pub(super) customer: String,
    pub(super) configuration: String,
    pub(super) return_url: Option<String>,
    /// When the page was last looked at.
    visited_s: Option<i64>,
}

impl Identified for Configuration {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Identified for PortalSession {
    fn id(&self) -> &str {
        &self.id
    }
}

/// `POST /v1/billing_portal/configurations`
pub(super) fn create_configuration(
    world: &mut World,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let mut configuration = Configuration {
        id: world.ids.next("bpc"),
        created_s: now_s,
        updated_s: now_s,
        active: true,
        is_default: false,
        name: None,
        profile: Profile::default(),
        default_return_url: None,
        features: Features::default(),
        login_page: false,
        metadata: Metadata::new(),
    };
    change(world, &mut configuration, &mut params)?;
    params.expand(&[])?;
    params.finish()?;
    let id = configuration.id.clone();
    world.portal_configurations.insert(configuration)?;
    announce(world, &id, "billing_portal.configuration.created", now_s);
    answer(world, &id)
}

/// The configuration that an account has once its owner has saved the portal's settings in the dashboard: cancellation at
/// the period's end, invoices and payment methods. Its id.
pub(super) fn save_default(world: &mut World, now_s: i64) -> Result<String, ApiError> {
    if let Some(default) = world.portal_configurations.iter().find(|found| found.is_default) {
        return Ok(default.id.clone());
    }
    let form = [
        ("features[invoice_history][enabled]", "true"),
        ("features[payment_method_update][enabled]", "true"),
        ("features[subscription_cancel][enabled]", "true"),
    ];
    let made = create_configuration(world, Params::of(form), now_s)?;
    let id = made.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(configuration) = world.portal_configurations.get_mut(&id) {
        configuration.is_default = true;
    }
    Ok(id)
}

/// `POST /v1/billing_portal/configurations/:id`
pub(super) fn update_configuration(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let mut configuration = world.portal_configurations.get(id).ok_or_else(|| no_such(id))?.clone();
    let active = params.boolean("active")?.unwrap_or(configuration.active);
    if configuration.is_default && !active {
        return Err(ApiError::invalid("active", "The default configuration cannot be deactivated."));
    }
    configuration.active = active;
    configuration.updated_s = now_s;
    change(world, &mut configuration, &mut params)?;
    params.expand(&[])?;
    params.finish()?;
    if let Some(stored) = world.portal_configurations.get_mut(id) {
        *stored = configuration;
    }
    announce(world, id, "billing_portal.configuration.updated", now_s);
    answer(world, id)
}

/// `GET /v1/billing_portal/configurations/:id`
pub(super) fn retrieve_configuration(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    answer(world, id)
}

/// `GET /v1/billing_portal/configurations`
pub(super) fn list_configurations(world: &World, mut params: Params) -> Result<Value, ApiError> {
    let active = params.boolean("active")?;
    let is_default = params.boolean("is_default")?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.portal_configurations.page(&page, |found| {
        active.is_none_or(|active| found.active == active)
            && is_default.is_none_or(|is_default| found.is_default == is_default)
    })?;
    let data: Vec<Value> = found.into_iter().map(|found| object(world, found)).collect();
    Ok(wire::list("/v1/billing_portal/configurations", &data, more))
}

fn no_such(id: &str) -> ApiError {
    ApiError::no_such("billing portal configuration", id)
}

fn answer(world: &World, id: &str) -> Result<Value, ApiError> {
    let configuration = world.portal_configurations.get(id).ok_or_else(|| no_such(id))?;
    Ok(object(world, configuration))
}

fn announce(world: &mut World, id: &str, kind: &'static str, at_s: i64) {
    let Some(configuration) = world.portal_configurations.get(id) else { return };
    let subject = Subject { kind, object: object(world, configuration), previous: None, invoice: None };
    let event = world.ids.next("evt");
    world.outbox.emit(event, subject, at_s);
}

/// Reads what creation and update have in common; what is not given stays.
fn change(world: &World, configuration: &mut Configuration, params: &mut Params) -> Result<(), ApiError> {
    set(&mut configuration.name, params.text_or_unset("name")?);
    if let Some(url) = params.text_or_unset("default_return_url")? {
        let url = (!url.is_empty()).then_some(url);
        configuration.default_return_url =
            url.map(|url| urls::parse(&url, "default_return_url", Scheme::Any)).transpose()?;
    }
    if let Some(mut profile) = params.hash("business_profile")? {
        set(&mut configuration.profile.headline, profile.text_or_unset("headline")?);
        for (name, field) in [
            ("privacy_policy_url", &mut configuration.profile.privacy_policy_url),
            ("terms_of_service_url", &mut configuration.profile.terms_of_service_url),
        ] {
            let full = profile.name(name);
            if let Some(url) = profile.text(name)? {
                *field = Some(urls::parse(&url, &full, Scheme::Any)?);
            }
        }
        profile.finish()?;
    }
    if let Some(mut page) = params.hash("login_page")? {
        configuration.login_page = page.boolean("enabled")?.unwrap_or(configuration.login_page);
        page.finish()?;
    }
    if let Some(features) = params.hash("features")? {
        change_features(world, &mut configuration.features, features)?;
    }
    merge_metadata(&mut configuration.metadata, params.metadata()?);
    Ok(())
}

fn set(field: &mut Option<String>, text: Option<String>) {
    if let Some(text) = text {
        *field = (!text.is_empty()).then_some(text);
    }
}

fn change_features(world: &World, features: &mut Features, mut params: Params) -> Result<(), ApiError> {
    if let Some(mut hash) = params.hash("customer_update")? {
        let (enabled, allowed) = &mut features.customer_update;
        *enabled = hash.boolean("enabled")?.unwrap_or(*enabled);
        *allowed = words(&mut hash, "allowed_updates", CUSTOMER_UPDATES)?.unwrap_or_else(|| allowed.clone());
        hash.finish()?;
    }
    for (name, field) in [
        ("invoice_history", &mut features.invoice_history),
        ("payment_method_update", &mut features.payment_method_update),
    ] {
        if let Some(mut hash) = params.hash(name)? {
            *field = hash.boolean("enabled")?.unwrap_or(*field);
            hash.finish()?;
        }
    }
    if let Some(mut hash) = params.hash("subscription_cancel")? {
        let cancel = &mut features.cancel;
        cancel.enabled = hash.boolean("enabled")?.unwrap_or(cancel.enabled);
        let modes = [("at_period_end", false), ("immediately", true)];
        cancel.immediately = hash.choice("mode", &modes)?.unwrap_or(cancel.immediately);
        cancel.proration = hash.choice("proration_behavior", &PRORATIONS)?.unwrap_or(cancel.proration);
        hash.finish()?;
    }
    if let Some(hash) = params.hash("subscription_update")? {
        change_update(world, &mut features.update, hash)?;
    }
    params.finish()
}

fn change_update(world: &World, update: &mut Update, mut hash: Params) -> Result<(), ApiError> {
    let whole = hash.name("products");
    let allowed_name = hash.name("default_allowed_updates");
    update.enabled = hash.boolean("enabled")?.unwrap_or(update.enabled);
    if let Some(allowed) = words(&mut hash, "default_allowed_updates", ALLOWED_UPDATES)? {
        update.allowed = allowed;
    }
    update.proration = hash.choice("proration_behavior", &PRORATIONS)?.unwrap_or(update.proration);
    if hash.has("products") {
        update.products = products(world, &mut hash)?;
    }
    hash.finish()?;
    if update.enabled && update.products.is_empty() {
        return Err(ApiError::missing(&whole));
    }
    if update.enabled && update.allowed.is_empty() {
        return Err(ApiError::missing(&allowed_name));
    }
    Ok(())
}

fn products(world: &World, hash: &mut Params) -> Result<Vec<(String, Vec<String>)>, ApiError> {
    let whole = hash.name("products");
    let mut products: Vec<(String, Vec<String>)> = Vec::new();
    for mut entry in hash.hashes("products")? {
        entry.refuse_unmodelled(&["adjustable_quantity"])?;
        let (product_name, prices_name) = (entry.name("product"), entry.name("prices"));
        let product = entry.required("product")?;
        let prices = entry.texts("prices")?;
        entry.finish()?;
        if world.products.get(&product).is_none() {
            return Err(ApiError::no_such_for(&product_name, "product", &product));
        }
        if products.iter().any(|(known, _)| *known == product) {
            return Err(ApiError::invalid(&product_name, format!("The product {product} is listed twice.")));
        }
        if prices.is_empty() || prices.len() > MAX_PRICES {
            let message = format!("A product must have between 1 and {MAX_PRICES} prices.");
            return Err(ApiError::invalid(&prices_name, message));
        }
        for id in &prices {
            let price =
                world.prices.get(id).ok_or_else(|| ApiError::no_such_for(&prices_name, "price", id))?;
            if price.product != product || !price.active || price.recurring.is_none() {
                let message = format!("{id} must be an active recurring price of the product {product}.");
                return Err(ApiError::invalid(&prices_name, message));
            }
        }
        products.push((product, prices));
    }
    if products.len() > MAX_PRODUCTS {
        return Err(ApiError::invalid(&whole, format!("There can be up to {MAX_PRODUCTS} products.")));
    }
    Ok(products)
}

/// A list of words out of a few; `None` if it was not given.
fn words(params: &mut Params, name: &str, known: &[&str]) -> Result<Option<Vec<String>>, ApiError> {
    if !params.has(name) {
        return Ok(None);
    }
    let full = params.name(name);
    let words = params.texts_or_unset(name)?;
    if let Some(word) = words.iter().find(|word| !known.contains(&word.as_str())) {
        let message = format!("Invalid {full}: `{word}` must be one of {}", known.join(", "));
        return Err(ApiError::invalid(&full, message));
    }
    Ok(Some(words))
}

fn object(world: &World, configuration: &Configuration) -> Value {
    let features = &configuration.features;
    let products: Vec<Value> = features
        .update
        .products
        .iter()
        .map(|(product, prices)| {
            json!({
                "adjustable_quantity": { "enabled": false, "maximum": null, "minimum": 1 },
                "prices": prices,
                "product": product,
            })
        })
        .collect();
    let login = format!("{}p/login/{}", world.base_url, configuration.id);
    json!({
        "id": configuration.id,
        "object": "billing_portal.configuration",
        "active": configuration.active,
        "application": null,
        "business_profile": {
            "headline": configuration.profile.headline,
            "privacy_policy_url": configuration.profile.privacy_policy_url,
            "terms_of_service_url": configuration.profile.terms_of_service_url,
        },
        "created": configuration.created_s,
        "default_return_url": configuration.default_return_url,
        "features": {
            "customer_update": {
                "allowed_updates": features.customer_update.1, "enabled": features.customer_update.0,
            },
            "invoice_history": { "enabled": features.invoice_history },
            "payment_method_update": {
                "enabled": features.payment_method_update, "payment_method_configuration": null,
            },
            "subscription_cancel": {
                "cancellation_reason": { "enabled": false, "feedback_options": null, "options": [] },
                "enabled": features.cancel.enabled,
                "mode": if features.cancel.immediately { "immediately" } else { "at_period_end" },
                "proration_behavior": features.cancel.proration,
            },
            "subscription_update": {
                "billing_cycle_anchor": null,
                "default_allowed_updates": features.update.allowed,
                "enabled": features.update.enabled,
                "products": products,
                "proration_behavior": features.update.proration,
                "schedule_at_period_end": { "conditions": [] },
                "trial_update_behavior": "end_trial",
            },
        },
        "is_default": configuration.is_default,
        "livemode": false,
        "login_page": {
            "enabled": configuration.login_page, "url": configuration.login_page.then_some(login),
        },
        "metadata": configuration.metadata,
        "name": configuration.name,
        "updated": configuration.updated_s,
    })
}

/// `POST /v1/billing_portal/sessions`
pub(super) fn create_session(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let customer = params.required("customer")?;
    let wanted = params.text("configuration")?;
    let return_url =
        params.text("return_url")?.map(|url| urls::parse(&url, "return_url", Scheme::Any)).transpose()?;
    let expand = params.expand(&["configuration"])?;
    params.finish()?;
    if !world.has_customer(&customer) {
        return Err(ApiError::no_such_for("customer", "customer", &customer));
    }
    let id = open(world, customer, wanted.as_deref(), return_url, now_s)?;
    let session = world.portal_sessions.get(&id).ok_or_else(|| ApiError::server(500))?;
    let configuration = world.portal_configurations.get(&session.configuration);
    let expanded = configuration.filter(|_| expand.contains("configuration"));
    Ok(json!({
        "id": session.id,
        "object": "billing_portal.session",
        "configuration":
            expanded.map_or_else(|| json!(session.configuration), |found| object(world, found)),
        "created": session.created_s,
        "customer": session.customer,
        "customer_account": null,
        "flow": null,
        "livemode": false,
        "locale": null,
        "on_behalf_of": null,
        "return_url": session.return_url,
        "url": format!("{}p/session/{}", world.base_url, session.id),
    }))
}

/// Makes a session; its id.
pub(super) fn open(
    world: &mut World,
    customer: String,
    wanted: Option<&str>,
    return_url: Option<String>,
    now_s: i64,
) -> Result<String, ApiError> {
    let configuration = match wanted {
        Some(id) => world.portal_configurations.get(id).ok_or_else(|| {
            ApiError::no_such_for("configuration", "billing portal configuration", id)
        })?,
        None => world.portal_configurations.iter().find(|found| found.is_default).ok_or_else(|| {
            ApiError::invalid_request(
                "No configuration provided and your test mode default configuration has not been created. Provide a \
                 configuration or create your default by saving your customer portal settings in test mode at \
                 https://dashboard.stripe.com/test/settings/billing/portal.",
            )
        })?,
    };
    if !configuration.active {
        let message = format!("The configuration {} is not active.", configuration.id);
        return Err(ApiError::invalid("configuration", message));
    }
    let session = PortalSession {
        created_s: now_s,
        customer,
        configuration: configuration.id.clone(),
        return_url: return_url.or_else(|| configuration.default_return_url.clone()),
        visited_s: None,
        id: world.ids.next("bps"),
    };
    let id = session.id.clone();
    world.portal_sessions.insert(session)?;
    Ok(id)
}

/// The session and its configuration, if it is still alive; looking at it keeps it alive.
pub(super) fn visit(world: &mut World, id: &str, now_s: i64) -> Option<(PortalSession, Configuration)> {
    let session = world.portal_sessions.get_mut(id)?;
    let dies_s = session.visited_s.map_or(session.created_s + UNOPENED_LIFE_S, |at_s| at_s + IDLE_LIFE_S);
    if now_s >= dies_s {
        return None;
    }
    session.visited_s = Some(now_s);
    let session = session.clone();
    let configuration = world.portal_configurations.get(&session.configuration)?.clone();
    Some((session, configuration))
}

/// Changes the customer's card, if the configuration allows it.
pub(super) fn change_card(
    world: &mut World,
    session: &PortalSession,
    features: &Features,
    card: Card,
) -> Result<(), ApiError> {
    let customer = world.customers.get_mut(&session.customer).filter(|_| features.payment_method_update);
    let customer = customer.ok_or_else(|| ApiError::no_such("customer", &session.customer))?;
    customer.card = card;
    Ok(())
}

/// What a customer can do with a subscription on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Cancel,
    Resume,
}

/// Does what a customer wants, if the configuration allows it and the subscription is hers.
pub(super) fn act(
    world: &mut World,
    session: &PortalSession,
    features: &Features,
    subscription: &str,
    wish: Wish,
    now_s: i64,
) -> Result<(), ApiError> {
    let own = world
        .subscriptions
        .get(subscription)
        .is_some_and(|found| found.customer == session.customer && found.schedule.is_none());
    if !own || !features.cancel.enabled {
        return Err(ApiError::no_such("subscription", subscription));
    }
    match wish {
        Wish::Cancel if features.cancel.immediately => {
            subscriptions::cancel(world, subscription, Params::default(), now_s)?;
        }
        Wish::Cancel | Wish::Resume => {
            let ending = if wish == Wish::Cancel { "true" } else { "false" };
            let form = Params::of([("cancel_at_period_end", ending)]);
            subscription_update::update(world, subscription, form, now_s)?;
        }
    }
    Ok(())
}
