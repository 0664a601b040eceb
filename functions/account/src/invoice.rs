//! The next invoice in `GET /v1/usage`, as it would be now. It reads the ledger and never Stripe: what Stripe alone knows (a discount,
//! a tax, a credit, another quantity, a price that somebody added by hand) is not in it.

use crate::{
    handler::{AccountApi, not_stored},
    receipts::{LATE_MS, LATE_PAGES_MAX},
};
use domain::{
    Account, Billing, Meter, NextInvoice, Period, Plans, RowFate, Timestamp, Tokens, Used, UserId,
    late_cents, next_invoice,
};
use edge::{money::decimal_usd, problem::Problem};
use ledger::{Standing, Store};
use serde::Serialize;

/// Nano-dollars in a cent.
const NANO_PER_CENT: u64 = 10_000_000;

/// What the invoice at the month's end comes to, in US dollars; to the cent, each line rounded as Stripe rounds it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InvoiceWire {
    /// The sum; below zero where changes of plan give back more than there is to bill.
    estimate_usd: String,
    /// The flat price of the month that begins then.
    base_usd: String,
    /// What is charged so far above the included tokens of this one, by the plan that each part of it was used under.
    overage_usd: String,
    /// What changes of plan within this month bill and give back of the flat prices.
    plan_change_usd: String,
    /// Usage of earlier months that came too late for their invoices.
    late_usd: String,
    at: String,
}

impl<S: Store> AccountApi<S> {
    /// The next invoice of whoever has a subscription.
    pub(crate) async fn next_invoice(
        &self,
        user: &UserId,
        standing: &Standing,
    ) -> Result<Option<InvoiceWire>, Problem> {
        if standing.account.billed_to().is_none() {
            return Ok(None);
        }
        let month = month_of(&standing.account, &standing.meter);
        let from = Timestamp::from_ms(month.start().ms().saturating_sub(LATE_MS));
        let mut meters = self.ledger.meters(user, from).await.map_err(|error| not_stored(user, error))?;
        let payer = standing.account.billed_to();
        meters.retain(|meter| {
            meter.customer.as_ref() == payer && meter.period.start() < standing.meter.period.start()
        });
        meters.reverse();
        let begins = meters.partition_point(|meter| meter.period.start() < month.start());
        let (before, within) = meters.split_at(begins);
        let mut late = Some(0_u64);
        let is_late = |meter: &&Meter| meter.invoiced > Tokens::ZERO && meter.billing != Billing::Flat;
        for meter in before.iter().filter(is_late) {
            let cents = self.late_of(user, meter, month.start()).await?;
            late = late.zip(cents).and_then(|(sum, cents)| sum.checked_add(cents));
        }
        Ok(late.and_then(|late| InvoiceWire::of(standing, self.ledger.plans(), within, late)))
    }

    /// What the late usage of an earlier period costs that became an item after `since`: what came before was on the invoice of
    /// then. Late rows are a period's last ones, so that they are priced from the top. None: no invoice could have it.
    async fn late_of(&self, user: &UserId, meter: &Meter, since: Timestamp) -> Result<Option<u64>, Problem> {
        let (mut tokens, mut before) = (Tokens::ZERO, None);
        'pages: for _ in 0..LATE_PAGES_MAX {
            let page = self.ledger.reports(user, Some(meter.period.start()), before.as_ref()).await;
            let page = page.map_err(|error| not_stored(user, error))?;
            for report in page.reports.iter().filter(|report| report.fate == RowFate::Invoiced) {
                if report.at < since {
                    break 'pages;
                }
                tokens = tokens.saturating_add(report.tokens);
            }
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let Some(plan) = self.ledger.plans().get(&meter.plan) else { return Ok(None) };
        let pending = meter.pending.as_ref().map_or(Tokens::ZERO, |row| row.tokens);
        let billed = meter.sealed.saturating_sub(meter.parked).saturating_sub(pending);
        Ok(late_cents(plan, billed.saturating_sub(tokens), tokens))
    }
}

/// The month whose usage the next invoice bills: more than the current period where a change of plan has cut it.
fn month_of(account: &Account, meter: &Meter) -> Period {
    let month = Period::monthly(account.anchor, meter.period.start());
    let holds = |month: &Period| month.start() <= meter.period.start() && meter.period.end() <= month.end();
    month.filter(holds).unwrap_or(meter.period)
}

impl InvoiceWire {
    /// `earlier` are the meters of the same month before the current one, the oldest first. None: an amount that no invoice could
    /// have.
    pub(crate) fn of(standing: &Standing, plans: &Plans, earlier: &[Meter], late_cents: u64) -> Option<Self> {
        let Standing { account, plan, meter } = standing;
        let month = month_of(account, meter);
        let used = earlier.iter().chain([meter]).map(|meter| Used {
            plan: plans.get(&meter.plan).unwrap_or(plan),
            since: meter.period.start(),
            tokens: match meter.billing {
                // An item bills it once its period has ended, too late for this invoice.
                Billing::Item => Tokens::ZERO,
                // What was parked is billed by nobody, unless somebody tries it again.
                Billing::Metered | Billing::Flat | Billing::Replaced => {
                    meter.priced().saturating_sub(meter.parked)
                }
            },
        });
        let used: Vec<_> = used.collect();
        let ends_at = account.ends_at.filter(|at| *at <= month.end());
        let next = ends_at.is_none().then_some(plan);
        let invoice = next_invoice(month, &used, next, late_cents)?;
        Self::written(&invoice, ends_at.unwrap_or(month.end()))
    }

    fn written(invoice: &NextInvoice, at: Timestamp) -> Option<Self> {
        Some(Self {
            estimate_usd: signed_usd(invoice.total_cents)?,
            base_usd: usd(invoice.base_cents)?,
            overage_usd: usd(invoice.overage_cents)?,
            plan_change_usd: signed_usd(invoice.changes_cents)?,
            late_usd: usd(invoice.late_cents)?,
            at: at.to_string(),
        })
    }
}

/// Cents as dollars.
fn usd(cents: u64) -> Option<String> {
    cents.checked_mul(NANO_PER_CENT).map(decimal_usd)
}

fn signed_usd(cents: i64) -> Option<String> {
    let sign = if cents < 0 { "-" } else { "" };
    Some(format!("{sign}{}", usd(cents.unsigned_abs())?))
}
