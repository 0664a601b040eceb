//! One run at a time talks to Stripe about a customer, whoever runs.

use super::world::{HOUR_MS, START, World};
use domain::{HoldId, Lease, Timestamp};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use stripe::testing::Memory;

const MINUTE_MS: u64 = 60_000;

/// A Stripe that takes its time, and in which no two calls about one customer may meet.
async fn strict() -> World {
    World::in_memory(|book| {
        let busy = Arc::new(Mutex::new(BTreeSet::new()));
        Memory::new(move |request| {
            let (book, busy) = (Arc::clone(&book), Arc::clone(&busy));
            async move {
                let in_form = request.form.get("payload[stripe_customer_id]");
                let customer = in_form.or(request.query.get("customer")).expect("about a customer").clone();
                assert!(busy.lock().unwrap().insert(customer.clone()), "two calls about {customer} at once");
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
                busy.lock().unwrap().remove(&customer);
                book.lock().unwrap().answer(&request)
            }
        })
    })
    .await
}

async fn lease(world: &World, customer: &str, until: Timestamp) -> Lease {
    let customer = domain::CustomerId::parse(customer).unwrap();
    let owner = HoldId::parse("another").unwrap();
    world.deps.ledger.take_lease(&customer, &owner, world.now(), until).await.unwrap().unwrap()
}

#[tokio::test]
async fn two_reporters_at_once_never_call_about_one_customer_at_the_same_time() {
    let world = strict().await;
    for n in 0..30 {
        let user = world.pays(&format!("cus_{n}"), START).await;
        world.uses(&user, 100).await;
    }
    let (one, other) = futures_util::join!(world.run(), world.run());
    assert!(one.leased + other.leased > 0, "they never met: {one:?} {other:?}");
    world.run().await;
    for n in 0..30 {
        assert_eq!(world.counted(&format!("cus_{n}")), [100]);
    }
    assert!(world.store.every_meter().iter().all(|meter| meter.pending.is_none() && !meter.dirty));
}

#[tokio::test]
async fn a_lease_that_a_crash_left_behind_keeps_nobody_else_and_runs_out() {
    let world = World::new().await;
    for name in ["cus_a", "cus_b"] {
        let user = world.pays(name, START).await;
        world.uses(&user, 100).await;
    }
    lease(&world, "cus_a", world.now().plus_ms(2 * MINUTE_MS)).await;
    let report = world.run().await;
    assert_eq!((report.leased, report.accepted, report.failed), (1, 1, 0));
    assert_eq!((world.counted("cus_a").len(), world.counted("cus_b").len()), (0, 1));
    world.pass(2 * MINUTE_MS);
    let report = world.run().await;
    assert_eq!((report.leased, report.accepted, report.cleared), (0, 1, 1));
}

#[tokio::test]
async fn f09_whoever_is_too_slow_for_his_lease_sends_nothing_more() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    let (_, row) = world.deps.ledger.seal(&key, world.now()).await.unwrap().unwrap();
    // Somebody who took the lease later is at the row.
    world.deps.ledger.attempt(&key, &row, world.now(), 7).await.unwrap();
    let report = world.run().await;
    assert_eq!((report.sent, report.failed), (0, 1));
    world.pass(HOUR_MS);
    assert_eq!(world.counted("cus_a"), Vec::<u64>::new());
}

#[tokio::test]
async fn a_lease_is_given_back_when_its_row_has_ended() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    world.uses(&user, 100).await;
    world.run().await;
    let next = lease(&world, "cus_a", world.now().plus_ms(MINUTE_MS)).await;
    assert_eq!(next.fence, 2, "each taking has a higher fence");
}
