//! The functions' environment, and which parts it points at the real thing.
//!
//! Must never pass anything else of the caller's on: a function sees what it would see on AWS.

use std::collections::{BTreeMap, BTreeSet};

use super::{Catalog, Options};

/// The table's name.
pub(super) const TABLE_NAME: &str = "inkmeter";
/// The bus's name.
pub(super) const BUS_NAME: &str = "inkmeter-events";
/// The region that functions are told.
pub(super) const REGION: &str = "us-east-1";
/// Signs the webhooks of Stripe's stand-in.
pub(super) const WEBHOOK_SECRET: &str = "whsec_local";
/// Signs its thin events.
pub(super) const THIN_WEBHOOK_SECRET: &str = "whsec_local_thin";
/// The meter that counts tokens, as in the template.
pub(super) const METER_EVENT_NAME: &str = "inkmeter_tokens";
/// The model, as in the template.
const MODEL: &str = "gpt-6-luna";
/// What the provider may cost in a day, in US dollars: more than anybody on one machine comes to.
const DAILY_USD: &str = "1000000";
/// The real provider, for a caller who brings only a key.
const OPENAI: &str = "https://api.openai.com/v1";

/// A part that can be the real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Real {
    /// `OPENAI_BASE_URL` or `OPENAI_API_KEY` is given.
    OpenAi,
    /// `STRIPE_BASE_URL` or `STRIPE_SECRET_KEY` is given.
    Stripe,
    /// `CLERK_ISSUER` or `CLERK_JWT_KEY` is given.
    Clerk,
    /// `DYNAMODB_ENDPOINT` is given.
    DynamoDb,
}

/// The parts that these variables point at the real thing.
pub fn real_parts(overrides: &BTreeMap<String, String>) -> BTreeSet<Real> {
    let signs = [
        (Real::OpenAi, ["OPENAI_BASE_URL", "OPENAI_API_KEY"].as_slice()),
        (Real::Stripe, &["STRIPE_BASE_URL", "STRIPE_SECRET_KEY"]),
        (Real::Clerk, &["CLERK_ISSUER", "CLERK_JWT_KEY"]),
        (Real::DynamoDb, &["DYNAMODB_ENDPOINT"]),
    ];
    let given = signs.into_iter().filter(|(_, names)| names.iter().any(|name| overrides.contains_key(*name)));
    given.map(|(part, _)| part).collect()
}

/// Where the parts of this cloud are; `None` for a real one.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) dynamo: Option<String>,
    pub(super) openai: Option<String>,
    pub(super) stripe: Option<String>,
    pub(super) events: String,
    pub(super) clerk: Option<ClerkIdentity>,
}

/// What a verifier of tokens needs.
#[derive(Debug)]
pub(super) struct ClerkIdentity {
    pub(super) issuer: String,
    pub(super) public_key_pem: String,
    /// Comma-separated origins.
    pub(super) authorized_parties: String,
}

/// What every function is told; none reads all of it.
pub(super) fn of_functions(
    options: &Options,
    addresses: &Addresses,
    catalog: Option<&Catalog>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        all.insert(name.to_owned(), value.to_owned());
    };
    set("RUST_LOG", "info");
    set("TABLE_NAME", TABLE_NAME);
    set("AWS_REGION", REGION);
    set("AWS_DEFAULT_REGION", REGION);
    set("AWS_ACCESS_KEY_ID", "local");
    set("AWS_SECRET_ACCESS_KEY", "local");
    set("EVENT_BUS_NAME", BUS_NAME);
    set("EVENTBRIDGE_ENDPOINT", &addresses.events);
    set("OPENAI_MODEL", MODEL);
    set("OWNER_DAILY_USD", DAILY_USD);
    set("TRIAL_DAILY_USD", DAILY_USD);
    set("STRIPE_METER_EVENT_NAME", METER_EVENT_NAME);
    if let Some(dynamo) = &addresses.dynamo {
        set("DYNAMODB_ENDPOINT", dynamo);
    }
    match &addresses.openai {
        None => set("OPENAI_BASE_URL", OPENAI),
        Some(openai) => {
            set("OPENAI_BASE_URL", openai);
            set("OPENAI_API_KEY", &options.openai.api_key);
        }
    }
    if let Some(stripe) = &addresses.stripe {
        set("STRIPE_BASE_URL", stripe);
        set("STRIPE_SECRET_KEY", &options.stripe.api_key);
        set("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET);
        set("STRIPE_THIN_WEBHOOK_SECRET", THIN_WEBHOOK_SECRET);
    }
    if let Some(catalog) = catalog {
        set("STRIPE_METER_ID", &catalog.meter_id);
        set("PORTAL_CONFIGURATION_ID", &catalog.portal_id);
        set("PORTAL_URL", &catalog.portal_url);
    }
    if let Some(clerk) = &addresses.clerk {
        set("CLERK_ISSUER", &clerk.issuer);
        set("CLERK_JWT_KEY", &clerk.public_key_pem);
        set("CLERK_AUTHORIZED_PARTIES", &clerk.authorized_parties);
    }
    if let Some(plans) = &options.plans {
        set("PLANS_FILE", &plans.to_string_lossy());
    }
    all.extend(options.overrides.clone());
    all.extend(options.extra.clone());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Addresses, Real, of_functions, real_parts};
    use crate::cloud::Options;

    fn variables(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), "given".to_owned())).collect()
    }

    #[test]
    fn what_says_where_or_as_whom_makes_a_part_real_and_nothing_else_does() {
        assert!(
            real_parts(&variables(&["OPENAI_MODEL", "STRIPE_METER_ID", "CLERK_AUTHORIZED_PARTIES"]))
                .is_empty()
        );
        let real = real_parts(&variables(&["OPENAI_API_KEY", "DYNAMODB_ENDPOINT"]));
        assert_eq!(real.into_iter().collect::<Vec<_>>(), [Real::OpenAi, Real::DynamoDb]);
    }

    #[test]
    fn no_key_of_a_stand_in_reaches_the_real_thing() {
        let overrides = variables(&["OPENAI_API_KEY"]);
        let options = Options { overrides, ..Options::default() };
        let all = of_functions(&options, &Addresses::default(), None);
        assert_eq!(all["OPENAI_BASE_URL"], super::OPENAI);
        assert_eq!(all["OPENAI_API_KEY"], "given");
        assert!(
            !all.contains_key("STRIPE_SECRET_KEY") && !all.contains_key("CLERK_JWT_KEY"),
            "{:?}",
            all.keys()
        );
    }

    #[test]
    fn extra_variables_win() {
        let extra = BTreeMap::from([("DYNAMODB_ENDPOINT".to_owned(), "http://proxy".to_owned())]);
        let options = Options { extra, ..Options::default() };
        let addresses = Addresses { dynamo: Some("http://db".to_owned()), ..Addresses::default() };
        assert_eq!(of_functions(&options, &addresses, None)["DYNAMODB_ENDPOINT"], "http://proxy");
    }
}
