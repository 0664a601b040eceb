//! What Stripe's count says of a row whose outcome is unknown. It is asked, and never guessed: what fits nothing is unclear.
//!
//! The count of the whole period decides where all of it is this meter's. Where the payer has changed, the period was cut, or a row
//! of an earlier meter lies in it, the count of the row's own minute does.

use crate::{
    counts::Report,
    meter::{COUNTED_WITHIN_MS, Case, LEASE_MS, Reporting},
    rows,
};
use bus::Announcement;
use domain::{Meter, ReportRow, Tokens, Verdict};
use ledger::{Store, StoreError};
use stripe::Counted;

/// How long after its last attempt a row's minute says whether Stripe has it, in milliseconds: an hour after the lease under which
/// it was sent has run out.
const MINUTE_COUNTED_WITHIN_MS: u64 = COUNTED_WITHIN_MS + LEASE_MS;

/// What was asked, and what it says.
struct Judged {
    verdict: Verdict,
    /// What Stripe must have counted if it has the row.
    expected: Tokens,
    counted: Counted,
}

impl<S: Store> Reporting<'_, S> {
    /// What Stripe's count says of a row; none: no count is to be had, or it is too early.
    pub(crate) async fn verdict(&self, of: &Case<'_>, report: &mut Report) -> Option<Verdict> {
        let Case { meter, row, .. } = of;
        let Judged { verdict, expected, counted } = match self.judged(of).await {
            Ok(judged) => judged?,
            Err(error) => {
                tracing::error!(error = edge::log::chain(&error), user = %meter.user, identifier = row.identifier,
                    "a row of unknown outcome could not be reconciled");
                return None;
            }
        };
        match verdict {
            Verdict::Unclear => {
                report.unclear += 1;
                let counted = Some((counted.at_least, counted.at_most));
                tracing::error!(user = %meter.user, identifier = row.identifier, tokens = row.tokens.get(),
                    expected = expected.get(), ?counted, "whether Stripe has a report is unclear; nothing is sent");
                self.deps
                    .bus
                    .announce(&[Announcement::Unclear { about: of.about(), expected, counted }])
                    .await;
            }
            Verdict::Missing | Verdict::Delivered => {
                report.reconciled += 1;
                tracing::info!(user = %meter.user, customer = %row.customer, identifier = row.identifier, ?verdict,
                    "reconciled");
            }
        }
        Some(verdict)
    }

    async fn judged(&self, of: &Case<'_>) -> Result<Option<Judged>, StoreError> {
        let Case { meter, row, .. } = of;
        let is_shared = meter.mixed || !rows::strangers(&self.deps.ledger, meter).await?.is_empty();
        if is_shared {
            return self.judged_by_minute(of).await;
        }
        let counted = self.counted(of, meter.period).await;
        let expected = meter.on_stripes_meter();
        Ok(counted.map(|counted| Judged { verdict: judge(meter, row, counted), expected, counted }))
    }

    async fn judged_by_minute(&self, of: &Case<'_>) -> Result<Option<Judged>, StoreError> {
        let Case { key, row, .. } = of;
        // Without a time somebody attempts it just now.
        let quiet_ms = row.last_attempt_at.map_or(0, |last| (self.now)().ms_since(last));
        if quiet_ms < MINUTE_COUNTED_WITHIN_MS {
            tracing::info!(user = %key.user, identifier = row.identifier, "perhaps not counted yet; waiting");
            return Ok(None);
        }
        let Some(minute) = rows::minute(row.timestamp) else { return Ok(None) };
        let is_alone = rows::is_alone(&self.deps.ledger, key, row, minute).await?;
        let counted = self.counted(of, minute).await;
        Ok(counted.map(|counted| {
            let verdict = domain::reconcile_minute(row, counted.at_most, is_alone);
            Judged { verdict, expected: row.tokens, counted }
        }))
    }

    /// What Stripe has counted for the row's customer; none: it is not to be had.
    async fn counted(&self, of: &Case<'_>, period: domain::Period) -> Option<Counted> {
        let Case { meter, row, lease, .. } = of;
        if !self.may_call(lease) {
            return None;
        }
        match self.stripe.counted(&self.deps.meter.id, &row.customer, period).await {
            Ok(counted) => Some(counted),
            Err(error) => {
                tracing::error!(error = edge::log::chain(&error), user = %meter.user, customer = %row.customer,
                    identifier = row.identifier, "a row of unknown outcome could not be reconciled");
                None
            }
        }
    }
}

/// The verdict that holds for every figure between the two bounds, or none that does.
fn judge(meter: &Meter, row: &ReportRow, counted: Counted) -> Verdict {
    let least = domain::reconcile(meter, row, counted.at_least);
    let most = domain::reconcile(meter, row, counted.at_most);
    if least == most { least } else { Verdict::Unclear }
}
