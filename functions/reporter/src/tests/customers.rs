//! What happens to one customer happens to no other.

use super::world::{HOUR_MS, Mishap, START, World};
use crate::run::run;
use domain::RowFate;

#[tokio::test]
async fn f10_a_customer_that_fails_stops_nobody() {
    let world = World::new().await;
    let mut users = Vec::new();
    for n in 0..20 {
        let name = format!("cus_{n:02}");
        users.push(world.pays(&name, START).await);
        world.uses(&users[n], 100).await;
    }
    world.mishap("cus_03", &[Mishap::CallLost; 3]);
    world.mishap("cus_07", &[Mishap::Status(500); 3]);
    world.mishap("cus_11", &[Mishap::Status(400)]);
    let report = world.run().await;
    assert_eq!((report.accepted, report.parked, report.failed), (17, 1, 2));
    assert_eq!(report.tokens, 1_700);

    let next = world.run().await;
    assert_eq!((next.meters, next.accepted, next.failed), (2, 2, 0), "the two that failed are found again");
}

#[tokio::test]
async fn f10_a_refused_report_is_parked_announced_and_followed_by_the_next() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    world.mishap("cus_a", &[Mishap::Status(400)]);
    let report = world.run().await;
    assert_eq!((report.sent, report.parked, report.failed, report.tokens), (1, 1, 0, 0));
    assert_eq!(world.announced(), ["Report Parked"]);

    world.uses(&user, 7).await;
    let report = world.run().await;
    assert_eq!((report.accepted, report.tokens), (1, 7));
    let fates: Vec<_> =
        world.store.reports_of(&key).iter().map(|report| (report.tokens.get(), report.fate)).collect();
    assert_eq!(fates, [(100, RowFate::Parked), (7, RowFate::Accepted)]);
    assert_eq!(world.counted("cus_a"), [7]);
}

#[tokio::test]
async fn a_fault_of_the_installation_keeps_every_row_and_is_said_once() {
    let world = World::new().await;
    for name in ["cus_a", "cus_b", "cus_c"] {
        let user = world.pays(name, START).await;
        world.uses(&user, 100).await;
        world.mishap(name, &[Mishap::Status(401)]);
    }
    let report = world.run().await;
    assert_eq!((report.failed, report.parked, report.accepted), (3, 0, 0));
    assert_eq!(world.announced(), ["Reporter Misconfigured"]);

    world.book.lock().unwrap().mishaps.clear();
    let report = world.run().await;
    assert_eq!((report.accepted, report.failed), (3, 0));
}

#[tokio::test]
async fn a_user_without_a_subscription_is_metered_and_not_reported() {
    let world = World::new().await;
    let user = domain::UserId::parse("user_free").unwrap();
    world.uses(&user, 100).await;
    let report = world.run().await;
    assert_eq!((report.meters, report.sent, report.cleared), (1, 0, 1));
}

#[tokio::test]
async fn no_meter_is_begun_when_the_deadline_is_near() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    world.uses(&user, 100).await;
    let report = run(&world.deps, world.now().plus_ms(1_000), || world.now()).await;
    assert_eq!((report.meters, report.shards_postponed, report.sent), (0, 16, 0));
    assert!(report.is_unfinished());
    world.pass(HOUR_MS);
    assert_eq!(world.run().await.accepted, 1);
}

#[tokio::test]
async fn two_runs_at_once_report_everything_once() {
    let world = World::new().await;
    for n in 0..10 {
        let user = world.pays(&format!("cus_{n}"), START).await;
        world.uses(&user, 100).await;
    }
    futures_util::join!(world.run(), world.run());
    world.run().await;
    for n in 0..10 {
        assert_eq!(world.counted(&format!("cus_{n}")), [100]);
    }
    assert!(world.store.every_meter().iter().all(|meter| meter.pending.is_none() && !meter.dirty));
}
