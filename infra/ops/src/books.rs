//! The ledger that a command looks into, and what it needs to ask Stripe about it.

use crate::cli::Global;
use crate::key::Account;
use bus::{Bus, BusSettings};
use chrono::DateTime;
use domain::Timestamp;
use edge::{
    config::{Env, InvalidConfig},
    plans::{InvalidPlanBook, PlanBook},
};
use ledger::{DynamoSettings, DynamoStore, Ledger};
use report::{Deps, Pace, StripeMeter, calls_per_s};
use std::path::PathBuf;

/// Why the books cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The environment lacks something.
    #[error(transparent)]
    Environment(#[from] InvalidConfig),
    /// The plan book cannot be used.
    #[error("the plans cannot be used")]
    Plans(#[source] InvalidPlanBook),
}

/// The ledger.
///
/// # Errors
/// When the environment lacks its table, or the plan book cannot be used.
pub async fn ledger(mut env: Env, global: &Global) -> Result<Ledger<DynamoStore>, BooksError> {
    let place = Place::read(&mut env, global);
    let (table, plans) = env.finish(|| place)?;
    open(table, plans).await
}

/// The ledger, and the plan book that it was opened with.
///
/// # Errors
/// When the environment lacks its table, or the plan book cannot be used.
pub async fn ledger_and_plans(
    mut env: Env,
    global: &Global,
) -> Result<(Ledger<DynamoStore>, PlanBook), BooksError> {
    let place = Place::read(&mut env, global);
    let (table, plans) = env.finish(|| place)?;
    let book = PlanBook::load(plans.as_deref()).map_err(BooksError::Plans)?;
    Ok((open(table, plans).await?, book))
}

/// The ledger, Stripe and the meter there.
///
/// # Errors
/// When the environment lacks the table or the meter, or the plan book cannot be used.
pub async fn deps(mut env: Env, global: &Global, account: &Account) -> Result<Deps<DynamoStore>, BooksError> {
    let place = Place::read(&mut env, global);
    let (id, event_name) = (env.text("STRIPE_METER_ID"), env.text("STRIPE_METER_EVENT_NAME"));
    // Nothing is announced: whoever asks reads the answer.
    let bus = env.text_if_set("EVENT_BUS_NAME").unwrap_or_else(|| "default".to_owned());
    let endpoint = env.url_if_set("EVENTBRIDGE_ENDPOINT").map(String::from);
    let ((table, plans), meter) =
        env.finish(|| Some((place?, StripeMeter { id: id?, event_name: event_name? })))?;
    Ok(Deps {
        ledger: open(table, plans).await?,
        stripe: account.stripe.clone(),
        meter,
        bus: Bus::connect(BusSettings { name: bus, endpoint }).await,
        pace: Pace::new(|most_ms| rand::random_range(0..=most_ms), calls_per_s(account.live)),
        new_id: Box::new(edge::ids::new_hold_id),
    })
}

struct Place;

impl Place {
    fn read(env: &mut Env, global: &Global) -> Option<(DynamoSettings, Option<PathBuf>)> {
        let table = global.table.clone().or_else(|| env.text("TABLE_NAME"));
        let endpoint = env.url_if_set("DYNAMODB_ENDPOINT").map(String::from);
        let plans = env.text_if_set("PLANS_FILE").map(PathBuf::from);
        Some((DynamoSettings { table: table?, endpoint }, plans))
    }
}

async fn open(table: DynamoSettings, plans: Option<PathBuf>) -> Result<Ledger<DynamoStore>, BooksError> {
    let book = PlanBook::load(plans.as_deref()).map_err(BooksError::Plans)?;
    Ok(Ledger::new(DynamoStore::connect(table).await, book.plans().clone()))
}

/// An instant as an argument: RFC 3339, as every command prints it, or whole seconds since 1970.
///
/// # Errors
/// When it is neither.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    let ms = match text.parse::<u64>() {
        Ok(s) => s.checked_mul(1_000),
        Err(_) => {
            DateTime::parse_from_rfc3339(text).ok().and_then(|at| u64::try_from(at.timestamp_millis()).ok())
        }
    };
    ms.map(Timestamp::from_ms).ok_or_else(|| "neither 2027-01-15T08:00:00Z nor seconds since 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_read_as_it_is_printed() {
        let at = Timestamp::from_s(1_800_000_000);
        assert_eq!(instant(&at.to_string()), Ok(at));
        assert_eq!(instant("1800000000"), Ok(at));
        assert_eq!(instant("2027-01-15T09:00:00+01:00"), Ok(at));
        for bad in ["", "yesterday", "-1", "2027-01-15", "1969-01-01T00:00:00Z"] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }
}
