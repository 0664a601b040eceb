//! `GET /v1/receipts`: what each request cost, what was refused and why, and what came too late for its invoice.
//!
//! What a request cost follows from the tokens that came before it: the first ones are included. They count in the order of the
//! receipts, so that the costs of a period's receipts add up to what the period costs above the flat price. How far
//! down a page has come is in its cursor.
//!
//! A page and its meter are two readings, and a request may be settled between them. So the meter is read before and after the
//! page, until both say the same; and of a receipt whose hold is still open, which the meter does not count yet, no cost is said.

use crate::{
    body::invalid,
    handler::{AccountApi, not_stored},
};
use domain::{
    Billing, Classes, Denial, DenialCode, InvoiceItemId, Meter, NanoUsd, Outcome, Plan, Receipt, Report,
    RowFate, Timestamp, Tokens, Usage, UserId, overage_between,
};
use edge::{
    money::decimal_usd,
    problem::{Code, Problem},
    respond,
};
use http::{Response, StatusCode};
use lambda_http::{Body, Request, RequestExt};
use ledger::{Fault, ReceiptCursor, Store, StoreError};
use serde::Serialize;

/// The most receipts of one answer: a page of the ledger's.
const LIMIT_MAX: u16 = ledger::PAGE_MAX;
/// How many there are where nobody says.
const LIMIT_DEFAULT: u16 = 50;
/// How far back late usage is looked for, in milliseconds: two periods and what they take to be billed.
pub(crate) const LATE_MS: u64 = 100 * 24 * 60 * 60 * 1_000;
/// The most pages of report items that are read of one period with late usage.
pub(crate) const LATE_PAGES_MAX: u32 = 10;
/// How often a page is read until nothing was settled meanwhile.
const READS_MAX: u32 = 8;
/// From when on meters are read before a first page is, in milliseconds before now: the current month.
const MONTH_MS: u64 = 32 * 24 * 60 * 60 * 1_000;
/// Stands between the two parts of a cursor.
const DOT: char = '.';

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    limit: u16,
    cursor: Option<Place>,
}

/// How far down the receipts a page has come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Behind this receipt.
    behind: ReceiptCursor,
    /// Its period.
    period_start: Timestamp,
    /// Tokens of that period up to where the next page begins.
    below: Tokens,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptsWire {
    receipts: Vec<ReceiptWire>,
    denials: Vec<DenialWire>,
    late_usage: Vec<LateWire>,
    next: Option<String>,
}

/// One request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptWire {
    id: String,
    at: String,
    /// The start of the period that it is charged to.
    period_start: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ClassesWire>,
    /// Tokens that are charged.
    charged: u64,
    /// Tokens that are not.
    absorbed: u64,
    /// What it adds to the invoice, in US dollars, exact; absent where the period is too long ago to say, and in
    /// the moment in which it is being settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<String>,
}

/// As in an answer's metadata.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClassesWire {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    estimated: bool,
}

/// The latest refusal of its kind.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DenialWire {
    /// As in the problem that was answered.
    code: &'static str,
    reason: &'static str,
    at: String,
    /// The least tokens that it needed.
    needed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    /// When it would have passed, or at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

/// Usage that came too late for the invoice of its period.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LateWire {
    period_start: String,
    tokens: u64,
    at: String,
    /// The item at Stripe that puts it on the next invoice; absent where it costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    invoice_item: Option<String>,
}

impl Asked {
    fn read(request: &Request) -> Result<Self, Problem> {
        let query = request.query_string_parameters_ref();
        let given = |name| query.and_then(|query| query.first(name));
        let limit = match given("limit") {
            None => LIMIT_DEFAULT,
            Some(text) => parse_limit(text).ok_or_else(|| {
                invalid("limit", format!("`limit` must be a whole number from 1 to {LIMIT_MAX}."))
            })?,
        };
        let cursor = given("cursor").map(|text| {
            Place::parse(text).ok_or_else(|| invalid("cursor", "`cursor` must be the `next` of an answer."))
        });
        Ok(Self { limit, cursor: cursor.transpose()? })
    }
}

fn parse_limit(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|_| is_number);
    limit.filter(|limit| (1..=LIMIT_MAX).contains(limit))
}

impl Place {
    fn to_text(&self) -> String {
        format!("{}{DOT}{}{DOT}{}", self.behind.to_text(), self.period_start.ms(), self.below)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(DOT);
        let (behind, start, below) = (parts.next()?, parts.next()?, parts.next()?);
        let place = Self {
            behind: ReceiptCursor::parse(behind)?,
            period_start: Timestamp::from_ms(start.parse().ok()?),
            below: Tokens::new(below.parse().ok()?).ok()?,
        };
        (parts.next().is_none() && place.to_text() == text).then_some(place)
    }
}

impl<S: Store> AccountApi<S> {
    /// A page of receipts; the first one also has what was refused and what came late.
    pub(crate) async fn receipts(
        &self,
        user: &UserId,
        request: &Request,
        now: Timestamp,
    ) -> Result<Response<Body>, Problem> {
        let Asked { limit, cursor } = Asked::read(request)?;
        let stored = |error| not_stored(user, error);
        let Read { receipts, meters, more } =
            self.read(user, limit, cursor.as_ref(), now).await.map_err(stored)?;
        let first = cursor.is_none();
        let mut priced = Priced { meters: &meters, plans: self.ledger.plans(), place: cursor };
        let wires = receipts.iter().map(|receipt| priced.wire(receipt)).collect();
        let (denials, late_usage) = if first {
            (self.denials(user, now).await?, self.late_usage(user, now).await?)
        } else {
            (Vec::new(), Vec::new())
        };
        let next = priced.place.filter(|_| more).map(|place| place.to_text());
        Ok(respond::json(StatusCode::OK, &ReceiptsWire { receipts: wires, denials, late_usage, next }))
    }

    /// A page, and the meters as they were while it was read.
    async fn read(
        &self,
        user: &UserId,
        limit: u16,
        cursor: Option<&Place>,
        now: Timestamp,
    ) -> Result<Read, StoreError> {
        let month = Timestamp::from_ms(now.ms().saturating_sub(MONTH_MS));
        let from = cursor.map_or(month, |place| place.period_start);
        let mut before = self.ledger.meters(user, from).await?;
        for _ in 0..READS_MAX {
            let page = self.ledger.receipts(user, None, cursor.map(|place| &place.behind)).await?;
            let mut receipts = page.receipts;
            let more = receipts.len() > usize::from(limit) || page.next.is_some();
            receipts.truncate(usize::from(limit));
            let from = receipts.last().map_or(now, |last| last.period_start);
            let meters = self.ledger.meters(user, from).await?;
            let as_before = |meter: &Meter| {
                let settled = settled_in(&before, meter.period.start());
                settled == Some(meter.settled)
            };
            // The sum of the cursor's period is the cursor's to say.
            let known = cursor.map(|place| place.period_start);
            let summed = |meter: &&Meter| {
                let start = meter.period.start();
                Some(start) != known && receipts.iter().any(|receipt| receipt.period_start == start)
            };
            if meters.iter().filter(summed).all(as_before) {
                return Ok(Read { receipts, meters, more });
            }
            before = meters;
        }
        Err(StoreError::new("list receipts", Fault::Contended))
    }

    async fn denials(&self, user: &UserId, now: Timestamp) -> Result<Vec<DenialWire>, Problem> {
        let standing = self.ledger.standing(user, now).await;
        let standing = standing.map_err(|error| crate::handler::unavailable(user, &error))?;
        let start = standing.meter.period.start();
        let denials = self.ledger.denials(user, start).await.map_err(|error| not_stored(user, error))?;
        Ok(denials.iter().map(DenialWire::from).collect())
    }

    /// Usage that became an item on a later invoice, the newest first.
    async fn late_usage(&self, user: &UserId, now: Timestamp) -> Result<Vec<LateWire>, Problem> {
        let from = Timestamp::from_ms(now.ms().saturating_sub(LATE_MS));
        let stored = |error| not_stored(user, error);
        let meters = self.ledger.meters(user, from).await.map_err(stored)?;
        let mut late = Vec::new();
        for meter in meters.iter().filter(|meter| meter.invoiced > Tokens::ZERO) {
            let mut before = None;
            for _ in 0..LATE_PAGES_MAX {
                let of = Some(meter.period.start());
                let page = self.ledger.reports(user, of, before.as_ref()).await.map_err(stored)?;
                // What has no item, and is of before the period's end, was imported: somebody else's invoice has it.
                let is_late = |wire: &LateWire, report: &Report| {
                    wire.invoice_item.is_some() || report.at >= meter.period.end()
                };
                let invoiced = page.reports.iter().filter(|report| report.fate == RowFate::Invoiced);
                let wires = invoiced.map(|report| (LateWire::from(report), report));
                late.extend(wires.filter(|(wire, report)| is_late(wire, report)).map(|(wire, _)| wire));
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
        }
        Ok(late)
    }
}

fn settled_in(meters: &[Meter], start: Timestamp) -> Option<Tokens> {
    meters.iter().find(|meter| meter.period.start() == start).map(|meter| meter.settled)
}

/// A page of receipts, the meters of their periods, and whether there are older ones.
struct Read {
    receipts: Vec<Receipt>,
    meters: Vec<Meter>,
    more: bool,
}

/// Prices receipts, from the newest down.
struct Priced<'a> {
    meters: &'a [Meter],
    plans: &'a domain::Plans,
    /// How far down; none: before the newest.
    place: Option<Place>,
}

impl Priced<'_> {
    fn wire(&mut self, receipt: &Receipt) -> ReceiptWire {
        let meter = self.meters.iter().find(|meter| meter.period.start() == receipt.period_start);
        let up_to = match &self.place {
            Some(place) if place.period_start == receipt.period_start => place.below,
            Some(_) | None => meter.map_or(Tokens::ZERO, |meter| meter.settled),
        };
        let is_held = meter.is_some_and(|meter| meter.holds.contains_key(&receipt.id));
        // What was imported is billed elsewhere. It comes before all that is priced here, wherever its receipt is.
        let is_counted = !is_held && receipt.outcome != Outcome::Imported;
        let below = if is_counted { up_to.saturating_sub(receipt.charged) } else { up_to };
        self.place =
            Some(Place { behind: ReceiptCursor::after(receipt), period_start: receipt.period_start, below });
        // Of a meter that nobody pays for, or only a flat price, nothing is on an invoice.
        let is_priced = |meter: &Meter| meter.customer.is_some() && meter.billing != Billing::Flat;
        let counted = meter.filter(|_| is_counted);
        let plan = counted.map(|meter| self.plans.get(&meter.plan).filter(|_| is_priced(meter)));
        ReceiptWire::new(receipt, plan.map(|plan| cost(plan, below, up_to)))
    }
}

/// What the tokens from `below` to `up_to` of a period cost, exactly, in US dollars.
fn cost(plan: Option<&Plan>, below: Tokens, up_to: Tokens) -> String {
    decimal_usd(plan.map_or(NanoUsd::ZERO, |plan| overage_between(plan, below, up_to)).get())
}

impl ReceiptWire {
    fn new(receipt: &Receipt, cost_usd: Option<String>) -> Self {
        let (outcome, model, usage) = match &receipt.outcome {
            Outcome::Settled { usage, model, .. } => {
                ("settled", Some(model.to_string()), Some(ClassesWire::from(usage)))
            }
            Outcome::Swept => ("swept", None, None),
            Outcome::Void => ("void", None, None),
            Outcome::Imported => ("imported", None, None),
        };
        Self {
            id: receipt.id.to_string(),
            at: receipt.at.to_string(),
            period_start: receipt.period_start.to_string(),
            outcome,
            model,
            usage,
            charged: receipt.charged.get(),
            absorbed: receipt.absorbed.get(),
            cost_usd,
        }
    }
}

impl From<&Usage> for ClassesWire {
    fn from(usage: &Usage) -> Self {
        let classes: &Classes = usage.classes();
        Self {
            prompt_tokens: classes.prompt().get(),
            completion_tokens: classes.completion().get(),
            total_tokens: classes.total().get(),
            estimated: matches!(usage, Usage::Estimated(_)),
        }
    }
}

impl From<&Denial> for DenialWire {
    fn from(denial: &Denial) -> Self {
        let code = match denial.code {
            DenialCode::Quota => Code::QuotaExceeded,
            DenialCode::SpendCap => Code::SpendCapReached,
            DenialCode::QuotaHeld => Code::QuotaHeld,
            DenialCode::Concurrency => Code::Concurrency,
            DenialCode::Rate => Code::RateLimited,
            DenialCode::PastDue => Code::PastDue,
            DenialCode::TrialBudget => Code::TrialBudgetUsedUp,
            DenialCode::OwnerCeiling => Code::OwnerCeilingReached,
        };
        Self {
            code: code.as_str(),
            reason: code.title(),
            at: denial.at.to_string(),
            needed: denial.asked.get(),
            left: denial.left.map(Tokens::get),
            until: denial.until.map(|until| until.to_string()),
        }
    }
}

impl From<&Report> for LateWire {
    fn from(report: &Report) -> Self {
        Self {
            period_start: report.period_start.to_string(),
            tokens: report.tokens.get(),
            at: report.at.to_string(),
            // A note that is no id says why there is no item.
            invoice_item: report.note.clone().filter(|note| InvoiceItemId::parse(note).is_ok()),
        }
    }
}
