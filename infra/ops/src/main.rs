//! Reads the arguments and the environment, and ends with the command's exit code.

use anyhow::Context as _;
use clap::Parser as _;
use edge::{clock, config::Env};
use ops::{Arguments, Command, Console, Exit, adopt, books, key::Account, reconcile, reports, setup};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut console = Console { out: &mut out, err: &mut err, ask: &mut ask };
    let global = &arguments.global;
    let ended = match Account::from_env(Env::read(), global) {
        Ok(account) => match &arguments.command {
            Command::Setup(command) => setup::run(&account, global, command, &mut console).await,
            Command::Reports(command) => match books::ledger(Env::read(), global).await {
                Ok(ledger) => {
                    let new_id = edge::ids::new_hold_id as fn() -> _;
                    let at = (&clock::now as _, new_id);
                    reports::run(&ledger, account.live, global, command, &mut console, at).await
                }
                Err(error) => console.fail(&error, Exit::Failed),
            },
            Command::Adopt(command) => match books::ledger_and_plans(Env::read(), global).await {
                Ok((ledger, book)) => {
                    adopt::run(&account, (&ledger, &book), global, command, &mut console, &clock::now).await
                }
                Err(error) => console.fail(&error, Exit::Failed),
            },
            Command::Reconcile(command) => match books::deps(Env::read(), global, &account).await {
                Ok(deps) => {
                    reconcile::run(&deps, account.live, global, command, &mut console, &clock::now).await
                }
                Err(error) => console.fail(&error, Exit::Failed),
            },
        },
        Err(error) => console.fail(&error, error.exit()),
    };
    Ok(ended.context("the output cannot be written")?.into())
}

/// Asks whoever sits at the terminal; none if nobody does.
fn ask(question: &str) -> Option<String> {
    let (stdin, mut terminal) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() {
        return None;
    }
    write!(terminal, "{question} ").and_then(|()| terminal.flush()).ok()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line).ok()?;
    Some(line.trim().to_owned())
}
