//! The end of a customer.
//!
//! Owns the deletion: what it ends at once and what is still told of a customer that is gone.

use serde_json::{Value, json};

use super::error::ApiError;
use super::form::Params;
use super::webhooks::Subject;
use super::world::World;
use super::{billing, wire};

/// What is left of a deleted customer.
pub(super) fn tombstone(id: &str) -> Value {
    json!({ "id": id, "object": "customer", "deleted": true })
}

/// `DELETE /v1/customers/:id`
pub(super) fn delete(world: &mut World, id: &str, params: Params, now_s: i64) -> Result<Value, ApiError> {
    params.finish()?;
    let customer = world.customers.get(id).ok_or_else(|| ApiError::no_such("customer", id))?;
    let object = wire::customer(customer);
    let open = world.subscriptions.iter().filter(|found| found.customer == id && !found.status.is_over());
    let open: Vec<String> = open.map(|found| found.id.clone()).collect();
    for subscription in open {
        billing::cancel(world, &subscription, "cancellation_requested", billing::Leaves::Nothing, now_s);
    }
    world.customers.remove(id);
    world.deleted_customers.insert(id.to_owned());
    let event = world.ids.next("evt");
    let subject = Subject { kind: "customer.deleted", object, previous: None, invoice: None };
    world.outbox.emit(event, subject, now_s);
    Ok(tombstone(id))
}
