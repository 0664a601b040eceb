//! The largest of everything: every request that the ledger can send, with the longest ids and the largest numbers, on a
//! meter with the most holds, the most rate windows and a pending row. `limits` holds each to DynamoDB's.

use super::{
    limits::{OUR_ITEM_BYTES_MAX, check, item_bytes},
    support::{HOLD_MS, T0, TABLE, demand, new_id, plans, price, stores, used, user, world},
    wire::{Call, Wire, on_a_wire},
};
use domain::{
    Account, AccountChange, Admission, Billing, Classes, CustomerId, Denial, DenialCode, EventId, Facts,
    HOLDS_MAX, Hold, HoldId, HoldSize, Meter, ModelId, NOTE_CHARS_MAX, NanoUsd, Opening, Outcome, Period,
    PlanId, Predecessor, RateCounts, Receipt, Report, ReportRow, RowFate, Seal, SubscriptionId, Timestamp,
    Tokens, Totals, Usage, UserId, Window,
};
use ledger::{AdmitAnswer, Attempt, Changed, DynamoStore, Ledger, MeterKey, SHARDS, Store};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Rate windows of one meter. Usually there are two. Each function instance that remembers a user and then writes for
/// that user in a window after a pause leaves one more behind, until somebody who knows of it writes: so there may be
/// as many as instances remember one user.
const WINDOWS: u64 = 1_000;
/// Rate windows that one admission removes at most, as `protocol` has it.
const FORGOTTEN_BY_ADMIT_MAX: usize = 16;
/// Characters of an identifier at Stripe.
const IDENTIFIER_LENGTH_MAX: usize = 100;

fn longest<T, E: std::fmt::Debug>(letter: &str, length: usize, parse: impl Fn(&str) -> Result<T, E>) -> T {
    parse(&letter.repeat(length)).unwrap()
}

fn the_user() -> UserId {
    longest("u", UserId::LENGTH_MAX, UserId::parse)
}

fn start() -> Timestamp {
    Timestamp::from_s(Timestamp::MAX.s() - 10)
}

/// Windows with the longest names, the newest last.
fn rate() -> RateCounts {
    let first = u64::MAX - WINDOWS;
    // Room for one more each.
    let count = u32::MAX - u32::from(HOLDS_MAX);
    let counts = (first..u64::MAX).map(|index| (Window::from_index(index), count)).collect();
    RateCounts { newest: Window::from_index(u64::MAX - 1), counts }
}

fn account() -> Account {
    Account {
        user: the_user(),
        rev: u64::MAX - 1,
        plan: longest("p", PlanId::LENGTH_MAX, PlanId::parse),
        customer: Some(longest("c", CustomerId::LENGTH_MAX, CustomerId::parse)),
        subscription: Some(longest("s", SubscriptionId::LENGTH_MAX, SubscriptionId::parse)),
        anchor: start(),
        plan_since: Some(start()),
        ends_at: Some(Timestamp::MAX),
        current: start(),
        spend_cap: Some(Tokens::MAX),
        pay_by: Some(Timestamp::MAX),
    }
}

fn meter() -> Meter {
    let account = account();
    Meter {
        mixed: true,
        billing: Billing::Item,
        user: account.user,
        period: Period::new(start(), Timestamp::MAX).unwrap(),
        rev: account.rev,
        customer: account.customer,
        plan: account.plan,
        settled: Tokens::ZERO,
        committed: Tokens::ZERO,
        sealed: Tokens::ZERO,
        parked: Tokens::ZERO,
        invoiced: Tokens::ZERO,
        rate: rate(),
        holds: BTreeMap::new(),
        closed: false,
        pending: None,
        seq: 0,
        dirty: false,
        totals: Totals::default(),
    }
}

fn hold() -> Hold {
    let tokens = Tokens::new(Tokens::MAX.get() / u64::from(HOLDS_MAX)).unwrap();
    let window = Window::from_index(u64::MAX - 1);
    Hold { tokens, cost_most: NanoUsd::MAX, window, expires_at: Timestamp::MAX }
}

fn hold_id(n: u16) -> HoldId {
    HoldId::parse(&format!("{n:0>width$}", width = HoldId::LENGTH_MAX)).unwrap()
}

/// One hold more; it removes as many old windows as an admission ever does.
fn admission(n: u16, forget: impl Iterator<Item = u64>) -> Admission {
    let size = HoldSize { prompt: hold().tokens, output: Tokens::ZERO };
    let window = Window::from_index(u64::MAX - 1);
    let facts = Facts {
        rev: u64::MAX - 1,
        previous: Some(u32::MAX - u32::from(HOLDS_MAX)),
        current_most: u32::MAX,
        committed_most: Tokens::MAX,
        holds_most: HOLDS_MAX - 1,
    };
    Admission {
        user: the_user(),
        period_start: start(),
        id: hold_id(n),
        hold: Hold { window, ..hold() },
        size,
        window,
        forget: forget.map(Window::from_index).collect(),
        facts,
    }
}

fn row() -> ReportRow {
    ReportRow {
        seq: 0,
        customer: longest("c", CustomerId::LENGTH_MAX, CustomerId::parse),
        identifier: "i".repeat(IDENTIFIER_LENGTH_MAX),
        tokens: Tokens::MAX,
        timestamp: start(),
        first_attempt_at: None,
        last_attempt_at: None,
        fence: 0,
    }
}

/// The longest note, of characters with as many bytes as one can have.
fn note() -> String {
    "\u{10ffff}".repeat(NOTE_CHARS_MAX)
}

fn settled(n: u16) -> Receipt {
    let tokens = Tokens::new(hold().tokens.get() / 5).unwrap();
    let classes = Classes {
        input: tokens,
        cached_input: tokens,
        cache_write: tokens,
        output: tokens,
        reasoning: tokens,
    };
    Receipt {
        user: the_user(),
        period_start: start(),
        id: hold_id(n),
        at: Timestamp::MAX,
        outcome: Outcome::Settled {
            usage: Usage::Exact(classes),
            model: longest("m", ModelId::LENGTH_MAX, ModelId::parse),
            price_version: u32::MAX,
        },
        charged: tokens,
        absorbed: tokens,
        cost: NanoUsd::ZERO,
        failed_calls: u32::MAX,
    }
}

/// The meter's item as it is stored.
fn stored(wire: &Wire) -> Value {
    let key =
        json!({ "pk": {"S": format!("U#{}", the_user())}, "sk": {"S": format!("M#{:012}", start().s())} });
    let get = json!({ "TableName": TABLE, "Key": key });
    let found = wire.dynamo().database().get_item(serde_json::from_value(get).unwrap()).unwrap();
    serde_json::to_value(found.item.unwrap()).unwrap()
}

/// Every port method once, on the fullest meter; `fullest` is called when it is that.
async fn everything<S: Store>(store: &S, fullest: impl FnOnce()) {
    let key = MeterKey { user: the_user(), period_start: start() };
    let opening = Opening { account: account(), meter: meter(), predecessor: None };
    assert_eq!(store.open(&opening).await.unwrap(), Changed::Yes);
    let first = u64::MAX - WINDOWS;
    for n in 0..HOLDS_MAX {
        // The last one removes windows; the others leave the item as full as it gets.
        let last = n + 1 == HOLDS_MAX;
        let forget = (first..).take(if last { FORGOTTEN_BY_ADMIT_MAX } else { 0 });
        let answer = store.admit(&admission(n, forget)).await.unwrap();
        assert!(matches!(answer, AdmitAnswer::Admitted(_)), "{answer:?}");
    }
    let over = store.admit(&admission(HOLDS_MAX, 0..0)).await.unwrap();
    assert!(matches!(over, AdmitAnswer::Stale(Some(_))), "a hold above HOLDS_MAX");
    let charged = Meter { settled: Tokens::MAX, ..meter() };
    let seal = Seal { row: row(), ..domain::seal(&charged, Timestamp::MAX).unwrap() };
    assert_eq!(store.seal(&key, &seal).await.unwrap(), Changed::Yes);
    let attempt = store.note_attempt(&key, 0, Timestamp::MAX, u64::MAX).await.unwrap();
    assert_eq!(attempt, Attempt::First);
    fullest();

    let receipt = settled(0);
    store.put_receipt(&receipt).await.unwrap();
    assert_eq!(store.release(&receipt.release(&hold())).await.unwrap(), Changed::Yes);
    let void = Receipt::void(the_user(), start(), hold_id(1), Timestamp::MAX);
    assert_eq!(store.release(&void.release(&hold())).await.unwrap(), Changed::Yes);
    store.put_report(&key, &row(), RowFate::Parked, Timestamp::MAX, Some(&note())).await.unwrap();
    assert_eq!(store.drop_row(&key, &row(), RowFate::Parked).await.unwrap(), Changed::Yes);
    repairs(store, &key).await;
    assert_eq!(store.clear(&key).await.unwrap(), Changed::No);
    let change = AccountChange::new(account(), account(), &store.meter(&key).await.unwrap().unwrap());
    assert_eq!(store.change_account(&change).await.unwrap(), Changed::Yes);

    let meter = store.meter(&key).await.unwrap().unwrap();
    assert_eq!(meter.holds.len(), usize::from(HOLDS_MAX) - 2);
    let predecessor = Predecessor { start: start(), rate: meter.rate.clone() };
    let earlier = Timestamp::from_s(start().s() - 1);
    let successor = Meter {
        period: Period::new(earlier, Timestamp::MAX).unwrap(),
        rev: meter.rev,
        rate: meter.rate,
        ..self::meter()
    };
    let account = Account { current: earlier, ..change.after };
    let opening = Opening { account, meter: successor, predecessor: Some(predecessor) };
    assert_eq!(store.open(&opening).await.unwrap(), Changed::Yes);
    assert_eq!(store.load(&the_user()).await.unwrap().unwrap().account.current, earlier);
}

/// What a person does with rows, and what else there is to put, with the longest of everything.
async fn repairs<S: Store>(store: &S, key: &MeterKey) {
    let again = ReportRow { seq: 1, ..row() };
    assert_eq!(store.retry(key, 0, &again, Timestamp::MAX).await.unwrap(), Changed::Yes);
    store.put_report(key, &again, RowFate::Accepted, Timestamp::MAX, None).await.unwrap();
    assert_eq!(store.drop_row(key, &again, RowFate::Accepted).await.unwrap(), Changed::Yes);
    let rejected = store.reject(key, 1, again.tokens, Timestamp::MAX, &note()).await.unwrap();
    assert_eq!(rejected, Changed::Yes);
    assert_eq!(store.forgive(key, 1, Timestamp::MAX, &note()).await.unwrap(), Changed::Yes);
    let receipt = Receipt { charged: Tokens::ZERO, ..settled(HOLDS_MAX + 1) };
    let imported = ReportRow { seq: 2, tokens: Tokens::ZERO, ..row() };
    let whose = (key.user.clone(), key.period_start);
    let report = Report::of(whose, &imported, RowFate::Invoiced, Timestamp::MAX, Some(&note()));
    assert_eq!(store.import(key, &receipt, &report, Billing::Item).await.unwrap(), Changed::Yes);
    assert_eq!(store.report(key, 2).await.unwrap(), Some(report));
    let denial = Denial {
        user: the_user(),
        period_start: start(),
        code: DenialCode::Concurrency,
        at: Timestamp::MAX,
        asked: Tokens::MAX,
        left: Some(Tokens::MAX),
        until: Some(Timestamp::MAX),
    };
    assert_eq!(store.put_denial(&denial).await.unwrap(), Changed::Yes);
    assert_eq!(store.denials(&the_user(), start()).await.unwrap(), [denial]);
    let event = longest("e", EventId::LENGTH_MAX, EventId::parse);
    let kind = "k".repeat(100);
    let put = store.put_event(&event, &kind, Timestamp::MAX, Timestamp::MAX).await.unwrap();
    assert_eq!((put, store.event(&event).await.unwrap()), (Changed::Yes, true));
    let customer = row().customer;
    let lease = store.take_lease(&customer, &hold_id(0), start(), Timestamp::MAX).await.unwrap().unwrap();
    assert_eq!(store.drop_lease(&lease).await.unwrap(), Changed::Yes);
    assert_eq!(store.receipts(&the_user(), None, None).await.unwrap().receipts.len(), 2);
    assert_eq!(store.reports(&the_user(), None, None).await.unwrap().reports.len(), 3);
    assert_eq!(store.meters(&the_user(), start()).await.unwrap().len(), 1);
    let mut users = Vec::new();
    for shard in 0..SHARDS {
        users.extend(store.users(shard, None).await.unwrap().users);
    }
    assert!(users.contains(&the_user()));
}

#[test]
fn i8_the_largest_of_everything_is_taken_by_every_store() {
    for (_, store) in stores() {
        world().runtime.block_on(everything(&store, || {}));
    }
}

#[test]
fn i8_the_largest_of_everything_that_is_sent_or_stored_is_within_dynamodbs_limits() {
    on_a_wire(async |wire, store| {
        let mut fullest = 0;
        everything(&store, || fullest = item_bytes(&stored(&wire))).await;
        assert!((20_000..OUR_ITEM_BYTES_MAX).contains(&fullest), "the fullest meter has {fullest} bytes");
        // Each port method was there: nine kinds of update, four of put, five of transaction, and every read.
        let kinds = |operation: &str| wire.count(|call: &Call| call.operation == operation);
        assert!(kinds("UpdateItem") > usize::from(HOLDS_MAX) + 9);
        assert_eq!((kinds("PutItem"), kinds("TransactWriteItems")), (5, 6));
    });
}

#[test]
fn the_limits_are_held_against_what_breaks_them() {
    let long = "x".repeat(5_000);
    let update = |update: &str| json!({ "TableName": TABLE, "UpdateExpression": update });
    for (what, body) in [
        ("bytes of UpdateExpression", update(&long)),
        ("operators of UpdateExpression", update(&"a = b, ".repeat(301))),
        ("operands of IN", update(&format!("a IN ({})", "b, ".repeat(101)))),
        ("bytes of a placeholder", json!({ "ExpressionAttributeNames": { &long: "a" } })),
        ("bytes of a name", json!({ "ExpressionAttributeNames": { "#a": &long } })),
        ("bytes substituted", json!({ "ExpressionAttributeValues": { ":a": {"S": "x".repeat(3 << 20)} } })),
        ("bytes of a partition key", json!({ "Key": { "pk": {"S": &long} } })),
        ("bytes of a sort key", json!({ "Key": { "sk": {"S": &long} } })),
        ("bytes of the index's key", json!({ "Item": { "dirty": {"S": &long} } })),
        ("bytes of an item", json!({ "Item": { "a": {"S": "x".repeat(50_000)} } })),
        ("digits of a number", json!({ "Item": { "a": {"N": "1".repeat(39)} } })),
        (
            "items of a transaction",
            json!({ "ClientRequestToken": "t", "TransactItems": vec![json!({}); 101] }),
        ),
        ("transaction without a token", json!({ "TransactItems": [] })),
        ("transaction's token", json!({ "ClientRequestToken": &long, "TransactItems": [] })),
    ] {
        let found = check("Test", &body);
        assert!(found.iter().any(|found| found.contains(what)), "{what} is not held: {found:?}");
    }
    let nested = (0..40).fold(json!({ "BOOL": true }), |inner, _| json!({ "M": { "a": inner } }));
    assert!(!check("Test", &json!({ "Item": { "a": nested } })).is_empty());
}

/// Each instance that remembers a user and then writes for that user in a window that no other writes in leaves that
/// window behind; whoever comes next knows of them all. Five hundred made an expression that DynamoDB refuses, and a
/// user whom nobody could admit any more.
#[test]
fn i8_rate_windows_that_many_instances_left_behind_are_removed_by_bounded_writes() {
    const INSTANCES: usize = 40;
    on_a_wire(async |wire, store| {
        let user = user();
        let ledgers: Vec<Ledger<DynamoStore>> =
            (0..INSTANCES).map(|_| Ledger::new(store.clone(), plans())).collect();
        for ledger in &ledgers {
            let hold = ledger.admit(&user, &demand(1), &price(), HOLD_MS, &new_id, T0).await.unwrap();
            ledger.void(hold, T0).await.unwrap();
        }
        let mut now = T0;
        for ledger in &ledgers {
            now = now.plus_ms(120_000);
            let hold = ledger.admit(&user, &demand(1), &price(), HOLD_MS, &new_id, now).await.unwrap();
            ledger.settle(hold, used(1), &price(), now).await.unwrap();
        }
        let windows = async || store.load(&user).await.unwrap().unwrap().meter.rate.counts.len();
        let mut left = windows().await;
        assert_eq!(left, INSTANCES, "none knew of another's window");
        let new = Ledger::new(store.clone(), plans());
        while left > 2 {
            wire.forget();
            now = now.plus_ms(120_000);
            let hold = new.admit(&user, &demand(1), &price(), HOLD_MS, &new_id, now).await.unwrap();
            new.settle(hold, used(1), &price(), now).await.unwrap();
            let removed = wire.log().iter().find_map(|sent| sent.call.admits().map(|_| removed(&sent.call)));
            assert!(removed.unwrap() <= FORGOTTEN_BY_ADMIT_MAX, "{removed:?} windows in one write");
            let before = std::mem::replace(&mut left, windows().await);
            assert!(left < before, "{before} windows are {left}");
        }
    });
}

/// How many paths an update removes.
fn removed(call: &Call) -> usize {
    let update = call.body["UpdateExpression"].as_str().unwrap();
    update
        .split_once("REMOVE ")
        .map_or(0, |(_, rest)| rest.split(" ADD ").next().unwrap().matches('.').count())
}
