//! Lost calls, lost answers and crashes: every token is counted once.

use super::world::{DAY_MS, HOUR_MS, Mishap, START, World, price, usage};
use domain::{RowFate, Tokens};
use futures_util::FutureExt;
use ledger::Attempt;

#[tokio::test]
async fn f24_what_was_settled_is_found_and_reported_without_anybody_listing_users() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    world.uses(&user, 1_234).await;
    world.uses(&user, 1).await;
    let report = world.run().await;
    assert_eq!(world.counted("cus_a"), [1_235]);
    assert_eq!((report.meters, report.sealed, report.sent), (1, 1, 1));
    assert_eq!((report.accepted, report.cleared, report.tokens), (1, 1, 1_235));

    let idle = world.run().await;
    assert_eq!((idle.meters, idle.sent), (0, 0), "nothing is left to look at");
}

#[tokio::test]
async fn f21_many_small_reports_add_up_to_the_token() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    for tokens in [1, 999, 1_001, 7] {
        world.uses(&user, tokens).await;
        world.run().await;
        world.pass(HOUR_MS);
    }
    assert_eq!(world.counted("cus_a"), [1, 999, 1_001, 7]);
}

#[tokio::test]
async fn f09_a_lost_answer_is_asked_for_again_under_the_same_identifier() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    world.uses(&user, 100).await;
    world.mishap("cus_a", &[Mishap::CallLost, Mishap::AnswerLost]);
    let report = world.run().await;
    let sent = world.identifiers_sent();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|identifier| *identifier == sent[0]));
    assert_eq!(world.counted("cus_a"), [100]);
    assert_eq!((report.sent, report.already_existed, report.accepted, report.tokens), (3, 1, 0, 100));
}

#[tokio::test]
async fn f09_an_outage_of_many_runs_needs_no_second_row() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    world.mishap("cus_a", &[[Mishap::AnswerLost].as_slice(), &[Mishap::Status(500); 8]].concat());
    for _ in 0..3 {
        let report = world.run().await;
        assert_eq!((report.failed, report.sent, report.cleared), (1, 3, 0));
        world.pass(HOUR_MS);
        world.uses(&user, 10).await;
    }
    let report = world.run().await;
    assert_eq!((report.already_existed, report.accepted, report.cleared), (1, 1, 1));
    assert_eq!(world.counted("cus_a"), [100, 30]);
    let reported: Tokens = world.store.reports_of(&key).iter().map(|report| report.tokens).sum();
    assert_eq!(reported.get(), 130, "i2: report rows, settled and Stripe's count agree");
}

#[tokio::test]
async fn f23_a_crash_between_sending_and_accepting_is_finished_by_the_next_run() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 100).await;
    // All that a run does, up to the crash.
    let ledger = &world.deps.ledger;
    let (meter, row) = ledger.seal(&key, world.now()).await.unwrap().unwrap();
    assert_eq!(ledger.attempt(&key, &row, world.now(), 0).await.unwrap(), Attempt::First);
    let event = stripe::MeterEvent {
        event_name: "tokens",
        customer: meter.customer.as_ref().unwrap(),
        tokens: row.tokens,
        identifier: &row.identifier,
        timestamp: row.timestamp,
    };
    world.deps.stripe.send(&event).await.unwrap();

    world.pass(HOUR_MS);
    let report = world.run().await;
    assert_eq!((report.already_existed, report.cleared), (1, 1));
    assert_eq!(world.counted("cus_a"), [100]);
    assert_eq!(world.store.reports_of(&key)[0].fate, RowFate::Accepted);
}

#[tokio::test]
async fn f23_a_crash_before_sending_is_finished_by_the_next_run() {
    for noted in [false, true] {
        let world = World::new().await;
        let user = world.pays("cus_a", START).await;
        let key = world.uses(&user, 100).await;
        let (_, row) = world.deps.ledger.seal(&key, world.now()).await.unwrap().unwrap();
        if noted {
            let attempt = world.deps.ledger.attempt(&key, &row, world.now(), 0).await.unwrap();
            assert_eq!(attempt, Attempt::First);
        }
        world.pass(HOUR_MS);
        let report = world.run().await;
        assert_eq!((report.accepted, report.cleared), (1, 1));
        assert_eq!(world.identifiers_sent(), [row.identifier]);
    }
}

#[tokio::test]
async fn f08_an_expired_hold_is_swept_and_does_not_keep_the_meter_dirty() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let hold = world.admit(&user, 100).await;
    let early = world.run().await;
    assert_eq!((early.swept, early.cleared), (0, 0), "the request may still be alive");
    drop(hold);
    world.pass(HOUR_MS);
    let report = world.run().await;
    assert_eq!((report.swept, report.cleared, report.sent), (1, 1, 0));
}

#[tokio::test]
async fn what_is_settled_while_a_row_is_sent_goes_out_in_the_same_run() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let open = world.admit(&user, 50).await;
    world.uses(&user, 100).await;
    let (ledger, now) = (world.deps.ledger.clone(), world.now());
    let settle = move || {
        ledger.settle(open, usage(50), &price(), now).now_or_never().unwrap().unwrap();
    };
    world.book.lock().unwrap().meanwhile = Some(Box::new(settle));
    let report = world.run().await;
    assert_eq!(world.counted("cus_a"), [100, 50]);
    assert_eq!((report.sealed, report.accepted, report.cleared), (2, 2, 1));
}

#[tokio::test]
async fn f22_two_periods_of_one_user_are_reported_separately() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let first = world.uses(&user, 100).await;
    world.pass(31 * DAY_MS);
    let second = world.uses(&user, 7).await;
    assert_ne!(first, second);
    let report = world.run().await;
    assert_eq!((report.meters, report.accepted, report.cleared), (2, 2, 2));
    let identifiers = world.identifiers_sent();
    assert_ne!(identifiers[0], identifiers[1]);
    let book = world.book.lock().unwrap();
    let of = |identifier: &str| &book.events[identifier];
    assert_eq!((of(&identifiers[0]).tokens, of(&identifiers[1]).tokens), (100, 7));
    assert!(of(&identifiers[0]).timestamp_s < second.period_start.s());
    assert!(of(&identifiers[1]).timestamp_s >= second.period_start.s());
}

#[tokio::test]
async fn f11_usage_reported_after_its_period_has_a_time_inside_it() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let hold = world.admit(&user, 100).await;
    let period = hold.period();
    world.set(period.end().plus_ms(HOUR_MS / 2));
    world.book.lock().unwrap().invoice("cus_a", period, None);
    world.deps.ledger.settle(hold, usage(100), &price(), world.now()).await.unwrap();
    world.run().await;
    let book = world.book.lock().unwrap();
    let time_s = book.events.values().next().unwrap().timestamp_s;
    assert!(period.contains(domain::Timestamp::from_s(time_s)), "{time_s}");
}
