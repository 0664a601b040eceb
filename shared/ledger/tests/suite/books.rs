//! Beside requests and reports, what every store must do: listings, leases, the repair of rows, imports, and what lands late.

use super::support::{
    AnyStore, HOLD_MS, T0, customer, demand, new_id, on_each, plans, price, subscribe, t, used, user,
};
use domain::{
    Account, Billing, CustomerId, Denial, DenialCode, EventId, HoldId, Outcome, Receipt, Refusal, Report,
    ReportRow, RowFate, Timestamp, Tokens, UserId,
};
use ledger::{
    AdmitError, Attempt, CapError, Changed, Ledger, METERS_MAX, MeterKey, PAGE_MAX, ReceiptCursor,
    ReportCursor, Retried, SHARDS, Store,
};
use std::collections::BTreeSet;

const MINUTE_MS: u64 = 60_000;
/// Longer than any month.
const MONTH_MS: u64 = 31 * 24 * 60 * MINUTE_MS;

fn ledger(store: &AnyStore) -> Ledger<AnyStore> {
    Ledger::new(store.clone(), plans())
}

/// A customer of nobody else's.
fn some_customer() -> CustomerId {
    CustomerId::parse(&format!("cus_{}", new_id())).unwrap()
}

/// Has `tokens` used and settled at `now`.
async fn use_up(ledger: &Ledger<AnyStore>, user: &UserId, tokens: u32, now: Timestamp) {
    let hold = ledger.admit(user, &demand(tokens), &price(), HOLD_MS, &new_id, now).await.unwrap();
    drop(ledger.settle(hold, used(tokens), &price(), now).await.unwrap());
}

/// A subscriber whose meter has one row pending over `tokens`.
async fn sealed(store: &AnyStore, tokens: u32) -> (Ledger<AnyStore>, MeterKey, ReportRow) {
    let (ledger, user) = (ledger(store), user());
    subscribe(&ledger, &user, T0).await;
    use_up(&ledger, &user, tokens, T0).await;
    let key = MeterKey::of(&store.load(&user).await.unwrap().unwrap().meter);
    let (_, row) = ledger.seal(&key, T0).await.unwrap().unwrap();
    (ledger, key, row)
}

/// A subscriber whose only row ended like this.
async fn ended(store: &AnyStore, tokens: u32, fate: RowFate) -> (Ledger<AnyStore>, MeterKey, ReportRow) {
    let (ledger, key, row) = sealed(store, tokens).await;
    ledger.finish(&key, &row, fate, T0, Some("because")).await.unwrap();
    (ledger, key, row)
}

/// I2: what the report items and the pending row say is what the meter says.
async fn check_books(store: &AnyStore, key: &MeterKey) {
    use RowFate::{Accepted, Forgiven, Invoiced, Parked};
    let meter = store.meter(key).await.unwrap().unwrap();
    let page = store.reports(&key.user, Some(key.period_start), None).await.unwrap();
    let of = |fates: &[RowFate]| -> Tokens {
        let pending = |seq| meter.pending.as_ref().is_some_and(|row| row.seq == seq);
        let ended = page.reports.iter().filter(|item| !pending(item.seq) && fates.contains(&item.fate));
        ended.map(|item| item.tokens).sum()
    };
    let pending = meter.pending.as_ref().map_or(Tokens::ZERO, |row| row.tokens);
    assert_eq!(of(&[Accepted, Invoiced, Parked, Forgiven]).saturating_add(pending), meter.sealed);
    assert_eq!(of(&[Parked, Forgiven]), meter.parked);
    assert_eq!(of(&[Invoiced]), meter.invoiced);
    let receipts = store.receipts(&key.user, Some(key.period_start), None).await.unwrap().receipts;
    assert_eq!(receipts.iter().map(|receipt| receipt.charged).sum::<Tokens>(), meter.settled);
}

async fn fate(store: &AnyStore, key: &MeterKey, seq: u64) -> Report {
    store.report(key, seq).await.unwrap().unwrap()
}

#[test]
fn f09_a_row_is_attempted_under_the_highest_fence_and_under_no_lower_one() {
    on_each(async |store| {
        let (ledger, key, row) = sealed(&store, 70).await;
        assert_eq!(ledger.attempt(&key, &row, T0, 3).await.unwrap(), Attempt::First);
        assert_eq!(ledger.attempt(&key, &row, T0.plus_ms(1), 3).await.unwrap(), Attempt::Again);
        assert_eq!(ledger.attempt(&key, &row, T0.plus_ms(2), 5).await.unwrap(), Attempt::Again);
        for older in [0, 3, 4] {
            assert_eq!(ledger.attempt(&key, &row, T0.plus_ms(3), older).await.unwrap(), Attempt::Fenced);
        }
        let pending = store.meter(&key).await.unwrap().unwrap().pending.unwrap();
        assert_eq!(
            (pending.first_attempt_at, pending.last_attempt_at, pending.fence),
            (Some(T0), Some(T0.plus_ms(2)), 5),
            "the first attempt is the first, the last is that of the highest fence"
        );
        ledger.finish(&key, &row, RowFate::Accepted, T0, None).await.unwrap();
        assert_eq!(ledger.attempt(&key, &row, T0, 9).await.unwrap(), Attempt::Gone);
        let unknown = MeterKey { period_start: T0.plus_ms(MONTH_MS), ..key };
        assert_eq!(store.note_attempt(&unknown, 0, T0, 9).await.unwrap(), Attempt::Gone);
    });
}

#[test]
fn a_lease_is_had_by_one_until_its_time_is_out_and_every_next_fence_is_higher() {
    on_each(async |store| {
        let (ledger, customer) = (ledger(&store), some_customer());
        let until = T0.plus_ms(MINUTE_MS);
        let [a, b, c] = [new_id(), new_id(), new_id()];
        let first = ledger.take_lease(&customer, &a, T0, until).await.unwrap().unwrap();
        assert_eq!((&first.customer, &first.owner, first.until), (&customer, &a, until));
        let again = ledger.take_lease(&customer, &a, T0, until).await.unwrap();
        assert_eq!(again, Some(first.clone()), "asked for again under the same id: its answer was lost");
        let early = Timestamp::from_ms(until.ms() - 1);
        assert_eq!(ledger.take_lease(&customer, &b, early, until.plus_ms(1)).await.unwrap(), None);
        let later = until.plus_ms(MINUTE_MS);
        let second = ledger.take_lease(&customer, &b, until, later).await.unwrap().unwrap();
        assert_eq!((second.fence, second.until), (first.fence + 1, later));
        assert_eq!(ledger.drop_lease(&first).await.unwrap(), Changed::No, "somebody took it since");
        assert_eq!(ledger.take_lease(&customer, &c, until, later).await.unwrap(), None);
        assert_eq!(ledger.drop_lease(&second).await.unwrap(), Changed::Yes);
        assert_eq!(ledger.drop_lease(&second).await.unwrap(), Changed::No);
        let third = ledger.take_lease(&customer, &c, until, later).await.unwrap().unwrap();
        assert_eq!(third.fence, second.fence + 1, "given back, and still counted");
        let other = ledger.take_lease(&some_customer(), &a, T0, until).await.unwrap();
        assert!(other.is_some(), "another customer's");
    });
}

#[test]
fn a_lease_that_is_taken_late_keeps_nobody_out_for_longer_than_it_was_meant_to() {
    on_each(async |store| {
        let customer = some_customer();
        let until = T0.plus_ms(MINUTE_MS);
        let [late, other, next] = [new_id(), new_id(), new_id()];
        // Somebody else took it meanwhile: the late write is refused, for its `now` is long past.
        let held =
            store.take_lease(&customer, &other, T0.plus_ms(1), until.plus_ms(1)).await.unwrap().unwrap();
        assert_eq!(store.take_lease(&customer, &late, T0, until).await.unwrap(), None);
        // Everybody has gone: it lands, and is out of time at once.
        assert_eq!(store.drop_lease(&held).await.unwrap(), Changed::Yes);
        let landed = store.take_lease(&customer, &late, T0, until).await.unwrap().unwrap();
        let now = until.plus_ms(5 * MINUTE_MS);
        let taken = store.take_lease(&customer, &next, now, now.plus_ms(1)).await.unwrap().unwrap();
        assert!(held.fence < landed.fence && landed.fence < taken.fence);
    });
}

#[test]
fn i2_f09_a_parked_row_is_retried_once_however_often_and_late_that_is_written() {
    on_each(async |store| {
        let (ledger, key, row) = ended(&store, 70, RowFate::Parked).await;
        let item = fate(&store, &key, row.seq).await;
        assert_eq!((item.fate, item.note.as_deref()), (RowFate::Parked, Some("because")));
        let meter = store.meter(&key).await.unwrap().unwrap();
        let late = domain::retry(&meter, &item, T0).unwrap();
        let Retried::Yes(again) = ledger.retry_parked(&key, row.seq, T0).await.unwrap() else { panic!() };
        assert_eq!((again.tokens, again.seq, &again.customer), (row.tokens, row.seq + 1, &row.customer));
        assert_ne!(again.identifier, row.identifier, "Stripe refused that one");
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.sealed, meter.parked, meter.dirty), (t(70), t(0), true));
        assert_eq!(meter.on_stripes_meter(), t(70), "with the row that is on its way");
        check_books(&store, &key).await;

        // The same write, minutes later: while the row is pending, once it was accepted, once it was parked again.
        assert_eq!(store.retry(&key, row.seq, &late, T0).await.unwrap(), Changed::No);
        assert_eq!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::NotParked);
        ledger.finish(&key, &again, RowFate::Parked, T0, None).await.unwrap();
        assert_eq!(store.retry(&key, row.seq, &late, T0).await.unwrap(), Changed::No);
        assert_eq!(store.meter(&key).await.unwrap().unwrap().parked, t(70));
        check_books(&store, &key).await;
        assert_eq!(ledger.retry_parked(&key, 7, T0).await.unwrap(), Retried::NotParked);
    });
}

#[test]
fn i2_a_retry_waits_for_the_row_that_is_on_its_way_and_lands_on_no_other_meter_than_it_saw() {
    on_each(async |store| {
        let (ledger, key, row) = ended(&store, 70, RowFate::Parked).await;
        let (item, meter) = (fate(&store, &key, row.seq).await, store.meter(&key).await.unwrap().unwrap());
        let late = domain::retry(&meter, &item, T0).unwrap();
        use_up(&ledger, &key.user, 30, T0).await;
        let (_, next) = ledger.seal(&key, T0).await.unwrap().unwrap();
        assert_eq!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::RowPending);
        assert_eq!(store.retry(&key, row.seq, &late, T0).await.unwrap(), Changed::No, "a row is pending");
        ledger.finish(&key, &next, RowFate::Accepted, T0, None).await.unwrap();
        assert_eq!(store.retry(&key, row.seq, &late, T0).await.unwrap(), Changed::No, "its number is taken");
        let more = ReportRow { tokens: t(71), seq: 2, ..late };
        assert_eq!(store.retry(&key, row.seq, &more, T0).await.unwrap(), Changed::No, "another amount");
        check_books(&store, &key).await;
        assert!(matches!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::Yes(_)));
        check_books(&store, &key).await;
    });
}

#[test]
fn i2_who_forgives_and_who_retries_exclude_each_other() {
    on_each(async |store| {
        let (ledger, key, row) = ended(&store, 70, RowFate::Parked).await;
        let (item, meter) = (fate(&store, &key, row.seq).await, store.meter(&key).await.unwrap().unwrap());
        let late = domain::retry(&meter, &item, T0).unwrap();
        let at = T0.plus_ms(9);
        assert_eq!(
            ledger.forgive_parked(&key, row.seq, at, &"long ".repeat(99)).await.unwrap(),
            Changed::Yes
        );
        assert_eq!(ledger.forgive_parked(&key, row.seq, at, "twice").await.unwrap(), Changed::No);
        let item = fate(&store, &key, row.seq).await;
        assert_eq!((item.fate, item.at), (RowFate::Forgiven, at));
        assert_eq!(item.note.map(|note| note.chars().count()), Some(300));
        assert_eq!(store.retry(&key, row.seq, &late, T0).await.unwrap(), Changed::No, "it is forgiven");
        assert_eq!(
            store.meter(&key).await.unwrap().unwrap().parked,
            t(70),
            "Stripe has it as little as before"
        );
        check_books(&store, &key).await;

        let (ledger, key, row) = ended(&store, 70, RowFate::Parked).await;
        assert!(matches!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::Yes(_)));
        assert_eq!(store.forgive(&key, row.seq, T0, "late").await.unwrap(), Changed::No, "it is retried");
        let (ledger, key, row) = ended(&store, 70, RowFate::Accepted).await;
        assert_eq!(
            ledger.forgive_parked(&key, row.seq, T0, "").await.unwrap(),
            Changed::No,
            "it was accepted"
        );
        assert_eq!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::NotParked);
    });
}

#[test]
fn i2_a_row_that_was_forgiven_before_its_meter_dropped_it_is_counted_as_parked() {
    on_each(async |store| {
        let (ledger, key, row) = sealed(&store, 70).await;
        store.put_report(&key, &row, RowFate::Parked, T0, None).await.unwrap();
        assert_eq!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::RowPending);
        assert_eq!(ledger.forgive_parked(&key, row.seq, T0, "").await.unwrap(), Changed::Yes);
        ledger.finish(&key, &row, RowFate::Parked, T0, None).await.unwrap();
        assert_eq!(store.meter(&key).await.unwrap().unwrap().parked, t(70));
        check_books(&store, &key).await;
    });
}

#[test]
fn i2_a_row_that_stripe_rejects_afterwards_is_parked_once_however_late_that_is_written() {
    on_each(async |store| {
        let (ledger, key, row) = sealed(&store, 70).await;
        store.put_report(&key, &row, RowFate::Accepted, T0, None).await.unwrap();
        let early = ledger.reject(&key, row.seq, row.tokens, T0, "no customer").await.unwrap();
        assert_eq!(early, Changed::No, "whoever drops the row would count it again");
        ledger.finish(&key, &row, RowFate::Accepted, T0, None).await.unwrap();
        assert_eq!(ledger.reject(&key, row.seq, t(69), T0, "").await.unwrap(), Changed::No, "another amount");
        let reject = async || ledger.reject(&key, row.seq, row.tokens, T0, "no customer").await.unwrap();
        assert_eq!(reject().await, Changed::Yes);
        let item = fate(&store, &key, row.seq).await;
        assert_eq!((item.fate, item.note.as_deref()), (RowFate::Parked, Some("no customer")));
        assert_eq!(reject().await, Changed::No, "the same write again");
        check_books(&store, &key).await;
        let Retried::Yes(again) = ledger.retry_parked(&key, row.seq, T0).await.unwrap() else { panic!() };
        assert_eq!(reject().await, Changed::No, "long after it was sent again");
        ledger.finish(&key, &again, RowFate::Accepted, T0, None).await.unwrap();
        assert_eq!(reject().await, Changed::No);
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.parked, meter.on_stripes_meter()), (t(0), t(70)));
        check_books(&store, &key).await;
    });
}

#[test]
fn f11_what_came_too_late_for_its_invoice_is_invoiced_and_not_expected_on_stripes_meter() {
    on_each(async |store| {
        let (ledger, key, row) = ended(&store, 70, RowFate::Invoiced).await;
        ledger.finish(&key, &row, RowFate::Accepted, T0, None).await.unwrap();
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.sealed, meter.invoiced, meter.on_stripes_meter()), (t(70), t(70), t(0)));
        assert_eq!(ledger.retry_parked(&key, row.seq, T0).await.unwrap(), Retried::NotParked);
        assert_eq!(ledger.reject(&key, row.seq, t(70), T0, "").await.unwrap(), Changed::No);
        check_books(&store, &key).await;
    });
}

#[test]
fn i2_usage_from_elsewhere_is_imported_once_however_late_that_is_written() {
    on_each(async |store| {
        let (ledger, key, row) = ended(&store, 70, RowFate::Accepted).await;
        let id = HoldId::parse("import-1").unwrap();
        let receipt = Receipt::imported(key.user.clone(), key.period_start, id.clone(), t(400), T0);
        let row = ReportRow { seq: row.seq + 1, tokens: t(400), identifier: "import-1".to_owned(), ..row };
        let whose = (key.user.clone(), key.period_start);
        let report = Report::of(whose, &row, RowFate::Accepted, T0, Some("adopted"));
        let less = Report { tokens: t(399), ..report.clone() };
        assert_eq!(
            ledger.import(&key, &receipt, &less, Billing::Metered).await.unwrap(),
            Changed::No,
            "not the same usage"
        );
        let behind = Report { seq: 0, ..report.clone() };
        assert_eq!(
            ledger.import(&key, &receipt, &behind, Billing::Metered).await.unwrap(),
            Changed::No,
            "a number that is taken"
        );
        assert_eq!(ledger.import(&key, &receipt, &report, Billing::Metered).await.unwrap(), Changed::Yes);
        assert_eq!(
            ledger.import(&key, &receipt, &report, Billing::Metered).await.unwrap(),
            Changed::No,
            "the same write again"
        );
        // Decided again from a new reading, under the same receipt's name.
        let next = Report { seq: 2, ..report.clone() };
        assert_eq!(
            ledger.import(&key, &receipt, &next, Billing::Metered).await.unwrap(),
            Changed::No,
            "it was imported"
        );
        let meter = store.meter(&key).await.unwrap().unwrap();
        let moved = (meter.settled, meter.committed, meter.sealed, meter.seq);
        assert_eq!(moved, (t(470), t(470), t(470), 2));
        let kept = store.receipt(&key, &id).await.unwrap().unwrap();
        assert_eq!((&kept.outcome, kept.charged), (&Outcome::Imported, t(400)));
        assert_eq!(kept, receipt);
        assert_eq!(fate(&store, &key, 1).await, report);
        check_books(&store, &key).await;
        use_up(&ledger, &key.user, 30, T0).await;
        let (_, row) = ledger.seal(&key, T0).await.unwrap().unwrap();
        assert_eq!((row.tokens, row.seq), (t(30), 2), "what was imported is reported already");
    });
}

#[test]
fn what_a_period_uses_that_stripes_meter_does_not_bill_is_one_row_at_its_end() {
    for billing in [Billing::Item, Billing::Flat] {
        on_each(async |store| {
            let (ledger, key, row) = ended(&store, 70, RowFate::Accepted).await;
            let id = HoldId::parse("import-1").unwrap();
            let receipt = Receipt::imported(key.user.clone(), key.period_start, id, t(400), T0);
            let row = ReportRow { seq: row.seq + 1, tokens: t(400), ..row };
            let report = Report::of((key.user.clone(), key.period_start), &row, RowFate::Invoiced, T0, None);
            assert_eq!(ledger.import(&key, &receipt, &report, billing).await.unwrap(), Changed::Yes);
            let meter = store.meter(&key).await.unwrap().unwrap();
            assert_eq!((meter.billing, meter.invoiced, meter.on_stripes_meter()), (billing, t(400), t(70)));
            for tokens in [30, 40] {
                use_up(&ledger, &key.user, tokens, T0).await;
                assert_eq!(ledger.seal(&key, T0).await.unwrap(), None, "the period goes on");
                assert!(!ledger.clear(&key).await.unwrap(), "and is looked at again");
            }
            let (_, row) = ledger.seal(&key, meter.period.end()).await.unwrap().unwrap();
            assert_eq!(row.tokens, t(70));
            let next = ledger.roll(&key.user, meter.period.end()).await.unwrap().unwrap().meter;
            assert_eq!(next.billing, Billing::Metered, "as anybody's");
            check_books(&store, &key).await;
        });
    }
}

#[test]
fn i2_an_import_that_lands_after_a_seal_changes_nothing() {
    on_each(async |store| {
        let (ledger, key, row) = ended(&store, 70, RowFate::Accepted).await;
        let id = HoldId::parse("import-1").unwrap();
        let receipt = Receipt::imported(key.user.clone(), key.period_start, id.clone(), t(400), T0);
        let row = ReportRow { seq: 1, tokens: t(400), ..row };
        let whose = (key.user.clone(), key.period_start);
        let report = Report::of(whose, &row, RowFate::Invoiced, T0, None);
        use_up(&ledger, &key.user, 30, T0).await;
        let (_, sealed) = ledger.seal(&key, T0).await.unwrap().unwrap();
        assert_eq!(store.import(&key, &receipt, &report, Billing::Metered).await.unwrap(), Changed::No);
        assert_eq!(store.receipt(&key, &id).await.unwrap(), None, "half of it");
        let anew = Report { seq: 2, ..report };
        assert_eq!(
            store.import(&key, &receipt, &anew, Billing::Metered).await.unwrap(),
            Changed::Yes,
            "beside a pending row"
        );
        ledger.finish(&key, &sealed, RowFate::Accepted, T0, None).await.unwrap();
        let meter = store.meter(&key).await.unwrap().unwrap();
        assert_eq!((meter.invoiced, meter.on_stripes_meter()), (t(400), t(100)));
        check_books(&store, &key).await;
    });
}

#[test]
fn receipts_are_listed_to_their_end_newest_first_and_by_period() {
    on_each(async |store| {
        let user = user();
        let periods = [T0, T0.plus_ms(MONTH_MS), T0.plus_ms(2 * MONTH_MS)];
        let mut expected = Vec::new();
        for (period_start, count) in periods.into_iter().zip([3, u32::from(PAGE_MAX), 5]) {
            for n in 0..count {
                let id = HoldId::parse(&format!("h{n:04}")).unwrap();
                let receipt = Receipt::void(user.clone(), period_start, id, T0);
                expected.insert(0, store.put_receipt(&receipt).await.unwrap());
            }
        }
        let (mut listed, mut before) = (Vec::new(), None);
        loop {
            let page = store.receipts(&user, None, before.as_ref()).await.unwrap();
            assert!(page.receipts.len() <= usize::from(PAGE_MAX));
            listed.extend(page.receipts);
            let Some(next) = page.next else { break };
            before = Some(ReceiptCursor::parse(&next.to_text()).unwrap());
        }
        assert_eq!(listed, expected);
        let of = |period_start| store.receipts(&user, Some(period_start), None);
        let middle = of(periods[1]).await.unwrap();
        assert_eq!((middle.receipts, middle.next), (expected[5..105].to_vec(), None), "exactly a page");
        assert_eq!(of(T0.plus_ms(9 * MONTH_MS)).await.unwrap().receipts, []);
        // A cursor of another period: what is newer has been seen, what is older is all there.
        let [newer, older] = [&expected[2], &expected[106]].map(ReceiptCursor::after);
        let page = store.receipts(&user, Some(periods[1]), Some(&newer)).await.unwrap();
        assert_eq!(page.receipts, expected[5..105]);
        let page = store.receipts(&user, Some(periods[1]), Some(&older)).await.unwrap();
        assert_eq!(page.receipts, []);
        let within = ReceiptCursor::after(&expected[50]);
        let page = store.receipts(&user, Some(periods[1]), Some(&within)).await.unwrap();
        assert_eq!(page.receipts, expected[51..105]);
    });
}

#[test]
fn report_items_are_listed_to_their_end_newest_first_and_by_period() {
    on_each(async |store| {
        let user = user();
        let periods = [T0, T0.plus_ms(MONTH_MS)];
        let mut expected = Vec::new();
        for (period_start, count) in periods.into_iter().zip([2, u64::from(PAGE_MAX) + 1]) {
            let key = MeterKey { user: user.clone(), period_start };
            for seq in 0..count {
                let row = ReportRow {
                    seq,
                    customer: customer().0,
                    identifier: format!("{user}-{seq}"),
                    tokens: t(1),
                    timestamp: period_start,
                    first_attempt_at: None,
                    last_attempt_at: None,
                    fence: 0,
                };
                let put = store.put_report(&key, &row, RowFate::Parked, T0, Some("no")).await.unwrap();
                assert_eq!(put, RowFate::Parked);
                expected.insert(0, fate(&store, &key, seq).await);
            }
        }
        let first = store.reports(&user, None, None).await.unwrap();
        assert_eq!(first.reports, expected[..100]);
        let next = ReportCursor::parse(&first.next.unwrap().to_text()).unwrap();
        let second = store.reports(&user, None, Some(&next)).await.unwrap();
        assert_eq!((second.reports, second.next), (expected[100..].to_vec(), None));
        let older = store.reports(&user, Some(periods[0]), Some(&next)).await.unwrap();
        assert_eq!(older.reports, expected[101..]);
        let newer = ReportCursor::after(&expected[102]);
        assert_eq!(store.reports(&user, Some(periods[1]), Some(&newer)).await.unwrap().reports, []);
    });
}

#[test]
fn meters_are_listed_newest_first_from_an_instant_on_and_bounded() {
    on_each(async |store| {
        let (ledger, user) = (ledger(&store), user());
        let mut starts = Vec::new();
        for month in 0..=u64::from(METERS_MAX) {
            let loaded = ledger.standing(&user, T0).await.unwrap();
            let now = T0.plus_ms(month * MONTH_MS);
            let rolled = ledger.roll(&user, now).await.unwrap().unwrap();
            assert!(rolled.meter.period.contains(now) && rolled.account.rev == loaded.account.rev);
            starts.insert(0, rolled.meter.period.start());
        }
        let listed = async |from: Timestamp| -> Vec<Timestamp> {
            let meters = store.meters(&user, from).await.unwrap();
            meters.iter().map(|meter| meter.period.start()).collect()
        };
        assert_eq!(listed(T0).await, starts[..usize::from(METERS_MAX)]);
        assert_eq!(listed(starts[2]).await, starts[..3]);
        assert_eq!(listed(starts[2].plus_ms(1)).await, starts[..2]);
        assert_eq!(listed(Timestamp::MAX).await, []);
        assert_eq!(store.meters(&super::support::user(), T0).await.unwrap(), []);
    });
}

#[test]
fn i7_a_period_that_has_ended_is_closed_to_admissions_when_it_is_rolled() {
    on_each(async |store| {
        let (ledger, user) = (ledger(&store), user());
        assert_eq!(ledger.roll(&user, T0).await.unwrap(), None, "nobody knows this user");
        assert_eq!(store.load(&user).await.unwrap(), None, "and it creates nobody");
        let open = ledger.admit(&user, &demand(100), &price(), HOLD_MS, &new_id, T0).await.unwrap();
        let key = MeterKey { user: user.clone(), period_start: open.period().start() };
        let current = ledger.roll(&user, T0.plus_ms(1)).await.unwrap().unwrap();
        assert_eq!(current.meter.period.start(), key.period_start, "it goes on");
        let after = T0.plus_ms(MONTH_MS);
        let rolled = ledger.roll(&user, after).await.unwrap().unwrap();
        assert_eq!(Some(&rolled), store.load(&user).await.unwrap().as_ref());
        assert!(store.meter(&key).await.unwrap().unwrap().closed);
        assert_eq!(ledger.roll(&user, after).await.unwrap(), Some(rolled.clone()), "rolled once");
        // A remembering instance whose clock lags goes to the new period, and what was open ends in the old one.
        let lagging =
            ledger.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, T0.plus_ms(2)).await.unwrap();
        assert_eq!(lagging.period(), rolled.meter.period);
        drop(ledger.settle(open, used(40), &price(), after).await.unwrap());
        assert_eq!(store.meter(&key).await.unwrap().unwrap().settled, t(40));
    });
}

/// The shard as the ledger reckons it: FNV-1a, 32 bit.
fn shard_of(user: &str) -> u8 {
    let hash =
        user.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u8::try_from(hash % u32::from(SHARDS)).unwrap()
}

#[test]
fn every_account_is_listed_page_by_page_and_no_listing_sees_the_others_items() {
    on_each(async |store| {
        let ledger = ledger(&store);
        let run = new_id();
        let of_shard_3 = (0..).map(|n| format!("{run}-{n}")).filter(|user| shard_of(user) == 3);
        let expected: BTreeSet<UserId> =
            of_shard_3.take(usize::from(PAGE_MAX) + 3).map(|user| UserId::parse(&user).unwrap()).collect();
        for user in &expected {
            ledger.standing(user, T0).await.unwrap();
        }
        // Whatever changes an account or its period leaves it in the list.
        let some = expected.first().unwrap();
        ledger.roll(some, T0.plus_ms(MONTH_MS)).await.unwrap();
        subscribe(&ledger, expected.last().unwrap(), T0).await;
        let (mut listed, mut from) = (BTreeSet::new(), None);
        loop {
            let page = ledger.users(3, from.as_ref()).await.unwrap();
            assert!(page.users.len() <= usize::from(PAGE_MAX));
            for user in page.users {
                assert_eq!(shard_of(user.as_str()), 3);
                assert!(listed.insert(user), "listed twice");
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert!(listed.is_superset(&expected));
        let mut from = None;
        loop {
            let page = ledger.dirty(3, from).await.unwrap();
            let clean =
                |key: &&MeterKey| expected.contains(&key.user) && key.user != *expected.last().unwrap();
            assert_eq!(page.keys.iter().find(clean), None, "an account is no dirty meter");
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    });
}

#[test]
fn of_each_kind_of_denial_the_latest_is_kept() {
    on_each(async |store| {
        let (ledger, user) = (ledger(&store), user());
        let denial = |code, at_ms, asked| Denial {
            user: user.clone(),
            period_start: T0,
            code,
            at: T0.plus_ms(at_ms),
            asked: t(asked),
            left: None,
            until: Some(T0),
        };
        let [first, late, second] = [5, 4, 6].map(|at_ms| denial(DenialCode::Rate, at_ms, 9));
        let other = denial(DenialCode::PastDue, 1, 9);
        ledger.deny(&first).await;
        assert_eq!(store.put_denial(&late).await.unwrap(), Changed::No);
        ledger.deny(&other).await;
        assert_eq!(ledger.denials(&user, T0).await.unwrap(), [first, other.clone()]);
        ledger.deny(&second).await;
        assert_eq!(ledger.denials(&user, T0).await.unwrap(), [second, other]);
        assert_eq!(ledger.denials(&user, T0.plus_ms(MONTH_MS)).await.unwrap(), []);
    });
}

#[test]
fn f16_an_event_is_noted_once() {
    on_each(async |store| {
        let ledger = ledger(&store);
        let id = EventId::parse(&format!("evt_{}", new_id())).unwrap();
        assert!(!ledger.event(&id).await.unwrap());
        let note = async || ledger.put_event(&id, "invoice.paid", T0, T0.plus_ms(MONTH_MS)).await.unwrap();
        assert_eq!((note().await, note().await), (Changed::Yes, Changed::No));
        assert!(ledger.event(&id).await.unwrap());
    });
}

#[test]
fn whoever_owes_is_refused_from_the_instant_on_even_by_who_remembers_otherwise() {
    on_each(async |store| {
        let (warm, user) = (ledger(&store), user());
        subscribe(&warm, &user, T0).await;
        use_up(&warm, &user, 10, T0).await;
        let pay_by = T0.plus_ms(MINUTE_MS);
        let owes = |account: &Account| Some(Account { pay_by: Some(pay_by), ..account.clone() });
        let changed = ledger(&store).change_account(&user, T0, owes).await.unwrap();
        assert_eq!(store.load(&user).await.unwrap().unwrap().account, changed);
        let ask = async |now| warm.admit(&user, &demand(10), &price(), HOLD_MS, &new_id, now).await;
        let before = Timestamp::from_ms(pay_by.ms() - 1);
        drop(ask(before).await.unwrap());
        for now in [pay_by, pay_by.plus_ms(MONTH_MS)] {
            let Err(AdmitError::Refused { refusal, .. }) = ask(now).await else { panic!("admitted") };
            assert_eq!(refusal, Refusal::PastDue { pay_by });
        }
        let paid = |account: &Account| Some(Account { pay_by: None, ..account.clone() });
        ledger(&store).change_account(&user, T0, paid).await.unwrap();
        drop(ask(pay_by).await.unwrap());
    });
}

#[test]
fn a_spend_cap_is_set_and_taken_away_and_fences_whatever_was_decided_before() {
    on_each(async |store| {
        let (ledger, user) = (ledger(&store), user());
        let set = ledger.set_spend_cap(&user, Some(t(300)), false, T0).await.unwrap();
        assert_eq!((set.account.spend_cap, set.account.rev), (Some(t(300)), 1), "created with it");
        let same = ledger.set_spend_cap(&user, Some(t(300)), false, T0).await.unwrap();
        assert_eq!(same.account.rev, 2, "an earlier wish may yet land");
        assert_eq!(store.load(&user).await.unwrap(), Some(same));
        let none = ledger.set_spend_cap(&user, None, false, T0).await.unwrap();
        assert_eq!(none.account.spend_cap, None);
        assert_eq!(store.load(&user).await.unwrap(), Some(none));
    });
}

#[test]
fn a_spend_cap_is_held_against_the_period_that_counts_now_and_no_other() {
    on_each(async |store| {
        let (ledger, user) = (ledger(&store), user());
        use_up(&ledger, &user, 200, T0).await;
        let Err(CapError::BelowUsed { cap, settled, held }) =
            ledger.set_spend_cap(&user, Some(t(199)), false, T0).await
        else {
            panic!("set, though unconfirmed")
        };
        assert_eq!((cap, settled, held), (t(199), t(200), t(0)));
        assert_eq!(store.load(&user).await.unwrap().unwrap().account.spend_cap, None);
        let equal = ledger.set_spend_cap(&user, Some(t(200)), false, T0).await.unwrap();
        assert_eq!(equal.account.spend_cap, Some(t(200)));
        // What was used last month is nothing of this one's.
        let later = ledger.set_spend_cap(&user, Some(t(10)), false, T0.plus_ms(MONTH_MS)).await.unwrap();
        assert_eq!(later.account.spend_cap, Some(t(10)));
    });
}
