//! Usage that Stripe has counted and bills to nobody: that of a subscription which ended at once, without a last invoice.

use crate::{late, reconcile::Reconciling};
use domain::{Billing, CustomerId, Meter, Timestamp, Tokens};
use ledger::Store;
use std::error::Error;
use stripe::{Invoice, Terms};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long after its end a period is looked for on an invoice, in milliseconds: three days, for so long Stripe holds a draft back.
const LOOKED_FOR_AFTER_MS: u64 = 3 * DAY_MS;
/// For how long after that it is told, in milliseconds: four nights, so that one that fails loses nothing.
const TOLD_WITHIN_MS: u64 = 4 * DAY_MS;

/// What no invoice covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uninvoiced {
    /// Tokens of the period that Stripe has counted.
    pub tokens: Tokens,
    /// What they come to above the flat price, in US cents.
    pub cents: u64,
}

impl<S: Store> Reconciling<'_, S> {
    /// What a meter whose period ended three days ago has above what is included, where no invoice covers any of its time and none
    /// will; none also where Stripe does not say. What a change of plan has cut is an item of Stripe's own.
    pub(crate) async fn uninvoiced(&self, meter: &Meter) -> Option<Uninvoiced> {
        let ended_ms = self.now().ms_since(meter.period.end());
        let is_time = (LOOKED_FOR_AFTER_MS..LOOKED_FOR_AFTER_MS + TOLD_WITHIN_MS).contains(&ended_ms);
        let customer = meter.customer.as_ref().filter(|_| is_time && meter.billing == Billing::Metered)?;
        let plan = self.deps().ledger.plans().get(&meter.plan)?;
        let tokens = meter.on_stripes_meter();
        let cents = domain::overage_cents(plan, tokens).filter(|cents| *cents > 0)?;
        let from = late::invoices_from(meter.period, self.now())?;
        match self.is_on_none(meter, customer, from).await {
            Ok(false) => None,
            Ok(true) => {
                tracing::error!(user = %meter.user, period = %meter.period.start(), tokens = tokens.get(), cents,
                    "usage above what is included is on no invoice");
                Some(Uninvoiced { tokens, cents })
            }
            Err(error) => {
                tracing::warn!(error = edge::log::chain(&*error), user = %meter.user, %customer,
                    "whether usage is on an invoice is not to be had");
                None
            }
        }
    }

    /// Whether every subscription that could have paid for a meter has ended, and none of their invoices covers it.
    async fn is_on_none(
        &self,
        meter: &Meter,
        customer: &CustomerId,
        from: Timestamp,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let mut paying = self.stripe().all_terms(customer, &self.deps().meter.id).await?;
        paying.retain(|terms| terms.is_metered && pays(terms, meter));
        let is_over = |terms: &Terms| terms.ended_at.is_some() && !terms.is_trial(meter.period);
        if paying.is_empty() || !paying.iter().all(is_over) {
            return Ok(false);
        }
        let invoices = self.stripe().invoices_of(customer, from).await?;
        let of_one = |invoice: &Invoice| {
            paying.iter().any(|terms| invoice.subscription.as_ref() == Some(&terms.subscription))
        };
        Ok(!invoices.iter().any(|invoice| of_one(invoice) && covers(invoice, meter)))
    }
}

/// Whether a subscription was there in a meter's time.
fn pays(terms: &Terms, meter: &Meter) -> bool {
    terms.created < meter.period.end() && terms.ended_at.is_none_or(|at| meter.period.start() < at)
}

/// Whether an invoice bills any of a meter's time: after a pause, one invoice bills two meters.
fn covers(invoice: &Invoice, meter: &Meter) -> bool {
    let shares =
        |billed: domain::Period| billed.start() < meter.period.end() && meter.period.start() < billed.end();
    invoice.period.is_some_and(shares)
}
