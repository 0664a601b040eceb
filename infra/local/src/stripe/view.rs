//! What a test or a demo can look at, without the API.
//!
//! Owns plain copies of what is stored. It changes nothing but what time has made due.

use serde_json::Value;

use super::catalog::{self, Era};
use super::error::ApiError;
use super::form::Params;
use super::payments::{Card, DunningEnd};
use super::webhooks::{Mischief, Payload, WebhookEndpoint};
use super::world::{Invoice, Line, Standing, World};
use super::{
    Stripe, Undelivered, WebhookEvent, billing, disputes, invoices, lock, meter_errors, meter_events,
    subscriptions,
};

/// How far an invoice has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// Its lines follow the meters.
    Draft,
    /// Final, with something to pay.
    Open,
    /// Paid, or final with nothing to pay.
    Paid,
    /// Written off.
    Uncollectible,
    /// Taken back.
    Void,
}

/// What an old account could not have had either, in the words of the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not even an old account has this: {0}")]
pub struct RefusedBefore(String);

/// There is no such object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Stripe has no such object")]
pub struct NoSuchObject;

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceLine {
    /// The price's id; empty for an amount without a price.
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
    /// Whether it is the share of a period that a change gave back or billed.
    pub proration: bool,
    /// The invoice item that it came from, `ii_...`.
    pub invoice_item: Option<String>,
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
    /// What is to be paid, or was: the total and the customer's balance, in cents. Of a draft: as it stands now.
    pub due_cents: i64,
    /// Why it was made: `subscription_create`, `subscription_cycle` or `subscription_update`.
    pub reason: &'static str,
    /// Payments that were tried: the first one, and each retry of the schedule.
    pub attempts: usize,
    /// When it was paid, in Unix seconds.
    pub paid_s: Option<i64>,
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

    /// The events that Stripe has made (`invoice.created` and so on), oldest first; only the latest 30,000 are kept.
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
        invoices.map(|invoice| view_invoice(&world, invoice)).collect()
    }

    /// Makes a price from before there were meters, by the parameters of `POST /v1/prices`: a metered one needs no
    /// `recurring[meter]`, and the API attaches it to nothing any more. Its id.
    ///
    /// # Errors
    /// [`RefusedBefore`] as the API refuses any price.
    pub fn legacy_price(&self, form: &[(&str, &str)]) -> Result<String, RefusedBefore> {
        let now_s = self.now_s();
        let params = Params::of(form.iter().copied());
        made(catalog::create_price(&mut lock(&self.shared().world), params, Era::BeforeMeters, now_s))
    }

    /// Makes a subscription from before there were meters, by the parameters of `POST /v1/subscriptions`: it is in
    /// classic billing mode, and metered prices without a meter can be in it. Its id.
    ///
    /// # Errors
    /// [`RefusedBefore`] as the API refuses any subscription.
    pub fn legacy_subscription(&self, form: &[(&str, &str)]) -> Result<String, RefusedBefore> {
        let now_s = self.now_s();
        self.shared().catch_up();
        let params = Params::of(form.iter().copied());
        let made =
            made(subscriptions::create(&mut lock(&self.shared().world), params, Era::BeforeMeters, now_s));
        self.shared().wake_if_due();
        made
    }

    /// Sets whether a schedule refuses a price without a meter also where it only repeats what its subscription has. Stripe's
    /// guide has it taken, its changelog can be read as a refusal: whoever moves subscriptions must live with both.
    pub fn refuse_legacy_phases(&self, refuse: bool) {
        lock(&self.shared().world).refuses_legacy_phases = refuse;
    }

    /// Adds to what an item of such a subscription has used, as of now, in units: the usage records that the API had. They
    /// are billed with the period that they fall in.
    ///
    /// # Errors
    /// [`NoSuchObject`] unless a subscription that is in force has this item, with a metered price without a meter, and
    /// the account has room for the record.
    pub fn legacy_usage(&self, item: &str, quantity: u64) -> Result<(), NoSuchObject> {
        self.shared().catch_up();
        let now_s = self.now_s();
        let world = &mut *lock(&self.shared().world);
        if meter_events::record(world, item, quantity, now_s) { Ok(()) } else { Err(NoSuchObject) }
    }

    /// Changes how a customer's card behaves from now on.
    ///
    /// # Errors
    /// [`NoSuchObject`] for a customer that does not exist.
    pub fn set_card(&self, customer: &str, card: Card) -> Result<(), NoSuchObject> {
        lock(&self.shared().world).customers.get_mut(customer).ok_or(NoSuchObject)?.card = card;
        Ok(())
    }

    /// What becomes from now on of a subscription when the last retry of its latest invoice has failed.
    pub fn set_dunning_end(&self, end: DunningEnd) {
        lock(&self.shared().world).dunning_end = end;
    }

    /// Sets how long drafts wait, in seconds, whatever the webhooks answer; `None`: an hour after `invoice.created` was
    /// answered, as without a setting.
    pub fn set_finalization_grace(&self, grace_s: Option<u32>) {
        let mut world = lock(&self.shared().world);
        world.finalization_grace_s = grace_s.map(i64::from);
        world.next_due_s = None;
    }

    /// Opens a dispute about a charge, or about the charge that paid an invoice. Its id, `du_...`.
    ///
    /// # Errors
    /// [`NoSuchObject`] if no such charge was paid.
    pub fn open_dispute(&self, charge_or_invoice: &str) -> Result<String, NoSuchObject> {
        let now_s = self.now_s();
        let opened = disputes::open(&mut lock(&self.shared().world), charge_or_invoice, now_s);
        self.shared().wake_if_due();
        opened.ok_or(NoSuchObject)
    }

    /// Refuses a meter event that was taken and counted, as if it had been found wrong only now; a report tells of it.
    ///
    /// # Errors
    /// [`NoSuchObject`] if no event with this identifier is counted.
    pub fn reject_meter_event(&self, identifier: &str) -> Result<(), NoSuchObject> {
        let (now_s, code) = (self.now_s(), "meter_event_customer_not_found");
        let found = meter_events::reject_counted(&mut lock(&self.shared().world), identifier, code, now_s);
        if found { Ok(()) } else { Err(NoSuchObject) }
    }

    /// Tells, as `v1.billing.meter.no_meter_found`, of an event whose meter nobody knows.
    pub fn report_no_meter(&self, identifier: &str) {
        let now_s = self.now_s();
        meter_errors::tell_no_meter(&mut lock(&self.shared().world), identifier, now_s);
        self.shared().wake_if_due();
    }

    /// Where thin events are sent from now on, while no event destination is listed.
    pub fn set_thin_webhook(&self, webhook: Option<WebhookEndpoint>) {
        lock(&self.shared().world).outbox.set_simple(Payload::Thin, webhook);
        self.shared().wake_if_due();
    }

    /// What goes wrong with deliveries from now on. What waits already is late or doubled no more than it was.
    pub fn set_mischief(&self, mischief: Option<Mischief>) {
        lock(&self.shared().world).outbox.set_mischief(mischief);
    }

    /// How many deliveries [`Mischief`] has lost.
    pub fn lost_deliveries(&self) -> usize {
        lock(&self.shared().world).outbox.lost()
    }
}

fn made(answer: Result<Value, ApiError>) -> Result<String, RefusedBefore> {
    let answer = answer.map_err(|error| RefusedBefore(error.message().to_owned()))?;
    Ok(answer.get("id").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn view_line(world: &World, line: Line) -> InvoiceLine {
    let price = line.price.as_ref().and_then(|id| world.prices.get(id));
    InvoiceLine {
        lookup_key: price.and_then(|price| price.lookup_key.clone()),
        metered: price.is_some_and(billing::is_metered),
        price: line.price.unwrap_or_default(),
        quantity: line.quantity,
        cents: line.cents,
        description: line.description,
        start_s: line.start_s,
        end_s: line.end_s,
        proration: line.proration,
        invoice_item: line.invoice_item,
    }
}

fn view_invoice(world: &World, invoice: &Invoice) -> InvoiceView {
    let lines = invoices::lines(world, invoice);
    let total_cents = invoices::total(&lines);
    let balance = world.customers.get(&invoice.customer).map_or(0, |customer| customer.balance_cents);
    let fixed = invoice.final_part();
    let (status, paid_s) = match fixed.map(|fixed| fixed.standing) {
        None => (InvoiceStatus::Draft, None),
        Some(Standing::Open) => (InvoiceStatus::Open, None),
        Some(Standing::Paid { at_s }) => (InvoiceStatus::Paid, Some(at_s)),
        Some(Standing::Uncollectible { .. }) => (InvoiceStatus::Uncollectible, None),
        Some(Standing::Void { .. }) => (InvoiceStatus::Void, None),
    };
    InvoiceView {
        id: invoice.id.clone(),
        subscription: invoice.subscription.clone(),
        status,
        period_start_s: invoice.period_start_s,
        period_end_s: invoice.period_end_s,
        created_s: invoice.created_s,
        finalized_s: fixed.map(|fixed| fixed.at_s),
        lines: lines.into_iter().map(|line| view_line(world, line)).collect(),
        total_cents,
        due_cents: fixed.map_or_else(|| invoices::amounts(total_cents, balance).0, |fixed| fixed.due_cents),
        reason: invoice.reason.as_str(),
        attempts: invoice.attempts,
        paid_s,
    }
}
