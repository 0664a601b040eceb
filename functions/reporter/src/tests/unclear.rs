//! Rows whose outcome is unknown on a meter that was cut: judged by their own minute, told when they do not end, and no drift of the
//! meter that follows.

use super::world::{Counted, DAY_MS, HOUR_MS, Mishap, START, World};
use crate::handler::{Answer, handle};
use domain::{Account, PlanId, RowFate, SubscriptionId, Timestamp, UserId};
use ledger::MeterKey;
use report::{Checked, Finding};
use serde_json::json;

const MINUTE_MS: u64 = 60_000;

/// The plan changes to the free one at `since`; it is heard of now.
async fn changes_plan(world: &World, user: &UserId, since: Timestamp) {
    let changed = |account: &Account| {
        Some(Account { plan: PlanId::parse("free").unwrap(), plan_since: Some(since), ..account.clone() })
    };
    world.deps.ledger.change_account(user, world.now(), changed).await.unwrap();
    world.book.lock().unwrap().usage_until_a_change("cus_a", since);
}

/// 1,200 tokens whose one event was lost, or counted without an answer; then the plan changed.
async fn attempted_then_changed(mishap: Mishap) -> (World, UserId, MeterKey) {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    world.pass(10 * MINUTE_MS);
    let key = world.uses(&user, 1_200).await;
    world.mishap("cus_a", &[mishap, Mishap::CallLost, Mishap::CallLost]);
    assert_eq!(world.run().await.failed, 1);
    world.pass(MINUTE_MS);
    changes_plan(&world, &user, world.now()).await;
    assert!(world.store.kept().meters[&key].mixed);
    (world, user, key)
}

fn cents(world: &World) -> Vec<i64> {
    world.book.lock().unwrap().items.iter().map(|item| item["amount"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn f09_f11_a_row_attempted_before_a_change_of_plan_is_judged_by_its_own_minute() {
    for (mishap, fate, billed) in
        [(Mishap::AnswerLost, RowFate::Accepted, vec![]), (Mishap::CallLost, RowFate::Invoiced, vec![200])]
    {
        let (world, _, key) = attempted_then_changed(mishap).await;
        // An hour after the lease of the last attempt, and not before.
        world.pass(60 * MINUTE_MS);
        let early = world.run().await;
        assert_eq!((early.reconciled, early.failed, early.unclear), (0, 1, 0), "{mishap:?}");
        world.pass(MINUTE_MS);
        let report = world.run().await;
        assert_eq!((report.reconciled, report.failed, report.cleared), (1, 0, 1), "{mishap:?}");
        assert_eq!(world.store.reports_of(&key)[0].fate, fate);
        assert_eq!(cents(&world), billed);
    }
}

#[tokio::test]
async fn f09_a_question_about_a_row_does_not_begin_its_hour_anew() {
    let (world, _, key) = attempted_then_changed(Mishap::CallLost).await;
    for _ in 0..6 {
        world.pass(10 * MINUTE_MS);
        assert_eq!(world.run().await.reconciled, 0);
    }
    world.pass(10 * MINUTE_MS);
    assert_eq!(world.run().await.reconciled, 1);
    assert_eq!(world.store.reports_of(&key)[0].fate, RowFate::Invoiced);
}

#[tokio::test]
async fn f09_a_minute_with_something_else_in_it_leaves_a_row_unclear_and_a_day_later_it_is_told() {
    let (world, user, key) = attempted_then_changed(Mishap::CallLost).await;
    let row = world.store.kept().meters[&key].pending.clone().unwrap();
    let foreign = Counted { customer: "cus_a".into(), tokens: 7, timestamp_s: row.timestamp.s() };
    world.book.lock().unwrap().events.insert("by-hand".into(), foreign);
    world.pass(2 * HOUR_MS);
    let report = world.run().await;
    assert_eq!((report.unclear, report.stuck, report.failed, report.sent), (1, 0, 1, 0));
    world.pass(DAY_MS);
    let report = world.run().await;
    assert_eq!((report.unclear, report.stuck, report.failed), (1, 1, 1));
    assert_eq!(world.announced(), ["Report Unclear", "Report Unclear", "Report Stuck"]);
    // Of the same size as the row, but another row of ours is of that minute.
    world.book.lock().unwrap().events.get_mut("by-hand").unwrap().tokens = 1_200;
    let mut other = world.store.kept().meters[&key].clone();
    other.period =
        domain::Period::new(row.timestamp.plus_ms(HOUR_MS), row.timestamp.plus_ms(DAY_MS)).unwrap();
    other.pending = Some(domain::ReportRow { seq: 9, identifier: "other".into(), ..row });
    let of_other = MeterKey { user, period_start: other.period.start() };
    other.dirty = false;
    world.store.kept().meters.insert(of_other, other);
    assert_eq!(world.run().await.unclear, 1);
}

#[tokio::test]
async fn a_row_of_a_customer_who_was_deleted_is_told_in_each_run_after_a_day() {
    let (world, _, key) = attempted_then_changed(Mishap::CallLost).await;
    world.book.lock().unwrap().counts_are_refused = true;
    world.pass(2 * HOUR_MS);
    let report = world.run().await;
    assert_eq!((report.stuck, report.failed, report.invoiced), (0, 1, 0));
    world.pass(DAY_MS);
    assert_eq!((world.run().await.stuck, world.run().await.stuck), (1, 1));
    assert_eq!(world.announced(), ["Report Stuck", "Report Stuck"]);
    // Whoever asks for one customer's rows is not told; the run does that.
    let (user, customer) = (key.user.clone(), domain::CustomerId::parse("cus_a").unwrap());
    let end = world.store.kept().meters[&key].period.end();
    let deadline = world.now().plus_ms(HOUR_MS);
    report::drain(&world.deps, &user, &customer, end, deadline, || world.now()).await;
    assert_eq!(world.announced().len(), 2);
}

async fn check(world: &World) -> Checked {
    let deadline = world.now().plus_ms(HOUR_MS);
    let payload = json!({"mode": "reconcile"});
    match handle(&world.deps, &payload, "request-1", deadline, || world.now()).await.unwrap() {
        Answer::Checked(checked) => checked,
        answer => panic!("it did not check: {answer:?}"),
    }
}

/// A change of plan an hour ago that is heard of only now: meanwhile 30 tokens were reported under the old plan. Then 50 are used.
async fn heard_late(world: &World) -> (UserId, MeterKey, MeterKey) {
    let user = world.pays("cus_a", START).await;
    let old = world.uses(&user, 100).await;
    world.run().await;
    world.pass(HOUR_MS);
    let since = world.now();
    world.pass(HOUR_MS);
    world.uses(&user, 30).await;
    world.run().await;
    changes_plan(world, &user, since).await;
    world.pass(MINUTE_MS);
    let new = world.uses(&user, 50).await;
    assert!(old != new);
    (user, old, new)
}

#[tokio::test]
async fn i2_rows_of_the_old_plan_in_the_time_of_the_new_one_are_no_drift_of_it() {
    let world = World::new().await;
    let (user, _, _) = heard_late(&world).await;
    world.run().await;
    world.pass(3 * HOUR_MS);
    let checked = check(&world).await;
    assert_eq!((checked.meters, checked.drifted, checked.incomparable), (2, 0, 1), "{:?}", checked.drifts);
    // What Stripe lacks of the new meter is still found, by name.
    let lost = world.identifiers_sent().pop().unwrap();
    world.book.lock().unwrap().events.remove(&lost);
    let checked = check(&world).await;
    let Finding::Drifted(drifts) = &checked.drifts[0].finding else { panic!("{checked:?}") };
    assert_eq!((drifts[0].left, drifts[0].right), ((80, 80), (30, 30)));
    assert_eq!(drifts[0].rows.iter().map(|row| &row.identifier).collect::<Vec<_>>(), [&lost]);
    assert_eq!(checked.drifts[0].key.user, user);
}

#[tokio::test]
async fn f09_a_row_of_the_new_plan_is_judged_right_beside_rows_of_the_old_one() {
    for (mishap, sent) in [(Mishap::AnswerLost, 0), (Mishap::CallLost, 1)] {
        let world = World::new().await;
        let (_, _, new) = heard_late(&world).await;
        world.mishap("cus_a", &[mishap, Mishap::CallLost, Mishap::CallLost]);
        assert_eq!(world.run().await.failed, 1);
        world.pass(21 * HOUR_MS);
        let report = world.run().await;
        assert_eq!(
            (report.reconciled, report.unclear, report.sent, report.failed),
            (1, 0, sent, 0),
            "{mishap:?}"
        );
        assert_eq!(world.store.reports_of(&new)[0].fate, RowFate::Accepted);
        assert_eq!(world.counted("cus_a").iter().sum::<u64>(), 180);
    }
}

/// What becomes of a user an hour after 1,200 tokens, of which 200 are above what is included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Cancels,
    CancelsATrial,
    CancelsWithALastInvoice,
    ChangesPlan,
    ChangesPlanAndCancels,
    Pauses,
    PausesAndResumes,
}

async fn takes(world: &World, user: &UserId, turn: Turn, period: domain::Period) {
    let ended = world.now();
    let over = |account: &Account| {
        Some(Account {
            plan: PlanId::parse("free").unwrap(),
            subscription: None,
            anchor: ended,
            ..account.clone()
        })
    };
    match turn {
        Turn::ChangesPlan => return changes_plan(world, user, ended).await,
        Turn::ChangesPlanAndCancels => {
            changes_plan(world, user, ended).await;
            world.uses(user, 1).await;
            world.pass(MINUTE_MS);
            world.book.lock().unwrap().ended = Some(world.now());
            world.deps.ledger.change_account(user, world.now(), over).await.unwrap();
        }
        Turn::Pauses | Turn::PausesAndResumes => {
            world.deps.ledger.change_account(user, ended, over).await.unwrap();
        }
        Turn::Cancels | Turn::CancelsATrial | Turn::CancelsWithALastInvoice => {
            world.deps.ledger.change_account(user, ended, over).await.unwrap();
            let mut book = world.book.lock().unwrap();
            book.ended = Some(ended);
            book.trial =
                domain::Period::new(START, START.plus_ms(7 * DAY_MS)).filter(|_| turn == Turn::CancelsATrial);
            if turn == Turn::CancelsWithALastInvoice {
                book.invoice("cus_a", domain::Period::new(period.start(), ended).unwrap(), Some(ended));
            }
        }
    }
    if turn == Turn::PausesAndResumes {
        world.pass(MINUTE_MS);
        world.uses(user, 1).await;
        world.pass(MINUTE_MS);
        let since = Some(world.now());
        let resumed = |account: &Account| {
            let (plan, subscription) = (PlanId::parse("pro").unwrap(), SubscriptionId::parse("sub_1").ok());
            Some(Account { plan, subscription, anchor: START, plan_since: since, ..account.clone() })
        };
        world.deps.ledger.change_account(user, world.now(), resumed).await.unwrap();
    }
}

#[tokio::test]
async fn only_usage_whose_subscription_has_ended_without_an_invoice_is_told_and_that_each_night() {
    for (turn, used, told) in [
        (Turn::Cancels, 1_200, 4),
        (Turn::Cancels, 1_000, 0),
        (Turn::CancelsATrial, 1_200, 0),
        (Turn::CancelsWithALastInvoice, 1_200, 0),
        (Turn::ChangesPlan, 1_200, 0),
        (Turn::ChangesPlanAndCancels, 1_200, 0),
        (Turn::Pauses, 1_200, 0),
        (Turn::PausesAndResumes, 1_200, 0),
    ] {
        let world = World::new().await;
        let user = world.pays("cus_a", START).await;
        let key = world.uses(&user, used).await;
        world.run().await;
        world.pass(HOUR_MS);
        let (ended, period) = (world.now(), world.store.kept().meters[&key].period);
        takes(&world, &user, turn, period).await;
        assert_eq!(world.store.kept().meters[&key].period.end(), ended, "{turn:?}");
        for day in 0..10 {
            world.set(ended.plus_ms(day * DAY_MS + 17 * HOUR_MS));
            check(&world).await;
        }
        let expected = vec!["Usage Not Invoiced"; told];
        assert_eq!(world.announced(), expected, "{turn:?}, {used} tokens");
    }
}

#[tokio::test]
async fn a_meter_of_which_not_all_can_be_read_is_no_drift() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    for _ in 0..101 {
        world.uses(&user, 1).await;
    }
    world.run().await;
    world.pass(2 * HOUR_MS);
    let (deadline, now) = (world.now().plus_ms(HOUR_MS), || world.now());
    let of = |pages| report::Reconciling::new(&world.deps, deadline, &now).reading_at_most(pages);
    let (checked, _) = of(1).all(None).await;
    assert_eq!((checked.drifted, checked.unasked), (0, 1));
    let (checked, _) = of(2).all(None).await;
    assert_eq!((checked.drifted, checked.unasked), (0, 0));
}
