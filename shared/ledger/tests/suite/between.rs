//! Faults between the AWS SDK and the server, one at a time, so that the SDK's own retries are in the test.
//!
//! What the ledger sends is one request a port method and never a batch. "Partial" therefore means here: one item of a
//! transaction, one page of the index, one write of a protocol that makes several.

use super::{
    support::{HOLD_MS, T0, TABLE, demand, new_id, plans, price, subscribe, t, used, user},
    wire::{Call, Fate, OPERATIONS, Sent, Throttle, Wire, on_a_wire},
};
use domain::{Outcome, Receipt, RowFate, UserId};
use ledger::{AdmitError, Attempt, Changed, DynamoStore, Fault, Ledger, MeterKey, Store};
use serde_json::{Value, json};
use std::{collections::BTreeSet, slice::from_ref, time::Duration};
use tokio::time::timeout;

/// How often the SDK tries what is harmless to repeat.
const SDK_TRIES: usize = 3;
/// How often the ledger tries a settling write, each time as often as the SDK does.
const SETTLE_TRIES: usize = 6;
/// How long a function goes on trying to settle, in these tests.
const FUNCTION: Duration = Duration::from_secs(20);
/// When a write that is late takes effect: the hold that it adds has long expired.
const LATE_MS: u64 = HOLD_MS + 60_000;

const THROTTLED: [Fate; 3] = [
    Fate::Throttled(Throttle::Partition),
    Fate::Throttled(Throttle::Table),
    Fate::Throttled(Throttle::Account),
];
/// Whoever sent it cannot know whether it took effect.
const UNKNOWN: [Fate; 9] = [
    Fate::CutBefore,
    Fate::CutAfter,
    Fate::CutAnswer,
    Fate::Silence,
    Fate::SlowAnswer,
    Fate::Late(LATE_MS),
    Fate::Failed,
    Fate::FailedAfter,
    Fate::Unavailable,
];

async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn is_receipt(call: &Call) -> bool {
    call.operation == "PutItem" && call.sort_key().starts_with("R#")
}

/// A meter's update that is no admission: here always a release.
fn is_release(call: &Call) -> bool {
    call.operation == "UpdateItem" && call.admits().is_none()
}

fn is_transaction(call: &Call) -> bool {
    call.operation == "TransactWriteItems"
}

fn admissions(log: &[Sent]) -> Vec<String> {
    log.iter().filter_map(|sent| sent.call.admits()).map(str::to_owned).collect()
}

/// The receipts in the table, as plain JSON.
fn receipts(wire: &Wire) -> Vec<Value> {
    let items = wire.dynamo().scan().unwrap();
    items.into_iter().filter(|item| item["sk"].as_str().unwrap().starts_with("R#")).collect()
}

async fn key_of(store: &DynamoStore, user: &UserId) -> MeterKey {
    MeterKey::of(&store.load(user).await.unwrap().unwrap().meter)
}

#[test]
fn i3_an_admission_is_on_the_wire_once_under_its_id_whatever_becomes_of_it() {
    for fate in [Fate::Pass, Fate::Conflict].into_iter().chain(THROTTLED).chain(UNKNOWN) {
        on_a_wire(async |wire, store| {
            let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
            wire.script(|call| call.admits().is_some(), &[fate]);
            let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
            let sent = admissions(&wire.log());
            let attempts = if fate == Fate::Pass { 1 } else { 2 };
            assert_eq!(sent.len(), attempts, "{fate:?}: {sent:?}");
            assert_eq!(
                sent.iter().collect::<BTreeSet<_>>().len(),
                attempts,
                "{fate:?}: under one id {sent:?}"
            );
            assert_eq!(sent.last().unwrap(), hold.id().as_str());

            // What may have been written is voided; what was refused needs no void.
            let voided: Vec<Value> = receipts(&wire);
            if UNKNOWN.contains(&fate) {
                assert_eq!(voided.len(), 1, "{fate:?}: {voided:?}");
                assert_eq!(voided[0]["outcome"], json!("void"), "{fate:?}");
                assert!(
                    voided[0]["sk"].as_str().unwrap().ends_with(&sent[0]),
                    "{fate:?}: another was voided"
                );
            } else {
                assert_eq!(voided, [Value::Null; 0], "{fate:?}");
            }

            ledger.settle(hold, used(200), &price(), T0).await.unwrap();
            let key = key_of(&store, &user).await;
            let before = store.meter(&key).await.unwrap().unwrap();
            assert_eq!(
                (before.settled, before.committed, before.holds.len()),
                (t(200), t(200), 0),
                "{fate:?}"
            );
            assert_eq!(before.rate.counts.values().sum::<u32>(), 1, "{fate:?}: a slot is gone");

            // A write that comes late is found by its void, and charges nothing and nobody.
            wait(LATE_MS * 2).await;
            let late = store.meter(&key).await.unwrap().unwrap();
            assert_eq!(late.holds.len(), usize::from(matches!(fate, Fate::Late(_))), "{fate:?}");
            ledger.sweep(&key, T0.plus_ms(LATE_MS * 2)).await.unwrap();
            assert_eq!(store.meter(&key).await.unwrap().unwrap(), before, "{fate:?}");
        });
    }
}

#[test]
fn i4_an_admission_that_is_refused_for_ever_is_unavailable_and_leaves_nothing() {
    for fate in [Fate::Conflict].into_iter().chain(THROTTLED) {
        on_a_wire(async |wire, store| {
            let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
            wire.script(|call| call.admits().is_some(), &[fate; 99]);
            let answer = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await;
            assert!(matches!(answer, Err(AdmitError::Unavailable(_))), "{fate:?}: {answer:?}");
            let sent = admissions(&wire.log());
            assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "{fate:?}: under one id");
            let meter = store.load(&user).await.unwrap().unwrap().meter;
            assert_eq!(
                (meter.committed, meter.holds.len(), meter.rate.counts.len()),
                (t(0), 0, 0),
                "{fate:?}"
            );
            assert_eq!(receipts(&wire), [Value::Null; 0], "{fate:?}");
        });
    }
}

#[test]
fn f14_an_admission_that_is_never_answered_is_unavailable_and_each_attempt_is_voided() {
    for fate in UNKNOWN {
        on_a_wire(async |wire, store| {
            let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
            wire.script(|call| call.admits().is_some(), &[fate; 99]);
            let answer = ledger.admit(&user, &demand(30), &price(), HOLD_MS, &new_id, T0).await;
            assert!(matches!(answer, Err(AdmitError::Unavailable(_))), "{fate:?}: {answer:?}");
            let sent = admissions(&wire.log());
            assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "{fate:?}: under one id");
            assert_eq!(receipts(&wire).len(), sent.len(), "{fate:?}");
            wait(LATE_MS * 2).await;
            let key = key_of(&store, &user).await;
            ledger.sweep(&key, T0.plus_ms(LATE_MS * 2)).await.unwrap();
            let meter = store.meter(&key).await.unwrap().unwrap();
            assert_eq!(
                (meter.settled, meter.committed, meter.totals.absorbed),
                (t(0), t(0), t(0)),
                "{fate:?}"
            );
            assert_eq!(meter.rate.counts.values().sum::<u32>(), 0, "{fate:?}: a slot is gone");
        });
    }
}

#[test]
fn i3_a_settling_write_is_tried_again_by_the_sdk_and_has_its_effect_once() {
    for fate in [Fate::Pass].into_iter().chain(THROTTLED).chain(UNKNOWN) {
        on_a_wire(async |wire, store| {
            let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
            let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
            let key = key_of(&store, &user).await;
            let id = (hold.id().clone(), hold.hold());
            let receipt = Receipt::settled(user.clone(), key.period_start, id, used(200), &price(), T0);
            let tries = if fate == Fate::Pass { 1 } else { 2 };

            wire.script(is_receipt, &[fate]);
            assert_eq!(store.put_receipt(&receipt).await.unwrap(), receipt, "{fate:?}");
            assert_eq!(wire.count(is_receipt), tries, "{fate:?}");

            wire.script(is_release, &[fate]);
            let release = receipt.release(hold.hold());
            // `No` after an answer that was lost: it is gone by this very write.
            let _: Changed = store.release(&release).await.unwrap();
            assert_eq!(wire.count(is_release), tries, "{fate:?}");

            wait(LATE_MS * 2).await;
            assert_eq!(store.release(&release).await.unwrap(), Changed::No, "{fate:?}");
            let meter = store.meter(&key).await.unwrap().unwrap();
            assert_eq!((meter.settled, meter.committed), (t(200), t(200)), "{fate:?}");
            assert_eq!((meter.totals.requests, receipts(&wire).len()), (1, 1), "{fate:?}");
            drop(hold);
        });
    }
}

#[test]
fn the_sdk_gives_up_after_three_tries_and_leaves_conflicts_to_the_ledger() {
    on_a_wire(async |wire, store| {
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        let receipt = Receipt::void(user.clone(), hold.period().start(), hold.id().clone(), T0);
        let cases = [
            (Fate::Throttled(Throttle::Partition), SDK_TRIES, Fault::Throttled),
            (Fate::Throttled(Throttle::Table), SDK_TRIES, Fault::Throttled),
            (Fate::Throttled(Throttle::Account), SDK_TRIES, Fault::Throttled),
            (Fate::Failed, SDK_TRIES, Fault::Unanswered),
            (Fate::Unavailable, SDK_TRIES, Fault::Unanswered),
            (Fate::CutBefore, SDK_TRIES, Fault::Unanswered),
            (Fate::Silence, SDK_TRIES, Fault::Unanswered),
            (Fate::Conflict, 1, Fault::Conflict),
        ];
        for (fate, tries, fault) in cases {
            wire.forget();
            wire.script(is_receipt, &[fate; 9]);
            let error = store.put_receipt(&receipt).await.unwrap_err();
            assert_eq!((wire.count(is_receipt), error.fault), (tries, fault), "{fate:?}");
        }
        assert_eq!(receipts(&wire), [Value::Null; 0]);
        wire.calm();
        ledger.void(hold, T0).await.unwrap();
    });
}

#[test]
fn i3_a_settle_is_made_once_through_a_storm_on_both_its_writes() {
    for fate in [Fate::Conflict].into_iter().chain(THROTTLED).chain(UNKNOWN) {
        on_a_wire(async |wire, store| {
            let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
            let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
            let mut left = [4; 2];
            wire.decide(move |call| {
                let Some(left) =
                    [is_receipt(call), is_release(call)].iter().position(|is| *is).map(|n| &mut left[n])
                else {
                    return (Fate::Pass, 0);
                };
                *left -= i32::from(*left > 0);
                (if *left > 0 { fate } else { Fate::Pass }, 0)
            });
            let receipt = ledger.settle(hold, used(200), &price(), T0).await.unwrap();
            assert_eq!(receipt.charged, t(200), "{fate:?}");
            wait(LATE_MS * 2).await;
            let meter = store.load(&user).await.unwrap().unwrap().meter;
            assert_eq!((meter.settled, meter.committed), (t(200), t(200)), "{fate:?}");
            assert_eq!((meter.totals.requests, receipts(&wire).len()), (1, 1), "{fate:?}");
        });
    }
}

#[test]
fn f08_a_settle_that_ran_out_of_time_is_the_truth_when_its_receipt_lands_late() {
    on_a_wire(async |wire, store| {
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        // The first try lands before the hold expires, the others never do.
        let fates: Vec<Fate> =
            [Fate::Late(100_000)].into_iter().chain([Fate::Silence; SDK_TRIES * SETTLE_TRIES]).collect();
        wire.script(is_receipt, &fates);
        let price = price();
        let settle = ledger.settle(hold, used(200), &price, T0);
        assert!(timeout(FUNCTION, settle).await.is_err(), "it was given up");
        wire.calm();
        wait(200_000).await;
        let key = key_of(&store, &user).await;
        assert_eq!(ledger.sweep(&key, T0.plus_ms(HOLD_MS)).await.unwrap(), 1);
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.settled, meter.committed, meter.totals.absorbed), (t(200), t(200), t(0)));
    });
}

#[test]
fn i3_a_late_receipt_of_a_hold_that_was_swept_meanwhile_changes_nothing() {
    on_a_wire(async |wire, store| {
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        wire.script(is_receipt, &[Fate::Late(LATE_MS); SDK_TRIES * SETTLE_TRIES]);
        let price = price();
        let settle = ledger.settle(hold, used(200), &price, T0);
        assert!(timeout(FUNCTION, settle).await.is_err(), "it was given up");
        wire.calm();
        let key = key_of(&store, &user).await;
        assert_eq!(ledger.sweep(&key, T0.plus_ms(HOLD_MS)).await.unwrap(), 1);
        let before = (store.meter(&key).await.unwrap(), receipts(&wire));
        wait(LATE_MS * 2).await;
        assert_eq!((store.meter(&key).await.unwrap(), receipts(&wire)), before);
        assert_eq!(before.1[0]["outcome"], json!("swept"));
    });
}

#[test]
fn a_transaction_is_whole_or_nothing_and_its_repeat_is_known_by_its_token() {
    let tokens = |wire: &Wire| -> Vec<Value> {
        let log = wire.log().into_iter().filter(|sent| is_transaction(&sent.call));
        log.map(|sent| sent.call.body["ClientRequestToken"].clone()).collect()
    };
    for fate in [Fate::Conflict].into_iter().chain(THROTTLED).chain(UNKNOWN) {
        on_a_wire(async |wire, store| {
            let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
            wire.script(is_transaction, &[fate]);
            let first = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await;
            let sent = tokens(&wire);
            match fate {
                // Decided anew by the ledger, so under another token.
                Fate::Conflict => assert_ne!(sent[0], sent[1], "{fate:?}"),
                // Of a transaction that was throttled in a part the SDK knows no retry, and nobody generates.
                Fate::Throttled(Throttle::Partition | Throttle::Table) => {
                    assert_eq!(sent.len(), 1, "{fate:?}");
                    assert!(matches!(first, Err(AdmitError::Unavailable(_))), "{fate:?}: {first:?}");
                    assert_eq!(store.load(&user).await.unwrap(), None, "{fate:?}: a part was written");
                }
                _ => assert_eq!(sent, vec![sent[0].clone(); 2], "{fate:?}"),
            }
            wire.calm();
            let hold = match first {
                Ok(hold) => hold,
                Err(_) => ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap(),
            };
            ledger.settle(hold, used(200), &price(), T0).await.unwrap();

            wire.script(is_transaction, &[fate]);
            let capped = |account: &domain::Account| {
                (account.spend_cap != Some(t(700)))
                    .then(|| domain::Account { spend_cap: Some(t(700)), ..account.clone() })
            };
            if ledger.change_account(&user, T0, capped).await.is_err() {
                let loaded = store.load(&user).await.unwrap().unwrap();
                assert_eq!((loaded.account.rev, loaded.meter.rev), (1, 1), "{fate:?}: a part was written");
                ledger.change_account(&user, T0, capped).await.unwrap();
            }
            wait(LATE_MS * 2).await;
            let loaded = store.load(&user).await.unwrap().unwrap();
            assert_eq!((loaded.account.spend_cap, loaded.account.rev), (Some(t(700)), 2), "{fate:?}");
            assert_eq!((loaded.meter.rev, loaded.meter.settled), (2, t(200)), "{fate:?}");
        });
    }
}

#[test]
fn f24_the_index_is_read_to_its_end_though_a_page_in_its_middle_is_throttled() {
    on_a_wire(async |wire, store| {
        let ledger = Ledger::new(store, plans());
        // Only keys are read from the index, so keys are all that these need.
        let expected: BTreeSet<String> = (0..250).map(|n| format!("user_{n:03}")).collect();
        for user in &expected {
            let item = json!({ "pk": {"S": format!("U#{user}")}, "sk": {"S": "M#001795518000"}, "dirty": {"S": "D#03"} });
            let put = json!({ "TableName": TABLE, "Item": item });
            wire.dynamo().database().put_item(serde_json::from_value(put).unwrap()).unwrap();
        }
        let is_second_page =
            |call: &Call| call.is_index_read() && call.body.get("ExclusiveStartKey").is_some();
        wire.script(is_second_page, &[Fate::Throttled(Throttle::Partition); SDK_TRIES - 1]);
        let mut found = Vec::new();
        let first = ledger.dirty(3, None).await.unwrap();
        let second = ledger.dirty(3, first.next.clone()).await.unwrap();
        assert_eq!(wire.count(is_second_page), SDK_TRIES);

        // Once more than the SDK tries: an error, and the same page when it is asked for again.
        wire.script(is_second_page, &[Fate::Throttled(Throttle::Table); SDK_TRIES]);
        assert_eq!(ledger.dirty(3, first.next.clone()).await.unwrap_err().fault, Fault::Throttled);
        assert_eq!(ledger.dirty(3, first.next.clone()).await.unwrap(), second);
        let third = ledger.dirty(3, second.next.clone()).await.unwrap();
        assert_eq!(third.next, None);
        for page in [first, second, third] {
            found.extend(page.keys.into_iter().map(|key| key.user.to_string()));
        }
        assert_eq!(found.len(), expected.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    });
}

#[test]
fn f03_a_sweep_that_is_throttled_in_its_middle_is_finished_by_the_next_and_sweeps_each_once() {
    on_a_wire(async |wire, store| {
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        for _ in 0..10 {
            drop(ledger.admit(&user, &demand(50), &price(), HOLD_MS, &new_id, T0).await.unwrap());
        }
        let key = key_of(&store, &user).await;
        let mut seen = 0;
        wire.decide(move |call| {
            seen += usize::from(is_receipt(call));
            let hit = is_receipt(call) && seen > 4;
            (if hit { Fate::Throttled(Throttle::Partition) } else { Fate::Pass }, 0)
        });
        let later = T0.plus_ms(HOLD_MS);
        assert_eq!(ledger.sweep(&key, later).await.unwrap_err().fault, Fault::Throttled);
        assert_eq!(store.meter(&key).await.unwrap().unwrap().holds.len(), 6);
        wire.calm();
        assert_eq!(ledger.sweep(&key, later).await.unwrap(), 6);
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.committed, meter.totals.absorbed, meter.totals.requests), (t(0), t(500), 10));
    });
}

#[test]
fn f23_a_report_stays_one_row_whatever_becomes_of_its_writes() {
    let of_report = |call: &Call| {
        call.is_write() && !is_transaction(call) && call.admits().is_none() && !is_receipt(call)
    };
    for fate in [Fate::Conflict].into_iter().chain(THROTTLED).chain(UNKNOWN) {
        // Each write of a report in turn: seal, note, report item, drop, clear.
        for which in 0..5 {
            on_a_wire(async |wire, store| {
                let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
                subscribe(&ledger, &user, T0).await;
                let hold = ledger.admit(&user, &demand(500), &price(), HOLD_MS, &new_id, T0).await.unwrap();
                ledger.settle(hold, used(450), &price(), T0).await.unwrap();
                let key = key_of(&store, &user).await;
                let mut seen = 0;
                wire.decide(move |call| {
                    seen += usize::from(of_report(call));
                    (if of_report(call) && seen == which + 1 { fate } else { Fate::Pass }, 0)
                });
                let mut sent = BTreeSet::new();
                // Two runs: what the first could not finish, the second does.
                for _ in 0..2 {
                    report(&ledger, &key, &mut sent).await;
                }
                wait(LATE_MS * 2).await;
                report(&ledger, &key, &mut sent).await;
                assert_eq!(sent.len(), 1, "{fate:?} at {which}: {sent:?}");
                let meter = store.meter(&key).await.unwrap().unwrap();
                assert_eq!((meter.sealed, meter.parked, meter.seq), (t(450), t(0), 1), "{fate:?} at {which}");
                assert_eq!((meter.pending, meter.dirty), (None, false), "{fate:?} at {which}");
                let reports = wire.dynamo().scan().unwrap();
                let reports =
                    reports.iter().filter(|item| item["sk"].as_str().unwrap().starts_with("P#")).count();
                assert_eq!(reports, 1, "{fate:?} at {which}");
            });
        }
    }
}

/// One run of a reporter over one meter; what it sends has an identifier and an amount.
async fn report(ledger: &Ledger<DynamoStore>, key: &MeterKey, sent: &mut BTreeSet<(String, u64)>) {
    let Ok(Some((_, row))) = ledger.seal(key, T0).await else {
        ledger.clear(key).await.ok();
        return;
    };
    if let Ok(Attempt::First | Attempt::Again) = ledger.attempt(key, &row, T0, 0).await {
        sent.insert((row.identifier.clone(), row.tokens.get()));
        if ledger.finish(key, &row, RowFate::Accepted, T0, None).await.is_ok() {
            ledger.clear(key).await.ok();
        }
    }
}

#[test]
fn f24_an_index_that_lags_delays_a_report_and_neither_loses_nor_doubles_it() {
    on_a_wire(async |wire, store| {
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        subscribe(&ledger, &user, T0).await;
        let all = async |ledger: &Ledger<DynamoStore>| {
            let mut keys = Vec::new();
            for shard in 0..ledger::SHARDS {
                keys.extend(ledger.dirty(shard, None).await.unwrap().keys);
            }
            keys
        };
        let hold = ledger.admit(&user, &demand(500), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        ledger.settle(hold, used(450), &price(), T0).await.unwrap();
        let key = key_of(&store, &user).await;
        let mut sent = BTreeSet::new();
        // Not in the index yet: nothing is done, and nothing is lost.
        wire.decide(|call| (if call.is_index_read() { Fate::Stale } else { Fate::Pass }, 0));
        assert_eq!(all(&ledger).await, []);
        wire.calm();
        assert_eq!(all(&ledger).await, from_ref(&key));
        report(&ledger, &key, &mut sent).await;
        // Still in the index though it is clean: a second run finds nothing to do.
        wire.decide(|call| (if call.is_index_read() { Fate::Stale } else { Fate::Pass }, 0));
        let before = store.meter(&key).await.unwrap().unwrap();
        assert!(!before.dirty);
        assert_eq!(all(&ledger).await, from_ref(&key));
        report(&ledger, &key, &mut sent).await;
        assert_eq!(store.meter(&key).await.unwrap().unwrap(), before);
        assert_eq!((sent.len(), before.sealed), (1, t(450)));
    });
}

#[test]
fn f17_nothing_is_sent_but_single_writes_consistent_reads_and_two_transactions() {
    on_a_wire(async |wire, store| {
        let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
        subscribe(&ledger, &user, T0).await;
        wire.forget();
        let hold = ledger.admit(&user, &demand(500), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        // The hot path: one read while nothing is remembered, and no transaction.
        let operations: Vec<String> = wire.log().into_iter().map(|sent| sent.call.operation).collect();
        assert_eq!(operations, ["Query", "UpdateItem"]);
        let receipt = ledger.settle(hold, used(450), &price(), T0).await.unwrap();
        assert!(matches!(receipt.outcome, Outcome::Settled { .. }));
        wire.forget();
        let hold = ledger.admit(&user, &demand(100), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        ledger.void(hold, T0).await.unwrap();
        let log = wire.log();
        let operations: Vec<&str> = log.iter().map(|sent| sent.call.operation.as_str()).collect();
        assert_eq!(operations, ["UpdateItem", "PutItem", "UpdateItem"]);
        assert!(operations.iter().all(|operation| OPERATIONS.contains(operation)));
    });
}
