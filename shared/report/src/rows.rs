//! Report items, page by page, and the rows of one meter whose time lies in another's period: where a cut of the period was heard
//! of late, rows sealed meanwhile are behind it. Stripe, which knows times and no meters, counts them in the period that follows.

use domain::{CustomerId, Meter, Period, Report, ReportRow, RowFate, Timestamp, Tokens};
use ledger::{Ledger, MeterKey, Store, StoreError};

/// Pages of receipts, and of report items, read of one meter: a million of each.
pub(crate) const PAGES_MAX: u32 = 10_000;
/// How much earlier than a row's time its meter can have begun: a month and a day.
pub(crate) const PERIOD_MS_MAX: u64 = 32 * 24 * 60 * 60 * 1_000;
pub(crate) const MINUTE_MS: u64 = 60 * 1_000;

/// A row of an earlier meter, which Stripe may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) customer: CustomerId,
    pub(crate) tokens: Tokens,
    pub(crate) timestamp: Timestamp,
    /// When it was accepted; none: it is on its way.
    pub(crate) accepted_at: Option<Timestamp>,
}

/// Shows every report item of a meter; answers whether that was all of them.
pub(crate) async fn each_report<S: Store>(
    ledger: &Ledger<S>,
    key: &MeterKey,
    pages_max: u32,
    mut show: impl FnMut(&Report),
) -> Result<bool, StoreError> {
    let mut before = None;
    for _ in 0..pages_max {
        let page = ledger.reports(&key.user, Some(key.period_start), before.as_ref()).await?;
        page.reports.iter().for_each(&mut show);
        before = page.next;
        if before.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rows of earlier meters whose time lies in this one's period. Only a meter whose period was cut can have such.
pub(crate) async fn strangers<S: Store>(
    ledger: &Ledger<S>,
    meter: &Meter,
) -> Result<Vec<Stranger>, StoreError> {
    let mut found = Vec::new();
    for earlier in earlier(ledger, meter).await?.iter().filter(|earlier| earlier.mixed) {
        each_report(ledger, &MeterKey::of(earlier), PAGES_MAX, |report| {
            if report.fate == RowFate::Accepted && meter.period.contains(report.timestamp) {
                found.push(Stranger {
                    customer: report.customer.clone(),
                    tokens: report.tokens,
                    timestamp: report.timestamp,
                    accepted_at: Some(report.at),
                });
            }
        })
        .await?;
        let on_its_way =
            |row: &&ReportRow| row.first_attempt_at.is_some() && meter.period.contains(row.timestamp);
        found.extend(earlier.pending.as_ref().filter(on_its_way).map(|row| Stranger {
            customer: row.customer.clone(),
            tokens: row.tokens,
            timestamp: row.timestamp,
            accepted_at: None,
        }));
    }
    Ok(found)
}

async fn earlier<S: Store>(ledger: &Ledger<S>, meter: &Meter) -> Result<Vec<Meter>, StoreError> {
    let from = Timestamp::from_ms(meter.period.start().ms().saturating_sub(PERIOD_MS_MAX));
    let mut meters = ledger.meters(&meter.user, from).await?;
    meters.retain(|earlier| earlier.period.start() < meter.period.start());
    Ok(meters)
}

/// The minute of an instant; none at the end of time.
pub(crate) fn minute(at: Timestamp) -> Option<Period> {
    let start_ms = at.ms() - at.ms() % MINUTE_MS;
    Period::new(Timestamp::from_ms(start_ms), Timestamp::from_ms(start_ms.saturating_add(MINUTE_MS)))
}

/// Whether no other row of the user's for this customer is of the row's minute, whatever became of it.
pub(crate) async fn is_alone<S: Store>(
    ledger: &Ledger<S>,
    key: &MeterKey,
    row: &ReportRow,
    minute: Period,
) -> Result<bool, StoreError> {
    let from = Timestamp::from_ms(minute.start().ms().saturating_sub(PERIOD_MS_MAX));
    let mut others = 0_u64;
    for meter in ledger.meters(&key.user, from).await? {
        let of = MeterKey::of(&meter);
        let is_other = |seq: u64, customer: &CustomerId, timestamp: Timestamp| {
            (of != *key || seq != row.seq) && *customer == row.customer && minute.contains(timestamp)
        };
        let pending = meter.pending.as_ref();
        others += u64::from(pending.is_some_and(|row| is_other(row.seq, &row.customer, row.timestamp)));
        let all = each_report(ledger, &of, PAGES_MAX, |report| {
            others += u64::from(is_other(report.seq, &report.customer, report.timestamp));
        })
        .await?;
        // Where not all could be read, nobody knows.
        others += u64::from(!all);
    }
    Ok(others == 0)
}
