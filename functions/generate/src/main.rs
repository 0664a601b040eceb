//! The Lambda function: one event is one request, answered as a stream.

use bus::Bus;
use generate::{
    config::Config,
    handler::{Generate, Outside},
};
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
        Outside::real(),
    );
    let generate = match config.bus {
        Some(settings) => generate.telling(Bus::connect(settings).await),
        None => generate,
    };
    let serve = move |request, drain| {
        let generate = generate.clone();
        // Boxed, because its state is larger than what a worker should move about.
        async move { Box::pin(generate.handle(request, &drain, edge::clock::now())).await }
    };
    edge::serve::streaming(serve).await.map_err(anyhow::Error::from_boxed)
}
