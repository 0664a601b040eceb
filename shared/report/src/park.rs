//! The end of a row by a person's word: a row whose outcome no run can find out is ended as what was found at Stripe, under its
//! customer's lease and fence. Stripe is not asked here; whoever ends it has looked there. What Stripe has is not parked: a meter's
//! parked tokens are those that its count lacks.

use crate::meter::{COUNTED_WITHIN_MS, LEASE_MS};
use domain::{Attempt, HoldId, InvoiceItemId, ReportRow, RowFate, Timestamp};
use ledger::{Ledger, MeterKey, Store, StoreError};

/// How long after its first attempt a row is left to the reporter, in milliseconds: a day.
const LEFT_TO_RUNS_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long after its last attempt Stripe's count says nothing of a row, to nobody, in milliseconds.
const UNCOUNTED_MS: u64 = COUNTED_WITHIN_MS + LEASE_MS;

/// What a person has found of a row at Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundAtStripe<'a> {
    /// Nothing, or nothing that is certain: it is parked, and can then be sent again or forgiven.
    Nothing,
    /// Its event is counted.
    Event,
    /// This item bills it.
    Item(&'a InvoiceItemId),
}

/// Which row is ended, and on whose word.
#[derive(Clone, Copy, Debug)]
pub struct Parking<'a> {
    /// Its meter.
    pub key: &'a MeterKey,
    /// Its number.
    pub seq: u64,
    /// What was found.
    pub found: FoundAtStripe<'a>,
    /// Why; kept with the report.
    pub reason: &'a str,
    /// Whether a row is ended that was attempted first less than a day ago.
    pub force: bool,
}

/// Why a row is not ended.
#[derive(Debug, thiserror::Error)]
pub enum ParkRefused {
    /// No such row is on its way.
    #[error("no such report is on its way")]
    NotPending,
    /// Its outcome is known: it never reached Stripe.
    #[error("it was never sent, so there is nothing unclear about it; the next run of the reporter sends it")]
    NeverSent,
    /// Stripe may not have counted yet what it took.
    #[error(
        "it may have been sent at {0}, so Stripe's count does not say yet whether it has it; try again later"
    )]
    TooFresh(Timestamp),
    /// The reporter may yet find out.
    #[error(
        "it was sent first at {0}, less than a day ago: the reporter may yet find out; --force ends it all the same"
    )]
    TooYoung(Timestamp),
    /// A run is at it.
    #[error("a run of the reporter is at this customer; try again in two minutes")]
    Leased,
    /// The ledger cannot answer. What was done before stays done, and a repeat goes on.
    #[error("the ledger does not answer")]
    Ledger(#[from] StoreError),
}

/// Ends a pending row as what was found of it. `owner` is an id of this one taking of the lease.
///
/// # Errors
/// When it is not pending, was never sent, or is too young; or somebody else is at it. Then nothing is changed.
pub async fn end_pending<S: Store>(
    ledger: &Ledger<S>,
    parking: &Parking<'_>,
    owner: &HoldId,
    now: Timestamp,
) -> Result<ReportRow, ParkRefused> {
    let customer = pending(ledger, parking).await?.customer;
    let lease = ledger.take_lease(&customer, owner, now, now.plus_ms(LEASE_MS)).await?;
    let lease = lease.ok_or(ParkRefused::Leased)?;
    let ended = under_lease(ledger, parking, lease.fence, now).await;
    // What is not given back runs out.
    if let Err(error) = ledger.drop_lease(&lease).await {
        tracing::warn!(error = edge::log::chain(&error), %customer, "a lease was not given back");
    }
    ended
}

async fn under_lease<S: Store>(
    ledger: &Ledger<S>,
    parking: &Parking<'_>,
    fence: u64,
    now: Timestamp,
) -> Result<ReportRow, ParkRefused> {
    // Read under the lease: whoever had it before may have sent the row a moment ago.
    let row = pending(ledger, parking).await?;
    let (first, last) = row.first_attempt_at.zip(row.last_attempt_at).ok_or(ParkRefused::NeverSent)?;
    if now.ms_since(last) < UNCOUNTED_MS {
        return Err(ParkRefused::TooFresh(last));
    }
    if now.ms_since(first) < LEFT_TO_RUNS_MS && !parking.force {
        return Err(ParkRefused::TooYoung(first));
    }
    // Whoever had the lease before cannot send it any more.
    match ledger.attempt(parking.key, &row, last, fence).await? {
        Attempt::First | Attempt::Again => {}
        Attempt::Gone => return Err(ParkRefused::NotPending),
        Attempt::Fenced => return Err(ParkRefused::Leased),
    }
    let (fate, note) = match parking.found {
        FoundAtStripe::Nothing => (RowFate::Parked, parking.reason.to_owned()),
        FoundAtStripe::Event => (RowFate::Accepted, parking.reason.to_owned()),
        FoundAtStripe::Item(item) => (RowFate::Invoiced, format!("{item}: {}", parking.reason)),
    };
    ledger.finish(parking.key, &row, fate, now, Some(&note)).await?;
    Ok(row)
}

async fn pending<S: Store>(ledger: &Ledger<S>, parking: &Parking<'_>) -> Result<ReportRow, ParkRefused> {
    let meter = ledger.meter(parking.key).await?;
    let row = meter.and_then(|meter| meter.pending).filter(|row| row.seq == parking.seq);
    row.ok_or(ParkRefused::NotPending)
}
