//! Every update and condition that is sent to DynamoDB, each the same sentence as one `apply_*` of `domain::Meter`.

use crate::item::{
    Item, STATE_RUNNING, attr, billing_name, classes_entries, expiry, fate_name, n, s, shard_key,
    window_name, write_hold, write_rate, write_row,
};
use aws_sdk_dynamodb::types::AttributeValue;
use domain::{
    AccountChange, Admission, Billing, HoldId, Lease, Level, Predecessor, Release, Report, ReportRow,
    RowFate, Seal, SliceAsk, Timestamp, Tokens, UserId, Window,
};
use std::collections::HashMap;

/// An update with its condition; every name and value in it is a placeholder.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    pub(crate) names: HashMap<String, String>,
    pub(crate) values: Item,
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    conditions: Vec<String>,
}

impl Expression {
    /// The update expression; none when there is only a condition.
    pub(crate) fn update(&self) -> Option<String> {
        let clause = |word: &str, parts: &[String]| {
            if parts.is_empty() { None } else { Some(format!("{word} {}", parts.join(", "))) }
        };
        let clauses = [clause("SET", &self.set), clause("REMOVE", &self.remove), clause("ADD", &self.add)];
        let clauses: Vec<String> = clauses.into_iter().flatten().collect();
        (!clauses.is_empty()).then(|| clauses.join(" "))
    }

    /// The condition expression.
    pub(crate) fn condition(&self) -> String {
        self.conditions.join(" AND ")
    }

    fn path(&mut self, path: &[&str]) -> String {
        let mut placeholders = Vec::with_capacity(path.len());
        for name in path {
            let known = self.names.iter().find(|(_, known)| known == name).map(|(alias, _)| alias.clone());
            placeholders.push(known.unwrap_or_else(|| {
                let alias = format!("#n{}", self.names.len());
                self.names.insert(alias.clone(), (*name).to_owned());
                alias
            }));
        }
        placeholders.join(".")
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let alias = format!(":v{}", self.values.len());
        self.values.insert(alias.clone(), value);
        alias
    }

    fn set(&mut self, path: &[&str], value: AttributeValue) {
        let (path, value) = (self.path(path), self.value(value));
        self.set.push(format!("{path} = {value}"));
    }

    fn remove(&mut self, path: &[&str]) {
        let path = self.path(path);
        self.remove.push(path);
    }

    fn add(&mut self, name: &str, value: AttributeValue) {
        let (path, value) = (self.path(&[name]), self.value(value));
        self.add.push(format!("{path} {value}"));
    }

    /// `Meter::count`.
    fn count(&mut self, tokens: Tokens, fate: RowFate) {
        match fate {
            RowFate::Parked | RowFate::Forgiven => self.add(attr::PARKED, n(tokens.get())),
            RowFate::Invoiced => self.add(attr::INVOICED, n(tokens.get())),
            RowFate::Accepted | RowFate::Retried => {}
        }
    }

    /// How the meter's period is billed.
    fn bill(&mut self, billing: Billing) {
        match billing_name(billing) {
            Some(name) => self.set(&[attr::BILLING], s(name)),
            None => self.remove(&[attr::BILLING]),
        }
    }

    /// `path <operator> value`.
    fn require(&mut self, path: &[&str], operator: &str, value: AttributeValue) {
        let (path, value) = (self.path(path), self.value(value));
        self.conditions.push(format!("{path} {operator} {value}"));
    }

    fn require_exists(&mut self, path: &[&str]) {
        let path = self.path(path);
        self.conditions.push(format!("attribute_exists({path})"));
    }

    fn require_absent(&mut self, path: &[&str]) {
        let path = self.path(path);
        self.conditions.push(format!("attribute_not_exists({path})"));
    }

    /// `path` is absent, or `path <operator> value`.
    fn require_absent_or(&mut self, path: &[&str], operator: &str, value: AttributeValue) {
        let (path, value) = (self.path(path), self.value(value));
        self.conditions.push(format!("(attribute_not_exists({path}) OR {path} {operator} {value})"));
    }
}

/// No item of this key yet.
pub(crate) fn absent() -> Expression {
    let mut e = Expression::default();
    e.require_absent(&[attr::PK]);
    e
}

/// No claim on this key yet, or one that is forgotten by `now`.
pub(crate) fn claim_is_free(now: Timestamp) -> Expression {
    let mut e = Expression::default();
    let (pk, forget_at, now) = (e.path(&[attr::PK]), e.path(&[attr::FORGET_AT]), e.value(n(now.ms())));
    e.conditions.push(format!("(attribute_not_exists({pk}) OR {forget_at} <= {now})"));
    e
}

/// `Claim::is_running_for`.
pub(crate) fn claim_is_running_for(owner: &HoldId) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::OWNER], "=", s(owner.as_str()));
    e.require(&[attr::STATE], "=", s(STATE_RUNNING));
    e
}

/// `Meter::apply_admission`.
pub(crate) fn admission(admission: &Admission) -> Expression {
    let mut e = Expression::default();
    let facts = &admission.facts;
    let (window, previous) = (window_name(admission.window), window_name(admission.window.previous()));
    let id = admission.id.as_str();

    e.require(&[attr::REV], "=", n(facts.rev));
    e.require(&[attr::CLOSED], "=", AttributeValue::Bool(false));
    e.require(&[attr::NEWEST], "<=", n(admission.window.index()));
    match facts.previous {
        Some(count) => e.require(&[attr::RATE, &previous], "=", n(u64::from(count))),
        None => e.require_absent(&[attr::RATE, &previous]),
    }
    e.require_absent_or(&[attr::RATE, &window], "<=", n(u64::from(facts.current_most)));
    e.require(&[attr::COMMITTED], "<=", n(facts.committed_most.get()));
    let (holds, most) = (e.path(&[attr::HOLDS]), e.value(n(u64::from(facts.holds_most))));
    e.conditions.push(format!("size({holds}) <= {most}"));
    e.require_absent(&[attr::HOLDS, id]);

    let (count, zero, one) = (e.path(&[attr::RATE, &window]), e.value(n(0)), e.value(n(1)));
    e.set.push(format!("{count} = if_not_exists({count}, {zero}) + {one}"));
    e.set(&[attr::HOLDS, id], write_hold(&admission.hold));
    e.set(&[attr::NEWEST], n(admission.window.index()));
    e.set(&[attr::DIRTY], shard_key(&admission.user));
    for old in &admission.forget {
        e.remove(&[attr::RATE, &window_name(*old)]);
    }
    e.add(attr::COMMITTED, n(admission.hold.tokens.get()));
    e
}

/// Whether a release takes the request out of its rate window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It stays counted.
    Kept,
    /// It is given back; the window must still be there, and not be empty.
    Returned(Window),
    /// It would be given back, but its window is gone, or empty.
    Gone(Window),
}

/// `Meter::apply_release`.
pub(crate) fn release(release: &Release, slot: Slot) -> Expression {
    let mut e = Expression::default();
    let id = release.id.as_str();
    e.require_exists(&[attr::HOLDS, id]);
    match slot {
        Slot::Kept => {}
        Slot::Returned(window) => {
            let name = window_name(window);
            e.require(&[attr::RATE, &name], ">", n(0));
            let (count, one) = (e.path(&[attr::RATE, &name]), e.value(n(1)));
            e.set.push(format!("{count} = {count} - {one}"));
        }
        Slot::Gone(window) => e.require_absent_or(&[attr::RATE, &window_name(window)], "=", n(0)),
    }
    e.remove(&[attr::HOLDS, id]);
    e.add(attr::SETTLED, n(release.charged.get()));
    e.add(attr::COMMITTED, difference(release.charged, release.hold.tokens));
    e.add(attr::REQUESTS, n(u64::from(!release.returns_slot)));
    e.add(attr::ABSORBED, n(release.absorbed.get()));
    e.add(attr::COST, n(release.cost.get()));
    for (name, tokens) in classes_entries(&release.classes) {
        if tokens > Tokens::ZERO {
            e.add(name, n(tokens.get()));
        }
    }
    e
}

fn difference(plus: Tokens, minus: Tokens) -> AttributeValue {
    match plus.checked_sub(minus) {
        Some(rise) => n(rise.get()),
        None => AttributeValue::N(format!("-{}", minus.saturating_sub(plus))),
    }
}

/// `Meter::apply_account`.
pub(crate) fn account_on_meter(change: &AccountChange, user: &UserId) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::REV], "=", n(change.before.rev));
    if let Some(most) = change.committed_most {
        e.require(&[attr::COMMITTED], "<=", n(most.get()));
    }
    e.set(&[attr::REV], n(change.after.rev));
    e.set(&[attr::DIRTY], shard_key(user));
    e.set(&[attr::PERIOD_END], n(change.meter_period.end().s()));
    e.set(&[attr::MIXED], AttributeValue::Bool(change.meter_mixed));
    e.set(&[attr::PLAN], s(change.meter_plan.as_str()));
    if change.meter_replaced {
        e.bill(Billing::Replaced);
    }
    match &change.meter_customer {
        Some(customer) => e.set(&[attr::CUSTOMER], s(customer.as_str())),
        None => e.remove(&[attr::CUSTOMER]),
    }
    e
}

/// The account is still as it was read.
pub(crate) fn account_as_read(rev: u64, current: Timestamp) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::REV], "=", n(rev));
    e.require(&[attr::CURRENT], "=", n(current.s()));
    e
}

/// The account, still as it was read, comes to point to a new meter.
pub(crate) fn point_to(rev: u64, from: Timestamp, to: Timestamp) -> Expression {
    let mut e = account_as_read(rev, from);
    e.set(&[attr::CURRENT], n(to.s()));
    e
}

/// `Meter::apply_close`.
pub(crate) fn close(predecessor: &Predecessor) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::CLOSED], "=", AttributeValue::Bool(false));
    e.require(&[attr::NEWEST], "=", n(predecessor.rate.newest.index()));
    e.require(&[attr::RATE], "=", write_rate(&predecessor.rate));
    e.set(&[attr::CLOSED], AttributeValue::Bool(true));
    e
}

/// `Meter::apply_seal`.
pub(crate) fn seal(seal: &Seal) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::REV], "=", n(seal.rev));
    e.require(&[attr::SEALED], "=", n(seal.sealed_before.get()));
    e.require(&[attr::SEQ], "=", n(seal.row.seq));
    e.require_absent(&[attr::PENDING]);
    e.set(&[attr::SEALED], n(seal.sealed_after.get()));
    e.set(&[attr::SEQ], n(seal.row.seq.saturating_add(1)));
    e.set(&[attr::PENDING], write_row(&seal.row));
    e
}

/// `Meter::apply_attempt`.
pub(crate) fn attempt(seq: u64, at: Timestamp, fence: u64) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::PENDING, attr::SEQ], "=", n(seq));
    e.require_absent_or(&[attr::PENDING, attr::FENCE], "<=", n(fence));
    let (first, value) = (e.path(&[attr::PENDING, attr::FIRST_ATTEMPT]), e.value(n(at.ms())));
    e.set.push(format!("{first} = if_not_exists({first}, {value})"));
    e.set(&[attr::PENDING, attr::LAST_ATTEMPT], n(at.ms()));
    e.set(&[attr::PENDING, attr::FENCE], n(fence));
    e
}

/// `Meter::apply_drop`.
pub(crate) fn drop_row(row: &ReportRow, fate: RowFate) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::PENDING, attr::SEQ], "=", n(row.seq));
    e.remove(&[attr::PENDING]);
    e.count(row.tokens, fate);
    e
}

/// `Meter::apply_retry`.
pub(crate) fn retry(row: &ReportRow, user: &UserId) -> Expression {
    let mut e = Expression::default();
    e.require_absent(&[attr::PENDING]);
    e.require(&[attr::SEQ], "=", n(row.seq));
    e.require(&[attr::PARKED], ">=", n(row.tokens.get()));
    e.set(&[attr::SEQ], n(row.seq.saturating_add(1)));
    e.set(&[attr::PENDING], write_row(row));
    e.set(&[attr::DIRTY], shard_key(user));
    e.add(attr::PARKED, difference(Tokens::ZERO, row.tokens));
    e
}

/// `Meter::apply_reject`.
pub(crate) fn reject(seq: u64, tokens: Tokens) -> Expression {
    let mut e = Expression::default();
    e.require_exists(&[attr::PK]);
    e.require_absent_or(&[attr::PENDING, attr::SEQ], "<>", n(seq));
    e.count(tokens, RowFate::Parked);
    e
}

/// `Meter::apply_import`.
pub(crate) fn import(report: &Report, billing: Billing) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::SEQ], "=", n(report.seq));
    e.set(&[attr::SEQ], n(report.seq.saturating_add(1)));
    for name in [attr::SETTLED, attr::COMMITTED, attr::SEALED] {
        e.add(name, n(report.tokens.get()));
    }
    e.bill(billing);
    e.count(report.tokens, report.fate);
    e
}

/// A report item of this fate, over so many tokens if that matters, has another one from now on.
pub(crate) fn move_report(
    from: RowFate,
    to: RowFate,
    tokens: Option<Tokens>,
    at: Timestamp,
    note: Option<&str>,
) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::FATE], "=", fate_name(from));
    if let Some(tokens) = tokens {
        e.require(&[attr::TOKENS], "=", n(tokens.get()));
    }
    e.set(&[attr::FATE], fate_name(to));
    e.set(&[attr::AT], n(at.ms()));
    if let Some(note) = note {
        e.set(&[attr::NOTE], s(note));
    }
    e
}

/// No denial of this kind yet, or an older one.
pub(crate) fn denial_is_the_latest(at: Timestamp) -> Expression {
    let mut e = Expression::default();
    e.require_absent_or(&[attr::AT], "<=", n(at.ms()));
    e
}

/// Nobody has the lease, or its time is out.
pub(crate) fn take_lease(owner: &HoldId, now: Timestamp, until: Timestamp) -> Expression {
    let mut e = Expression::default();
    let (had_by, had_until) = (e.path(&[attr::OWNER]), e.path(&[attr::UNTIL]));
    let now = e.value(n(now.ms()));
    e.conditions.push(format!("(attribute_not_exists({had_by}) OR {had_until} <= {now})"));
    e.set(&[attr::OWNER], s(owner.as_str()));
    e.set(&[attr::UNTIL], n(until.ms()));
    e.add(attr::FENCE, n(1));
    e
}

/// The lease is still this one. Its fence stays, so that the next one's is higher.
pub(crate) fn drop_lease(lease: &Lease) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::OWNER], "=", s(lease.owner.as_str()));
    e.require(&[attr::FENCE], "=", n(lease.fence));
    e.remove(&[attr::OWNER]);
    e.remove(&[attr::UNTIL]);
    e
}

/// `Spending::apply_lease`; none where it cannot hold. The item is kept until `forget_at`.
pub(crate) fn lease_slice(ask: &SliceAsk, forget_at: Timestamp) -> Option<Expression> {
    let mut e = Expression::default();
    e.require_absent_or(&[attr::LEASED], "<=", n(ask.leased_most()?.get()));
    e.set(&[attr::EXPIRES_AT], expiry(forget_at));
    e.add(attr::LEASED, n(ask.amount.get()));
    Some(e)
}

/// `Spending::apply_told`, of an item that is there.
pub(crate) fn note_told(level: Level) -> Expression {
    let mut e = Expression::default();
    e.require_exists(&[attr::LEASED]);
    e.require_absent_or(&[attr::TOLD], "<", n(u64::from(level.percent())));
    e.set(&[attr::TOLD], n(u64::from(level.percent())));
    e
}

/// `Meter::apply_clear`.
pub(crate) fn clear() -> Expression {
    let mut e = Expression::default();
    let (holds, none) = (e.path(&[attr::HOLDS]), e.value(n(0)));
    e.conditions.push(format!("size({holds}) = {none}"));
    e.require_absent(&[attr::PENDING]);
    let (settled, sealed, customer) =
        (e.path(&[attr::SETTLED]), e.path(&[attr::SEALED]), e.path(&[attr::CUSTOMER]));
    e.conditions.push(format!("({settled} = {sealed} OR attribute_not_exists({customer}))"));
    e.remove(&[attr::DIRTY]);
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{
        Account, Classes, CustomerId, Day, Facts, Hold, HoldSize, Meter, NanoUsd, Opening, PlanId, Pool,
    };

    /// A value as a person writes it.
    fn said(value: &AttributeValue) -> String {
        match value {
            AttributeValue::N(number) => number.clone(),
            AttributeValue::S(text) => format!("'{text}'"),
            AttributeValue::Bool(truth) => truth.to_string(),
            AttributeValue::M(map) => {
                let mut entries: Vec<_> =
                    map.iter().map(|(name, value)| format!("{name}: {}", said(value))).collect();
                entries.sort();
                format!("{{{}}}", entries.join(", "))
            }
            other => panic!("nothing here is stored as {other:?}"),
        }
    }

    /// Every placeholder replaced by what it stands for, the longest first: `#n1` is also how `#n10` begins.
    fn spelled(e: &Expression, mut sentence: String) -> String {
        let names = e.names.iter().map(|(alias, name)| (alias, name.clone()));
        let mut meanings: Vec<_> =
            names.chain(e.values.iter().map(|(alias, value)| (alias, said(value)))).collect();
        meanings.sort_by_key(|(alias, _)| std::cmp::Reverse(alias.len()));
        for (alias, meaning) in meanings {
            assert!(
                sentence.contains(alias.as_str()),
                "DynamoDB rejects {alias}, which nothing uses: {sentence}"
            );
            sentence = sentence.replace(alias.as_str(), &meaning);
        }
        sentence
    }

    /// What is written, and on which condition, word by word: a clause that is missing here is a limit that nothing
    /// enforces where several instances write.
    #[track_caller]
    fn check(e: &Expression, update: &[&str], condition: &[&str]) {
        let expected = format!("{} IF {}", update.join(" "), condition.join(" AND "));
        assert_eq!(spelled(e, format!("{} IF {}", e.update().unwrap_or_default(), e.condition())), expected);
    }

    const HOUR: Timestamp = Timestamp::from_s(3_600);

    #[test]
    fn a_claim_is_taken_when_it_is_free_and_changed_by_its_owner_while_it_runs() {
        check(&claim_is_free(HOUR), &[""], &["(attribute_not_exists(pk) OR forget_at_ms <= 3600000)"]);
        let owner = HoldId::parse("c1").unwrap();
        check(&claim_is_running_for(&owner), &[""], &["owner = 'c1'", "state = 'running'"]);
    }

    fn tokens(value: u32) -> Tokens {
        Tokens::from_u32(value)
    }

    fn user() -> UserId {
        UserId::parse("user_1").unwrap()
    }

    fn customer() -> CustomerId {
        CustomerId::parse("cus_1").unwrap()
    }

    fn hold() -> Hold {
        let (cost_most, window) = (NanoUsd::new(9).unwrap(), Window::from_index(7));
        Hold { tokens: tokens(40), cost_most, window, expires_at: Timestamp::from_ms(99_000) }
    }

    fn an_admission(previous: Option<u32>, forget: Vec<Window>) -> Admission {
        Admission {
            user: user(),
            period_start: HOUR,
            id: HoldId::parse("h1").unwrap(),
            hold: hold(),
            size: HoldSize { prompt: tokens(10), output: tokens(30) },
            window: Window::from_index(7),
            forget,
            facts: Facts { rev: 3, previous, current_most: 8, committed_most: tokens(960), holds_most: 9 },
        }
    }

    fn a_release(charged: u32, returns_slot: bool, classes: Classes) -> Release {
        Release {
            user: user(),
            period_start: HOUR,
            id: HoldId::parse("h1").unwrap(),
            hold: hold(),
            charged: tokens(charged),
            absorbed: tokens(2),
            cost: NanoUsd::new(5).unwrap(),
            classes,
            returns_slot,
        }
    }

    fn a_row() -> ReportRow {
        ReportRow {
            seq: 4,
            customer: customer(),
            identifier: "user_1-3600-4".to_owned(),
            tokens: tokens(30),
            timestamp: Timestamp::from_s(7_200),
            first_attempt_at: None,
            last_attempt_at: None,
            fence: 0,
        }
    }

    fn first() -> (Account, Meter) {
        let account = Account::first_seen(user(), PlanId::parse("free").unwrap(), HOUR);
        let Opening { account, meter, .. } = Opening::first(account, HOUR).unwrap();
        (account, meter)
    }

    #[test]
    fn i1_an_admission_is_conditional_on_every_fact_that_it_was_decided_on() {
        let held = "holds.h1 = {cost_nano_usd: 9, expires_ms: 99000, tokens: 40, window: 7}";
        let counted = "SET rate.7 = if_not_exists(rate.7, 0) + 1,";
        let set = format!("{counted} {held}, rate_newest = 7, dirty = 'D#02'");
        let condition = |previous| {
            [
                "rev = 3",
                "closed = false",
                "rate_newest <= 7",
                previous,
                "(attribute_not_exists(rate.7) OR rate.7 <= 8)",
                "committed <= 960",
                "size(holds) <= 9",
                "attribute_not_exists(holds.h1)",
            ]
        };
        let forget = [2, 4].map(Window::from_index).to_vec();
        let remove = "REMOVE rate.2, rate.4";
        check(
            &admission(&an_admission(Some(6), forget)),
            &[&set, remove, "ADD committed 40"],
            &condition("rate.6 = 6"),
        );
        check(
            &admission(&an_admission(None, Vec::new())),
            &[&set, "ADD committed 40"],
            &condition("attribute_not_exists(rate.6)"),
        );
    }

    #[test]
    fn i3_a_release_is_conditional_on_its_hold_and_moves_the_meter_by_its_receipt() {
        let classes = Classes { input: tokens(12), reasoning: tokens(20), ..Classes::default() };
        check(
            &release(&a_release(30, false, classes), Slot::Kept),
            &[
                "REMOVE holds.h1",
                "ADD settled 30, committed -10, requests 1, absorbed 2, cost_nano_usd 5, input 12, reasoning 20",
            ],
            &["attribute_exists(holds.h1)"],
        );
        let all = [1, 2, 3, 4, 5].map(tokens);
        let [input, cached_input, cache_write, output, reasoning] = all;
        let classes = Classes { input, cached_input, cache_write, output, reasoning };
        check(
            &release(&a_release(40, false, classes), Slot::Kept),
            &[
                "REMOVE holds.h1",
                "ADD settled 40, committed 0, requests 1, absorbed 2, cost_nano_usd 5,",
                "input 1, cached_input 2, cache_write 3, output 4, reasoning 5",
            ],
            &["attribute_exists(holds.h1)"],
        );
    }

    #[test]
    fn i4_a_void_gives_its_slot_back_where_there_is_one() {
        let void = a_release(0, true, Classes::default());
        let window = Window::from_index(7);
        let rest =
            ["REMOVE holds.h1", "ADD settled 0, committed -40, requests 0, absorbed 2, cost_nano_usd 5"];
        check(
            &release(&void, Slot::Returned(window)),
            &["SET rate.7 = rate.7 - 1", rest[0], rest[1]],
            &["attribute_exists(holds.h1)", "rate.7 > 0"],
        );
        check(
            &release(&void, Slot::Gone(window)),
            &rest,
            &["attribute_exists(holds.h1)", "(attribute_not_exists(rate.7) OR rate.7 = 0)"],
        );
    }

    #[test]
    fn a_change_of_the_account_confirms_its_meter_anew_and_has_it_looked_at() {
        let (account, meter) = first();
        let change = AccountChange::new(account.clone(), account.clone(), &meter);
        check(
            &account_on_meter(&change, &user()),
            &[
                "SET rev = 2, dirty = 'D#02', period_end_s = 2682000, mixed = false, plan = 'free'",
                "REMOVE customer",
            ],
            &["rev = 1"],
        );
        let within = change.clone().within(Some(tokens(70)));
        check(
            &account_on_meter(&within, &user()),
            &[
                "SET rev = 2, dirty = 'D#02', period_end_s = 2682000, mixed = false, plan = 'free'",
                "REMOVE customer",
            ],
            &["rev = 1", "committed <= 70"],
        );
        let replaced = AccountChange { meter_replaced: true, ..change.clone() };
        check(
            &account_on_meter(&replaced, &user()),
            &[
                "SET rev = 2, dirty = 'D#02', period_end_s = 2682000, mixed = false, plan = 'free', billing = 'replaced'",
                "REMOVE customer",
            ],
            &["rev = 1"],
        );
        let paid = AccountChange { meter_customer: Some(customer()), meter_mixed: true, ..change };
        check(
            &account_on_meter(&paid, &user()),
            &[
                "SET rev = 2, dirty = 'D#02', period_end_s = 2682000, mixed = true, plan = 'free', customer = 'cus_1'",
            ],
            &["rev = 1"],
        );
        check(&account_as_read(5, HOUR), &[""], &["rev = 5", "current_s = 3600"]);
        let to = Timestamp::from_s(7_200);
        check(&point_to(5, HOUR, to), &["SET current_s = 7200"], &["rev = 5", "current_s = 3600"]);
        check(&absent(), &[""], &["attribute_not_exists(pk)"]);
    }

    #[test]
    fn f22_a_meter_closes_only_with_the_rate_windows_that_its_successor_took_over() {
        let (_, mut meter) = first();
        meter.rate.newest = Window::from_index(7);
        meter.rate.counts = [(6, 2), (7, 1)].map(|(index, n)| (Window::from_index(index), n)).into();
        let predecessor = Predecessor { start: HOUR, rate: meter.rate };
        check(
            &close(&predecessor),
            &["SET closed = true"],
            &["closed = false", "rate_newest = 7", "rate = {6: 2, 7: 1}"],
        );
    }

    #[test]
    fn f23_a_row_is_sealed_noted_and_dropped_only_as_the_row_that_it_is() {
        let sealed = Seal { rev: 3, sealed_before: tokens(70), sealed_after: tokens(100), row: a_row() };
        let row = "{customer: 'cus_1', identifier: 'user_1-3600-4', seq: 4, timestamp_s: 7200, tokens: 30}";
        check(
            &seal(&sealed),
            &[&format!("SET sealed = 100, seq = 5, pending = {row}")],
            &["rev = 3", "sealed = 70", "seq = 4", "attribute_not_exists(pending)"],
        );
        check(
            &attempt(4, Timestamp::from_ms(7_200_001), 6),
            &[
                "SET pending.first_attempt_ms = if_not_exists(pending.first_attempt_ms, 7200001),",
                "pending.last_attempt_ms = 7200001, pending.fence = 6",
            ],
            &["pending.seq = 4", "(attribute_not_exists(pending.fence) OR pending.fence <= 6)"],
        );
        check(&drop_row(&a_row(), RowFate::Accepted), &["REMOVE pending"], &["pending.seq = 4"]);
        let parked = ["REMOVE pending", "ADD parked 30"];
        check(&drop_row(&a_row(), RowFate::Parked), &parked, &["pending.seq = 4"]);
        check(&drop_row(&a_row(), RowFate::Forgiven), &parked, &["pending.seq = 4"]);
        let invoiced = ["REMOVE pending", "ADD invoiced 30"];
        check(&drop_row(&a_row(), RowFate::Invoiced), &invoiced, &["pending.seq = 4"]);
    }

    #[test]
    fn a_report_item_moves_from_the_fate_that_it_has_and_its_meter_with_it() {
        let at = Timestamp::from_ms(7_200_001);
        let row = "{customer: 'cus_1', identifier: 'user_1-3600-4', seq: 4, timestamp_s: 7200, tokens: 30}";
        check(
            &retry(&a_row(), &user()),
            &[&format!("SET seq = 5, pending = {row}, dirty = 'D#02' ADD parked -30")],
            &["attribute_not_exists(pending)", "seq = 4", "parked >= 30"],
        );
        check(
            &reject(4, tokens(30)),
            &["ADD parked 30"],
            &["attribute_exists(pk)", "(attribute_not_exists(pending.seq) OR pending.seq <> 4)"],
        );
        check(
            &move_report(RowFate::Parked, RowFate::Retried, Some(tokens(30)), at, None),
            &["SET fate = 'retried', at_ms = 7200001"],
            &["fate = 'parked'", "tokens = 30"],
        );
        check(
            &move_report(RowFate::Parked, RowFate::Forgiven, None, at, Some("why")),
            &["SET fate = 'forgiven', at_ms = 7200001, note = 'why'"],
            &["fate = 'parked'"],
        );
        let report = Report::of((user(), HOUR), &a_row(), RowFate::Accepted, at, None);
        check(
            &import(&report, Billing::Metered),
            &["SET seq = 5 REMOVE billing ADD settled 30, committed 30, sealed 30"],
            &["seq = 4"],
        );
        let invoiced = Report { fate: RowFate::Invoiced, ..report };
        check(
            &import(&invoiced, Billing::Item),
            &["SET seq = 5, billing = 'item' ADD settled 30, committed 30, sealed 30, invoiced 30"],
            &["seq = 4"],
        );
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_and_its_fence_only_rises() {
        let owner = HoldId::parse("r1").unwrap();
        let until = Timestamp::from_s(3_660);
        check(
            &take_lease(&owner, HOUR, until),
            &["SET owner = 'r1', until_ms = 3660000 ADD fence 1"],
            &["(attribute_not_exists(owner) OR until_ms <= 3600000)"],
        );
        let lease = Lease { customer: customer(), owner, fence: 7, until };
        check(&drop_lease(&lease), &["REMOVE owner, until_ms"], &["owner = 'r1'", "fence = 7"]);
        check(&denial_is_the_latest(HOUR), &[""], &["(attribute_not_exists(at_ms) OR at_ms <= 3600000)"]);
    }

    #[test]
    fn f20_a_slice_is_leased_only_where_its_budget_has_it_and_a_level_is_told_of_once() {
        let (amount, ceiling) = (NanoUsd::new(5).unwrap(), NanoUsd::new(100).unwrap());
        let ask = SliceAsk { pool: Pool::Trial, day: Day::of(HOUR), amount, ceiling };
        check(
            &lease_slice(&ask, HOUR).unwrap(),
            &["SET expires_at = 3600 ADD leased_nano_usd 5"],
            &["(attribute_not_exists(leased_nano_usd) OR leased_nano_usd <= 95)"],
        );
        assert!(lease_slice(&SliceAsk { amount: NanoUsd::new(101).unwrap(), ..ask }, HOUR).is_none());
        check(
            &note_told(Level::FourFifths),
            &["SET told_percent = 80"],
            &[
                "attribute_exists(leased_nano_usd)",
                "(attribute_not_exists(told_percent) OR told_percent < 80)",
            ],
        );
    }

    #[test]
    fn f24_a_meter_is_cleared_only_where_nothing_is_left_to_report() {
        let reported = "(settled = sealed OR attribute_not_exists(customer))";
        check(&clear(), &["REMOVE dirty"], &["size(holds) = 0", "attribute_not_exists(pending)", reported]);
    }

    /// DynamoDB's published limits: 4 KB an expression, 300 operators, 255 bytes a placeholder.
    #[test]
    fn the_largest_admission_stays_within_the_limits_of_an_expression() {
        let id = HoldId::parse(&"h".repeat(HoldId::LENGTH_MAX)).unwrap();
        let window = Window::from_index(u64::MAX);
        let largest = Admission {
            user: UserId::parse(&"u".repeat(UserId::LENGTH_MAX)).unwrap(),
            period_start: Timestamp::MAX,
            id,
            hold: Hold { tokens: Tokens::MAX, cost_most: NanoUsd::MAX, window, expires_at: Timestamp::MAX },
            size: HoldSize { prompt: Tokens::MAX, output: Tokens::ZERO },
            window,
            forget: (0..4).map(Window::from_index).collect(),
            facts: Facts {
                rev: u64::MAX,
                previous: Some(u32::MAX),
                current_most: u32::MAX,
                committed_most: Tokens::MAX,
                holds_most: 64,
            },
        };
        let e = admission(&largest);
        let (update, condition) = (e.update().unwrap(), e.condition());
        assert!(update.len() < 4_096 && condition.len() < 4_096, "{update}\n{condition}");
        let operators = |text: &str| text.matches(['=', '<', '+', '(', ',']).count();
        assert!(operators(&update) + operators(&condition) < 300);
        assert!(e.names.values().all(|name| name.len() <= 255));
    }
}
