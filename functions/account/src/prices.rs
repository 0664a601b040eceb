//! The prices at Stripe that the plan book's lookup keys stand for, remembered for minutes: a price that is changed gives
//! its lookup key to a new one.

use domain::{PlanId, Timestamp};
use edge::plans::{LookupKeys, PlanBook};
use std::sync::Arc;
use stripe::{
    Stripe,
    setup::{ObjectId, Price, SetupError},
};
use tokio::sync::Mutex;

/// How long prices are remembered, in milliseconds.
const REMEMBERED_MS: u64 = 5 * 60 * 1_000;

/// The two prices of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlanPrices {
    /// The flat one.
    pub(crate) base: ObjectId,
    /// The metered one.
    pub(crate) metered: ObjectId,
}

/// Why a plan cannot be sold now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PriceError {
    /// Stripe did not show its prices.
    #[error("the prices could not be read")]
    Stripe(#[from] SetupError),
    /// Stripe has no price for it.
    #[error("there is no active price with the lookup keys of plan {0}: run `ops setup`")]
    Missing(PlanId),
}

#[derive(Debug)]
struct Remembered {
    at: Timestamp,
    prices: Vec<(PlanId, PlanPrices)>,
}

/// The prices of all plans that are sold. Clones share what is remembered; while one reads, the others wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prices(Arc<Mutex<Option<Remembered>>>);

impl Prices {
    /// The prices of one plan.
    ///
    /// # Errors
    /// That Stripe does not show them or has none.
    pub(crate) async fn of(
        &self,
        plan: &PlanId,
        book: &PlanBook,
        stripe: &Stripe,
        now: Timestamp,
    ) -> Result<PlanPrices, PriceError> {
        let mut remembered = self.0.lock().await;
        let found = |remembered: &Remembered| {
            remembered.prices.iter().find(|(id, _)| id == plan).map(|(_, prices)| prices.clone())
        };
        let young = remembered.as_ref().filter(|it| now < it.at.plus_ms(REMEMBERED_MS));
        if let Some(prices) = young.and_then(found) {
            return Ok(prices);
        }
        let read = Remembered { at: now, prices: read(book, stripe).await? };
        let prices = found(&read).ok_or_else(|| PriceError::Missing(plan.clone()));
        *remembered = Some(read);
        prices
    }

    /// Forgets: one of them was refused.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

async fn read(book: &PlanBook, stripe: &Stripe) -> Result<Vec<(PlanId, PlanPrices)>, SetupError> {
    let keys: Vec<&str> = book.sold().flat_map(|(_, keys)| [&*keys.base, &*keys.metered]).collect();
    let all = stripe.prices(&keys).await?;
    let id = |key: &str| {
        let is_it = |price: &&Price| price.active && price.lookup_key.as_deref() == Some(key);
        all.iter().find(is_it).map(|price| price.id.clone())
    };
    let of_plan = |keys: &LookupKeys| Some(PlanPrices { base: id(&keys.base)?, metered: id(&keys.metered)? });
    Ok(book.sold().filter_map(|(plan, keys)| Some((plan.id.clone(), of_plan(keys)?))).collect())
}
