//! `ops reports`: what became of the rows that were sent to Stripe, and what a person does about those that it refused and those of
//! which nobody knows.

use crate::books::instant;
use crate::cli::Global;
use crate::console::{Console, Exit};
use clap::{Args, Subcommand};
use domain::{HoldId, InvoiceItemId, Report, ReportRow, RowFate, Timestamp, UserId};
use ledger::{Changed, Ledger, MeterKey, Retried, SHARDS, Store, StoreError};
use report::{FoundAtStripe, ParkRefused, Parking, STUCK_MS, end_pending, fate_name};
use serde_json::{Value, json};
use std::io;

/// Reports that one command shows; of more, the rest is left out and that is said.
const SHOWN_MAX: usize = 10_000;

/// What a report on its way is called where fates are.
const PENDING: &str = "pending";

/// Examples below the help text.
pub const EXAMPLES: &str = "\
Examples:
  What waits for a person:
    ops reports list --parked
  What is on its way to Stripe, and since when:
    ops reports list --pending
  End one of which nobody can tell whether Stripe has it (look at Stripe first, as docs/OPERATIONS.md says):
    ops reports park user_2abc 2027-01-15T08:00:00Z 3 --reason 'not among its events'
  End one that Stripe has, as that page says:
    ops reports accept user_2abc 2027-01-15T08:00:00Z 3 --reason 'counted at 08:00'
  Send one again:
    ops reports retry user_2abc 2027-01-15T08:00:00Z 3
  Nobody is to pay for it:
    ops reports forgive user_2abc 2027-01-15T08:00:00Z 3 --reason 'our own test'";

/// A command about reports.
#[derive(Clone, Debug, Subcommand)]
pub enum ReportsCommand {
    /// Shows reports. Exit code 4 with --parked if there is one, with --pending if one has been on its way for a day.
    List(ListArguments),
    /// Ends a report that is on its way, because a person has looked: it can then be sent again or forgiven.
    Park(ParkArguments),
    /// Ends a report that is on its way as one that Stripe has, because a person has seen it there.
    Accept(AcceptArguments),
    /// Takes the tokens of a parked report into a new one, which the next run of the reporter sends.
    Retry(RetryArguments),
    /// Notes that nobody is to pay for a parked report.
    Forgive(ForgiveArguments),
}

/// Arguments of `ops reports list`.
#[derive(Clone, Debug, Args)]
pub struct ListArguments {
    /// Only those that wait for a person.
    #[arg(long)]
    pub parked: bool,
    /// Only those that are on their way to Stripe.
    #[arg(long, conflicts_with = "parked")]
    pub pending: bool,
    /// Only this user's; without it, everybody's are read.
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: Option<UserId>,
}

/// Which report.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Whose.
    #[arg(value_parser = user)]
    pub user: UserId,
    /// The start of the period that it is about.
    #[arg(value_parser = instant)]
    pub period_start: Timestamp,
    /// Its number.
    pub seq: u64,
    /// Does not ask before it works on the live account.
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `ops reports park`.
#[derive(Clone, Debug, Args)]
pub struct ParkArguments {
    /// Which report.
    #[command(flatten)]
    pub which: Which,
    /// What was found at Stripe; it is kept with the report.
    #[arg(long)]
    pub reason: String,
    /// Also one that was sent first less than a day ago, of which the reporter may yet find out.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `ops reports accept`.
#[derive(Clone, Debug, Args)]
pub struct AcceptArguments {
    /// Which report, what was found, and whether it may be a young one.
    #[command(flatten)]
    pub park: ParkArguments,
    /// The invoice item that bills it; without it, Stripe's meter has counted it.
    #[arg(long, value_name = "ITEM", value_parser = item)]
    pub invoice_item: Option<InvoiceItemId>,
}

/// Arguments of `ops reports retry`.
#[derive(Clone, Debug, Args)]
pub struct RetryArguments {
    /// Which report.
    #[command(flatten)]
    pub which: Which,
}

/// Arguments of `ops reports forgive`.
#[derive(Clone, Debug, Args)]
pub struct ForgiveArguments {
    /// Which report.
    #[command(flatten)]
    pub which: Which,
    /// Why; it is kept with the report.
    #[arg(long)]
    pub reason: String,
}

/// A user id as an argument.
///
/// # Errors
/// When it is none.
pub fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

/// An invoice item's id as an argument.
///
/// # Errors
/// When it is none.
pub fn item(text: &str) -> Result<InvoiceItemId, String> {
    InvoiceItemId::parse(text).map_err(|error| error.to_string())
}

/// What says the time: whoever is asked something first may take his for the answer.
type Clock<'a> = &'a (dyn Fn() -> Timestamp + Sync);

/// Runs one of the commands. `new_id`: who takes a lease.
///
/// # Errors
/// When nothing can be written.
pub async fn run<S: Store>(
    ledger: &Ledger<S>,
    live: bool,
    global: &Global,
    command: &ReportsCommand,
    console: &mut Console<'_>,
    (now, new_id): (Clock<'_>, fn() -> HoldId),
) -> io::Result<Exit> {
    match command {
        ReportsCommand::List(arguments) => match listed(ledger, arguments).await {
            Ok((shown, all)) => list(&shown, all, arguments, global, console, now()),
            Err(error) => console.fail(&error, Exit::Failed),
        },
        ReportsCommand::Park(arguments) => {
            let found = FoundAtStripe::Nothing;
            end(ledger, live, global, (arguments, found), console, (now, new_id())).await
        }
        ReportsCommand::Accept(AcceptArguments { park, invoice_item }) => {
            let found = invoice_item.as_ref().map_or(FoundAtStripe::Event, FoundAtStripe::Item);
            end(ledger, live, global, (park, found), console, (now, new_id())).await
        }
        ReportsCommand::Retry(RetryArguments { which }) => {
            retry(ledger, live, global, which, console, now).await
        }
        ReportsCommand::Forgive(ForgiveArguments { which, reason }) => {
            forgive(ledger, live, global, (which, reason), console, now).await
        }
    }
}

/// What a list shows.
enum Shown {
    /// A report that ended.
    Ended(Report),
    /// One that is on its way.
    Pending(MeterKey, ReportRow),
}

/// The reports that are asked for, and whether that is all of them.
async fn listed<S: Store>(
    ledger: &Ledger<S>,
    arguments: &ListArguments,
) -> Result<(Vec<Shown>, bool), StoreError> {
    let mut found = Vec::new();
    if let Some(user) = &arguments.user {
        let all = of_user(ledger, user, arguments, &mut found).await?;
        return Ok((found, all));
    }
    for shard in 0..SHARDS {
        let mut from = None;
        // Bounded by the table: each page begins behind the last.
        loop {
            let page = ledger.users(shard, from.as_ref()).await?;
            for user in &page.users {
                if !of_user(ledger, user, arguments, &mut found).await? {
                    return Ok((found, false));
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok((found, true))
}

async fn of_user<S: Store>(
    ledger: &Ledger<S>,
    user: &UserId,
    arguments: &ListArguments,
    found: &mut Vec<Shown>,
) -> Result<bool, StoreError> {
    if !arguments.parked {
        for mut meter in ledger.meters(user, Timestamp::from_ms(0)).await? {
            found.extend(meter.pending.take().map(|row| Shown::Pending(MeterKey::of(&meter), row)));
        }
    }
    if arguments.pending {
        return Ok(cut(found));
    }
    let mut before = None;
    loop {
        let page = ledger.reports(user, None, before.as_ref()).await?;
        let asked = |report: &Report| !arguments.parked || report.fate == RowFate::Parked;
        found.extend(page.reports.into_iter().filter(asked).map(Shown::Ended));
        before = page.next;
        if before.is_none() || found.len() > SHOWN_MAX {
            break;
        }
    }
    Ok(cut(found))
}

/// Cuts what is shown to what may be; answers whether that is all of it.
fn cut(found: &mut Vec<Shown>) -> bool {
    let all = found.len() <= SHOWN_MAX;
    found.truncate(SHOWN_MAX);
    all
}

fn list(
    shown: &[Shown],
    all: bool,
    arguments: &ListArguments,
    global: &Global,
    console: &mut Console<'_>,
    now: Timestamp,
) -> io::Result<Exit> {
    if global.json {
        let reports: Vec<Value> = shown.iter().map(wire).collect();
        writeln!(console.out, "{}", json!({ "reports": reports, "complete": all }))?;
    } else {
        for shown in shown {
            writeln!(console.out, "{}", in_words(shown))?;
        }
        if !all {
            writeln!(console.err, "ops: there are more than {SHOWN_MAX}; ask for one user's")?;
        }
    }
    let waits = |shown: &Shown| match shown {
        Shown::Ended(_) => arguments.parked,
        Shown::Pending(_, row) => arguments.pending && is_stuck(row, now),
    };
    Ok(if shown.iter().any(waits) { Exit::Found } else { Exit::Done })
}

fn is_stuck(row: &ReportRow, now: Timestamp) -> bool {
    row.first_attempt_at.is_some_and(|since| now.ms_since(since) > STUCK_MS)
}

fn in_words(shown: &Shown) -> String {
    let (user, period, seq, fate, tokens, customer, note) = match shown {
        Shown::Ended(report) => {
            let note = report.note.clone().unwrap_or_default();
            let Report { user, period_start, seq, fate, tokens, customer, .. } = report;
            (user, period_start, seq, fate_name(*fate), tokens, customer, note)
        }
        Shown::Pending(MeterKey { user, period_start }, row) => {
            let ReportRow { seq, tokens, customer, timestamp, first_attempt_at, last_attempt_at, .. } = row;
            let attempted = first_attempt_at.zip(*last_attempt_at);
            let note = attempted.map_or_else(
                || format!("of {timestamp}, never attempted"),
                |(first, last)| format!("of {timestamp}, attempted since {first}, last at {last}"),
            );
            (user, period_start, seq, PENDING, tokens, customer, note)
        }
    };
    format!("{user} {period} {seq} {fate} {tokens} tokens {customer} {note}")
}

fn wire(shown: &Shown) -> Value {
    match shown {
        Shown::Ended(report) => json!({
            "user": report.user.as_str(),
            "periodStart": report.period_start.to_string(),
            "seq": report.seq,
            "fate": fate_name(report.fate),
            "tokens": report.tokens.get(),
            "customer": report.customer.as_str(),
            "identifier": report.identifier,
            "at": report.at.to_string(),
            "note": report.note,
        }),
        Shown::Pending(key, row) => json!({
            "user": key.user.as_str(),
            "periodStart": key.period_start.to_string(),
            "seq": row.seq,
            "fate": PENDING,
            "tokens": row.tokens.get(),
            "customer": row.customer.as_str(),
            "identifier": row.identifier,
            "timestamp": row.timestamp.to_string(),
            "firstAttemptAt": row.first_attempt_at.map(|at| at.to_string()),
            "lastAttemptAt": row.last_attempt_at.map(|at| at.to_string()),
        }),
    }
}

async fn end<S: Store>(
    ledger: &Ledger<S>,
    live: bool,
    global: &Global,
    (ParkArguments { which, reason, force }, found): (&ParkArguments, FoundAtStripe<'_>),
    console: &mut Console<'_>,
    (now, owner): (Clock<'_>, HoldId),
) -> io::Result<Exit> {
    let key = MeterKey { user: which.user.clone(), period_start: which.period_start };
    let fate = match found {
        FoundAtStripe::Nothing => RowFate::Parked,
        FoundAtStripe::Event => RowFate::Accepted,
        FoundAtStripe::Item(_) => RowFate::Invoiced,
    };
    if live && !which.yes {
        let question = format!("end report {} of {} as {}? [yes/no]", which.seq, which.user, fate_name(fate));
        if (console.ask)(&question).as_deref() != Some("yes") {
            writeln!(console.err, "ops: not confirmed; nothing was done")?;
            return Ok(Exit::Refused);
        }
    }
    let parking = Parking { key: &key, seq: which.seq, found, reason, force: *force };
    match end_pending(ledger, &parking, &owner, now()).await {
        Ok(row) if global.json => {
            let told = json!({ "seq": row.seq, "fate": fate_name(fate), "tokens": row.tokens.get() });
            writeln!(console.out, "{told}")?;
            Ok(Exit::Done)
        }
        Ok(row) => {
            let next = if fate == RowFate::Parked { "; retry or forgive them" } else { "" };
            writeln!(console.out, "{} tokens are {}{next}", row.tokens, fate_name(fate))?;
            Ok(Exit::Done)
        }
        Err(error @ ParkRefused::Ledger(_)) => console.fail(&error, Exit::Failed),
        Err(error) => console.fail(&error, Exit::Refused),
    }
}

/// The report, shown to whoever has to confirm; none: it was not confirmed, or there is nothing to confirm.
async fn confirmed<S: Store>(
    ledger: &Ledger<S>,
    live: bool,
    (which, what): (&Which, &str),
    console: &mut Console<'_>,
) -> io::Result<Result<MeterKey, Exit>> {
    let key = MeterKey { user: which.user.clone(), period_start: which.period_start };
    let report = match ledger.report(&key, which.seq).await {
        Ok(Some(report)) if report.fate == RowFate::Parked => report,
        Ok(Some(report)) => {
            writeln!(console.err, "ops: that report is {}, not parked", fate_name(report.fate))?;
            return Ok(Err(Exit::Failed));
        }
        Ok(None) => {
            writeln!(console.err, "ops: there is no such report")?;
            return Ok(Err(Exit::Failed));
        }
        Err(error) => return Ok(Err(console.fail(&error, Exit::Failed)?)),
    };
    if live && !which.yes {
        let note = report.note.as_deref().unwrap_or_default();
        let question = format!("{what} {} tokens of {} ({note})? [yes/no]", report.tokens, report.customer);
        if (console.ask)(&question).as_deref() != Some("yes") {
            writeln!(console.err, "ops: not confirmed; nothing was done")?;
            return Ok(Err(Exit::Refused));
        }
    }
    Ok(Ok(key))
}

async fn retry<S: Store>(
    ledger: &Ledger<S>,
    live: bool,
    global: &Global,
    which: &Which,
    console: &mut Console<'_>,
    now: Clock<'_>,
) -> io::Result<Exit> {
    let key = match confirmed(ledger, live, (which, "send again"), console).await? {
        Ok(key) => key,
        Err(exit) => return Ok(exit),
    };
    match ledger.retry_parked(&key, which.seq, now()).await {
        Ok(Retried::Yes(row)) => {
            if global.json {
                let told =
                    json!({ "seq": row.seq, "identifier": row.identifier, "tokens": row.tokens.get() });
                writeln!(console.out, "{told}")?;
            } else {
                writeln!(
                    console.out,
                    "{} tokens are in report {} now, which the next run of the reporter sends",
                    row.tokens, row.seq
                )?;
            }
            Ok(Exit::Done)
        }
        Ok(Retried::RowPending) => {
            writeln!(console.err, "ops: another report of that period is on its way; try again in an hour")?;
            Ok(Exit::Failed)
        }
        Ok(Retried::NotParked) => {
            writeln!(console.err, "ops: that report is not parked any more")?;
            Ok(Exit::Failed)
        }
        Err(error) => console.fail(&error, Exit::Failed),
    }
}

async fn forgive<S: Store>(
    ledger: &Ledger<S>,
    live: bool,
    global: &Global,
    (which, reason): (&Which, &str),
    console: &mut Console<'_>,
    now: Clock<'_>,
) -> io::Result<Exit> {
    let key = match confirmed(ledger, live, (which, "forgive"), console).await? {
        Ok(key) => key,
        Err(exit) => return Ok(exit),
    };
    match ledger.forgive_parked(&key, which.seq, now(), reason).await {
        Ok(Changed::Yes) => {
            if global.json {
                writeln!(console.out, "{}", json!({ "seq": which.seq, "fate": "forgiven" }))?;
            } else {
                writeln!(console.out, "forgiven")?;
            }
            Ok(Exit::Done)
        }
        Ok(Changed::No) => {
            writeln!(console.err, "ops: that report is not parked any more")?;
            Ok(Exit::Failed)
        }
        Err(error) => console.fail(&error, Exit::Failed),
    }
}
