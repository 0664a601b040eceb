//! The end of a period, as the webhook asks for it.

use super::world::{HOUR_MS, START, World, price, usage};
use crate::handler::handle;
use domain::{CustomerId, Timestamp, UserId};
use report::{Drained, Reason, drain};
use serde_json::{Value, json};

fn customer(name: &str) -> CustomerId {
    CustomerId::parse(name).unwrap()
}

async fn drained(world: &World, user: &UserId, until: Timestamp) -> Drained {
    let deadline = world.now().plus_ms(HOUR_MS);
    drain(&world.deps, user, &customer("cus_a"), until, deadline, || world.now()).await
}

#[tokio::test]
async fn f11_i7_a_period_is_quiet_once_every_token_of_it_is_at_stripe() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    let period = world.store.kept().meters[&key].period;
    world.set(Timestamp::from_ms(period.end().ms() - 60_000));
    let open = world.admit(&user, 50).await;
    let other = world.pays("cus_b", START).await;
    world.uses(&other, 7).await;
    world.set(period.end());
    world.book.lock().unwrap().invoice("cus_a", period, None);

    let waiting = |reasons: &[Reason]| Drained::Waiting { reasons: reasons.to_vec() };
    assert_eq!(drained(&world, &user, period.end()).await, waiting(&[Reason::Open, Reason::Hold]));
    world.deps.ledger.roll(&user, world.now()).await.unwrap().unwrap();
    assert_eq!(drained(&world, &user, period.end()).await, waiting(&[Reason::Hold]));
    world.deps.ledger.settle(open, usage(50), &price(), world.now()).await.unwrap();
    world.mishap("cus_a", &[super::world::Mishap::Status(503); 3]);
    assert_eq!(drained(&world, &user, period.end()).await, waiting(&[Reason::Row]));
    assert_eq!(drained(&world, &user, period.end()).await, Drained::Quiet);
    assert_eq!(world.counted("cus_a"), [100, 50]);
    assert_eq!(world.counted("cus_b"), Vec::<u64>::new(), "nobody else's rows are sent");
    assert!(world.store.every_meter().iter().filter(|meter| meter.user == user).all(|meter| !meter.dirty));
}

/// As the webhook leaves it: nothing is rolled, nothing sealed.
#[tokio::test]
async fn f11_what_a_draft_waits_for_is_reported_when_the_webhook_leaves_it_and_nobody_elses_is() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    let other = world.pays("cus_b", START).await;
    world.uses(&other, 7).await;
    let period = world.store.kept().meters[&key].period;
    world.set(period.end());
    world.book.lock().unwrap().invoice("cus_a", period, None);
    let detail =
        json!({"mode": "drain", "user": user.as_str(), "customer": "cus_a", "until": period.end().s()});
    let event = json!({"detail-type": "Drain Wanted", "source": "inkmeter.webhook", "detail": detail});
    let runs = async |payload: &Value| {
        let deadline = world.now().plus_ms(HOUR_MS);
        let answer = handle(&world.deps, payload, "request-1", deadline, || world.now()).await.unwrap();
        serde_json::to_value(answer).unwrap()
    };
    world.mishap("cus_a", &[super::world::Mishap::Status(503); 3]);
    let failed = runs(&event).await;
    assert_eq!(failed, json!({"quiet": false, "reasons": ["a report is not at Stripe"]}));
    let told = world.announced();
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert!(told.contains("Drain Failed"), "{told}");

    assert_eq!(runs(&detail).await, json!({"quiet": true, "reasons": []}));
    assert_eq!(runs(&event).await, json!({"quiet": true, "reasons": []}));
    assert_eq!(world.counted("cus_a"), [100]);
    assert_eq!(world.counted("cus_b"), Vec::<u64>::new());
    assert_eq!(world.announced().len(), 1);

    // A request that is under way ends by itself, and nobody is told.
    let next =
        Timestamp::from_ms(world.store.every_meter().iter().map(|m| m.period.end().ms()).max().unwrap());
    world.set(Timestamp::from_ms(next.ms() - 1_000));
    let open = world.admit(&user, 50).await;
    world.set(next);
    let until = json!({"mode": "drain", "user": user.as_str(), "customer": "cus_a", "until": next.s()});
    assert_eq!(runs(&until).await["reasons"], json!(["a request is under way"]));
    assert_eq!(world.announced().len(), 1);
    world.deps.ledger.settle(open, usage(50), &price(), world.now()).await.unwrap();
}

#[tokio::test]
async fn the_period_that_still_runs_is_left_alone() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    let end = world.store.kept().meters[&key].period.end();
    let before = Timestamp::from_ms(end.ms() - 1_000);
    assert_eq!(drained(&world, &user, before).await, Drained::Quiet);
    assert_eq!(world.counted("cus_a"), Vec::<u64>::new());
}

#[tokio::test]
async fn whoever_has_no_time_or_no_lease_says_so() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    let end = world.store.kept().meters[&key].period.end();
    world.set(end.plus_ms(HOUR_MS));
    world.deps.ledger.roll(&user, world.now()).await.unwrap().unwrap();
    let hurried = drain(&world.deps, &user, &customer("cus_a"), end, world.now(), || world.now()).await;
    assert_eq!(hurried, Drained::Waiting { reasons: vec![Reason::Time] });
    let owner = domain::HoldId::parse("another").unwrap();
    let until = world.now().plus_ms(60_000);
    world.deps.ledger.take_lease(&customer("cus_a"), &owner, world.now(), until).await.unwrap().unwrap();
    let leased = drained(&world, &user, end).await;
    assert_eq!(leased, Drained::Waiting { reasons: vec![Reason::Row, Reason::Leased] });
}

#[tokio::test]
async fn f11_a_row_of_another_payer_waits_for_the_reporter() {
    let world = World::new().await;
    let user = world.pays("cus_b", START).await;
    let key = world.uses(&user, 100).await;
    world.deps.ledger.seal(&key, world.now()).await.unwrap().unwrap();
    let mut meter = world.store.kept().meters[&key].clone();
    meter.customer = Some(customer("cus_a"));
    let end = meter.period.end();
    world.store.kept().meters.insert(key, meter);
    world.set(end);
    world.deps.ledger.roll(&user, world.now()).await.unwrap().unwrap();
    let found = drained(&world, &user, end).await;
    assert_eq!(found, Drained::Waiting { reasons: vec![Reason::OthersRow] });
    assert_eq!(world.counted("cus_b"), Vec::<u64>::new());
}
