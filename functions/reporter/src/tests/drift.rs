//! The nightly look at the figures: what agrees is left in peace, what does not is named and told, and nothing is repaired.

use super::world::{HOUR_MS, START, World};
use crate::handler::{Answer, handle};
use domain::{Tokens, UserId};
use ledger::MeterKey;
use report::{Checked, Drift, Equation, Finding};
use serde_json::{Value, json};

/// A user with three rows at Stripe, five hours ago.
async fn reported(world: &World) -> (UserId, MeterKey) {
    let user = world.pays("cus_a", START).await;
    let mut key = None;
    for tokens in [100, 30, 7] {
        key = Some(world.uses(&user, tokens).await);
        world.run().await;
        world.pass(HOUR_MS);
    }
    world.pass(2 * HOUR_MS);
    (user, key.unwrap())
}

async fn check(world: &World) -> Checked {
    let deadline = world.now().plus_ms(HOUR_MS);
    let payload = json!({"mode": "reconcile"});
    match handle(&world.deps, &payload, "request-1", deadline, || world.now()).await.unwrap() {
        Answer::Checked(checked) => checked,
        other => panic!("it did something else: {other:?}"),
    }
}

fn drifts(checked: &Checked) -> Vec<Drift> {
    let found = checked.drifts.iter().flat_map(|checkup| match &checkup.finding {
        Finding::Drifted(drifts) => drifts.clone(),
        other => panic!("{other:?}"),
    });
    found.collect()
}

#[tokio::test]
async fn i2_figures_that_agree_are_told_to_nobody() {
    let world = World::new().await;
    reported(&world).await;
    let free = UserId::parse("user_free").unwrap();
    world.uses(&free, 5).await;
    let open = world.pays("cus_b", START).await;
    world.uses(&open, 11).await;
    let hold = world.admit(&open, 3).await;
    let before = world.store.every_meter();
    let checked = check(&world).await;
    drop(hold);
    assert_eq!((checked.users, checked.meters, checked.drifted, checked.failed), (3, 3, 0, 0));
    assert_eq!(world.announced(), Vec::<String>::new());
    assert_eq!(world.store.every_meter(), before);
}

#[tokio::test]
async fn i2_a_row_that_stripe_lacks_is_found_by_name_and_announced() {
    let world = World::new().await;
    let (user, _) = reported(&world).await;
    let lost = world.identifiers_sent()[1].clone();
    world.book.lock().unwrap().events.remove(&lost);
    let checked = check(&world).await;
    assert_eq!(checked.drifted, 1);
    let found = drifts(&checked);
    assert_eq!(
        (found[0].equation, found[0].left, found[0].right),
        (Equation::AcceptedCounted, (137, 137), (107, 107))
    );
    let rows: Vec<_> = found[0].rows.iter().map(|row| (row.identifier.clone(), row.tokens)).collect();
    assert_eq!(rows, [(lost.clone(), 30)]);
    assert_eq!(world.announced(), ["Drift Found"]);
    let entry = &super::world::entries(world.bus.requests().last().unwrap())[0];
    let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&detail["user"], &detail["equations"][0]["rows"][0]["identifier"]),
        (&json!(user.as_str()), &json!(lost))
    );
}

#[tokio::test]
async fn what_stripe_took_a_moment_ago_is_no_drift() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    world.uses(&user, 100).await;
    world.run().await;
    world.book.lock().unwrap().events.clear();
    world.pass(59 * 60_000);
    assert_eq!(check(&world).await.drifted, 0);
    world.pass(60_000);
    assert_eq!(check(&world).await.drifted, 1, "an hour later it is");
}

#[tokio::test]
async fn i2_a_receipt_that_did_not_move_its_meter_and_a_lost_report_item_are_drift() {
    let world = World::new().await;
    let (_, key) = reported(&world).await;
    {
        let mut kept = world.store.kept();
        let meter = kept.meters.get_mut(&key).unwrap();
        meter.parked = Tokens::from_u32(2);
        let receipt = kept.receipts.keys().next().unwrap().clone();
        kept.receipts.remove(&receipt);
        kept.reports.remove(&(key.clone(), 1));
    }
    let found: Vec<_> = drifts(&check(&world).await).into_iter().map(|drift| drift.equation).collect();
    let expected = [
        Equation::ReceiptsSettled,
        Equation::SealedReported,
        Equation::ParkedItems,
        Equation::AcceptedCounted,
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_meter_that_moves_each_time_it_is_read_is_no_drift() {
    let world = World::in_memory(|book| {
        stripe::testing::Memory::new(move |request| {
            let book = std::sync::Arc::clone(&book);
            async move {
                let reply = book.lock().unwrap().answer(&request);
                let meanwhile = book.lock().unwrap().at_count.clone();
                if let Some(meanwhile) = meanwhile.filter(|_| request.path.ends_with("event_summaries")) {
                    meanwhile();
                }
                reply
            }
        })
    })
    .await;
    let (_, key) = reported(&world).await;
    let store = world.store.clone();
    world.book.lock().unwrap().at_count = Some(std::sync::Arc::new(move || {
        let mut kept = store.kept();
        let meter = kept.meters.get_mut(&key).unwrap();
        meter.settled = meter.settled.saturating_add(Tokens::from_u32(1));
    }));
    let checked = check(&world).await;
    assert_eq!((checked.moving, checked.drifted), (1, 0));
}

#[tokio::test]
async fn a_reconciliation_without_time_goes_on_behind_the_last_user() {
    let world = World::new().await;
    for n in 0..40 {
        let user = world.pays(&format!("cus_{n}"), START).await;
        world.uses(&user, 1).await;
    }
    world.run().await;
    let clock = std::sync::atomic::AtomicU64::new(world.now().ms());
    let (mut payload, mut users, mut runs) = (json!({"mode": "reconcile"}), 0, 0);
    loop {
        let start = clock.load(std::sync::atomic::Ordering::Relaxed);
        let now = || domain::Timestamp::from_ms(clock.fetch_add(100, std::sync::atomic::Ordering::Relaxed));
        let deadline = domain::Timestamp::from_ms(start + 66_000);
        let seen = world.announced().len();
        let Answer::Checked(checked) =
            handle(&world.deps, &payload, "request-1", deadline, now).await.unwrap()
        else {
            panic!("it reported")
        };
        (users, runs) = (users + checked.users, runs + 1);
        let requests = world.bus.requests();
        let entries: Vec<Value> = requests.iter().flat_map(super::world::entries).collect();
        let Some(last) = entries.get(seen..).and_then(<[Value]>::last) else { break };
        let detail: Value = serde_json::from_str(last["Detail"].as_str().unwrap()).unwrap();
        payload = json!({"detail-type": last["DetailType"], "source": last["Source"], "detail": detail});
    }
    assert_eq!(users, 40, "each once, in {runs} runs");
    assert!(runs > 2, "{runs}");
}
