//! The Lambda function: one event is one run.

use anyhow::Context;
use bus::Bus;
use domain::Timestamp;
use edge::clock;
use lambda_runtime::{LambdaEvent, service_fn};
use ledger::{DynamoStore, Ledger};
use report::{Deps, Pace};
use reporter::{
    config::Config,
    handler::{Answer, HandleError, handle},
};
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
        pace: Pace::new(|most_ms| rand::random_range(0..=most_ms), config.calls_per_s),
        new_id: Box::new(edge::ids::new_hold_id),
    };
    let handler = service_fn(async |event| {
        invoke(&deps, event).await.map_err(|error| anyhow::Error::new(error).into_boxed_dyn_error())
    });
    lambda_runtime::run(handler).await.map_err(anyhow::Error::from_boxed)
}

async fn invoke(deps: &Deps<DynamoStore>, event: LambdaEvent<Value>) -> Result<Answer, HandleError> {
    let deadline = Timestamp::from_ms(event.context.deadline);
    handle(deps, &event.payload, &event.context.request_id, deadline, clock::now).await
}
