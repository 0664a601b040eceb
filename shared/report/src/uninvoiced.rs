//! Usage that Stripe has counted and bills to nobody: that of a subscription which ended at once, without a last invoice.

use crate::{late, reconcile::Reconciling};
use domain::{Meter, Tokens};
use ledger::Store;
use stripe::Invoice;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long after its end a period is looked for on an invoice, in milliseconds: three days, for so long Stripe holds a draft back.
const LOOKED_FOR_AFTER_MS: u64 = 3 * DAY_MS;
/// For how long after that it is told, in milliseconds: a day, so that one run of each night tells it once.
const TOLD_WITHIN_MS: u64 = DAY_MS;

/// What no invoice covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uninvoiced {
    /// Tokens of the period that Stripe has counted.
    pub tokens: Tokens,
    /// What they come to above the flat price, in US cents.
    pub cents: u64,
}

impl<S: Store> Reconciling<'_, S> {
    /// What a meter that closed three days ago has above what is included, where no invoice covers any of its time; none also where
    /// Stripe does not say.
    pub(crate) async fn uninvoiced(&self, meter: &Meter) -> Option<Uninvoiced> {
        let ended_ms = self.now().ms_since(meter.period.end());
        let is_time = (LOOKED_FOR_AFTER_MS..LOOKED_FOR_AFTER_MS + TOLD_WITHIN_MS).contains(&ended_ms);
        let customer = meter.customer.as_ref().filter(|_| meter.closed && is_time)?;
        let plan = self.deps().ledger.plans().get(&meter.plan)?;
        let tokens = meter.on_stripes_meter();
        let cents = domain::overage_cents(plan, tokens).filter(|cents| *cents > 0)?;
        let from = late::invoices_from(meter.period, self.now())?;
        match self.stripe().invoices_of(customer, from).await {
            Ok(invoices) if invoices.iter().any(|invoice| covers(invoice, meter)) => None,
            Ok(_) => {
                tracing::error!(user = %meter.user, period = %meter.period.start(), tokens = tokens.get(), cents,
                    "usage above what is included is on no invoice");
                Some(Uninvoiced { tokens, cents })
            }
            Err(error) => {
                tracing::warn!(%error, user = %meter.user, %customer, "invoices are not to be had");
                None
            }
        }
    }
}

/// Whether an invoice of a subscription bills any of a meter's time: after a change of plan, one invoice bills two meters.
fn covers(invoice: &Invoice, meter: &Meter) -> bool {
    let shares =
        |billed: domain::Period| billed.start() < meter.period.end() && meter.period.start() < billed.end();
    invoice.subscription.is_some() && invoice.period.is_some_and(shares)
}
