//! Webhook endpoints: who wants to hear which events.
//!
//! Owns the parameters of the endpoint and its secret, which is shown once. What is sent, and when, is in `webhooks`.

use serde_json::{Value, json};

use super::catalog::merge_metadata;
use super::error::ApiError;
use super::form::{Metadata, Params};
use super::urls::{self, Scheme};
use super::webhooks::API_VERSION;
use super::world::{Identified, World};
use super::{contract, wire};

/// Most endpoints of an account.
const MAX_ENDPOINTS: usize = 16;
/// Every event.
pub(super) const ALL: &str = "*";

/// A webhook endpoint.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) id: String,
    created_s: i64,
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) events: Vec<String>,
    pub(super) enabled: bool,
    deleted: bool,
    pinned: bool,
    description: Option<String>,
    metadata: Metadata,
}

impl Identified for Endpoint {
    fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// `POST /v1/webhook_endpoints`
pub(super) fn create(world: &mut World, mut params: Params, now_s: i64) -> Result<Value, ApiError> {
    let url = urls::parse(&params.required("url")?, "url", Scheme::SecureOrLoopback)?;
    let events = events(&mut params)?.ok_or_else(|| ApiError::missing("enabled_events"))?;
    let pinned = match params.text("api_version")? {
        None => false,
        Some(version) if version == API_VERSION => true,
        Some(version) => return Err(ApiError::version_not_modelled("api_version", &version)),
    };
    let description = params.text_or_unset("description")?.filter(|text| !text.is_empty());
    let mut metadata = Metadata::new();
    merge_metadata(&mut metadata, params.metadata()?);
    params.expand(&[])?;
    params.finish()?;
    if alive(world).count() >= MAX_ENDPOINTS {
        let message = format!("You have reached the maximum of {MAX_ENDPOINTS} test webhook endpoints.");
        return Err(ApiError::invalid_request(message));
    }
    let secret = secret();
    let id = world.ids.next("we");
    let endpoint = Endpoint {
        id,
        created_s: now_s,
        url,
        secret: secret.clone(),
        events,
        enabled: true,
        deleted: false,
        pinned,
        description,
        metadata,
    };
    let mut answer = object(&endpoint);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("secret".to_owned(), json!(secret));
    }
    world.webhook_endpoints.insert(endpoint)?;
    Ok(answer)
}

/// A new signing secret.
pub(super) fn secret() -> String {
    format!("whsec_{:032x}", rand::random::<u128>())
}

/// The endpoints that are not deleted, in the order of their creation.
pub(super) fn alive(world: &World) -> impl Iterator<Item = &Endpoint> {
    world.webhook_endpoints.iter().filter(|endpoint| !endpoint.deleted)
}

fn events(params: &mut Params) -> Result<Option<Vec<String>>, ApiError> {
    if !params.has("enabled_events") {
        return Ok(None);
    }
    let events = params.texts("enabled_events")?;
    for (index, event) in events.iter().enumerate() {
        if event != ALL && contract::event_kind(event) != Some(false) {
            let name = format!("enabled_events[{index}]");
            let message = format!("Invalid {name}: `{event}` is not a type of event.");
            return Err(ApiError::invalid(&name, message));
        }
    }
    if events.is_empty() {
        return Err(ApiError::empty("enabled_events"));
    }
    if events.len() > 1 && events.iter().any(|event| event == ALL) {
        let message = "You cannot pass `*` with other event types: `*` already means all of them.";
        return Err(ApiError::invalid("enabled_events", message));
    }
    Ok(Some(events))
}

fn find<'a>(world: &'a World, id: &str) -> Result<&'a Endpoint, ApiError> {
    let found = world.webhook_endpoints.get(id).filter(|endpoint| !endpoint.deleted);
    found.ok_or_else(|| ApiError::no_such("webhook endpoint", id))
}

/// `POST /v1/webhook_endpoints/:id`
pub(super) fn update(world: &mut World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    let mut endpoint = find(world, id)?.clone();
    if let Some(url) = params.text("url")? {
        endpoint.url = urls::parse(&url, "url", Scheme::SecureOrLoopback)?;
    }
    if let Some(events) = events(&mut params)? {
        endpoint.events = events;
    }
    if let Some(description) = params.text_or_unset("description")? {
        endpoint.description = (!description.is_empty()).then_some(description);
    }
    endpoint.enabled = params.boolean("disabled")?.map_or(endpoint.enabled, |disabled| !disabled);
    merge_metadata(&mut endpoint.metadata, params.metadata()?);
    params.expand(&[])?;
    params.finish()?;
    let answer = object(&endpoint);
    if let Some(stored) = world.webhook_endpoints.get_mut(id) {
        *stored = endpoint;
    }
    Ok(answer)
}

/// `GET /v1/webhook_endpoints/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    find(world, id).map(object)
}

/// `GET /v1/webhook_endpoints`
pub(super) fn list(world: &World, mut params: Params) -> Result<Value, ApiError> {
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.webhook_endpoints.page(&page, |endpoint| !endpoint.deleted)?;
    let data: Vec<Value> = found.into_iter().map(object).collect();
    Ok(wire::list("/v1/webhook_endpoints", &data, more))
}

/// `DELETE /v1/webhook_endpoints/:id`
pub(super) fn delete(world: &mut World, id: &str, params: Params) -> Result<Value, ApiError> {
    params.finish()?;
    find(world, id)?;
    if let Some(endpoint) = world.webhook_endpoints.get_mut(id) {
        endpoint.deleted = true;
    }
    Ok(json!({ "id": id, "object": "webhook_endpoint", "deleted": true }))
}

fn object(endpoint: &Endpoint) -> Value {
    json!({
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "api_version": endpoint.pinned.then_some(API_VERSION),
        "application": null,
        "created": endpoint.created_s,
        "description": endpoint.description,
        "enabled_events": endpoint.events,
        "livemode": false,
        "metadata": endpoint.metadata,
        "status": if endpoint.enabled { "enabled" } else { "disabled" },
        "url": endpoint.url,
    })
}
