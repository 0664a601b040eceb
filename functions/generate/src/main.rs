#![doc = include_str!("../README.md")]

mod config;
mod handler;
mod parse;
mod prompts;
mod pump;
#[cfg(test)]
mod tests;
mod wire;

use crate::{config::Config, handler::Generate};
use ledger::{DynamoStore, Ledger};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edge::log::init();
    let config = Config::from_env()?;
    let store = DynamoStore::connect(config.table).await;
    let generate = Generate::new(
        Ledger::new(store, config.plans),
        openai::Client::new(edge::http::client()?, config.provider),
        config.front,
    );
    let serve = move |request, drain| {
        let generate = generate.clone();
        async move { generate.handle(request, &drain, edge::clock::now()).await }
    };
    edge::serve::streaming(serve).await.map_err(anyhow::Error::from_boxed)
}
