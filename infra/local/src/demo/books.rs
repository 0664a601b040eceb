//! The judgement: what the table, Stripe and the clients say, held against each other.

use std::{collections::BTreeMap, io};

use serde_json::Value;

use super::cast::{BUSY, CAPPED, HASTY, OVERRUN, Scene};
use super::client::End;
use super::{ByUser, DemoError, Ids};
use crate::cloud::Catalog;
use crate::stripe::{InvoiceStatus, InvoiceView};

const NANO_USD_IN_A_CENT: u128 = 10_000_000;
const MILLION: u128 = 1_000_000;

/// One user's figures.
#[derive(Clone, Debug, Default)]
struct Account {
    customer: Option<String>,
    /// When the period that is billed ends, in Unix seconds.
    period_end_s: i64,
    requests: u64,
    /// Charged tokens of all receipts, and of those of the period that is billed.
    receipts: u64,
    receipts_billed: u64,
    absorbed: u64,
    settled: u64,
    counted: u64,
    invoice_cents: Option<i64>,
    final_invoice: bool,
}

/// What was seen, while it was played.
#[derive(Debug)]
pub(super) struct Books {
    catalog: Catalog,
    accounts: ByUser<Account>,
    /// Charged tokens by receipt, as the table says.
    stored: ByUser<u64>,
    /// Receipts as clients were told.
    told: ByUser<u64>,
    cut: u64,
    left: u64,
    refused: Vec<(String, u16, String)>,
    breaches: Ids,
    reports: Vec<Value>,
    leftovers: u64,
    /// Receipts of requests that nobody saw the end of.
    swept: u64,
}

/// What it all came to.
#[derive(Debug)]
pub struct Summary {
    books: Books,
    requests: u64,
    tokens: u64,
    drift: u64,
    wrong_invoices: Vec<String>,
}

impl Books {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            accounts: ByUser::new(),
            stored: ByUser::new(),
            told: ByUser::new(),
            cut: 0,
            left: 0,
            refused: Vec::new(),
            breaches: Ids::new(),
            reports: Vec::new(),
            leftovers: 0,
            swept: 0,
        }
    }

    pub(super) fn expect_customer(&mut self, user: &str, customer: &str, period_end_s: i64) {
        let account = self.accounts.entry(user.to_owned()).or_default();
        (account.customer, account.period_end_s) = (Some(customer.to_owned()), period_end_s);
    }

    pub(super) fn customers(&self) -> Vec<String> {
        self.accounts.values().filter_map(|account| account.customer.clone()).collect()
    }

    pub(super) fn saw(&mut self, ends: Vec<(String, Scene, End)>) {
        for (user, _, end) in ends {
            self.accounts.entry(user.clone()).or_default().requests += 1;
            match end {
                End::Finished { receipt, charged } => {
                    self.told.insert(receipt, charged);
                }
                End::Left => self.left += 1,
                End::Cut => self.cut += 1,
                End::Refused { status, code } => self.refused.push((user, status, code)),
            }
        }
    }

    pub(super) fn reported(&mut self, answer: &Value) {
        self.reports.push(answer.clone());
    }

    /// Notes every meter that has more committed than its user's plan allows.
    pub(super) fn look_at_caps(&mut self, items: &[Value]) -> Result<(), DemoError> {
        for item in items {
            let Some((user, key)) = keys(item)? else { continue };
            if !key.starts_with("M#") {
                continue;
            }
            let subscribes = self.accounts.get(&user).is_some_and(|account| account.customer.is_some());
            let pro = self.catalog.plans.values().next().filter(|_| subscribes);
            let cap = pro.map_or(self.catalog.first_cap_tokens, |pro| pro.cap_tokens);
            if number(item, "committed")? > cap {
                self.breaches.insert(format!("{user} {key}"));
            }
        }
        Ok(())
    }

    /// Reads the table as it was left.
    pub(super) fn read(&mut self, items: &[Value]) -> Result<(), DemoError> {
        self.look_at_caps(items)?;
        // Periods by their meters: a receipt names only its period's start.
        let mut ends = BTreeMap::new();
        for item in items {
            if let Some((user, key)) = keys(item)?
                && let Some(start) = key.strip_prefix("M#")
            {
                ends.insert((user, start.to_owned()), number(item, "period_end_s")?);
            }
        }
        for item in items {
            let Some((user, key)) = keys(item)? else { continue };
            let account = self.accounts.entry(user.clone()).or_default();
            if let Some(rest) = key.strip_prefix("R#") {
                let charged = number(item, "charged")?;
                account.receipts += charged;
                account.absorbed += number(item, "absorbed")?;
                self.swept += u64::from(text(item, "outcome")? == "swept");
                let (start, id) = rest.split_once('#').ok_or_else(|| DemoError::Item(key.clone()))?;
                let end = ends.get(&(user, start.to_owned()));
                if end.and_then(|end| i64::try_from(*end).ok()) == Some(account.period_end_s) {
                    account.receipts_billed += charged;
                }
                self.stored.insert(id.to_owned(), charged);
            } else if key.starts_with("M#") {
                account.settled += number(item, "settled")?;
                let held = number(item, "committed")? - number(item, "settled")?;
                let pending = u64::from(item.get("pending").is_some());
                self.leftovers += held + pending;
            }
        }
        Ok(())
    }

    /// What Stripe counted and billed for a customer.
    pub(super) fn billed(&mut self, customer: &str, counted: u64, invoices: Vec<InvoiceView>) {
        let of = |account: &&mut Account| account.customer.as_deref() == Some(customer);
        let Some(account) = self.accounts.values_mut().find(of) else { return };
        account.counted = counted;
        let end_s = account.period_end_s;
        let cycle = |invoice: &InvoiceView| {
            invoice.period_end_s == end_s && invoice.period_end_s > invoice.period_start_s
        };
        if let Some(invoice) = invoices.into_iter().find(cycle) {
            account.invoice_cents = Some(invoice.total_cents);
            account.final_invoice = invoice.status != InvoiceStatus::Draft;
        }
    }

    pub(super) fn judge(self, requests: u64) -> Summary {
        let mut drift = self.leftovers;
        let mut wrong_invoices = Vec::new();
        for (user, account) in &self.accounts {
            drift += account.receipts.abs_diff(account.settled);
            if account.customer.is_some() {
                drift += account.settled.abs_diff(account.counted);
                let right = expected_cents(&self.catalog, account.receipts_billed);
                if account.invoice_cents != right || !account.final_invoice {
                    wrong_invoices.push(format!("{user}: {:?} for {right:?}", account.invoice_cents));
                }
            }
        }
        for (receipt, charged) in &self.told {
            drift += self.stored.get(receipt).map_or(*charged, |stored| stored.abs_diff(*charged));
        }
        let tokens = self.accounts.values().map(|account| account.receipts).sum();
        Summary { books: self, requests, tokens, drift, wrong_invoices }
    }

    fn is_refused(&self, name: &str, status: u16, code: &str) -> bool {
        let user = crate::clerk::user_id(name).unwrap_or_default();
        self.refused.iter().any(|(who, had, why)| *who == user && *had == status && why == code)
    }

    fn account(&self, name: &str) -> Account {
        let user = crate::clerk::user_id(name).unwrap_or_default();
        self.accounts.get(&user).cloned().unwrap_or_default()
    }
}

/// When the last open hold expires, in milliseconds since 1970.
pub(super) fn held_until_ms(items: &[Value]) -> Option<i64> {
    let holds = items.iter().filter_map(|item| item.get("holds").and_then(Value::as_object));
    holds.flat_map(|holds| holds.values()).filter_map(|hold| hold.get("expires_ms")?.as_i64()).max()
}

/// The cycle's invoice: the flat price, and what is above the included tokens, rounded half up to the cent, once.
fn expected_cents(catalog: &Catalog, tokens: u64) -> Option<i64> {
    let pro = catalog.plans.values().next()?;
    let above = u128::from(tokens.saturating_sub(pro.included_tokens));
    let nano = above.checked_mul(u128::from(pro.overage_nano_usd_per_million_tokens))? / MILLION;
    let overage = (nano + NANO_USD_IN_A_CENT / 2) / NANO_USD_IN_A_CENT;
    i64::try_from(u128::from(pro.base_cents) + overage).ok()
}

impl Summary {
    /// Whether every figure agrees with every other, to the token and to the cent.
    pub fn is_right(&self) -> bool {
        self.drift == 0 && self.books.breaches.is_empty() && self.wrong_invoices.is_empty()
    }

    /// A user, a line; then what does not agree; then the last line.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_table(&self, out: &mut impl io::Write) -> io::Result<()> {
        let head = ["user", "requests", "receipts", "settled", "Stripe counted", "invoice"];
        let [user, requests, receipts, settled, counted, invoice] = head;
        writeln!(out, "{user:<24}{requests:>9}{receipts:>10}{settled:>10}{counted:>16}{invoice:>10}")?;
        for (user, account) in &self.books.accounts {
            let counted = account.customer.as_ref().map_or("-".to_owned(), |_| account.counted.to_string());
            let invoice = account.invoice_cents.map_or("-".to_owned(), dollars);
            let Account { requests, receipts, settled, .. } = account;
            writeln!(out, "{user:<24}{requests:>9}{receipts:>10}{settled:>10}{counted:>16}{invoice:>10}")?;
        }
        let Books { cut, left, refused, breaches, reports, .. } = &self.books;
        let absorbed: u64 = self.books.accounts.values().map(|account| account.absorbed).sum();
        writeln!(out, "\nclients that left: {left}, streams cut: {cut}, tokens absorbed: {absorbed}")?;
        let mut times = BTreeMap::new();
        for refusal in refused {
            *times.entry(refusal).or_insert(0_u64) += 1;
        }
        for ((user, status, code), times) in times {
            writeln!(out, "refused: {user} {status} {code}, {times} times")?;
        }
        for report in reports {
            writeln!(out, "reporter: {report}")?;
        }
        for breach in breaches {
            writeln!(out, "CAP BREACHED: {breach}")?;
        }
        for wrong in &self.wrong_invoices {
            writeln!(out, "WRONG INVOICE: {wrong}")?;
        }
        let users = self.books.accounts.len();
        let Self { requests, tokens, drift, .. } = self;
        let cap_breaches = breaches.len();
        writeln!(
            out,
            "demo: users={users} requests={requests} tokens={tokens} drift={drift} cap_breaches={cap_breaches}"
        )
    }

    /// Holds the play to its story: figures that agree prove little if nothing happened.
    pub(super) fn must_be_told(&self) -> Result<(), DemoError> {
        let books = &self.books;
        let included = books.catalog.plans.values().next().map_or(0, |pro| pro.included_tokens);
        let turns = [
            (books.left > 0, "nobody left a stream"),
            // The client of the killed process may have left before: then it is its hold that tells.
            (books.cut > 0 || books.swept > 0, "no process was killed in the middle of a stream"),
            (books.is_refused(CAPPED, 402, "quota_exceeded"), "nobody met the cap"),
            (books.is_refused(HASTY, 429, "rate_limited"), "nobody met the rate window"),
            (books.account(OVERRUN).absorbed > 0, "nothing was absorbed"),
            (books.account(BUSY).receipts > included, "nobody used more than is included"),
        ];
        match turns.into_iter().find(|(happened, _)| !happened) {
            Some((_, missing)) => Err(DemoError::Untold(missing.to_owned())),
            None => Ok(()),
        }
    }
}

fn dollars(cents: i64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

/// The user and sort key of an item; none if it is not a user's.
fn keys(item: &Value) -> Result<Option<(String, String)>, DemoError> {
    let user = text(item, "pk")?.strip_prefix("U#").map(str::to_owned);
    Ok(user.zip(Some(text(item, "sk")?.to_owned())))
}

fn text<'a>(item: &'a Value, name: &str) -> Result<&'a str, DemoError> {
    let found = item.get(name).and_then(Value::as_str);
    found.ok_or_else(|| DemoError::Item(name.to_owned()))
}

fn number(item: &Value, name: &str) -> Result<u64, DemoError> {
    item.get(name).and_then(Value::as_u64).ok_or_else(|| DemoError::Item(name.to_owned()))
}
