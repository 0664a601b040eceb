//! Payments: cards, charges, retries, and how a subscription follows its latest invoice.
//!
//! Owns whether an invoice gets paid and what an unpaid one does to its subscription. A card only works, fails or is not
//! there: no bank, no fraud check and no authentication is modelled.

use serde_json::Value;

use super::calendar::DAY_S;
use super::error::ApiError;
use super::form::Params;
use super::world::{Charge, Reason, Standing, Status, World};
use super::{billing, invoices, subscriptions, wire};

/// The retry schedule: how long after each failure the next attempt is, in seconds.
const RETRY_DELAYS_S: [i64; 3] = [3 * DAY_S, 5 * DAY_S, 7 * DAY_S];

/// How a customer's card behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Card {
    /// Every charge succeeds.
    #[default]
    Works,
    /// Every charge is declined.
    Fails,
    /// There is none.
    None,
}

/// What becomes of a subscription when the last retry of its latest invoice has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DunningEnd {
    /// It is canceled.
    #[default]
    Canceled,
    /// It is marked unpaid: its later invoices stay drafts.
    Unpaid,
    /// It stays past due.
    PastDue,
}

/// Who wants a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    BySchedule,
    ByRequest,
}

/// Tries to get a final invoice paid. Whether it is.
pub(super) fn collect(world: &mut World, id: &str, asked: Asked, at_s: i64) -> bool {
    let Some(invoice) = world.invoices.get(id) else { return false };
    let Some(cents) = invoice.open_cents() else {
        return invoice.final_part().is_some_and(|fixed| matches!(fixed.standing, Standing::Paid { .. }));
    };
    let (customer, currency) = (invoice.customer.clone(), invoice.currency.clone());
    let card = world.customers.get(&customer).map_or(Card::None, |customer| customer.card);
    if card != Card::None {
        let charge = Charge {
            id: world.ids.next("ch"),
            intent: world.ids.next("pi"),
            created_s: at_s,
            customer,
            invoice: id.to_owned(),
            currency,
            cents,
            paid: card == Card::Works,
            disputed: false,
        };
        if let Err(error) = world.charges.insert(charge) {
            tracing::error!(?error, invoice = id, "a charge was not made");
            return false;
        }
    }
    let counts = count_attempt(world, id, asked);
    if card == Card::Works {
        invoices::settle(world, id, Standing::Paid { at_s }, at_s);
        return true;
    }
    fail(world, id, counts, at_s);
    false
}

/// Any payment counts as the first attempt; after it only those of the schedule do. Whether this one does.
fn count_attempt(world: &mut World, id: &str, asked: Asked) -> bool {
    let Some(invoice) = world.invoices.get_mut(id) else { return false };
    let counts = asked == Asked::BySchedule || invoice.attempts == 0;
    invoice.attempts += usize::from(counts);
    counts
}

/// `counts`: whether the schedule goes on from this attempt.
fn fail(world: &mut World, id: &str, counts: bool, at_s: i64) {
    let Some(invoice) = world.invoices.get(id) else { return };
    let Some(subscription) = world.subscriptions.get(&invoice.subscription) else { return };
    let first_of_all = invoice.reason == Reason::Create;
    let (of, over) = (subscription.id.clone(), subscription.status.is_over());
    let next_s = RETRY_DELAYS_S.get(invoice.attempts.saturating_sub(1)).map(|delay_s| at_s + delay_s);
    let exhausted = next_s.is_none() && counts;
    if let Some(invoice) = world.invoices.get_mut(id).filter(|_| counts) {
        // A first invoice has no retries: it waits 23 hours for its customer.
        invoice.next_attempt_s = next_s.filter(|_| invoice.auto_advance && !first_of_all && !over);
    }
    world.next_due_s = None;
    invoices::announce(world, id, "invoice.payment_failed", at_s);
    follow(world, &of, at_s);
    let is_latest = world
        .subscriptions
        .get(&of)
        .and_then(|found| invoices::latest_final(world, found))
        .is_some_and(|latest| latest.id == id);
    // Whose latest invoice was paid is left alone, whatever becomes of an older one.
    if exhausted && is_latest && !first_of_all && !over {
        end_dunning(world, &of, at_s);
    }
}

fn end_dunning(world: &mut World, of: &str, at_s: i64) {
    match world.dunning_end {
        DunningEnd::PastDue => {}
        DunningEnd::Canceled => {
            billing::cancel(world, of, "payment_failed", billing::Leaves::Nothing, at_s);
        }
        DunningEnd::Unpaid => {
            billing::change(world, of, at_s, |subscription| subscription.status = Status::Unpaid);
        }
    }
}

/// Lets a subscription's status follow its latest final invoice.
pub(super) fn follow(world: &mut World, of: &str, at_s: i64) {
    let Some(subscription) = world.subscriptions.get(of) else { return };
    let Some(latest) = invoices::latest_final(world, subscription) else { return };
    let Some(fixed) = latest.final_part() else { return };
    let (is_open, is_paid) =
        (fixed.standing == Standing::Open, matches!(fixed.standing, Standing::Paid { .. }));
    let status = match subscription.status {
        Status::Active if is_open && latest.reason != Reason::Create && latest.attempts > 0 => {
            Status::PastDue
        }
        Status::PastDue | Status::Unpaid if !is_open => Status::Active,
        Status::Incomplete if is_paid => Status::Active,
        same => same,
    };
    if status != subscription.status {
        billing::change(world, of, at_s, |subscription| subscription.status = status);
    }
}

/// `GET /v1/charges/:id`
pub(super) fn retrieve_charge(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(subscriptions::CUSTOMER_ONLY)?;
    params.finish()?;
    let charge = world.charges.get(id).ok_or_else(|| ApiError::no_such("charge", id))?;
    Ok(wire::charge(world, charge))
}

/// `GET /v1/charges`
pub(super) fn list_charges(world: &World, mut params: Params) -> Result<Value, ApiError> {
    params.refuse_unmodelled(&["created", "transfer_group"])?;
    let customer = params.text("customer")?;
    let intent = params.text("payment_intent")?;
    let page = params.page()?;
    params.expand(&[])?;
    params.finish()?;
    let (found, more) = world.charges.page(&page, |charge| {
        customer.as_ref().is_none_or(|customer| charge.customer == *customer)
            && intent.as_ref().is_none_or(|intent| charge.intent == *intent)
    })?;
    let data: Vec<Value> = found.into_iter().map(|charge| wire::charge(world, charge)).collect();
    Ok(wire::list("/v1/charges", &data, more))
}
