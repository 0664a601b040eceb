//! Seal, send or reconcile, accept: how what is settled reaches Stripe effectively once.
//!
//! The intent is stored before the call, immutable, under an identifier that Stripe remembers for a day. What is not
//! known for longer than that is asked, not repeated.

use crate::{CustomerId, Meter, Timestamp, Tokens};

/// How long after its first attempt a row whose outcome is unknown may still be sent again: 20 hours. Stripe remembers
/// an identifier for at least 24; the gap covers a send that is still under way.
pub const IDENTIFIER_FORGOTTEN_MS: u64 = 20 * 60 * 60 * 1_000;

/// One meter event, as it will be sent however often it takes. Immutable but for the note of its first attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRow {
    /// Its number in the meter.
    pub seq: u64,
    /// Who pays for it, whoever pays for the meter by the time it is sent.
    pub customer: CustomerId,
    /// The identifier under which Stripe counts it once; at most 100 characters.
    pub identifier: String,
    /// The event's value.
    pub tokens: Tokens,
    /// The event's time, a whole second inside the period.
    pub timestamp: Timestamp,
    /// When it was first sent; none: never.
    pub first_attempt_at: Option<Timestamp>,
}

/// A decision to move everything settled into one row, and what it was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The meter's `rev`, exactly as it was: whoever pays and when the period ends may change with the account.
    pub rev: u64,
    /// `sealed`, exactly as it was; `seq` is the row's own, and no row may be pending.
    pub sealed_before: Tokens,
    /// `sealed` as it will be: `settled` as it was read.
    pub sealed_after: Tokens,
    /// The row.
    pub row: ReportRow,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFate {
    /// Stripe has it.
    Accepted,
    /// Stripe refused it for good; a person has to look.
    Parked,
}

/// What to do with a pending row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Send it, under its own identifier.
    Send,
    /// Ask Stripe what it has counted: it may have forgotten the identifier.
    Reconcile,
}

/// What Stripe's count says about a row whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It never arrived: send it.
    Missing,
    /// It is counted: accept it.
    Delivered,
    /// Neither fits: a person has to look, and nothing is sent.
    Unclear,
}

/// Decides whether there is something to seal: usage beyond what is sealed, no row on its way, and somebody to bill.
///
/// The row's time is `now` moved into the meter's own period, so that the usage is on that period's invoice.
pub fn seal(meter: &Meter, now: Timestamp) -> Option<Seal> {
    let customer = meter.customer.as_ref()?;
    let tokens = meter.settled.checked_sub(meter.sealed).filter(|tokens| *tokens > Tokens::ZERO)?;
    if meter.pending.is_some() {
        return None;
    }
    let row = ReportRow {
        seq: meter.seq,
        customer: customer.clone(),
        identifier: identifier(meter),
        tokens,
        timestamp: meter.period.clamp_s(now),
        first_attempt_at: None,
    };
    Some(Seal { rev: meter.rev, sealed_before: meter.sealed, sealed_after: meter.settled, row })
}

/// Decides whether a pending row may be sent, or Stripe has to be asked first.
pub fn next_step(row: &ReportRow, now: Timestamp) -> NextStep {
    match row.first_attempt_at {
        Some(first) if now.ms_since(first) > IDENTIFIER_FORGOTTEN_MS => NextStep::Reconcile,
        Some(_) | None => NextStep::Send,
    }
}

/// Judges what Stripe has counted for the period, given the meter as it was read *before* Stripe was asked.
///
/// What Stripe must have without the row is `sealed - parked - row`; with it, `sealed - parked`. Any other count is
/// somebody else's doing. Of a meter whose payer has changed or whose period was cut, no count says anything about a row.
pub fn reconcile(meter: &Meter, row: &ReportRow, counted: Tokens) -> Verdict {
    let with = meter.sealed.saturating_sub(meter.parked);
    let without = with.saturating_sub(row.tokens);
    if meter.mixed {
        Verdict::Unclear
    } else if counted == with {
        Verdict::Delivered
    } else if counted == without {
        Verdict::Missing
    } else {
        Verdict::Unclear
    }
}

/// The row's own key in the table, so that no two rows share one even where two users share a customer. At most
/// 64 + 1 + 12 + 1 + 20 of Stripe's 100 characters.
fn identifier(meter: &Meter) -> String {
    format!("{}-{}-{}", meter.user, meter.period.start().s(), meter.seq)
}
