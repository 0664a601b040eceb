//! What this Stripe account holds.
//!
//! Owns the stored objects, their ids and their bounds. It knows no HTTP and no JSON, and never reads a clock: `now` is
//! passed in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::calendar::Cycle;
use super::error::ApiError;
use super::form::{Cursor, Metadata, Page};
use super::money::{Price as Amount, Tier};
use super::payments::{Card, DunningEnd};
use super::schedules::Schedule;
use super::webhooks::Outbox;
use super::{checkout, destinations, endpoints, portal};

/// Most objects of one kind.
const MAX_OBJECTS: usize = 100_000;

/// Objects of one kind in the order of their creation.
#[derive(Debug)]
pub(super) struct Store<T> {
    what: &'static str,
    items: Vec<T>,
    by_id: HashMap<String, usize>,
    /// The places of those that were removed: places never move, so that the order stays.
    removed: HashSet<usize>,
}

/// An object with an id.
pub(super) trait Identified {
    /// The id, unique in its store.
    fn id(&self) -> &str;
}

impl<T: Identified> Store<T> {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, items: Vec::new(), by_id: HashMap::new(), removed: HashSet::new() }
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

    /// Forgets an object, which nobody finds any more.
    pub(super) fn remove(&mut self, id: &str) {
        if let Some(place) = self.by_id.remove(id) {
            self.removed.insert(place);
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        let kept = self.items.iter().enumerate().filter(|(place, _)| !self.removed.contains(place));
        kept.map(|(_, item)| item)
    }

    /// One page of the objects that match, newest first, and whether more follow.
    pub(super) fn page(
        &self,
        page: &Page,
        matches: impl Fn(&T) -> bool,
    ) -> Result<(Vec<&T>, bool), ApiError> {
        let found: Vec<&T> = self.iter().rev().filter(|item| matches(item)).collect();
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
    /// How the customer pays.
    pub(super) card: Card,
    /// What the next invoice begins with, in cents: what is owed, or less than zero for a credit.
    pub(super) balance_cents: i64,
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
    /// When it was deactivated, if it is.
    pub(super) inactive_s: Option<i64>,
}

/// What a recurring price counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Licensed,
    Metered {
        meter: String,
    },
    /// From before there were meters: what was recorded for the subscription's item itself.
    Records,
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

/// What was billed in advance for a stretch of time: what a credit is a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Debit {
    pub(super) cents: i64,
    pub(super) start_s: i64,
    pub(super) end_s: i64,
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
    /// Of a metered item: from when on its usage is on no invoice and no invoice item yet.
    pub(super) usage_from_s: i64,
    /// Of a licensed item: what was billed for the time that runs.
    pub(super) debit: Option<Debit>,
}

/// How far a subscription's life has come, in Stripe's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Incomplete,
    IncompleteExpired,
    Trialing,
    Active,
    PastDue,
    Unpaid,
    /// A trial ended without a card.
    Paused,
    Canceled,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Unpaid => "unpaid",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing happens to it any more.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::IncompleteExpired | Self::Canceled)
    }
}

/// When a subscription is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelAt {
    /// With its period, whenever that ends.
    PeriodEnd,
    /// At this time.
    Time(i64),
}

/// A cancellation that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) at: CancelAt,
    pub(super) asked_s: i64,
}

/// What becomes of a subscription whose trial ends while there is no card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCard {
    CreateInvoice,
    Cancel,
    Pause,
}

/// A trial, past or present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) start_s: i64,
    pub(super) end_s: i64,
    /// Whether its end was announced.
    pub(super) warned: bool,
    pub(super) no_card: NoCard,
}

/// What becomes of the invoices that are made while payment collection is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PauseBehavior {
    KeepAsDraft,
    MarkUncollectible,
    Void,
}

/// How prorations and invoices are reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BillingMode {
    /// As before 2025: only what it has in common with the other is modelled.
    Classic,
    /// `since_s`: when it was changed to it, if it was.
    Flexible { since_s: Option<i64> },
}

/// A pause of payment collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) behavior: PauseBehavior,
    pub(super) resumes_s: Option<i64>,
}

/// A subscription.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) customer: String,
    pub(super) currency: String,
    pub(super) cycle: Cycle,
    pub(super) anchor_s: i64,
    /// Which boundary after the anchor ends the current period: 0 while the anchor lies ahead.
    pub(super) end_index: u32,
    pub(super) period_start_s: i64,
    pub(super) period_end_s: i64,
    pub(super) status: Status,
    pub(super) mode: BillingMode,
    /// The schedule that changes it over time.
    pub(super) schedule: Option<String>,
    pub(super) ending: Option<Ending>,
    pub(super) canceled_s: Option<i64>,
    pub(super) ended_s: Option<i64>,
    /// Why it was canceled.
    pub(super) end_reason: Option<&'static str>,
    pub(super) trial: Option<Trial>,
    pub(super) pause: Option<Pause>,
    pub(super) items: Vec<Item>,
    pub(super) metadata: Metadata,
    pub(super) description: Option<String>,
    pub(super) default_payment_method: Option<String>,
    pub(super) latest_invoice: Option<String>,
}

impl Subscription {
    /// When it ends, as it was asked for.
    pub(super) fn ends_s(&self) -> Option<i64> {
        self.ending.map(|ending| match ending.at {
            CancelAt::PeriodEnd => self.period_end_s,
            CancelAt::Time(at_s) => at_s,
        })
    }
}

/// What a line of an invoice bills, before its amount is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bills {
    /// What the price's meter counted within the period.
    Usage,
    /// The same, in a trial: for nothing.
    FreeUsage,
    /// A licensed quantity for a whole period.
    Quantity(u64),
    /// A licensed quantity in a trial: for nothing.
    FreeQuantity(u64),
    /// A licensed quantity for a part of a period: this much.
    Part { quantity: u64, cents: i64 },
}

/// A line of an invoice, before its amount is known.
#[derive(Clone, Debug)]
pub(super) struct LinePlan {
    pub(super) id: String,
    pub(super) item: String,
    pub(super) price: String,
    pub(super) bills: Bills,
    pub(super) start_s: i64,
    pub(super) end_s: i64,
}

/// A line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: String,
    /// The subscription's item.
    pub(super) item: Option<String>,
    pub(super) price: Option<String>,
    /// The invoice item that it came from.
    pub(super) invoice_item: Option<String>,
    pub(super) subscription: Option<String>,
    pub(super) description: String,
    pub(super) quantity: u64,
    /// Cents for one unit, in decimal.
    pub(super) unit: String,
    pub(super) cents: i64,
    pub(super) start_s: i64,
    pub(super) end_s: i64,
    pub(super) proration: bool,
    pub(super) metadata: Metadata,
}

/// An amount that waits for an invoice, or that is on one.
#[derive(Clone, Debug)]
pub(super) struct InvoiceItem {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) customer: String,
    /// The subscription whose next invoice takes it; `None`: the customer's next one.
    pub(super) subscription: Option<String>,
    /// The subscription's item.
    pub(super) item: Option<String>,
    pub(super) price: Option<String>,
    pub(super) currency: String,
    pub(super) description: String,
    pub(super) quantity: u64,
    pub(super) unit: String,
    pub(super) cents: i64,
    pub(super) start_s: i64,
    pub(super) end_s: i64,
    pub(super) proration: bool,
    pub(super) metadata: Metadata,
    /// The invoice that it is on.
    pub(super) invoice: Option<String>,
}

/// Why an invoice was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Create,
    Cycle,
    /// The subscription was changed, or canceled with `invoice_now`.
    Update,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "subscription_create",
            Self::Cycle => "subscription_cycle",
            Self::Update => "subscription_update",
        }
    }
}

/// Where a final invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Paid { at_s: i64 },
    Uncollectible { at_s: i64 },
    Void { at_s: i64 },
}

/// What became fixed when an invoice became final.
#[derive(Clone, Debug)]
pub(super) struct Final {
    pub(super) at_s: i64,
    pub(super) number: String,
    pub(super) lines: Vec<Line>,
    /// What is to be paid, in cents.
    pub(super) due_cents: i64,
    /// The customer's balance before and after it, in cents.
    pub(super) balance_before_cents: i64,
    pub(super) balance_after_cents: i64,
    pub(super) standing: Standing,
}

/// How far an invoice has come.
#[derive(Clone, Debug)]
pub(super) enum InvoiceState {
    /// Its lines are read from the meters whenever somebody looks.
    Draft,
    /// Its lines are what they were then.
    Final(Box<Final>),
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
    /// The invoice items that waited for it, the latest first.
    pub(super) pending: Vec<String>,
    /// The invoice items that were added to the draft, in their order.
    pub(super) added: Vec<String>,
    pub(super) auto_advance: bool,
    /// When `invoice.created` was answered 2xx; at creation if nobody was to be told.
    pub(super) announced_s: Option<i64>,
    /// Payments tried: the first one, and each retry of the schedule.
    pub(super) attempts: usize,
    /// When the next payment is tried.
    pub(super) next_attempt_s: Option<i64>,
    pub(super) state: InvoiceState,
}

impl Invoice {
    /// What is fixed, once it is final.
    pub(super) fn final_part(&self) -> Option<&Final> {
        match &self.state {
            InvoiceState::Draft => None,
            InvoiceState::Final(fixed) => Some(fixed),
        }
    }

    /// What is to be paid and is not, in cents.
    pub(super) fn open_cents(&self) -> Option<i64> {
        let fixed = self.final_part()?;
        matches!(fixed.standing, Standing::Open | Standing::Uncollectible { .. }).then_some(fixed.due_cents)
    }
}

/// An attempt to take money from a card.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) intent: String,
    pub(super) created_s: i64,
    pub(super) customer: String,
    pub(super) invoice: String,
    pub(super) currency: String,
    pub(super) cents: i64,
    pub(super) paid: bool,
    pub(super) disputed: bool,
}

/// A charge that the cardholder's bank took back for now.
#[derive(Clone, Debug)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) created_s: i64,
    pub(super) charge: String,
}

macro_rules! identified {
    ($($kind:ty),*) => { $(impl Identified for $kind { fn id(&self) -> &str { &self.id } })* };
}
identified!(Customer, Product, Meter, Price, Subscription, Invoice, InvoiceItem, Charge, Dispute);

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
    /// The meter's id.
    pub(super) meter: String,
    pub(super) event: Event,
    pub(super) code: &'static str,
    /// When it was refused.
    pub(super) at_s: i64,
    /// Whether it was told.
    pub(super) told: bool,
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
    pub(super) schedules: Store<Schedule>,
    pub(super) invoices: Store<Invoice>,
    pub(super) invoice_items: Store<InvoiceItem>,
    pub(super) charges: Store<Charge>,
    pub(super) disputes: Store<Dispute>,
    /// The customers that there were.
    pub(super) deleted_customers: HashSet<String>,
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
    /// What was recorded for an item whose price has no meter: when, and how much.
    pub(super) records: BTreeMap<String, Vec<(i64, u64)>>,
    pub(super) records_len: usize,
    pub(super) rejected: Vec<Rejected>,
    /// When each identifier of the last 24 hours was taken.
    pub(super) identifiers: HashMap<String, i64>,
    pub(super) identifier_order: VecDeque<(i64, String)>,
    /// How long an event takes to show in the summaries, in seconds.
    pub(super) summary_lag_s: i64,
    pub(super) outbox: Outbox,
    /// How long a draft waits, in seconds, whatever the webhooks answer; `None`: Stripe's own hour.
    pub(super) finalization_grace_s: Option<i64>,
    /// Whether a schedule refuses to be given a price without a meter again, even in its current phase.
    pub(super) refuses_legacy_phases: bool,
    /// What becomes of a subscription when the last retry has failed.
    pub(super) dunning_end: DunningEnd,
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
            schedules: Store::new("subscription schedule"),
            invoices: Store::new("invoice"),
            invoice_items: Store::new("invoiceitem"),
            charges: Store::new("charge"),
            disputes: Store::new("dispute"),
            deleted_customers: HashSet::new(),
            checkout_sessions: Store::new("checkout session"),
            portal_configurations: Store::new("billing portal configuration"),
            portal_sessions: Store::new("billing portal session"),
            webhook_endpoints: Store::new("webhook endpoint"),
            destinations: Store::new("event destination"),
            base_url: "/".to_owned(),
            counted: BTreeMap::new(),
            counted_len: 0,
            records: BTreeMap::new(),
            records_len: 0,
            rejected: Vec::new(),
            identifiers: HashMap::new(),
            identifier_order: VecDeque::new(),
            summary_lag_s: 0,
            outbox: Outbox::default(),
            finalization_grace_s: None,
            refuses_legacy_phases: false,
            dunning_end: DunningEnd::default(),
            next_invoice_number: 0,
            next_due_s: None,
        }
    }

    /// Whether a customer is there to buy something.
    pub(super) fn has_customer(&self, id: &str) -> bool {
        self.customers.get(id).is_some()
    }
}
