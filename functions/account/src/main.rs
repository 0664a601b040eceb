//! The Lambda function: one event is one request about money.

use account::{
    config::Config,
    handler::{AccountApi, Sale},
};
use anyhow::Context;
use ledger::{DynamoStore, Ledger};
use stripe::Stripe;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edge::log::init();
    let config = Config::from_env()?;
    let stripe = Stripe::new(config.stripe).context("STRIPE_SECRET_KEY or STRIPE_BASE_URL cannot be used")?;
    let store = DynamoStore::connect(config.table).await;
    let ledger = Ledger::new(store, config.book.plans().clone());
    let sale = Sale::new(stripe, config.book, config.portal);
    let api = AccountApi::new(ledger, sale, config.front);
    let serve = move |request, _drain| {
        let api = api.clone();
        async move { api.handle(request, edge::clock::now()).await }
    };
    edge::serve::buffered(serve).await.map_err(anyhow::Error::from_boxed)
}
