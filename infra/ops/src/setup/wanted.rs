//! What is to stand at Stripe, from the plan book and the arguments.

use super::SetupArguments;
use domain::PlanId;
use edge::plans::PlanBook;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use stripe::setup::{Cents, Channel, PortalSettings, Tier, TooFine};

/// The events of v1 objects that the webhook function reads.
pub const SNAPSHOT_EVENTS: [&str; 15] = [
    "charge.dispute.created",
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "invoice.created",
    "invoice.finalization_failed",
    "invoice.finalized",
    "invoice.paid",
    "invoice.payment_failed",
];
/// The thin events: usage that Stripe took and then could not count.
pub const THIN_EVENTS: [&str; 2] =
    ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"];

/// Everything that is to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name of the meter's events.
    pub event_name: String,
    /// The plans that are sold.
    pub plans: Vec<WantedPlan>,
    /// Where events go.
    pub webhook_url: String,
    /// What is done about signing secrets.
    pub secrets: BTreeMap<Channel, SecretWish>,
    /// What customers may do in the portal.
    pub portal: PortalSettings,
}

/// What is done about a channel's signing secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretWish {
    /// It is known; an endpoint that was replaced is not needed any more.
    #[default]
    Known,
    /// It is lost: a second endpoint is made, and the first stays for now.
    Lost,
    /// The second endpoint was just made: the first stays until the functions know the new secret.
    JustRolled,
}

/// A plan that is sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPlan {
    /// Its id.
    pub id: PlanId,
    /// What the customer reads.
    pub name: String,
    /// Its flat and its metered price.
    pub prices: [WantedPrice; 2],
}

/// A price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPrice {
    /// What it is found by.
    pub lookup_key: String,
    /// What it charges.
    pub charge: WantedCharge,
}

/// What a price charges, before the meter has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedCharge {
    /// This much for each period.
    Flat(Cents),
    /// What the meter counted, at these tiers.
    Metered(Vec<Tier>),
}

/// A plan whose price cannot be told to Stripe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plan {plan}: {source}")]
pub struct Untold {
    /// The plan.
    plan: PlanId,
    #[source]
    source: TooFine,
}

impl Wanted {
    /// What the book and the arguments ask for.
    ///
    /// # Errors
    /// When an overage price has more decimals than Stripe takes.
    pub fn of(book: &PlanBook, arguments: &SetupArguments) -> Result<Self, Untold> {
        let plans = book.sold().map(|(plan, keys)| {
            let tiers = tiers(plan.included.get(), plan.overage_per_million)
                .map_err(|source| Untold { plan: plan.id.clone(), source })?;
            let price = |lookup_key: &str, charge| WantedPrice { lookup_key: lookup_key.to_owned(), charge };
            let flat = WantedCharge::Flat(Cents::whole(plan.price_cents));
            Ok(WantedPlan {
                id: plan.id.clone(),
                name: book.name(&plan.id).to_owned(),
                prices: [price(&keys.base, flat), price(&keys.metered, WantedCharge::Metered(tiers))],
            })
        });
        let wish = |lost: bool| if lost { SecretWish::Lost } else { SecretWish::Known };
        Ok(Self {
            event_name: arguments.meter_event_name.clone(),
            plans: plans.collect::<Result<_, _>>()?,
            webhook_url: arguments.webhook_url.clone(),
            secrets: BTreeMap::from([
                (Channel::Snapshot, wish(arguments.roll_webhook_secret)),
                (Channel::Thin, wish(arguments.roll_thin_webhook_secret)),
            ]),
            portal: PortalSettings {
                return_url: arguments.portal_return_url.clone(),
                invoices: true,
                payment_methods: true,
                cancel_at_period_end: true,
                change_plan: false,
                login_page: true,
            },
        })
    }

    /// What is done about a channel's secret.
    pub fn secret(&self, channel: Channel) -> SecretWish {
        self.secrets.get(&channel).copied().unwrap_or_default()
    }

    /// The lookup keys of all prices.
    pub fn lookup_keys(&self) -> Vec<&str> {
        self.plans.iter().flat_map(|plan| &plan.prices).map(|price| price.lookup_key.as_str()).collect()
    }
}

/// The events of a channel.
pub fn events(channel: Channel) -> BTreeSet<String> {
    let events: &[&str] = match channel {
        Channel::Snapshot => &SNAPSHOT_EVENTS,
        Channel::Thin => &THIN_EVENTS,
    };
    events.iter().map(|event| (*event).to_owned()).collect()
}

/// What is included costs nothing; a token above it costs the overage, exact. A plan without one has a cap that leaves
/// nothing above.
fn tiers(included: u64, overage: Option<NonZeroU64>) -> Result<Vec<Tier>, TooFine> {
    let above = overage.map_or(Ok(Cents::ZERO), Cents::per_token)?;
    let included = (included > 0).then_some(Tier { up_to: Some(included), unit: Cents::ZERO });
    Ok(included.into_iter().chain([Tier { up_to: None, unit: above }]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_included_is_free_and_the_rest_is_exact() {
        let overage = NonZeroU64::new(2_000_000_000);
        let exact = Cents::parse("0.0002").unwrap();
        let expected = [Tier { up_to: Some(500_000), unit: Cents::ZERO }, Tier { up_to: None, unit: exact }];
        assert_eq!(tiers(500_000, overage).unwrap(), expected);
        // Stripe has no tier that ends at 0.
        assert_eq!(tiers(0, overage).unwrap(), [Tier { up_to: None, unit: exact }]);
        assert!(tiers(1, NonZeroU64::new(1)).is_err());
    }
}
