//! Rows whose identifier Stripe may have forgotten: asked for, never repeated blindly.

use super::world::{Counted, HOUR_MS, Mishap, START, World};
use domain::{Timestamp, UserId};

/// A first row that is counted, and a second one of 30 tokens whose outcome has been unknown for 21 hours.
async fn unknown_for_long(mishap: Mishap, anchor: Timestamp) -> (World, UserId) {
    let world = World::new().await;
    world.set(anchor);
    let user = world.pays("cus_a", anchor).await;
    world.pass(HOUR_MS);
    world.uses(&user, 100).await;
    world.run().await;
    world.uses(&user, 30).await;
    world.mishap("cus_a", &[mishap, Mishap::CallLost, Mishap::CallLost]);
    let report = world.run().await;
    assert_eq!((report.failed, report.sent), (1, 3));
    world.pass(21 * HOUR_MS);
    (world, user)
}

#[tokio::test]
async fn f09_a_row_that_stripe_has_counted_is_accepted_without_being_sent_again() {
    let (world, _) = unknown_for_long(Mishap::AnswerLost, START).await;
    let report = world.run().await;
    assert_eq!((report.reconciled, report.sent, report.cleared, report.tokens), (1, 0, 1, 30));
    assert_eq!(world.counted("cus_a"), [100, 30]);
}

#[tokio::test]
async fn i2_a_row_that_never_arrived_is_sent() {
    let (world, _) = unknown_for_long(Mishap::CallLost, START).await;
    let report = world.run().await;
    assert_eq!((report.reconciled, report.sent, report.accepted, report.cleared), (1, 1, 1, 1));
    assert_eq!(world.counted("cus_a"), [100, 30]);
}

#[tokio::test]
async fn a_count_that_fits_neither_is_announced_and_nothing_is_sent() {
    let (world, _) = unknown_for_long(Mishap::CallLost, START).await;
    world.book.lock().unwrap().events.values_mut().for_each(|event| event.tokens += 1);
    let report = world.run().await;
    assert_eq!((report.unclear, report.failed, report.sent), (1, 1, 0));
    assert_eq!(world.announced(), ["Report Unclear"]);
}

/// The period starts within a minute, and the neighbouring period's last event lies in that minute: whether this period's
/// row arrived cannot be read from whole minutes.
#[tokio::test]
async fn i2_a_neighbours_event_in_a_shared_minute_never_passes_for_the_row() {
    let (world, _) = unknown_for_long(Mishap::CallLost, START.plus_ms(30_000)).await;
    let neighbour = Counted { customer: "cus_a".into(), tokens: 30, timestamp_s: START.s() + 29 };
    world.book.lock().unwrap().events.insert("ink-before".into(), neighbour);
    let report = world.run().await;
    assert_eq!((report.unclear, report.sent), (1, 0));
}

#[tokio::test]
async fn a_period_within_minutes_is_reconciled_when_the_shared_minutes_are_empty() {
    let (world, _) = unknown_for_long(Mishap::CallLost, START.plus_ms(30_000)).await;
    let report = world.run().await;
    assert_eq!((report.reconciled, report.accepted), (1, 1));
}
