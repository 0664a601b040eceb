//! What the functions have to be told once Stripe is set up.

use super::present::Present;
use super::wanted::Wanted;
use std::collections::BTreeMap;
use stripe::Secret;
use stripe::setup::Channel;

/// One variable of the functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// Its name as a parameter of infra/template.yaml.
    pub parameter: &'static str,
    /// Whether it must not be seen.
    pub secret: bool,
    /// What it is to be; none: only whoever made it knows.
    pub value: Option<String>,
    /// What to do when nobody knows it any more.
    pub when_lost: &'static str,
}

/// The variable that has a channel's secret.
pub fn secret_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Snapshot => "STRIPE_WEBHOOK_SECRET",
        Channel::Thin => "STRIPE_THIN_WEBHOOK_SECRET",
    }
}

/// Every variable.
pub fn variables(wanted: &Wanted, present: &Present, secrets: &BTreeMap<Channel, Secret>) -> Vec<Variable> {
    let open = |name, parameter, value| Variable { name, parameter, secret: false, value, when_lost: "" };
    let secret = |channel, parameter, when_lost| Variable {
        name: secret_name(channel),
        parameter,
        secret: true,
        value: secrets.get(&channel).map(|secret| secret.expose().to_owned()),
        when_lost,
    };
    let meter = present.meter(&wanted.event_name).map(|meter| meter.id.to_string());
    let portal = present.portal();
    vec![
        open("STRIPE_METER_ID", "StripeMeterId", meter),
        open("STRIPE_METER_EVENT_NAME", "StripeMeterEventName", Some(wanted.event_name.clone())),
        secret(Channel::Snapshot, "StripeWebhookSecret", "--roll-webhook-secret"),
        secret(Channel::Thin, "StripeThinWebhookSecret", "--roll-thin-webhook-secret"),
        open("PORTAL_URL", "PortalUrl", portal.and_then(|portal| portal.login_url.clone())),
        open("PORTAL_CONFIGURATION_ID", "PortalConfigurationId", portal.map(|portal| portal.id.to_string())),
    ]
}

/// The command that tells them. A secret stands in it as the shell's variable, so that it is in no history; one that is not
/// known now is left out, and keeps the value that it was deployed with.
pub fn sam_deploy(variables: &[Variable]) -> String {
    let known = variables.iter().filter_map(|variable| Some((variable, variable.value.as_ref()?)));
    let overrides = known.map(|(variable, value)| {
        let value = if variable.secret { format!("\"${}\"", variable.name) } else { value.clone() };
        format!("{}={value}", variable.parameter)
    });
    let words = ["sam deploy --parameter-overrides".to_owned()].into_iter().chain(overrides);
    words.collect::<Vec<_>>().join(" ")
}
