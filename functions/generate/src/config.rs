//! What the environment says. Read once; every fault is reported at once, by name.

use crate::budget::Ceilings;
use anyhow::Context;
use bus::BusSettings;
use clerk::Verifier;
use domain::{ModelId, ModelPrice, ModelPrices, NanoUsd, Plans, Refusal, Timestamp, Tokens};
use edge::{
    config::{Env, InvalidConfig},
    cors::Cors,
    models,
    money::Usd,
    plans::PlanBook,
    problem::Problem,
    session,
};
use ledger::DynamoSettings;
use openai::{ApiKey, BaseUrl, Settings as ProviderSettings, Timeouts};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

/// How long the provider may take to its first text where the environment does not say, in milliseconds. Reasoning models
/// think that long.
const FIRST_TOKEN_MS_DEFAULT: NonZeroU32 = NonZeroU32::MIN.saturating_add(59_999);
/// How long it may then be silent where the environment does not say, in milliseconds.
const IDLE_MS_DEFAULT: NonZeroU32 = NonZeroU32::MIN.saturating_add(29_999);
/// The output cap where the environment names none, in tokens.
const OUTPUT_TOKENS_DEFAULT: NonZeroU32 = NonZeroU32::MIN.saturating_add(1_023);

/// What the provider may cost in a day for everybody where the environment does not say.
const OWNER_DAILY_DEFAULT: Usd = Usd(NanoUsd::of_usd(50));
/// And for all users without a subscription.
const TRIAL_DAILY_DEFAULT: Usd = Usd(NanoUsd::of_usd(5));

/// What a request is checked against before it is admitted.
#[derive(Clone, Debug)]
pub struct Front {
    /// Who may come.
    pub verifier: Verifier,
    /// From which web pages.
    pub cors: Cors,
    /// What can be asked for.
    pub menu: Menu,
    /// Whether answers are kept for the repeats of a request with an idempotency key.
    pub keeps_answers: bool,
    /// Where a customer pays what is unpaid: the login page of Stripe's customer portal; none: nobody is sent there.
    pub portal_url: Option<String>,
    /// What the provider may cost in a day.
    pub ceilings: Ceilings,
}

impl Front {
    /// What a request that a limit refused is answered with.
    pub(crate) fn refusal(&self, refusal: &Refusal, now: Timestamp) -> Problem {
        let problem = Problem::refusal(refusal, now);
        match &self.portal_url {
            Some(url) => problem.portal(url),
            None => problem,
        }
    }
}

/// The models on offer.
#[derive(Clone, Debug)]
pub struct Menu {
    /// All of them, with their prices.
    pub prices: ModelPrices,
    /// The one that answers a request that names none; one of `prices`.
    pub default: ModelPrice,
    /// The most tokens that an answer may have, whatever its model could.
    pub output_max: Tokens,
}

impl Menu {
    /// The models that may answer, in the order of preference: the one that a request names and no other, else the default and
    /// then the rest of the list.
    pub(crate) fn candidates<'a>(&'a self, named: Option<&'a ModelPrice>) -> Vec<&'a ModelPrice> {
        let others = self.prices.iter().filter(|price| price.model != self.default.model);
        match named {
            Some(model) => vec![model],
            None => std::iter::once(&self.default).chain(others).collect(),
        }
    }
}

/// The function's configuration.
pub struct Config {
    /// The ledger's table.
    pub table: DynamoSettings,
    /// The plans in force.
    pub plans: Plans,
    /// Who answers.
    pub provider: ProviderSettings,
    /// What is checked first.
    pub front: Front,
    /// Where the owner is told how much of a budget is used; none: in the log alone.
    pub bus: Option<BusSettings>,
}

/// What comes from variables alone, before the files that they name are read.
struct Variables {
    table: DynamoSettings,
    provider: ProviderSettings,
    verifier: Verifier,
    cors: Cors,
    model: Option<ModelId>,
    output_max: NonZeroU32,
    keeps_answers: bool,
    portal_url: Option<String>,
    ceilings: Ceilings,
    bus: Option<BusSettings>,
    plans_file: Option<PathBuf>,
}

/// A variable that is `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Switch {
    On,
    Off,
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("it must be `on` or `off`"),
        }
    }
}

impl Config {
    /// Reads the environment, and the plan book and price list that it names.
    ///
    /// # Errors
    /// Everything that is missing or malformed.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(Env::read())
    }

    fn read(env: Env) -> anyhow::Result<Self> {
        let variables = Variables::read(env)?;
        let book = PlanBook::load(variables.plans_file.as_deref()).context("the plans cannot be used")?;
        let prices = models::built_in().context("the price list cannot be used")?;
        let default = match &variables.model {
            Some(model) => prices.get(model),
            None => prices.iter().next(),
        };
        let default = default.cloned().context("OPENAI_MODEL: not in infra/models.toml")?;
        let output_max = Tokens::from_u32(variables.output_max.get());
        let menu = Menu { prices, default, output_max };
        Ok(Self {
            table: variables.table,
            plans: book.plans().clone(),
            provider: variables.provider,
            front: Front {
                verifier: variables.verifier,
                cors: variables.cors,
                menu,
                keeps_answers: variables.keeps_answers,
                portal_url: variables.portal_url,
                ceilings: variables.ceilings,
            },
            bus: variables.bus,
        })
    }
}

impl Variables {
    fn read(mut env: Env) -> Result<Self, InvalidConfig> {
        let table = env.text("TABLE_NAME");
        let endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let base_url = env.required("OPENAI_BASE_URL", BaseUrl::parse);
        let api_key = env.parsed_if_set("OPENAI_API_KEY", ApiKey::parse);
        let model = env.parsed_if_set("OPENAI_MODEL", ModelId::parse);
        let output_max = env.parsed_or("MAX_OUTPUT_TOKENS", OUTPUT_TOKENS_DEFAULT);
        let plans_file = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        let verifier = session::from_env(&mut env);
        let first_token_ms = env.parsed_or("PROVIDER_FIRST_TOKEN_MS", FIRST_TOKEN_MS_DEFAULT);
        let idle_ms = env.parsed_or("PROVIDER_IDLE_MS", IDLE_MS_DEFAULT);
        let keeps_answers = env.parsed_or("STORE_ANSWERS", Switch::On);
        let portal_url = env.url_if_set("PORTAL_URL").map(String::from);
        let everyone = env.parsed_or("OWNER_DAILY_USD", OWNER_DAILY_DEFAULT);
        let trial = env.parsed_or("TRIAL_DAILY_USD", TRIAL_DAILY_DEFAULT);
        let bus = env.text_if_set("EVENT_BUS_NAME");
        let bus_endpoint = env.url_if_set("EVENTBRIDGE_ENDPOINT").map(String::from);
        env.finish(|| {
            let (verifier, cors) = verifier?;
            Some(Self {
                table: DynamoSettings { table: table?, endpoint },
                provider: ProviderSettings {
                    base_url: base_url?,
                    api_key,
                    timeouts: Timeouts {
                        first_token_ms: u64::from(first_token_ms?.get()),
                        idle_ms: u64::from(idle_ms?.get()),
                    },
                },
                keeps_answers: keeps_answers? == Switch::On,
                portal_url,
                ceilings: Ceilings { everyone: everyone?.0, trial: trial?.0 },
                bus: bus.map(|name| BusSettings { name, endpoint: bus_endpoint }),
                verifier,
                cors,
                model,
                output_max: output_max?,
                plans_file,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: [(&str, &str); 4] = [
        ("TABLE_NAME", "inkmeter"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"),
        ("CLERK_ISSUER", "https://clerk.example.com"),
        ("CLERK_AUTHORIZED_PARTIES", "https://app.example.com"),
    ];

    fn read(more: &[(&str, &str)]) -> anyhow::Result<Config> {
        Config::read(Env::for_testing(&[&COMPLETE, more].concat()))
    }

    #[test]
    fn a_complete_environment_needs_nothing_else() {
        let config = read(&[]).unwrap();
        assert_eq!(config.front.menu.default.model.as_str(), "gpt-6-luna");
        assert_eq!(config.front.menu.output_max, Tokens::from_u32(1_024));
        assert!(config.front.keeps_answers);
        let Timeouts { first_token_ms, idle_ms } = config.provider.timeouts;
        assert_eq!((first_token_ms, idle_ms), (60_000, 30_000));
    }

    #[test]
    fn answers_are_kept_unless_that_is_switched_off() {
        assert!(!read(&[("STORE_ANSWERS", "off")]).unwrap().front.keeps_answers);
        let error = read(&[("STORE_ANSWERS", "no")]).err().unwrap().to_string();
        assert!(error.contains("STORE_ANSWERS"), "{error}");
    }

    #[test]
    fn f20_the_budgets_are_dollars_a_day_and_are_never_without_an_end() {
        let ceilings = |more: &[(&str, &str)]| read(more).unwrap().front.ceilings;
        let usd = NanoUsd::of_usd;
        assert_eq!(ceilings(&[]), Ceilings { everyone: usd(50), trial: usd(5) });
        let given = [("OWNER_DAILY_USD", "120"), ("TRIAL_DAILY_USD", "0")];
        assert_eq!(ceilings(&given), Ceilings { everyone: usd(120), trial: NanoUsd::ZERO });
        for name in ["OWNER_DAILY_USD", "TRIAL_DAILY_USD"] {
            for value in ["-1", "unlimited", "1e3", "$5"] {
                let error = read(&[(name, value)]).err().unwrap().to_string();
                assert!(error.contains(name) && !error.contains(value), "{error}");
            }
        }
    }

    #[test]
    fn whoever_owes_is_sent_to_the_portal_if_there_is_one() {
        let refusal = Refusal::PastDue { pay_by: Timestamp::from_s(900) };
        let told = |more: &[(&str, &str)]| {
            let problem = read(more).unwrap().front.refusal(&refusal, Timestamp::from_s(1_000));
            serde_json::to_value(problem).unwrap().get("portalUrl").cloned()
        };
        let url = "https://pay.example.com/p/login/1";
        assert_eq!(told(&[("PORTAL_URL", url)]), Some(url.into()));
        assert_eq!(told(&[]), None);
        let error = read(&[("PORTAL_URL", "pay here")]).err().unwrap().to_string();
        assert!(error.contains("PORTAL_URL"), "{error}");
    }

    #[test]
    fn a_request_that_names_no_model_may_be_answered_by_any() {
        let menu = read(&[("OPENAI_MODEL", "gpt-5.4-nano")]).unwrap().front.menu;
        let names = |models: Vec<&ModelPrice>| -> Vec<String> {
            models.iter().map(|price| price.model.to_string()).collect()
        };
        assert_eq!(names(menu.candidates(None)), ["gpt-5.4-nano", "gpt-6-luna", "gpt-4o-mini"]);
        let wanted = menu.prices.iter().last().unwrap();
        assert_eq!(names(menu.candidates(Some(wanted))), ["gpt-4o-mini"]);
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let error = Config::read(Env::for_testing(&[])).err().unwrap().to_string();
        for (name, _) in COMPLETE {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn f07_a_default_model_without_a_price_is_refused_at_start() {
        let error = read(&[("OPENAI_MODEL", "gpt-7")]).err().unwrap().to_string();
        assert!(error.contains("OPENAI_MODEL"), "{error}");
        assert!(read(&[("MAX_OUTPUT_TOKENS", "0")]).is_err());
    }
}
