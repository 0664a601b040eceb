//! What the environment says. Read once; every fault is reported at once, by name.

use anyhow::Context;
use clerk::Verifier;
use domain::Plans;
use edge::{
    config::{Env, InvalidConfig},
    cors::Cors,
    plans::PlanBook,
    session,
};
use ledger::DynamoSettings;
use std::path::PathBuf;

/// What a request is checked against.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    /// Who may come.
    pub(crate) verifier: Verifier,
    /// From which web pages.
    pub(crate) cors: Cors,
}

/// The function's configuration.
pub(crate) struct Config {
    /// The ledger's table.
    pub(crate) table: DynamoSettings,
    /// The plans in force.
    pub(crate) plans: Plans,
    /// What is checked first.
    pub(crate) front: Front,
}

/// What comes from variables alone, before the file that they name is read.
struct Variables {
    table: DynamoSettings,
    front: Front,
    plans_file: Option<PathBuf>,
}

impl Config {
    /// Reads the environment, and the plan book that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        Self::read(Env::read())
    }

    fn read(env: Env) -> anyhow::Result<Self> {
        let variables = Variables::read(env)?;
        let book = PlanBook::load(variables.plans_file.as_deref()).context("the plans cannot be used")?;
        Ok(Self { table: variables.table, plans: book.plans().clone(), front: variables.front })
    }
}

impl Variables {
    fn read(mut env: Env) -> Result<Self, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        let front = session::from_env(&mut env).map(|(verifier, cors)| Front { verifier, cors });
        env.finish(|| {
            Some(Self { table: DynamoSettings { table: table?, endpoint }, front: front?, plans_file })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let error = Config::read(Env::for_testing(&[])).err().unwrap().to_string();
        for name in ["TABLE_NAME", "CLERK_ISSUER", "CLERK_AUTHORIZED_PARTIES"] {
            assert!(error.contains(name), "{error}");
        }
    }
}
