//! One meter: sweep, seal, send or reconcile, accept or park, clear. Each step is in the ledger before the next begins, so
//! that a crash between any two leaves a row that the next run finds and finishes.

use crate::{counts::Report, deps::Deps};
use bus::{AboutRow, Announcement};
use domain::{CustomerId, Meter, NextStep, ReportRow, RowFate, Timestamp, Verdict};
use ledger::{Attempt, MeterKey, Store, StoreError};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use stripe::{Counted, MeterEvent, SendError, Sent};

/// How often a row is sent in one run, always under its own identifier.
const SENDS_MAX: u32 = 3;
/// How often one meter is sealed in one run: once, and once more for what was settled meanwhile.
const ROUNDS_MAX: u32 = 2;
/// Before the deadline, in milliseconds, from when on no meter is begun: longer than two of Stripe's answers and the
/// ledger's writes take at worst.
const BEGIN_RESERVE_MS: u64 = 30_000;
/// Before the deadline, in milliseconds, from when on nothing is sent: longer than one of Stripe's answers and the writes
/// that accept it take at worst.
const SEND_RESERVE_MS: u64 = 20_000;

/// Whether a row is off its meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Accepted or parked.
    Gone,
    /// It stays for a later run.
    Stays,
}

/// What the calls for one row came to.
enum Delivery {
    Delivered(Sent),
    Refused(String),
    Stays,
}

/// The meters of one run.
pub struct Reporting<'a, S> {
    deps: &'a Deps<S>,
    deadline: Timestamp,
    now: &'a (dyn Fn() -> Timestamp + Sync),
    /// Stripe refuses everything: said once, and nothing more is sent in this run.
    misconfigured: AtomicBool,
}

impl<'a, S: Store> Reporting<'a, S> {
    /// Reporting that begins nothing when `deadline` is near.
    pub fn new(deps: &'a Deps<S>, deadline: Timestamp, now: &'a (dyn Fn() -> Timestamp + Sync)) -> Self {
        Self { deps, deadline, now, misconfigured: AtomicBool::new(false) }
    }

    /// Whether there is time to begin a meter.
    pub fn has_time(&self) -> bool {
        self.left_ms() > BEGIN_RESERVE_MS
    }

    fn left_ms(&self) -> u64 {
        self.deadline.ms_since((self.now)())
    }

    /// Brings one meter as far as it goes.
    pub async fn meter(&self, key: &MeterKey) -> Report {
        let mut report = Report { meters: 1, ..Report::default() };
        match self.rounds(key, &mut report).await {
            Ok(End::Gone) => {}
            Ok(End::Stays) => report.failed = 1,
            Err(error) => {
                report.failed = 1;
                tracing::error!(error = edge::log::chain(&error), user = %key.user, period = %key.period_start,
                    "a meter could not be reported");
            }
        }
        report
    }

    async fn rounds(&self, key: &MeterKey, report: &mut Report) -> Result<End, StoreError> {
        let ledger = &self.deps.ledger;
        for _ in 0..ROUNDS_MAX {
            report.swept += ledger.sweep(key, (self.now)()).await?;
            let Some((meter, row)) = ledger.seal(key, (self.now)()).await? else { break };
            report.sealed += 1;
            if self.row(key, &meter, &row, report).await? == End::Stays {
                return Ok(End::Stays);
            }
        }
        report.cleared += u32::from(ledger.clear(key).await?);
        Ok(End::Gone)
    }

    /// Brings one row to its end. `meter` is as it was read before Stripe is asked anything.
    async fn row(
        &self,
        key: &MeterKey,
        meter: &Meter,
        row: &ReportRow,
        report: &mut Report,
    ) -> Result<End, StoreError> {
        let ledger = &self.deps.ledger;
        let customer = &row.customer;
        if self.misconfigured.load(Ordering::Relaxed) {
            return Ok(End::Stays);
        }
        match domain::next_step(row, (self.now)()) {
            NextStep::Send => {}
            NextStep::Reconcile => match self.verdict(meter, row, customer, report).await {
                Some(Verdict::Missing) => {}
                Some(Verdict::Delivered) => return self.accept(key, row, report).await,
                Some(Verdict::Unclear) | None => return Ok(End::Stays),
            },
        }
        // Noted before the first call: from then on the outcome may be unknown, and the time counts.
        let attempt = match row.first_attempt_at {
            Some(_) => Attempt::Again,
            None => ledger.attempt(key, row, (self.now)(), 0).await?,
        };
        if matches!(attempt, Attempt::Gone | Attempt::Fenced) {
            tracing::info!(user = %key.user, identifier = row.identifier, "another run has ended this row");
            return Ok(End::Stays);
        }
        match self.deliver(customer, row, report).await {
            Delivery::Delivered(sent) => {
                let end = self.accept(key, row, report).await?;
                match sent {
                    Sent::Accepted => report.accepted += 1,
                    Sent::AlreadyExists => report.already_existed += 1,
                }
                Ok(end)
            }
            Delivery::Refused(reason) => {
                // An earlier attempt may have arrived before Stripe came to refuse the row.
                if attempt == Attempt::Again {
                    match self.verdict(meter, row, customer, report).await {
                        Some(Verdict::Missing) => {}
                        Some(Verdict::Delivered) => return self.accept(key, row, report).await,
                        Some(Verdict::Unclear) | None => return Ok(End::Stays),
                    }
                }
                tracing::error!(user = %key.user, %customer, identifier = row.identifier, tokens = row.tokens.get(),
                    reason, "Stripe refused a report for good; it is parked");
                // Said before it is done: a crash in between says it twice, never not at all.
                let about = about(meter, row);
                let said = Announcement::Parked { about, reason: reason.clone() };
                self.deps.bus.announce(&[said]).await;
                ledger.finish(key, row, RowFate::Parked, (self.now)(), Some(&reason)).await?;
                report.parked += 1;
                Ok(End::Gone)
            }
            Delivery::Stays => Ok(End::Stays),
        }
    }

    /// Ends a row that Stripe has.
    async fn accept(&self, key: &MeterKey, row: &ReportRow, report: &mut Report) -> Result<End, StoreError> {
        self.deps.ledger.finish(key, row, RowFate::Accepted, (self.now)(), None).await?;
        report.tokens += row.tokens.get();
        Ok(End::Gone)
    }

    /// What Stripe's count says of a row whose identifier Stripe may have forgotten; none: no count is to be had.
    async fn verdict(
        &self,
        meter: &Meter,
        row: &ReportRow,
        customer: &CustomerId,
        report: &mut Report,
    ) -> Option<Verdict> {
        let counted = match self.deps.stripe.counted(&self.deps.meter.id, customer, meter.period).await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::error!(error = edge::log::chain(&error), user = %meter.user, %customer,
                    identifier = row.identifier, "a row of unknown outcome could not be reconciled");
                return None;
            }
        };
        let verdict = judge(meter, row, counted);
        match verdict {
            Verdict::Unclear => self.unclear(meter, row, Some(counted), report).await,
            Verdict::Missing | Verdict::Delivered => {
                report.reconciled += 1;
                tracing::info!(user = %meter.user, %customer, identifier = row.identifier, ?verdict, "reconciled");
            }
        }
        Some(verdict)
    }

    async fn unclear(&self, meter: &Meter, row: &ReportRow, counted: Option<Counted>, report: &mut Report) {
        report.unclear += 1;
        let expected = meter.sealed.saturating_sub(meter.parked);
        let counted = counted.map(|counted| (counted.at_least, counted.at_most));
        tracing::error!(user = %meter.user, identifier = row.identifier, tokens = row.tokens.get(),
            expected = expected.get(), ?counted, "whether Stripe has a report is unclear; nothing is sent");
        let about = about(meter, row);
        self.deps.bus.announce(&[Announcement::Unclear { about, expected, counted }]).await;
    }

    /// Sends a row, again if need be, always under its own identifier.
    async fn deliver(&self, customer: &CustomerId, row: &ReportRow, report: &mut Report) -> Delivery {
        let event = MeterEvent {
            event_name: &self.deps.meter.event_name,
            customer,
            tokens: row.tokens,
            identifier: &row.identifier,
            timestamp: row.timestamp,
        };
        let mut may_have_arrived = false;
        for tried in 0..SENDS_MAX {
            if tried > 0 {
                self.pause(tried).await;
            }
            if self.left_ms() <= SEND_RESERVE_MS {
                break;
            }
            report.sent += 1;
            match self.deps.stripe.send(&event).await {
                Ok(sent) => return Delivery::Delivered(sent),
                // The next run asks Stripe first.
                Err(SendError::Refused { .. }) if may_have_arrived => break,
                Err(error @ SendError::Refused { .. }) => return Delivery::Refused(error.to_string()),
                Err(SendError::Misconfigured(reason)) => {
                    self.misconfigured(reason).await;
                    return Delivery::Stays;
                }
                Err(error @ (SendError::Retry(_) | SendError::Unknown(_))) => {
                    may_have_arrived |= matches!(error, SendError::Unknown(_));
                    tracing::warn!(%error, %customer, identifier = row.identifier, tried, "a report was not taken");
                }
            }
        }
        tracing::error!(%customer, identifier = row.identifier, tokens = row.tokens.get(),
            "a report was not taken in this run; the next one sends it again");
        Delivery::Stays
    }

    async fn misconfigured(&self, reason: String) {
        if !self.misconfigured.swap(true, Ordering::Relaxed) {
            tracing::error!(
                reason,
                "Stripe refuses every report for how this installation is set up; rows are kept"
            );
            self.deps.bus.announce(&[Announcement::Misconfigured { reason }]).await;
        }
    }

    async fn pause(&self, tried: u32) {
        let pace = self.deps.pace;
        let most_ms = pace.pause_ms << tried.saturating_sub(1).min(SENDS_MAX);
        tokio::time::sleep(Duration::from_millis((pace.jitter)(most_ms))).await;
    }
}

/// The verdict that holds for every figure between the two bounds, or none that does.
fn judge(meter: &Meter, row: &ReportRow, counted: Counted) -> Verdict {
    let least = domain::reconcile(meter, row, counted.at_least);
    let most = domain::reconcile(meter, row, counted.at_most);
    if least == most { least } else { Verdict::Unclear }
}

fn about(meter: &Meter, row: &ReportRow) -> AboutRow {
    AboutRow { user: meter.user.clone(), row: row.clone() }
}
