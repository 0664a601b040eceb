//! What an owner hears of: disputes, invoices that cannot be finalized, meter events that were not counted.

use super::world::{
    CREATED, SECRET, THIN_SECRET, World, answer, event, invoice, pro, subscription, thin_event,
};
use domain::{RowFate, Timestamp, UserId};
use ledger::MeterKey;
use serde_json::{Value, json};

const BEGAN_S: u64 = 1_799_000_000;
const REPORTED: &str = "v1.billing.meter.error_report_triggered";
const NO_METER: &str = "v1.billing.meter.no_meter_found";

#[tokio::test]
async fn a_dispute_is_told_with_its_user_and_amount_and_blocks_nobody() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    world.delivers(CREATED, "sub_1").await;
    world.stripe_has(
        json!({"id": "du_1", "object": "dispute", "charge": "ch_1", "amount": 2_000, "currency": "usd",
        "reason": "fraudulent", "status": "needs_response", "evidence_details": {"due_by": 1_801_000_000}}),
    );
    world.stripe_has(json!({"id": "ch_1", "object": "charge",
        "customer": {"id": "cus_1", "metadata": {"user_id": "user_1"}}}));
    assert_eq!(world.delivers("charge.dispute.created", "du_1").await, answer(200, "announced"));
    let (kind, detail) = &world.heard()[0];
    assert_eq!(kind, "Dispute Opened");
    let figures = (&detail["user"], &detail["customer"], &detail["amount"], &detail["reason"]);
    assert_eq!(figures, (&json!("user_1"), &json!("cus_1"), &json!(2_000), &json!("fraudulent")), "{detail}");
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    assert_eq!(world.delivers("charge.dispute.created", "du_2").await, answer(200, "gone"));
    assert_eq!(world.heard().len(), 1);
}

#[tokio::test]
async fn an_invoice_that_cannot_be_finalized_is_told_unless_it_was_meanwhile() {
    let world = World::new();
    world.stripe_has(invoice("in_1", "sub_1", "draft", (BEGAN_S, BEGAN_S + 60)));
    assert_eq!(world.delivers("invoice.finalization_failed", "in_1").await, answer(200, "announced"));
    let (kind, detail) = &world.heard()[0];
    assert_eq!((kind.as_str(), &detail["invoice"]), ("Invoice Not Finalized", &json!("in_1")));
    world.stripe_has(invoice("in_1", "sub_1", "open", (BEGAN_S, BEGAN_S + 60)));
    assert_eq!(world.delivers("invoice.finalization_failed", "in_1").await, answer(200, "ignored"));
    assert_eq!(world.heard().len(), 1);
}

fn error_report(identifiers: &[&str]) -> Value {
    let samples: Vec<_> = identifiers
        .iter()
        .map(|identifier| json!({"error_message": "No such customer", "request": {"identifier": identifier}}))
        .collect();
    json!({"id": "evt_thin", "object": "v2.core.event", "type": REPORTED, "data": {
        "developer_message_summary": "There are invalid events", "validation_start": "x", "validation_end": "y",
        "reason": {"error_count": samples.len(), "error_types": [
            {"code": "meter_event_customer_not_found", "error_count": samples.len(), "sample_errors": samples}]}}})
}

/// A world in which a row of 700 tokens is at Stripe, and its key.
async fn world_with_a_row() -> (World, MeterKey) {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    world.set(BEGAN_S + 60);
    world.delivers(CREATED, "sub_1").await;
    world.uses(700).await;
    let ends_s = BEGAN_S + 31 * super::world::DAY_S;
    world.set(ends_s + 5);
    world.stripe_has(invoice("in_1", "sub_1", "draft", (BEGAN_S, ends_s)));
    assert_eq!(world.delivers("invoice.created", "in_1").await, answer(200, "reported"));
    let user = UserId::parse("user_1").unwrap();
    (world, MeterKey { user, period_start: Timestamp::from_s(BEGAN_S) })
}

#[tokio::test]
async fn what_stripe_did_not_count_of_what_it_took_is_parked_and_told_once() {
    for kind in [REPORTED, NO_METER] {
        let (world, key) = world_with_a_row().await;
        let row = world.ledger.report(&key, 0).await.unwrap().unwrap();
        world.stripe(|books| {
            books.put(
                "/v2/core/events/evt_thin",
                error_report(&["somebody-elses", "user_1-1-5", &row.identifier]),
            );
        });
        let told = thin_event("evt_thin", kind);
        assert_eq!(world.takes(&told, THIN_SECRET).await, answer(200, "parked"));
        let parked = world.ledger.report(&key, 0).await.unwrap().unwrap();
        assert_eq!(parked.fate, RowFate::Parked);
        assert!(parked.note.unwrap().contains("No such customer"));
        assert_eq!(world.ledger.meter(&key).await.unwrap().unwrap().parked.get(), 700);
        let (kind, detail) = &world.heard()[0];
        assert_eq!(
            (kind.as_str(), &detail["report"]["tokens"]),
            ("Report Rejected", &json!(700)),
            "{detail}"
        );
        // The same report under another event's id changes nothing and says nothing more.
        world.stripe(|books| {
            let report = books.objects["/v2/core/events/evt_thin"].clone();
            books.put("/v2/core/events/evt_thin2", report);
        });
        assert_eq!(world.takes(&thin_event("evt_thin2", REPORTED), THIN_SECRET).await, answer(200, "parked"));
        assert_eq!(world.heard().len(), 1);
        assert_eq!(world.takes(&told, THIN_SECRET).await, answer(200, "known"));
    }
}

#[tokio::test]
async fn an_error_report_that_names_nobody_is_told_too() {
    let (world, _) = world_with_a_row().await;
    world.stripe(|books| books.put("/v2/core/events/evt_thin", error_report(&["somebody-elses"])));
    assert_eq!(world.takes(&thin_event("evt_thin", REPORTED), THIN_SECRET).await, answer(200, "parked"));
    let (kind, detail) = &world.heard()[0];
    assert_eq!(
        (kind.as_str(), &detail["report"], &detail["rejected"]),
        ("Report Rejected", &Value::Null, &json!(1))
    );
}

#[tokio::test]
async fn a_thin_event_under_the_other_secret_does_nothing() {
    let (world, key) = world_with_a_row().await;
    let row = world.ledger.report(&key, 0).await.unwrap().unwrap();
    world.stripe(|books| books.put("/v2/core/events/evt_thin", error_report(&[&row.identifier])));
    let asked = world.asked();
    assert_eq!(world.takes(&thin_event("evt_thin", REPORTED), SECRET).await, answer(401, "unauthenticated"));
    let snapshot = event("evt_9", CREATED, "sub_1");
    assert_eq!(world.takes(&snapshot, THIN_SECRET).await, answer(401, "unauthenticated"));
    assert_eq!(world.asked(), asked);
    assert_eq!(world.ledger.report(&key, 0).await.unwrap().unwrap().fate, RowFate::Accepted);
}

/// Stripe took it, and then rejects it before this side has heard that it was taken.
#[tokio::test(start_paused = true)]
async fn a_rejected_row_that_is_still_on_its_way_is_waited_for() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    world.set(BEGAN_S + 60);
    world.delivers(CREATED, "sub_1").await;
    world.uses(700).await;
    let ends_s = BEGAN_S + 31 * super::world::DAY_S;
    world.set(ends_s + 5);
    world.stripe_has(invoice("in_1", "sub_1", "draft", (BEGAN_S, ends_s)));
    world.stripe(|books| books.silent_at = Some("/v1/billing/meter_events"));
    assert_eq!(world.delivers("invoice.created", "in_1").await, answer(503, "usage_pending"));
    let key = MeterKey { user: UserId::parse("user_1").unwrap(), period_start: Timestamp::from_s(BEGAN_S) };
    let row = world.ledger.meter(&key).await.unwrap().unwrap().pending.unwrap();
    world.stripe(|books| books.put("/v2/core/events/evt_thin", error_report(&[&row.identifier])));
    let told = thin_event("evt_thin", REPORTED);
    assert_eq!(world.takes(&told, THIN_SECRET).await, answer(503, "usage_pending"));

    world.stripe(|books| books.silent_at = None);
    world.set(ends_s + 600);
    assert_eq!(world.delivers("invoice.created", "in_1").await, answer(200, "reported"));
    assert_eq!(world.takes(&told, THIN_SECRET).await, answer(200, "parked"));
    assert_eq!(world.ledger.report(&key, 0).await.unwrap().unwrap().fate, RowFate::Parked);
}
