//! Prorations: what a change in the middle of a period gives back and bills.
//!
//! Owns the invoice items that a change makes: the credit for the time that is left of what was billed, the debit for the
//! time that is left at the new price, and the usage so far of a metered item that goes. All by the second, each rounded
//! once. It never changes a subscription.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::error::ApiError;
use super::world::{Debit, InvoiceItem, Item, Subscription, World};
use super::{invoices, money};

/// What a licensed quantity costs for a whole period, in cents.
pub(super) fn full_cents(world: &World, price: &str, quantity: u64) -> Option<i64> {
    let charges = invoices::charges(world, price, quantity)?;
    charges.iter().try_fold(0, |sum: i64, charge| sum.checked_add(charge.cents))
}

fn day(at_s: i64) -> String {
    DateTime::from_timestamp(at_s, 0).map_or_else(String::new, |at| at.format("%d %b %Y").to_string())
}

fn counted(quantity: u64, name: &str) -> String {
    if quantity == 1 { name.to_owned() } else { format!("{quantity} × {name}") }
}

fn pending(world: &mut World, of: &Subscription, item: &Item, at_s: i64) -> InvoiceItem {
    InvoiceItem {
        id: world.ids.next("ii"),
        created_s: at_s,
        customer: of.customer.clone(),
        subscription: Some(of.id.clone()),
        item: Some(item.id.clone()),
        price: Some(item.price.clone()),
        currency: of.currency.clone(),
        description: String::new(),
        quantity: item.quantity.unwrap_or(1),
        unit: String::new(),
        cents: 0,
        start_s: at_s,
        end_s: at_s,
        proration: true,
        metadata: BTreeMap::new(),
        invoice: None,
    }
}

/// Gives back what was billed for the time that is left: a share of the amount that was billed then.
pub(super) fn credit(world: &mut World, of: &Subscription, item: &Item, at_s: i64) -> Result<(), ApiError> {
    let Some(debit) = item.debit.filter(|debit| debit.end_s > at_s) else { return Ok(()) };
    let whole_s = debit.end_s - debit.start_s;
    let left = money::share(debit.cents, debit.end_s - at_s.max(debit.start_s), whole_s);
    let cents = -left.ok_or_else(|| ApiError::server(500))?;
    let name = counted(item.quantity.unwrap_or(1), invoices::product_name(world, &item.price));
    let credit = InvoiceItem {
        description: format!("Unused time on {name} after {}", day(at_s)),
        unit: money::per_unit(cents, item.quantity.unwrap_or(1)),
        cents,
        end_s: debit.end_s,
        ..pending(world, of, item, at_s)
    };
    world.invoice_items.insert(credit)
}

/// Bills the time that is left of the current period. What was billed, for a credit to come.
pub(super) fn debit(
    world: &mut World,
    of: &Subscription,
    item: &Item,
    at_s: i64,
) -> Result<Option<Debit>, ApiError> {
    let Some(quantity) = item.quantity else { return Ok(None) };
    let full = full_cents(world, &item.price, quantity);
    let part = |full| money::share(full, of.period_end_s - at_s, of.period_end_s - of.period_start_s);
    let cents = full.and_then(part).ok_or_else(|| ApiError::server(500))?;
    let name = counted(quantity, invoices::product_name(world, &item.price));
    let debit = InvoiceItem {
        description: format!("Remaining time on {name} after {}", day(at_s)),
        unit: money::per_unit(cents, quantity),
        cents,
        end_s: of.period_end_s,
        ..pending(world, of, item, at_s)
    };
    world.invoice_items.insert(debit)?;
    Ok(Some(Debit { cents, start_s: at_s, end_s: of.period_end_s }))
}

/// Bills what a metered item that goes has counted so far, at its own price.
pub(super) fn usage(world: &mut World, of: &Subscription, item: &Item, at_s: i64) -> Result<(), ApiError> {
    let from_s = item.usage_from_s.max(of.period_start_s);
    let whose = invoices::User { customer: &of.customer, item: &item.id, price: &item.price };
    let quantity = invoices::usage(world, whose, from_s, at_s);
    if quantity == 0 {
        return Ok(());
    }
    let charges = invoices::charges(world, &item.price, quantity).ok_or_else(|| ApiError::server(500))?;
    for charge in charges {
        let used = InvoiceItem {
            description: invoices::describe(&charge, invoices::product_name(world, &item.price)),
            quantity: charge.quantity,
            unit: charge.unit.decimal(),
            cents: charge.cents,
            start_s: from_s,
            proration: false,
            ..pending(world, of, item, at_s)
        };
        world.invoice_items.insert(used)?;
    }
    Ok(())
}
