//! Seal, send or reconcile, accept: how what is settled reaches Stripe effectively once.
//!
//! The intent is stored before the call, immutable, under an identifier that Stripe remembers for a day. What is not
//! known for longer than that is asked, not repeated. Who may ask and send is who has the customer's [`Lease`].

use crate::{Billing, CustomerId, HoldId, Meter, Timestamp, Tokens, UserId};

/// How long after its first attempt a row whose outcome is unknown may still be sent again: 20 hours. Stripe remembers
/// an identifier for at least 24; the gap covers a send that is still under way.
pub const IDENTIFIER_FORGOTTEN_MS: u64 = 20 * 60 * 60 * 1_000;

/// The most characters of a report item's note.
pub const NOTE_CHARS_MAX: usize = 300;

/// One meter event, as it will be sent however often it takes. Immutable but for the note of its attempts.
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
    /// When its event may have been sent for the last time; none: never. What Stripe takes, it has counted some time after.
    pub last_attempt_at: Option<Timestamp>,
    /// The highest fence of a lease under which it was attempted; 0: under none.
    pub fence: u64,
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

/// What became of a row. It ends as the first, the second or the third; from there, the arrows are the only ways:
/// `Accepted -> Parked -> Forgiven | Retried`. None leads back, so a move that arrives late finds that it was made, or finds
/// what it may not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowFate {
    /// Stripe has it.
    Accepted,
    /// It came too late for its invoice; an item on the next one bills it.
    Invoiced,
    /// Stripe refused it for good, or rejected it after it had taken it; a person has to look.
    Parked,
    /// A person looked, and nobody is to pay for it.
    Forgiven,
    /// A person looked, and its tokens went into a new row.
    Retried,
}

/// A row that ended, as its report item has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub user: UserId,
    /// The start of the period that it is about.
    pub period_start: Timestamp,
    /// The row's number in the meter.
    pub seq: u64,
    /// Who pays for it.
    pub customer: CustomerId,
    /// The identifier that it had.
    pub identifier: String,
    /// Its value.
    pub tokens: Tokens,
    /// The event's time.
    pub timestamp: Timestamp,
    /// What became of it.
    pub fate: RowFate,
    /// When that was written.
    pub at: Timestamp,
    /// Why: Stripe's reason where it is parked, the invoice item where it is invoiced, who forgave it. At most
    /// [`NOTE_CHARS_MAX`] characters.
    pub note: Option<String>,
}

impl Report {
    /// The item of a row that ends.
    pub fn of(
        (user, period_start): (UserId, Timestamp),
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
        note: Option<&str>,
    ) -> Self {
        Self {
            user,
            period_start,
            seq: row.seq,
            customer: row.customer.clone(),
            identifier: row.identifier.clone(),
            tokens: row.tokens,
            timestamp: row.timestamp,
            fate,
            at,
            note: note.map(bounded_note),
        }
    }
}

/// A note as it is kept: its first [`NOTE_CHARS_MAX`] characters.
pub fn bounded_note(note: &str) -> String {
    note.chars().take(NOTE_CHARS_MAX).collect()
}

/// What a row that is about to be sent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Never sent before.
    First,
    /// Perhaps sent before, by somebody else.
    Again,
    /// Not pending any more: it must not be sent.
    Gone,
    /// Attempted under a later lease: it must not be sent.
    Fenced,
}

/// The right to talk to Stripe about one customer, until its time is out. It is no lock: whoever is late may still think that he
/// has it. His fence, which is lower than that of whoever took it after him, is what a row is attempted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// About whom.
    pub customer: CustomerId,
    /// Who has it: an id of one taking, never used for another.
    pub owner: HoldId,
    /// Higher than every lease's of this customer before.
    pub fence: u64,
    /// From when on anybody may take it.
    pub until: Timestamp,
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
/// The row's time is `now` moved into the meter's own period, so that the usage is on that period's invoice. Of a period that
/// Stripe's meter does not bill nothing is sealed before it has ended: what it comes to is one line for whoever pays.
pub fn seal(meter: &Meter, now: Timestamp) -> Option<Seal> {
    let customer = meter.customer.as_ref()?;
    let tokens = meter.settled.checked_sub(meter.sealed).filter(|tokens| *tokens > Tokens::ZERO)?;
    let goes_on = !meter.closed && now < meter.period.end();
    if meter.pending.is_some() || (goes_on && matches!(meter.billing, Billing::Item | Billing::Flat)) {
        return None;
    }
    let row = ReportRow {
        seq: meter.seq,
        customer: customer.clone(),
        identifier: identifier(meter),
        tokens,
        timestamp: meter.period.clamp_s(now),
        first_attempt_at: None,
        last_attempt_at: None,
        fence: 0,
    };
    Some(Seal { rev: meter.rev, sealed_before: meter.sealed, sealed_after: meter.settled, row })
}

/// The new row of a report item that is to be sent again: its tokens, for whom they were, under an identifier that Stripe has
/// not refused. None: it is not parked, or another row is on its way.
pub fn retry(meter: &Meter, report: &Report, now: Timestamp) -> Option<ReportRow> {
    let may = report.fate == RowFate::Parked && meter.pending.is_none();
    may.then(|| ReportRow {
        seq: meter.seq,
        customer: report.customer.clone(),
        identifier: identifier(meter),
        tokens: report.tokens,
        timestamp: meter.period.clamp_s(now),
        first_attempt_at: None,
        last_attempt_at: None,
        fence: 0,
    })
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
/// What Stripe must have with the row is [`Meter::on_stripes_meter`]; without it, that less the row. Any other count is
/// somebody else's doing. Of a meter whose payer has changed or whose period was cut, the period's count says
/// nothing about a row; its minute's does: [`reconcile_minute`].
pub fn reconcile(meter: &Meter, row: &ReportRow, counted: Tokens) -> Verdict {
    let with = meter.on_stripes_meter();
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

/// Judges by what Stripe has counted for the row's customer in the row's own minute, long enough after the row was sent for the
/// last time. It needs no other figure of the meter, so it holds whoever else has paid for it and wherever its period was cut.
///
/// `is_alone`: no other row that Stripe may have is of that minute. A minute without a count lacks the row, whatever else was sent.
pub fn reconcile_minute(row: &ReportRow, counted: Tokens, is_alone: bool) -> Verdict {
    if counted == Tokens::ZERO {
        Verdict::Missing
    } else if is_alone && counted == row.tokens {
        Verdict::Delivered
    } else {
        Verdict::Unclear
    }
}

/// The row's own key in the table, so that no two rows share one even where two users share a customer. At most
/// 64 + 1 + 12 + 1 + 20 of Stripe's 100 characters.
fn identifier(meter: &Meter) -> String {
    format!("{}-{}-{}", meter.user, meter.period.start().s(), meter.seq)
}
