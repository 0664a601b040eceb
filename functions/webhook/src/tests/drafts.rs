//! Drafted invoices: Stripe waits until their periods are reported to the end.

use super::world::{
    CREATED, DAY_S, DELETED, SECRET, World, answer, ended, event, invoice, pro, subscription,
};
use crate::handler::{WORD_MS_MAX, WORK_AGAIN_MS_MAX, WORK_MS_MAX};
use domain::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const HOUR_S: u64 = 60 * 60;
const BEGAN_S: u64 = 1_799_000_000;
/// A month later by the calendar: 2027-01-03 to 2027-02-03.
const ENDS_S: u64 = BEGAN_S + 31 * DAY_S;

fn drafted(id: &str) -> String {
    let mut event: Value = serde_json::from_str(&event(id, "invoice.created", "in_1")).unwrap();
    event["created"] = json!(ENDS_S);
    event.to_string()
}

/// What the reporter was woken for.
fn wanted(world: &World) -> Vec<Value> {
    let heard = world.heard().into_iter().filter(|(kind, _)| kind == "Drain Wanted");
    heard.map(|(_, detail)| detail).collect()
}

/// On Pro since the start of a period in which so many tokens were used.
async fn world_with(tokens: u32) -> World {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    world.set(BEGAN_S + 60);
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    world.uses(tokens).await;
    world.stripe_has(invoice("in_1", "sub_1", "draft", (BEGAN_S, ENDS_S)));
    world
}

#[tokio::test]
async fn f11_i7_a_draft_is_answered_once_every_token_of_its_period_is_at_stripe() {
    let world = world_with(700).await;
    world.set(ENDS_S - 5);
    let under_way = world.admit(90).await;
    world.set(ENDS_S + 5);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "usage_pending"));
    assert_eq!(world.counted(), 700, "what is settled is sent at once");
    world.settle(under_way, 90).await;
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    assert_eq!(world.counted(), 790);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "known"));
    assert_eq!(world.heard(), []);
}

#[tokio::test]
async fn i7_what_is_admitted_after_the_period_is_not_waited_for() {
    let world = world_with(700).await;
    world.set(ENDS_S + 5);
    let _next = world.admit(90).await;
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    assert_eq!(world.counted(), 700);
}

/// Our clock has not reached the period's end by Stripe's word: what is admitted from then on is the next one's.
#[tokio::test]
async fn i7_a_clock_that_lags_behind_stripes_closes_the_period_all_the_same() {
    let world = world_with(700).await;
    world.set(ENDS_S - 3);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    world.uses(50).await;
    let user = domain::UserId::parse("user_1").unwrap();
    let meters = world.ledger.meters(&user, Timestamp::from_s(0)).await.unwrap();
    let figures: Vec<_> =
        meters.iter().map(|meter| (meter.period.start().s(), meter.settled.get())).collect();
    assert_eq!(figures, [(ENDS_S, 50), (BEGAN_S, 700)]);
}

#[tokio::test]
async fn f09_a_draft_that_is_delivered_again_and_again_is_counted_once() {
    let world = world_with(700).await;
    world.set(ENDS_S + 5);
    for number in 0..3 {
        assert_eq!(
            world.takes(&drafted(&format!("evt_again{number}")), SECRET).await,
            answer(200, "reported")
        );
    }
    assert_eq!(world.counted(), 700);
}

#[tokio::test]
async fn an_invoice_that_is_no_draft_or_of_no_subscription_is_not_waited_for() {
    let world = world_with(700).await;
    world.set(ENDS_S + 5);
    let open = world.admit(90).await;
    world.stripe_has(invoice("in_1", "sub_1", "open", (BEGAN_S, ENDS_S)));
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "in_line"));
    let mut manual = invoice("in_1", "sub_1", "draft", (BEGAN_S, ENDS_S));
    manual["parent"] = Value::Null;
    world.stripe_has(manual);
    assert_eq!(world.takes(&drafted("evt_2"), SECRET).await, answer(200, "ignored"));
    // The first invoice is over no time.
    world.stripe_has(invoice("in_1", "sub_1", "draft", (BEGAN_S, BEGAN_S)));
    assert_eq!(world.takes(&drafted("evt_3"), SECRET).await, answer(200, "in_line"));
    assert_eq!(world.counted(), 0);
    world.settle(open, 90).await;
}

#[tokio::test]
async fn a_draft_that_waits_for_hours_is_told_of_long_before_stripe_gives_up() {
    let world = world_with(700).await;
    world.set(ENDS_S - 5);
    let _open = world.admit(90).await;
    world.set(ENDS_S + 5);
    // Nothing may be sent, so nothing ends: Stripe takes no meter event.
    world.stripe(|books| books.down = true);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "stripe_unavailable"));
    world.stripe(|books| books.down = false);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "usage_pending"));
    assert_eq!(world.heard(), []);

    let held = world_with(700).await;
    held.set(ENDS_S + 5);
    // A lease that somebody holds for ever.
    let customer = domain::CustomerId::parse("cus_1").unwrap();
    let owner = domain::HoldId::parse("somebody").unwrap();
    held.ledger
        .take_lease(&customer, &owner, held.now(), Timestamp::from_s(ENDS_S + 9 * DAY_S))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(held.takes(&drafted("evt_1"), SECRET).await, answer(503, "usage_pending"));
    assert_eq!(held.heard(), []);
    held.set(ENDS_S + 6 * HOUR_S + 1);
    assert_eq!(held.takes(&drafted("evt_1"), SECRET).await, answer(503, "usage_pending"));
    let (kind, detail) = &held.heard()[0];
    assert_eq!(
        (kind.as_str(), &detail["invoice"], &detail["user"]),
        ("Invoice Waiting", &json!("in_1"), &json!("user_1"))
    );
}

/// Whatever keeps a draft waiting: the owner hears of it while there is time.
#[tokio::test]
async fn a_draft_that_nothing_is_known_of_for_hours_is_told_of_too() {
    for silent_at in ["/v1/invoices", "/v1/subscriptions"] {
        let world = world_with(700).await;
        world.stripe(|books| books.silent_at = Some(silent_at));
        tokio::time::pause();
        world.set(ENDS_S + 6 * HOUR_S - 1);
        assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "stripe_unavailable"));
        assert_eq!(world.heard(), []);
        world.set(ENDS_S + 6 * HOUR_S + 1);
        assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "stripe_unavailable"));
        tokio::time::resume();
        let heard = world.heard();
        let [(kind, detail)] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!((kind.as_str(), &detail["invoice"]), ("Invoice Waiting", &json!("in_1")), "{detail}");
        assert!(!detail["reasons"].as_str().unwrap().is_empty(), "{detail}");
    }
}

/// Counted in calls: what takes time is Stripe.
#[tokio::test]
async fn a_draft_with_one_row_asks_stripe_five_things() {
    let world = world_with(700).await;
    world.set(ENDS_S + 5);
    let before = world.asked().len();
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    let asked = world.asked().split_off(before);
    let expected = [
        "GET /v1/invoices/in_1",
        "GET /v1/subscriptions/sub_1",
        "GET /v1/subscriptions/sub_1",
        "GET /v1/invoices",
        "POST /v1/billing/meter_events",
    ];
    assert_eq!(asked, expected);
}

/// However long Stripe takes for a call: an answer is there in two seconds, no lease and no row is left behind, and where Stripe
/// has said whose usage it is, the reporter is woken for it.
#[tokio::test(start_paused = true)]
async fn f09_every_delivery_has_its_answer_within_two_seconds_and_the_reporter_has_the_rest() {
    let customer = domain::CustomerId::parse("cus_1").unwrap();
    let owner = domain::HoldId::parse("somebody").unwrap();
    for (slow_ms, expected, woken) in [
        (100, answer(200, "reported"), false),
        (150, answer(200, "reported"), false),
        (200, answer(503, "usage_pending"), true),
        (300, answer(503, "usage_pending"), true),
        (400, answer(503, "usage_pending"), true),
        (450, answer(503, "usage_pending"), true),
        (500, answer(503, "stripe_unavailable"), false),
        (600, answer(503, "stripe_unavailable"), false),
        (1_500, answer(503, "stripe_unavailable"), false),
        (10_000, answer(503, "stripe_unavailable"), false),
    ] {
        let world = world_with(700).await;
        world.set(ENDS_S + 5);
        world.flow();
        world.stripe(|books| books.slow_ms = slow_ms);
        let began = Instant::now();
        assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, expected, "{slow_ms} ms");
        assert!(began.elapsed() <= Duration::from_millis(WORK_MS_MAX + WORD_MS_MAX), "{slow_ms} ms");
        assert!(began.elapsed() < Duration::from_secs(2));
        let until = json!({"mode": "drain", "user": "user_1", "customer": "cus_1", "until": ENDS_S});
        assert_eq!(wanted(&world), if woken { vec![until] } else { Vec::new() }, "{slow_ms} ms");
        let now = world.now();
        let lease = world.ledger.take_lease(&customer, &owner, now, now.plus_ms(1)).await.unwrap();
        assert!(lease.is_some(), "{slow_ms} ms: somebody was stopped in the middle of a call");

        world.stripe(|books| books.slow_ms = 0);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(world.takes(&drafted("evt_2"), SECRET).await, answer(200, "reported"), "{slow_ms} ms");
        assert_eq!(world.counted(), 700, "{slow_ms} ms");
    }
}

/// What two seconds are too short for would be begun anew with each delivery, and never be done.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_stripe_makes_again_has_more_time() {
    let world = world_with(700).await;
    world.set(ENDS_S + 5);
    world.flow();
    world.stripe(|books| books.slow_ms = 800);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "stripe_unavailable"));
    world.set(ENDS_S + 10 * 60);
    let began = Instant::now();
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    assert!(began.elapsed() <= Duration::from_millis(WORK_AGAIN_MS_MAX + WORD_MS_MAX));
    assert_eq!(world.counted(), 700);
}

/// A request that is under way ends by itself: nobody is woken for it.
#[tokio::test]
async fn the_reporter_is_woken_for_what_it_can_end_only() {
    let world = world_with(700).await;
    world.set(ENDS_S - 5);
    let under_way = world.admit(90).await;
    world.set(ENDS_S + 5);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, "usage_pending"));
    assert_eq!(wanted(&world), Vec::<Value>::new());
    world.settle(under_way, 90).await;
}

#[tokio::test]
async fn f11_the_end_of_a_subscription_has_its_last_usage_reported_before_its_last_invoice_is_final() {
    let world = world_with(700).await;
    let ended_s = BEGAN_S + 9 * DAY_S;
    world.set(ended_s + 5);
    let mut subscription = ended("sub_1", BEGAN_S, ended_s);
    subscription["latest_invoice"] =
        json!({"id": "in_9", "status": "draft", "status_transitions": {"finalized_at": null}});
    world.stripe_has(subscription);
    world.stripe_has(invoice("in_9", "sub_1", "draft", (BEGAN_S, ended_s)));
    assert_eq!(world.delivers(DELETED, "sub_1").await, answer(200, "reported"));
    assert_eq!(world.counted(), 700);
    assert_eq!(world.standing().await.0, "free");
}

#[tokio::test]
async fn a_drafts_subscription_that_nobody_has_heard_of_is_brought_in_line_first() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    world.stripe_has(invoice("in_1", "sub_1", "draft", (BEGAN_S, ENDS_S)));
    world.set(ENDS_S + 5);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
}

#[tokio::test(start_paused = true)]
async fn f09_a_stripe_that_says_nothing_costs_one_delivery_its_time_and_no_token() {
    let world = world_with(700).await;
    world.set(ENDS_S + 5);
    for (silent_at, problem) in [
        ("/v1/invoices", "stripe_unavailable"),
        ("/v1/subscriptions", "stripe_unavailable"),
        ("/v1/billing/meter_events", "usage_pending"),
    ] {
        world.stripe(|books| books.silent_at = Some(silent_at));
        let began = Instant::now();
        assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(503, problem), "{silent_at}");
        let most = Duration::from_millis(WORK_MS_MAX + WORD_MS_MAX);
        assert!(began.elapsed() <= most, "{silent_at}: {:?}", began.elapsed());
    }
    assert_eq!(world.counted(), 0);
    world.stripe(|books| books.silent_at = None);
    assert_eq!(world.takes(&drafted("evt_1"), SECRET).await, answer(200, "reported"));
    assert_eq!(world.counted(), 700);
}
