//! Where Stripe sends events: webhook endpoints of v1, and v2 event destinations for thin events. Found by their URL.
//!
//! Both show their signing secret once, when they are created. Whoever lost it makes a second one that names the first as
//! replaced, and later deletes the first: an endpoint that is deleted takes the events with it that it still owes.

use super::form::Form;
use super::{API_VERSION, Listed, ObjectId, PAGES_MAX, SetupError, object_id};
use crate::client::{Secret, Stripe};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The metadata key that names the endpoint which this one replaces.
const REPLACES_KEY: &str = "inkmeter_replaces";
/// What the dashboard calls them.
const NAME: &str = "Inkmeter";
const ENDPOINTS: &str = "/webhook_endpoints";
const DESTINATIONS: &str = "/v2/core/event_destinations";

/// Which events a place gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Events of v1 objects, rendered as one API version: a webhook endpoint.
    Snapshot,
    /// Thin events, which only say what to fetch: a v2 event destination.
    Thin,
}

/// A place that gets events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: ObjectId,
    /// Where the events go.
    pub url: String,
    /// Which.
    pub events: BTreeSet<String>,
    /// The API version that they are rendered as; none: the account's, or thin ones, which have none.
    pub version: Option<String>,
    /// Whether it is sent any.
    pub enabled: bool,
    /// The endpoint that it was made to replace.
    pub replaces: Option<ObjectId>,
}

/// A place to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEndpoint<'a> {
    /// Where the events go.
    pub url: &'a str,
    /// Which.
    pub events: &'a BTreeSet<String>,
    /// The endpoint that it is to replace.
    pub replaces: Option<&'a ObjectId>,
}

/// What becomes of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointChange {
    /// Which events it gets from now on.
    pub events: Option<BTreeSet<String>>,
    /// Whether it is switched on again.
    pub enable: bool,
}

#[derive(miniserde::Deserialize)]
struct WireEndpoint {
    id: String,
    url: String,
    enabled_events: Vec<String>,
    api_version: Option<String>,
    status: String,
    metadata: Option<BTreeMap<String, String>>,
    secret: Option<String>,
}

#[derive(miniserde::Deserialize)]
struct Deleted {}

#[derive(serde::Deserialize)]
struct WireDestinations {
    data: Vec<WireDestination>,
    next_page_url: Option<String>,
}

#[derive(serde::Deserialize)]
struct WireDestination {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    event_payload: String,
    enabled_events: Vec<String>,
    status: String,
    metadata: Option<BTreeMap<String, String>>,
    webhook_endpoint: Option<WirePlace>,
}

#[derive(serde::Deserialize)]
struct WirePlace {
    url: Option<String>,
    signing_secret: Option<String>,
}

impl Listed for WireEndpoint {
    fn id(&self) -> &str {
        &self.id
    }
}

fn replaced(metadata: Option<&BTreeMap<String, String>>) -> Option<ObjectId> {
    ObjectId::parse(metadata?.get(REPLACES_KEY)?)
}

impl WireEndpoint {
    fn read(self) -> Result<Endpoint, SetupError> {
        Ok(Endpoint {
            id: object_id(&self.id)?,
            url: self.url,
            events: self.enabled_events.into_iter().collect(),
            version: self.api_version,
            enabled: self.status == "enabled",
            replaces: replaced(self.metadata.as_ref()),
        })
    }
}

impl WireDestination {
    /// None: not a place for thin events on the web.
    fn read(self) -> Result<Option<Endpoint>, SetupError> {
        if self.kind != "webhook_endpoint" || self.event_payload != "thin" {
            return Ok(None);
        }
        let url = self.webhook_endpoint.and_then(|place| place.url);
        Ok(Some(Endpoint {
            id: object_id(&self.id)?,
            url: url.ok_or(SetupError::Malformed("URL of an event destination"))?,
            events: self.enabled_events.into_iter().collect(),
            version: None,
            enabled: self.status == "enabled",
            replaces: replaced(self.metadata.as_ref()),
        }))
    }
}

impl Stripe {
    /// Every place of a channel.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn endpoints(&self, channel: Channel) -> Result<Vec<Endpoint>, SetupError> {
        match channel {
            Channel::Snapshot => {
                let all = self.list::<WireEndpoint>(ENDPOINTS, &Form::default()).await?;
                all.into_iter().map(WireEndpoint::read).collect()
            }
            Channel::Thin => self.destinations().await,
        }
    }

    /// Makes a place, and answers with the secret that its events are signed with. Stripe never shows it again.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn create_endpoint(
        &self,
        channel: Channel,
        new: &NewEndpoint<'_>,
    ) -> Result<(Endpoint, Secret), SetupError> {
        match channel {
            Channel::Snapshot => self.create_snapshot(new).await,
            Channel::Thin => self.create_thin(new).await,
        }
    }

    /// Changes a place.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn update_endpoint(
        &self,
        channel: Channel,
        id: &ObjectId,
        change: &EndpointChange,
    ) -> Result<(), SetupError> {
        match channel {
            Channel::Snapshot => {
                let mut form = Form::default();
                if let Some(events) = &change.events {
                    form = form.list("enabled_events", events);
                }
                if change.enable {
                    form = form.set("disabled", "false");
                }
                self.post::<WireEndpoint>(format!("{ENDPOINTS}/{id}"), &form).await?;
            }
            Channel::Thin => {
                if let Some(events) = &change.events {
                    let body = json!({ "enabled_events": events });
                    self.call_v2::<Value>(StripeMethod::Post, &format!("{DESTINATIONS}/{id}"), Some(&body))
                        .await?;
                }
                if change.enable {
                    let path = format!("{DESTINATIONS}/{id}/enable");
                    self.call_v2::<Value>(StripeMethod::Post, &path, Some(&json!({}))).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes a place. What it still owes is never sent.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn delete_endpoint(&self, channel: Channel, id: &ObjectId) -> Result<(), SetupError> {
        match channel {
            Channel::Snapshot => {
                let request = RequestBuilder::new(StripeMethod::Delete, format!("{ENDPOINTS}/{id}"));
                self.call(StripeMethod::Delete, request.customize::<Deleted>()).await?;
            }
            Channel::Thin => {
                let path = format!("{DESTINATIONS}/{id}");
                self.call_v2::<Value>(StripeMethod::Delete, &path, None).await?;
            }
        }
        Ok(())
    }

    async fn create_snapshot(&self, new: &NewEndpoint<'_>) -> Result<(Endpoint, Secret), SetupError> {
        let mut form = Form::default()
            .set("url", new.url)
            .set("api_version", API_VERSION)
            .set("description", NAME)
            .list("enabled_events", new.events);
        if let Some(replaced) = new.replaces {
            form = form.set(format!("metadata[{REPLACES_KEY}]"), replaced.as_str());
        }
        let mut wire = self.post::<WireEndpoint>(ENDPOINTS.into(), &form).await?;
        let secret = wire.secret.take().ok_or(SetupError::Malformed("signing secret"))?;
        Ok((wire.read()?, Secret::new(secret)))
    }

    async fn create_thin(&self, new: &NewEndpoint<'_>) -> Result<(Endpoint, Secret), SetupError> {
        let mut body = json!({
            "name": NAME,
            "type": "webhook_endpoint",
            "event_payload": "thin",
            "enabled_events": new.events,
            "webhook_endpoint": { "url": new.url },
            "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"],
        });
        if let (Some(replaced), Some(fields)) = (new.replaces, body.as_object_mut()) {
            fields.insert("metadata".into(), json!({ REPLACES_KEY: replaced.as_str() }));
        }
        let mut wire: WireDestination = self.call_v2(StripeMethod::Post, DESTINATIONS, Some(&body)).await?;
        let secret = wire.webhook_endpoint.as_mut().and_then(|place| place.signing_secret.take());
        let secret = secret.ok_or(SetupError::Malformed("signing secret"))?;
        let endpoint = wire.read()?.ok_or(SetupError::Malformed("kind of event destination"))?;
        Ok((endpoint, Secret::new(secret)))
    }

    async fn destinations(&self) -> Result<Vec<Endpoint>, SetupError> {
        let mut all = Vec::new();
        let mut path = format!("{DESTINATIONS}?limit=100&include[0]=webhook_endpoint.url");
        for _ in 0..PAGES_MAX {
            let page: WireDestinations = self.call_v2(StripeMethod::Get, &path, None).await?;
            for wire in page.data {
                all.extend(wire.read()?);
            }
            match page.next_page_url {
                None => return Ok(all),
                Some(next) => path = next_page(&next)?,
            }
        }
        Err(SetupError::Refused(format!("{DESTINATIONS} lists more than {PAGES_MAX} pages")))
    }
}

/// The path of the next page; the key goes nowhere but to where it went before.
fn next_page(url: &str) -> Result<String, SetupError> {
    let at = url.find(DESTINATIONS).ok_or(SetupError::Malformed("next page"))?;
    url.get(at..).map(str::to_owned).ok_or(SetupError::Malformed("next page"))
}
