//! `ops setup`: reads what stands at Stripe, plans, shows the plan, asks where it is live, does it, reads again, and says
//! what the functions have to be told.
//!
//! It can be run again at any time: after a crash, after an answer that was lost, and when nothing has changed, in which
//! case it does nothing. It never edits a price and never deletes anything but an endpoint that it has replaced.

pub mod apply;
pub mod environment;
pub mod finalization;
pub mod plan;
pub mod present;
mod report;
pub mod wanted;

use crate::cli::Global;
use crate::console::{Console, Exit};
use crate::key::Account;
use apply::Known;
use clap::Args;
use edge::plans::{InvalidPlanBook, PlanBook};
use environment::variables;
use finalization::Finalization;
use plan::{Action, Conflict, Step, plan};
use present::{Present, Unread};
use report::Report;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use stripe::Secret;
use stripe::setup::{Channel, SetupError};
use wanted::{SecretWish, Untold, Wanted};

/// How often what is there is read and planned for again after an answer that was not clear.
const ROUNDS_MAX: u32 = 3;

/// Examples below the help text.
pub const EXAMPLES: &str = "\
Examples:
  See what would be done:
    ops setup --webhook-url https://api.example.com/v1/webhooks/stripe --dry-run
  Do it in a sandbox:
    STRIPE_SECRET_KEY=sk_test_... ops setup --webhook-url https://api.example.com/v1/webhooks/stripe
  Do it live, from a script:
    ops setup --live --yes --json --webhook-url https://api.example.com/v1/webhooks/stripe
  The signing secret is lost:
    ops setup --webhook-url https://api.example.com/v1/webhooks/stripe --roll-webhook-secret";

/// Arguments of `ops setup`.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[derive(Clone, Debug, Args)]
pub struct SetupArguments {
    /// Where Stripe sends its events: the API's URL with /v1/webhooks/stripe behind it.
    #[arg(long, value_name = "URL", value_parser = url)]
    pub webhook_url: String,
    /// Another plan book than the one that was compiled in, infra/plans.toml.
    #[arg(long, value_name = "FILE")]
    pub plans: Option<PathBuf>,
    /// Where the portal's link back leads; left as it is where this is not given.
    #[arg(long, value_name = "URL", value_parser = url)]
    pub portal_return_url: Option<String>,
    /// The name of the meter's events; the same as in the functions' environment.
    #[arg(long, value_name = "NAME", default_value = "inkmeter_tokens", value_parser = event_name)]
    pub meter_event_name: String,
    /// Shows what would be done, and does nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Does not ask before it works on the live account.
    #[arg(long)]
    pub yes: bool,
    /// Makes a second webhook endpoint, because the secret of the first is lost; the next run deletes the first.
    #[arg(long)]
    pub roll_webhook_secret: bool,
    /// The same for the thin events.
    #[arg(long)]
    pub roll_thin_webhook_secret: bool,
}

impl SetupArguments {
    /// The arguments of a command line that says only where the events go.
    pub fn for_testing(webhook_url: &str) -> Self {
        Self {
            webhook_url: webhook_url.to_owned(),
            plans: None,
            portal_return_url: None,
            meter_event_name: "inkmeter_tokens".to_owned(),
            dry_run: false,
            yes: false,
            roll_webhook_secret: false,
            roll_thin_webhook_secret: false,
        }
    }
}

/// As the stack's parameter takes it.
fn event_name(text: &str) -> Result<String, String> {
    let is_one = (1..=100).contains(&text.len()) && !text.contains(char::is_whitespace);
    if is_one { Ok(text.to_owned()) } else { Err("it must have 1 to 100 characters and no space".to_owned()) }
}

/// Stripe takes https only; plain http is for a stand-in on this machine.
fn url(text: &str) -> Result<String, String> {
    let loopback = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let is_local = loopback.iter().any(|host| {
        text.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let is_url = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if (is_url || is_local) && !text.contains(char::is_whitespace) {
        return Ok(text.to_owned());
    }
    Err("it must begin with https://".to_owned())
}

/// Why Stripe is not set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupFailure {
    /// The plan book cannot be used.
    #[error("the plan book cannot be used")]
    Book(#[from] InvalidPlanBook),
    /// A price cannot be told to Stripe.
    #[error(transparent)]
    Untold(#[from] Untold),
    /// What is there cannot be read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// Something stands in the way; nothing was done.
    #[error("nothing was done, because something stands in the way:{}", list(.0))]
    Conflicts(Vec<Conflict>),
    /// A step failed.
    #[error("could not {step}; what was done before stays done, and it is safe to run this again")]
    Step {
        /// What was to be done.
        step: String,
        /// Why it failed.
        #[source]
        source: SetupError,
    },
    /// Answers were lost again and again.
    #[error("Stripe gave no clear answer {ROUNDS_MAX} times; run this again later")]
    Unclear,
    /// Every step was done, and Stripe shows something else.
    #[error("everything was done, and Stripe does not show it:{}", list(.0))]
    NotAsMade(Vec<Action>),
    /// An endpoint was made, and the answer with its secret was lost.
    #[error(
        "the endpoint was made, but the answer with its signing secret was lost; run this again with {0}"
    )]
    SecretLost(&'static str),
    /// Nobody confirmed.
    #[error("not confirmed: nothing was done. From a script, say --yes")]
    NotConfirmed,
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

fn list(lines: &[impl std::fmt::Display]) -> String {
    lines.iter().fold(String::new(), |text, line| format!("{text}\n  - {line}"))
}

impl SetupFailure {
    fn exit(&self) -> Exit {
        match self {
            Self::NotConfirmed => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

/// What has been done so far.
#[derive(Default)]
struct Done {
    steps: Vec<Step>,
    secrets: BTreeMap<Channel, Secret>,
}

/// Sets Stripe up.
///
/// # Errors
/// When nothing can be written.
pub async fn run(
    account: &Account,
    global: &Global,
    arguments: &SetupArguments,
    console: &mut Console<'_>,
) -> io::Result<Exit> {
    let mut done = Done::default();
    let mut report = Report::new(global.json, account.live, arguments.dry_run);
    let ended = set_up(account, arguments, console, &mut report, &mut done).await;
    match ended {
        Ok(exit) => {
            report.finish(console.out)?;
            Ok(exit)
        }
        Err(SetupFailure::Output(error)) => Err(error),
        Err(failure) => {
            report.failed(&done, &failure);
            report.finish(console.out)?;
            console.fail(&failure, failure.exit())
        }
    }
}

async fn set_up(
    account: &Account,
    arguments: &SetupArguments,
    console: &mut Console<'_>,
    report: &mut Report,
    done: &mut Done,
) -> Result<Exit, SetupFailure> {
    let book = PlanBook::load(arguments.plans.as_deref())?;
    let mut wanted = Wanted::of(&book, arguments)?;
    let mut present = Present::read(&account.stripe, &wanted).await?;
    let steps = plan(&wanted, &present).map_err(SetupFailure::Conflicts)?;
    report.plan(console.out, &steps)?;
    if !arguments.dry_run && !steps.is_empty() {
        if account.live && !arguments.yes {
            confirm(console)?;
        }
        present = work(account, &mut wanted, present, console, report, done).await?;
    }
    let finalization = Finalization::of(&present.drafts);
    let variables = variables(&wanted, &present, &done.secrets);
    report.result(console.out, &done.steps, &variables, &finalization)?;
    Ok(if finalization.is_wrong() { Exit::Found } else { Exit::Done })
}

fn confirm(console: &mut Console<'_>) -> Result<(), SetupFailure> {
    match (console.ask)("This is the live account. Go on? Type yes:") {
        Some(answer) if answer == "yes" => Ok(()),
        _ => Err(SetupFailure::NotConfirmed),
    }
}

/// Does what is to be done, until a reading shows that nothing is left. What is there now.
async fn work(
    account: &Account,
    wanted: &mut Wanted,
    mut present: Present,
    console: &mut Console<'_>,
    report: &mut Report,
    done: &mut Done,
) -> Result<Present, SetupFailure> {
    let (mut unsure, mut clear) = (Vec::new(), false);
    for round in 0..=ROUNDS_MAX {
        let steps = plan(wanted, &present).map_err(SetupFailure::Conflicts)?;
        if steps.is_empty() {
            return match unsure.into_iter().find(|channel| !done.secrets.contains_key(channel)) {
                Some(Channel::Snapshot) => Err(SetupFailure::SecretLost("--roll-webhook-secret")),
                Some(Channel::Thin) => Err(SetupFailure::SecretLost("--roll-thin-webhook-secret")),
                None => Ok(present),
            };
        }
        if clear {
            return Err(SetupFailure::NotAsMade(steps.into_iter().map(|step| step.action).collect()));
        }
        if round == ROUNDS_MAX {
            break;
        }
        clear = true;
        let mut known = Known::of(wanted, &present);
        for step in steps {
            match known.apply(&account.stripe, &step.action, &wanted.webhook_url).await {
                Ok(secret) => {
                    report.step(console.out, &step)?;
                    if let Some((channel, secret)) = secret {
                        // At once: whatever happens next, Stripe does not show it again.
                        report.secret(console.out, channel, &secret)?;
                        done.secrets.insert(channel, secret);
                        wanted.secrets.insert(channel, SecretWish::JustRolled);
                    }
                    done.steps.push(step);
                }
                // Later steps may need what this one made: all is read and planned again.
                Err(SetupError::Unknown(reason)) => {
                    writeln!(console.err, "ops: no clear answer ({reason}); reading again what is there")?;
                    if let Action::CreateEndpoint { channel, .. } = step.action {
                        unsure.push(channel);
                    }
                    clear = false;
                    break;
                }
                Err(source) => {
                    return Err(SetupFailure::Step { step: step.action.to_string(), source });
                }
            }
        }
        present = Present::read(&account.stripe, wanted).await?;
    }
    Err(SetupFailure::Unclear)
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn a_webhook_goes_over_https_or_stays_on_this_machine() {
        for good in ["https://api.example.com/v1/webhooks/stripe", "http://127.0.0.1:8787/v1/webhooks/stripe"]
        {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for bad in [
            "http://api.example.com",
            "https://",
            "https:///x",
            "api.example.com",
            "http://localhost.evil.example",
            "https://a b",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
