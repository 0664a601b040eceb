//! Does one step at Stripe, once.

use super::plan::Action;
use super::present::Present;
use super::wanted::{Wanted, WantedCharge, events};
use domain::PlanId;
use std::collections::BTreeMap;
use stripe::setup::{Channel, Charge, NewEndpoint, NewMeter, NewPrice, ObjectId, SetupError};
use stripe::{Secret, Stripe};

/// What the dashboard calls the meter.
const METER_NAME: &str = "Tokens";

/// The ids that later steps need, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    meter: Option<ObjectId>,
    products: BTreeMap<PlanId, ObjectId>,
}

impl Known {
    /// What is there already.
    pub fn of(wanted: &Wanted, present: &Present) -> Self {
        let products = wanted.plans.iter().filter_map(|plan| {
            let by_metadata =
                present.products.iter().filter(|product| product.plan.as_deref() == Some(plan.id.as_str()));
            // As the plan chooses: the one that can be sold goes before an archived one.
            let product = by_metadata.max_by_key(|product| product.active).map(|product| &product.id);
            let by_price = || {
                let key = |key: &str| plan.prices.iter().any(|price| price.lookup_key == key);
                let is_ours = |lookup_key: Option<&str>| lookup_key.is_some_and(key);
                let price = present.prices.iter().find(|price| is_ours(price.lookup_key.as_deref()));
                price.map(|price| &price.product)
            };
            Some((plan.id.clone(), product.or_else(by_price)?.clone()))
        });
        Self {
            meter: present.meter(&wanted.event_name).map(|meter| meter.id.clone()),
            products: products.collect(),
        }
    }

    /// Does one step. The signing secret that it brought, if it made an endpoint.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn apply(
        &mut self,
        stripe: &Stripe,
        action: &Action,
        webhook_url: &str,
    ) -> Result<Option<(Channel, Secret)>, SetupError> {
        match action {
            Action::CreateMeter { event_name } => {
                let new = NewMeter { display_name: METER_NAME, event_name };
                self.meter = Some(stripe.create_meter(&new).await?.id);
            }
            Action::CreateProduct { plan, name } => {
                let product = stripe.create_product(plan.as_str(), name).await?;
                self.products.insert(plan.clone(), product.id);
            }
            Action::UpdateProduct { id, change } => {
                stripe.update_product(id, change).await?;
            }
            Action::CreatePrice { plan, price, replaces } => {
                let product = self.products.get(plan).ok_or(SetupError::Malformed("product"))?;
                let charge = self.charge(&price.charge)?;
                let lookup_key = price.lookup_key.as_str();
                let new = NewPrice { product, lookup_key, takes_over: replaces.is_some(), charge: &charge };
                stripe.create_price(&new).await?;
            }
            Action::MarkPrice { id, lookup_key } => {
                stripe.mark_price(id, lookup_key).await?;
            }
            Action::CreateEndpoint { channel, replaces } => {
                let events = events(*channel);
                let new = NewEndpoint { url: webhook_url, events: &events, replaces: replaces.as_ref() };
                let (_, secret) = stripe.create_endpoint(*channel, &new).await?;
                return Ok(Some((*channel, secret)));
            }
            Action::UpdateEndpoint { channel, id, change } => {
                stripe.update_endpoint(*channel, id, change).await?;
            }
            Action::DeleteEndpoint { channel, id } => stripe.delete_endpoint(*channel, id).await?,
            Action::CreatePortal { settings } => {
                stripe.create_portal(settings).await?;
            }
            Action::UpdatePortal { id, settings } => {
                stripe.update_portal(id, settings).await?;
            }
        }
        Ok(None)
    }

    fn charge(&self, wanted: &WantedCharge) -> Result<Charge, SetupError> {
        Ok(match wanted {
            WantedCharge::Flat(cents) => Charge::Flat(*cents),
            WantedCharge::Metered(tiers) => Charge::Metered {
                meter: self.meter.clone().ok_or(SetupError::Malformed("meter"))?,
                tiers: tiers.clone(),
            },
        })
    }
}
