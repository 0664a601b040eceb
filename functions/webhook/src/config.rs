//! What the environment says. Read once; every fault is reported at once, by name.

use anyhow::Context;
use bus::BusSettings;
use edge::{
    config::{Env, InvalidConfig},
    plans::PlanBook,
};
use ledger::DynamoSettings;
use report::{StripeMeter, calls_per_s};
use std::{collections::BTreeSet, num::NonZeroU32, path::PathBuf};
use stripe::{Secret, Settings, SigningSecrets};

const SNAPSHOT_SECRETS: &str = "STRIPE_WEBHOOK_SECRET";
const THIN_SECRETS: &str = "STRIPE_THIN_WEBHOOK_SECRET";

/// The function's configuration.
pub struct Config {
    /// The ledger's table.
    pub table: DynamoSettings,
    /// The plans and how Stripe names their prices.
    pub book: PlanBook,
    /// Stripe.
    pub stripe: Settings,
    /// The meter at Stripe.
    pub meter: StripeMeter,
    /// The bus.
    pub bus: BusSettings,
    /// How many calls a second Stripe gets of one process.
    pub calls_per_s: NonZeroU32,
    /// The signing secrets: of the endpoint at least one, of the destination of thin events any.
    pub secrets: SigningSecrets,
}

/// What comes from variables alone, before the file that they name is read.
struct Variables {
    table: DynamoSettings,
    stripe: Settings,
    meter: StripeMeter,
    bus: BusSettings,
    calls_per_s: NonZeroU32,
    secrets: SigningSecrets,
    plans_file: Option<PathBuf>,
}

impl Config {
    /// Reads the environment, and the plan book that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub fn from_env() -> anyhow::Result<Self> {
        let Variables { table, stripe, meter, bus, calls_per_s, secrets, plans_file } =
            Variables::read(Env::read())?;
        let book = PlanBook::load(plans_file.as_deref()).context("the plans cannot be used")?;
        Ok(Self { table, book, stripe, meter, bus, calls_per_s, secrets })
    }
}

impl Variables {
    fn read(mut env: Env) -> Result<Self, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let secret_key = env.secret("STRIPE_SECRET_KEY");
        let base_url = env.url_if_set("STRIPE_BASE_URL").map(String::from);
        let event_name = env.text("STRIPE_METER_EVENT_NAME");
        let meter_id = env.text("STRIPE_METER_ID");
        let bus = env.text("EVENT_BUS_NAME");
        let bus_endpoint = env.url_if_set("EVENTBRIDGE_ENDPOINT").map(String::from);
        let snapshot = env.list(SNAPSHOT_SECRETS);
        let thin = env.text_if_set(THIN_SECRETS).map(|text| listed(&text)).unwrap_or_default();
        // A secret that vouched for both forms would let whoever has it sign either.
        if snapshot.iter().flatten().any(|secret| thin.contains(secret.as_str())) {
            env.complain(THIN_SECRETS, &format_args!("it has a secret of {SNAPSHOT_SECRETS}"));
        }
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        env.finish(|| {
            let secret_key = Secret::new(secret_key?.expose());
            Some(Self {
                table: DynamoSettings { table: table?, endpoint },
                calls_per_s: calls_per_s(secret_key.is_live()),
                stripe: Settings { base_url, secret_key },
                meter: StripeMeter { event_name: event_name?, id: meter_id? },
                bus: BusSettings { name: bus?, endpoint: bus_endpoint },
                secrets: SigningSecrets {
                    snapshot: snapshot?.into_iter().map(Secret::new).collect(),
                    thin: thin.into_iter().map(Secret::new).collect(),
                },
                plans_file,
            })
        })
    }
}

/// Values separated by commas; blanks around them are dropped.
fn listed(text: &str) -> BTreeSet<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
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
            "STRIPE_WEBHOOK_SECRET",
        ] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains("THIN"), "{error}");
    }

    #[test]
    fn one_secret_vouches_for_one_form_of_events() {
        let read = |thin| {
            let variables = [
                ("TABLE_NAME", "t"),
                ("STRIPE_SECRET_KEY", "sk_test_1"),
                ("STRIPE_METER_EVENT_NAME", "tokens"),
                ("STRIPE_METER_ID", "mtr_1"),
                ("EVENT_BUS_NAME", "bus"),
                ("STRIPE_WEBHOOK_SECRET", "whsec_a, whsec_b"),
                ("STRIPE_THIN_WEBHOOK_SECRET", thin),
            ];
            Variables::read(Env::for_testing(&variables))
        };
        let secrets = read("whsec_c,whsec_d").ok().unwrap().secrets;
        assert_eq!((secrets.snapshot.len(), secrets.thin.len()), (2, 2));
        assert_eq!(read("").ok().unwrap().secrets.thin.len(), 0);
        let error = read("whsec_c, whsec_b").err().unwrap().to_string();
        assert!(error.contains("STRIPE_THIN_WEBHOOK_SECRET") && !error.contains("whsec"), "{error}");
    }
}
