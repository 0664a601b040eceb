//! The Lambda function: one event is one delivery of Stripe's.

use anyhow::Context;
use ledger::{DynamoStore, Ledger};
use stripe::Stripe;
use webhook::{config::Config, handler::Webhook, sync::Accounts};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edge::log::init();
    let config = Config::from_env()?;
    let stripe = Stripe::new(config.stripe).context("STRIPE_SECRET_KEY or STRIPE_BASE_URL cannot be used")?;
    let store = DynamoStore::connect(config.table).await;
    let ledger = Ledger::new(store, config.book.plans().clone());
    let webhook = Webhook::new(Accounts::new(ledger, stripe, config.book), config.secrets);
    let serve = move |request, _drain| {
        let webhook = webhook.clone();
        async move { webhook.handle(request, edge::clock::now()).await }
    };
    edge::serve::buffered(serve).await.map_err(anyhow::Error::from_boxed)
}
