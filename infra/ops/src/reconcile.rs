//! `ops reconcile`: whether receipts, meters, reports and Stripe's count agree; and the repairs that are safe, of one meter, when
//! they are asked for.

use crate::books::instant;
use crate::cli::Global;
use crate::console::{Console, Exit};
use crate::reports::user;
use clap::Args;
use domain::{Timestamp, UserId};
use ledger::{MeterKey, Store};
use report::{Checkup, Deps, Drift, Finding, Reconciling, Repair};
use serde_json::{Value, json};
use std::io;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long a command may go on, in milliseconds.
const LASTS_MS_MAX: u64 = DAY_MS;

/// Examples below the help text.
pub const EXAMPLES: &str = "\
Examples:
  Everything of the last 34 days:
    ops reconcile
  One user, as JSON:
    ops reconcile --user user_2abc --json
  Repair what can be repaired of one period:
    ops reconcile --repair user_2abc 2027-01-15T08:00:00Z";

/// Arguments of `ops reconcile`.
#[derive(Clone, Debug, Args)]
pub struct ReconcileArguments {
    /// Only this user's meters.
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: Option<UserId>,
    /// How many days are looked back.
    #[arg(long, default_value_t = 34, value_parser = clap::value_parser!(u16).range(1..=400))]
    pub days: u16,
    /// Repairs the meter of a user and a period's start, as far as that is safe.
    #[arg(long, num_args = 2, value_names = ["USER", "PERIOD"], conflicts_with = "user")]
    pub repair: Option<Vec<String>>,
    /// Does not ask before it repairs on the live account.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command. Exit code 4: something does not agree.
///
/// # Errors
/// When nothing can be written.
pub async fn run<S: Store>(
    deps: &Deps<S>,
    live: bool,
    global: &Global,
    arguments: &ReconcileArguments,
    console: &mut Console<'_>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> io::Result<Exit> {
    let window_ms = u64::from(arguments.days) * DAY_MS;
    let reconciling = Reconciling::new(deps, now().plus_ms(LASTS_MS_MAX), now).within(window_ms);
    match arguments.repair.as_deref() {
        Some([of, period]) => match (user(of), instant(period)) {
            (Ok(user), Ok(period_start)) => {
                let key = MeterKey { user, period_start };
                repair(&reconciling, &key, live && !arguments.yes, global, console).await
            }
            (Err(error), _) | (_, Err(error)) => {
                writeln!(console.err, "ops: --repair: {error}")?;
                Ok(Exit::Failed)
            }
        },
        Some(_) | None => look(&reconciling, arguments, global, console).await,
    }
}

async fn look<S: Store>(
    reconciling: &Reconciling<'_, S>,
    arguments: &ReconcileArguments,
    global: &Global,
    console: &mut Console<'_>,
) -> io::Result<Exit> {
    let (found, counts, whole) = if let Some(user) = &arguments.user {
        match reconciling.user(user).await {
            Ok(found) => {
                let counts = json!({ "users": 1, "meters": found.len() });
                let unseen =
                    |checkup: &Checkup| matches!(checkup.finding, Finding::Unasked | Finding::Moving);
                let whole = !found.iter().any(unseen);
                (found, counts, whole)
            }
            Err(error) => return console.fail(&error, Exit::Failed),
        }
    } else {
        let (checked, stopped) = reconciling.all(None).await;
        let counts = serde_json::to_value(&checked).unwrap_or_default();
        let unseen = checked.failed > 0 || checked.shards_failed > 0;
        let whole = stopped.is_none() && !unseen && checked.unasked == 0 && checked.moving == 0;
        let found: Vec<Checkup> = checked.drifts.into_iter().chain(checked.others).collect();
        (found, counts, whole)
    };
    let drifted: Vec<(&MeterKey, &Vec<Drift>)> = found
        .iter()
        .filter_map(|Checkup { key, finding, .. }| match finding {
            Finding::Drifted(drifts) => Some((key, drifts)),
            Finding::Agrees | Finding::Moving | Finding::Unasked | Finding::Incomparable => None,
        })
        .collect();
    let of = |finding: &Finding| -> Vec<&MeterKey> {
        found.iter().filter(|checkup| checkup.finding == *finding).map(|checkup| &checkup.key).collect()
    };
    let (moving, incomparable) = (of(&Finding::Moving), of(&Finding::Incomparable));
    let on_none = found.iter().filter(|checkup| checkup.uninvoiced.is_some());
    let uninvoiced: Vec<&MeterKey> = on_none.map(|checkup| &checkup.key).collect();
    if global.json {
        let drifts: Vec<Value> = drifted.iter().map(|(key, drifts)| wire(key, drifts)).collect();
        let told = json!({ "counts": counts, "complete": whole, "drift": drifts, "moving": names(&moving),
            "notComparable": names(&incomparable), "onNoInvoice": names(&uninvoiced) });
        writeln!(console.out, "{told}")?;
    } else {
        for (key, drifts) in &drifted {
            tell(key, drifts, console)?;
        }
        for MeterKey { user, period_start } in moving {
            writeln!(console.out, "{user} {period_start} moved each time it was read")?;
        }
        for MeterKey { user, period_start } in incomparable {
            writeln!(
                console.out,
                "{user} {period_start} not comparable: its payer or its period has changed"
            )?;
        }
        for MeterKey { user, period_start } in uninvoiced {
            writeln!(console.out, "{user} {period_start} has usage above what is included on no invoice")?;
        }
        writeln!(console.out, "{counts}")?;
    }
    if !whole {
        writeln!(console.err, "ops: not everything could be looked at")?;
    }
    Ok(match (drifted.is_empty(), whole) {
        (false, _) => Exit::Found,
        (true, false) => Exit::Failed,
        (true, true) => Exit::Done,
    })
}

fn names(keys: &[&MeterKey]) -> Vec<Value> {
    let name =
        |key: &&MeterKey| json!({ "user": key.user.as_str(), "periodStart": key.period_start.to_string() });
    keys.iter().map(name).collect()
}

fn wire(key: &MeterKey, drifts: &[Drift]) -> Value {
    json!({
        "user": key.user.as_str(),
        "periodStart": key.period_start.to_string(),
        "equations": drifts,
    })
}

fn tell(key: &MeterKey, drifts: &[Drift], console: &mut Console<'_>) -> io::Result<()> {
    for drift in drifts {
        let equation = serde_json::to_value(drift.equation).unwrap_or_default();
        let name = equation.as_str().unwrap_or_default();
        let figure = |(from, to): (u64, u64)| {
            if from == to { from.to_string() } else { format!("{from} to {to}") }
        };
        let (left, right) = (figure(drift.left), figure(drift.right));
        writeln!(console.out, "{} {} {name}: {left}, not {right}", key.user, key.period_start)?;
        for row in &drift.rows {
            writeln!(console.out, "    {} {} {} tokens", row.identifier, row.fate, row.tokens)?;
        }
    }
    Ok(())
}

async fn repair<S: Store>(
    reconciling: &Reconciling<'_, S>,
    key: &MeterKey,
    asks: bool,
    global: &Global,
    console: &mut Console<'_>,
) -> io::Result<Exit> {
    if asks {
        let question = format!("repair the meter of {} from {}? [yes/no]", key.user, key.period_start);
        if (console.ask)(&question).as_deref() != Some("yes") {
            writeln!(console.err, "ops: not confirmed; nothing was done")?;
            return Ok(Exit::Refused);
        }
    }
    let done = match reconciling.repair(key).await {
        Ok(done) => done,
        Err(error) => return console.fail(&error, Exit::Failed),
    };
    if global.json {
        let done: Vec<Value> = done.iter().map(repaired).collect();
        writeln!(console.out, "{}", json!({ "repairs": done }))?;
    } else {
        for repair in &done {
            let (words, drift) = in_words(repair);
            writeln!(console.out, "{words}")?;
            if let Some(drift) = drift {
                tell(key, std::slice::from_ref(drift), console)?;
            }
        }
    }
    let is_left = |repair: &Repair| {
        matches!(repair, Repair::Beyond(_) | Repair::Parked(_) | Repair::Moving | Repair::Unasked)
    };
    Ok(if done.iter().any(is_left) { Exit::Found } else { Exit::Done })
}

fn repaired(repair: &Repair) -> Value {
    match repair {
        Repair::Swept(holds) => json!({ "repair": "swept", "holds": holds }),
        Repair::SentAgain { row, again } => {
            json!({ "repair": "sent_again", "row": row, "seq": again.seq, "identifier": again.identifier })
        }
        Repair::Parked(row) => json!({ "repair": "parked", "row": row }),
        Repair::Agrees => json!({ "repair": "none" }),
        Repair::Moving => json!({ "repair": "moving" }),
        Repair::Unasked => json!({ "repair": "unasked" }),
        Repair::Incomparable => json!({ "repair": "not_comparable" }),
        Repair::Beyond(drift) => json!({ "repair": "beyond", "drift": drift }),
    }
}

/// What was done, and the drift that is left.
fn in_words(repair: &Repair) -> (String, Option<&Drift>) {
    match repair {
        Repair::Swept(holds) => (format!("{holds} requests that nobody works on any more were ended"), None),
        Repair::SentAgain { row, again } => (
            format!(
                "Stripe lacks {}: its {} tokens are in report {}, which the next run of the reporter sends",
                row.identifier, row.tokens, again.seq
            ),
            None,
        ),
        Repair::Parked(row) => (
            format!(
                "Stripe lacks {}: it is parked; send it again with ops reports retry once the report that is on its \
                 way has ended",
                row.identifier
            ),
            None,
        ),
        Repair::Agrees => ("everything agrees".to_owned(), None),
        Repair::Moving => ("the meter moves; try again".to_owned(), None),
        Repair::Unasked => {
            ("Stripe's count is not to be had, or there is too much to read; the rest agrees".to_owned(), None)
        }
        Repair::Incomparable => (
            "Stripe's count says nothing about this meter, for its payer or its period has changed; the rest agrees"
                .to_owned(),
            None,
        ),
        Repair::Beyond(drift) => ("this cannot be repaired here:".to_owned(), Some(drift)),
    }
}
