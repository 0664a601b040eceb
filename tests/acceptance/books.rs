//! The judgement: whether a quiet table, its own totals and Stripe's count agree to the token.
//!
//! Owns no arithmetic of the product's: it adds up what is stored. It must never ask the product whether the product is right.

use crate::support::number;
use local::{cloud::Cloud, stripe::MeterEventView};
use serde_json::Value;
use std::collections::BTreeMap;

/// What every receipt and its meter have in common: the receipts' sums are the meter's totals.
const CLASSES: [&str; 5] = ["input", "cached_input", "cache_write", "output", "reasoning"];

/// The table, sorted by what its items are.
pub(crate) struct Books {
    meters: Vec<Value>,
    receipts: Vec<Value>,
    reports: Vec<Value>,
}

fn key<'a>(item: &'a Value, name: &str) -> &'a str {
    item[name].as_str().unwrap()
}

/// The period of an item, which is the part of its sort key behind the kind.
fn period(item: &Value) -> &str {
    key(item, "sk").split('#').nth(1).unwrap()
}

/// The last part of a sort key: a receipt's hold, a report's number.
pub(crate) fn last(item: &Value) -> &str {
    key(item, "sk").rsplit('#').next().unwrap()
}

fn or_zero(item: &Value, name: &str) -> u64 {
    if item.get(name).is_some() { number(item, name) } else { 0 }
}

impl Books {
    /// Reads the table as it is now.
    pub(crate) fn read(cloud: &Cloud) -> Self {
        let all = cloud.dynamo().unwrap().scan().unwrap();
        let of_kind = |kind: &str| -> Vec<Value> {
            all.iter().filter(|item| key(item, "sk").starts_with(kind)).cloned().collect()
        };
        Self { meters: of_kind("M#"), receipts: of_kind("R#"), reports: of_kind("P#") }
    }

    /// The receipt of a request.
    pub(crate) fn receipt(&self, id: &str) -> Option<&Value> {
        self.receipts.iter().find(|receipt| last(receipt) == id)
    }

    /// All receipts.
    pub(crate) fn receipts(&self) -> &[Value] {
        &self.receipts
    }

    /// The meter of a user who has one.
    pub(crate) fn meter(&self, user: &str) -> &Value {
        let mut of_user = self.meters.iter().filter(|meter| key(meter, "pk") == format!("U#{user}"));
        let meter = of_user.next().unwrap();
        assert!(of_user.next().is_none(), "{user} has more than one meter");
        meter
    }

    /// Whether a row was reported exactly as it was sealed.
    pub(crate) fn has_reported(&self, row: &Value) -> bool {
        let names = ["seq", "customer", "identifier", "tokens", "timestamp_s"];
        self.reports.iter().any(|report| names.iter().all(|name| report[name] == row[name]))
    }

    /// The open holds: when each expires, in milliseconds since 1970.
    pub(crate) fn holds(&self) -> BTreeMap<String, u64> {
        let holds = self.meters.iter().flat_map(|meter| meter["holds"].as_object().unwrap());
        holds.map(|(id, hold)| (id.clone(), number(hold, "expires_ms"))).collect()
    }

    /// Receipts, totals and report rows agree, whatever is still open; answers what is settled by user.
    pub(crate) fn agree(&self) -> BTreeMap<String, u64> {
        let mut settled = BTreeMap::new();
        for meter in &self.meters {
            let of_meter =
                |item: &&Value| (key(item, "pk"), period(item)) == (key(meter, "pk"), period(meter));
            let receipts: Vec<&Value> = self.receipts.iter().filter(of_meter).collect();
            let sum = |name: &str| receipts.iter().map(|receipt| or_zero(receipt, name)).sum::<u64>();
            let open = meter["holds"].as_object().unwrap();
            // A receipt is put before its hold is released: what it says is not on the meter yet.
            let ahead = |name: &str| {
                let waiting = receipts.iter().filter(|receipt| open.contains_key(last(receipt)));
                waiting.map(|receipt| or_zero(receipt, name)).sum::<u64>()
            };
            let owner = format!("{} {}", key(meter, "pk"), key(meter, "sk"));
            assert_eq!(number(meter, "settled"), sum("charged") - ahead("charged"), "settled of {owner}");
            for name in ["absorbed", "cost_nano_usd"].into_iter().chain(CLASSES) {
                assert_eq!(number(meter, name), sum(name) - ahead(name), "{name} of {owner}");
            }
            let made = |receipt: &&&Value| receipt["outcome"] != "void" && !open.contains_key(last(receipt));
            assert_eq!(number(meter, "requests"), receipts.iter().filter(made).count() as u64, "{owner}");
            let held: u64 = open.values().map(|hold| number(hold, "tokens")).sum();
            assert_eq!(number(meter, "committed"), number(meter, "settled") + held, "committed of {owner}");
            let reports: Vec<&Value> = self.reports.iter().filter(of_meter).collect();
            let told = |fate: &str| {
                let of_fate = reports.iter().filter(|report| report["fate"] == fate);
                of_fate.map(|report| number(report, "tokens")).sum::<u64>()
            };
            let pending = &meter["pending"];
            let is_told = reports
                .iter()
                .any(|report| number(report, "seq") == pending["seq"].as_u64().unwrap_or(u64::MAX));
            let waiting = if pending.is_null() || is_told { 0 } else { number(pending, "tokens") };
            assert_eq!(
                number(meter, "sealed"),
                told("accepted") + told("parked") + waiting,
                "sealed of {owner}"
            );
            *settled.entry(key(meter, "pk")[2..].to_owned()).or_default() += number(meter, "settled");
        }
        let metered = |item: &Value| {
            self.meters
                .iter()
                .any(|meter| (key(meter, "pk"), period(meter)) == (key(item, "pk"), period(item)))
        };
        assert!(self.receipts.iter().chain(&self.reports).all(metered), "an item without its meter");
        settled
    }

    /// Nothing is open, everything was reported, and Stripe counted exactly that, each row once and as it was sealed.
    /// `customers`: who pays for which user; the others pay nothing. Answers what is settled by user.
    pub(crate) fn balance(
        &self,
        cloud: &Cloud,
        customers: &BTreeMap<String, String>,
    ) -> BTreeMap<String, u64> {
        let settled = self.agree();
        for meter in &self.meters {
            assert!(meter["holds"].as_object().unwrap().is_empty(), "a hold is open: {meter}");
            assert!(
                meter["pending"].is_null() && meter["dirty"].is_null(),
                "something is left to do: {meter}"
            );
            let pays = customers.contains_key(&key(meter, "pk")[2..]);
            let sealed = if pays { number(meter, "settled") } else { 0 };
            assert_eq!((number(meter, "sealed"), number(meter, "parked")), (sealed, 0), "{meter}");
        }
        let stripe = cloud.stripe().unwrap();
        for (user, customer) in customers {
            let used = settled.get(user).copied().unwrap_or_default();
            assert_eq!(stripe.counted(customer, i64::MIN, i64::MAX), used, "Stripe's count of {user}");
        }
        let row = |report: &Value| {
            let names = ["value", "timestamp"]
                .into_iter()
                .zip([number(report, "tokens"), number(report, "timestamp_s")]);
            (
                key(report, "identifier").to_owned(),
                key(report, "customer").to_owned(),
                names.collect::<Vec<_>>(),
            )
        };
        let event = |event: MeterEventView| {
            let names = [("value", event.value), ("timestamp", u64::try_from(event.timestamp_s).unwrap())];
            (event.identifier, event.customer, names.to_vec())
        };
        let mut rows: Vec<_> = self.reports.iter().map(row).collect();
        let mut events: Vec<_> = stripe.meter_events().into_iter().map(event).collect();
        rows.sort();
        events.sort();
        assert_eq!(rows, events, "each row is one event of Stripe's, as it was sealed");
        assert!(stripe.rejected_meter_events().is_empty());
        settled
    }
}
