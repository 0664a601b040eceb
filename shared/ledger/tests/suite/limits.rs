//! DynamoDB's published limits, held against every request that the ledger sends and every item that it leaves.
//!
//! Source: Amazon DynamoDB Developer Guide, "Quotas and limits in Amazon DynamoDB" and "DynamoDB item sizes and
//! formats". A KB is 1,024 bytes there.

use serde_json::Value;

const KB: usize = 1_024;

/// Bytes of an item, names included.
const ITEM_BYTES_MAX: usize = 400 * KB;
/// Bytes of one expression.
const EXPRESSION_BYTES_MAX: usize = 4 * KB;
/// Operators and functions in one update expression; held here against every expression.
const OPERATORS_MAX: usize = 300;
/// Operands of `IN`.
const IN_OPERANDS_MAX: usize = 100;
/// Bytes of one placeholder, `#name` or `:value`.
const PLACEHOLDER_BYTES_MAX: usize = 255;
/// Bytes of all names and values that are substituted into an expression.
const SUBSTITUTED_BYTES_MAX: usize = 2 * KB * KB;
/// Bytes of an attribute's name that is part of a key; of any other 64 KB.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a partition key's value.
const PARTITION_KEY_BYTES_MAX: usize = 2_048;
/// Bytes of a sort key's value.
const SORT_KEY_BYTES_MAX: usize = 1_024;
/// Levels of nesting.
const NESTING_MAX: usize = 32;
/// Significant digits of a number.
const DIGITS_MAX: usize = 38;
/// Items of one transaction.
const TRANSACTION_ITEMS_MAX: usize = 100;
/// Bytes of all items of one transaction.
const TRANSACTION_BYTES_MAX: usize = 4 * KB * KB;
/// Bytes of the token that makes a transaction's repeat harmless.
const TOKEN_BYTES_MAX: usize = 36;

/// Bytes of an item that we allow ourselves, a tenth of DynamoDB's: each write of it costs a unit a KB, and one item
/// takes about 1,000 units a second.
pub(crate) const OUR_ITEM_BYTES_MAX: usize = ITEM_BYTES_MAX / 10;

/// What is wrong with a request by the limits above.
pub(crate) fn check(operation: &str, body: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    check_part(body, &mut wrong);
    if let Some(items) = body.get("TransactItems").and_then(Value::as_array) {
        hold(&mut wrong, "items of a transaction", items.len(), TRANSACTION_ITEMS_MAX);
        let mut bytes = 0;
        for part in items.iter().filter_map(Value::as_object).flat_map(serde_json::Map::values) {
            check_part(part, &mut wrong);
            bytes += part.to_string().len();
        }
        hold(&mut wrong, "bytes of a transaction", bytes, TRANSACTION_BYTES_MAX);
        let token = body.get("ClientRequestToken").and_then(Value::as_str).unwrap_or_default();
        hold(&mut wrong, "bytes of a transaction's token", token.len(), TOKEN_BYTES_MAX);
        if token.is_empty() {
            wrong.push("a transaction without a token".to_owned());
        }
    }
    wrong.into_iter().map(|what| format!("{operation}: {what}")).collect()
}

fn hold(wrong: &mut Vec<String>, what: &str, found: usize, most: usize) {
    if found > most {
        wrong.push(format!("{found} {what}, at most {most}"));
    }
}

/// One request, or one part of a transaction.
fn check_part(part: &Value, wrong: &mut Vec<String>) {
    for name in ["UpdateExpression", "ConditionExpression", "KeyConditionExpression", "FilterExpression"] {
        if let Some(expression) = part.get(name).and_then(Value::as_str) {
            hold(wrong, &format!("bytes of {name}"), expression.len(), EXPRESSION_BYTES_MAX);
            hold(wrong, &format!("operators of {name}"), operators(expression), OPERATORS_MAX);
            if let Some((_, list)) = expression.split_once(" IN (") {
                hold(wrong, "operands of IN", list.matches(',').count() + 1, IN_OPERANDS_MAX);
            }
        }
    }
    let mut substituted = 0;
    for (placeholder, name) in entries(part, "ExpressionAttributeNames") {
        let name = name.as_str().unwrap_or_default();
        hold(wrong, "bytes of a placeholder", placeholder.len(), PLACEHOLDER_BYTES_MAX);
        hold(wrong, "bytes of a name", name.len(), NAME_BYTES_MAX);
        substituted += placeholder.len() + name.len();
    }
    for (placeholder, value) in entries(part, "ExpressionAttributeValues") {
        hold(wrong, "bytes of a placeholder", placeholder.len(), PLACEHOLDER_BYTES_MAX);
        substituted += placeholder.len() + size_of(value);
        check_value(value, 1, wrong);
    }
    hold(wrong, "bytes substituted", substituted, SUBSTITUTED_BYTES_MAX);
    for key in ["Key", "Item", "ExclusiveStartKey"] {
        let of = |name: &str| part.get(key).and_then(|item| item.pointer(name)?.as_str()).map_or(0, str::len);
        hold(wrong, "bytes of a partition key", of("/pk/S"), PARTITION_KEY_BYTES_MAX);
        hold(wrong, "bytes of a sort key", of("/sk/S"), SORT_KEY_BYTES_MAX);
        hold(wrong, "bytes of the index's key", of("/dirty/S"), PARTITION_KEY_BYTES_MAX);
    }
    if let Some(item) = part.get("Item") {
        hold(wrong, "bytes of an item", item_bytes(item), OUR_ITEM_BYTES_MAX);
        for (_, value) in entries(part, "Item") {
            check_value(value, 1, wrong);
        }
    }
}

fn entries<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    of.get(name).and_then(Value::as_object).into_iter().flatten()
}

/// Every operator and function of an expression, generously: more than DynamoDB counts.
fn operators(expression: &str) -> usize {
    let symbols = expression.matches(['=', '<', '>', '+', '-', '(', ',']).count();
    let words = [" AND ", " OR ", "NOT ", " BETWEEN ", " IN "];
    symbols + words.iter().map(|word| expression.matches(word).count()).sum::<usize>()
}

fn check_value(value: &Value, depth: usize, wrong: &mut Vec<String>) {
    hold(wrong, "levels of nesting", depth, NESTING_MAX);
    if let Some(number) = value.get("N").and_then(Value::as_str) {
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        hold(wrong, "digits of a number", digits, DIGITS_MAX);
    }
    for (name, inner) in entries(value, "M") {
        hold(wrong, "bytes of a name", name.len(), NAME_BYTES_MAX);
        check_value(inner, depth + 1, wrong);
    }
}

/// The size of an item as DynamoDB counts it.
pub(crate) fn item_bytes(item: &Value) -> usize {
    item.as_object().into_iter().flatten().map(|(name, value)| name.len() + size_of(value)).sum()
}

/// The size of a value: of text its bytes, of a number a byte for two digits and one more, of a map three bytes and one
/// more for each entry.
fn size_of(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|tagged| tagged.iter().next()) else { return 0 };
    match kind.as_str() {
        "S" => value.as_str().map_or(0, str::len),
        "N" => value.as_str().map_or(0, |number| number.len() / 2 + 2),
        "M" => {
            let entries = value.as_object().into_iter().flatten();
            3 + entries.map(|(name, value)| name.len() + size_of(value) + 1).sum::<usize>()
        }
        _ => 1,
    }
}
