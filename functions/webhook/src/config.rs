//! What the environment says. Read once; every fault is reported at once, by name.

use anyhow::Context;
use edge::{
    config::{Env, InvalidConfig},
    plans::PlanBook,
};
use ledger::DynamoSettings;
use std::path::PathBuf;
use stripe::{Secret, Settings};

/// The function's configuration.
pub struct Config {
    /// The ledger's table.
    pub table: DynamoSettings,
    /// The plans and how Stripe names their prices.
    pub book: PlanBook,
    /// Stripe.
    pub stripe: Settings,
    /// The endpoint's signing secrets, at least one.
    pub secrets: Vec<Secret>,
}

/// What comes from variables alone, before the file that they name is read.
struct Variables {
    table: DynamoSettings,
    stripe: Settings,
    secrets: Vec<Secret>,
    plans_file: Option<PathBuf>,
}

impl Config {
    /// Reads the environment, and the plan book that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub fn from_env() -> anyhow::Result<Self> {
        let Variables { table, stripe, secrets, plans_file } = Variables::read(Env::read())?;
        let book = PlanBook::load(plans_file.as_deref()).context("the plans cannot be used")?;
        Ok(Self { table, book, stripe, secrets })
    }
}

impl Variables {
    fn read(mut env: Env) -> Result<Self, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let secret_key = env.secret("STRIPE_SECRET_KEY");
        let base_url = env.url_if_set("STRIPE_BASE_URL").map(String::from);
        let secrets = env.list("STRIPE_WEBHOOK_SECRET");
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        env.finish(|| {
            Some(Self {
                table: DynamoSettings { table: table?, endpoint },
                stripe: Settings { base_url, secret_key: Secret::new(secret_key?.expose()) },
                secrets: secrets?.into_iter().map(Secret::new).collect(),
                plans_file,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let error = Variables::read(Env::for_testing(&[])).err().unwrap().to_string();
        for name in ["TABLE_NAME", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"] {
            assert!(error.contains(name), "{error}");
        }
    }
}
