//! The Lambda function: one event is one delivery of Stripe's.

use anyhow::Context;
use bus::Bus;
use edge::{clock, ids};
use ledger::{DynamoStore, Ledger};
use report::{Deps, Pace};
use std::{sync::Arc, time::Duration};
use stripe::Stripe;
use webhook::{
    config::Config,
    handler::{CALL_MS_MAX, Webhook},
    sync::Accounts,
};

/// The pause before the second call for one row, in milliseconds, at most: a delivery has to have its answer in two seconds.
const PAUSE_MS: u64 = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edge::log::init();
    let config = Config::from_env()?;
    let stripe = Stripe::new(config.stripe).context("STRIPE_SECRET_KEY or STRIPE_BASE_URL cannot be used")?;
    let stripe = stripe.timeout(Duration::from_millis(CALL_MS_MAX));
    let store = DynamoStore::connect(config.table).await;
    let ledger = Ledger::new(store, config.book.plans().clone());
    let accounts = Accounts::new(ledger.clone(), stripe.clone(), config.book);
    let bus = Bus::connect(config.bus).await;
    let deps = Deps {
        ledger,
        stripe,
        meter: config.meter,
        bus,
        pace: Pace {
            pause_ms: PAUSE_MS,
            ..Pace::new(|most_ms| ids::chance(most_ms.saturating_add(1)), config.calls_per_s)
        },
        new_id: Box::new(ids::new_hold_id),
    };
    let webhook = Webhook::new(accounts, Arc::new(deps), config.secrets);
    let serve = move |request, _drain| {
        let webhook = webhook.clone();
        async move { webhook.handle(request, &clock::now).await }
    };
    edge::serve::buffered(serve).await.map_err(anyhow::Error::from_boxed)
}
