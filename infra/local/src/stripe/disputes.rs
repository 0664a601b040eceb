//! Disputes: a cardholder's bank takes a charge back.
//!
//! Owns the dispute that a test opens. Evidence, fees and the decision are not modelled: a dispute stays open.

use serde_json::Value;

use super::error::ApiError;
use super::form::Params;
use super::webhooks::Subject;
use super::wire;
use super::world::{Dispute, World};

/// Disputes a charge, or the charge that paid an invoice. The dispute's id; `None` if there is no such paid charge.
pub(super) fn open(world: &mut World, charge_or_invoice: &str, now_s: i64) -> Option<String> {
    let charge = world.charges.iter().rev().find(|charge| {
        charge.paid && (charge.id == charge_or_invoice || charge.invoice == charge_or_invoice)
    })?;
    let charge = charge.id.clone();
    let id = world.ids.next("du");
    world.disputes.insert(Dispute { id: id.clone(), created_s: now_s, charge: charge.clone() }).ok()?;
    world.charges.get_mut(&charge)?.disputed = true;
    let object = wire::dispute(world, world.disputes.get(&id)?);
    let event = world.ids.next("evt");
    let subject = Subject { kind: "charge.dispute.created", object, previous: None, invoice: None };
    world.outbox.emit(event, subject, now_s);
    Some(id)
}

/// `GET /v1/disputes/:id`
pub(super) fn retrieve(world: &World, id: &str, mut params: Params) -> Result<Value, ApiError> {
    params.expand(&[])?;
    params.finish()?;
    let dispute = world.disputes.get(id).ok_or_else(|| ApiError::no_such("dispute", id))?;
    Ok(wire::dispute(world, dispute))
}
