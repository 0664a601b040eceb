//! What has to be done: a pure function of what is wanted and what is there. Nothing is done here.
//!
//! What another hand has made under our names, and what cannot be put right without a decision, is a conflict: it is named,
//! with what to do, and nothing at all is done.

use super::present::Present;
use super::wanted::{SecretWish, Wanted, WantedCharge, WantedPlan, WantedPrice, events};
use domain::PlanId;
use std::collections::BTreeSet;
use std::fmt;
use stripe::setup::{
    API_VERSION, Channel, Charge, Endpoint, EndpointChange, Interval, NewMeter, ObjectId, PLAN_KEY,
    PortalSettings, Price, Product, ProductChange, Tier,
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Creates the meter.
    CreateMeter {
        /// The name of its events.
        event_name: String,
    },
    /// Creates the product of a plan.
    CreateProduct {
        /// The plan.
        plan: PlanId,
        /// What the customer reads.
        name: String,
    },
    /// Changes the product of a plan.
    UpdateProduct {
        /// The product.
        id: ObjectId,
        /// What becomes of it.
        change: ProductChange,
    },
    /// Creates a price of a plan.
    CreatePrice {
        /// The plan.
        plan: PlanId,
        /// The price.
        price: WantedPrice,
        /// The price that loses its lookup key to it, and is otherwise left as it is.
        replaces: Option<ObjectId>,
    },
    /// Notes in a price the lookup key that it was sold by.
    MarkPrice {
        /// The price.
        id: ObjectId,
        /// The key.
        lookup_key: String,
    },
    /// Makes a place that gets events.
    CreateEndpoint {
        /// Which events.
        channel: Channel,
        /// The one that it is to replace.
        replaces: Option<ObjectId>,
    },
    /// Changes a place that gets events.
    UpdateEndpoint {
        /// Which events.
        channel: Channel,
        /// The place.
        id: ObjectId,
        /// What becomes of it.
        change: EndpointChange,
    },
    /// Deletes a place that was replaced.
    DeleteEndpoint {
        /// Which events.
        channel: Channel,
        /// The place.
        id: ObjectId,
    },
    /// Creates our configuration of the portal.
    CreatePortal {
        /// What customers may do.
        settings: PortalSettings,
    },
    /// Changes our configuration of the portal.
    UpdatePortal {
        /// The configuration.
        id: ObjectId,
        /// What customers may do.
        settings: PortalSettings,
    },
}

/// One thing to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why.
    pub why: String,
}

/// What stands in the way, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Conflict(String);

impl Step {
    fn new(action: Action, why: impl Into<String>) -> Self {
        Self { action, why: why.into() }
    }
}

/// What has to be done, in the order in which it has to be done.
///
/// # Errors
/// Every conflict.
pub fn plan(wanted: &Wanted, present: &Present) -> Result<Vec<Step>, Vec<Conflict>> {
    let mut planning = Planning { wanted, present, steps: Vec::new(), conflicts: Vec::new() };
    planning.meter();
    planning.plans();
    planning.endpoints(Channel::Snapshot);
    planning.endpoints(Channel::Thin);
    planning.portal();
    if planning.conflicts.is_empty() { Ok(planning.steps) } else { Err(planning.conflicts) }
}

/// A plan while it is made.
struct Planning<'a> {
    wanted: &'a Wanted,
    present: &'a Present,
    steps: Vec<Step>,
    conflicts: Vec<Conflict>,
}

impl Planning<'_> {
    fn step(&mut self, action: Action, why: impl Into<String>) {
        self.steps.push(Step::new(action, why));
    }

    fn conflict(&mut self, text: String) {
        self.conflicts.push(Conflict(text));
    }

    fn meter(&mut self) {
        let event_name = &self.wanted.event_name;
        if let Some(meter) = self.present.meter(event_name) {
            let (id, key, value) = (&meter.id, NewMeter::CUSTOMER_KEY, NewMeter::VALUE_KEY);
            let has = (meter.formula.as_str(), meter.customer_key.as_str(), meter.value_key.as_str());
            if has != (NewMeter::FORMULA, key, value) {
                self.conflict(format!(
                    "meter {id} has the event name {event_name}, but takes the {} of `{}` for `{}`; it has to take the \
                     {} of `{value}` for `{key}`, and a meter cannot be changed: deactivate it if nothing uses it, or \
                     choose another --meter-event-name",
                    has.0,
                    has.2,
                    has.1,
                    NewMeter::FORMULA
                ));
            }
            return;
        }
        let retired = self.present.meters.iter().find(|meter| meter.event_name == *event_name);
        if let Some(meter) = retired {
            self.conflict(format!(
                "meter {} has the event name {event_name} and is deactivated: reactivate it in the dashboard, or choose \
                 another --meter-event-name",
                meter.id
            ));
        } else {
            let action = Action::CreateMeter { event_name: event_name.clone() };
            self.step(action, format!("no meter has the event name {event_name}"));
        }
    }

    fn plans(&mut self) {
        let mut taken = BTreeSet::new();
        for plan in &self.wanted.plans {
            match self.product(plan) {
                Err(conflict) => self.conflicts.push(conflict),
                Ok(None) => {
                    let action = Action::CreateProduct { plan: plan.id.clone(), name: plan.name.clone() };
                    self.step(action, format!("no product has the metadata {PLAN_KEY} = {}", plan.id));
                    self.prices(plan);
                }
                Ok(Some(product)) if !taken.insert(product.id.clone()) => self.conflict(format!(
                    "the prices of two plans, one of them {}, belong to product {}: give each plan its own lookup keys",
                    plan.id, product.id
                )),
                Ok(Some(product)) => {
                    self.update_product(plan, &product);
                    self.prices(plan);
                }
            }
        }
    }

    /// The product of a plan: the one that says so or, where none does, the one of its prices.
    fn product(&self, plan: &WantedPlan) -> Result<Option<Product>, Conflict> {
        let is_marked = |product: &&Product| product.plan.as_deref() == Some(plan.id.as_str());
        let mut marked: Vec<&Product> = self.present.products.iter().filter(is_marked).collect();
        if marked.len() > 1 {
            marked.retain(|product| product.active);
        }
        let keys = plan.prices.each_ref().map(|price| price.lookup_key.as_str());
        let is_ours = |price: &&Price| price.lookup_key.as_deref().is_some_and(|key| keys.contains(&key));
        let prices: Vec<&Price> = self.present.prices.iter().filter(is_ours).collect();
        let among =
            |ids: &BTreeSet<&ObjectId>| ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
        let of_prices: BTreeSet<&ObjectId> = prices.iter().map(|price| &price.product).collect();
        match (marked.as_slice(), of_prices.len()) {
            ([], 0) => Ok(None),
            ([], 1) => {
                let find = |product: &&Product| of_prices.contains(&product.id);
                let found = self.present.products.iter().find(find);
                match found {
                    Some(product) if product.plan.is_none() => Ok(Some(product.clone())),
                    _ => Err(Conflict(format!(
                        "the prices of plan {} belong to product {}, which is another plan's: give the plan new lookup \
                         keys",
                        plan.id,
                        among(&of_prices)
                    ))),
                }
            }
            ([product], _) if of_prices.iter().all(|id| **id == product.id) => Ok(Some((*product).clone())),
            ([product], _) => Err(Conflict(format!(
                "product {} is plan {} by its metadata, but the plan's prices belong to {}: give the plan new lookup \
                 keys, or take the metadata {PLAN_KEY} from the product that is not it",
                product.id,
                plan.id,
                among(&of_prices)
            ))),
            (marked, _) => {
                let of_marked: BTreeSet<&ObjectId> = marked.iter().map(|product| &product.id).collect();
                let ids = if marked.is_empty() { among(&of_prices) } else { among(&of_marked) };
                Err(Conflict(format!(
                    "more than one product, {ids}, is plan {}: leave one, and take the metadata {PLAN_KEY} or the \
                     lookup keys from the others",
                    plan.id
                )))
            }
        }
    }

    fn update_product(&mut self, plan: &WantedPlan, product: &Product) {
        let mut why = Vec::new();
        let mut change = ProductChange::default();
        if product.name != plan.name {
            change.name = Some(plan.name.clone());
            why.push(format!("its name is {:?} and the plan book says {:?}", product.name, plan.name));
        }
        if product.plan.is_none() {
            change.plan = Some(plan.id.to_string());
            why.push(format!("it has the prices of plan {}, and its metadata does not say so", plan.id));
        }
        if !product.active {
            change.activate = true;
            why.push("it is archived".to_owned());
        }
        if !why.is_empty() {
            self.step(Action::UpdateProduct { id: product.id.clone(), change }, why.join("; "));
        }
    }

    fn prices(&mut self, plan: &WantedPlan) {
        for price in &plan.prices {
            let key = &price.lookup_key;
            let held = self.present.prices.iter().find(|held| held.lookup_key.as_ref() == Some(key));
            let create =
                |replaces| Action::CreatePrice { plan: plan.id.clone(), price: price.clone(), replaces };
            match held {
                None => self.step(create(None), format!("no price has the lookup key {key}")),
                Some(held) => match self.difference(price, held) {
                    Err(conflict) => self.conflicts.push(conflict),
                    Ok(None) => {}
                    Ok(Some(why)) => {
                        self.mark(held, key);
                        let left = if held.active { " and stays for those who pay by it" } else { "" };
                        self.step(create(Some(held.id.clone())), format!("{} {why}{left}", held.id));
                    }
                },
            }
        }
    }

    /// Has a price that is about to lose its lookup key keep it in its metadata: by that those who pay by it are known.
    fn mark(&mut self, held: &Price, key: &str) {
        if held.sold_by.as_deref() != Some(key) {
            let action = Action::MarkPrice { id: held.id.clone(), lookup_key: key.to_owned() };
            self.step(
                action,
                format!("it was sold by {key} and is about to lose it: who pays by it is known by the mark"),
            );
        }
    }

    /// Why a price is not the one that is wanted.
    fn difference(&self, wanted: &WantedPrice, held: &Price) -> Result<Option<String>, Conflict> {
        let (id, key) = (&held.id, &wanted.lookup_key);
        let conflict = |what: String| {
            Err(Conflict(format!(
                "price {id} with the lookup key {key} {what}: give the plan a new lookup key, or take the key from the \
                 price in the dashboard"
            )))
        };
        if !held.is_in_dollars() {
            return conflict(format!("is in {}, and not in usd", held.currency));
        }
        if let Interval::Other(interval) = &held.interval {
            return conflict(format!("is charged {interval}, and not once a month"));
        }
        let meter = self.present.meter(&self.wanted.event_name).map(|meter| &meter.id);
        let same = match (&wanted.charge, &held.charge) {
            (WantedCharge::Flat(cents), Some(Charge::Flat(held))) => cents == held,
            (WantedCharge::Metered(tiers), Some(Charge::Metered { meter: held, tiers: held_tiers })) => {
                if meter != Some(held) {
                    return Ok(Some(format!("is counted by another meter, {held}")));
                }
                tiers == held_tiers
            }
            _ => return conflict(format!("charges in another way than {}", wanted.charge)),
        };
        if !same {
            let has = held.charge.as_ref().map_or_else(String::new, describe);
            return Ok(Some(format!(
                "is {has}, the plan book says {}; it loses the lookup key",
                wanted.charge
            )));
        }
        Ok((!held.active).then(|| "is archived; it loses the lookup key".to_owned()))
    }

    fn endpoints(&mut self, channel: Channel) {
        let url = &self.wanted.webhook_url;
        let all = self.present.endpoints.get(&channel).map(Vec::as_slice).unwrap_or_default();
        let here: Vec<&Endpoint> = all.iter().filter(|endpoint| endpoint.url == *url).collect();
        let replaced: BTreeSet<&ObjectId> =
            here.iter().filter_map(|endpoint| endpoint.replaces.as_ref()).collect();
        let (old, current): (Vec<&Endpoint>, Vec<&Endpoint>) =
            here.into_iter().partition(|endpoint| replaced.contains(&endpoint.id));
        let wish = self.wanted.secret(channel);
        match current.as_slice() {
            [] => {
                let why = format!("nothing sends {} to {url}", channel_name(channel));
                self.step(Action::CreateEndpoint { channel, replaces: None }, why);
            }
            [endpoint] if wish == SecretWish::Lost => {
                let why = format!(
                    "the signing secret of {} is lost; it stays until the functions know the new one",
                    endpoint.id
                );
                self.step(Action::CreateEndpoint { channel, replaces: Some(endpoint.id.clone()) }, why);
            }
            [endpoint] => self.update_endpoint(channel, endpoint),
            many => {
                let ids: Vec<&str> = many.iter().map(|endpoint| endpoint.id.as_str()).collect();
                self.conflict(format!(
                    "{} all send {} to {url}, so that everything would come more than once: delete all but one",
                    ids.join(" and "),
                    channel_name(channel)
                ));
            }
        }
        if wish == SecretWish::Known {
            for endpoint in old {
                let why = "another endpoint was made to replace it";
                self.step(Action::DeleteEndpoint { channel, id: endpoint.id.clone() }, why);
            }
        }
    }

    fn update_endpoint(&mut self, channel: Channel, endpoint: &Endpoint) {
        let id = &endpoint.id;
        if channel == Channel::Snapshot && endpoint.version.as_deref() != Some(API_VERSION) {
            let version = endpoint.version.as_deref().unwrap_or("the account's default version");
            self.conflict(format!(
                "webhook endpoint {id} sends events of {version}, and the functions read {API_VERSION}; an endpoint's \
                 version cannot be changed: make another with --roll-webhook-secret"
            ));
            return;
        }
        let mut why = Vec::new();
        let mut change = EndpointChange::default();
        let events = events(channel);
        if endpoint.events != events {
            let list =
                |some: Vec<&String>| some.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let missing = list(events.difference(&endpoint.events).collect());
            let surplus = list(endpoint.events.difference(&events).collect());
            for (what, list) in [("it does not send", missing), ("it sends what nobody reads:", surplus)] {
                if !list.is_empty() {
                    why.push(format!("{what} {list}"));
                }
            }
            change.events = Some(events);
        }
        if !endpoint.enabled {
            change.enable = true;
            why.push("it is disabled".to_owned());
        }
        if !why.is_empty() {
            self.step(Action::UpdateEndpoint { channel, id: id.clone(), change }, why.join("; "));
        }
    }

    fn portal(&mut self) {
        let ours: Vec<_> = self.present.portals.iter().filter(|portal| portal.ours).collect();
        let mut settings = self.wanted.portal.clone();
        match ours.as_slice() {
            [] => {
                let action = Action::CreatePortal { settings };
                self.step(action, "no configuration of the customer portal is ours");
            }
            [portal] => {
                // Whoever says nothing about it leaves it as it is.
                settings.return_url = settings.return_url.or_else(|| portal.settings.return_url.clone());
                if settings != portal.settings || !portal.active {
                    let action = Action::UpdatePortal { id: portal.id.clone(), settings };
                    self.step(action, "it lets customers do something else than we want");
                }
            }
            many => {
                let ids: Vec<&str> = many.iter().map(|portal| portal.id.as_str()).collect();
                let (ids, what) = (ids.join(" and "), "are all marked as ours by their metadata");
                self.conflict(format!("portal configurations {ids} {what}: take the mark from all but one"));
            }
        }
    }
}

/// What a channel sends, in words.
pub fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Snapshot => "events",
        Channel::Thin => "thin events",
    }
}

fn describe(charge: &Charge) -> String {
    match charge {
        Charge::Flat(cents) => format!("{cents} cents a month"),
        Charge::Metered { tiers, .. } => describe_tiers(tiers),
    }
}

fn describe_tiers(tiers: &[Tier]) -> String {
    let tier = |tier: &Tier| match tier.up_to {
        Some(up_to) => format!("{} cents a token up to {up_to}", tier.unit),
        None => format!("{} cents a token from there on", tier.unit),
    };
    tiers.iter().map(tier).collect::<Vec<_>>().join(", then ")
}

impl fmt::Display for WantedCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flat(cents) => write!(f, "{cents} cents a month"),
            Self::Metered(tiers) => f.write_str(&describe_tiers(tiers)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateMeter { event_name } => write!(f, "create meter {event_name}"),
            Self::CreateProduct { plan, name } => write!(f, "create product {name:?} for plan {plan}"),
            Self::UpdateProduct { id, .. } => write!(f, "update product {id}"),
            Self::CreatePrice { price, .. } => {
                write!(f, "create price {}: {}", price.lookup_key, price.charge)
            }
            Self::MarkPrice { id, lookup_key } => write!(f, "mark price {id} as sold by {lookup_key}"),
            Self::CreateEndpoint { channel, .. } => {
                write!(f, "create endpoint for {}", channel_name(*channel))
            }
            Self::UpdateEndpoint { id, .. } => write!(f, "update endpoint {id}"),
            Self::DeleteEndpoint { id, .. } => write!(f, "delete endpoint {id}"),
            Self::CreatePortal { .. } => f.write_str("create portal configuration"),
            Self::UpdatePortal { id, .. } => write!(f, "update portal configuration {id}"),
        }
    }
}
