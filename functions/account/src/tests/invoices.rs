//! The next invoice: of a month with two plans, and with what came late.

use super::{NOW, api, ask, fake::Fake, user};
use domain::{CustomerId, Meter, Period, PlanId, ReportRow, RowFate, SubscriptionId, Timestamp, Tokens};
use http::Method;
use ledger::{MemoryStore, MeterKey, Store};
use serde_json::{Value, json};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn t(tokens: u32) -> Tokens {
    Tokens::from_u32(tokens)
}

/// A subscriber since a month before, whose current month is that of [`NOW`].
async fn subscriber(store: &MemoryStore) -> (Meter, MeterKey) {
    let api = api(store.clone(), Fake::new(0).stripe());
    api.ledger.standing(&user(), NOW).await.unwrap();
    let mut kept = store.kept();
    let account = kept.accounts.get_mut(&user()).unwrap();
    account.customer = CustomerId::parse("cus_1").ok();
    account.subscription = SubscriptionId::parse("sub_1").ok();
    account.plan = PlanId::parse("pro").unwrap();
    let (key, meter) = kept.meters.iter_mut().next().unwrap();
    meter.customer = CustomerId::parse("cus_1").ok();
    meter.plan = PlanId::parse("pro").unwrap();
    (meter.clone(), key.clone())
}

async fn invoice(store: &MemoryStore, now: Timestamp) -> Value {
    let api = api(store.clone(), Fake::new(0).stripe());
    let (status, body) = ask(&api, Method::GET, "/v1/usage", &Value::Null, now).await;
    assert_eq!(status, 200, "{body}");
    body["invoice"].clone()
}

#[tokio::test]
async fn f22_a_month_with_two_plans_has_both_ones_overage_and_what_the_change_bills() {
    let store = MemoryStore::new();
    let (meter, key) = subscriber(&store).await;
    let end = meter.period.end();
    let changed = NOW.plus_ms(10 * DAY_MS);
    {
        let mut kept = store.kept();
        let account = kept.accounts.get_mut(&user()).unwrap();
        account.plan = PlanId::parse("agency").unwrap();
        account.plan_since = Some(changed);
        let meter = kept.meters.get_mut(&key).unwrap();
        meter.period = Period::new(NOW, changed).unwrap();
        // Half a cent of Pro, and what nobody bills.
        (meter.settled, meter.parked) = (t(502_600), t(100));
        meter.committed = meter.settled;
    }
    // 31 days, of which 21 are left: of 20 dollars 13.55, of 99 dollars 67.06.
    let change = json!({
        "estimateUsd": "152.52", "baseUsd": "99.00", "overageUsd": "0.01", "planChangeUsd": "53.51", "lateUsd": "0.00",
        "at": end.to_string(),
    });
    // Nothing was asked for under the new plan yet.
    assert_eq!(invoice(&store, changed.plus_ms(1)).await, change);
    store.kept().accounts.get_mut(&user()).unwrap().ends_at = Some(end);
    let ends = invoice(&store, changed.plus_ms(1)).await;
    assert_eq!((&ends["baseUsd"], &ends["estimateUsd"]), (&"0.00".into(), &"53.52".into()));
}

#[tokio::test]
async fn f11_what_came_too_late_for_its_invoice_is_on_the_next_one_and_on_no_other() {
    let store = MemoryStore::new();
    let (meter, key) = subscriber(&store).await;
    let start = Timestamp::from_ms(NOW.ms() - 31 * DAY_MS);
    let last = MeterKey { period_start: start, ..key };
    {
        let mut kept = store.kept();
        let sealed = t(510_000);
        let period = Period::new(start, NOW).unwrap();
        let invoiced = t(7_500);
        let old = Meter {
            period,
            settled: sealed,
            committed: sealed,
            sealed,
            invoiced,
            seq: 3,
            closed: true,
            ..meter
        };
        kept.meters.insert(last.clone(), old);
    }
    // 502,500 tokens were on its invoice: a cent. The first late row makes it 505,000 (a cent still), the second 510,000: two.
    for (seq, tokens, at_ms, fate) in [
        (0, 502_500, NOW.ms() - DAY_MS, RowFate::Accepted),
        (1, 2_500, NOW.ms() - 1, RowFate::Invoiced),
        (2, 5_000, NOW.ms() + 1, RowFate::Invoiced),
    ] {
        let row = ReportRow {
            seq,
            customer: CustomerId::parse("cus_1").unwrap(),
            identifier: format!("user_1-1-{seq}"),
            tokens: t(tokens),
            timestamp: start,
            first_attempt_at: None,
            last_attempt_at: None,
            fence: 0,
        };
        store.put_report(&last, &row, fate, Timestamp::from_ms(at_ms), Some("ii_1")).await.unwrap();
    }
    let next = invoice(&store, NOW.plus_ms(5)).await;
    assert_eq!((&next["lateUsd"], &next["estimateUsd"]), (&"0.01".into(), &"20.01".into()), "{next}");
    // Somebody else paid for it.
    store.kept().meters.get_mut(&last).unwrap().customer = CustomerId::parse("cus_2").ok();
    assert_eq!(invoice(&store, NOW.plus_ms(5)).await["lateUsd"], "0.00");
}
