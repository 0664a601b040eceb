#![doc = include_str!("../README.md")]

mod config;
mod handler;
mod wire;

use crate::{config::Config, handler::Usage};
use ledger::{DynamoStore, Ledger};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edge::log::init();
    let config = Config::from_env()?;
    let store = DynamoStore::connect(config.table).await;
    let usage = Usage::new(Ledger::new(store, config.plans), config.front);
    let serve = move |request, _drain| {
        let usage = usage.clone();
        async move { usage.handle(request, edge::clock::now()).await }
    };
    edge::serve::buffered(serve).await.map_err(anyhow::Error::from_boxed)
}
