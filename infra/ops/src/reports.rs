//! `ops reports`: what became of the rows that were sent to Stripe, and what a person does about those that it refused.

use crate::books::instant;
use crate::cli::Global;
use crate::console::{Console, Exit};
use clap::{Args, Subcommand};
use domain::{Report, RowFate, Timestamp, UserId};
use ledger::{Changed, Ledger, MeterKey, Retried, SHARDS, Store, StoreError};
use report::fate_name;
use serde_json::{Value, json};
use std::io;

/// Reports that one command shows; of more, the rest is left out and that is said.
const SHOWN_MAX: usize = 10_000;

/// Examples below the help text.
pub const EXAMPLES: &str = "\
Examples:
  What waits for a person:
    ops reports list --parked
  Send one again:
    ops reports retry user_2abc 2027-01-15T08:00:00Z 3
  Nobody is to pay for it:
    ops reports forgive user_2abc 2027-01-15T08:00:00Z 3 --reason 'our own test'";

/// A command about reports.
#[derive(Clone, Debug, Subcommand)]
pub enum ReportsCommand {
    /// Shows reports. Exit code 4 with --parked if there is one.
    List(ListArguments),
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

/// Runs one of the commands.
///
/// # Errors
/// When nothing can be written.
pub async fn run<S: Store>(
    ledger: &Ledger<S>,
    live: bool,
    global: &Global,
    command: &ReportsCommand,
    console: &mut Console<'_>,
    now: Timestamp,
) -> io::Result<Exit> {
    match command {
        ReportsCommand::List(arguments) => match listed(ledger, arguments).await {
            Ok((reports, all)) => list(&reports, all, arguments, global, console),
            Err(error) => console.fail(&error, Exit::Failed),
        },
        ReportsCommand::Retry(RetryArguments { which }) => {
            retry(ledger, live, global, which, console, now).await
        }
        ReportsCommand::Forgive(ForgiveArguments { which, reason }) => {
            forgive(ledger, live, global, (which, reason), console, now).await
        }
    }
}

/// The reports that are asked for, and whether that is all of them.
async fn listed<S: Store>(
    ledger: &Ledger<S>,
    arguments: &ListArguments,
) -> Result<(Vec<Report>, bool), StoreError> {
    let mut found = Vec::new();
    if let Some(user) = &arguments.user {
        let all = of_user(ledger, user, arguments.parked, &mut found).await?;
        return Ok((found, all));
    }
    for shard in 0..SHARDS {
        let mut from = None;
        // Bounded by the table: each page begins behind the last.
        loop {
            let page = ledger.users(shard, from.as_ref()).await?;
            for user in &page.users {
                if !of_user(ledger, user, arguments.parked, &mut found).await? {
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
    parked: bool,
    found: &mut Vec<Report>,
) -> Result<bool, StoreError> {
    let mut before = None;
    loop {
        let page = ledger.reports(user, None, before.as_ref()).await?;
        found.extend(page.reports.into_iter().filter(|report| !parked || report.fate == RowFate::Parked));
        if found.len() > SHOWN_MAX {
            found.truncate(SHOWN_MAX);
            return Ok(false);
        }
        before = page.next;
        if before.is_none() {
            return Ok(true);
        }
    }
}

fn list(
    reports: &[Report],
    all: bool,
    arguments: &ListArguments,
    global: &Global,
    console: &mut Console<'_>,
) -> io::Result<Exit> {
    if global.json {
        let reports: Vec<Value> = reports.iter().map(wire).collect();
        writeln!(console.out, "{}", json!({ "reports": reports, "complete": all }))?;
    } else {
        for report in reports {
            writeln!(
                console.out,
                "{} {} {} {} {} tokens {} {}",
                report.user,
                report.period_start,
                report.seq,
                fate_name(report.fate),
                report.tokens,
                report.customer,
                report.note.as_deref().unwrap_or_default()
            )?;
        }
        if !all {
            writeln!(console.err, "ops: there are more than {SHOWN_MAX}; ask for one user's")?;
        }
    }
    let waits = arguments.parked && !reports.is_empty();
    Ok(if waits { Exit::Found } else { Exit::Done })
}

fn wire(report: &Report) -> Value {
    json!({
        "user": report.user.as_str(),
        "periodStart": report.period_start.to_string(),
        "seq": report.seq,
        "fate": fate_name(report.fate),
        "tokens": report.tokens.get(),
        "customer": report.customer.as_str(),
        "identifier": report.identifier,
        "at": report.at.to_string(),
        "note": report.note,
    })
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
    now: Timestamp,
) -> io::Result<Exit> {
    let key = match confirmed(ledger, live, (which, "send again"), console).await? {
        Ok(key) => key,
        Err(exit) => return Ok(exit),
    };
    match ledger.retry_parked(&key, which.seq, now).await {
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
    now: Timestamp,
) -> io::Result<Exit> {
    let key = match confirmed(ledger, live, (which, "forgive"), console).await? {
        Ok(key) => key,
        Err(exit) => return Ok(exit),
    };
    match ledger.forgive_parked(&key, which.seq, now, reason).await {
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
