//! What the environment says. Read once; every fault is reported at once, by name.

use anyhow::Context;
use bus::BusSettings;
use domain::Plans;
use edge::{
    config::{Env, InvalidConfig},
    plans::PlanBook,
};
use ledger::DynamoSettings;
use report::{CALLS_PER_S_MAX, StripeMeter, calls_per_s};
use std::{num::NonZeroU32, path::PathBuf};
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
    /// Calls to Stripe in a second, at most.
    pub calls_per_s: NonZeroU32,
}

/// What comes from variables alone, before the file that they name is read.
struct Variables {
    table: DynamoSettings,
    stripe: Settings,
    meter: StripeMeter,
    bus: BusSettings,
    calls_per_s: NonZeroU32,
    plans_file: Option<PathBuf>,
}

impl Config {
    /// Reads the environment, and the plan book that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub fn from_env() -> anyhow::Result<Self> {
        let Variables { table, stripe, meter, bus, calls_per_s, plans_file } = Variables::read(Env::read())?;
        let book = PlanBook::load(plans_file.as_deref()).context("the plans cannot be used")?;
        Ok(Self { table, plans: book.plans().clone(), stripe, meter, bus, calls_per_s })
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
        let calls_given = env.parsed_if_set("STRIPE_CALLS_PER_S", calls_in_range);
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        env.finish(|| {
            let secret_key = Secret::new(secret_key?.expose());
            let usual = calls_per_s(secret_key.is_live());
            Some(Self {
                table: DynamoSettings { table: table?, endpoint: table_endpoint },
                calls_per_s: calls_given.unwrap_or(usual),
                stripe: Settings { base_url, secret_key },
                meter: StripeMeter { event_name: event_name?, id: meter_id? },
                bus: BusSettings { name: bus?, endpoint: bus_endpoint },
                plans_file,
            })
        })
    }
}

fn calls_in_range(text: &str) -> Result<NonZeroU32, String> {
    let calls = text.parse().ok().filter(|calls: &NonZeroU32| calls.get() <= CALLS_PER_S_MAX);
    calls.ok_or_else(|| format!("it must be a number from 1 to {CALLS_PER_S_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [(&str, &str); 4] = [
        ("TABLE_NAME", "t"),
        ("STRIPE_METER_EVENT_NAME", "tokens"),
        ("STRIPE_METER_ID", "mtr_1"),
        ("EVENT_BUS_NAME", "bus"),
    ];

    fn calls(key: &str, given: Option<&str>) -> Result<u32, String> {
        let mut all = REQUIRED.to_vec();
        all.push(("STRIPE_SECRET_KEY", key));
        all.extend(given.map(|given| ("STRIPE_CALLS_PER_S", given)));
        let read = Variables::read(Env::for_testing(&all));
        read.map(|read| read.calls_per_s.get()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_rate_suits_the_key_unless_it_is_given() {
        assert_eq!(calls("sk_test_1", None), Ok(20));
        assert_eq!(calls("rk_live_1", None), Ok(100));
        assert_eq!(calls("sk_live_1", Some("500")), Ok(500));
        for bad in ["0", "501", "-1", "fast"] {
            assert!(calls("sk_test_1", Some(bad)).is_err_and(|e| e.contains("STRIPE_CALLS_PER_S")), "{bad}");
        }
    }

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
