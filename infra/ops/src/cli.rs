//! The arguments.

use crate::{adopt, reconcile, reports, setup};
use clap::{Args, Parser, Subcommand};

/// What stands below every help text.
const ENVIRONMENT: &str = "\
Environment:
  STRIPE_SECRET_KEY   the key of the Stripe account, sk_... or rk_...; never an argument
  STRIPE_BASE_URL     where Stripe is, if not at Stripe; --stripe-base-url wins
  TABLE_NAME          the ledger's table, for all but setup; --table wins
  STRIPE_METER_ID, STRIPE_METER_EVENT_NAME
                      the meter, for reconcile; as the functions'
  DYNAMODB_ENDPOINT, PLANS_FILE
                      as the functions'; AWS's own variables say where and as whom

Exit codes:
  0  done, or nothing to do
  1  failed
  2  the arguments are wrong
  3  refused: not confirmed, or the key and --live do not go together
  4  something was found that a person must look at";

/// The owner's tool for Inkmeter.
#[derive(Debug, Parser)]
#[command(name = "ops", after_help = ENVIRONMENT)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Prints one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Works on the live account. Needed with a live key, refused with a test key.
    #[arg(long, global = true)]
    pub live: bool,
    /// The ledger's DynamoDB table.
    #[arg(long, global = true, value_name = "NAME")]
    pub table: Option<String>,
    /// Where Stripe's API is, https or a loopback address.
    #[arg(long, global = true, value_name = "URL")]
    pub stripe_base_url: Option<String>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sets Stripe up from the plan book: meter, products, prices, webhooks, portal. Safe to repeat.
    #[command(after_help = setup::EXAMPLES)]
    Setup(setup::SetupArguments),
    /// Shows what became of reports, and moves those that Stripe refused.
    #[command(subcommand, after_help = reports::EXAMPLES)]
    Reports(reports::ReportsCommand),
    /// Holds receipts, meters, reports and Stripe's count against each other.
    #[command(after_help = reconcile::EXAMPLES)]
    Reconcile(reconcile::ReconcileArguments),
    /// Takes over customers who have a subscription from another billing. Safe to repeat.
    #[command(after_help = adopt::EXAMPLES)]
    Adopt(adopt::AdoptArguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_takes_a_key_as_an_argument() {
        let mut todo = vec![Arguments::command()];
        while let Some(command) = todo.pop() {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(!name.contains("key") && !name.ends_with("_secret_value"), "{name}");
            }
            todo.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn a_global_option_stands_before_or_behind_the_command() {
        let url = "--webhook-url=https://api.example.com/v1/webhooks/stripe";
        for arguments in [["ops", "--json", "setup", url], ["ops", "setup", url, "--json"]] {
            assert!(Arguments::try_parse_from(arguments).unwrap().global.json);
        }
    }
}
