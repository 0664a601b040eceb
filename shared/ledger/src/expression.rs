//! Every update and condition that is sent to DynamoDB, each the same sentence as one `apply_*` of `domain::Meter`.

use crate::item::{
    Item, attr, classes_entries, n, s, shard_key, window_name, write_hold, write_rate, write_row,
};
use aws_sdk_dynamodb::types::AttributeValue;
use domain::{
    AccountChange, Admission, Predecessor, Release, ReportRow, RowFate, Seal, Timestamp, Tokens, UserId,
    Window,
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
    e.set(&[attr::REV], n(change.after.rev));
    e.set(&[attr::DIRTY], shard_key(user));
    e.set(&[attr::PERIOD_END], n(change.meter_period.end().s()));
    e.set(&[attr::MIXED], AttributeValue::Bool(change.meter_mixed));
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
pub(crate) fn attempt(seq: u64, at: Timestamp) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::PENDING, attr::SEQ], "=", n(seq));
    e.require_absent(&[attr::PENDING, attr::FIRST_ATTEMPT]);
    e.set(&[attr::PENDING, attr::FIRST_ATTEMPT], n(at.ms()));
    e
}

/// `Meter::apply_drop`.
pub(crate) fn drop_row(row: &ReportRow, fate: RowFate) -> Expression {
    let mut e = Expression::default();
    e.require(&[attr::PENDING, attr::SEQ], "=", n(row.seq));
    e.remove(&[attr::PENDING]);
    if fate == RowFate::Parked {
        e.add(attr::PARKED, n(row.tokens.get()));
    }
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
    use domain::{Facts, Hold, HoldId, HoldSize, NanoUsd};

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
