//! Customers, products, meters and prices.
//!
//! Owns the parameters of their endpoints and the rules among them. A price can be made only as the real API makes it
//! since 2025-03-31.basil: a metered one is backed by a meter.

use serde_json::Value;

use super::calendar::{Cycle, Interval};
use super::error::ApiError;
use super::form::{Metadata, Params};
use super::money::{MAX_METERED_UNIT_CENTS, Price as Amount, Tier};
use super::payments::Card;
use super::world::{Customer, Meter, Price, Product, Recurring, Scheme, Usage, World};
use super::{customers, wire};

/// Which time's rules a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Those of API version 2026-09-30.endive.
    Now,
    /// Those from before there were meters: what is made is what an old account still has.
    BeforeMeters,
}

/// Most tiers of a price.
const MAX_TIERS: usize = 100;
/// Most lookup keys of one query.
const MAX_LOOKUP_KEYS: usize = 10;
/// Longest lookup key and event name, in characters.
const MAX_KEY_CHARS: usize = 200;
/// Longest e-mail address, in characters.
const MAX_EMAIL_CHARS: usize = 512;
/// Longest period of a price: three years, as in the real API.
const MAX_YEARS: u32 = 3;

const CUSTOMER_NOT_MODELLED: &[&str] = &[
    "address",
    "balance",
    "business_name",
    "cash_balance",
    "default_source",
    "individual_name",
    "invoice_prefix",
    "invoice_settings",
    "next_invoice_sequence",
    "payment_method",
    "phone",
    "preferred_locales",
    "shipping",
    "source",
    "tax",
    "tax_exempt",
    "tax_id_data",
    "test_clock",
    "validate",
];
const PRODUCT_NOT_MODELLED: &[&str] = &[
    "default_price",
    "default_price_data",
    "images",
    "marketing_features",
    "package_dimensions",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "tax_details",
    "url",
];
const PRICE_NOT_MODELLED: &[&str] =
    &["currency_options", "custom_unit_amount", "product_data", "tax_behavior"];

/// An empty text unsets a field.
fn unset_if_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Applies the changes of an object's metadata: an empty value removes its key.
pub(super) fn merge_metadata(metadata: &mut Metadata, changes: Metadata) {
    for (key, value) in changes {
        if value.is_empty() {
            metadata.remove(&key);
        } else {
            metadata.insert(key, value);
        }
    }
}

fn new_metadata(changes: Metadata) -> Metadata {
    let mut metadata = Metadata::new();
    merge_metadata(&mut metadata, changes);
    metadata
}

/// An e-mail address, or an empty text.
pub(super) fn email(params: &mut Params, name: &str) -> Result<Option<String>, ApiError> {
    let email = params.text_or_unset(name)?;
    let bad = |email: &String| {
        let halves = email.split_once('@');
        let plausible =
            halves.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
        !email.is_empty() && (!plausible || email.chars().count() > MAX_EMAIL_CHARS)
    };
    match email {
        Some(email) if bad(&email) => Err(ApiError::invalid(name, format!("Invalid email address: {email}"))),
        email => Ok(email),
    }
}

/// `POST /v1/customers`
pub(super) fn create_customer(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(CUSTOMER_NOT_MODELLED)?;
    let email = unset_if_empty(email(&mut params, "email")?);
    let name = unset_if_empty(params.text_or_unset("name")?);
    let description = unset_if_empty(params.text_or_unset("description")?);
    let metadata = new_metadata(params.metadata()?);
    params.expand(&[])?;
    params.finish()?;
    let id = world.ids.next("cus");
    let customer = Customer {
        id,
        created_s: now_s,
        email,
        name,
        description,
        metadata,
        card: Card::default(),
        balance_cents: 0,
    };
    let answer = wire::customer(&customer);
    world.customers.insert(customer)?;
    Ok(answer)
}

/// `POST /v1/customers/:id`
pub(super) fn update_customer(world: &mut World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let customer = world.customers.get_mut(id).ok_or_else(|| ApiError::no_such("customer", id))?;
    params.refuse_unmodelled(CUSTOMER_NOT_MODELLED)?;
    let email = email(&mut params, "email")?;
    let name = params.text_or_unset("name")?;
    let description = params.text_or_unset("description")?;
    let metadata = params.metadata()?;
    params.expand(&[])?;
    params.finish()?;
    for (field, text) in
        [(&mut customer.email, email), (&mut customer.name, name), (&mut customer.description, description)]
    {
        if text.is_some() {
            *field = unset_if_empty(text);
        }
    }
    merge_metadata(&mut customer.metadata, metadata);
    Ok(wire::customer(customer))
}

/// `GET /v1/customers/:id`
pub(super) fn retrieve_customer(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    let gone = world.deleted_customers.contains(id).then(|| customers::tombstone(id));
    let found = world.customers.get(id).map(wire::customer).or(gone);
    found.ok_or_else(|| ApiError::no_such("customer", id))
}

/// `GET /v1/customers`
pub(super) fn list_customers(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["created", "test_clock"])?;
    let email = params.text("email")?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world
        .customers
        .page(&page, |customer| email.is_none() || customer.email.as_deref() == email.as_deref())?;
    let data: Vec<Value> = found.into_iter().map(wire::customer).collect();
    Ok(wire::list("/v1/customers", &data, more))
}

/// `POST /v1/products`
pub(super) fn create_product(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(PRODUCT_NOT_MODELLED)?;
    let name = params.required("name")?;
    let wanted_id = params.text("id")?;
    let active = params.boolean("active")?.unwrap_or(true);
    let description = unset_if_empty(params.text_or_unset("description")?);
    let unit_label = unset_if_empty(params.text_or_unset("unit_label")?);
    params.choice("type", &[("service", ())])?;
    let metadata = new_metadata(params.metadata()?);
    params.expand(&[])?;
    params.finish()?;
    if wanted_id.as_ref().is_some_and(|id| world.products.get(id).is_some()) {
        return Err(ApiError::already_exists("id", "Product already exists."));
    }
    let id = wanted_id.unwrap_or_else(|| world.ids.next("prod"));
    let product =
        Product { id, created_s: now_s, updated_s: now_s, active, name, description, unit_label, metadata };
    let answer = wire::product(&product);
    world.products.insert(product)?;
    Ok(answer)
}

/// `POST /v1/products/:id`
pub(super) fn update_product(
    world: &mut World,
    id: &str,
    mut params: Params,
    now_s: i64,
) -> Result<Value, ApiError> {
    let product = world.products.get_mut(id).ok_or_else(|| ApiError::no_such("product", id))?;
    params.refuse_unmodelled(PRODUCT_NOT_MODELLED)?;
    let name = params.text("name")?;
    let active = params.boolean("active")?;
    let description = params.text_or_unset("description")?;
    let unit_label = params.text_or_unset("unit_label")?;
    let metadata = params.metadata()?;
    params.expand(&[])?;
    params.finish()?;
    product.updated_s = now_s;
    product.active = active.unwrap_or(product.active);
    if let Some(name) = name {
        product.name = name;
    }
    for (field, text) in [(&mut product.description, description), (&mut product.unit_label, unit_label)] {
        if text.is_some() {
            *field = unset_if_empty(text);
        }
    }
    merge_metadata(&mut product.metadata, metadata);
    Ok(wire::product(product))
}

/// `GET /v1/products/:id`
pub(super) fn retrieve_product(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    world.products.get(id).map(wire::product).ok_or_else(|| ApiError::no_such("product", id))
}

/// `GET /v1/products`
pub(super) fn list_products(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["created", "shippable", "type", "url"])?;
    let active = params.boolean("active")?;
    let ids = params.texts("ids")?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.products.page(&page, |product| {
        active.is_none_or(|active| product.active == active) && (ids.is_empty() || ids.contains(&product.id))
    })?;
    let data: Vec<Value> = found.into_iter().map(wire::product).collect();
    Ok(wire::list("/v1/products", &data, more))
}

/// `POST /v1/billing/meters`
pub(super) fn create_meter(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["event_time_window"])?;
    let display_name = params.required("display_name")?;
    let event_name = params.required("event_name")?;
    if event_name.chars().count() > MAX_KEY_CHARS {
        return Err(ApiError::invalid(
            "event_name",
            format!("event_name can have up to {MAX_KEY_CHARS} characters."),
        ));
    }
    let mut aggregation = params.required_hash("default_aggregation")?;
    let formula = [("sum", true), ("count", false), ("last", false)];
    if !aggregation.required_choice("formula", &formula)? {
        return Err(ApiError::not_modelled("default_aggregation[formula]"));
    }
    aggregation.finish()?;
    let mut customer_key = "stripe_customer_id".to_owned();
    if let Some(mut mapping) = params.hash("customer_mapping")? {
        mapping.required_choice("type", &[("by_id", ())])?;
        customer_key = mapping.required("event_payload_key")?;
        mapping.finish()?;
    }
    let mut value_key = "value".to_owned();
    if let Some(mut settings) = params.hash("value_settings")? {
        value_key = settings.required("event_payload_key")?;
        settings.finish()?;
    }
    params.expand(&[])?;
    params.finish()?;
    if world.meters.iter().any(|meter| meter.event_name == event_name && meter.inactive_s.is_none()) {
        let message = format!("An active meter already exists with event name {event_name}.");
        return Err(ApiError::already_exists("event_name", message));
    }
    let id = world.ids.next("mtr");
    let meter =
        Meter { id, created_s: now_s, display_name, event_name, customer_key, value_key, inactive_s: None };
    let answer = wire::meter(&meter);
    world.meters.insert(meter)?;
    Ok(answer)
}

/// `GET /v1/billing/meters/:id`
pub(super) fn retrieve_meter(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    world.meters.get(id).map(wire::meter).ok_or_else(|| ApiError::no_such("billing meter", id))
}

/// `GET /v1/billing/meters`
pub(super) fn list_meters(world: &World, mut params: Params) -> Result<Value, ApiError> {
    let active = params.choice("status", &[("active", true), ("inactive", false)])?.unwrap_or(true);
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.meters.page(&page, |meter| meter.inactive_s.is_none() == active)?;
    let data: Vec<Value> = found.into_iter().map(wire::meter).collect();
    Ok(wire::list("/v1/billing/meters", &data, more))
}

/// Only one of the two forms of an amount may be given.
fn amount(params: &mut Params, whole: &str) -> Result<Option<Amount>, ApiError> {
    let decimal = format!("{whole}_decimal");
    let (whole_name, decimal_name) = (params.name(whole), params.name(&decimal));
    let cents = params.natural(whole)?;
    let text = params.text(&decimal)?;
    match (cents, text) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            let message =
                format!("You may only specify one of these parameters: {whole_name}, {decimal_name}.");
            Err(ApiError::exclusive(&whole_name, message))
        }
        (Some(cents), None) => {
            let amount = Amount::parse(&cents.to_string());
            amount.map(Some).ok_or_else(|| ApiError::invalid(&whole_name, format!("Invalid amount: {cents}")))
        }
        (None, Some(text)) => {
            let amount = Amount::parse(&text);
            amount
                .map(Some)
                .ok_or_else(|| ApiError::invalid(&decimal_name, format!("Invalid decimal: {text}")))
        }
    }
}

fn tiers(params: &mut Params) -> Result<Vec<Tier>, ApiError> {
    let mut tiers = Vec::new();
    let mut above = 0;
    let hashes = params.hashes("tiers")?;
    if hashes.len() > MAX_TIERS {
        return Err(ApiError::invalid("tiers", format!("A price can have up to {MAX_TIERS} tiers.")));
    }
    let last = hashes.len().saturating_sub(1);
    for (index, mut hash) in hashes.into_iter().enumerate() {
        let name = hash.name("up_to");
        let up_to = match hash.required("up_to")?.as_str() {
            "inf" => None,
            text => Some(text.parse().map_err(|_| ApiError::not_an_integer(&name, text))?),
        };
        if up_to.is_none() != (index == last) {
            return Err(ApiError::invalid(
                &name,
                "The last tier, and only the last tier, must have `up_to` of `inf`.",
            ));
        }
        if up_to.is_some_and(|up_to| up_to <= above) {
            return Err(ApiError::invalid(&name, "Tiers must be in ascending order of `up_to`."));
        }
        above = up_to.unwrap_or(above);
        let unit = amount(&mut hash, "unit_amount")?;
        let flat = amount(&mut hash, "flat_amount")?;
        if unit.is_none() && flat.is_none() {
            let message = "Each tier must have at least one of `unit_amount` and `flat_amount`.";
            return Err(ApiError::invalid(&format!("tiers[{index}]"), message));
        }
        hash.finish()?;
        tiers.push(Tier { up_to, unit, flat });
    }
    Ok(tiers)
}

fn scheme(params: &mut Params) -> Result<Scheme, ApiError> {
    let tiered = params.choice("billing_scheme", &[("per_unit", false), ("tiered", true)])?.unwrap_or(false);
    let unit = amount(params, "unit_amount")?;
    let tiers = tiers(params)?;
    let mode = params.choice("tiers_mode", &[("graduated", true), ("volume", false)])?;
    let transform = params.hash("transform_quantity")?;
    if !tiered {
        if !tiers.is_empty() || mode.is_some() {
            let message = "`tiers` and `tiers_mode` need `billing_scheme` of `tiered`.";
            return Err(ApiError::invalid("tiers", message));
        }
        if transform.is_some() {
            return Err(ApiError::not_modelled("transform_quantity"));
        }
        return unit.map(Scheme::PerUnit).ok_or_else(|| ApiError::missing("unit_amount"));
    }
    if unit.is_some() {
        return Err(ApiError::exclusive(
            "unit_amount",
            "`unit_amount` cannot be set with `billing_scheme` of `tiered`.",
        ));
    }
    if transform.is_some() {
        let message = "`transform_quantity` cannot be combined with `tiers`.";
        return Err(ApiError::exclusive("transform_quantity", message));
    }
    if tiers.is_empty() {
        return Err(ApiError::missing("tiers"));
    }
    match mode {
        None => Err(ApiError::missing("tiers_mode")),
        Some(false) => Err(ApiError::not_modelled("tiers_mode")),
        Some(true) => Ok(Scheme::Graduated(tiers)),
    }
}

fn recurring(world: &World, params: &mut Params, era: Era) -> Result<Option<Recurring>, ApiError> {
    let Some(mut hash) = params.hash("recurring")? else { return Ok(None) };
    hash.refuse_unmodelled(&["trial_period_days"])?;
    let intervals = [
        ("day", Interval::Day),
        ("week", Interval::Week),
        ("month", Interval::Month),
        ("year", Interval::Year),
    ];
    let interval = hash.required_choice("interval", &intervals)?;
    let most = match interval {
        Interval::Day => MAX_YEARS * 365,
        Interval::Week => MAX_YEARS * 52,
        Interval::Month => MAX_YEARS * 12,
        Interval::Year => MAX_YEARS,
    };
    let count = hash.natural("interval_count")?.unwrap_or(1);
    let count = u32::try_from(count).ok().filter(|count| (1..=most).contains(count)).ok_or_else(|| {
        ApiError::invalid("recurring[interval_count]", format!("This value must be between 1 and {most}."))
    })?;
    let metered = hash.choice("usage_type", &[("licensed", false), ("metered", true)])?.unwrap_or(false);
    let meter = hash.text("meter")?;
    hash.finish()?;
    let usage = match (metered, meter) {
        (false, None) => Usage::Licensed,
        (false, Some(_)) => {
            let message = "`recurring[meter]` can only be set with `recurring[usage_type]` of `metered`.";
            return Err(ApiError::invalid("recurring[meter]", message));
        }
        (true, None) if era == Era::BeforeMeters => Usage::Records,
        (true, None) => {
            let message =
                "Starting with Stripe version `2025-03-31.basil`, metered prices must be backed by meters.";
            return Err(ApiError::invalid("recurring[meter]", message));
        }
        (true, Some(meter)) if world.meters.get(&meter).is_none() => {
            return Err(ApiError::no_such_for("recurring[meter]", "billing meter", &meter));
        }
        (true, Some(meter)) => Usage::Metered { meter },
    };
    Ok(Some(Recurring { cycle: Cycle { interval, count }, usage }))
}

/// Keeps every line of a meter's invoice within 64 bits.
fn ensure_countable(scheme: &Scheme) -> Result<(), ApiError> {
    let fits = match scheme {
        Scheme::PerUnit(unit) => unit.fits_a_meter(),
        Scheme::Graduated(tiers) => tiers.iter().all(|tier| tier.unit.is_none_or(Amount::fits_a_meter)),
    };
    let message =
        format!("The local Stripe counts metered units of at most {MAX_METERED_UNIT_CENTS} cents each.");
    if fits { Ok(()) } else { Err(ApiError::invalid("unit_amount", message)) }
}

/// Takes a lookup key for a new holder: refused, or taken from the price that has it.
fn claim_lookup_key(
    world: &mut World,
    key: &str,
    holder: Option<&str>,
    transfer: bool,
) -> Result<(), ApiError> {
    if key.chars().count() > MAX_KEY_CHARS {
        return Err(ApiError::invalid(
            "lookup_key",
            format!("lookup_key can have up to {MAX_KEY_CHARS} characters."),
        ));
    }
    let taken = world.prices.iter().find(|price| price.lookup_key.as_deref() == Some(key));
    let Some(taken) = taken.map(|price| price.id.clone()).filter(|id| Some(id.as_str()) != holder) else {
        return Ok(());
    };
    if !transfer {
        let message = format!("A price (`{taken}`) already uses that lookup key.");
        return Err(ApiError::invalid("lookup_key", message));
    }
    if let Some(price) = world.prices.get_mut(&taken) {
        price.lookup_key = None;
    }
    Ok(())
}

fn currency(params: &mut Params) -> Result<String, ApiError> {
    let currency = params.required("currency")?;
    if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        Ok(currency)
    } else {
        Err(ApiError::invalid("currency", format!("Invalid currency: {currency}")))
    }
}

/// `POST /v1/prices`
pub(super) fn create_price(
    world: &mut World,
    mut params: Params,
    era: Era,
    now_s: i64,
) -> Result<Value, ApiError> {
    params.refuse_unmodelled(PRICE_NOT_MODELLED)?;
    let currency = currency(&mut params)?;
    let product = params.required("product")?;
    let active = params.boolean("active")?.unwrap_or(true);
    let nickname = unset_if_empty(params.text_or_unset("nickname")?);
    let lookup_key = params.text("lookup_key")?;
    let transfer = params.boolean("transfer_lookup_key")?.unwrap_or(false);
    let metadata = new_metadata(params.metadata()?);
    let scheme = scheme(&mut params)?;
    let recurring = recurring(world, &mut params, era)?;
    let expand = params.expand(&["tiers"])?;
    params.finish()?;
    if world.products.get(&product).is_none() {
        return Err(ApiError::no_such_for("product", "product", &product));
    }
    if recurring.as_ref().is_some_and(|recurring| recurring.usage != Usage::Licensed) {
        ensure_countable(&scheme)?;
    }
    world.prices.ensure_room(1)?;
    if let Some(key) = &lookup_key {
        claim_lookup_key(world, key, None, transfer)?;
    }
    let id = world.ids.next("price");
    let price = Price {
        id,
        created_s: now_s,
        active,
        currency,
        product,
        lookup_key,
        nickname,
        metadata,
        recurring,
        scheme,
    };
    let answer = wire::price(&price, expand.contains("tiers"));
    world.prices.insert(price)?;
    Ok(answer)
}

/// `POST /v1/prices/:id`
pub(super) fn update_price(world: &mut World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    if world.prices.get(id).is_none() {
        return Err(ApiError::no_such("price", id));
    }
    params.refuse_unmodelled(PRICE_NOT_MODELLED)?;
    let active = params.boolean("active")?;
    let nickname = params.text_or_unset("nickname")?;
    let lookup_key = params.text_or_unset("lookup_key")?;
    let transfer = params.boolean("transfer_lookup_key")?.unwrap_or(false);
    let metadata = params.metadata()?;
    let expand = params.expand(&["tiers"])?;
    params.finish()?;
    if let Some(key) = lookup_key.as_ref().filter(|key| !key.is_empty()) {
        claim_lookup_key(world, key, Some(id), transfer)?;
    }
    let price = world.prices.get_mut(id).ok_or_else(|| ApiError::no_such("price", id))?;
    price.active = active.unwrap_or(price.active);
    for (field, text) in [(&mut price.nickname, nickname), (&mut price.lookup_key, lookup_key)] {
        if text.is_some() {
            *field = unset_if_empty(text);
        }
    }
    merge_metadata(&mut price.metadata, metadata);
    Ok(wire::price(price, expand.contains("tiers")))
}

/// `GET /v1/prices/:id`
pub(super) fn retrieve_price(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let expand = params.expand(&["tiers"])?;
    params.finish()?;
    let price = world.prices.get(id).ok_or_else(|| ApiError::no_such("price", id))?;
    Ok(wire::price(price, expand.contains("tiers")))
}

/// `GET /v1/prices`
pub(super) fn list_prices(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["created", "recurring"])?;
    let active = params.boolean("active")?;
    let currency = params.text("currency")?;
    let product = params.text("product")?;
    let recurs = params.choice("type", &[("recurring", true), ("one_time", false)])?;
    let keys = params.texts("lookup_keys")?;
    if keys.len() > MAX_LOOKUP_KEYS {
        let message = format!("You may only specify up to {MAX_LOOKUP_KEYS} lookup keys.");
        return Err(ApiError::invalid("lookup_keys", message));
    }
    let page = params.page()?;
    let expand = params.expand(&["data.tiers"])?;
    params.finish()?;
    let (found, more) = world.prices.page(&page, |price| {
        active.is_none_or(|active| price.active == active)
            && currency.as_ref().is_none_or(|currency| price.currency == *currency)
            && product.as_ref().is_none_or(|product| price.product == *product)
            && recurs.is_none_or(|recurs| price.recurring.is_some() == recurs)
            && (keys.is_empty() || price.lookup_key.as_ref().is_some_and(|key| keys.contains(key)))
    })?;
    let with_tiers = expand.contains("data.tiers");
    let data: Vec<Value> = found.into_iter().map(|price| wire::price(price, with_tiers)).collect();
    Ok(wire::list("/v1/prices", &data, more))
}
