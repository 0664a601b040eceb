//! What the environment says. Read once; every fault is reported at once, by name.

use anyhow::Context;
use bus::BusSettings;
use domain::Plans;
use edge::{
    config::{Env, InvalidConfig},
    plans::PlanBook,
};
use ledger::DynamoSettings;
use report::StripeMeter;
use std::path::PathBuf;
use stripe::{Secret, Settings};

/// The function's configuration.
pub struct Config {
    /// The ledger's table.
    pub table: DynamoSettings,
    /// The plans in force.
    pub plans: Plans,
    /// Stripe.
    pub stripe: Settings,
    /// The meter at Stripe.
    pub meter: StripeMeter,
    /// The bus.
    pub bus: BusSettings,
}

/// What comes from variables alone, before the file that they name is read.
struct Variables {
    table: DynamoSettings,
    stripe: Settings,
    meter: StripeMeter,
    bus: BusSettings,
    plans_file: Option<PathBuf>,
}

impl Config {
    /// Reads the environment, and the plan book that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub fn from_env() -> anyhow::Result<Self> {
        let Variables { table, stripe, meter, bus, plans_file } = Variables::read(Env::read())?;
        let book = PlanBook::load(plans_file.as_deref()).context("the plans cannot be used")?;
        Ok(Self { table, plans: book.plans().clone(), stripe, meter, bus })
    }
}

impl Variables {
    fn read(mut env: Env) -> Result<Self, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let table_endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let secret_key = env.secret("STRIPE_SECRET_KEY");
        let base_url = env.url_if_set("STRIPE_BASE_URL").map(String::from);
        let event_name = env.text("STRIPE_METER_EVENT_NAME");
        let meter_id = env.text("STRIPE_METER_ID");
        let bus = env.text("EVENT_BUS_NAME");
        let bus_endpoint = env.url_if_set("EVENTBRIDGE_ENDPOINT").map(String::from);
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        env.finish(|| {
            Some(Self {
                table: DynamoSettings { table: table?, endpoint: table_endpoint },
                stripe: Settings { base_url, secret_key: Secret::new(secret_key?.expose()) },
                meter: StripeMeter { event_name: event_name?, id: meter_id? },
                bus: BusSettings { name: bus?, endpoint: bus_endpoint },
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
        for name in [
            "TABLE_NAME",
            "STRIPE_SECRET_KEY",
            "STRIPE_METER_EVENT_NAME",
            "STRIPE_METER_ID",
            "EVENT_BUS_NAME",
        ] {
            assert!(error.contains(name), "{error}");
        }
    }
}
