//! What must hold: after every effect, at the end of every request, and when everything has come to rest.

use crate::simulation::{
    actors::front,
    clients::{Asked, Ending, Got, Heard},
    journal::{Row, Snapshot},
    keys::{self, Told},
    oracle::{self, Verdict},
    owed,
    provider::Call,
    stripe::Event,
    world::World,
};
use domain::{
    Admission, HoldId, HoldSize, Lease, Meter, NanoUsd, Outcome, Plan, Pool, Receipt, Release, Report,
    ReportRow, RowFate, Tokens, Usage, Window,
};
use ledger::MeterKey;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How often the store has to fail the receipt of a served request before it may be lost: so often that the time kept free
/// for it runs out.
const FAILED_RECEIPTS_MIN: u32 = 4;

fn plan_of<'a>(world: &'a World, account: &domain::Account) -> &'a Plan {
    world.scenario.book.plans().get(&account.plan).unwrap()
}

/// I1 and I2 of one meter, as far as they hold at every instant.
pub(crate) fn meter_is_sound(world: &World, key: &MeterKey) {
    let wrong = {
        let kept = world.store.kept();
        let of_meter =
            |receipt: &&Receipt| receipt.period_start == key.period_start && receipt.user == key.user;
        let receipts = kept.receipts.values().filter(of_meter);
        let Some(meter) = kept.meters.get(key) else {
            let charged: Tokens = receipts.map(|receipt| receipt.charged).sum();
            if charged > Tokens::ZERO {
                drop(kept);
                world.violated(format!("I2: {key:?} has receipts and no meter"));
            }
            return;
        };
        // A receipt whose hold is still open has not moved the meter yet.
        let moved = receipts.filter(|receipt| !meter.holds.contains_key(&receipt.id));
        let charged: Tokens = moved.map(|receipt| receipt.charged).sum();
        let reports = kept.reports.iter().filter(|((of, _), _)| of == key);
        let mut rows: BTreeMap<u64, Tokens> = reports
            .clone()
            .filter(|(_, item)| item.fate != RowFate::Retried)
            .map(|((_, seq), item)| (*seq, item.tokens))
            .collect();
        rows.extend(meter.pending.iter().map(|row| (row.seq, row.tokens)));
        let sealed: Tokens = rows.into_values().sum();
        // An item whose row is pending still has not moved the meter yet.
        let dropped = |seq: u64| meter.pending.as_ref().is_none_or(|row| row.seq != seq);
        let of_fate = |fates: &[RowFate]| -> Tokens {
            let ended =
                reports.clone().filter(|((_, seq), item)| dropped(*seq) && fates.contains(&item.fate));
            ended.map(|(_, item)| item.tokens).sum()
        };
        let parked = of_fate(&[RowFate::Parked, RowFate::Forgiven]);
        let invoiced = of_fate(&[RowFate::Invoiced]);
        [
            (
                meter.committed != meter.settled.saturating_add(meter.held()),
                "I1: committed is not settled and held",
            ),
            (charged != meter.settled, "I2: settled is not what the receipts charge"),
            (sealed != meter.sealed, "I2: sealed is not what the rows say"),
            (meter.sealed > meter.settled, "I2: more is sealed than settled"),
            (meter.parked != parked, "I2: parked is not what the report items say"),
            (meter.invoiced != invoiced, "I2: invoiced is not what the report items say"),
        ]
        .into_iter()
        .find(|(wrong, _)| *wrong)
        .map(|(_, what)| format!("{what}: {meter:?}"))
    };
    if let Some(wrong) = wrong {
        world.violated(wrong);
    }
}

/// I1 and I7 of one admission, at the instant at which it took effect.
pub(crate) fn admission_is_sound(world: &World, key: &MeterKey, before: &Meter, admission: &Admission) {
    let wrong = {
        let kept = world.store.kept();
        let Some(account) = kept.accounts.get(&key.user) else { return };
        let plan = plan_of(world, account);
        let cap = account.spend_cap.unwrap_or(Tokens::MAX).min(plan.cap);
        let committed = before.committed.saturating_add(admission.hold.tokens);
        [
            (committed > cap, "I1: an admission above the cap"),
            (
                before.holds.len() >= usize::from(plan.concurrency.get()),
                "I1: an admission above the concurrency",
            ),
            (account.current != key.period_start, "I7: an admission to another than the current meter"),
            (before.closed, "I7: an admission to a closed meter"),
            (before.rev != account.rev, "I1: an admission to a meter that does not know its account"),
            (before.rate.newest > admission.window, "I5: an admission to a window that is finished"),
            (
                account.pay_by.is_some_and(|by| by.plus_ms(2 * world.scenario.skew_ms) < world.now()),
                "F13: an admission of somebody who has not paid",
            ),
            (
                before.customer.is_some()
                    && before.customer.as_ref() == account.billed_to()
                    && before.plan != account.plan
                    && account.began().plus_ms(2 * world.scenario.skew_ms) < world.now(),
                "F11: an admission to a meter of the plan before",
            ),
        ]
        .into_iter()
        .find(|(wrong, _)| *wrong)
        .map(|(_, what)| format!("{what}: {admission:?} on {before:?}, cap {cap}"))
    };
    if let Some(wrong) = wrong {
        world.violated(wrong);
    }
}

/// I3: the receipt that was put first is the one that stands.
pub(crate) fn receipt_stands(world: &World, key: &MeterKey, id: &HoldId) {
    let Some(kept) = world.store.kept().receipts.get(&(key.clone(), id.clone())).cloned() else { return };
    let first = world.with(|inner| {
        let receipts = &mut inner.journal.receipts;
        receipts.entry(id.clone()).or_insert_with(|| kept.clone()).clone()
    });
    if first != kept {
        world.violated(format!("I3: a receipt was replaced: {first:?} by {kept:?}"));
    }
}

/// I2: a row that is sealed, or sealed again, has a name of its own.
pub(crate) fn row_is_new(world: &World, key: &MeterKey, row: &ReportRow) {
    name_is_new(
        world,
        &row.identifier,
        Row {
            key: key.clone(),
            customer: row.customer.clone(),
            tokens: row.tokens,
            timestamp: row.timestamp,
        },
    );
}

/// The same of a report item that was no row here before.
pub(crate) fn report_is_new(world: &World, key: &MeterKey, report: &Report) {
    name_is_new(
        world,
        &report.identifier,
        Row {
            key: key.clone(),
            customer: report.customer.clone(),
            tokens: report.tokens,
            timestamp: report.timestamp,
        },
    );
}

fn name_is_new(world: &World, identifier: &str, row: Row) {
    if world.with(|inner| inner.journal.rows.insert(identifier.to_owned(), row)).is_some() {
        world.violated(format!("I2: two rows are called {identifier}"));
    }
}

/// F9: of one customer's leases each has a higher fence than the one before.
pub(crate) fn lease_is_sound(world: &World, lease: &Lease) {
    let before = world.with(|inner| {
        let latest = (lease.fence, lease.owner.clone());
        inner.journal.leases.insert(lease.customer.clone(), latest)
    });
    if let Some((fence, owner)) = before {
        world.saw("a lease was taken after another");
        let same = owner == lease.owner && fence == lease.fence;
        if fence >= lease.fence && !same {
            world.violated(format!("F9: after the fence {fence} of {owner}: {lease:?}"));
        }
    }
}

/// F9: no row is attempted under a lower fence than before.
pub(crate) fn attempt_is_sound(world: &World, key: &MeterKey, seq: u64, fence: u64) {
    let before = world.with(|inner| {
        let highest = inner.journal.attempts.entry((key.clone(), seq)).or_default();
        std::mem::replace(highest, fence.max(*highest))
    });
    if fence < before {
        world.violated(format!("F9: row {seq} of {key:?} is attempted under {fence}, after {before}"));
    }
}

/// I3: a meter moves by what the receipt that was put first says, and not before it was put.
pub(crate) fn release_is_sound(world: &World, release: &Release) {
    let first = world.with(|inner| inner.journal.receipts.get(&release.id).cloned());
    if first.as_ref().is_none_or(|first| first.charged != release.charged) {
        world.violated(format!("I3: a meter moves by {release:?}, the receipt is {first:?}"));
    }
}

/// The rate limit over all meters of the user, by what the journal counted, and what the meter counts against it.
pub(crate) fn rate_is_sound(world: &World, key: &MeterKey, admission: &Admission) {
    let (plan, counts) = {
        let kept = world.store.kept();
        let Some(account) = kept.accounts.get(&key.user) else { return };
        let meter = &kept.meters[key];
        (plan_of(world, account).clone(), meter.rate.counts.clone())
    };
    let (width, limit) = (plan.rate.window_ms.get(), u64::from(plan.rate.requests.get()));
    let (counted, more) = world.with(|inner| {
        let journal = &inner.journal;
        let late = journal.late_voids.iter().filter(|(user, _)| *user == key.user);
        (journal.counted[&key.user].clone(), late.map(|(_, window)| *window).collect::<Vec<_>>())
    });
    let count = |window: Window| counted.get(&window).copied().unwrap_or(0);
    let window = admission.window;
    let end_ms = (window.index() + 1) * width;
    // The latest instant at which it can have been decided, which is when the least of the previous window weighs.
    let decided_ms = (world.now().ms() + world.scenario.skew_ms).min(end_ms - 1);
    let weight = u64::from(count(window.previous())) * (end_ms - decided_ms) / width;
    if u64::from(count(window)) + weight > limit {
        world.violated(format!("I1: more requests than the rate allows: {counted:?}, limit {limit}"));
    }
    for window in [window, window.previous()] {
        let (meter, journal) = (counts.get(&window).copied().unwrap_or(0), count(window));
        if meter < journal || meter > journal && !more.contains(&window) {
            world
                .violated(format!("I4: the window counts {meter} where {journal} were admitted: {counts:?}"));
        }
    }
}

/// I5: what a refusal says was so at some instant of the request.
pub(crate) fn refusal_is_exact(world: &World, asked: &Asked, body: &Value) {
    let number = |name: &str| body[name].as_u64().unwrap_or(u64::MAX);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let said = match body["code"].as_str().unwrap() {
        "quota_exceeded" => Verdict::Quota {
            code: "quota_exceeded",
            cap: number("limit"),
            left: number("left"),
            resets_at: text("resetsAt"),
        },
        "spend_cap_reached" => Verdict::Quota {
            code: "spend_cap_reached",
            cap: number("limit"),
            left: number("left"),
            resets_at: text("resetsAt"),
        },
        "quota_held" => {
            Verdict::Held { cap: number("limit"), left: number("left"), until_most: text("retryAt") }
        }
        "concurrency" => Verdict::Concurrency { limit: number("limit"), until_most: text("retryAt") },
        "past_due" => Verdict::PastDue,
        "rate_limited" => Verdict::Rate { limit: number("limit"), retry_at: text("retryAt") },
        _ => return,
    };
    let history = world.with(|inner| {
        let all = inner.journal.history.get(&asked.user).map_or(&[][..], Vec::as_slice);
        all[asked.history_from.min(all.len())..].to_vec()
    });
    let told = |snapshot: &Snapshot| {
        let plan = plan_of(world, &snapshot.account);
        oracle::verdict(snapshot, plan, &asked.demand, asked.now)
    };
    let verdicts: Vec<_> = history.iter().map(told).collect();
    if !verdicts.iter().flatten().any(|verdict| *verdict == said) {
        world.violated(format!("I5: request {} was told {said:?}, where {verdicts:?} was so", asked.number));
    }
}

/// Everything, once nothing is under way any more.
pub(crate) fn at_rest(world: &World, requests: &[(Asked, Got)]) {
    let told: Told<'_> = requests.iter().map(|(asked, got)| (asked.number, (asked, got))).collect();
    for (asked, got) in requests {
        request_at_rest(world, asked, got, &told);
    }
    keys::keys_at_rest(world);
    keys::stops_at_rest(world);
    let (receipts, meters) = {
        let kept = world.store.kept();
        (kept.receipts.clone(), kept.meters.clone())
    };
    for ((key, id), receipt) in &receipts {
        receipt_at_rest(world, key, id, receipt);
    }
    for (key, meter) in &meters {
        meter_at_rest(world, key, meter);
        payers_at_rest(world, key, meter, &receipts);
    }
    events_at_rest(world);
    reports_at_rest(world);
    owed::all(world);
    accounts_at_rest(world);
    budgets_at_rest(world);
}

/// F20: what the provider took, as far as receipts know, was leased before. What was swept is left out: it is reckoned at the most
/// of a call that may never have been made.
fn budgets_at_rest(world: &World) {
    let kept = world.store.kept();
    let leased = |pool: Pool| {
        let of = kept.spendings.iter().filter(|((_, of), _)| *of == pool);
        of.fold(NanoUsd::ZERO, |sum, (_, item)| sum.saturating_add(item.leased))
    };
    let known = kept.receipts.values().filter(|receipt| receipt.outcome != Outcome::Swept);
    let cost = known.fold(NanoUsd::ZERO, |sum, receipt| sum.saturating_add(receipt.cost));
    let (everyone, trial) = (leased(Pool::Everyone), leased(Pool::Trial));
    drop(kept);
    if cost > everyone {
        world.violated(format!(
            "F20: {cost:?} were spent, and {everyone:?} leased, {trial:?} of it for free users"
        ));
    }
}

/// I2: every event that Stripe counted is a row that was sealed, with its tokens, time and payer, and is counted once.
fn events_at_rest(world: &World) {
    let wrong = world.with(|inner| {
        let mut seen = BTreeSet::new();
        let rows = &inner.journal.rows;
        let strange = |event: &&Event| {
            let row = rows.get(&event.identifier);
            let as_sealed = row.is_some_and(|row| {
                row.tokens.get() == event.tokens
                    && row.timestamp.s() == event.timestamp_s
                    && row.customer.as_str() == event.customer
            });
            !seen.insert(event.identifier.clone()) || !as_sealed
        };
        inner.stripe.counted.iter().find(strange).cloned()
    });
    if let Some(wrong) = wrong {
        world.violated(format!("I2: Stripe counted what was not sealed so, or twice: {wrong:?}"));
    }
}

/// I2: what is said to be accepted was counted, and what is said to be refused for good was, unless nobody could say its price.
fn reports_at_rest(world: &World) {
    let reports: Vec<_> = world.store.kept().reports.values().cloned().collect();
    for report in reports {
        let (counted, refused, unpriced) = world.with(|inner| {
            let counted = inner.stripe.counted.iter().any(|event| event.identifier == report.identifier);
            let unpriced = inner.journal.unpriced.contains(&report.identifier);
            (counted, inner.stripe.refused.contains(&report.identifier), unpriced)
        });
        let true_fate = match report.fate {
            RowFate::Accepted => counted,
            RowFate::Invoiced => !counted,
            RowFate::Parked | RowFate::Forgiven | RowFate::Retried => (refused || unpriced) && !counted,
        };
        if !true_fate {
            world.violated(format!("I2: counted: {counted}, refused: {refused}: {report:?}"));
        }
    }
}

/// F16: once every delivery was taken, an account is what Stripe has.
fn accounts_at_rest(world: &World) {
    let accounts: Vec<_> = world.store.kept().accounts.values().cloned().collect();
    for account in accounts {
        let active = world.with(|inner| {
            let mut all = inner.stripe.subscriptions.iter();
            let active = all.find(|(_, s)| s.user == account.user.as_str() && s.ended.is_none());
            active.map(|(id, subscription)| (id.clone(), subscription.clone()))
        });
        let subscription = account.subscription.as_ref().map(ToString::to_string);
        let payer = account.billed_to().map(ToString::to_string);
        let has = (account.plan.as_str(), subscription, payer, account.pay_by);
        let should = match active {
            Some((id, of)) => (of.plan(), Some(id), Some(of.customer), of.debt),
            None => ("free", None, None, None),
        };
        if has != should {
            world.violated(format!("F16: an account is not what Stripe has, {should:?}: {account:?}"));
        }
    }
}

/// I7: what was charged while somebody paid for the meter is reported, unless the meter turned out to be nobody's: one that
/// began at or after the end of the subscription.
fn payers_at_rest(
    world: &World,
    key: &MeterKey,
    meter: &Meter,
    receipts: &BTreeMap<(MeterKey, HoldId), Receipt>,
) {
    if meter.customer.is_some() {
        return;
    }
    let owed: Tokens = world.with(|inner| {
        let held = |id: &HoldId| inner.journal.held.get(id).is_some_and(|held| held.payer.is_some());
        let of_meter = receipts.iter().filter(|((of, id), _)| of == key && held(id));
        of_meter.map(|(_, receipt)| receipt.charged).sum()
    });
    let began_after = world.with(|inner| {
        let ends = inner.stripe.subscriptions.values().filter(|s| s.user == key.user.as_str());
        ends.filter_map(|subscription| subscription.ended).any(|end| end <= key.period_start)
    });
    if owed > Tokens::ZERO {
        world.saw("a meter that began after the subscription's end was nobody's to pay");
    }
    if owed > meter.sealed && !began_after {
        world.violated(format!("I7: {owed} tokens were owed and have no payer: {meter:?}"));
    }
}

fn request_at_rest(world: &World, asked: &Asked, got: &Got, told: &Told<'_>) {
    let number = asked.number;
    let (calls, held) = world.with(|inner| {
        let held = inner.journal.held.iter().filter(|(id, _)| request_of(id) == number);
        let mut held: Vec<_> = held.map(|(id, held)| (id.clone(), held.key.clone())).collect();
        held.sort_by_key(|(id, _)| attempt_of(id));
        (inner.calls.of(number).to_vec(), held)
    });
    let receipts: Vec<Receipt> = {
        let kept = world.store.kept();
        held.iter().filter_map(|held| kept.receipts.get(&(held.1.clone(), held.0.clone())).cloned()).collect()
    };
    let charged: Vec<_> = receipts.iter().filter(|receipt| receipt.charged > Tokens::ZERO).collect();
    if charged.len() > 1 {
        world.violated(format!("I3: request {number} was charged twice: {charged:?}"));
    }
    match got {
        Got::Refused { code, receipt } => {
            if code == "store_unavailable" && asked.store_failures == 0 {
                world.violated(format!("request {number} was turned away although the store answered"));
            }
            if !calls.is_empty() && code != "provider_unavailable" {
                world.violated(format!("I4: request {number} was refused ({code}) and called the provider"));
            }
            if calls.iter().any(Call::has_begun) {
                world.violated(format!("request {number} was refused ({code}) with a text to be served"));
            }
            if !charged.is_empty() {
                world.violated(format!("I4: request {number} was refused ({code}) and charged: {charged:?}"));
            }
            keys::refusal_at_rest(world, asked, code, receipt.as_deref(), told);
        }
        Got::Stream(heard) if heard.replayed => keys::replay_at_rest(world, asked, heard, told),
        Got::Stream(heard) => stream_at_rest(world, number, heard, &receipts),
        Got::Nothing => {}
    }
    count_calls(world, &calls);
    attempts_at_rest(world, asked, &held, &receipts);
    let id = held.iter().map(|(id, _)| id).next_back();
    let failed =
        id.map_or(0, |id| world.with(|inner| inner.journal.failed_ends.get(id).copied().unwrap_or(0)));
    let excused = asked.died || failed >= FAILED_RECEIPTS_MIN;
    if calls.iter().any(|call| call.written > 0) && charged.is_empty() && !excused {
        world.violated(format!("I3: request {number} was served and not charged: {receipts:?}"));
    }
}

/// What a client heard is what the provider wrote and what the receipt says.
fn stream_at_rest(world: &World, number: u64, heard: &Heard, receipts: &[Receipt]) {
    let served = world.with(|inner| inner.calls.served(number).cloned());
    let (text, complete) = served.map_or((String::new(), false), |call| (call.text, call.complete));
    if !text.starts_with(heard.text.as_str()) {
        world.violated(format!("request {number} got text that the provider did not write"));
    }
    if heard.ending == Ending::Finish && (text != heard.text || !complete) {
        world.violated(format!("F28: request {number} finished with a part of the text"));
    }
    if heard.ending == Ending::Abort {
        let stopped = world.with(|inner| inner.journal.stops.keys().any(|id| request_of(id) == number));
        world.saw(if text.is_empty() { "stopped before the first text" } else { "stopped in the middle" });
        if !stopped {
            world.violated(format!("request {number} was stopped by nobody"));
        }
    }
    if let Some((id, tokens)) = &heard.told {
        let receipt = receipts.iter().find(|receipt| receipt.id.as_str() == id);
        if receipt.map(|receipt| receipt.charged.get()) != Some(*tokens) || heard.message.as_ref() != Some(id)
        {
            world.violated(format!("I3: request {number} was told {heard:?}, its receipt is {receipt:?}"));
        }
    }
}

/// Counts what became of calls.
fn count_calls(world: &World, calls: &[Call]) {
    let Some((served, failed)) = calls.split_last().filter(|(served, _)| served.has_begun()) else { return };
    if failed.iter().any(|call| call.model == served.model) {
        world.saw("a retry worked");
    }
    if failed.iter().any(|call| call.model != served.model) {
        world.saw("another model answered");
    }
}

/// I4: of a request's attempts, all but the one that was served are void, if the process lived and the store took that.
fn attempts_at_rest(world: &World, asked: &Asked, held: &[(HoldId, MeterKey)], receipts: &[Receipt]) {
    let Some(((last, _), given_up)) = held.split_last() else { return };
    let last_counts = Some(attempt_of(last)) == asked.last_tried();
    let failed = |id: &HoldId| world.with(|inner| inner.journal.failed_ends.contains_key(id));
    let others = given_up.iter().map(|(id, _)| id).chain((!last_counts).then_some(last));
    for id in others.filter(|id| !asked.died && !failed(id)) {
        let receipt = receipts.iter().find(|receipt| receipt.id == *id);
        if receipt.is_none_or(|receipt| receipt.outcome != Outcome::Void) {
            world.violated(format!("I4: {id} was given up and is not void: {receipt:?}"));
        }
    }
}

/// Which attempt of its request an id is.
fn attempt_of(id: &HoldId) -> u64 {
    id.as_str().split_once('x').and_then(|(_, number)| number.parse().ok()).unwrap()
}

/// The request that an id belongs to.
pub(crate) fn request_of(id: &HoldId) -> u64 {
    id.as_str().split_once('x').and_then(|(number, _)| number.parse().ok()).unwrap()
}

fn receipt_at_rest(world: &World, key: &MeterKey, id: &HoldId, receipt: &Receipt) {
    let (held, calls) = world.with(|inner| {
        let held = inner.journal.held.get(id);
        let held = held.map(|held| (held.key.clone(), held.admission.hold.tokens, held.admission.size));
        let calls = inner.calls.of(request_of(id)).iter().filter(|call| call.hold == *id).cloned();
        (held, calls.collect::<Vec<_>>())
    });
    if receipt.outcome == Outcome::Imported {
        let imported = world.with(|inner| inner.journal.imports.get(id).copied());
        if imported != Some(receipt.charged) {
            world.violated(format!("I3: nobody imported {receipt:?}"));
        }
        return;
    }
    let Some((of, tokens, size)) = held else {
        if receipt.charged > Tokens::ZERO {
            world.violated(format!("I1: {id} was charged without an admission"));
        }
        return;
    };
    if of != *key {
        world.violated(format!("I7: {id} was admitted in {of:?} and settled in {key:?}"));
    }
    if receipt.charged > tokens {
        world.violated(format!("I1: {id} was charged {} above its hold of {tokens}", receipt.charged));
    }
    match &receipt.outcome {
        Outcome::Settled { usage, .. } if keys::was_stopped_before_text(world, receipt) => {
            // Whoever was being asked may not have had the request yet.
            let failed = usize::try_from(receipt.failed_calls).unwrap();
            let fits = failed == calls.len() || failed + 1 == calls.len();
            let cost = cost_most(calls.get(..failed).unwrap_or_default(), size);
            if !fits || receipt.cost < cost || receipt.charged != usage.classes().total().min(size.total()) {
                world.violated(format!("F19: {id} was stopped after {calls:?}: {receipt:?}"));
            }
        }
        Outcome::Settled { usage, model, .. } => {
            let Some((call, failed)) = calls.split_last().filter(|(call, _)| call.has_begun()) else {
                world.violated(format!("I3: {id} was settled and not served: {receipt:?}"));
                return;
            };
            usage_at_rest(world, receipt, usage, size, call);
            let price = front().menu.prices.get(model).unwrap();
            let cost = price.cost(usage.classes()).saturating_add(cost_most(failed, size));
            if receipt.cost != cost || count(failed) != receipt.failed_calls || *model != call.model {
                world.violated(format!("F19: {id} cost {cost:?} after {failed:?}: {receipt:?}"));
            }
        }
        Outcome::Imported => {}
        Outcome::Swept | Outcome::Void => {
            if receipt.charged > Tokens::ZERO {
                world.violated(format!("I3: {id} was charged for what nobody can show was served"));
            }
            let void = receipt.outcome == Outcome::Void;
            if void && calls.iter().any(|call| call.written > 0) {
                world.violated(format!("I3: {id} was served and taken back: {receipt:?}"));
            }
            // A stop between two calls counts one that was not made.
            let counted = count(&calls)..=count(&calls) + 1;
            if void && (receipt.cost < cost_most(&calls, size) || !counted.contains(&receipt.failed_calls)) {
                world.violated(format!("F19: {id} may have cost more, after {calls:?}: {receipt:?}"));
            }
        }
    }
}

fn count(calls: &[Call]) -> u32 {
    u32::try_from(calls.len()).unwrap()
}

fn cost_most(calls: &[Call], size: HoldSize) -> NanoUsd {
    calls.iter().fold(NanoUsd::ZERO, |sum, call| sum.saturating_add(call.cost_most(size.prompt)))
}

/// What a receipt says was used is what the provider counts, or as much as was streamed.
fn usage_at_rest(world: &World, receipt: &Receipt, usage: &Usage, size: HoldSize, call: &Call) {
    let id = &receipt.id;
    let used = usage.classes().total();
    if receipt.charged != used.min(size.total()) {
        world.violated(format!("I3: {id} used {used}, its receipt says {receipt:?}"));
    }
    match usage {
        Usage::Exact(_) => {
            if used.get() != call.used() {
                world.violated(format!("I3: {id} used {}, its receipt says {receipt:?}", call.used()));
            }
        }
        Usage::Estimated(classes) => {
            world.saw("a request was settled by an estimate");
            // A word has four bytes, which the estimator takes for one token.
            if call.counted && call.complete || classes.completion().get() != call.written {
                world.violated(format!("F5: {id} wrote {} and was estimated: {receipt:?}", call.written));
            }
        }
    }
}

/// Whether a meter's row shares its minute, which is all that Stripe's count tells apart, with the end of another meter or another row.
fn shares_its_minute(world: &World, meter: &Meter) -> bool {
    let start = meter.period.start();
    let Some(row) = &meter.pending else { return false };
    let minute = |at: domain::Timestamp| at.s() / 60;
    let kept = world.store.kept();
    let ends_there = |other: &Meter| {
        other.user == meter.user && other.period.end() == start && other.customer == meter.customer
    };
    let is_beside = |other: &Report| {
        other.user == meter.user
            && other.identifier != row.identifier
            && minute(other.timestamp) == minute(row.timestamp)
    };
    !start.s().is_multiple_of(60)
        && (minute(row.timestamp) == minute(start)
            || kept.meters.values().any(ends_there)
            || kept.reports.values().any(is_beside))
}

fn meter_at_rest(world: &World, key: &MeterKey, meter: &Meter) {
    let sum: u64 = world.with(|inner| {
        let rows = &inner.journal.rows;
        let of_meter = |event: &&Event| rows.get(&event.identifier).is_some_and(|row| row.key == *key);
        inner.stripe.counted.iter().filter(of_meter).map(|event| event.tokens).sum()
    });
    if !meter.holds.is_empty() {
        world.violated(format!("I3: holds that nobody ends: {meter:?}"));
        return;
    }
    let with = meter.on_stripes_meter();
    if let Some(row) = &meter.pending {
        // A new anchor has cut the period after the row was sealed: only a person can say whether Stripe has it. Nor can Stripe's
        // count by minutes say it where the meter began within one, after another of the same customer.
        let cut = meter.mixed || shares_its_minute(world, meter);
        let without = with.saturating_sub(row.tokens);
        if cut && (sum == with.get() || sum == without.get()) {
            world.saw("a row is unclear for good");
        } else {
            world.violated(format!("I2: a row that never ends, Stripe counted {sum}: {meter:?}"));
        }
        return;
    }
    if sum != with.get() {
        world.violated(format!("I2: Stripe counted {sum}, the meter says {with}: {meter:?}"));
    }
    if meter.customer.is_some() && meter.settled != meter.sealed {
        world.violated(format!("I2: usage that nobody reports: {meter:?}"));
    }
    if meter.dirty {
        world.violated(format!("a meter stays dirty: {meter:?}"));
    }
}
