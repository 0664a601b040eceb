//! What Stripe took and then did not count: the rows that its error report names are parked, so that an owner sees them and can
//! have them sent again. Stripe names samples only; what it does not name, the books show as drift.

use crate::work::{WorkError, Worker};
use domain::{EventId, Report, RowFate, Timestamp, UserId};
use ledger::{Changed, MeterKey, Store};
use serde_json::json;
use stripe::{ErrorReport, Rejected};

/// The sort of event that the bus carries for it.
const KIND: &str = "Report Rejected";

impl<S: Store> Worker<'_, S> {
    /// Parks what an error report names.
    pub(crate) async fn rejections(&self, event: &EventId, now: Timestamp) -> Result<(), WorkError> {
        let report = self.stripe().error_report(event).await?;
        let mut ours: u32 = 0;
        let mut early = false;
        for sample in &report.samples {
            match self.reject(&report, sample, now).await? {
                Found::Ours => ours = ours.saturating_add(1),
                Found::Early => early = true,
                Found::Foreign => {}
            }
        }
        tracing::error!(%event, rejected = report.rejected, named = report.samples.len(), ours, early,
            summary = report.summary, "Stripe has not counted meter events that it had taken");
        if early {
            return Err(WorkError::RowPending);
        }
        if ours == 0 {
            self.announce(
                KIND,
                json!({ "report": null, "rejected": report.rejected, "summary": report.summary }),
            )
            .await;
        }
        Ok(())
    }

    async fn reject(
        &self,
        report: &ErrorReport,
        sample: &Rejected,
        now: Timestamp,
    ) -> Result<Found, WorkError> {
        let Some((key, seq)) = row_of(&sample.identifier) else { return Ok(Found::Foreign) };
        let item = self.ledger().report(&key, seq).await?;
        let Some(item) = item.filter(|item| item.identifier == sample.identifier) else {
            let meter = self.ledger().meter(&key).await?;
            let pending = meter.and_then(|meter| meter.pending);
            let is_it = pending.is_some_and(|row| row.identifier == sample.identifier);
            return Ok(if is_it { Found::Early } else { Found::Foreign });
        };
        if item.fate != RowFate::Accepted {
            return Ok(Found::Ours);
        }
        // Said before it is done: a crash in between says it twice, never not at all.
        self.announce(KIND, about(&item, report, sample)).await;
        let note = format!("{}: {}", sample.code, sample.reason);
        match self.ledger().reject(&key, seq, item.tokens, now, &note).await? {
            Changed::Yes => Ok(Found::Ours),
            // Its meter has not dropped it yet, or another delivery has parked it.
            Changed::No => {
                let still = self.ledger().report(&key, seq).await?.map(|item| item.fate);
                Ok(if still == Some(RowFate::Accepted) { Found::Early } else { Found::Ours })
            }
        }
    }
}

/// What a named identifier turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A row of ours that is parked, or that somebody has dealt with.
    Ours,
    /// A row of ours whose end is not written yet.
    Early,
    /// None of ours.
    Foreign,
}

fn about(item: &Report, report: &ErrorReport, sample: &Rejected) -> serde_json::Value {
    json!({
        "report": {
            "user": item.user.as_str(),
            "customer": item.customer.as_str(),
            "identifier": item.identifier,
            "tokens": item.tokens.get(),
            "timestamp": item.timestamp.to_string(),
            "period": item.period_start.to_string(),
            "seq": item.seq,
        },
        "code": sample.code,
        "reason": sample.reason,
        "rejected": report.rejected,
    })
}

/// The row that has this identifier, if it is in the form of ours: user, start of the period in seconds, number. Whether there
/// is such a row is another question.
fn row_of(identifier: &str) -> Option<(MeterKey, u64)> {
    let mut parts = identifier.rsplitn(3, '-');
    let (seq, start_s, user) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    let start_s = number(start_s)?;
    let period_start = Some(Timestamp::from_s(start_s)).filter(|start| start.s() == start_s)?;
    let key = MeterKey { user: UserId::parse(user).ok()?, period_start };
    Some((key, number(seq)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_leads_to_its_row_or_nowhere() {
        let (key, seq) = row_of("user_1-1800000000-7").unwrap();
        assert_eq!((key.user.as_str(), key.period_start.s(), seq), ("user_1", 1_800_000_000, 7));
        let (key, _) = row_of("a-b-1800000000-7").unwrap();
        assert_eq!(key.user.as_str(), "a-b");
        for foreign in [
            "",
            "x",
            "a-b",
            "-1-1",
            "user_1-x-7",
            "user_1-1800000000-",
            "user_1-01-7",
            "u#1-1-1",
            "u-1-99999999999999999999",
        ] {
            assert!(row_of(foreign).is_none(), "{foreign}");
        }
    }
}
