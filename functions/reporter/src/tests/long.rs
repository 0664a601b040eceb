//! More work than one run has time for, and more users than it could keep.

use super::world::{START, World};
use crate::{handler::handle, schedule::RUNS_MAX};
use domain::{Account, Opening, PlanId, Timestamp, UserId};
use ledger::MeterKey;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// So many dirty meters, with nothing in them.
fn plant(world: &World, meters: u32) {
    let mut kept = world.store.kept();
    for n in 0..meters {
        let user = UserId::parse(&format!("user_{n}")).unwrap();
        let account = Account::first_seen(user, PlanId::parse("free").unwrap(), START);
        let mut meter = Opening::first(account, START).unwrap().meter;
        meter.dirty = true;
        kept.meters.insert(MeterKey::of(&meter), meter);
    }
}

#[tokio::test]
async fn i8_twenty_thousand_dirty_meters_are_looked_at_with_the_keys_of_two_pages_in_memory() {
    let world = World::new().await;
    plant(&world, 20_000);
    let report = world.run().await;
    assert_eq!((report.meters, report.cleared, report.failed), (20_000, 20_000, 0));
    assert!(!report.is_unfinished());
    println!("keys in memory at a time: {}", report.keys_most);
    assert!((100..=208).contains(&report.keys_most), "{}", report.keys_most);
}

/// The last event of a run whose time ran out, as a rule hands it on; none: it had time for everything.
fn unfinished(world: &World, after: usize) -> Option<Value> {
    let requests = world.bus.requests();
    let entries: Vec<Value> = requests.iter().flat_map(super::world::entries).collect();
    let last = entries.get(after..)?.last()?;
    assert_eq!(last["DetailType"], "Reporter Unfinished");
    let detail: Value = serde_json::from_str(last["Detail"].as_str().unwrap()).unwrap();
    Some(json!({"version": "0", "id": "1", "detail-type": last["DetailType"], "source": last["Source"],
        "account": "1", "time": "2027-01-15T08:00:00Z", "region": "r", "resources": [], "detail": detail}))
}

#[tokio::test]
async fn a_run_that_has_no_time_for_everything_is_followed_by_one_that_goes_on() {
    let world = World::new().await;
    plant(&world, 1_000);
    let clock = AtomicU64::new(START.ms());
    let (mut payload, mut runs) = (json!({}), 0);
    loop {
        let start = clock.load(Ordering::Relaxed);
        // Every look at the clock takes a tenth of a second: a run has time for a few hundred of them.
        let now = || Timestamp::from_ms(clock.fetch_add(100, Ordering::Relaxed));
        let deadline = Timestamp::from_ms(start + 120_000);
        let seen = world.announced().len();
        handle(&world.deps, &payload, "request-1", deadline, now).await.unwrap();
        runs += 1;
        match unfinished(&world, seen) {
            Some(next) => payload = next,
            None => break,
        }
    }
    assert!(runs > 2, "{runs}");
    assert!(world.store.every_meter().iter().all(|meter| !meter.dirty), "after {runs} runs");
    assert_eq!(payload["detail"]["run"], "request-1");
    assert_eq!(payload["detail"]["n"], runs - 1);
}

#[tokio::test]
async fn i8_runs_that_never_have_time_end_after_twenty() {
    let world = World::new().await;
    plant(&world, 10);
    let (mut payload, mut runs) = (json!({}), 0);
    loop {
        let seen = world.announced().len();
        handle(&world.deps, &payload, "request-1", world.now(), || world.now()).await.unwrap();
        runs += 1;
        match unfinished(&world, seen) {
            Some(next) => payload = next,
            None => break,
        }
    }
    assert_eq!(runs, RUNS_MAX + 1);
}
