//! What the environment says. Read once; every fault is reported at once, by name.

use anyhow::Context;
use clerk::Verifier;
use edge::{
    config::{Env, InvalidConfig},
    cors::Cors,
    plans::PlanBook,
    session,
};
use ledger::DynamoSettings;
use std::path::PathBuf;
use stripe::{Secret, Settings, setup::ObjectId};

/// What a request is checked against.
#[derive(Clone, Debug)]
pub struct Front {
    /// Who may come.
    pub verifier: Verifier,
    /// From which web pages, and to which a browser may be sent back.
    pub cors: Cors,
}

/// The function's configuration.
#[derive(Debug)]
pub struct Config {
    /// The ledger's table.
    pub table: DynamoSettings,
    /// The plans in force, and how Stripe names their prices.
    pub book: PlanBook,
    /// Where Stripe is, and the key to it.
    pub stripe: Settings,
    /// The portal's configuration; none: Stripe's default one.
    pub portal: Option<ObjectId>,
    /// What is checked first.
    pub front: Front,
}

/// What comes from variables alone, before the file that they name is read.
struct Variables {
    table: DynamoSettings,
    stripe: Settings,
    portal: Option<ObjectId>,
    front: Front,
    plans_file: Option<PathBuf>,
}

impl Config {
    /// Reads the environment, and the plan book that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(Env::read())
    }

    fn read(env: Env) -> anyhow::Result<Self> {
        let Variables { table, stripe, portal, front, plans_file } = Variables::read(env)?;
        let book = PlanBook::load(plans_file.as_deref()).context("the plans cannot be used")?;
        Ok(Self { table, book, stripe, portal, front })
    }
}

impl Variables {
    fn read(mut env: Env) -> Result<Self, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let secret_key = env.secret("STRIPE_SECRET_KEY");
        let base_url = env.url_if_set("STRIPE_BASE_URL").map(String::from);
        let portal = env.parsed_if_set("PORTAL_CONFIGURATION_ID", |text| {
            ObjectId::parse(text).ok_or("not the id of a portal configuration")
        });
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        let front = session::from_env(&mut env).map(|(verifier, cors)| Front { verifier, cors });
        env.finish(|| {
            Some(Self {
                table: DynamoSettings { table: table?, endpoint },
                stripe: Settings { base_url, secret_key: Secret::new(secret_key?.expose()) },
                portal,
                front: front?,
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
        let env = Env::for_testing(&[("PORTAL_CONFIGURATION_ID", "bpc/../1")]);
        let error = Config::read(env).err().unwrap().to_string();
        for name in [
            "TABLE_NAME",
            "STRIPE_SECRET_KEY",
            "PORTAL_CONFIGURATION_ID: not the id",
            "CLERK_ISSUER",
            "CLERK_AUTHORIZED_PARTIES",
        ] {
            assert!(error.contains(name), "{error}");
        }
    }
}
