//! What takes effect in the store: the memory ledger's own transition, or what a deliberate bug makes of it; then the
//! journal, and the checks that hold after every step.

use crate::simulation::{
    bugs::Bug,
    checks,
    journal::{Held, Snapshot},
    keys, stripe,
    world::World,
};
use domain::{
    AccountChange, Admission, Attempt, Billing, Claim, ClaimState, CustomerId, HoldId, Lease, Meter, Opening,
    Outcome, RateCounts, Receipt, Release, Report, ReportRow, RowFate, Seal, Timestamp, Tokens, UserId,
};
use futures_util::FutureExt;
use ledger::{AdmitAnswer, Changed, MeterKey, Store};

/// How much too early a claim is forgotten by a deliberate bug, in milliseconds.
const FORGOTTEN_EARLY_MS: u64 = 23 * 60 * 60 * 1_000 + 50 * 60 * 1_000;

/// How the reporter begins to say that a late row is parked for want of a price.
const UNPRICED: &str = "the price of late usage cannot be told";

/// What the memory ledger answers at once.
pub(crate) fn at_once<T, E>(answer: impl Future<Output = Result<T, E>>) -> T {
    answer.now_or_never().unwrap().ok().unwrap()
}

fn key_of(user: &UserId, period_start: Timestamp) -> MeterKey {
    MeterKey { user: user.clone(), period_start }
}

/// After every effect on a meter: index, history, and what must hold of it.
fn look_at(world: &World, key: &MeterKey) {
    let ms = world.ms();
    let snapshot = {
        let kept = world.store.kept();
        let Some(meter) = kept.meters.get(key) else { return };
        let current = kept.accounts.get(&key.user).filter(|account| account.current == key.period_start);
        let snapshot = current.map(|account| Snapshot { account: account.clone(), meter: meter.clone() });
        let dirty = meter.dirty;
        world.with(|inner| {
            let lag_ms = inner.dice.below(world.scenario.index_lag_ms + 1);
            inner.journal.index.entry(key.clone()).or_default().set(dirty, ms, lag_ms);
        });
        snapshot
    };
    if let Some(snapshot) = snapshot {
        world.with(|inner| inner.journal.history.entry(key.user.clone()).or_default().push(snapshot));
    }
    checks::meter_is_sound(world, key);
}

/// Reads or changes what is kept of a meter, if there is one.
fn on_meter<T>(world: &World, key: &MeterKey, change: impl FnOnce(&mut Meter) -> T) -> Option<T> {
    world.store.kept().meters.get_mut(key).map(change)
}

pub(crate) fn admit(world: &World, asked: &Admission) -> AdmitAnswer {
    let key = key_of(&asked.user, asked.period_start);
    let mut admission = asked.clone();
    let before = on_meter(world, &key, |meter| {
        let before = meter.clone();
        loosen(world, meter, &mut admission);
        before
    });
    let answer = at_once(world.store.admit(&admission));
    let admitted = matches!(answer, AdmitAnswer::Admitted(_));
    if let Some(before) = before {
        on_meter(world, &key, |meter| {
            meter.closed = before.closed;
            meter.rate.newest = meter.rate.newest.max(before.rate.newest);
            if world.bug == Some(Bug::AdmissionNotDirty) {
                meter.dirty = before.dirty;
            }
            if world.bug == Some(Bug::RefusalConsumes) && !admitted {
                *meter.rate.counts.entry(admission.window).or_default() += 1;
                meter.rate.newest = meter.rate.newest.max(admission.window);
            }
        });
        if admitted {
            checks::admission_is_sound(world, &key, &before, &admission);
            world.with(|inner| {
                let journal = &mut inner.journal;
                let counted = journal.counted.entry(key.user.clone()).or_default();
                *counted.entry(admission.window).or_default() += 1;
                let held =
                    Held { key: key.clone(), admission: admission.clone(), payer: before.customer.clone() };
                if journal.held.insert(asked.id.clone(), held).is_some() {
                    inner.violations.push(format!("I3: {} was admitted twice", asked.id));
                }
            });
            checks::rate_is_sound(world, &key, &admission);
        } else {
            world.saw("an admission's facts were stale");
        }
    }
    look_at(world, &key);
    answer
}

/// Takes a condition out of an admission.
fn loosen(world: &World, meter: &mut Meter, admission: &mut Admission) {
    match world.bug {
        Some(Bug::CapReadThenAdded) => admission.facts.committed_most = Tokens::MAX,
        Some(Bug::CacheBelieved) => admission.facts.rev = meter.rev,
        Some(Bug::ClosedMeterAdmits) => meter.closed = false,
        Some(Bug::ConcurrencyUnchecked) => admission.facts.holds_most = u16::MAX,
        Some(Bug::FinishedWindowAdmits) => meter.rate.newest = meter.rate.newest.min(admission.window),
        Some(Bug::HoldTooSmall) => {
            admission.hold.tokens = Tokens::new(admission.hold.tokens.get() / 2).unwrap();
        }
        Some(Bug::HoldExpiresEarly) => admission.hold.expires_at = world.now().plus_ms(2_000),
        _ => {}
    }
}

pub(crate) fn put_receipt(world: &World, receipt: &Receipt) -> Receipt {
    let mut receipt = receipt.clone();
    let swept = receipt.outcome == Outcome::Swept;
    match world.bug {
        Some(Bug::SweepCharges) if swept => receipt.charged = receipt.absorbed,
        Some(Bug::SettledByClock) if !swept => receipt.period_start = current(world, &receipt),
        Some(Bug::AdmissionNotVoided) if unconfirmed(world, &receipt) => return receipt,
        _ => {}
    }
    let key = key_of(&receipt.user, receipt.period_start);
    let standing = at_once(world.store.put_receipt(&receipt));
    let replaces = match world.bug {
        Some(Bug::ReceiptWithoutCondition) => true,
        Some(Bug::SweepIgnoresReceipt) => swept,
        _ => false,
    };
    if standing != receipt {
        world.saw(if swept { "a sweep found a receipt" } else { "a receipt came second" });
    }
    if replaces {
        world.store.kept().receipts.insert((key.clone(), receipt.id.clone()), receipt.clone());
    }
    checks::receipt_stands(world, &key, &receipt.id);
    look_at(world, &key);
    if replaces { receipt } else { standing }
}

fn current(world: &World, receipt: &Receipt) -> Timestamp {
    world.store.kept().accounts.get(&receipt.user).map_or(receipt.period_start, |account| account.current)
}

/// Whether this undoes an admission that has not taken effect yet.
fn unconfirmed(world: &World, receipt: &Receipt) -> bool {
    receipt.outcome == Outcome::Void && !world.with(|inner| inner.journal.held.contains_key(&receipt.id))
}

pub(crate) fn release(world: &World, release: &Release) -> Changed {
    let mut release = release.clone();
    match world.bug {
        Some(Bug::AbortKeepsHold) if release.returns_slot => return Changed::Yes,
        Some(Bug::VoidKeepsSlot) => release.returns_slot = false,
        Some(Bug::SettledByClock) => {
            let kept = world.store.kept();
            if let Some(account) = kept.accounts.get(&release.user) {
                release.period_start = account.current;
            }
        }
        _ => {}
    }
    let key = key_of(&release.user, release.period_start);
    let changed = at_once(world.store.release(&release));
    if changed == Changed::No && world.bug == Some(Bug::ReleaseWithoutCondition) {
        on_meter(world, &key, |meter| {
            meter.settled = meter.settled.saturating_add(release.charged);
            meter.committed = meter.committed.saturating_add(release.charged);
        });
    }
    if changed == Changed::Yes {
        checks::release_is_sound(world, &release);
        released(world, &key, &release);
    } else {
        world.saw("a hold had been released before");
    }
    look_at(world, &key);
    changed
}

fn released(world: &World, key: &MeterKey, release: &Release) {
    let closed = on_meter(world, key, |meter| meter.closed).unwrap_or(false);
    if closed {
        world.saw("a hold ended after its period was closed");
    }
    if is_void(world, key, &release.id) {
        world.with(|inner| {
            let counted = inner.journal.counted.entry(key.user.clone()).or_default();
            if let Some(count) = counted.get_mut(&release.hold.window) {
                *count = count.saturating_sub(1);
            }
            if closed {
                inner.journal.late_voids.insert((key.user.clone(), release.hold.window));
            }
        });
    }
}

fn is_void(world: &World, key: &MeterKey, id: &HoldId) -> bool {
    let kept = world.store.kept();
    kept.receipts.get(&(key.clone(), id.clone())).is_some_and(|receipt| receipt.outcome == Outcome::Void)
}

pub(crate) fn open(world: &World, opening: &Opening) -> Changed {
    let mut opening = opening.clone();
    if let Some(predecessor) = &opening.predecessor {
        let old = key_of(&opening.account.user, predecessor.start);
        let sealed = on_meter(world, &old, |meter| meter.sealed).unwrap_or(Tokens::ZERO);
        match world.bug {
            Some(Bug::FreshWindow) => opening.meter.rate = RateCounts::default(),
            Some(Bug::SealedUnscoped) => opening.meter.sealed = sealed,
            _ => {}
        }
    }
    let changed = at_once(world.store.open(&opening));
    if let (Changed::Yes, Some(predecessor)) = (changed, &opening.predecessor) {
        let old = key_of(&opening.account.user, predecessor.start);
        let open = on_meter(world, &old, |meter| !meter.holds.is_empty()).unwrap_or(false);
        world.saw(if open { "a period rolled over with open holds" } else { "a period rolled over" });
        look_at(world, &old);
    }
    if changed == Changed::Yes && opening.predecessor.is_none() {
        hear(world, &opening.account);
    }
    look_at(world, &MeterKey::of(&opening.meter));
    changed
}

/// Notes that an account has come to a plan of a subscription.
fn hear(world: &World, account: &domain::Account) {
    let heard = (world.now(), account.plan.clone(), account.subscription.clone());
    world.with(|inner| inner.journal.heard.entry(account.user.clone()).or_default().push(heard));
}

pub(crate) fn change_account(world: &World, change: &AccountChange) -> Changed {
    let key = key_of(&change.before.user, change.before.current);
    if world.bug == Some(Bug::AccountAlone) {
        let mut kept = world.store.kept();
        let account = kept.accounts.get_mut(&change.before.user);
        let Some(account) = account.filter(|account| account.rev == change.before.rev) else {
            return Changed::No;
        };
        // The meter's `rev` is what its condition would have refused by.
        *account = domain::Account { rev: change.before.rev, ..change.after.clone() };
        return Changed::Yes;
    }
    let mut change = change.clone();
    if world.bug == Some(Bug::OldMeterGoesOn) && change.after.plan_since.is_some() {
        // What would be if a change of plan cut no meter.
        let before = on_meter(world, &key, |meter| (meter.period, meter.mixed));
        if let Some((period, mixed)) = before {
            (change.meter_period, change.meter_mixed, change.meter_replaced) = (period, mixed, false);
        }
        change.after.plan_since = None;
    }
    if world.bug == Some(Bug::DebtIgnored) {
        change.after.pay_by = None;
    }
    let changed = at_once(world.store.change_account(&change));
    if changed == Changed::Yes {
        let of = |account: &domain::Account| (account.plan.clone(), account.subscription.clone());
        if of(&change.before) != of(&change.after) {
            hear(world, &change.after);
        }
        let held = on_meter(world, &key, |meter| !meter.holds.is_empty()).unwrap_or(false);
        world.saw(if held { "an account changed under open holds" } else { "an account changed" });
    }
    look_at(world, &key);
    changed
}

pub(crate) fn seal(world: &World, key: &MeterKey, seal: &Seal) -> Changed {
    let mut seal = seal.clone();
    if world.bug == Some(Bug::RowRounded) {
        seal.row.tokens = Tokens::new(seal.row.tokens.get().next_multiple_of(1_000)).unwrap();
    }
    if world.bug == Some(Bug::SealIgnoresAccount) {
        seal.rev = on_meter(world, key, |meter| meter.rev).unwrap();
    }
    let mut changed = at_once(world.store.seal(key, &seal));
    if changed == Changed::No {
        world.saw("a seal came second");
        if world.bug == Some(Bug::SealWithoutCondition) {
            on_meter(world, key, |meter| {
                meter.sealed = meter.sealed.saturating_add(seal.row.tokens);
                meter.seq += 1;
                meter.pending = Some(seal.row.clone());
            });
            changed = Changed::Yes;
        }
    }
    if changed == Changed::Yes {
        let period = on_meter(world, key, |meter| meter.period).unwrap();
        if !period.contains(seal.row.timestamp) {
            world.violated(format!("I7: {} lies outside of its period", seal.row.identifier));
        }
        checks::row_is_new(world, key, &seal.row);
    }
    look_at(world, key);
    if changed == Changed::Yes {
        world.sealed.notify_waiters();
    }
    changed
}

pub(crate) fn note_attempt(world: &World, key: &MeterKey, seq: u64, at: Timestamp, fence: u64) -> Attempt {
    if world.bug == Some(Bug::AttemptNotNoted) {
        return Attempt::First;
    }
    if world.bug == Some(Bug::FenceIgnored) {
        on_meter(world, key, |meter| meter.pending.iter_mut().for_each(|row| row.fence = 0));
    }
    let attempt = at_once(world.store.note_attempt(key, seq, at, fence));
    if matches!(attempt, Attempt::First | Attempt::Again) {
        checks::attempt_is_sound(world, key, seq, fence);
    }
    attempt
}

pub(crate) fn put_report(
    world: &World,
    key: &MeterKey,
    row: &ReportRow,
    fate: RowFate,
    at: Timestamp,
    note: Option<&str>,
) -> RowFate {
    if fate == RowFate::Parked && note.is_some_and(|note| note.starts_with(UNPRICED)) {
        world.saw("late usage: its price cannot be told");
        world.with(|inner| inner.journal.unpriced.insert(row.identifier.clone()));
    }
    let standing = at_once(world.store.put_report(key, row, fate, at, note));
    look_at(world, key);
    standing
}

pub(crate) fn forgive(world: &World, key: &MeterKey, seq: u64, at: Timestamp, note: &str) -> Changed {
    let changed = at_once(world.store.forgive(key, seq, at, note));
    world.saw(if changed == Changed::Yes { "a parked row was forgiven" } else { "forgiving came second" });
    look_at(world, key);
    changed
}

pub(crate) fn retry(world: &World, key: &MeterKey, seq: u64, row: &ReportRow, at: Timestamp) -> Changed {
    let mut changed = at_once(world.store.retry(key, seq, row, at));
    if changed == Changed::No {
        world.saw("a retry came second");
        if world.bug == Some(Bug::RetryWithoutCondition) {
            on_meter(world, key, |meter| {
                meter.parked = meter.parked.saturating_sub(row.tokens);
                meter.seq = row.seq + 1;
                meter.pending = Some(row.clone());
                meter.dirty = true;
            });
            changed = Changed::Yes;
        }
    }
    if changed == Changed::Yes {
        checks::row_is_new(world, key, row);
    }
    look_at(world, key);
    if changed == Changed::Yes {
        world.sealed.notify_waiters();
    }
    changed
}

pub(crate) fn reject(
    world: &World,
    key: &MeterKey,
    seq: u64,
    tokens: Tokens,
    at: Timestamp,
    note: &str,
) -> Changed {
    let mut changed = at_once(world.store.reject(key, seq, tokens, at, note));
    if changed == Changed::No {
        world.saw("a rejection came second");
        if world.bug == Some(Bug::RejectWithoutCondition) {
            on_meter(world, key, |meter| meter.parked = meter.parked.saturating_add(tokens));
            changed = Changed::Yes;
        }
    } else {
        world.saw("an accepted row was rejected afterwards");
        let item = world.store.kept().reports[&(key.clone(), seq)].clone();
        stripe::reject(world, &item.identifier);
    }
    look_at(world, key);
    changed
}

pub(crate) fn import(
    world: &World,
    key: &MeterKey,
    receipt: &Receipt,
    report: &Report,
    billing: Billing,
) -> Changed {
    let mut changed = at_once(world.store.import(key, receipt, report, billing));
    if changed == Changed::No {
        world.saw("an import came second");
        if world.bug == Some(Bug::ImportWithoutCondition) {
            on_meter(world, key, |meter| {
                meter.settled = meter.settled.saturating_add(report.tokens);
                meter.committed = meter.committed.saturating_add(report.tokens);
                meter.sealed = meter.sealed.saturating_add(report.tokens);
            });
            changed = Changed::Yes;
        }
    } else {
        world.with(|inner| inner.journal.imports.insert(receipt.id.clone(), receipt.charged));
        checks::receipt_stands(world, key, &receipt.id);
        checks::report_is_new(world, key, report);
        if report.fate == RowFate::Accepted {
            stripe::counted_before(world, report);
        }
    }
    look_at(world, key);
    changed
}

pub(crate) fn take_lease(
    world: &World,
    customer: &CustomerId,
    owner: &HoldId,
    now: Timestamp,
    until: Timestamp,
) -> Option<Lease> {
    if world.bug == Some(Bug::LeaseWithoutFence)
        && let Some((fence, _)) = world.store.kept().leases.get_mut(customer)
    {
        *fence = 0;
    }
    let lease = at_once(world.store.take_lease(customer, owner, now, until));
    if let Some(lease) = &lease {
        checks::lease_is_sound(world, lease);
    }
    lease
}

pub(crate) fn drop_lease(world: &World, lease: &Lease) -> Changed {
    at_once(world.store.drop_lease(lease))
}

pub(crate) fn drop_row(world: &World, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Changed {
    let mut changed = at_once(world.store.drop_row(key, row, fate));
    if changed == Changed::No {
        world.saw("a row had been dropped before");
        if world.bug == Some(Bug::AnyRowDropped) {
            on_meter(world, key, |meter| meter.pending = None);
            changed = Changed::Yes;
        }
    }
    look_at(world, key);
    changed
}

pub(crate) fn clear(world: &World, key: &MeterKey) -> Changed {
    let changed = at_once(world.store.clear(key));
    if world.bug == Some(Bug::DirtyClearedEarly) {
        on_meter(world, key, |meter| meter.dirty = false);
    } else if changed == Changed::No {
        world.saw("a meter was not clean when it was to be cleared");
    }
    look_at(world, key);
    changed
}

pub(crate) fn receipt(world: &World, key: &MeterKey, id: &HoldId) -> Option<Receipt> {
    let asks_for = |claim: &Claim| matches!(&claim.state, ClaimState::Running { hold: Some(hold), .. } if hold.id == *id);
    if world.bug == Some(Bug::TakenOverUnasked) && world.store.kept().claims.values().any(asks_for) {
        return None;
    }
    at_once(world.store.receipt(key, id))
}

pub(crate) fn put_claim(world: &World, claim: &Claim, now: Timestamp) -> Option<Claim> {
    let forgotten =
        if world.bug == Some(Bug::ClaimForgottenEarly) { now.plus_ms(FORGOTTEN_EARLY_MS) } else { now };
    let standing = at_once(world.store.put_claim(claim, forgotten));
    match world.bug {
        Some(Bug::ClaimWithoutCondition) => {
            world.store.kept().claims.insert((claim.user.clone(), claim.key), claim.clone());
            None
        }
        Some(Bug::BodyNotCompared) => standing.map(|standing| Claim { body: claim.body, ..standing }),
        _ => standing,
    }
}

pub(crate) fn change_claim(world: &World, claim: &Claim, owner: &HoldId) -> Changed {
    let notes = matches!(claim.state, ClaimState::Running { hold: Some(_), .. });
    match world.bug {
        Some(Bug::HoldNotNoted) if notes => return Changed::Yes,
        Some(Bug::TakenOverTwice) => {
            let mut kept = world.store.kept();
            let standing = kept.claims.get_mut(&(claim.user.clone(), claim.key));
            return standing.map(|standing| standing.clone_from(claim)).is_some().into();
        }
        _ => {}
    }
    let changed = at_once(world.store.change_claim(claim, owner));
    if changed == Changed::Yes && claim.owner != *owner {
        world.saw("an abandoned claim was taken over");
    }
    if changed == Changed::Yes && notes {
        land_drops(world, claim);
    }
    changed
}

/// Lets what was to drop earlier claims on this key land now, which is the worst moment: its owner is about to call.
fn land_drops(world: &World, claim: &Claim) {
    let late = world.with(|inner| {
        let of_key = |late: &mut Claim| late.key == claim.key && late.user == claim.user;
        inner.journal.late_drops.extract_if(.., of_key).collect::<Vec<_>>()
    });
    for late in late.iter().filter(|late| late.owner != claim.owner) {
        let _: Changed = drop_claim(world, late);
    }
}

pub(crate) fn drop_claim(world: &World, claim: &Claim) -> Changed {
    if world.bug == Some(Bug::ClaimDroppedByAnybody) {
        return world.store.kept().claims.remove(&(claim.user.clone(), claim.key)).is_some().into();
    }
    let changed = at_once(world.store.drop_claim(claim));
    if changed == Changed::No {
        world.saw("a claim to be dropped was somebody else's, or gone");
    }
    changed
}

pub(crate) fn put_stop(world: &World, user: &UserId, id: &HoldId, forget_at: Timestamp) {
    let ms = world.ms();
    at_once(world.store.put_stop(user, id, forget_at));
    world.with(|inner| *inner.journal.stops.entry(id.clone()).or_insert(ms));
    keys::stop_finds(world, id);
}

pub(crate) fn is_stopped(world: &World, user: &UserId, id: &HoldId) -> bool {
    world.bug != Some(Bug::StopUnseen) && at_once(world.store.is_stopped(user, id))
}
