//! What every store must do, said once.

use super::support::{
    AnyStore, HOLD_MS, T0, demand, dynamo_store, new_id, on_each, plans, price, subscribe, t, used, user,
    world,
};
use domain::{Outcome, Receipt, Refusal, RowFate, Tokens, UserId};
use ledger::{AdmitError, Attempt, Ledger, MeterKey, OpenHold, SHARDS, Store};
use std::collections::BTreeSet;

fn ledger(store: AnyStore) -> Ledger<AnyStore> {
    Ledger::new(store, plans())
}

async fn admit<S: Store>(ledger: &Ledger<S>, user: &UserId, tokens: u32) -> Result<OpenHold, AdmitError> {
    ledger.admit(user, &demand(tokens), &price(), HOLD_MS, &new_id, T0).await
}

#[track_caller]
fn refusal(answer: Result<OpenHold, AdmitError>) -> Refusal {
    match answer {
        Err(AdmitError::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn key_of(store: &AnyStore, user: &UserId) -> MeterKey {
    MeterKey::of(&store.load(user).await.unwrap().unwrap().meter)
}

#[test]
fn a_request_is_held_then_settled_to_what_it_used() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        let hold = admit(&ledger, &user, 400).await.unwrap();
        let while_open = ledger.standing(&user, T0).await.unwrap().meter;
        assert_eq!((while_open.settled, while_open.committed, while_open.held()), (t(0), t(400), t(400)));
        let receipt = ledger.settle(hold, used(150), &price(), T0).await.unwrap();
        assert_eq!((receipt.charged, receipt.absorbed), (t(150), t(0)));
        let settled = ledger.standing(&user, T0).await.unwrap().meter;
        assert_eq!((settled.settled, settled.committed, settled.held()), (t(150), t(150), t(0)));
        assert_eq!(settled.totals.classes, *used(150).classes());
    });
}

#[test]
fn f01_first_seen_users_are_limited_from_their_first_request() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store), user());
        let Refusal::Quota { left, needed, .. } = refusal(admit(&ledger, &user, 1_001).await) else {
            panic!("another refusal");
        };
        assert_eq!((left, needed), (t(1_000), t(1_001)));
    });
}

#[test]
fn f01_two_hundred_at_once_get_exactly_what_the_cap_fits() {
    on_each(async |store| {
        // Each its own ledger: as many function instances, none with anything in its cache.
        let user = user();
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (ledger, user) = (ledger(store.clone()), user.clone());
                #[expect(clippy::disallowed_methods, reason = "the test itself awaits them")]
                tokio::spawn(async move { admit(&ledger, &user, 100).await })
            })
            .collect();
        let mut admitted = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(hold) => admitted.push(hold),
                Err(AdmitError::Refused {
                    refusal: Refusal::QuotaHeld { .. } | Refusal::Concurrency { .. },
                    ..
                }) => {}
                Err(other) => panic!("neither admitted nor held up: {other:?}"),
            }
        }
        let meter = store.load(&user).await.unwrap().unwrap().meter;
        assert_eq!((admitted.len(), meter.committed), (10, t(1_000)));
        assert_eq!(meter.rate.counts.values().sum::<u32>(), 10, "a refusal consumed a rate slot");
    });
}

#[test]
fn f02_two_instances_share_one_limit() {
    on_each(async |store| {
        let (one, other, user) = (ledger(store.clone()), ledger(store), user());
        let first = admit(&one, &user, 300).await.unwrap();
        let second = admit(&other, &user, 300).await.unwrap();
        let third = admit(&one, &user, 300).await.unwrap();
        assert!(
            matches!(refusal(admit(&other, &user, 300).await), Refusal::QuotaHeld { left, .. } if left == t(100))
        );
        for hold in [first, second, third] {
            ledger_settle(&one, hold, 300).await;
        }
        let Refusal::Quota { left, .. } = refusal(admit(&other, &user, 300).await) else { panic!() };
        assert_eq!(left, t(100));
    });
}

async fn ledger_settle<S: Store>(ledger: &Ledger<S>, hold: OpenHold, tokens: u32) {
    let receipt = ledger.settle(hold, used(tokens), &price(), T0).await.unwrap();
    assert_eq!(receipt.charged, t(tokens));
}

#[test]
fn f03_an_abandoned_hold_is_given_back_by_the_next_request_that_needs_it() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        drop(admit(&ledger, &user, 900).await.unwrap());
        assert!(matches!(refusal(admit(&ledger, &user, 900).await), Refusal::QuotaHeld { .. }));
        let later = T0.plus_ms(HOLD_MS);
        let hold = ledger.admit(&user, &demand(900), &price(), HOLD_MS, &new_id, later).await.unwrap();
        let meter = store.load(&user).await.unwrap().unwrap().meter;
        assert_eq!((meter.settled, meter.committed, meter.totals.absorbed), (t(0), t(900), t(900)));
        ledger.void(hold, later).await.unwrap();
    });
}

#[test]
fn i3_a_late_settle_after_the_sweep_charges_nothing() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        let hold = admit(&ledger, &user, 500).await.unwrap();
        let later = T0.plus_ms(HOLD_MS);
        assert_eq!(ledger.sweep(&key_of(&store, &user).await, later).await.unwrap(), 1);
        let standing = ledger.settle(hold, used(400), &price(), later).await.unwrap();
        assert_eq!((standing.outcome, standing.charged), (Outcome::Swept, t(0)));
        let meter = store.load(&user).await.unwrap().unwrap().meter;
        assert_eq!((meter.settled, meter.committed), (t(0), t(0)));
    });
}

#[test]
fn i3_a_receipt_without_its_move_is_finished_by_the_sweeper() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        let hold = admit(&ledger, &user, 500).await.unwrap();
        let key = key_of(&store, &user).await;
        // The function died between its two writes.
        let id = (hold.id().clone(), hold.hold());
        let receipt = Receipt::settled(user.clone(), key.period_start, id, used(320), &price(), T0);
        store.put_receipt(&receipt).await.unwrap();
        drop(hold);
        assert_eq!(ledger.sweep(&key, T0.plus_ms(HOLD_MS - 1)).await.unwrap(), 0, "not yet expired");
        assert_eq!(ledger.sweep(&key, T0.plus_ms(HOLD_MS)).await.unwrap(), 1);
        assert_eq!(ledger.sweep(&key, T0.plus_ms(HOLD_MS)).await.unwrap(), 0);
        let meter = store.load(&user).await.unwrap().unwrap().meter;
        assert_eq!((meter.settled, meter.committed), (t(320), t(320)));
    });
}

#[test]
fn i4_a_void_gives_back_tokens_and_rate_slot() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        let kept = admit(&ledger, &user, 100).await.unwrap();
        let before = store.load(&user).await.unwrap().unwrap().meter;
        let hold = admit(&ledger, &user, 200).await.unwrap();
        ledger.void(hold, T0).await.unwrap();
        assert_eq!(store.load(&user).await.unwrap().unwrap().meter, before);
        ledger.void(kept, T0).await.unwrap();
    });
}

#[test]
fn i5_a_full_rate_window_names_the_instant_at_which_the_request_passes() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store), user());
        for _ in 0..20 {
            let hold = admit(&ledger, &user, 10).await.unwrap();
            ledger.void_rate_kept(hold).await;
        }
        let Refusal::Rate { limit, retry_at, .. } = refusal(admit(&ledger, &user, 10).await) else {
            panic!()
        };
        assert_eq!(limit, 20);
        let too_early = T0.plus_ms(retry_at.ms_since(T0) - 1);
        let again = ledger.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, too_early).await;
        assert!(matches!(refusal(again), Refusal::Rate { retry_at: same, .. } if same == retry_at));
        let hold = ledger.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, retry_at).await.unwrap();
        ledger.void_rate_kept(hold).await;
    });
}

/// Ends a request so that it stays counted in its rate window.
trait VoidRateKept {
    async fn void_rate_kept(&self, hold: OpenHold);
}

impl<S: Store> VoidRateKept for Ledger<S> {
    async fn void_rate_kept(&self, hold: OpenHold) {
        drop(self.settle(hold, used(1), &price(), T0).await.unwrap());
    }
}

#[test]
fn i7_usage_stays_in_the_period_of_its_admission_and_the_window_is_carried_over() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        subscribe(&ledger, &user, T0).await;
        let old = admit(&ledger, &user, 300).await.unwrap();
        let end = old.period().end();
        let just_before = domain::Timestamp::from_ms(end.ms() - 1);
        let last = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, just_before).await.unwrap();
        let new = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, end).await.unwrap();
        assert_eq!(new.period().start(), end);
        let rolled = store.load(&user).await.unwrap().unwrap().meter;
        let window = plans().first().rate.window(end);
        assert_eq!(rolled.rate.counts.get(&window.previous()), Some(&1), "the last window was forgotten");
        for hold in [old, last] {
            ledger_settle(&ledger, hold, 300).await;
        }
        let key = MeterKey { user: user.clone(), period_start: T0 };
        let closed = store.meter(&key).await.unwrap().unwrap();
        assert!(closed.closed);
        assert_eq!((closed.settled, closed.committed), (t(600), t(600)));
        let open = store.load(&user).await.unwrap().unwrap().meter;
        assert_eq!((open.settled, open.committed), (t(0), t(300)));
        ledger.void(new, end).await.unwrap();
    });
}

#[test]
fn a_lagging_clock_goes_on_in_the_new_period() {
    on_each(async |store| {
        let (ahead, behind, user) = (ledger(store.clone()), ledger(store), user());
        subscribe(&ahead, &user, T0).await;
        let first = admit(&ahead, &user, 10).await.unwrap();
        let end = first.period().end();
        let new = ahead.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, end).await.unwrap();
        let lagging = domain::Timestamp::from_ms(end.ms() - 2_000);
        let late = behind.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, lagging).await.unwrap();
        assert_eq!(late.period(), new.period());
        for hold in [first, new, late] {
            ahead.void(hold, end).await.unwrap();
        }
    });
}

#[test]
fn f02_a_window_that_filled_meanwhile_refuses_an_instance_that_remembers_it_empty() {
    on_each(async |store| {
        let (warm, busy, user) = (ledger(store.clone()), ledger(store), user());
        let hold = admit(&warm, &user, 10).await.unwrap();
        warm.void_rate_kept(hold).await;
        for _ in 1..20 {
            let hold = admit(&busy, &user, 10).await.unwrap();
            busy.void_rate_kept(hold).await;
        }
        assert!(matches!(refusal(admit(&warm, &user, 10).await), Refusal::Rate { limit: 20, .. }));
    });
}

#[test]
fn i1_a_lagging_clock_counts_in_the_newest_window_and_never_in_a_finished_one() {
    on_each(async |store| {
        let (behind, ahead, user) = (ledger(store.clone()), ledger(store.clone()), user());
        let first = admit(&behind, &user, 10).await.unwrap();
        let next = T0.plus_ms(60_000);
        let second = ahead.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, next).await.unwrap();
        let lagging = domain::Timestamp::from_ms(next.ms() - 1);
        let third = behind.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, lagging).await.unwrap();
        let rate = store.load(&user).await.unwrap().unwrap().meter.rate;
        assert_eq!(rate.counts.values().copied().collect::<Vec<_>>(), [1, 2]);
        for hold in [first, second, third] {
            ahead.void(hold, next).await.unwrap();
        }
    });
}

#[test]
fn f16_a_change_of_the_account_reaches_an_instance_that_remembers_the_old_one() {
    on_each(async |store| {
        let (warm, webhook, user) = (ledger(store.clone()), ledger(store), user());
        let hold = admit(&warm, &user, 100).await.unwrap();
        warm.void(hold, T0).await.unwrap();
        let cap = |tokens: Tokens| {
            move |account: &domain::Account| {
                let mut capped = account.clone();
                capped.spend_cap = Some(tokens);
                (capped != *account).then_some(capped)
            }
        };
        let changed = webhook.change_account(&user, T0, cap(t(50))).await.unwrap();
        assert_eq!(
            webhook.change_account(&user, T0, cap(t(50))).await.unwrap(),
            changed,
            "a repeat changed it"
        );
        assert!(
            matches!(refusal(admit(&warm, &user, 100).await), Refusal::Quota { cap, .. } if cap == t(50))
        );
    });
}

#[test]
fn f23_f24_what_is_settled_is_found_sealed_once_and_cleared() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        subscribe(&ledger, &user, T0).await;
        let hold = admit(&ledger, &user, 500).await.unwrap();
        ledger_settle(&ledger, hold, 450).await;
        let key = key_of(&store, &user).await;
        assert!(dirty(&ledger).await.contains(&key));
        assert!(!ledger.clear(&key).await.unwrap());

        let (meter, row) = ledger.seal(&key, T0).await.unwrap().unwrap();
        assert_eq!((row.tokens, meter.sealed), (t(450), t(450)));
        let (_, again) = ledger.seal(&key, T0.plus_ms(5)).await.unwrap().unwrap();
        assert_eq!(again, row, "a second run made another row");
        assert_eq!(ledger.attempt(&key, &row, T0, 0).await.unwrap(), Attempt::First);
        assert_eq!(
            ledger.attempt(&key, &row, T0, 0).await.unwrap(),
            Attempt::Again,
            "still pending: sent again under its identifier"
        );
        ledger.finish(&key, &row, RowFate::Accepted, T0, None).await.unwrap();
        assert_eq!(ledger.attempt(&key, &row, T0, 0).await.unwrap(), Attempt::Gone);
        ledger.finish(&key, &row, RowFate::Parked, T0, None).await.unwrap();
        assert_eq!(ledger.seal(&key, T0).await.unwrap(), None);
        assert!(ledger.clear(&key).await.unwrap());
        assert!(!dirty(&ledger).await.contains(&key));
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.sealed, meter.parked, meter.seq, meter.pending), (t(450), t(0), 1, None));
    });
}

#[test]
fn a_free_user_is_metered_and_never_reported() {
    on_each(async |store| {
        let (ledger, user) = (ledger(store.clone()), user());
        let hold = admit(&ledger, &user, 100).await.unwrap();
        ledger_settle(&ledger, hold, 100).await;
        let key = key_of(&store, &user).await;
        assert_eq!(ledger.seal(&key, T0).await.unwrap(), None);
        assert!(ledger.clear(&key).await.unwrap());
    });
}

async fn dirty<S: Store>(ledger: &Ledger<S>) -> BTreeSet<MeterKey> {
    let mut found = BTreeSet::new();
    for shard in 0..SHARDS {
        let mut from = None;
        loop {
            let page = ledger.dirty(shard, from).await.unwrap();
            found.extend(page.keys);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    found
}

#[test]
fn the_dirty_index_is_read_to_its_end_page_by_page() {
    on_each(async |store| {
        let ledger = ledger(store);
        let mut expected = BTreeSet::new();
        // More users than a page of any one shard holds would be slow; a page of one shard is enough to turn.
        for _ in 0..40 {
            let user = user();
            let hold = admit(&ledger, &user, 10).await.unwrap();
            expected.insert(MeterKey { user, period_start: hold.period().start() });
            drop(hold);
        }
        assert!(dirty(&ledger).await.is_superset(&expected));
    });
}

#[test]
fn f14_a_store_that_does_not_answer_admits_nobody() {
    let world = world();
    world.runtime.block_on(async {
        // Nothing listens on the discard port of this machine.
        let ledger = Ledger::new(dynamo_store("http://127.0.0.1:9"), plans());
        let answer = admit(&ledger, &user(), 10).await;
        assert!(matches!(answer, Err(AdmitError::Unavailable(_))), "{answer:?}");
    });
}

#[test]
fn the_prompt_of_a_request_is_nowhere_in_the_table() {
    // The ledger's types have no place for it; this holds the raw items to the attributes that are meant to be there.
    let world = world();
    let known: BTreeSet<&str> = [
        "pk",
        "sk",
        "dirty",
        "rev",
        "customer",
        "plan",
        "subscription",
        "anchor_s",
        "current_s",
        "spend_cap",
        "pay_by_ms",
        "plan_since_s",
        "ends_at_s",
        "leased_nano_usd",
        "told_percent",
        "period_end_s",
        "settled",
        "committed",
        "sealed",
        "parked",
        "invoiced",
        "fence",
        "note",
        "asked",
        "left",
        "kind",
        "rate",
        "rate_newest",
        "holds",
        "closed",
        "mixed",
        "billing",
        "pending",
        "seq",
        "requests",
        "absorbed",
        "cost_nano_usd",
        "input",
        "cached_input",
        "cache_write",
        "output",
        "reasoning",
        "tokens",
        "identifier",
        "timestamp_s",
        "first_attempt_ms",
        "last_attempt_ms",
        "fate",
        "at_ms",
        "outcome",
        "charged",
        "model",
        "price_version",
        "failed_calls",
        "body",
        "owner",
        "state",
        "until_ms",
        "hold",
        "period_start_s",
        "answer",
        "forget_at_ms",
        "expires_at",
    ]
    .into();
    let user = user();
    world.runtime.block_on(async {
        let ledger = Ledger::new(world.store.clone(), plans());
        let hold = admit(&ledger, &user, 10).await.unwrap();
        ledger_settle(&ledger, hold, 10).await;
    });
    for item in world.dynamo.scan().unwrap() {
        for name in item.as_object().unwrap().keys() {
            assert!(known.contains(name.as_str()), "an attribute nobody knows: {name}");
        }
    }
}
