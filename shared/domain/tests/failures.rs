//! The failures that others shipped, by their number, as far as pure rules can show that they cannot happen here.

use crate::support::{
    HOLD_MS, WINDOW_MS, decide, exactly, first_seen, id, plan, price, start, tokens, used, user,
};
use domain::{
    Account, AccountChange, Admission, Attempt, CapKind, CustomerId, IDENTIFIER_FORGOTTEN_MS, Meter,
    NextStep, Opening, Period, Placement, Plan, PlanId, Receipt, Refusal, ReportRow, RowFate, Seal,
    SubscriptionId, Timestamp, Tokens, Verdict, cap_in_force, next_step, place, reconcile, reconcile_minute,
    seal,
};

const DAY_MS: u64 = 86_400_000;

/// Asks for `demand` on the facts of this moment and writes the answer.
fn ask(
    account: &Account,
    plan: &Plan,
    meter: &mut Meter,
    number: u32,
    size: u32,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    let admission = decide((account, meter), plan, number, exactly(size), now)?;
    assert!(meter.apply_admission(&admission), "fresh facts were stale");
    Ok(admission)
}

fn settle(meter: &mut Meter, admission: &Admission, output: u32, now: Timestamp) -> bool {
    let Admission { user, period_start, id, hold, .. } = admission.clone();
    let receipt = Receipt::settled(user, period_start, (id, &hold), used(0, output), &price(), now);
    meter.apply_release(&receipt.release(&hold))
}

/// A user on a plan that Stripe bills.
fn subscribed(now: Timestamp) -> (Account, Meter) {
    let (account, _) = first_seen(now);
    let account = Account {
        plan: PlanId::parse("pro").unwrap(),
        customer: Some(CustomerId::parse("cus_1").unwrap()),
        subscription: Some(SubscriptionId::parse("sub_1").unwrap()),
        ..account
    };
    let Opening { account, meter, .. } = Opening::first(account, now).unwrap();
    (account, meter)
}

fn opening(account: &Account, meter: &Meter, now: Timestamp) -> Opening {
    match place(account, meter, now) {
        Placement::Open(opening) => *opening,
        placed @ (Placement::Current | Placement::OutOfCalendar) => panic!("{placed:?} is no new period"),
    }
}

#[test]
fn f01_two_hundred_requests_at_once_of_a_user_nobody_knew_pass_as_often_as_the_cap_fits() {
    let plan = plan("free", 1_000, 1_000, 64);
    let (account, mut meter) = first_seen(start());
    let first_facts = meter.clone();
    let decided: Vec<Admission> = (0..200)
        .map(|number| decide((&account, &first_facts), &plan, number, exactly(100), start()).unwrap())
        .collect();
    let passed = decided.iter().filter(|admission| meter.apply_admission(admission)).count();
    assert_eq!((passed, meter.committed), (10, tokens(1_000)));
}

#[test]
fn f03_an_abandoned_hold_is_swept_by_the_instant_that_its_victims_were_told() {
    let plan = plan("free", 100, 10, 8);
    let (account, mut meter) = first_seen(start());
    let leaked = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    let refusal = ask(&account, &plan, &mut meter, 2, 100, start()).unwrap_err();
    let Refusal::QuotaHeld { until_most, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!(until_most, start().plus_ms(HOLD_MS));
    assert_eq!(meter.expired(Timestamp::from_ms(until_most.ms() - 1)), []);
    let expired = meter.expired(until_most);
    assert_eq!(expired, [(id(1), leaked.hold.clone())]);
    let receipt = Receipt::swept(user(), meter.period.start(), (id(1), &leaked.hold), until_most);
    assert!(meter.apply_release(&receipt.release(&leaked.hold)));
    assert_eq!((meter.committed, meter.totals.absorbed), (Tokens::ZERO, tokens(100)));
    assert!(ask(&account, &plan, &mut meter, 3, 100, until_most).is_ok());
}

#[test]
fn f09_a_row_is_sealed_once_under_one_identifier_however_often_it_is_asked_for() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    let [mine, yours] = [seal(&meter, start()), seal(&meter, start().plus_ms(1))].map(Option::unwrap);
    assert_eq!(mine.row.identifier, yours.row.identifier);
    // Each figure that it was decided on is enough to make it stale.
    assert!(!meter.apply_seal(&Seal { sealed_before: tokens(1), ..mine.clone() }));
    let later = ReportRow { seq: 1, ..mine.row.clone() };
    assert!(!meter.apply_seal(&Seal { row: later, ..mine.clone() }));
    assert!(meter.apply_seal(&mine) && !meter.apply_seal(&yours) && !meter.apply_seal(&mine));
    assert_eq!(seal(&meter, start()), None);
    // Not even a seal that has the right figures pushes a row aside that is on its way.
    let row = ReportRow { seq: meter.seq, ..mine.row.clone() };
    assert!(!meter.apply_seal(&Seal {
        rev: meter.rev,
        sealed_before: meter.sealed,
        sealed_after: meter.sealed,
        row
    }));
    assert!(meter.apply_drop(0, RowFate::Accepted) && !meter.apply_drop(0, RowFate::Accepted));
    assert!(!meter.apply_seal(&mine) && seal(&meter, start()).is_none());
    // The longest customer, the last period and the last row still make an identifier that Stripe takes.
    meter.customer = Some(CustomerId::parse(&"c".repeat(CustomerId::LENGTH_MAX)).unwrap());
    (meter.seq, meter.settled) = (u64::MAX, tokens(71));
    let longest = seal(&meter, start()).unwrap().row.identifier;
    assert!(longest.len() <= 100, "{} characters", longest.len());
}

#[test]
fn f11_a_seal_that_was_decided_before_its_account_changed_does_nothing() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    let later = start().plus_ms(DAY_MS);
    let decided = seal(&meter, later).unwrap();
    // The subscription ended before the row's time: on its last invoice the row would not be.
    let ended =
        Account { subscription: None, anchor: start().plus_ms(DAY_MS / 2).floor_s(), ..account.clone() };
    assert!(meter.apply_account(&AccountChange::new(account, ended, &meter)));
    assert!(!meter.apply_seal(&decided), "a row outside of its period was sealed");
    let again = seal(&meter, later).unwrap();
    assert!(meter.period.contains(again.row.timestamp) && meter.apply_seal(&again));
}

#[test]
fn f09_a_row_is_sent_again_only_while_its_identifier_is_remembered() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    let sealed = seal(&meter, start()).unwrap();
    assert!(meter.apply_seal(&sealed));
    let next =
        |meter: &Meter, after_ms| next_step(meter.pending.as_ref().unwrap(), start().plus_ms(after_ms));
    assert_eq!(next(&meter, 40 * DAY_MS), NextStep::Send, "it was never sent");
    let attempts = [0, DAY_MS].map(|after_ms| meter.apply_attempt(0, start().plus_ms(after_ms), 0));
    assert_eq!(attempts, [Attempt::First, Attempt::Again]);
    assert_eq!(next(&meter, IDENTIFIER_FORGOTTEN_MS), NextStep::Send);
    assert_eq!(next(&meter, IDENTIFIER_FORGOTTEN_MS + 1), NextStep::Reconcile);
    // Stripe forgets an identifier after 24 hours; the gap is for a send that is still under way.
    assert_eq!(IDENTIFIER_FORGOTTEN_MS, DAY_MS - 4 * 3_600_000);
    // Any count but the two that the row explains is somebody else's doing: a person has to look.
    let row = meter.pending.as_ref().unwrap();
    let verdicts = [0, 1, 69, 70, 71].map(|counted| reconcile(&meter, row, tokens(counted)));
    assert_eq!(
        verdicts,
        [Verdict::Missing, Verdict::Unclear, Verdict::Unclear, Verdict::Delivered, Verdict::Unclear]
    );
}

#[test]
fn f11_the_last_tokens_of_a_subscription_stay_on_its_last_invoice() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    let ended = Account { plan: PlanId::parse("free").unwrap(), subscription: None, ..account.clone() };
    let change = AccountChange::new(account, ended, &meter);
    assert!(meter.apply_account(&change));
    assert!(!meter.is_clean());
    let row = seal(&meter, meter.period.end().plus_ms(5 * DAY_MS)).unwrap().row;
    assert_eq!((row.tokens, row.timestamp.s()), (tokens(70), meter.period.end().s() - 1));
}

#[test]
fn f11_a_period_that_began_at_the_subscriptions_end_is_nobodys_to_pay() {
    let (account, meter) = subscribed(start());
    let end = meter.period.end();
    // A request comes before the webhook: the next period opens as if the subscription went on.
    let Opening { account, meter, .. } = opening(&account, &meter, end.plus_ms(1_000));
    assert!(meter.customer.is_some());
    let free =
        Account { plan: PlanId::parse("free").unwrap(), subscription: None, anchor: end, ..account.clone() };
    let change = AccountChange::new(account, free, &meter);
    assert_eq!(change.meter_customer, None, "a month of free usage would be billed");
}

#[test]
fn f09_no_count_decides_once_another_pays_or_the_period_was_cut() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    let sealed = seal(&meter, start()).unwrap();
    assert!(meter.apply_seal(&sealed));
    let ended = Account { subscription: None, anchor: start().plus_ms(DAY_MS), ..account.clone() };
    let other = Account { customer: Some(CustomerId::parse("cus_2").unwrap()), ..account.clone() };
    for after in [ended, other] {
        let mut meter = meter.clone();
        assert!(meter.apply_account(&AccountChange::new(account.clone(), after, &meter)));
        let verdicts = [0, 70].map(|counted| reconcile(&meter, &sealed.row, tokens(counted)));
        assert_eq!(verdicts, [Verdict::Unclear, Verdict::Unclear]);
    }
}

#[test]
fn f11_a_clock_behind_a_new_subscriptions_first_second_opens_no_period_before_it() {
    let (account, mut meter) = first_seen(start());
    let begins = start().plus_ms(10 * DAY_MS);
    let (pro, _) = subscribed(begins);
    let change = AccountChange::new(account, pro, &meter);
    assert!(meter.apply_account(&change));
    let before = Period::new(start(), begins).unwrap();
    assert_eq!(
        (meter.period, &meter.customer),
        (before, &None),
        "what was used before it is not on its invoice"
    );
    let account = change.after;
    for behind_ms in [2_000, 1_000, 1] {
        let now = Timestamp::from_ms(begins.ms() - behind_ms);
        assert_eq!(place(&account, &meter, now), Placement::Current, "{behind_ms} ms behind");
    }
    // Nor does it open the month before the anchor for somebody who was idle since longer than that.
    let (idle, old) = first_seen(Timestamp::from_ms(begins.ms() - 36 * DAY_MS));
    let change = AccountChange::new(idle, subscribed(begins).0, &old);
    let late = opening(&change.after, &old, Timestamp::from_ms(begins.ms() - 1));
    assert_eq!(late.meter.period.start(), begins);
    let opened = opening(&account, &meter, begins);
    assert_eq!((opened.meter.period.start(), opened.meter.customer.is_some()), (begins, true));
    let behind = Timestamp::from_ms(begins.ms() - 2_000);
    assert_eq!(place(&opened.account, &opened.meter, behind), Placement::Current);
}

#[test]
fn f11_a_subscription_older_than_its_users_first_meter_pays_for_it_to_the_end_of_its_own_period() {
    // The subscription began; the user was seen three seconds later, and its webhook came after that.
    let (begins, seen) = (start(), start().plus_ms(3_000));
    let (account, mut meter) = first_seen(seen);
    let (pro, whole) = subscribed(begins);
    let change = AccountChange::new(account, pro, &meter);
    assert!(meter.apply_account(&change));
    assert!(meter.customer.is_some());
    assert_eq!((meter.period.start(), meter.period.end()), (seen, whole.period.end()));
    let last = Timestamp::from_ms(whole.period.end().ms() - 1);
    assert_eq!(place(&change.after, &meter, last), Placement::Current);
    let next = opening(&change.after, &meter, whole.period.end());
    assert_eq!(next.meter.period.start(), whole.period.end());
}

#[test]
fn f11_a_user_first_heard_of_long_after_subscribing_begins_in_the_subscriptions_period_of_that_day() {
    let (account, _) = first_seen(start());
    let now = start().plus_ms(100 * DAY_MS);
    let opened = Opening::first(account, now).unwrap();
    let period = Period::monthly(start(), now).unwrap();
    assert!(start() < period.start());
    assert_eq!((opened.meter.period, opened.account.current), (period, period.start()));
    assert_eq!((opened.account.anchor, &opened.predecessor), (start(), &None));
    assert_eq!(place(&opened.account, &opened.meter, now), Placement::Current);
}

#[test]
fn an_anchor_that_goes_back_and_forth_never_reopens_a_period_that_has_a_meter() {
    let (account, meter) = first_seen(start());
    let moved = Account { anchor: start().plus_ms(10 * DAY_MS), ..account.clone() };
    let opened = opening(&moved, &meter, moved.anchor);
    let back = Account { anchor: account.anchor, ..opened.account };
    let now = moved.anchor.plus_ms(DAY_MS);
    assert_eq!(place(&back, &opened.meter, now), Placement::Current);
    let forth = Account { anchor: moved.anchor, ..back.clone() };
    assert_eq!(place(&forth, &opened.meter, now), Placement::Current);
    let next = opening(&back, &opened.meter, meter.period.end());
    assert_eq!(next.meter.period.start(), meter.period.end());
}

#[test]
fn f12_a_hold_moves_the_counters_of_the_meter_that_has_it_and_of_no_other() {
    let plan = plan("free", 1_000, 10, 8);
    let (account, mut meter) = first_seen(start());
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    let mut other = opening(&account, &meter, meter.period.end()).meter;
    let untouched = other.clone();
    assert!(!settle(&mut other, &admission, 70, start()));
    assert_eq!(other, untouched);
    assert!(settle(&mut meter, &admission, 70, start()));
    let settled = meter.clone();
    assert!(!settle(&mut meter, &admission, 70, start()));
    assert_eq!(meter, settled);
}

#[test]
fn f13_nothing_but_the_next_period_begins_at_zero() {
    let plan = plan("free", 100, 10, 8);
    let (account, mut meter) = first_seen(start());
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 100, start()));
    let end = meter.period.end();
    for hours in 0..24 * 30 {
        let now = start().plus_ms(hours * 3_600_000);
        assert_eq!(place(&account, &meter, now), Placement::Current);
        let refusal = ask(&account, &plan, &mut meter, 2, 1, now).unwrap_err();
        assert!(matches!(refusal, Refusal::Quota { left: Tokens::ZERO, resets_at, .. } if resets_at == end));
    }
    assert_eq!(place(&account, &meter, Timestamp::from_ms(end.ms() - 1)), Placement::Current);
    let next = opening(&account, &meter, end);
    assert_eq!((next.meter.settled, next.account.current), (Tokens::ZERO, end));
    assert_eq!(meter.settled, tokens(100));
    // A clock that lags behind the boundary goes on in the new period.
    let lagging = Timestamp::from_ms(end.ms() - 1);
    assert_eq!(place(&next.account, &next.meter, lagging), Placement::Current);
}

#[test]
fn f15_a_thousand_refusals_use_up_nothing() {
    let (account, mut meter) = first_seen(start());
    let narrow = plan("free", 100, 2, 8);
    ask(&account, &narrow, &mut meter, 1, 60, start()).unwrap();
    let before = meter.clone();
    for number in 0..1_000 {
        let size = if number % 2 == 0 { 41 } else { 101 };
        ask(&account, &narrow, &mut meter, number + 2, size, start()).unwrap_err();
    }
    assert_eq!(meter, before);
    assert!(ask(&account, &narrow, &mut meter, 5_000, 40, start()).is_ok(), "the second slot was gone");
    let full = meter.clone();
    let wide = plan("free", 1_000, 2, 8);
    for number in 0..1_000 {
        let refusal = ask(&account, &wide, &mut meter, 6_000 + number, 1, start()).unwrap_err();
        assert!(matches!(refusal, Refusal::Rate { .. }));
    }
    assert_eq!(meter, full);
}

#[test]
fn i5_a_refusal_for_concurrency_says_when_enough_will_have_ended() {
    let (account, mut meter) = first_seen(start());
    let plan = plan("free", 1_000, 10, 2);
    ask(&account, &plan, &mut meter, 1, 1, start()).unwrap();
    ask(&account, &plan, &mut meter, 2, 1, start().plus_ms(5)).unwrap();
    let refusal = ask(&account, &plan, &mut meter, 3, 1, start().plus_ms(6)).unwrap_err();
    assert_eq!(refusal, Refusal::Concurrency { limit: 2, until_most: start().plus_ms(HOLD_MS) });
    // Under a plan that allows fewer than are open, one end is not enough.
    let narrower = crate::support::plan("free", 1_000, 10, 1);
    let refusal = ask(&account, &narrower, &mut meter, 3, 1, start().plus_ms(6)).unwrap_err();
    assert_eq!(refusal, Refusal::Concurrency { limit: 1, until_most: start().plus_ms(5 + HOLD_MS) });
}

#[test]
fn f21_hourly_reports_of_a_month_add_up_to_the_token() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000_000, 100, 8);
    let (mut used, mut reported) = (0_u64, Tokens::ZERO);
    for hour in 0..24 * 30_u32 {
        let now = start().plus_ms(u64::from(hour) * 3_600_000);
        // Never a round thousand: 1, 334, 667, 1000 + 1 ...
        let output = 1 + hour % 4 * 333 + u32::from(hour % 4 == 3);
        let admission = ask(&account, &plan, &mut meter, hour, 2_000, now).unwrap();
        assert!(settle(&mut meter, &admission, output, now));
        used += u64::from(output);
        let sealed = seal(&meter, now).unwrap();
        assert_eq!(sealed.row.tokens, tokens(output));
        assert!(meter.apply_seal(&sealed) && meter.apply_drop(sealed.row.seq, RowFate::Accepted));
        reported = reported.checked_add(sealed.row.tokens).unwrap();
    }
    assert_eq!((reported.get(), meter.settled.get(), meter.sealed), (used, used, meter.settled));
}

#[test]
fn f22_the_tail_of_a_month_is_reported_in_it_and_the_next_begins_at_zero() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 10_000, 100, 8);
    let end = meter.period.end();
    let late = Timestamp::from_ms(end.ms() - 1);
    let admissions = [1, 2].map(|number| ask(&account, &plan, &mut meter, number, 1_000, late).unwrap());
    assert!(settle(&mut meter, &admissions[0], 700, late));
    let sealed = seal(&meter, late).unwrap();
    assert!(meter.apply_seal(&sealed) && meter.apply_drop(0, RowFate::Accepted));
    let Opening { account, meter: mut next, predecessor } = opening(&account, &meter, end);
    assert!(meter.apply_close(&predecessor.unwrap().rate));
    // The second answer ends after the month: it is charged to the month that it was admitted in.
    let after = end.plus_ms(20_000);
    assert!(settle(&mut meter, &admissions[1], 600, after));
    let tail = seal(&meter, after).unwrap().row;
    assert_eq!((tail.tokens, tail.seq, tail.timestamp.s()), (tokens(600), 1, end.s() - 1));
    assert_eq!(seal(&next, after), None, "nothing was used in the new month");
    let first = ask(&account, &plan, &mut next, 3, 1_000, after).unwrap();
    assert!(settle(&mut next, &first, 5, after));
    let row = seal(&next, after).unwrap().row;
    assert_eq!((row.tokens, row.seq), (tokens(5), 0));
    assert_ne!(row.identifier, tail.identifier);
    // And nobody is admitted into the old month any more.
    assert!(!meter.apply_admission(&Admission { id: id(9), ..admissions[0].clone() }));
}

#[test]
fn f22_a_change_of_period_grants_no_fresh_rate_window() {
    let (account, mut meter) = first_seen(start());
    let plan = plan("free", 10_000, 2, 8);
    let late = Timestamp::from_ms(meter.period.end().ms() - 1);
    let stale = meter.clone();
    ask(&account, &plan, &mut meter, 1, 1, late).unwrap();
    ask(&account, &plan, &mut meter, 2, 1, late).unwrap();
    let end = meter.period.end();
    let Opening { account: renewed, meter: mut next, predecessor } = opening(&account, &meter, end);
    let refusal = ask(&renewed, &plan, &mut next, 3, 1, end).unwrap_err();
    assert!(matches!(refusal, Refusal::Rate { window_ms: WINDOW_MS, .. }), "{refusal:?}");
    // A successor that was decided on before the two requests cannot close their meter.
    let forgetful = opening(&account, &stale, end).predecessor.unwrap();
    assert!(!meter.apply_close(&forgetful.rate) && !meter.closed);
    let predecessor = predecessor.unwrap();
    assert!(meter.apply_close(&predecessor.rate) && !meter.apply_close(&predecessor.rate));
}

#[test]
fn f24_a_meter_is_dirty_from_its_first_admission_until_all_of_it_is_reported() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    assert!(!meter.dirty);
    let admission = ask(&account, &plan, &mut meter, 1, 100, start()).unwrap();
    assert!(!meter.apply_clear() && meter.dirty, "cleared under an open hold");
    assert!(settle(&mut meter, &admission, 70, start()));
    assert!(!meter.apply_clear() && meter.dirty, "cleared before it was sealed");
    let sealed = seal(&meter, start()).unwrap();
    assert!(meter.apply_seal(&sealed) && !meter.apply_clear() && meter.dirty, "cleared under a pending row");
    assert!(meter.apply_drop(0, RowFate::Accepted) && meter.apply_clear() && !meter.dirty);
}

#[test]
fn i2_a_row_is_parked_only_where_stripe_refused_it_for_good_and_a_void_request_is_not_counted() {
    let (account, mut meter) = subscribed(start());
    let plan = plan("pro", 1_000, 10, 8);
    for (seq, fate, parked) in [(0, RowFate::Accepted, 0), (1, RowFate::Parked, 70)] {
        let admission = ask(&account, &plan, &mut meter, seq, 100, start()).unwrap();
        assert_eq!(meter.held(), tokens(100));
        assert!(settle(&mut meter, &admission, 70, start()));
        let sealed = seal(&meter, start()).unwrap();
        assert!(meter.apply_seal(&sealed) && meter.apply_drop(u64::from(seq), fate));
        assert_eq!((meter.parked, meter.sealed, meter.held()), (tokens(parked), meter.settled, tokens(0)));
    }
    let admission = ask(&account, &plan, &mut meter, 2, 100, start()).unwrap();
    let void = Receipt::void(user(), meter.period.start(), admission.id, start());
    assert!(meter.apply_release(&void.release(&admission.hold)));
    assert_eq!((meter.totals.requests, meter.settled), (2, tokens(140)));
}

#[test]
fn f25_what_a_request_may_take_is_reserved_before_the_next_is_decided() {
    let plan = plan("free", 150, 10, 8);
    let (account, mut meter) = first_seen(start());
    let facts = meter.clone();
    let [first, second] =
        [1, 2].map(|number| decide((&account, &facts), &plan, number, exactly(100), start()).unwrap());
    assert!(meter.apply_admission(&first));
    assert_eq!((meter.settled, meter.committed), (Tokens::ZERO, tokens(100)));
    let reserved = meter.clone();
    assert!(!meter.apply_admission(&second), "both passed on what neither had used yet");
    assert_eq!(meter, reserved);
    let told = decide((&account, &meter), &plan, 2, exactly(100), start()).unwrap_err();
    assert!(matches!(told, Refusal::QuotaHeld { left, .. } if left == tokens(50)));
    // What the first did not take comes back, and only then.
    assert!(settle(&mut meter, &first, 50, start()));
    assert!(decide((&account, &meter), &plan, 2, exactly(100), start()).is_ok());
}

#[test]
fn i1_an_admission_decided_under_an_older_account_is_refused_by_the_meter() {
    let plan = plan("free", 1_000, 10, 8);
    let (account, mut meter) = first_seen(start());
    let decided = decide((&account, &meter), &plan, 1, exactly(500), start()).unwrap();
    let capped = Account { spend_cap: Some(tokens(100)), ..account.clone() };
    let change = AccountChange::new(account, capped, &meter);
    assert!(meter.apply_account(&change) && !meter.apply_account(&change));
    assert!(!meter.apply_admission(&decided));
    assert!(decide((&change.after, &meter), &plan, 1, exactly(500), start()).is_err());
}

#[test]
fn i1_the_lower_of_the_two_caps_is_in_force_and_of_equal_ones_the_plans() {
    #[track_caller]
    fn check(own: Option<u32>, cap: u32, kind: CapKind) {
        let (account, _) = first_seen(start());
        let account = Account { spend_cap: own.map(tokens), ..account };
        assert_eq!(cap_in_force(&account, &plan("free", 1_000, 10, 8)), (tokens(cap), kind));
    }
    check(None, 1_000, CapKind::Plan);
    check(Some(0), 0, CapKind::SpendCap);
    check(Some(999), 999, CapKind::SpendCap);
    // What a user could lift no longer helps: a refusal that named the spend cap would send them the wrong way.
    check(Some(1_000), 1_000, CapKind::Plan);
    check(Some(1_001), 1_000, CapKind::Plan);
}

#[test]
fn i5_holds_above_a_lowered_cap_must_end_before_anything_fits_again() {
    let plan = plan("free", 1_000, 10, 8);
    let (account, mut meter) = first_seen(start());
    for number in 0..3 {
        let now = start().plus_ms(u64::from(number) * 1_000);
        ask(&account, &plan, &mut meter, number, 100, now).unwrap();
    }
    let capped = Account { spend_cap: Some(tokens(100)), ..account };
    // 300 are held under a cap of 100: all three holds must end before 50 fit, not the first alone.
    let refusal = decide((&capped, &meter), &plan, 9, exactly(50), start()).unwrap_err();
    let until_most = start().plus_ms(2_000 + HOLD_MS);
    assert_eq!(
        refusal,
        Refusal::QuotaHeld { cap: tokens(100), left: tokens(0), needed: tokens(50), until_most }
    );
}

/// A window with one request, a plan that lets two pass, and the first instant of the next window.
fn at_a_boundary() -> (Account, Meter, Plan, Timestamp) {
    let (account, mut meter) = first_seen(start());
    let plan = plan("free", 1_000, 2, 8);
    let boundary = Timestamp::from_ms((start().ms() / WINDOW_MS + 1) * WINDOW_MS);
    ask(&account, &plan, &mut meter, 1, 1, Timestamp::from_ms(boundary.ms() - 1)).unwrap();
    (account, meter, plan, boundary)
}

#[test]
fn f01_a_request_that_lands_in_the_previous_window_meanwhile_makes_a_decision_stale() {
    let (account, mut meter, plan, boundary) = at_a_boundary();
    let ahead = decide((&account, &meter), &plan, 2, exactly(1), boundary).unwrap();
    ask(&account, &plan, &mut meter, 3, 1, Timestamp::from_ms(boundary.ms() - 1)).unwrap();
    assert!(!meter.apply_admission(&ahead), "three requests weigh in a window of two");
    let refusal = decide((&account, &meter), &plan, 2, exactly(1), boundary).unwrap_err();
    assert!(matches!(refusal, Refusal::Rate { retry_at, .. } if retry_at == boundary.plus_ms(1)));
}

#[test]
fn f01_a_clock_that_lags_adds_nothing_to_a_window_that_another_has_taken_as_finished() {
    let (account, mut meter, plan, boundary) = at_a_boundary();
    let before_it = Timestamp::from_ms(boundary.ms() - 1);
    let behind = decide((&account, &meter), &plan, 2, exactly(1), before_it).unwrap();
    ask(&account, &plan, &mut meter, 3, 1, boundary).unwrap();
    assert!(!meter.apply_admission(&behind), "counted in a window that was finished");
    // Told so it decides in the newer window, where one weighs and one counts.
    let refusal = decide((&account, &meter), &plan, 2, exactly(1), before_it).unwrap_err();
    assert!(matches!(refusal, Refusal::Rate { retry_at, .. } if retry_at == boundary.plus_ms(1)));
    assert!(decide((&account, &meter), &plan, 2, exactly(1), boundary.plus_ms(1)).is_ok());
}

#[test]
fn f01_of_two_requests_for_the_last_place_in_a_window_one_lands() {
    let (account, mut meter, plan, boundary) = at_a_boundary();
    let now = Timestamp::from_ms(boundary.ms() - 1);
    let [first, second] =
        [2, 3].map(|number| decide((&account, &meter), &plan, number, exactly(1), now).unwrap());
    assert!(meter.apply_admission(&first) && !meter.apply_admission(&second));
}

#[test]
fn i7_a_change_of_plan_begins_a_meter_of_the_rest_of_the_period_and_the_old_one_keeps_its_price() {
    let (pro, mut meter) = subscribed(start());
    let (whole, changes) = (meter.period, start().plus_ms(10 * DAY_MS));
    let agency = Account { plan: PlanId::parse("agency").unwrap(), plan_since: Some(changes), ..pro.clone() };
    let change = AccountChange::new(pro, agency, &meter);
    assert!(meter.apply_account(&change));
    assert_eq!(meter.period, Period::new(whole.start(), changes).unwrap());
    assert_eq!((meter.plan.as_str(), meter.customer.is_some()), ("pro", true));

    // A clock that lags goes on with what counts already; nobody else does.
    let account = change.after;
    assert_eq!(place(&account, &meter, Timestamp::from_ms(changes.ms() - 1)), Placement::Current);
    let rest = opening(&account, &meter, changes);
    assert_eq!(rest.meter.period, Period::new(changes, whole.end()).unwrap());
    assert_eq!((rest.meter.plan.as_str(), &rest.meter.customer), ("agency", &meter.customer));
    let last = Timestamp::from_ms(whole.end().ms() - 1);
    assert_eq!(place(&rest.account, &rest.meter, last), Placement::Current);

    // The next period is a whole one again.
    let next = opening(&rest.account, &rest.meter, whole.end());
    assert_eq!(next.meter.period, Period::monthly(account.anchor, whole.end()).unwrap());
}

#[test]
fn a_plan_that_came_before_the_meter_is_the_meters_own() {
    let (pro, mut meter) = subscribed(start());
    let agency = Account { plan: PlanId::parse("agency").unwrap(), plan_since: Some(start()), ..pro.clone() };
    let change = AccountChange::new(pro, agency, &meter);
    let before = meter.period;
    assert!(meter.apply_account(&change));
    assert_eq!((meter.period, meter.plan.as_str()), (before, "agency"));
}

#[test]
fn f11_what_usage_costs_is_what_the_subscription_that_pays_for_it_says() {
    let id = |name: &str| PlanId::parse(name).unwrap();
    let (account, meter) = subscribed(start());
    assert_eq!(meter.plan, id("pro"));
    let change = |after: Account, meter: &Meter| AccountChange::new(account.clone(), after, meter).meter_plan;
    let upgraded = Account { plan: id("agency"), ..account.clone() };
    assert_eq!(change(upgraded, &meter), id("agency"), "the same period at another price");
    let ended = Account { plan: id("free"), subscription: None, ..account.clone() };
    assert_eq!(change(ended.clone(), &meter), id("pro"), "the end of a subscription made its usage free");
    let cut = Account { anchor: start().plus_ms(DAY_MS), ..ended.clone() };
    assert_eq!(change(cut, &meter), id("pro"));
    let later = Account { anchor: start().plus_ms(DAY_MS), plan: id("agency"), ..account.clone() };
    assert_eq!(change(later, &meter), id("pro"), "a subscription that begins later prices nothing before it");
    // A period that turns out to be nobody's to pay, and one that nobody ever paid.
    let opening = opening(&account, &meter, meter.period.end());
    let began_after = Account { anchor: meter.period.end(), ..ended.clone() };
    assert_eq!(change(began_after, &opening.meter), id("free"));
    let (free, unpaid) = first_seen(start());
    let given = Account { plan: id("pro"), ..free.clone() };
    let given = AccountChange::new(free, given, &unpaid);
    assert_eq!((given.meter_customer, given.meter_plan), (None, id("pro")));
}

#[test]
fn whoever_owes_is_refused_before_every_other_limit_and_only_from_the_instant_on() {
    let plan = plan("free", 100, 1, 1);
    let (account, mut meter) = first_seen(start());
    drop(ask(&account, &plan, &mut meter, 0, 100, start()).unwrap());
    let pay_by = start().plus_ms(5);
    let owes = Account { pay_by: Some(pay_by), ..account };
    let refusal = |now| decide((&owes, &meter), &plan, 1, exactly(100), now).unwrap_err();
    assert!(matches!(refusal(start().plus_ms(4)), Refusal::QuotaHeld { .. }));
    assert_eq!(refusal(pay_by), Refusal::PastDue { pay_by });
    assert!(!owes.is_overdue(start().plus_ms(4)) && owes.is_overdue(pay_by));
}

#[test]
fn f09_a_row_belongs_to_the_highest_fence_that_attempted_it() {
    use Attempt::{Again, Fenced, First};
    let (account, mut meter) = subscribed(start());
    let admission = ask(&account, &plan("pro", 1_000, 10, 8), &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    assert!(meter.apply_seal(&seal(&meter, start()).unwrap()));
    let mut attempt = |after_ms, fence| meter.apply_attempt(0, start().plus_ms(after_ms), fence);
    let attempts = [(0, 2), (1, 2), (2, 1), (3, 4), (4, 3), (5, 4)].map(|(ms, fence)| attempt(ms, fence));
    assert_eq!(attempts, [First, Again, Fenced, Again, Fenced, Again]);
    assert_eq!(meter.apply_attempt(1, start(), 9), Attempt::Gone);
    let row = meter.pending.unwrap();
    let last = Some(start().plus_ms(5));
    assert_eq!((row.first_attempt_at, row.last_attempt_at, row.fence), (Some(start()), last, 4));
}

#[test]
fn f09_a_minute_says_that_a_row_is_missing_or_delivered_or_nothing() {
    use Verdict::{Delivered, Missing, Unclear};
    let (account, mut meter) = subscribed(start());
    let admission = ask(&account, &plan("pro", 1_000, 10, 8), &mut meter, 1, 100, start()).unwrap();
    assert!(settle(&mut meter, &admission, 70, start()));
    let row = seal(&meter, start()).unwrap().row;
    let judged = |counted: u32, is_alone| reconcile_minute(&row, Tokens::from_u32(counted), is_alone);
    assert_eq!([0, 69, 70, 71].map(|counted| judged(counted, true)), [Missing, Unclear, Delivered, Unclear]);
    assert_eq!([0, 69, 70, 71].map(|counted| judged(counted, false)), [Missing, Unclear, Unclear, Unclear]);
}
