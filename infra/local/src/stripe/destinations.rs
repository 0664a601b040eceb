//! Event destinations, under `/v2`: who wants to hear which thin events.
//!
//! Owns the parameters of the endpoint and its secret, which is shown once and only when it is asked for. What is sent,
//! and when, is in `webhooks`.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::catalog::merge_metadata;
use super::contract;
use super::endpoints::{ALL, secret};
use super::error::ApiError;
use super::form::{MAX_PAGE, Metadata, Params};
use super::urls::{self, Scheme};
use super::webhooks::API_VERSION;
use super::world::{Identified, World};

/// Most destinations of an account.
const MAX_DESTINATIONS: usize = 16;
/// Page of a list that names no limit.
const DEFAULT_PAGE: usize = 20;
const URL: &str = "webhook_endpoint.url";
const SECRET: &str = "webhook_endpoint.signing_secret";

/// An event destination of type `webhook_endpoint`.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) id: String,
    created_s: i64,
    updated_s: i64,
    name: String,
    description: String,
    pub(super) thin: bool,
    pub(super) events: Vec<String>,
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) enabled: bool,
    deleted: bool,
    metadata: Metadata,
}

impl Identified for Destination {
    fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// The destinations that are not deleted, in the order of their creation.
pub(super) fn alive(world: &World) -> impl Iterator<Item = &Destination> {
    world.destinations.iter().filter(|destination| !destination.deleted)
}

/// `POST /v2/core/event_destinations`
pub(super) fn create(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let kinds = [("webhook_endpoint", true), ("amazon_eventbridge", false), ("azure_event_grid", false)];
    if !params.required_choice("type", &kinds)? {
        return Err(ApiError::not_modelled("type"));
    }
    let thin = params.required_choice("event_payload", &[("thin", true), ("snapshot", false)])?;
    match (thin, params.text("snapshot_api_version")?) {
        (true, None) => {}
        (true, Some(_)) => {
            let message = "`snapshot_api_version` must not be given with `event_payload` of `thin`.";
            return Err(ApiError::invalid("snapshot_api_version", message));
        }
        (false, None) => return Err(ApiError::missing("snapshot_api_version")),
        (false, Some(version)) if version == API_VERSION => {}
        (false, Some(version)) => {
            return Err(ApiError::version_not_modelled("snapshot_api_version", &version));
        }
    }
    let name = params.required("name")?;
    let description = params.text_or_unset("description")?.unwrap_or_default();
    let events = events(&mut params, thin)?.ok_or_else(|| ApiError::missing("enabled_events"))?;
    let url = url(&mut params)?.ok_or_else(|| ApiError::missing("webhook_endpoint"))?;
    let include = include(&mut params, &[URL, SECRET])?;
    if let Some(from) = params.texts("events_from")?.iter().find(|from| *from != "self" && *from != "@self") {
        return Err(ApiError::not_modelled(&format!("events_from {from}")));
    }
    let mut metadata = Metadata::new();
    merge_metadata(&mut metadata, params.metadata()?);
    params.finish()?;
    if alive(world).count() >= MAX_DESTINATIONS {
        let message = format!("An account can have up to {MAX_DESTINATIONS} event destinations.");
        return Err(ApiError::invalid_request(message));
    }
    let destination = Destination {
        id: world.ids.next("ed_test"),
        created_s: now_s,
        updated_s: now_s,
        name,
        description,
        thin,
        events,
        url,
        secret: secret(),
        enabled: true,
        deleted: false,
        metadata,
    };
    let answer = object(&destination, &include);
    world.destinations.insert(destination)?;
    Ok(answer)
}

fn events(params: &mut Params, thin: bool) -> Result<Option<Vec<String>>, ApiError> {
    if !params.has("enabled_events") {
        return Ok(None);
    }
    let events = params.texts("enabled_events")?;
    if events.is_empty() {
        return Err(ApiError::empty("enabled_events"));
    }
    let strange = |event: &&String| *event != ALL && contract::event_kind(event) != Some(thin);
    if let Some(event) = events.iter().find(strange) {
        let payload = if thin { "thin" } else { "snapshot" };
        let message = format!("`{event}` is not a type of {payload} event.");
        return Err(ApiError::invalid("enabled_events", message));
    }
    Ok(Some(events))
}

fn url(params: &mut Params) -> Result<Option<String>, ApiError> {
    let Some(mut endpoint) = params.hash("webhook_endpoint")? else { return Ok(None) };
    let url = urls::parse(&endpoint.required("url")?, "webhook_endpoint.url", Scheme::SecureOrLoopback)?;
    endpoint.finish()?;
    Ok(Some(url))
}

fn include(params: &mut Params, allowed: &[&str]) -> Result<BTreeSet<String>, ApiError> {
    let include: BTreeSet<String> = params.texts("include")?.into_iter().collect();
    match include.iter().find(|field| !allowed.contains(&field.as_str())) {
        Some(field) => Err(ApiError::invalid("include", format!("`{field}` cannot be included here."))),
        None => Ok(include),
    }
}

fn find<'a>(world: &'a World, id: &str) -> Result<&'a Destination, ApiError> {
    let found = world.destinations.get(id).filter(|destination| !destination.deleted);
    found.ok_or_else(|| ApiError::no_such("event destination", id))
}

/// `GET /v2/core/event_destinations/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let include = include(&mut params, &[URL])?;
    params.finish()?;
    find(world, id).map(|destination| object(destination, &include))
}

/// `GET /v2/core/event_destinations`: all on one page, because an account has few.
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    let include = include(&mut params, &[URL])?;
    let limit = params.natural("limit")?.map_or(Ok(DEFAULT_PAGE), usize::try_from);
    params.finish()?;
    let limit = limit
        .ok()
        .filter(|limit| (1..=MAX_PAGE).contains(limit))
        .ok_or_else(|| ApiError::invalid("limit", format!("This value must be between 1 and {MAX_PAGE}.")))?;
    let found: Vec<Value> = alive(world).map(|destination| object(destination, &include)).collect();
    if found.len() > limit {
        return Err(ApiError::not_modelled("limit below the number of destinations"));
    }
    Ok(json!({ "data": found, "next_page_url": null, "previous_page_url": null }))
}

/// `POST /v2/core/event_destinations/:id`
pub(super) fn update(world: &mut World, id: &str, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let mut destination = find(world, id)?.clone();
    destination.name = params.text("name")?.unwrap_or(destination.name);
    destination.description = params.text_or_unset("description")?.unwrap_or(destination.description);
    if let Some(events) = events(&mut params, destination.thin)? {
        destination.events = events;
    }
    destination.url = url(&mut params)?.unwrap_or(destination.url);
    merge_metadata(&mut destination.metadata, params.metadata()?);
    let include = include(&mut params, &[URL])?;
    params.finish()?;
    destination.updated_s = now_s;
    let answer = object(&destination, &include);
    if let Some(stored) = world.destinations.get_mut(id) {
        *stored = destination;
    }
    Ok(answer)
}

/// `POST /v2/core/event_destinations/:id/enable` and `/disable`
pub(super) fn enable(
    world: &mut World,
    id: &str,
    params: Params,
    enabled: bool,
    now_s: i64,
) -> Result<Value, ApiError> {
    params.finish()?;
    find(world, id)?;
    if let Some(destination) = world.destinations.get_mut(id) {
        (destination.enabled, destination.updated_s) = (enabled, now_s);
    }
    find(world, id).map(|destination| object(destination, &BTreeSet::new()))
}

/// `DELETE /v2/core/event_destinations/:id`
pub(super) fn delete(world: &mut World, id: &str, params: Params) -> Result<Value, ApiError> {
    params.finish()?;
    find(world, id)?;
    if let Some(destination) = world.destinations.get_mut(id) {
        destination.deleted = true;
    }
    Ok(json!({ "id": id, "object": "v2.core.event_destination" }))
}

fn time(at_s: i64) -> Option<String> {
    DateTime::from_timestamp(at_s, 0).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// A field that is only shown when it is asked for is left out, not null.
fn object(destination: &Destination, include: &BTreeSet<String>) -> Value {
    let mut endpoint = serde_json::Map::new();
    for (field, name, value) in
        [(URL, "url", &destination.url), (SECRET, "signing_secret", &destination.secret)]
    {
        if include.contains(field) {
            endpoint.insert(name.to_owned(), json!(value));
        }
    }
    let mut object = json!({
        "id": destination.id,
        "object": "v2.core.event_destination",
        "created": time(destination.created_s),
        "description": destination.description,
        "enabled_events": destination.events,
        "event_payload": if destination.thin { "thin" } else { "snapshot" },
        "events_from": ["@self"],
        "livemode": false,
        "metadata": destination.metadata,
        "name": destination.name,
        "status": if destination.enabled { "enabled" } else { "disabled" },
        "type": "webhook_endpoint",
        "updated": time(destination.updated_s),
        "webhook_endpoint": endpoint,
    });
    if let Some(fields) = object.as_object_mut() {
        if !destination.thin {
            fields.insert("snapshot_api_version".to_owned(), json!(API_VERSION));
        }
        if !destination.enabled {
            fields.insert("status_details".to_owned(), json!({ "disabled": { "reason": "user" } }));
        }
    }
    object
}
