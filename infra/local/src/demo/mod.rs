//! The whole story in a minute, without a hand: fifty subscribers and some free users generate at the same time, some
//! leave, a process is killed, limits are met; then the period ends, the reporter runs and Stripe bills.
//!
//! Owns the cast, the play and the judgement. The judgement reads what the parts stored by itself: it must never ask the
//! product's own code whether the product is right.

mod books;
mod cast;
mod client;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::{
    cloud::{CatalogError, Cloud, CloudError, Options, StripeApi},
    dynamo::DynamoError,
    runtime::InvokeError,
    stripe::AdvanceTooFar,
};
use books::Books;
pub use books::Summary;
use cast::{Actor, Scene};
use client::{Client, End};

/// How long one generation may take here. Short, so that the hold of the killed process expires while one watches.
const GENERATE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after the start of the play the period ends, in seconds. The killed process's hold has expired by then.
const PERIOD_ENDS_AFTER_S: i64 = 60;
/// How many months ago the subscriptions may have begun.
const MONTHS_MAX: u32 = 12;
/// Requests at the same time, over all users.
const AT_ONCE: usize = 24;
/// How often the meters are looked at for a breach of a cap.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a webhook that was not taken is sent again, before the demo gives up.
const DELIVERIES_MAX: u32 = 20;
/// How often the reporter may run until there is nothing left to do.
const REPORTS_MAX: u32 = 5;
/// How long Stripe's drafts stay drafts, and a little, in seconds.
const DRAFT_S: i64 = 3_700;

/// Why the demo could not be played.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cloud did not start.
    #[error("the local cloud did not start")]
    Cloud(#[from] CloudError),
    /// A part that the demo looks into is the real one.
    #[error("the demo plays on stand-ins only: unset OPENAI_*, STRIPE_*, CLERK_* and DYNAMODB_ENDPOINT")]
    NotStandIns,
    /// The system's clock is unusable.
    #[error("no monthly period ends in a minute from now")]
    Calendar,
    /// Stripe's stand-in refused the cast.
    #[error("Stripe's stand-in refused a customer or a subscription")]
    Stripe(#[from] CatalogError),
    /// The webhook function did not take what it was told.
    #[error("{0} webhooks were never taken; see the webhook function's log")]
    Webhooks(usize),
    /// A request could not be sent.
    #[error("a request could not be sent")]
    Request(#[from] reqwest::Error),
    /// A request's task died.
    #[error("a client died")]
    Client(#[from] tokio::task::JoinError),
    /// The reporter did not answer.
    #[error("the reporter did not answer")]
    Reporter(#[from] InvokeError),
    /// Stripe's clock could not be moved.
    #[error("Stripe's clock could not be moved")]
    Clock(#[from] AdvanceTooFar),
    /// The table cannot be read.
    #[error("the table cannot be read")]
    Table(#[from] DynamoError),
    /// An item of the table is not as the documentation says.
    #[error("an item cannot be read: {0}")]
    Item(String),
    /// Something cannot be written.
    #[error("cannot write")]
    Write(#[from] io::Error),
    /// A turn of the story did not happen, so that the figures prove less than they should.
    #[error("the story did not happen as told: {0}")]
    Untold(String),
}

/// The period that the play is in.
#[derive(Clone, Copy, Debug)]
struct Month {
    /// When its subscriptions began.
    subscribed_s: i64,
    end_s: i64,
}

impl Month {
    /// The month that ends at `end_s`, of a subscription that began so many months ago that this is one of its ends. A
    /// month ago is not always one: nothing that begins on a 30th ends a month on a 31st.
    fn ending(end_s: i64) -> Option<Self> {
        let end = chrono::DateTime::from_timestamp(end_s, 0)?;
        let begins = (1..=MONTHS_MAX).find_map(|months| {
            let months = chrono::Months::new(months);
            let start = end.checked_sub_months(months)?;
            (start.checked_add_months(months)? == end).then_some(start)
        })?;
        Some(Self { subscribed_s: begins.timestamp(), end_s })
    }
}

/// Plays the demo on a cloud of its own and judges it. `out` gets the table.
///
/// # Errors
/// See [`DemoError`]. Figures that do not agree are no error here: [`Summary::is_right`] says so.
pub async fn play(options: Options, out: &mut (impl io::Write + Send)) -> Result<Summary, DemoError> {
    let options = Options { generate_timeout: GENERATE_TIMEOUT, report_every: None, ..options };
    let bar = ProgressBar::new_spinner().with_style(style());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.set_message("starting the cloud");
    let cloud = Cloud::start(options).await?;
    let played = play_on(&cloud, &bar).await;
    bar.finish_and_clear();
    cloud.shutdown().await;
    let (books, requests) = played?;
    let summary = books.judge(requests);
    summary.write_table(out)?;
    summary.must_be_told()?;
    Ok(summary)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} [{elapsed}] {bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

async fn play_on(cloud: &Cloud, bar: &ProgressBar) -> Result<(Books, u64), DemoError> {
    let (Some(stripe), Some(dynamo), Some(catalog)) = (cloud.stripe(), cloud.dynamo(), cloud.catalog())
    else {
        return Err(DemoError::NotStandIns);
    };
    let actors = cast::actors();
    let month = Month::ending(now_s() + PERIOD_ENDS_AFTER_S).ok_or(DemoError::Calendar)?;
    let mut books = Books::new(catalog.clone());

    bar.set_message("fifty users subscribe");
    // Stripe's clock stands at the subscriptions' start while they do, then catches up with the machine's.
    stripe.set_offset(month.subscribed_s - now_s());
    let api = StripeApi::new(&stripe.base_url(), cloud.stripe_key())?;
    let mut last_end_s = month.end_s;
    for actor in actors.iter().filter(|actor| actor.subscribes) {
        let (customer, began_s) = subscribe(&api, catalog, &actor.user).await?;
        // Stripe's clock goes on while they subscribe: each month ends as much later as it began.
        let ends_s = month.end_s + began_s - month.subscribed_s;
        books.expect_customer(&actor.user, &customer, ends_s);
        last_end_s = last_end_s.max(ends_s);
    }
    stripe.advance_to(now_s()).await?;
    stripe.set_offset(0);
    deliver(cloud).await?;

    let requests = actors.iter().map(|actor| actor.scenes.len() as u64).sum();
    bar.set_length(requests);
    bar.set_message("generating");
    let ends = perform(cloud, actors, bar, &mut books).await?;
    books.saw(ends);

    bar.set_message("waiting for the period to end");
    // And for the killed process's hold to expire, or there would be something that nobody may sweep yet.
    loop {
        let items = dynamo.scan()?;
        books.look_at_caps(&items)?;
        let held = books::held_until_ms(&items).is_some_and(|until_ms| until_ms >= crate::clock::now_ms());
        if now_s() > last_end_s && !held {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bar.set_message("reporting");
    report(cloud, &mut books).await?;
    bar.set_message("invoicing");
    // Whose usage was not all reported when the invoice was drafted kept it waiting, and is asked again.
    deliver(cloud).await?;
    stripe.advance_to(now_s() + DRAFT_S).await?;
    books.read(&dynamo.scan()?)?;
    for customer in books.customers() {
        let counted = stripe.counted(&customer, i64::MIN, i64::MAX);
        books.billed(&customer, counted, stripe.invoices(&customer));
    }
    Ok((books, requests))
}

/// A new customer with a subscription, and when the subscription began, in Unix seconds.
async fn subscribe(
    api: &StripeApi,
    catalog: &crate::cloud::Catalog,
    user: &str,
) -> Result<(String, i64), DemoError> {
    let Some(pro) = catalog.plans.values().next() else { return Err(DemoError::NotStandIns) };
    let (customer, _) = api.created("v1/customers", &[("metadata[user_id]", user)]).await?;
    let lines = [
        ("customer", customer.as_str()),
        ("items[0][price]", &pro.base_price_id),
        ("items[1][price]", &pro.metered_price_id),
        ("metadata[user_id]", user),
    ];
    let (_, subscription) = api.created("v1/subscriptions", &lines).await?;
    let anchor = subscription.get("billing_cycle_anchor").and_then(serde_json::Value::as_i64);
    Ok((customer, anchor.ok_or_else(|| DemoError::Item("billing_cycle_anchor".to_owned()))?))
}

async fn deliver(cloud: &Cloud) -> Result<(), DemoError> {
    let Some(stripe) = cloud.stripe() else { return Err(DemoError::NotStandIns) };
    match stripe.deliver_all(DELIVERIES_MAX).await {
        0 => Ok(()),
        waiting => Err(DemoError::Webhooks(waiting)),
    }
}

/// Everybody at once, each user one request after the other or, for the busy one, several at a time.
async fn perform(
    cloud: &Cloud,
    actors: Vec<Actor>,
    bar: &ProgressBar,
    books: &mut Books,
) -> Result<Vec<(String, Scene, End)>, DemoError> {
    let Some(dynamo) = cloud.dynamo() else { return Err(DemoError::NotStandIns) };
    let client = Client::new(cloud)?;
    let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for actor in actors {
        let (client, turns, bar) = (client.clone(), turns.clone(), bar.clone());
        running.spawn(async move { client.play(actor, &turns, move || bar.inc(1)).await });
    }
    let mut ends = Vec::new();
    let mut killed = false;
    while !running.is_empty() {
        tokio::select! {
            Some(done) = running.join_next() => ends.extend(done??),
            () = tokio::time::sleep(LOOK_EVERY) => {
                books.look_at_caps(&dynamo.scan()?)?;
                let streaming = cloud.openai().is_some_and(|provider| provider.in_flight() > 2);
                if !killed && streaming && cloud.runtime().kill_one("generate").is_some() {
                    killed = true;
                }
            }
        }
    }
    Ok(ends)
}

/// Runs the reporter until nothing is left to do; at least twice, because a second run must send nothing again.
async fn report(cloud: &Cloud, books: &mut Books) -> Result<(), DemoError> {
    for run in 0..REPORTS_MAX {
        let answer = cloud.run_reporter().await?.payload;
        let sent = answer.get("sent").and_then(serde_json::Value::as_u64).unwrap_or_default();
        books.reported(&answer);
        if run > 0 && sent == 0 {
            break;
        }
    }
    Ok(())
}

fn now_s() -> i64 {
    crate::clock::now_ms() / 1_000
}

/// Tokens by user, or what else is counted for each.
type ByUser<T> = BTreeMap<String, T>;
/// Ids that were seen.
type Ids = BTreeSet<String>;

#[cfg(test)]
mod tests {
    use super::Month;

    #[test]
    fn a_month_ends_on_any_day_of_the_calendar() {
        // Every day of four years, a leap year among them.
        for day in 0..1_461 {
            let end_s = 1_798_700_000 + day * 86_400;
            let month = Month::ending(end_s).unwrap();
            assert!(month.subscribed_s < end_s && month.end_s == end_s);
        }
    }
}
