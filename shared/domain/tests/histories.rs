//! The invariants I1 to I5 after every step of random histories.

use crate::{
    support::{WINDOW_MS, cases, cost_most, id, start},
    world::{Event, History, LAG_MS_MAX, Refused, Sent, World, Write, history, lagging, plan_of, plans},
};
use domain::{
    Account, AdmitRequest, Attempt, CapKind, Classes, HoldId, Meter, Outcome, Placement, Receipt, Refusal,
    RowFate, Timestamp, Tokens, Verdict, Window, cap_in_force, reconcile,
};
use proptest::{prelude::*, sample::Index, strategy::ValueTree};
use std::collections::{BTreeMap, BTreeSet};

/// Plays a history; `check` sees the world before and after each step, and what the step came to.
fn play(history: &History, mut check: impl FnMut(&World, &Event, &World)) -> World {
    let mut world = World::new(history.subscribed, start());
    for op in &history.ops {
        let before = world.clone();
        let event = world.step(op);
        check(&before, &event, &world);
    }
    world
}

fn count(meter: &Meter, window: Window) -> u32 {
    meter.rate.counts.get(&window).copied().unwrap_or(0)
}

/// The receipts of a period whose holds are gone from its meter: those that have moved it.
fn moved<'a>(world: &'a World, meter: &'a Meter) -> impl Iterator<Item = &'a Receipt> {
    let of = meter.period.start();
    let gone = move |(period, id): &(Timestamp, HoldId)| *period == of && !meter.holds.contains_key(id);
    let released = move |id: &HoldId| {
        world.sent.iter().any(|sent| sent.admission.id == *id && sent.write == Write::Applied)
    };
    let moved = move |id: &HoldId, receipt: &Receipt| receipt.outcome == Outcome::Imported || released(id);
    let receipts = world.receipts.iter().filter(move |(key, receipt)| gone(key) && moved(&key.1, receipt));
    receipts.map(|(_, receipt)| receipt)
}

fn check_limits_of_an_admission(before: &World, sent: &Sent, after: &World) {
    let admission = &sent.admission;
    let (account, plan) = (&before.account, plan_of(&before.account));
    let old = &before.meters[&admission.period_start];
    let new = &after.meters[&admission.period_start];
    assert_eq!(admission.period_start, account.current, "admitted into another period's meter");
    assert!(!old.closed, "admitted into a closed meter");
    assert!(!account.is_overdue(sent.decided_at), "admitted who owes");
    // Not asked of the code that is judged.
    let cap = account.spend_cap.map_or(plan.cap, |own| own.min(plan.cap));
    assert!(new.committed <= cap, "{} of {cap} tokens are committed", new.committed);
    assert!(new.holds.len() <= usize::from(plan.concurrency.get()), "{} holds are open", new.holds.len());
    let window = admission.window;
    assert!(old.rate.newest <= window, "counted in a window that was finished");
    let weight =
        plan.rate.weighted(sent.decided_at.max(window.start(plan.rate)), count(old, window.previous()));
    let counted = u64::from(count(new, window));
    assert_eq!(counted, u64::from(count(old, window)) + 1);
    assert!(weight + counted <= u64::from(plan.rate.requests.get()), "{weight} + {counted} requests");
    let kept = |meter: &Meter| {
        let mut counts = meter.rate.counts.clone();
        counts.retain(|of, _| window.previous() <= *of && *of != window);
        counts
    };
    assert_eq!(kept(new), kept(old), "another window that matters was touched");
}

fn check_books(world: &World) {
    for (start, meter) in &world.meters {
        assert_eq!(meter.committed, meter.settled.checked_add(meter.held()).unwrap());
        assert_eq!(meter.closed, *start != world.account.current, "not exactly the current meter is open");
        let to_do = !meter.is_clean();
        assert!(meter.dirty || !to_do, "F24: there is something to report and the meter is not dirty");
    }
    assert_eq!(world.account.rev, world.current().rev);
    assert!(
        world.opened.is_sorted_by(|a, b| a < b),
        "a period was opened behind another: {:?}",
        world.opened
    );
}

fn check_conservation(world: &World, meter: &Meter) {
    let receipts = || moved(world, meter);
    assert_eq!(receipts().map(|receipt| receipt.charged).sum::<Tokens>(), meter.settled);
    assert_eq!(receipts().map(|receipt| receipt.absorbed).sum::<Tokens>(), meter.totals.absorbed);
    let (mut requests, mut cost, mut classes) = (0, 0, [0; 5]);
    for receipt in receipts() {
        requests += u64::from(!matches!(receipt.outcome, Outcome::Void | Outcome::Imported));
        cost += receipt.cost.get();
        if let Outcome::Settled { usage, .. } = &receipt.outcome {
            classes.iter_mut().zip(by_class(usage.classes())).for_each(|(sum, tokens)| *sum += tokens);
            let used = usage.classes().total();
            assert_eq!(receipt.charged.checked_add(receipt.absorbed), Some(used), "a used token is neither");
        }
    }
    assert_eq!(
        (requests, cost, classes),
        (meter.totals.requests, meter.totals.cost.get(), by_class(&meter.totals.classes))
    );
}

fn by_class(classes: &Classes) -> [u64; 5] {
    let Classes { input, cached_input, cache_write, output, reasoning } = classes;
    [input, cached_input, cache_write, output, reasoning].map(|tokens| tokens.get())
}

fn check_rows(world: &World, meter: &Meter) {
    let start = meter.period.start();
    let rows: Vec<_> = world.rows.iter().filter(|(of, _)| *of == start).map(|(_, row)| row).collect();
    // What was retried is in its new row.
    let retried = |seq: u64| matches!(world.reports.get(&(start, seq)), Some((_, RowFate::Retried)));
    let stand = rows.iter().filter(|row| !retried(row.seq));
    assert_eq!(stand.map(|row| row.tokens).sum::<Tokens>(), meter.sealed);
    assert!(meter.sealed <= meter.settled);
    assert_eq!(rows.len(), usize::try_from(meter.seq).unwrap());
    let (mut accepted, mut parked, mut invoiced) = (Tokens::ZERO, Tokens::ZERO, Tokens::ZERO);
    for row in &rows {
        assert!(row.tokens > Tokens::ZERO && row.identifier.len() <= 100);
        let pending = meter.pending.as_ref().is_some_and(|pending| pending.seq == row.seq);
        let fate = world.reports.get(&(start, row.seq));
        match fate {
            _ if pending => {}
            Some((_, RowFate::Retried)) => {}
            Some((item, RowFate::Accepted)) => accepted = accepted.checked_add(item.tokens).unwrap(),
            Some((item, RowFate::Invoiced)) => invoiced = invoiced.checked_add(item.tokens).unwrap(),
            Some((item, RowFate::Parked | RowFate::Forgiven)) => {
                parked = parked.checked_add(item.tokens).unwrap();
            }
            None => panic!("row {} is neither pending nor reported", row.seq),
        }
    }
    assert_eq!((meter.parked, meter.invoiced), (parked, invoiced));
    let pending = meter.pending.as_ref().map_or(Tokens::ZERO, |row| row.tokens);
    let all = [accepted, invoiced, parked, pending].into_iter().sum::<Tokens>();
    assert_eq!(all, meter.sealed, "report items and the pending row are not what is sealed");
    assert_eq!(meter.on_stripes_meter(), accepted.checked_add(pending).unwrap());
    // What Stripe counted says whether the pending row arrived: with it, without it, or neither.
    if let Some(row) = &meter.pending {
        let delivered = accepted.checked_add(row.tokens).unwrap();
        let short = delivered.checked_sub(Tokens::from_u32(1)).unwrap();
        let verdicts = [accepted, delivered].map(|counted| reconcile(meter, row, counted));
        if meter.mixed {
            // A new anchor has cut the period, or somebody else pays: the count says nothing about the row.
            assert_eq!(verdicts, [Verdict::Unclear, Verdict::Unclear]);
        } else {
            let payer = meter.customer.as_ref();
            assert!(
                rows.iter().all(|row| Some(&row.customer) == payer && meter.period.contains(row.timestamp))
            );
            assert_eq!(verdicts, [Verdict::Missing, Verdict::Delivered]);
            assert_eq!(reconcile(meter, row, short) == Verdict::Unclear, short != accepted);
        }
    }
}

/// Everything about a meter that a later decision can depend on, from the window of `newest` on.
fn decisive(meter: &Meter, newest: Window) -> (Tokens, Tokens, BTreeSet<HoldId>, BTreeMap<Window, u32>) {
    let mut counts = meter.rate.counts.clone();
    counts.retain(|window, count| newest.previous() <= *window && *count > 0);
    (meter.settled, meter.committed, meter.holds.keys().cloned().collect(), counts)
}

fn decide_again(refused: &Refused, meter: &Meter, now: Timestamp) -> Result<(), Refusal> {
    // Nobody knows whether an invoice will be paid in time; the other limits answer as if it were.
    let owes = matches!(refused.refusal, Refusal::PastDue { .. });
    let account = &Account { pay_by: refused.account.pay_by.filter(|_| owes), ..refused.account.clone() };
    let plan = plan_of(account);
    let request = AdmitRequest { id: id(u32::MAX), demand: refused.demand, expires_at: now };
    domain::admit(account, &plan, meter, &request, cost_most, now).map(drop)
}

/// The meter when every hold up to `until` has ended uncharged.
fn released(meter: &Meter, until: impl Fn(Timestamp) -> bool) -> Meter {
    let mut meter = meter.clone();
    let ended: Vec<_> = meter.holds.clone().into_iter().filter(|(_, hold)| until(hold.expires_at)).collect();
    for (id, hold) in ended {
        let at = hold.expires_at;
        let receipt = Receipt::swept(meter.user.clone(), meter.period.start(), (id, &hold), at);
        assert!(meter.apply_release(&receipt.release(&hold)));
    }
    meter
}

fn check_rate_refusal(refused: &Refused, retry_at: Timestamp, earlier: &[Index]) {
    let Refused { account, meter, now, refusal, .. } = refused;
    assert!(*now < retry_at);
    // At that instant another period may have begun: it carries the windows over, so the answer is the same.
    match domain::place(account, meter, retry_at) {
        Placement::Open(opening) => assert_eq!(decide_again(refused, &opening.meter, retry_at), Ok(())),
        Placement::Current => {}
        Placement::OutOfCalendar => panic!("out of the calendar"),
    }
    assert_eq!(decide_again(refused, meter, retry_at), Ok(()));
    let wait_ms = retry_at.ms_since(*now);
    let instants =
        earlier.iter().map(|index| u64::try_from(index.index(usize::try_from(wait_ms).unwrap())).unwrap());
    for offset in instants.chain([0, wait_ms - 1]) {
        assert_eq!(
            decide_again(refused, meter, now.plus_ms(offset)).as_ref(),
            Err(refusal),
            "{offset} ms later"
        );
    }
}

fn check_refusal(refused: &Refused, earlier: &[Index]) {
    let Refused { account, meter, demand, now, refusal } = refused;
    let plan = plan_of(account);
    let (cap_now, kind_now) = cap_in_force(account, &plan);
    let settled_alone = released(meter, |_| true);
    let hopeless = demand.fit(cap_now.saturating_sub(meter.settled)).is_none();
    assert_eq!(account.is_overdue(*now), matches!(refusal, Refusal::PastDue { .. }));
    assert_eq!(
        hopeless && !account.is_overdue(*now),
        matches!(refusal, Refusal::Quota { .. }),
        "a 402 is for what settled alone leaves too little for"
    );
    match refusal {
        Refusal::PastDue { pay_by } => {
            assert_eq!(Some(*pay_by), account.pay_by);
            assert_eq!(decide_again(refused, &settled_alone, *now).as_ref(), Err(refusal));
            let before = Timestamp::from_ms(pay_by.ms() - 1);
            assert_ne!(decide_again(refused, meter, before).as_ref(), Err(refusal));
        }
        Refusal::Quota { kind, cap, left, needed, resets_at } => {
            assert_eq!((*kind, *cap, *resets_at), (kind_now, cap_now, meter.period.end()));
            assert_eq!(*left, cap_now.saturating_sub(meter.settled));
            assert!(needed > left);
            assert_eq!(decide_again(refused, &settled_alone, *now).as_ref(), Err(refusal));
            assert!(*kind == CapKind::SpendCap || account.spend_cap.is_none_or(|own| own >= plan.cap));
        }
        Refusal::QuotaHeld { cap, left, needed, until_most } => {
            assert_eq!((*cap, *left), (cap_now, cap_now.saturating_sub(meter.committed)));
            assert!(needed > left);
            check_bound(refused, *until_most, |refusal| {
                matches!(refusal, Refusal::QuotaHeld { .. } | Refusal::Quota { .. })
            });
        }
        Refusal::Concurrency { limit, until_most } => {
            assert_eq!(*limit, plan.concurrency.get());
            assert!(meter.holds.len() >= usize::from(*limit));
            check_bound(refused, *until_most, |refusal| matches!(refusal, Refusal::Concurrency { .. }));
        }
        Refusal::Rate { limit, window_ms, retry_at } => {
            assert_eq!((*limit, *window_ms), (plan.rate.requests.get(), WINDOW_MS));
            check_rate_refusal(refused, *retry_at, earlier);
        }
    }
}

/// An upper bound on open holds: with all ended that end by then the reason is gone, with fewer it is not.
fn check_bound(refused: &Refused, until_most: Timestamp, same: impl Fn(&Refusal) -> bool) {
    let again = |meter: &Meter| decide_again(refused, meter, until_most.max(refused.now)).err();
    let after = released(&refused.meter, |ends| ends <= until_most);
    assert!(!again(&after).is_some_and(|refusal| same(&refusal)), "it is still refused at {until_most}");
    let sooner = released(&refused.meter, |ends| ends < until_most);
    assert!(again(&sooner).is_some_and(|refusal| same(&refusal)), "it passes before {until_most}");
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn i1_no_admission_ever_leaves_more_committed_than_the_cap_in_force(history in history()) {
        play(&history, |before, event, after| {
            if let Event::Landed { at, applied: true } = event {
                check_limits_of_an_admission(before, &after.sent[*at], after);
            }
            if let Event::Released { hold, receipt, .. } = event {
                assert!(receipt.charged <= hold.tokens, "charged beyond the hold");
            }
            check_books(after);
        });
    }

    #[test]
    fn i2_receipts_settled_rows_and_sealed_agree_to_the_token(history in history()) {
        let mut world = play(&history, |_, _, after| {
            for meter in after.meters.values() {
                check_conservation(after, meter);
                check_rows(after, meter);
            }
        });
        world.rest();
        let identifiers: BTreeSet<&str> = world.rows.iter().map(|(_, row)| row.identifier.as_str()).collect();
        assert_eq!(identifiers.len(), world.rows.len(), "F9: two rows under one identifier");
        for (start, meter) in &world.meters {
            let receipts = world.receipts.iter().filter(|((of, _), _)| of == start);
            let charged: Tokens = receipts.map(|(_, receipt)| receipt.charged).sum();
            assert_eq!((charged, meter.settled), (meter.settled, meter.committed));
            assert!(meter.customer.is_none() || meter.sealed == meter.settled);
            check_rows(&world, meter);
        }
    }

    #[test]
    fn i3_a_request_moves_its_meter_once_and_by_the_receipt_that_was_first(history in history()) {
        let mut released = BTreeSet::new();
        play(&history, |before, event, after| {
            for (key, receipt) in &before.receipts {
                assert_eq!(after.receipts.get(key), Some(receipt), "a receipt changed");
            }
            for (start, old) in &before.meters {
                let new = &after.meters[start];
                let gone: Vec<_> = old.holds.keys().filter(|id| !new.holds.contains_key(*id)).collect();
                let mut settled = old.settled;
                let imported = |(key, receipt): &(&(Timestamp, HoldId), &Receipt)| {
                    receipt.outcome == Outcome::Imported && key.0 == *start && !before.receipts.contains_key(*key)
                };
                for (_, receipt) in after.receipts.iter().filter(imported) {
                    settled = settled.checked_add(receipt.charged).unwrap();
                }
                for id in gone {
                    assert!(released.insert((*start, id.clone())), "{id} was released twice");
                    settled = settled.checked_add(after.receipts[&(*start, id.clone())].charged).unwrap();
                }
                assert_eq!(new.settled, settled, "settled moved by something else than the first receipts");
            }
            if let Event::Landed { at, applied } = event {
                let Sent { admission, .. } = &after.sent[*at];
                let open = before.meters[&admission.period_start].holds.contains_key(&admission.id);
                assert!(!(open && *applied), "an admission was applied twice");
            }
        });
    }

    #[test]
    fn i4_what_is_refused_or_out_of_date_changes_nothing(history in history()) {
        play(&history, |before, event, after| {
            let untouched = match event {
                Event::Nothing | Event::Refused(_) => true,
                Event::Landed { applied, .. } | Event::Released { applied, .. } => !applied,
                Event::Opened | Event::Other => false,
            };
            assert!(!untouched || before.meters == after.meters);
            for (start, meter) in &after.meters {
                let mut copy = meter.clone();
                for (_, seal) in after.seals.iter().filter(|(of, _)| of == start) {
                    assert!(copy.apply_seal(seal) || copy == *meter);
                    copy.clone_from(meter);
                }
                for change in &after.changes {
                    assert!(copy.apply_account(change) || copy == *meter);
                    copy.clone_from(meter);
                }
                for other in after.meters.values() {
                    assert!(copy.apply_close(&other.rate) || copy == *meter);
                    copy.clone_from(meter);
                }
                let attempt = copy.apply_attempt(meter.seq, after.clock, 0);
                assert!(matches!(attempt, Attempt::First | Attempt::Again) || copy == *meter);
                copy.clone_from(meter);
                assert!(copy.apply_drop(meter.seq, RowFate::Parked) || copy == *meter);
                for (_, _, row) in after.retries.iter().filter(|(of, ..)| of == start) {
                    assert!(copy.apply_retry(row) || copy == *meter);
                    copy.clone_from(meter);
                }
                for (_, row) in after.rows.iter().filter(|(of, _)| of == start) {
                    assert!(copy.apply_reject(row.seq, row.tokens) || copy == *meter);
                    copy.clone_from(meter);
                }
                for (receipt, row, fate) in &after.imports {
                    let report = domain::Report::of((meter.user.clone(), *start), row, *fate, after.clock, None);
                    assert!(copy.apply_import(receipt, &report, meter.billing) || copy == *meter);
                    copy.clone_from(meter);
                }
                assert!(copy.apply_clear() || copy == *meter);
            }
        });
    }

    #[test]
    fn i4_a_voided_request_was_never_made(history in history()) {
        play(&history, |before, event, after| {
            let Event::Landed { at, applied: true } = event else { return };
            let admission = &after.sent[*at].admission;
            let (old, mut new) = (&before.meters[&admission.period_start], after.current().clone());
            let void = Receipt::void(new.user.clone(), admission.period_start, admission.id.clone(), after.clock);
            assert!(new.apply_release(&void.release(&admission.hold)));
            assert_eq!(decisive(&new, admission.window), decisive(old, admission.window));
            assert_eq!(new.totals, old.totals);
            assert!(!new.apply_release(&void.release(&admission.hold)), "a slot was given back twice");
        });
    }

    #[test]
    fn i5_a_refusal_says_exactly_when_or_how_late_at_most(
        history in history(), earlier in prop::collection::vec(any::<Index>(), 4),
    ) {
        play(&history, |_, event, _| {
            if let Event::Refused(refused) = event {
                check_refusal(refused, &earlier);
            }
        });
    }

    #[test]
    fn f22_a_period_counts_for_itself_and_a_change_of_period_grants_no_fresh_window(history in history()) {
        let world = play(&history, |before, event, after| {
            let Event::Opened = event else { return };
            let (old, new) = (before.current(), after.current());
            assert!(new.period.start() > old.period.start());
            // A clock may lag, and a new subscription's first second may be ahead of every clock.
            let instants = [after.clock, lagging(after.clock, LAG_MS_MAX), after.account.anchor];
            assert!(instants.iter().any(|at| new.period.contains(*at)), "{:?}", new.period);
            assert_eq!(new.rate, old.rate, "the rate window began anew");
            let counters = [new.settled, new.committed, new.sealed, new.parked, new.invoiced];
            assert_eq!((counters, new.seq), ([Tokens::ZERO; 5], 0));
            assert_eq!(new.plan, after.account.plan);
            let as_it_was = Meter { closed: false, ..after.meters[&old.period.start()].clone() };
            assert_eq!(as_it_was, *old, "closing touched a counter");
        });
        // Over all periods together no fixed window counts more than the widest plan's limit.
        let mut by_window: BTreeMap<Window, u32> = BTreeMap::new();
        for sent in world.sent.iter().filter(|sent| sent.write == Write::Applied) {
            let key = (sent.admission.period_start, sent.admission.id.clone());
            let void = world.receipts.get(&key).is_some_and(|receipt| receipt.outcome == Outcome::Void);
            *by_window.entry(sent.admission.window).or_default() += u32::from(!void);
        }
        assert!(by_window.values().all(|requests| *requests <= plans()[1].rate.requests.get()));
    }

    #[test]
    fn f11_a_meter_loses_its_payer_only_where_it_began_after_the_subscriptions_end(history in history()) {
        play(&history, |before, _, after| {
            for (start, old) in &before.meters {
                let new = &after.meters[start];
                let kept = old.customer.is_none() || new.customer.is_some();
                let began_after = after.account.billed_to().is_none() && after.account.anchor <= *start;
                assert!(kept || began_after, "nobody would be billed for {start}");
            }
        });
    }
}

/// A history is worth playing only if it meets what the invariants are about.
#[test]
fn the_random_histories_meet_every_limit_and_every_transition() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..900 {
        let history = history().new_tree(&mut runner).unwrap().current();
        let world = play(&history, |before, event, after| {
            let name = match event {
                Event::Landed { applied: true, .. } => "landed",
                Event::Landed { applied: false, .. } => "stale",
                Event::Opened => "opened",
                Event::Released { applied: true, receipt, .. } if receipt.absorbed > Tokens::ZERO => {
                    "absorbed"
                }
                Event::Released { applied: true, .. } => "released",
                Event::Released { applied: false, .. } => "released again",
                Event::Refused(refused) => match refused.refusal {
                    Refusal::PastDue { .. } => "past due",
                    Refusal::Quota { .. } => "quota",
                    Refusal::QuotaHeld { .. } => "quota held",
                    Refusal::Concurrency { .. } => "concurrency",
                    Refusal::Rate { .. } => "rate",
                },
                Event::Nothing | Event::Other => "other",
            };
            *met.entry(name).or_default() += 1;
            let (cap, _) = cap_in_force(&after.account, &plan_of(&after.account));
            *met.entry("over a lowered cap").or_default() += u32::from(after.current().committed > cap);
            *met.entry("revised").or_default() += u32::from(after.account.rev > before.account.rev);
        });
        *met.entry("rows").or_default() += u32::try_from(world.rows.len()).unwrap();
        *met.entry("reports").or_default() += u32::try_from(world.reports.len()).unwrap();
        for (fate, name) in [
            (RowFate::Accepted, "accepted"),
            (RowFate::Invoiced, "invoiced"),
            (RowFate::Parked, "parked"),
            (RowFate::Forgiven, "forgiven"),
            (RowFate::Retried, "retried"),
        ] {
            let of_fate = world.reports.values().filter(|(_, of)| *of == fate).count();
            *met.entry(name).or_default() += u32::try_from(of_fate).unwrap();
        }
        let imported = world.receipts.values().filter(|receipt| receipt.outcome == Outcome::Imported).count();
        *met.entry("imported").or_default() += u32::try_from(imported).unwrap();
        let swept = |receipt: &&Receipt| receipt.outcome == Outcome::Swept;
        *met.entry("swept").or_default() +=
            u32::try_from(world.receipts.values().filter(swept).count()).unwrap();
    }
    assert_eq!(met.len(), 23, "{met:?}");
    assert!(met.values().all(|times| *times >= 30), "{met:?}");
}
