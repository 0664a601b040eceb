//! How items are spelled: every key, every attribute name, and the conversions between stored items and the domain's
//! types. Nothing else in the project spells an attribute name.
//!
//! | item | keys | |
//! |---|---|---|
//! | meter | `U#<user>` / `M#<period start>` | one user's counters of one period; in the index `dirty` while dirty |
//! | account | `U#<user>` / `N` | what a user bought; always in the index `dirty`, under keys of its own |
//! | receipt | `U#<user>` / `R#<period start>#<hold id>` | one request |
//! | report | `U#<user>` / `P#<period start>#<seq>` | one meter event |
//! | claim | `U#<user>` / `I#<key digest>` | one idempotency key |
//! | stop | `U#<user>` / `S#<hold id>` | a user's wish that a request end |
//! | denial | `U#<user>` / `D#<period start>#<code>` | the latest refusal of one kind |
//! | lease | `C#<customer>` / `L` | who may talk to Stripe about a customer |
//! | event | `E#<event id>` / `E` | an event of Stripe's that was dealt with |
//! | owner | `O#<day>#<pool>` / `O` | what is leased of one day's budget |
//!
//! The account's key sorts right behind its meters', so that one `Query` backwards over two items answers the account
//! and its newest meter. Period starts are seconds since the epoch, in twelve digits so that they sort as numbers.

use crate::store::{Fault, MeterKey, StoreError, shard_of};
use aws_sdk_dynamodb::types::AttributeValue;
use domain::{
    Account, Billing, Claim, ClaimState, Classes, CustomerId, Day, Denial, DenialCode, Digest, EventId, Hold,
    HoldId, HoldRef, Lease, Level, Meter, NanoUsd, Outcome, Period, PlanId, Pool, RateCounts, Receipt,
    Report, ReportRow, RowFate, Spending, SubscriptionId, Timestamp, Tokens, Totals, Usage, UserId, Window,
};
use std::collections::{BTreeMap, HashMap};

pub(crate) type Item = HashMap<String, AttributeValue>;

const MS_PER_S: u64 = 1_000;

/// Attribute names.
pub(crate) mod attr {
    pub(crate) const PK: &str = "pk";
    pub(crate) const SK: &str = "sk";
    /// The key of the sparse index, and the index's name.
    pub(crate) const DIRTY: &str = "dirty";

    pub(crate) const REV: &str = "rev";
    pub(crate) const CUSTOMER: &str = "customer";

    pub(crate) const PLAN: &str = "plan";
    pub(crate) const SUBSCRIPTION: &str = "subscription";
    pub(crate) const ANCHOR: &str = "anchor_s";
    pub(crate) const PLAN_SINCE: &str = "plan_since_s";
    pub(crate) const ENDS_AT: &str = "ends_at_s";
    pub(crate) const CURRENT: &str = "current_s";
    pub(crate) const SPEND_CAP: &str = "spend_cap";
    pub(crate) const PAY_BY: &str = "pay_by_ms";

    pub(crate) const PERIOD_END: &str = "period_end_s";
    pub(crate) const SETTLED: &str = "settled";
    pub(crate) const COMMITTED: &str = "committed";
    pub(crate) const SEALED: &str = "sealed";
    pub(crate) const PARKED: &str = "parked";
    pub(crate) const INVOICED: &str = "invoiced";
    pub(crate) const MIXED: &str = "mixed";
    pub(crate) const BILLING: &str = "billing";
    pub(crate) const RATE: &str = "rate";
    pub(crate) const NEWEST: &str = "rate_newest";
    pub(crate) const HOLDS: &str = "holds";
    pub(crate) const CLOSED: &str = "closed";
    pub(crate) const PENDING: &str = "pending";
    pub(crate) const SEQ: &str = "seq";
    pub(crate) const REQUESTS: &str = "requests";
    pub(crate) const ABSORBED: &str = "absorbed";
    pub(crate) const COST: &str = "cost_nano_usd";
    pub(crate) const INPUT: &str = "input";
    pub(crate) const CACHED_INPUT: &str = "cached_input";
    pub(crate) const CACHE_WRITE: &str = "cache_write";
    pub(crate) const OUTPUT: &str = "output";
    pub(crate) const REASONING: &str = "reasoning";

    pub(crate) const TOKENS: &str = "tokens";
    pub(crate) const WINDOW: &str = "window";
    pub(crate) const EXPIRES: &str = "expires_ms";

    pub(crate) const IDENTIFIER: &str = "identifier";
    pub(crate) const TIMESTAMP: &str = "timestamp_s";
    pub(crate) const FIRST_ATTEMPT: &str = "first_attempt_ms";
    pub(crate) const LAST_ATTEMPT: &str = "last_attempt_ms";
    pub(crate) const FENCE: &str = "fence";
    pub(crate) const FATE: &str = "fate";
    pub(crate) const NOTE: &str = "note";

    pub(crate) const AT: &str = "at_ms";
    pub(crate) const OUTCOME: &str = "outcome";
    pub(crate) const CHARGED: &str = "charged";
    pub(crate) const MODEL: &str = "model";
    pub(crate) const PRICE_VERSION: &str = "price_version";
    pub(crate) const FAILED_CALLS: &str = "failed_calls";

    pub(crate) const ASKED: &str = "asked";
    pub(crate) const LEFT: &str = "left";

    pub(crate) const KIND: &str = "kind";

    pub(crate) const LEASED: &str = "leased_nano_usd";
    pub(crate) const TOLD: &str = "told_percent";

    pub(crate) const BODY: &str = "body";
    pub(crate) const OWNER: &str = "owner";
    pub(crate) const STATE: &str = "state";
    pub(crate) const UNTIL: &str = "until_ms";
    pub(crate) const HOLD: &str = "hold";
    pub(crate) const PERIOD_START: &str = "period_start_s";
    pub(crate) const ANSWER: &str = "answer";
    pub(crate) const FORGET_AT: &str = "forget_at_ms";
    /// What DynamoDB deletes an item by, some time after; in seconds.
    pub(crate) const EXPIRES_AT: &str = "expires_at";
}

const METER: &str = "M#";
const RECEIPT: &str = "R#";
const REPORT: &str = "P#";
const CLAIM: &str = "I#";
const STOP: &str = "S#";
const DENIAL: &str = "D#";
/// A lease's sort key.
pub(crate) const LEASE: &str = "L";
/// An event's sort key.
pub(crate) const EVENT: &str = "E";
/// A day's budget's sort key.
pub(crate) const SPENDING: &str = "O";
/// The account's sort key, right behind every meter's.
pub(crate) const ACCOUNT: &str = "N";
/// The lower bound of a `Query` over meters and account.
pub(crate) const FIRST_METER: &str = METER;

const OUTCOME_EXACT: &str = "exact";
const OUTCOME_ESTIMATED: &str = "estimated";
const OUTCOME_SWEPT: &str = "swept";
const OUTCOME_VOID: &str = "void";
const OUTCOME_IMPORTED: &str = "imported";
const BILLING_ITEM: &str = "item";
const BILLING_FLAT: &str = "flat";
const BILLING_REPLACED: &str = "replaced";
const FATES: [(RowFate, &str); 5] = [
    (RowFate::Accepted, "accepted"),
    (RowFate::Invoiced, "invoiced"),
    (RowFate::Parked, "parked"),
    (RowFate::Forgiven, "forgiven"),
    (RowFate::Retried, "retried"),
];
pub(crate) const STATE_RUNNING: &str = "running";
const STATE_ENDED: &str = "ended";

pub(crate) fn pk(user: &UserId) -> AttributeValue {
    s(&format!("U#{user}"))
}

pub(crate) fn meter_sk(period_start: Timestamp) -> String {
    format!("{METER}{:012}", period_start.s())
}

/// The first key that a meter can have whose period began at `from` or later.
pub(crate) fn meter_sk_from(from: Timestamp) -> String {
    meter_sk(Timestamp::from_s(from.ms().div_ceil(MS_PER_S)))
}

pub(crate) fn receipt_sk(period_start: Timestamp, id: &HoldId) -> String {
    format!("{RECEIPT}{:012}#{id}", period_start.s())
}

pub(crate) fn report_sk(period_start: Timestamp, seq: u64) -> String {
    format!("{REPORT}{:012}#{seq:08}", period_start.s())
}

pub(crate) fn claim_sk(key: Digest) -> String {
    format!("{CLAIM}{key}")
}

pub(crate) fn stop_sk(id: &HoldId) -> String {
    format!("{STOP}{id}")
}

pub(crate) fn denial_sk(period_start: Timestamp, code: DenialCode) -> String {
    format!("{}{code}", denials_of(period_start))
}

/// How the keys of one period's denials begin.
pub(crate) fn denials_of(period_start: Timestamp) -> String {
    format!("{DENIAL}{:012}#", period_start.s())
}

/// How the keys of receipts begin: of one period's, or of all.
pub(crate) fn receipts_of(period_start: Option<Timestamp>) -> String {
    period_start.map_or_else(|| RECEIPT.to_owned(), |start| format!("{RECEIPT}{:012}#", start.s()))
}

/// How the keys of report items begin: of one period's, or of all.
pub(crate) fn reports_of(period_start: Option<Timestamp>) -> String {
    period_start.map_or_else(|| REPORT.to_owned(), |start| format!("{REPORT}{:012}#", start.s()))
}

/// What a receipt's sort key says.
pub(crate) fn read_receipt_sk(sk: &str) -> Option<(Timestamp, HoldId)> {
    let (start, id) = sk.strip_prefix(RECEIPT)?.split_once('#')?;
    let read = (Timestamp::from_s(start.parse().ok()?), HoldId::parse(id).ok()?);
    (receipt_sk(read.0, &read.1) == sk).then_some(read)
}

/// What a report item's sort key says.
pub(crate) fn read_report_sk(sk: &str) -> Option<(Timestamp, u64)> {
    let (start, seq) = sk.strip_prefix(REPORT)?.split_once('#')?;
    let read = (Timestamp::from_s(start.parse().ok()?), seq.parse().ok()?);
    (report_sk(read.0, read.1) == sk).then_some(read)
}

pub(crate) fn lease_pk(customer: &CustomerId) -> AttributeValue {
    s(&format!("C#{customer}"))
}

pub(crate) fn event_pk(id: &EventId) -> AttributeValue {
    s(&format!("E#{id}"))
}

pub(crate) fn spending_pk(day: Day, pool: Pool) -> AttributeValue {
    s(&format!("O#{day}#{}", pool.as_str()))
}

/// The index's key of one shard's accounts: another than that of its dirty meters, so that neither listing sees the other's.
pub(crate) fn accounts_shard(number: u8) -> AttributeValue {
    s(&format!("A#{number:02}"))
}

pub(crate) fn shard(number: u8) -> AttributeValue {
    s(&format!("D#{number:02}"))
}

pub(crate) fn shard_key(user: &UserId) -> AttributeValue {
    shard(shard_of(user))
}

/// The name of a window in the `rate` map.
pub(crate) fn window_name(window: Window) -> String {
    window.index().to_string()
}

pub(crate) fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn corrupt(what: &str) -> StoreError {
    StoreError::new("read item", Fault::Corrupt).because(what.to_owned())
}

fn get<'a>(item: &'a Item, name: &str) -> Result<&'a AttributeValue, StoreError> {
    item.get(name).ok_or_else(|| corrupt(name))
}

fn number(item: &Item, name: &str) -> Result<u64, StoreError> {
    get(item, name)?.as_n().ok().and_then(|n| n.parse().ok()).ok_or_else(|| corrupt(name))
}

fn tokens(item: &Item, name: &str) -> Result<Tokens, StoreError> {
    Tokens::new(number(item, name)?).map_err(|_| corrupt(name))
}

fn money(item: &Item, name: &str) -> Result<NanoUsd, StoreError> {
    NanoUsd::new(number(item, name)?).map_err(|_| corrupt(name))
}

fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str, StoreError> {
    get(item, name)?.as_s().map(String::as_str).map_err(|_| corrupt(name))
}

fn map<'a>(item: &'a Item, name: &str) -> Result<&'a Item, StoreError> {
    get(item, name)?.as_m().map_err(|_| corrupt(name))
}

fn parsed<T, E>(item: &Item, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, StoreError> {
    parse(text(item, name)?).map_err(|_| corrupt(name))
}

fn optional<T>(
    item: &Item,
    name: &str,
    read: impl FnOnce(&Item, &str) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    if item.contains_key(name) { read(item, name).map(Some) } else { Ok(None) }
}

fn from_s(item: &Item, name: &str) -> Result<Timestamp, StoreError> {
    number(item, name).map(Timestamp::from_s)
}

fn from_ms(item: &Item, name: &str) -> Result<Timestamp, StoreError> {
    number(item, name).map(Timestamp::from_ms)
}

fn item(entries: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Item {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The user in a partition key.
pub(crate) fn user_of(item: &Item) -> Result<UserId, StoreError> {
    parsed(item, attr::PK, |pk| UserId::parse(pk.strip_prefix("U#").unwrap_or_default()))
}

/// The key of a meter, from an item of the table or of its index.
pub(crate) fn read_meter_key(item: &Item) -> Result<MeterKey, StoreError> {
    let start = text(item, attr::SK)?.strip_prefix(METER).and_then(|digits| digits.parse().ok());
    let period_start = Timestamp::from_s(start.ok_or_else(|| corrupt(attr::SK))?);
    Ok(MeterKey { user: user_of(item)?, period_start })
}

pub(crate) fn is_account(item: &Item) -> bool {
    text(item, attr::SK).is_ok_and(|sk| sk == ACCOUNT)
}

pub(crate) fn write_account(account: &Account) -> Item {
    let mut written = item([
        (attr::PK, pk(&account.user)),
        (attr::SK, s(ACCOUNT)),
        (attr::REV, n(account.rev)),
        (attr::PLAN, s(account.plan.as_str())),
        (attr::ANCHOR, n(account.anchor.s())),
        (attr::CURRENT, n(account.current.s())),
        // A fact of the account for ever: whoever puts it anew puts the same.
        (attr::DIRTY, accounts_shard(shard_of(&account.user))),
    ]);
    let mut put = |name: &str, value: Option<AttributeValue>| {
        if let Some(value) = value {
            written.insert(name.to_owned(), value);
        }
    };
    put(attr::CUSTOMER, account.customer.as_ref().map(|id| s(id.as_str())));
    put(attr::SUBSCRIPTION, account.subscription.as_ref().map(|id| s(id.as_str())));
    put(attr::PLAN_SINCE, account.plan_since.map(|since| n(since.s())));
    put(attr::ENDS_AT, account.ends_at.map(|at| n(at.s())));
    put(attr::SPEND_CAP, account.spend_cap.map(|cap| n(cap.get())));
    put(attr::PAY_BY, account.pay_by.map(|pay_by| n(pay_by.ms())));
    written
}

pub(crate) fn read_account(item: &Item) -> Result<Account, StoreError> {
    Ok(Account {
        user: user_of(item)?,
        rev: number(item, attr::REV)?,
        plan: parsed(item, attr::PLAN, PlanId::parse)?,
        customer: optional(item, attr::CUSTOMER, |item, name| parsed(item, name, CustomerId::parse))?,
        subscription: optional(item, attr::SUBSCRIPTION, |item, name| {
            parsed(item, name, SubscriptionId::parse)
        })?,
        anchor: from_s(item, attr::ANCHOR)?,
        plan_since: optional(item, attr::PLAN_SINCE, from_s)?,
        ends_at: optional(item, attr::ENDS_AT, from_s)?,
        current: from_s(item, attr::CURRENT)?,
        spend_cap: optional(item, attr::SPEND_CAP, tokens)?,
        pay_by: optional(item, attr::PAY_BY, from_ms)?,
    })
}

/// A meter that was just opened: no hold, no row, nothing counted but the windows it took over.
pub(crate) fn write_new_meter(meter: &Meter) -> Item {
    let zeroes = [
        attr::SETTLED,
        attr::COMMITTED,
        attr::SEALED,
        attr::PARKED,
        attr::INVOICED,
        attr::SEQ,
        attr::REQUESTS,
        attr::ABSORBED,
        attr::COST,
        attr::INPUT,
        attr::CACHED_INPUT,
        attr::CACHE_WRITE,
        attr::OUTPUT,
        attr::REASONING,
    ];
    let mut written = item([
        (attr::PK, pk(&meter.user)),
        (attr::SK, s(&meter_sk(meter.period.start()))),
        (attr::PERIOD_END, n(meter.period.end().s())),
        (attr::REV, n(meter.rev)),
        (attr::PLAN, s(meter.plan.as_str())),
        (attr::RATE, write_rate(&meter.rate)),
        (attr::NEWEST, n(meter.rate.newest.index())),
        (attr::HOLDS, AttributeValue::M(Item::new())),
        (attr::CLOSED, AttributeValue::Bool(false)),
        (attr::MIXED, AttributeValue::Bool(false)),
    ]);
    written.extend(zeroes.map(|name| (name.to_owned(), n(0))));
    if let Some(customer) = &meter.customer {
        written.insert(attr::CUSTOMER.to_owned(), s(customer.as_str()));
    }
    written
}

pub(crate) fn write_rate(rate: &RateCounts) -> AttributeValue {
    AttributeValue::M(
        rate.counts.iter().map(|(window, count)| (window_name(*window), n(u64::from(*count)))).collect(),
    )
}

fn flag(item: &Item, name: &'static str) -> Result<bool, StoreError> {
    get(item, name)?.as_bool().copied().map_err(|_| corrupt(name))
}

pub(crate) fn read_meter(item: &Item) -> Result<Meter, StoreError> {
    let MeterKey { user, period_start } = read_meter_key(item)?;
    let period = Period::new(period_start, from_s(item, attr::PERIOD_END)?)
        .ok_or_else(|| corrupt(attr::PERIOD_END))?;
    Ok(Meter {
        user,
        period,
        rev: number(item, attr::REV)?,
        customer: optional(item, attr::CUSTOMER, |item, name| parsed(item, name, CustomerId::parse))?,
        plan: parsed(item, attr::PLAN, PlanId::parse)?,
        settled: tokens(item, attr::SETTLED)?,
        committed: tokens(item, attr::COMMITTED)?,
        sealed: tokens(item, attr::SEALED)?,
        parked: tokens(item, attr::PARKED)?,
        invoiced: tokens(item, attr::INVOICED)?,
        mixed: flag(item, attr::MIXED)?,
        billing: optional(item, attr::BILLING, read_billing)?.unwrap_or_default(),
        rate: RateCounts {
            newest: Window::from_index(number(item, attr::NEWEST)?),
            counts: read_counts(map(item, attr::RATE)?)?,
        },
        holds: read_holds(map(item, attr::HOLDS)?)?,
        closed: flag(item, attr::CLOSED)?,
        pending: read_pending(item)?,
        seq: number(item, attr::SEQ)?,
        dirty: item.contains_key(attr::DIRTY),
        totals: Totals {
            requests: number(item, attr::REQUESTS)?,
            absorbed: tokens(item, attr::ABSORBED)?,
            cost: money(item, attr::COST)?,
            classes: read_classes(item)?,
        },
    })
}

/// What is stored of how a period is billed; nothing: by Stripe's meter, as every period that was opened here.
pub(crate) fn billing_name(billing: Billing) -> Option<&'static str> {
    match billing {
        Billing::Metered => None,
        Billing::Item => Some(BILLING_ITEM),
        Billing::Flat => Some(BILLING_FLAT),
        Billing::Replaced => Some(BILLING_REPLACED),
    }
}

fn read_billing(item: &Item, name: &str) -> Result<Billing, StoreError> {
    match text(item, name)? {
        BILLING_ITEM => Ok(Billing::Item),
        BILLING_FLAT => Ok(Billing::Flat),
        BILLING_REPLACED => Ok(Billing::Replaced),
        _ => Err(corrupt(name)),
    }
}

fn read_counts(counts: &Item) -> Result<BTreeMap<Window, u32>, StoreError> {
    let read = |name: &String| {
        let window = Window::from_index(name.parse().ok()?);
        let count = u32::try_from(number(counts, name).ok()?).ok()?;
        Some((window, count))
    };
    counts.keys().map(|name| read(name).ok_or_else(|| corrupt(attr::RATE))).collect()
}

pub(crate) fn write_hold(hold: &Hold) -> AttributeValue {
    AttributeValue::M(item([
        (attr::TOKENS, n(hold.tokens.get())),
        (attr::COST, n(hold.cost_most.get())),
        (attr::WINDOW, n(hold.window.index())),
        (attr::EXPIRES, n(hold.expires_at.ms())),
    ]))
}

fn read_holds(holds: &Item) -> Result<BTreeMap<HoldId, Hold>, StoreError> {
    holds
        .keys()
        .map(|id| {
            let hold = map(holds, id)?;
            let read = Hold {
                tokens: tokens(hold, attr::TOKENS)?,
                cost_most: money(hold, attr::COST)?,
                window: Window::from_index(number(hold, attr::WINDOW)?),
                expires_at: from_ms(hold, attr::EXPIRES)?,
            };
            Ok((HoldId::parse(id).map_err(|_| corrupt(attr::HOLDS))?, read))
        })
        .collect()
}

fn row_entries(row: &ReportRow) -> Item {
    item([
        (attr::SEQ, n(row.seq)),
        (attr::CUSTOMER, s(row.customer.as_str())),
        (attr::IDENTIFIER, s(&row.identifier)),
        (attr::TOKENS, n(row.tokens.get())),
        (attr::TIMESTAMP, n(row.timestamp.s())),
    ])
}

pub(crate) fn write_row(row: &ReportRow) -> AttributeValue {
    AttributeValue::M(row_entries(row))
}

fn read_row(row: &Item) -> Result<ReportRow, StoreError> {
    Ok(ReportRow {
        seq: number(row, attr::SEQ)?,
        customer: parsed(row, attr::CUSTOMER, CustomerId::parse)?,
        identifier: text(row, attr::IDENTIFIER)?.to_owned(),
        tokens: tokens(row, attr::TOKENS)?,
        timestamp: from_s(row, attr::TIMESTAMP)?,
        first_attempt_at: optional(row, attr::FIRST_ATTEMPT, from_ms)?,
        last_attempt_at: optional(row, attr::LAST_ATTEMPT, from_ms)?,
        fence: optional(row, attr::FENCE, number)?.unwrap_or(0),
    })
}

/// What a meter's item says of its pending row.
pub(crate) fn read_pending(item: &Item) -> Result<Option<ReportRow>, StoreError> {
    optional(item, attr::PENDING, |item, name| read_row(map(item, name)?))
}

pub(crate) fn fate_name(fate: RowFate) -> AttributeValue {
    let name = FATES.iter().find(|(known, _)| *known == fate).map_or("", |(_, name)| name);
    s(name)
}

pub(crate) fn write_report(report: &Report) -> Item {
    let mut written = item([
        (attr::PK, pk(&report.user)),
        (attr::SK, s(&report_sk(report.period_start, report.seq))),
        (attr::SEQ, n(report.seq)),
        (attr::CUSTOMER, s(report.customer.as_str())),
        (attr::IDENTIFIER, s(&report.identifier)),
        (attr::TOKENS, n(report.tokens.get())),
        (attr::TIMESTAMP, n(report.timestamp.s())),
        (attr::FATE, fate_name(report.fate)),
        (attr::AT, n(report.at.ms())),
    ]);
    written.extend(report.note.as_deref().map(|note| (attr::NOTE.to_owned(), s(note))));
    written
}

pub(crate) fn read_report(item: &Item) -> Result<Report, StoreError> {
    let (period_start, seq) = read_report_sk(text(item, attr::SK)?).ok_or_else(|| corrupt(attr::SK))?;
    Ok(Report {
        user: user_of(item)?,
        period_start,
        seq,
        customer: parsed(item, attr::CUSTOMER, CustomerId::parse)?,
        identifier: text(item, attr::IDENTIFIER)?.to_owned(),
        tokens: tokens(item, attr::TOKENS)?,
        timestamp: from_s(item, attr::TIMESTAMP)?,
        fate: read_fate(item)?,
        at: from_ms(item, attr::AT)?,
        note: optional(item, attr::NOTE, |item, name| text(item, name).map(str::to_owned))?,
    })
}

pub(crate) fn read_fate(item: &Item) -> Result<RowFate, StoreError> {
    let name = text(item, attr::FATE)?;
    let fate = FATES.iter().find(|(_, known)| *known == name).map(|(fate, _)| *fate);
    fate.ok_or_else(|| corrupt(attr::FATE))
}

/// The classes as attributes: in a receipt as they are, in a meter as running totals.
pub(crate) fn classes_entries(classes: &Classes) -> [(&'static str, Tokens); 5] {
    [
        (attr::INPUT, classes.input),
        (attr::CACHED_INPUT, classes.cached_input),
        (attr::CACHE_WRITE, classes.cache_write),
        (attr::OUTPUT, classes.output),
        (attr::REASONING, classes.reasoning),
    ]
}

fn read_classes(item: &Item) -> Result<Classes, StoreError> {
    Ok(Classes {
        input: tokens(item, attr::INPUT)?,
        cached_input: tokens(item, attr::CACHED_INPUT)?,
        cache_write: tokens(item, attr::CACHE_WRITE)?,
        output: tokens(item, attr::OUTPUT)?,
        reasoning: tokens(item, attr::REASONING)?,
    })
}

pub(crate) fn write_receipt(receipt: &Receipt) -> Item {
    let mut written = item([
        (attr::PK, pk(&receipt.user)),
        (attr::SK, s(&receipt_sk(receipt.period_start, &receipt.id))),
        (attr::AT, n(receipt.at.ms())),
        (attr::CHARGED, n(receipt.charged.get())),
        (attr::ABSORBED, n(receipt.absorbed.get())),
        (attr::COST, n(receipt.cost.get())),
        (attr::FAILED_CALLS, n(u64::from(receipt.failed_calls))),
    ]);
    let outcome = match &receipt.outcome {
        Outcome::Swept => OUTCOME_SWEPT,
        Outcome::Void => OUTCOME_VOID,
        Outcome::Imported => OUTCOME_IMPORTED,
        Outcome::Settled { usage, model, price_version } => {
            written.extend(item(classes_entries(usage.classes()).map(|(name, t)| (name, n(t.get())))));
            written.insert(attr::MODEL.to_owned(), s(model.as_str()));
            written.insert(attr::PRICE_VERSION.to_owned(), n(u64::from(*price_version)));
            match usage {
                Usage::Exact(_) => OUTCOME_EXACT,
                Usage::Estimated(_) => OUTCOME_ESTIMATED,
            }
        }
    };
    written.insert(attr::OUTCOME.to_owned(), s(outcome));
    written
}

pub(crate) fn read_receipt(item: &Item) -> Result<Receipt, StoreError> {
    let settled = |usage: Usage| -> Result<Outcome, StoreError> {
        Ok(Outcome::Settled {
            usage,
            model: parsed(item, attr::MODEL, domain::ModelId::parse)?,
            price_version: u32::try_from(number(item, attr::PRICE_VERSION)?)
                .map_err(|_| corrupt(attr::PRICE_VERSION))?,
        })
    };
    let (period_start, id) = read_receipt_sk(text(item, attr::SK)?).ok_or_else(|| corrupt(attr::SK))?;
    Ok(Receipt {
        user: user_of(item)?,
        period_start,
        id,
        at: from_ms(item, attr::AT)?,
        outcome: match text(item, attr::OUTCOME)? {
            OUTCOME_EXACT => settled(Usage::Exact(read_classes(item)?))?,
            OUTCOME_ESTIMATED => settled(Usage::Estimated(read_classes(item)?))?,
            OUTCOME_SWEPT => Outcome::Swept,
            OUTCOME_VOID => Outcome::Void,
            OUTCOME_IMPORTED => Outcome::Imported,
            _ => return Err(corrupt(attr::OUTCOME)),
        },
        charged: tokens(item, attr::CHARGED)?,
        absorbed: tokens(item, attr::ABSORBED)?,
        cost: money(item, attr::COST)?,
        failed_calls: u32::try_from(number(item, attr::FAILED_CALLS)?)
            .map_err(|_| corrupt(attr::FAILED_CALLS))?,
    })
}

/// When the table's time to live may take an item: at the second in which it is forgotten, or after.
pub(crate) fn expiry(forget_at: Timestamp) -> AttributeValue {
    n(forget_at.ms().div_ceil(MS_PER_S))
}

pub(crate) fn write_claim(claim: &Claim) -> Item {
    let mut written = item([
        (attr::PK, pk(&claim.user)),
        (attr::SK, s(&claim_sk(claim.key))),
        (attr::BODY, s(&claim.body.to_string())),
        (attr::OWNER, s(claim.owner.as_str())),
        (attr::FORGET_AT, n(claim.forget_at.ms())),
        (attr::EXPIRES_AT, expiry(claim.forget_at)),
    ]);
    let hold = match &claim.state {
        ClaimState::Running { until, hold } => {
            written.extend(item([(attr::STATE, s(STATE_RUNNING)), (attr::UNTIL, n(until.ms()))]));
            hold.as_ref()
        }
        ClaimState::Ended { hold, answer } => {
            written.insert(attr::STATE.to_owned(), s(STATE_ENDED));
            written.extend(answer.as_deref().map(|answer| (attr::ANSWER.to_owned(), s(answer))));
            Some(hold)
        }
    };
    if let Some(HoldRef { period_start, id }) = hold {
        written.extend(item([(attr::HOLD, s(id.as_str())), (attr::PERIOD_START, n(period_start.s()))]));
    }
    written
}

pub(crate) fn read_claim(item: &Item) -> Result<Claim, StoreError> {
    let digest = |name| parsed(item, name, |text| Digest::parse(text).ok_or(()));
    let hold = || -> Result<HoldRef, StoreError> {
        let id = parsed(item, attr::HOLD, HoldId::parse)?;
        Ok(HoldRef { period_start: from_s(item, attr::PERIOD_START)?, id })
    };
    let key = parsed(item, attr::SK, |sk| sk.strip_prefix(CLAIM).and_then(Digest::parse).ok_or(()))?;
    let state = match text(item, attr::STATE)? {
        STATE_RUNNING => ClaimState::Running {
            until: from_ms(item, attr::UNTIL)?,
            hold: if item.contains_key(attr::HOLD) { Some(hold()?) } else { None },
        },
        STATE_ENDED => ClaimState::Ended {
            hold: hold()?,
            answer: optional(item, attr::ANSWER, |item, name| text(item, name).map(str::to_owned))?,
        },
        _ => return Err(corrupt(attr::STATE)),
    };
    Ok(Claim {
        user: user_of(item)?,
        key,
        body: digest(attr::BODY)?,
        owner: parsed(item, attr::OWNER, HoldId::parse)?,
        state,
        forget_at: from_ms(item, attr::FORGET_AT)?,
    })
}

pub(crate) fn write_stop(user: &UserId, id: &HoldId, forget_at: Timestamp) -> Item {
    item([(attr::PK, pk(user)), (attr::SK, s(&stop_sk(id))), (attr::EXPIRES_AT, expiry(forget_at))])
}

pub(crate) fn write_denial(denial: &Denial) -> Item {
    let mut written = item([
        (attr::PK, pk(&denial.user)),
        (attr::SK, s(&denial_sk(denial.period_start, denial.code))),
        (attr::AT, n(denial.at.ms())),
        (attr::ASKED, n(denial.asked.get())),
        (attr::EXPIRES_AT, expiry(denial.forget_at())),
    ]);
    written.extend(denial.left.map(|left| (attr::LEFT.to_owned(), n(left.get()))));
    written.extend(denial.until.map(|until| (attr::UNTIL.to_owned(), n(until.ms()))));
    written
}

/// A denial; none: its code is one that only a later release knows. It advises, and keeps nobody from anything else.
pub(crate) fn read_denial(item: &Item) -> Result<Option<Denial>, StoreError> {
    let sk = text(item, attr::SK)?;
    let read = || {
        let (start, code) = sk.strip_prefix(DENIAL)?.split_once('#')?;
        Some((Timestamp::from_s(start.parse().ok()?), code))
    };
    let (period_start, code) = read().ok_or_else(|| corrupt(attr::SK))?;
    let Some(code) = DenialCode::parse(code) else { return Ok(None) };
    Ok(Some(Denial {
        user: user_of(item)?,
        period_start,
        code,
        at: from_ms(item, attr::AT)?,
        asked: tokens(item, attr::ASKED)?,
        left: optional(item, attr::LEFT, tokens)?,
        until: optional(item, attr::UNTIL, from_ms)?,
    }))
}

pub(crate) fn write_event(id: &EventId, kind: &str, at: Timestamp, forget_at: Timestamp) -> Item {
    item([
        (attr::PK, event_pk(id)),
        (attr::SK, s(EVENT)),
        (attr::KIND, s(kind)),
        (attr::AT, n(at.ms())),
        (attr::EXPIRES_AT, expiry(forget_at)),
    ])
}

/// A lease, from the item of its customer; none: nobody has it.
pub(crate) fn read_lease(item: &Item, customer: &CustomerId) -> Result<Option<Lease>, StoreError> {
    if !item.contains_key(attr::OWNER) {
        return Ok(None);
    }
    Ok(Some(Lease {
        customer: customer.clone(),
        owner: parsed(item, attr::OWNER, HoldId::parse)?,
        fence: number(item, attr::FENCE)?,
        until: from_ms(item, attr::UNTIL)?,
    }))
}

/// A day of a budget as its item has it.
pub(crate) fn read_spending(item: &Item) -> Result<Spending, StoreError> {
    let told =
        |item: &Item, name: &str| Level::from_percent(number(item, name)?).ok_or_else(|| corrupt(name));
    Ok(Spending { leased: money(item, attr::LEASED)?, told: optional(item, attr::TOLD, told)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ModelId, Opening};

    const START: Timestamp = Timestamp::from_s(1_795_518_000);
    const AT: Timestamp = Timestamp::from_ms(1_795_518_001_234);

    fn t(value: u32) -> Tokens {
        Tokens::from_u32(value)
    }

    fn money(nano: u64) -> NanoUsd {
        NanoUsd::new(nano).unwrap()
    }

    fn user() -> UserId {
        UserId::parse("user_1").unwrap()
    }

    fn id() -> HoldId {
        HoldId::parse("h1").unwrap()
    }

    fn bare() -> Account {
        Account::first_seen(user(), PlanId::parse("free").unwrap(), START)
    }

    /// No two fields alike, so that none can be read in place of another.
    fn full() -> Account {
        Account {
            rev: 7,
            customer: Some(CustomerId::parse("cus_1").unwrap()),
            subscription: Some(SubscriptionId::parse("sub_1").unwrap()),
            anchor: Timestamp::from_s(1_795_000_000),
            plan_since: Some(Timestamp::from_s(1_795_400_000)),
            ends_at: Some(Timestamp::from_s(1_795_600_000)),
            spend_cap: Some(t(0)),
            pay_by: Some(AT),
            ..bare()
        }
    }

    fn classes() -> Classes {
        Classes { input: t(1), cached_input: t(2), cache_write: t(3), output: t(4), reasoning: t(5) }
    }

    fn row() -> ReportRow {
        ReportRow {
            seq: 4,
            customer: CustomerId::parse("cus_1").unwrap(),
            identifier: "user_1-1795518000-4".to_owned(),
            tokens: t(30),
            timestamp: Timestamp::from_s(1_795_518_060),
            first_attempt_at: None,
            last_attempt_at: None,
            fence: 0,
        }
    }

    fn receipt(outcome: Outcome) -> Receipt {
        let (charged, absorbed, cost) = (t(40), t(2), money(5));
        let failed_calls = 6;
        Receipt {
            user: user(),
            period_start: START,
            id: id(),
            at: AT,
            outcome,
            charged,
            absorbed,
            cost,
            failed_calls,
        }
    }

    fn settled(usage: Usage) -> Receipt {
        let model = ModelId::parse("gpt-6-luna").unwrap();
        receipt(Outcome::Settled { usage, model, price_version: 3 })
    }

    /// A meter in the middle of everything, no two fields alike, and the item that the writes of its life leave.
    fn a_busy_meter() -> (Meter, Item) {
        let Opening { meter: new, .. } = Opening::first(full(), START).unwrap();
        let (cost_most, window) = (money(9), Window::from_index(7));
        let hold = Hold { tokens: t(40), cost_most, window, expires_at: AT };
        let counts = BTreeMap::from([(Window::from_index(6), 2), (Window::from_index(7), 1)]);
        let meter = Meter {
            settled: t(100),
            committed: t(140),
            sealed: t(90),
            parked: t(20),
            invoiced: t(25),
            rate: RateCounts { newest: Window::from_index(7), counts },
            holds: BTreeMap::from([(id(), hold.clone())]),
            closed: true,
            mixed: true,
            billing: Billing::Flat,
            pending: Some(ReportRow {
                first_attempt_at: Some(AT),
                last_attempt_at: Some(AT.plus_ms(3)),
                fence: 8,
                ..row()
            }),
            seq: 5,
            dirty: true,
            totals: Totals { requests: 11, absorbed: t(12), cost: money(13), classes: classes() },
            ..new.clone()
        };
        let mut pending = row_entries(&row());
        pending.insert(attr::FIRST_ATTEMPT.to_owned(), n(AT.ms()));
        pending.insert(attr::LAST_ATTEMPT.to_owned(), n(AT.ms() + 3));
        pending.insert(attr::FENCE.to_owned(), n(8));
        let mut written = write_new_meter(&new);
        written.extend(item(classes_entries(&classes()).map(|(name, tokens)| (name, n(tokens.get())))));
        written.extend(item([
            (attr::SETTLED, n(100)),
            (attr::COMMITTED, n(140)),
            (attr::SEALED, n(90)),
            (attr::PARKED, n(20)),
            (attr::INVOICED, n(25)),
            (attr::RATE, write_rate(&meter.rate)),
            (attr::NEWEST, n(7)),
            (attr::HOLDS, AttributeValue::M(HashMap::from([("h1".to_owned(), write_hold(&hold))]))),
            (attr::CLOSED, AttributeValue::Bool(true)),
            (attr::MIXED, AttributeValue::Bool(true)),
            (attr::BILLING, s(BILLING_FLAT)),
            (attr::PENDING, AttributeValue::M(pending)),
            (attr::SEQ, n(5)),
            (attr::DIRTY, shard_key(&user())),
            (attr::REQUESTS, n(11)),
            (attr::ABSORBED, n(12)),
            (attr::COST, n(13)),
        ]));
        (meter, written)
    }

    #[test]
    fn keys_are_spelled_so_that_an_account_sorts_behind_its_meters_and_meters_by_time() {
        assert_eq!(pk(&user()), s("U#user_1"));
        assert_eq!(meter_sk(START), "M#001795518000");
        assert_eq!(receipt_sk(START, &id()), "R#001795518000#h1");
        assert_eq!(report_sk(START, 4), "P#001795518000#00000004");
        assert_eq!((shard(3), shard_key(&user())), (s("D#03"), s("D#02")));
        assert_eq!(accounts_shard(3), s("A#03"));
        assert_eq!(write_account(&bare())[attr::DIRTY], s("A#02"));
        let keys = [FIRST_METER, &meter_sk(Timestamp::from_s(1)), &meter_sk(Timestamp::MAX), ACCOUNT];
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        assert!(is_account(&write_account(&bare())) && !is_account(&a_busy_meter().1));
    }

    #[test]
    fn accounts_and_meters_are_read_as_they_were_written() {
        for account in [bare(), full()] {
            assert_eq!(read_account(&write_account(&account)).unwrap(), account);
            let meter = Opening::first(account, START).unwrap().meter;
            assert_eq!(read_meter(&write_new_meter(&meter)).unwrap(), meter);
        }
        let (meter, written) = a_busy_meter();
        assert_eq!(read_meter(&written).unwrap(), meter);
        assert_eq!(read_meter_key(&written).unwrap(), MeterKey::of(&meter));
    }

    #[test]
    fn receipts_and_reports_are_read_as_they_were_written() {
        let ends = [
            settled(Usage::Exact(classes())),
            settled(Usage::Estimated(classes())),
            receipt(Outcome::Swept),
            receipt(Outcome::Void),
        ];
        for receipt in ends {
            assert_eq!(read_receipt(&write_receipt(&receipt)).unwrap(), receipt);
        }
        for (fate, name) in FATES {
            let report = Report::of((user(), START), &row(), fate, AT, Some("why"));
            let written = write_report(&report);
            assert_eq!(read_report(&written).unwrap(), report);
            assert_eq!((read_fate(&written).unwrap(), &written[attr::FATE]), (fate, &s(name)));
            assert_eq!(
                (&written[attr::PK], &written[attr::SK]),
                (&pk(&user()), &s("P#001795518000#00000004"))
            );
            assert_eq!(written[attr::AT], n(AT.ms()));
            let unnoted = Report { note: None, ..report };
            assert_eq!(read_report(&write_report(&unnoted)).unwrap(), unnoted);
        }
    }

    #[test]
    fn denials_events_and_leases_are_spelled_apart_from_everything_else() {
        let denial = Denial {
            user: user(),
            period_start: START,
            code: DenialCode::QuotaHeld,
            at: AT,
            asked: t(9),
            left: Some(t(3)),
            until: Some(START),
        };
        let written = write_denial(&denial);
        assert_eq!(read_denial(&written).unwrap().unwrap(), denial);
        let mut of_a_later_release = written.clone();
        let sk = text(&written, attr::SK).unwrap().to_owned() + "_and_more";
        of_a_later_release.insert(attr::SK.to_owned(), s(&sk));
        assert_eq!(read_denial(&of_a_later_release).unwrap(), None);
        assert_eq!(written[attr::SK], s("D#001795518000#quota_held"));
        assert_eq!(written[attr::EXPIRES_AT], expiry(AT.plus_ms(90 * 86_400_000)));
        let bare = Denial { left: None, until: None, ..denial };
        assert_eq!(read_denial(&write_denial(&bare)).unwrap().unwrap(), bare);
        check_damage(&written, &[attr::EXPIRES_AT, attr::LEFT, attr::UNTIL], read_denial);

        let event = write_event(&EventId::parse("evt_1").unwrap(), "invoice.paid", AT, START);
        assert_eq!((&event[attr::PK], &event[attr::SK]), (&s("E#evt_1"), &s("E")));
        assert_eq!((&event[attr::KIND], &event[attr::EXPIRES_AT]), (&s("invoice.paid"), &expiry(START)));

        let customer = CustomerId::parse("cus_1").unwrap();
        assert_eq!(lease_pk(&customer), s("C#cus_1"));
        let lease = Lease { customer: customer.clone(), owner: id(), fence: 7, until: AT };
        let mut written = item([(attr::OWNER, s("h1")), (attr::FENCE, n(7)), (attr::UNTIL, n(AT.ms()))]);
        assert_eq!(read_lease(&written, &customer).unwrap(), Some(lease));
        written.remove(attr::OWNER);
        assert_eq!(read_lease(&written, &customer).unwrap(), None, "given back");
    }

    #[test]
    fn a_days_budget_is_an_item_of_its_day_and_pool() {
        assert_eq!(spending_pk(Day::of(AT), Pool::Trial), s("O#2026-11-24#trial"));
        assert_eq!(spending_pk(Day::of(AT), Pool::Everyone), s("O#2026-11-24#everyone"));
        let mut written = item([(attr::LEASED, n(7)), (attr::TOLD, n(80))]);
        let told = Some(Level::FourFifths);
        assert_eq!(read_spending(&written).unwrap(), Spending { leased: money(7), told });
        check_damage(&written, &[attr::TOLD], read_spending);
        written.insert(attr::TOLD.to_owned(), n(51));
        assert!(read_spending(&written).is_err());
        written.remove(attr::TOLD);
        assert_eq!(read_spending(&written).unwrap(), Spending { leased: money(7), told: None });
    }

    fn claims() -> [Claim; 4] {
        let hold = HoldRef { period_start: START, id: id() };
        let (key, body) = (Digest::new([7; 32]), Digest::new([8; 32]));
        let begun = Claim::begin(user(), key, body, HoldId::parse("c1").unwrap(), 1_000, AT);
        let with = |state| Claim { state, ..begun.clone() };
        [
            begun.clone(),
            with(ClaimState::Running { until: AT, hold: Some(hold.clone()) }),
            with(ClaimState::Ended { hold: hold.clone(), answer: None }),
            with(ClaimState::Ended { hold, answer: Some("{}".to_owned()) }),
        ]
    }

    #[test]
    fn claims_are_read_as_they_were_written_and_a_damaged_one_is_corrupt() {
        for claim in claims() {
            let written = write_claim(&claim);
            assert_eq!(read_claim(&written).unwrap(), claim);
            assert_eq!(written[attr::EXPIRES_AT], n(claim.forget_at.ms().div_ceil(1_000)));
            // Without its hold a running claim is one that was never admitted; an answer may not be kept.
            let spared = [attr::EXPIRES_AT, attr::ANSWER, attr::HOLD, attr::PERIOD_START];
            check_damage(&written, &spared, read_claim);
        }
        let mut ended = write_claim(&claims()[3]);
        ended.remove(attr::HOLD);
        assert!(read_claim(&ended).is_err());
        assert_eq!(write_claim(&claims()[0])[attr::SK], s(&format!("I#{}", "07".repeat(32))));
        assert_eq!(write_stop(&user(), &id(), START)[attr::SK], s("S#h1"));
    }

    /// Any number is one of these: a counter, or an instant, which ends where time does.
    const ANY_NUMBER: [&str; 10] = [
        attr::UNTIL,
        attr::FORGET_AT,
        attr::REV,
        attr::SEQ,
        attr::REQUESTS,
        attr::NEWEST,
        attr::AT,
        attr::ANCHOR,
        attr::CURRENT,
        attr::PERIOD_END,
    ];

    /// Each attribute but those of `spared` in turn is lost, or has nonsense in its place.
    #[track_caller]
    fn check_damage<T>(whole: &Item, spared: &[&str], read: impl Fn(&Item) -> Result<T, StoreError>) {
        assert!(read(whole).is_ok());
        let corrupt = |damaged: &Item| read(damaged).is_err_and(|error| error.fault == Fault::Corrupt);
        for name in whole.keys().map(String::as_str).filter(|name| !spared.contains(name)) {
            let mut damaged = whole.clone();
            damaged.remove(name);
            assert!(corrupt(&damaged), "read without its {name}");
            for nonsense in [AttributeValue::Null(true), n(u64::MAX), s("?")] {
                damaged.insert(name.to_owned(), nonsense.clone());
                let number = nonsense == n(u64::MAX) && ANY_NUMBER.contains(&name);
                let fits = number || (nonsense == s("?") && name == attr::IDENTIFIER);
                assert_eq!(corrupt(&damaged), !fits, "{nonsense:?} as its {name}");
            }
        }
    }

    #[test]
    fn a_damaged_item_is_corrupt_and_never_a_zero() {
        // The absence of these says something; the key of an account is not read from it.
        let (_, meter) = a_busy_meter();
        check_damage(&meter, &[attr::CUSTOMER, attr::BILLING, attr::PENDING, attr::DIRTY], read_meter);
        let may_lack = [
            attr::CUSTOMER,
            attr::SUBSCRIPTION,
            attr::PLAN_SINCE,
            attr::ENDS_AT,
            attr::SPEND_CAP,
            attr::PAY_BY,
            attr::SK,
            attr::DIRTY,
        ];
        check_damage(&write_account(&full()), &may_lack, read_account);
        check_damage(&write_receipt(&settled(Usage::Exact(classes()))), &[], read_receipt);
        check_damage(&write_receipt(&receipt(Outcome::Void)), &[], read_receipt);
        let hold = Hold { tokens: t(40), cost_most: money(9), window: Window::from_index(7), expires_at: AT };
        let read_alone =
            |hold: &Item| read_holds(&HashMap::from([("h1".to_owned(), AttributeValue::M(hold.clone()))]));
        let AttributeValue::M(hold) = write_hold(&hold) else { panic!("a hold is a map") };
        assert!(read_alone(&hold).is_ok());
        for name in hold.keys() {
            let mut damaged = hold.clone();
            damaged.remove(name);
            assert!(read_alone(&damaged).is_err(), "a hold was read without its {name}");
        }
        let report = write_report(&Report::of((user(), START), &row(), RowFate::Parked, AT, Some("why")));
        // The number is read from the key.
        check_damage(&report, &[attr::NOTE, attr::SEQ, attr::TIMESTAMP], read_report);
        check_damage(&row_entries(&row()), &[attr::TIMESTAMP], read_row);
    }
}
