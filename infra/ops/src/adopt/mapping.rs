//! The mapping: which customer at Stripe is which user, and what the user has used. Every fault of a file is told at once, by
//! line; a file with one fault is not used at all.

use domain::{CustomerId, Tokens, UserId};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// Lines of a mapping, its header left out.
pub const LINES_MAX: usize = 100_000;
/// Bytes of a mapping.
pub const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Faults that are told of one file.
const FAULTS_TOLD_MAX: usize = 100;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its number in the file, from 1.
    pub line: usize,
    /// Who pays, at Stripe.
    pub customer: CustomerId,
    /// Whose it is to be, at Clerk.
    pub user: UserId,
    /// What the user has used in the current cycle by the other billing.
    pub tokens: Tokens,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the file, from 1.
    pub line: usize,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// A file that is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mapping cannot be used, and nothing was done:{}", told(.0))]
pub struct InvalidMapping(pub Vec<Fault>);

fn told(faults: &[Fault]) -> String {
    let shown = faults.iter().take(FAULTS_TOLD_MAX);
    let mut text = shown.fold(String::new(), |text, fault| format!("{text}\n  - {fault}"));
    if let Some(more) = faults.len().checked_sub(FAULTS_TOLD_MAX).filter(|more| *more > 0) {
        // Writing to a text cannot fail.
        let _written = write!(text, "\n  and {more} more");
    }
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Customer,
    User,
    Tokens,
}

/// Reads a mapping: comma-separated, with a header, without quotes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Mapped>, InvalidMapping> {
    let mut lines = text.lines().zip(1_usize..).filter(|(line, _)| !line.trim().is_empty());
    let (header, number) = lines.next().unwrap_or(("", 1));
    let columns = columns(header).map_err(|what| InvalidMapping(vec![Fault { line: number, what }]))?;
    let (mut mapped, mut faults) = (Vec::new(), Vec::new());
    let (mut customers, mut users) = (BTreeMap::new(), BTreeMap::new());
    for (text, line) in lines {
        if mapped.len() >= LINES_MAX {
            faults.push(Fault { line, what: format!("more than {LINES_MAX} customers: split the file") });
            break;
        }
        match entry(&columns, text, line) {
            Ok(entry) => {
                let twice = [
                    customers.insert(entry.customer.clone(), line).map(|first| ("customer", first)),
                    users.insert(entry.user.clone(), line).map(|first| ("user", first)),
                ];
                for (what, first) in twice.into_iter().flatten() {
                    faults.push(Fault { line, what: format!("the {what} is that of line {first}") });
                }
                mapped.push(entry);
            }
            Err(found) => faults.extend(found.into_iter().map(|what| Fault { line, what })),
        }
    }
    if mapped.is_empty() && faults.is_empty() {
        faults.push(Fault { line: number, what: "there is no customer below the header".to_owned() });
    }
    if faults.is_empty() { Ok(mapped) } else { Err(InvalidMapping(faults)) }
}

fn columns(header: &str) -> Result<Vec<Column>, String> {
    let mut columns = Vec::new();
    for name in header.trim_start_matches('\u{feff}').split(',') {
        let column = match name.trim() {
            "customer" => Column::Customer,
            "user" => Column::User,
            "tokens" => Column::Tokens,
            other => {
                return Err(format!(
                    "{other:?} is no column: it must be customer,user or customer,user,tokens"
                ));
            }
        };
        if columns.contains(&column) {
            return Err(format!("{:?} is there twice", name.trim()));
        }
        columns.push(column);
    }
    if columns.contains(&Column::Customer) && columns.contains(&Column::User) {
        Ok(columns)
    } else {
        Err("the columns customer and user have to be there".to_owned())
    }
}

fn entry(columns: &[Column], text: &str, line: usize) -> Result<Mapped, Vec<String>> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    if fields.len() != columns.len() {
        return Err(vec![format!("{} fields where the header has {}", fields.len(), columns.len())]);
    }
    let (mut customer, mut user, mut tokens) = (None, None, Ok(Tokens::ZERO));
    for (column, field) in columns.iter().zip(fields) {
        match column {
            Column::Customer => customer = Some(CustomerId::parse(field).map_err(|error| error.to_string())),
            Column::User => user = Some(UserId::parse(field).map_err(|error| error.to_string())),
            Column::Tokens => tokens = count(field),
        }
    }
    // The header has both columns.
    match (customer.unwrap_or(Err(String::new())), user.unwrap_or(Err(String::new())), tokens) {
        (Ok(customer), Ok(user), Ok(tokens)) => Ok(Mapped { line, customer, user, tokens }),
        (customer, user, tokens) => {
            Err([customer.err(), user.err(), tokens.err()].into_iter().flatten().collect())
        }
    }
}

fn count(field: &str) -> Result<Tokens, String> {
    let plain = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    let tokens = field.parse().ok().filter(|_| plain).and_then(|tokens| Tokens::new(tokens).ok());
    tokens.ok_or_else(|| format!("no number of tokens: {field:?}; it must be 0 to {}", Tokens::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let faults = parse(text).unwrap_err().0;
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_mapping_is_read_in_the_order_of_its_own_columns() {
        let read =
            parse("\u{feff}user,tokens,customer\r\nuser_1,7,cus_1\r\n\r\nuser_2, 0 ,cus_2\r\n").unwrap();
        let told: Vec<_> = read
            .iter()
            .map(|entry| (entry.line, entry.customer.as_str(), entry.user.as_str(), entry.tokens.get()))
            .collect();
        assert_eq!(told, [(2, "cus_1", "user_1", 7), (4, "cus_2", "user_2", 0)]);
        assert_eq!(parse("customer,user\ncus_1,user_1").unwrap()[0].tokens, Tokens::ZERO);
    }

    #[test]
    fn every_fault_of_a_mapping_is_told_at_once_and_by_line() {
        check("", &["line 1: \"\" is no column"]);
        check("customer,user,plan\n", &["\"plan\" is no column"]);
        check("customer,tokens\n", &["customer and user have to be there"]);
        check("customer,user,user\n", &["twice"]);
        check("customer,user\n", &["no customer below"]);
        check(
            "customer,user,tokens\ncus_1,user_1,5\ncus_1,user_2,5\ncus_3,user_1,5\ncus 4,us#er,-1\ncus_5,user_5\n\"cus_6\",user_6,1\ncus_7,user_7,1e3\n",
            &[
                "line 3: the customer is that of line 2",
                "line 4: the user is that of line 2",
                "line 5: no customer id",
                "line 5: no user id",
                "line 5: no number of tokens",
                "line 6: 2 fields",
                "line 7: no customer id",
                "line 8: no number of tokens: \"1e3\"",
            ],
        );
        check(&format!("customer,user,tokens\ncus_1,user_1,{}\n", u64::MAX), &["no number of tokens"]);
    }

    #[test]
    fn i8_a_mapping_has_a_most_of_lines() {
        let lines = (0..LINES_MAX).map(|i| format!("cus_{i},user_{i}\n"));
        let mut text: String = ["customer,user\n".to_owned()].into_iter().chain(lines).collect();
        assert_eq!(parse(&text).unwrap().len(), LINES_MAX);
        text.push_str("cus_x,user_x\n");
        check(&text, &["more than 100000 customers"]);
    }
}
