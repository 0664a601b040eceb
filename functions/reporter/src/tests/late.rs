//! Usage that comes too late for its invoice: an item on the next one, once, whatever crashes.

use super::world::{Book, DAY_MS, HOUR_MS, Mishap, START, World, usage};
use crate::tests::world::price;
use domain::{Period, RowFate, Timestamp, UserId};
use ledger::MeterKey;
use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use stripe::testing::Memory;
use tokio::sync::Notify;

const MINUTE_MS: u64 = 60_000;

/// A user of whose period 900 tokens are on the final invoice, and 300 settled after it: 200 of these are above what is
/// included, at a cent each. It is two hours after the period's end.
async fn late(world: &World) -> (UserId, MeterKey, Period) {
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 900).await;
    world.run().await;
    let hold = world.admit(&user, 300).await;
    let period = hold.period();
    world.set(period.end().plus_ms(2 * HOUR_MS));
    let finalized = period.end().plus_ms(HOUR_MS);
    world.book.lock().unwrap().invoice("cus_a", period, Some(finalized));
    world.deps.ledger.settle(hold, usage(300), &price(), world.now()).await.unwrap();
    (user, key, period)
}

fn items(world: &World) -> Vec<(i64, String)> {
    let book = world.book.lock().unwrap();
    let of = |item: &serde_json::Value| {
        let report = item["metadata"]["inkmeter_report"].as_str().unwrap().to_owned();
        (item["amount"].as_i64().unwrap(), report)
    };
    book.items.iter().map(of).collect()
}

/// The late row is billed by one item, and the meter says so.
fn assert_billed_once(world: &World, key: &MeterKey, when: &str) {
    let reports = world.store.reports_of(key);
    let late = reports.iter().find(|report| report.fate == RowFate::Invoiced).expect(when);
    assert_eq!(items(world), [(200, late.identifier.clone())], "{when}");
    assert_eq!((late.tokens.get(), late.note.as_deref()), (300, Some("ii_0")), "{when}");
    let meter = world.store.kept().meters[key].clone();
    assert_eq!((meter.invoiced.get(), meter.sealed.get(), meter.parked.get()), (300, 1_200, 0), "{when}");
    assert!(meter.pending.is_none() && !meter.dirty, "{when}");
    assert_eq!(world.counted("cus_a"), [900], "{when}: nothing was sent after the invoice was final");
}

#[tokio::test]
async fn f11_usage_that_misses_its_invoice_becomes_an_item_of_what_it_adds_to_the_price() {
    let world = World::new().await;
    let (_, key, period) = late(&world).await;
    let report = world.run().await;
    assert_eq!((report.late, report.invoiced, report.sent, report.cleared), (1, 1, 0, 1));
    assert_billed_once(&world, &key, "after one run");
    assert_eq!(world.announced(), ["Usage Invoiced"]);
    let item = world.book.lock().unwrap().items[0].clone();
    let text = item["description"].as_str().unwrap();
    assert_eq!(text, "300 tokens used from 2027-01-15 to 2027-02-15, counted after that period's invoice");
    assert_eq!(item["period"]["start"], period.start().s());
    let idle = world.run().await;
    assert_eq!((idle.meters, idle.calls), (0, 0));
}

/// Dies at a call, before it takes effect or after it.
struct Crash {
    calls: AtomicU32,
    at: u32,
    after: bool,
    died: Notify,
}

fn crashing(book: Arc<Mutex<Book>>, crash: Arc<Crash>) -> Memory {
    Memory::new(move |request| {
        let (book, crash) = (Arc::clone(&book), Arc::clone(&crash));
        async move {
            let dies = crash.calls.fetch_add(1, Ordering::Relaxed) == crash.at;
            if dies && !crash.after {
                crash.died.notify_one();
                pending::<()>().await;
            }
            let reply = book.lock().unwrap().answer(&request);
            if dies {
                crash.died.notify_one();
                pending::<()>().await;
            }
            reply
        }
    })
}

#[tokio::test]
async fn f09_f11_f23_a_late_row_is_billed_once_whatever_call_its_run_dies_at() {
    // One call brings the 900 tokens on their invoice; what follows is the late row's.
    let mut deaths = 0;
    for after in [false, true] {
        for at in 1.. {
            let crash = Arc::new(Crash { calls: AtomicU32::new(0), at, after, died: Notify::new() });
            let world = World::in_memory(|book| crashing(book, Arc::clone(&crash))).await;
            let (_, key, _) = late(&world).await;
            let died = tokio::select! {
                biased;
                () = crash.died.notified() => true,
                _ = world.run() => false,
            };
            // The next runs: the lease that was left behind has run out.
            for _ in 0..3 {
                world.pass(HOUR_MS);
                world.run().await;
            }
            assert_billed_once(&world, &key, &format!("died at call {at}, after it: {after}"));
            if !died {
                break;
            }
            deaths += 1;
        }
    }
    // The invoices twice, the subscription, its price, the items, and the new item: each before and after.
    assert_eq!(deaths, 12);
}

#[tokio::test]
async fn f11_f23_a_late_row_is_billed_once_wherever_between_two_writes_its_run_dies() {
    for writes in 1..=4 {
        let world = World::new().await;
        let (_, key, period) = late(&world).await;
        let ledger = &world.deps.ledger;
        let (_, row) = ledger.seal(&key, world.now()).await.unwrap().unwrap();
        let until = world.now().plus_ms(2 * MINUTE_MS);
        let lease = if writes >= 2 {
            let owner = domain::HoldId::parse("dead").unwrap();
            ledger.take_lease(&row.customer, &owner, world.now(), until).await.unwrap()
        } else {
            None
        };
        if writes >= 3 {
            ledger.attempt(&key, &row, world.now(), lease.unwrap().fence).await.unwrap();
        }
        if writes >= 4 {
            // The item was made and its report item written; the meter has not moved.
            let item = stripe::NewInvoiceItem {
                customer: &row.customer,
                report: &row.identifier,
                cents: 200,
                description: "300 tokens",
                period,
                idempotency_key: "dead",
            };
            let made = world.deps.stripe.create_invoice_item(&item).await.unwrap();
            let note = Some(made.id.as_str());
            let put =
                ledger::Store::put_report(&world.store, &key, &row, RowFate::Invoiced, world.now(), note);
            assert_eq!(put.await.unwrap(), RowFate::Invoiced);
        }
        for _ in 0..3 {
            world.pass(HOUR_MS);
            world.run().await;
        }
        assert_billed_once(&world, &key, &format!("died after {writes} writes"));
    }
}

#[tokio::test]
async fn f09_f11_an_item_whose_answer_was_lost_is_found_again_and_one_that_was_lost_is_made() {
    let lost = vec![Mishap::AnswerLost];
    let failed = vec![Mishap::CallLost, Mishap::Status(500), Mishap::Status(429)];
    // Within a day the idempotency key would do; after it, only the item itself says that it is there.
    for (mishaps, hours) in [(lost.clone(), 2), (lost, 26), (failed.clone(), 2), (failed, 26)] {
        let world = World::new().await;
        let (_, key, _) = late(&world).await;
        world.mishap("items", &mishaps);
        for _ in 0..=mishaps.len() {
            world.run().await;
            world.pass(hours * HOUR_MS);
        }
        assert_billed_once(&world, &key, &format!("{mishaps:?}, every {hours} hours"));
    }
}

#[tokio::test]
async fn f10_an_item_that_stripe_refuses_is_parked_with_stripes_reason() {
    let world = World::new().await;
    let (_, key, _) = late(&world).await;
    world.mishap("items", &[Mishap::Status(400)]);
    let report = world.run().await;
    assert_eq!((report.parked, report.invoiced, report.failed), (1, 0, 0));
    let parked = world.store.reports_of(&key).pop().unwrap();
    assert_eq!(parked.fate, RowFate::Parked);
    assert!(parked.note.unwrap().contains("HTTP 400"));
    assert_eq!(world.announced(), ["Report Parked"]);
}

#[tokio::test]
async fn f11_late_usage_within_what_is_included_costs_nothing_and_is_told_as_such() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let hold = world.admit(&user, 300).await;
    let (period, key) = (hold.period(), MeterKey { user, period_start: hold.period().start() });
    world.set(period.end().plus_ms(3 * HOUR_MS));
    world.deps.ledger.settle(hold, usage(300), &price(), world.now()).await.unwrap();
    let report = world.run().await;
    assert_eq!(
        (report.late, report.invoiced, report.sent),
        (1, 1, 0),
        "no invoice was drawn up within two hours"
    );
    assert_eq!(items(&world), []);
    assert_eq!(world.store.reports_of(&key)[0].note.as_deref(), Some("0 cents"));
}

/// 1,200 tokens whose one event was lost, or counted without an answer, before the invoice was final.
async fn unknown(mishap: Mishap) -> (World, MeterKey) {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 1_200).await;
    let period = world.store.kept().meters[&key].period;
    world.set(Timestamp::from_ms(period.end().ms() - 10 * MINUTE_MS));
    world.mishap("cus_a", &[mishap, Mishap::CallLost, Mishap::CallLost]);
    assert_eq!(world.run().await.failed, 1);
    world.set(period.end().plus_ms(90 * MINUTE_MS));
    let finalized = period.end().plus_ms(HOUR_MS);
    world.book.lock().unwrap().invoice("cus_a", period, Some(finalized));
    (world, key)
}

#[tokio::test]
async fn f09_f11_a_row_that_may_have_arrived_is_asked_for_before_it_is_billed_otherwise() {
    for (mishap, counted, billed) in [(Mishap::AnswerLost, true, 0), (Mishap::CallLost, false, 200)] {
        let (world, key) = unknown(mishap).await;
        // Stripe may not have counted yet what it took a moment before the invoice was final.
        let early = world.run().await;
        assert_eq!((early.failed, early.invoiced, early.reconciled), (1, 0, 0));
        world.pass(HOUR_MS);
        let report = world.run().await;
        assert_eq!((report.reconciled, report.failed, report.cleared), (1, 0, 1));
        let fate = world.store.reports_of(&key)[0].fate;
        assert_eq!(fate, if counted { RowFate::Accepted } else { RowFate::Invoiced });
        assert_eq!(items(&world).iter().map(|(cents, _)| cents).sum::<i64>(), billed);
        assert_eq!(world.counted("cus_a").len(), usize::from(counted));
    }
}

#[tokio::test]
async fn f11_usage_older_than_35_days_is_billed_on_the_next_invoice() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 1_200).await;
    let period = world.store.kept().meters[&key].period;
    world.book.lock().unwrap().invoice("cus_a", period, Some(period.end().plus_ms(HOUR_MS)));
    world.set(START.plus_ms(40 * DAY_MS));
    let report = world.run().await;
    assert_eq!((report.invoiced, report.sent, report.parked), (1, 0, 0));
    assert_eq!(items(&world)[0].0, 200);
}

#[tokio::test]
async fn f11_nothing_is_sent_while_the_invoice_is_about_to_become_final() {
    let world = World::new().await;
    let user = world.pays("cus_a", START).await;
    let key = world.uses(&user, 10).await;
    let period = world.store.kept().meters[&key].period;
    world.book.lock().unwrap().invoice("cus_a", period, None);
    world.set(period.end().plus_ms(57 * MINUTE_MS));
    let report = world.run().await;
    assert_eq!((report.sent, report.failed, report.late), (0, 1, 0));
    // Stripe holds the draft back: its webhook is not answered yet.
    world.set(period.end().plus_ms(3 * HOUR_MS));
    let report = world.run().await;
    assert_eq!((report.accepted, report.cleared), (1, 1));
}

#[tokio::test]
async fn i7_late_usage_of_two_rows_is_rounded_once() {
    let world = World::new().await;
    let (user, key, period) = late(&world).await;
    world.run().await;
    // Another request of the same period ends even later.
    let mut meter = world.store.kept().meters[&key].clone();
    meter.settled = meter.settled.saturating_add(domain::Tokens::from_u32(7));
    meter.committed = meter.committed.saturating_add(domain::Tokens::from_u32(7));
    meter.dirty = true;
    world.store.kept().meters.insert(key.clone(), meter);
    world.run().await;
    assert_eq!(items(&world).iter().map(|(cents, _)| *cents).collect::<Vec<_>>(), [200, 7]);
    assert!(period.end() < world.now() && user == key.user);
}

#[tokio::test]
async fn f11_what_a_change_of_plan_found_unreported_goes_on_the_next_invoice_at_the_old_price() {
    // With the meter of the rest of the period there already, or not yet.
    for opened in [false, true] {
        let world = World::new().await;
        let user = world.pays("cus_a", START).await;
        let key = world.uses(&user, 900).await;
        world.run().await;
        world.pass(HOUR_MS);
        world.uses(&user, 300).await;
        let since = world.now();
        let changed = |account: &domain::Account| {
            Some(domain::Account {
                plan: domain::PlanId::parse("free").unwrap(),
                plan_since: Some(since),
                ..account.clone()
            })
        };
        world.deps.ledger.change_account(&user, since, changed).await.unwrap();
        world.book.lock().unwrap().usage_until_a_change("cus_a", since);
        let period = world.store.kept().meters[&key].period;
        assert_eq!(period.end(), since, "the change cuts the meter");
        world.pass(MINUTE_MS);
        if opened {
            world.uses(&user, 5).await;
        }
        let report = world.run().await;
        assert_eq!((report.invoiced, report.failed, report.accepted), (1, 0, u32::from(opened)));
        assert_eq!(items(&world).iter().map(|(cents, _)| *cents).collect::<Vec<_>>(), [200]);
        assert_eq!(world.counted("cus_a").iter().sum::<u64>(), if opened { 905 } else { 900 });
    }
}

#[tokio::test]
async fn f11_late_usage_is_billed_at_the_price_that_its_subscription_was_sold_by() {
    let world = World::new().await;
    let (_, key, _) = late(&world).await;
    // Whoever bought before the book changed has less included, and pays two cents and a half for each further token.
    world.book.lock().unwrap().sold_at = Some((500, "2.5"));
    assert_eq!(world.run().await.invoiced, 1);
    assert_eq!(items(&world).iter().map(|(cents, _)| *cents).collect::<Vec<_>>(), [750]);
    // The account has moved on to another plan, and no item says what the old one cost.
    let world = World::new().await;
    let (_, moved, _) = late(&world).await;
    world.store.kept().meters.get_mut(&moved).unwrap().plan = domain::PlanId::parse("gone").unwrap();
    assert_eq!(world.run().await.parked, 1);
    assert_eq!(key, moved);
}

#[tokio::test]
async fn late_usage_of_a_trial_comes_to_nothing_and_that_of_the_time_before_it_does_not() {
    // All of the period; a trial that ended within it; one that began when it was over.
    for (from_ms, to_ms, billed) in [(0, 0, vec![]), (0, 2 * MINUTE_MS, vec![200]), (DAY_MS, 0, vec![200])] {
        let world = World::new().await;
        let (_, _, period) = late(&world).await;
        let end = Timestamp::from_ms(period.end().ms() - to_ms);
        world.book.lock().unwrap().trial = Period::new(START.plus_ms(from_ms), end);
        assert_eq!(world.run().await.invoiced, 1);
        assert_eq!(items(&world).iter().map(|(cents, _)| *cents).collect::<Vec<_>>(), billed);
    }
}

#[tokio::test]
async fn f10_late_usage_whose_price_nobody_says_is_parked_unless_it_is_included() {
    for (used, parked) in [(300, 1), (100, 0)] {
        let world = World::new().await;
        let user = world.pays("cus_a", START).await;
        world.uses(&user, 900).await;
        world.run().await;
        let hold = world.admit(&user, used).await;
        let (period, key) = (hold.period(), MeterKey { user, period_start: hold.period().start() });
        world.set(period.end().plus_ms(3 * HOUR_MS));
        world.deps.ledger.settle(hold, usage(used), &price(), world.now()).await.unwrap();
        world.book.lock().unwrap().sold_at = Some((0, "1"));
        let report = world.run().await;
        assert_eq!((report.parked, report.invoiced), (parked, 1 - parked));
        assert_eq!(items(&world), []);
        let note = world.store.reports_of(&key).pop().unwrap().note.unwrap();
        assert_eq!(note.starts_with("the price of late usage cannot be told: sub_1"), parked == 1, "{note}");
    }
}

#[tokio::test]
async fn f11_an_item_whose_answer_was_lost_is_found_whatever_its_price_would_be_by_then() {
    let world = World::new().await;
    let (_, key, _) = late(&world).await;
    world.mishap("items", &[Mishap::AnswerLost]);
    assert_eq!(world.run().await.failed, 1);
    // Nothing says a price any more.
    world.book.lock().unwrap().sold_at = Some((0, "1"));
    world.pass(2 * HOUR_MS);
    assert_eq!(world.run().await.invoiced, 1);
    assert_billed_once(&world, &key, "found");
}

#[tokio::test]
async fn f11_a_row_is_not_parked_while_its_item_may_be_on_its_way() {
    let world = World::new().await;
    let (_, key, _) = late(&world).await;
    world.mishap("items", &[Mishap::CallLost]);
    world.run().await;
    world.book.lock().unwrap().sold_at = Some((0, "1"));
    for (after_ms, parked) in [(5 * MINUTE_MS, 0), (56 * MINUTE_MS, 1)] {
        world.pass(after_ms);
        assert_eq!(world.run().await.parked, parked, "{after_ms} ms later");
    }
    assert_eq!(world.store.kept().meters[&key].parked.get(), 300);
}

/// A run that said a row's fate, and died before the row was off its meter.
#[tokio::test]
async fn i2_a_fate_that_was_noted_stands_whatever_could_be_done_by_now() {
    for fate in [RowFate::Parked, RowFate::Invoiced, RowFate::Accepted] {
        let world = World::new().await;
        let (_, key, _) = late(&world).await;
        let ledger = &world.deps.ledger;
        let (_, row) = ledger.seal(&key, world.now()).await.unwrap().unwrap();
        ledger.attempt(&key, &row, world.now(), 0).await.unwrap();
        let noted = ledger::Store::put_report(&world.store, &key, &row, fate, world.now(), Some("dead"));
        assert_eq!(noted.await.unwrap(), fate);
        world.pass(2 * HOUR_MS);
        let report = world.run().await;
        assert_eq!((report.failed, report.cleared, report.calls), (0, 1, 0), "{fate:?}");
        assert_eq!((items(&world), world.counted("cus_a")), (Vec::new(), vec![900]), "{fate:?}");
        let meter = world.store.kept().meters[&key].clone();
        let figures = (meter.parked.get(), meter.invoiced.get(), meter.pending);
        let expected = match fate {
            RowFate::Parked => (300, 0, None),
            RowFate::Invoiced => (0, 300, None),
            _ => (0, 0, None),
        };
        assert_eq!(figures, expected, "{fate:?}");
    }
}

/// An item costs what comes on top of all that was counted by then: an event after it would be counted below it, at the price of
/// what is included.
#[tokio::test]
async fn f11_i7_what_follows_an_item_of_its_period_is_an_item_too() {
    let world = World::new().await;
    let (_, key, period) = late(&world).await;
    world.run().await;
    // An invoice that is still a draft would take an event.
    {
        let mut book = world.book.lock().unwrap();
        book.invoices.clear();
        book.invoice("cus_a", period, None);
    }
    let seven = domain::Tokens::from_u32(7);
    {
        let mut kept = world.store.kept();
        let meter = kept.meters.get_mut(&key).unwrap();
        meter.settled = meter.settled.saturating_add(seven);
        meter.committed = meter.committed.saturating_add(seven);
        meter.dirty = true;
    }
    let report = world.run().await;
    assert_eq!((report.invoiced, report.accepted), (1, 0));
    assert_eq!(items(&world).iter().map(|(cents, _)| *cents).collect::<Vec<_>>(), [200, 7]);
    assert_eq!(world.counted("cus_a"), [900]);
}
