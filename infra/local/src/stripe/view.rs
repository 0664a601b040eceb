//! What a test or a demo can look at, without the API.
//!
//! Owns plain copies of what is stored. It changes nothing but what time has made due.

use super::world::{InvoiceState, Usage};
use super::{Stripe, Undelivered, WebhookEvent, billing, lock};

/// How far an invoice has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// Its lines follow the meters.
    Draft,
    /// Final, with something to pay.
    Open,
    /// Final, with nothing to pay.
    Paid,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceLine {
    /// The price's id.
    pub price: String,
    /// The price's lookup key.
    pub lookup_key: Option<String>,
    /// Whether the quantity is what a meter counted.
    pub metered: bool,
    /// Units.
    pub quantity: u64,
    /// The amount, in cents.
    pub cents: i64,
    /// What the customer reads.
    pub description: String,
    /// The first second of what is billed, in Unix seconds.
    pub start_s: i64,
    /// The first second after what is billed, in Unix seconds.
    pub end_s: i64,
}

/// One invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceView {
    /// `in_...`
    pub id: String,
    /// `sub_...`
    pub subscription: String,
    /// How far it has come.
    pub status: InvoiceStatus,
    /// The first second of the period whose usage it bills, in Unix seconds.
    pub period_start_s: i64,
    /// The first second after that period, in Unix seconds.
    pub period_end_s: i64,
    /// When it was made, in Unix seconds.
    pub created_s: i64,
    /// When it became final, in Unix seconds.
    pub finalized_s: Option<i64>,
    /// Its lines: one for each licensed item, one for each tier reached of each metered item.
    pub lines: Vec<InvoiceLine>,
    /// The sum of the lines, in cents.
    pub total_cents: i64,
}

impl InvoiceView {
    /// What the meters counted for it, in units.
    pub fn metered_quantity(&self) -> u64 {
        self.lines.iter().filter(|line| line.metered).map(|line| line.quantity).sum()
    }

    /// What the metered lines cost, in cents.
    pub fn metered_cents(&self) -> i64 {
        self.lines.iter().filter(|line| line.metered).map(|line| line.cents).sum()
    }
}

/// A meter event that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterEventView {
    /// The caller's identifier, or the one that was made for it.
    pub identifier: String,
    /// `cus_...`
    pub customer: String,
    /// Units.
    pub value: u64,
    /// When it was used, in Unix seconds.
    pub timestamp_s: i64,
    /// When it was taken, in Unix seconds of Stripe's clock.
    pub accepted_s: i64,
}

/// A meter event that was taken and not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedEvent {
    /// The event.
    pub event: MeterEventView,
    /// Why, such as `meter_event_customer_not_found`.
    pub code: &'static str,
}

fn view(event: &super::world::Event) -> MeterEventView {
    MeterEventView {
        identifier: event.identifier.clone(),
        customer: event.customer.clone(),
        value: event.value,
        timestamp_s: event.timestamp_s,
        accepted_s: event.accepted_s,
    }
}

impl Stripe {
    /// What all meters counted for a customer, for events from `start_s` until before `end_s`, in Unix seconds.
    pub fn counted(&self, customer: &str, start_s: i64, end_s: i64) -> u64 {
        let world = lock(&self.shared().world);
        world.meters.iter().map(|meter| world.usage(&meter.id, customer, start_s, end_s)).sum()
    }

    /// Every meter event that was counted, by meter and customer, in the order of acceptance.
    pub fn meter_events(&self) -> Vec<MeterEventView> {
        let world = lock(&self.shared().world);
        world.counted.values().flat_map(|counted| &counted.events).map(view).collect()
    }

    /// Every meter event that was taken and then rejected, in the order of acceptance.
    pub fn rejected_meter_events(&self) -> Vec<RejectedEvent> {
        let world = lock(&self.shared().world);
        let rejected = world.rejected.iter();
        rejected.map(|rejected| RejectedEvent { event: view(&rejected.event), code: rejected.code }).collect()
    }

    /// The events that Stripe has made (`invoice.created` and so on), oldest first; only the latest 10,000 are kept.
    pub fn events(&self) -> Vec<WebhookEvent> {
        self.shared().catch_up();
        lock(&self.shared().world).outbox.events()
    }

    /// The events that the endpoint has not answered 2xx yet, oldest first.
    pub fn undelivered(&self) -> Vec<Undelivered> {
        self.shared().catch_up();
        lock(&self.shared().world).outbox.undelivered()
    }

    /// The invoices of a customer, oldest first.
    pub fn invoices(&self, customer: &str) -> Vec<InvoiceView> {
        self.shared().catch_up();
        let world = lock(&self.shared().world);
        let invoices = world.invoices.iter().filter(|invoice| invoice.customer == customer);
        let views = invoices.map(|invoice| {
            let lines = billing::lines(&world, invoice);
            let total_cents = billing::total(&lines);
            let (status, finalized_s) = match &invoice.state {
                InvoiceState::Draft => (InvoiceStatus::Draft, None),
                InvoiceState::Finalized { at_s, .. } if total_cents == 0 => {
                    (InvoiceStatus::Paid, Some(*at_s))
                }
                InvoiceState::Finalized { at_s, .. } => (InvoiceStatus::Open, Some(*at_s)),
            };
            let lines = lines.into_iter().map(|line| {
                let price = world.prices.get(&line.price);
                let usage =
                    price.and_then(|price| price.recurring.as_ref()).map(|recurring| &recurring.usage);
                InvoiceLine {
                    lookup_key: price.and_then(|price| price.lookup_key.clone()),
                    metered: matches!(usage, Some(Usage::Metered { .. })),
                    price: line.price,
                    quantity: line.quantity,
                    cents: line.cents,
                    description: line.description,
                    start_s: line.start_s,
                    end_s: line.end_s,
                }
            });
            InvoiceView {
                id: invoice.id.clone(),
                subscription: invoice.subscription.clone(),
                status,
                period_start_s: invoice.period_start_s,
                period_end_s: invoice.period_end_s,
                created_s: invoice.created_s,
                finalized_s,
                lines: lines.collect(),
                total_cents,
            }
        });
        views.collect()
    }
}
