//! What this Stripe account holds.
//!
//! Owns the stored objects, their ids and their bounds. It knows no HTTP and no JSON, and never reads a clock: `now` is
//! passed in.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::calendar::Cycle;
use super::error::ApiError;
use super::form::{Cursor, Metadata, Page};
use super::money::{Price as Amount, Tier};
use super::webhooks::Outbox;
use super::{checkout, destinations, endpoints, portal};

/// Most objects of one kind.
const MAX_OBJECTS: usize = 100_000;

/// Objects of one kind in the order of their creation; none is ever removed.
#[derive(Debug)]
pub(super) struct Store<T> {
    what: &'static str,
    items: Vec<T>,
    by_id: HashMap<String, usize>,
}

/// An object with an id.
pub(super) trait Identified {
    /// The id, unique in its store.
    fn id(&self) -> &str;
}

impl<T: Identified> Store<T> {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, items: Vec::new(), by_id: HashMap::new() }
    }

    /// Adds an object.
    pub(super) fn insert(&mut self, item: T) -> Result<(), ApiError> {
        self.ensure_room(1)?;
        self.by_id.insert(item.id().to_owned(), self.items.len());
        self.items.push(item);
        Ok(())
    }

    /// Refuses unless `count` more objects fit.
    pub(super) fn ensure_room(&self, count: usize) -> Result<(), ApiError> {
        if self.items.len().saturating_add(count) > MAX_OBJECTS {
            Err(ApiError::full(self.what))
        } else {
            Ok(())
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.items.get(*self.by_id.get(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut T> {
        self.items.get_mut(*self.by_id.get(id)?)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }

    /// One page of the objects that match, newest first, and whether more follow.
    pub(super) fn page(
        &self,
        page: &Page,
        matches: impl Fn(&T) -> bool,
    ) -> Result<(Vec<&T>, bool), ApiError> {
        let found: Vec<&T> = self.items.iter().rev().filter(|item| matches(item)).collect();
        paginate(found, page, |item| item.id(), self.what)
    }
}

/// Cuts one page out of `found`.
pub(super) fn paginate<T>(
    mut found: Vec<T>,
    page: &Page,
    id: impl Fn(&T) -> &str,
    what: &str,
) -> Result<(Vec<T>, bool), ApiError> {
    let position = |found: &[T], cursor: &str, param: &str| {
        let at = found.iter().position(|item| id(item) == cursor);
        at.ok_or_else(|| ApiError::no_such_for(param, what, cursor))
    };
    match &page.cursor {
        Cursor::Newest => {}
        Cursor::After(cursor) => {
            let at = position(&found, cursor, "starting_after")?;
            found.drain(..=at);
        }
        Cursor::Before(cursor) => {
            let at = position(&found, cursor, "ending_before")?;
            found.truncate(at);
            let more = found.len() > page.limit;
            found.drain(..found.len().saturating_sub(page.limit));
            return Ok((found, more));
        }
    }
    let more = found.len() > page.limit;
    found.truncate(page.limit);
    Ok((found, more))
}

/// Makes ids that look like Stripe's and never repeat, neither within a run nor, in practice, between runs: a table that
/// outlives this process must not find its old customers' ids on new customers.
#[derive(Debug)]
pub(super) struct Ids {
    run: u32,
    next: u64,
}

impl Ids {
    /// The next id with this prefix.
    pub(super) fn next(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}_1Local{:08x}{:08}", self.run, self.next)
    }
}

/// A customer.
#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) metadata: Metadata,
}

/// A product.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) updated_s: i64,
    pub(super) active: bool,
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) unit_label: Option<String>,
    pub(super) metadata: Metadata,
}

/// A billing meter that sums.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) display_name: String,
    pub(super) event_name: String,
    pub(super) customer_key: String,
    pub(super) value_key: String,
}

/// What a recurring price counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Licensed,
    Metered { meter: String },
}

/// How a price recurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recurring {
    pub(super) cycle: Cycle,
    pub(super) usage: Usage,
}

/// How a price charges a quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    PerUnit(Amount),
    Graduated(Vec<Tier>),
}

/// A price.
#[derive(Clone, Debug)]
pub(super) struct Price {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) active: bool,
    pub(super) currency: String,
    pub(super) product: String,
    pub(super) lookup_key: Option<String>,
    pub(super) nickname: Option<String>,
    pub(super) metadata: Metadata,
    pub(super) recurring: Option<Recurring>,
    pub(super) scheme: Scheme,
}

/// One price that a subscription bills.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) price: String,
    /// `None` for a metered price.
    pub(super) quantity: Option<u64>,
    pub(super) metadata: Metadata,
}

/// How far a subscription's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionState {
    Active,
    /// Active until its period ends; asked for at this time.
    Ending {
        asked_s: i64,
    },
    Canceled {
        asked_s: i64,
        ended_s: i64,
    },
}

/// A subscription. Payment is not modelled: it is active from its creation to its cancellation.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) customer: String,
    pub(super) currency: String,
    pub(super) cycle: Cycle,
    pub(super) anchor_s: i64,
    /// Periods between the anchor and the current period.
    pub(super) period_index: u32,
    pub(super) period_start_s: i64,
    pub(super) period_end_s: i64,
    pub(super) state: SubscriptionState,
    pub(super) items: Vec<Item>,
    pub(super) metadata: Metadata,
    pub(super) description: Option<String>,
    pub(super) latest_invoice: Option<String>,
}

/// What a line of an invoice bills, before its amount is known.
#[derive(Clone, Debug)]
pub(super) struct LinePlan {
    pub(super) id: String,
    pub(super) item: String,
    pub(super) price: String,
    /// `None`: what the price's meter counted within the period.
    pub(super) quantity: Option<u64>,
    pub(super) start_s: i64,
    pub(super) end_s: i64,
}

/// A line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) item: String,
    pub(super) price: String,
    pub(super) description: String,
    pub(super) quantity: u64,
    pub(super) unit: Amount,
    pub(super) cents: i64,
    pub(super) start_s: i64,
    pub(super) end_s: i64,
}

/// Why an invoice was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Create,
    Cycle,
    /// The subscription was canceled with `invoice_now`.
    Cancel,
}

/// How far an invoice has come.
#[derive(Clone, Debug)]
pub(super) enum InvoiceState {
    /// Its lines are read from the meters whenever somebody looks.
    Draft,
    /// Its lines are what they were then.
    Finalized { at_s: i64, number: String, lines: Vec<Line> },
}

/// An invoice of a subscription.
#[derive(Clone, Debug)]
pub(super) struct Invoice {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) customer: String,
    pub(super) subscription: String,
    pub(super) currency: String,
    pub(super) reason: Reason,
    pub(super) period_start_s: i64,
    pub(super) period_end_s: i64,
    pub(super) plan: Vec<LinePlan>,
    pub(super) auto_advance: bool,
    /// When `invoice.created` was answered 2xx; at creation if nobody was to be told.
    pub(super) announced_s: Option<i64>,
    pub(super) state: InvoiceState,
}

macro_rules! identified {
    ($($kind:ty),*) => { $(impl Identified for $kind { fn id(&self) -> &str { &self.id } })* };
}
identified!(Customer, Product, Meter, Price, Subscription, Invoice);

/// A meter event that Stripe has taken.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) identifier: String,
    pub(super) customer: String,
    pub(super) value: u64,
    pub(super) timestamp_s: i64,
    pub(super) accepted_s: i64,
}

/// What one meter counted for one customer.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// The sum of the events' values.
    pub(super) total: u64,
    pub(super) events: Vec<Event>,
}

/// A meter event that was taken and then refused, which Stripe tells later and elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub(super) event: Event,
    pub(super) code: &'static str,
}

/// The whole account.
#[derive(Debug)]
pub(super) struct World {
    pub(super) ids: Ids,
    pub(super) customers: Store<Customer>,
    pub(super) products: Store<Product>,
    pub(super) meters: Store<Meter>,
    pub(super) prices: Store<Price>,
    pub(super) subscriptions: Store<Subscription>,
    pub(super) invoices: Store<Invoice>,
    pub(super) checkout_sessions: Store<checkout::Session>,
    pub(super) portal_configurations: Store<portal::Configuration>,
    pub(super) portal_sessions: Store<portal::PortalSession>,
    pub(super) webhook_endpoints: Store<endpoints::Endpoint>,
    pub(super) destinations: Store<destinations::Destination>,
    /// Where this stand-in listens, with a `/` at its end: its pages are there.
    pub(super) base_url: String,
    /// What was counted, by meter and customer.
    pub(super) counted: BTreeMap<(String, String), Counted>,
    pub(super) counted_len: usize,
    pub(super) rejected: Vec<Rejected>,
    /// When each identifier of the last 24 hours was taken.
    pub(super) identifiers: HashMap<String, i64>,
    pub(super) identifier_order: VecDeque<(i64, String)>,
    /// How long an event takes to show in the summaries, in seconds.
    pub(super) summary_lag_s: i64,
    pub(super) outbox: Outbox,
    pub(super) next_invoice_number: u64,
    /// The next time at which billing has something to do; `None` until it has been looked for again.
    pub(super) next_due_s: Option<i64>,
}

impl World {
    /// An empty account; `run` tells its ids from those of other runs.
    pub(super) fn new(run: u32) -> Self {
        Self {
            ids: Ids { run, next: 0 },
            customers: Store::new("customer"),
            products: Store::new("product"),
            meters: Store::new("billing meter"),
            prices: Store::new("price"),
            subscriptions: Store::new("subscription"),
            invoices: Store::new("invoice"),
            checkout_sessions: Store::new("checkout session"),
            portal_configurations: Store::new("billing portal configuration"),
            portal_sessions: Store::new("billing portal session"),
            webhook_endpoints: Store::new("webhook endpoint"),
            destinations: Store::new("event destination"),
            base_url: "/".to_owned(),
            counted: BTreeMap::new(),
            counted_len: 0,
            rejected: Vec::new(),
            identifiers: HashMap::new(),
            identifier_order: VecDeque::new(),
            summary_lag_s: 0,
            outbox: Outbox::default(),
            next_invoice_number: 0,
            next_due_s: None,
        }
    }

    /// Whether a customer is there to buy something.
    pub(super) fn has_customer(&self, id: &str) -> bool {
        self.customers.get(id).is_some()
    }
}
