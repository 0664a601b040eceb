//! What stands at Stripe now.

use super::wanted::Wanted;
use std::collections::BTreeMap;
use stripe::Stripe;
use stripe::setup::{Channel, Draft, Endpoint, Meter, Portal, Price, Product, SetupError};

/// Everything that is there, as far as it matters to what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Every meter.
    pub meters: Vec<Meter>,
    /// Every product.
    pub products: Vec<Product>,
    /// The prices that have a lookup key of ours.
    pub prices: Vec<Price>,
    /// Every place that gets events.
    pub endpoints: BTreeMap<Channel, Vec<Endpoint>>,
    /// Every configuration of the portal.
    pub portals: Vec<Portal>,
    /// The newest invoices that are not final.
    pub drafts: Vec<Draft>,
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be read")]
pub struct Unread {
    /// What.
    what: &'static str,
    #[source]
    source: SetupError,
}

impl Present {
    /// Reads what is there.
    ///
    /// # Errors
    /// When a list cannot be read; which, and why.
    pub async fn read(stripe: &Stripe, wanted: &Wanted) -> Result<Self, Unread> {
        let of = |what| move |source| Unread { what, source };
        let mut endpoints = BTreeMap::new();
        for (channel, what) in
            [(Channel::Snapshot, "the webhook endpoints"), (Channel::Thin, "the event destinations")]
        {
            endpoints.insert(channel, stripe.endpoints(channel).await.map_err(of(what))?);
        }
        Ok(Self {
            meters: stripe.meters().await.map_err(of("the meters"))?,
            products: stripe.products().await.map_err(of("the products"))?,
            prices: stripe.prices(&wanted.lookup_keys()).await.map_err(of("the prices"))?,
            endpoints,
            portals: stripe.portals().await.map_err(of("the portal's configurations"))?,
            drafts: stripe.newest_drafts().await.map_err(of("the drafts of invoices"))?,
        })
    }

    /// The meter that counts, if there is one.
    pub fn meter(&self, event_name: &str) -> Option<&Meter> {
        self.meters.iter().find(|meter| meter.active && meter.event_name == event_name)
    }

    /// Our configuration of the portal, if there is one.
    pub fn portal(&self) -> Option<&Portal> {
        self.portals.iter().find(|portal| portal.ours)
    }
}
