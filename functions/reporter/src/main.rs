//! The Lambda function: one scheduled event is one run.

use anyhow::Context;
use bus::Bus;
use domain::Timestamp;
use edge::clock;
use lambda_runtime::{LambdaEvent, service_fn};
use ledger::{DynamoStore, Ledger, SHARDS};
use report::{Deps, Pace, Report};
use reporter::{config::Config, run::run, schedule};
use serde_json::Value;
use stripe::Stripe;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    edge::log::init();
    let config = Config::from_env()?;
    let deps = Deps {
        ledger: Ledger::new(DynamoStore::connect(config.table).await, config.plans),
        stripe: Stripe::new(config.stripe).context("STRIPE_SECRET_KEY or STRIPE_BASE_URL cannot be used")?,
        meter: config.meter,
        bus: Bus::connect(config.bus).await,
        pace: Pace::with_jitter(|most_ms| rand::random_range(0..=most_ms)),
    };
    let handler =
        service_fn(async |event| handle(&deps, event).await.map_err(anyhow::Error::into_boxed_dyn_error));
    lambda_runtime::run(handler).await.map_err(anyhow::Error::from_boxed)
}

/// # Errors
/// When the payload is not the schedule's, or no shard could be listed: then the run did nothing, and Lambda is told.
async fn handle(deps: &Deps<DynamoStore>, event: LambdaEvent<Value>) -> anyhow::Result<Report> {
    schedule::check(&event.payload)?;
    let deadline = Timestamp::from_ms(event.context.deadline);
    // Boxed, because its state is larger than what the runtime should move about.
    let report = Box::pin(run(deps, deadline, clock::now)).await;
    anyhow::ensure!(report.shards_failed < u32::from(SHARDS), "no dirty meter could be listed");
    Ok(report)
}
