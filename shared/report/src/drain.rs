//! The end of a user's periods: everything that one customer owes for them is brought to Stripe, by key, and it is said whether it
//! is there. The index is never asked, for it may lag.

use crate::{counts::Report, deps::Deps, meter::Reporting};
use domain::{CustomerId, Meter, Timestamp, UserId};
use ledger::{MeterKey, Store, StoreError};
use std::{fmt, time::Duration};

/// How far back ended periods are looked at, in milliseconds: 100 days. What is older was on its invoice long ago, or is late
/// whenever it comes; the hourly run brings it.
const LOOK_BACK_MS: u64 = 100 * 24 * 60 * 60 * 1_000;

/// In how many calls to Stripe the time that is left is parted: one meter is begun only where there is time for three.
const CALLS: u64 = 4;
/// How long a call to Stripe is given at the least, in milliseconds: each opens a connection, and one that is cut short only makes its
/// outcome unknown. Where there is no time for three such, nothing is begun.
const CALL_MS_LEAST: u64 = 300;

/// Whether a user's ended periods are all at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// There is no hold, no usage that is not sealed, and no row on its way.
    Quiet,
    /// Something is left; ask again later.
    Waiting {
        /// What, each once.
        reasons: Vec<Reason>,
    },
}

/// Why a period is not quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The account still points to it, so that more may be admitted.
    Open,
    /// A request is under way.
    Hold,
    /// Usage is not sealed yet.
    Unsealed,
    /// A row is not at Stripe yet.
    Row,
    /// A row is on its way to another customer.
    OthersRow,
    /// Somebody else is reporting this customer.
    Leased,
    /// Time ran out.
    Time,
    /// The ledger cannot answer.
    Ledger,
}

impl Reason {
    /// Whether reporting, begun now, can end any of these. What else there is ends by itself, or is somebody else's, as everything
    /// of a customer is whom somebody else is reporting.
    pub fn end_by_reporting(reasons: &[Self]) -> bool {
        let ends = |reason: &Self| match reason {
            Self::Unsealed | Self::Row | Self::Time | Self::Ledger => true,
            Self::Open | Self::Hold | Self::OthersRow | Self::Leased => false,
        };
        reasons.iter().any(ends) && !reasons.contains(&Self::Leased)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "the period is still open",
            Self::Hold => "a request is under way",
            Self::Unsealed => "usage is not sealed",
            Self::Row => "a report is not at Stripe",
            Self::OthersRow => "a report is on its way to another customer",
            Self::Leased => "another run is reporting this customer",
            Self::Time => "time ran out",
            Self::Ledger => "the ledger did not answer",
        })
    }
}

/// Brings every period of `user` that `customer` pays for and that ended by `until` to Stripe, and says whether it is there. No
/// other customer's rows are sent. Nothing is begun when `deadline` is near, and no call to Stripe may take longer than its part of
/// the time until then.
///
/// Whoever asks has opened the period that follows, so that nothing more is admitted in these.
pub async fn drain<S: Store>(
    deps: &Deps<S>,
    user: &UserId,
    customer: &CustomerId,
    until: Timestamp,
    deadline: Timestamp,
    now: impl Fn() -> Timestamp + Sync,
) -> Drained {
    let call_ms = (deadline.ms_since(now()) / CALLS).max(CALL_MS_LEAST);
    let reporting = Reporting::new(deps, deadline, &now)
        .only(customer.clone())
        .calls_within(Duration::from_millis(call_ms));
    let mut reasons = match ended(deps, user, customer, until, &reporting).await {
        Ok(reasons) => reasons,
        Err(error) => {
            tracing::error!(error = edge::log::chain(&error), %user, "ended periods could not be looked at");
            vec![Reason::Ledger]
        }
    };
    reasons.sort_unstable();
    reasons.dedup();
    if reasons.is_empty() { Drained::Quiet } else { Drained::Waiting { reasons } }
}

async fn ended<S: Store>(
    deps: &Deps<S>,
    user: &UserId,
    customer: &CustomerId,
    until: Timestamp,
    reporting: &Reporting<'_, S>,
) -> Result<Vec<Reason>, StoreError> {
    let from = Timestamp::from_ms(until.ms().saturating_sub(LOOK_BACK_MS));
    let mut meters = deps.ledger.meters(user, from).await?;
    let pays = |meter: &Meter| {
        let pending = meter.pending.as_ref().map(|row| &row.customer);
        meter.customer.as_ref() == Some(customer) || pending == Some(customer)
    };
    meters.retain(|meter| meter.period.end() <= until && pays(meter));
    let mut reasons = Vec::new();
    // Oldest first.
    for meter in meters.iter().rev() {
        let key = MeterKey::of(meter);
        let mut report = Report::default();
        if !meter.is_clean() || meter.dirty {
            if !reporting.has_time() {
                reasons.push(Reason::Time);
                continue;
            }
            report = reporting.meter(&key).await;
        }
        if let Some(meter) = deps.ledger.meter(&key).await? {
            reasons.extend(left(&meter, customer));
        }
        reasons.extend((report.leased > 0).then_some(Reason::Leased));
    }
    Ok(reasons)
}

/// What is left of a meter as it is now.
fn left<'a>(meter: &'a Meter, customer: &'a CustomerId) -> impl Iterator<Item = Reason> + use<'a> {
    let is_sealed = meter.customer.is_none() || meter.settled == meter.sealed;
    let row = meter
        .pending
        .as_ref()
        .map(|row| if row.customer == *customer { Reason::Row } else { Reason::OthersRow });
    let rest = [
        (!meter.closed).then_some(Reason::Open),
        (!meter.holds.is_empty()).then_some(Reason::Hold),
        (!is_sealed).then_some(Reason::Unsealed),
    ];
    rest.into_iter().flatten().chain(row)
}
