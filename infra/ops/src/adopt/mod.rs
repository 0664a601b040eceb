//! `ops adopt`: takes over customers who have a subscription from another billing under the same account of Stripe's. It reads
//! what there is of each, plans, shows the plan, asks where it is live, does it, reads again, and says what is left.
//!
//! It can be run again at any time, and after a crash anywhere. It never changes what a running cycle costs: the price of a
//! subscription changes at its cycle's end, by a schedule, as Stripe's guide for those who come from usage records has it
//! (docs.stripe.com/billing/subscriptions/usage-based-legacy/migration-guide). docs/adr/0012 says why it is as it is.

pub mod apply;
pub mod mapping;
pub mod plan;
mod show;

use crate::cli::Global;
use crate::console::{Console, Exit};
use crate::key::Account;
use apply::Work;
use clap::Args;
use domain::{PlanId, Timestamp};
use edge::plans::PlanBook;
use futures_util::{StreamExt as _, stream};
use ledger::{Ledger, Store};
use mapping::{BYTES_MAX, InvalidMapping, Mapped};
use plan::Rules;
use report::calls_per_s;
use show::{Counts, Show};
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use stripe::setup::{ObjectId, SetupError};
use stripe::{Pace, Stripe};

/// Customers that are worked on at a time. Stripe's rate is kept whatever it is.
const AT_ONCE_MAX: usize = 8;

/// Examples below the help text.
pub const EXAMPLES: &str = "\
Examples:
  See what would be done, from a file with the columns customer,user,tokens:
    ops adopt customers.csv --price price_1Old=pro --price price_1OldTokens=pro --dry-run
  Do it in a sandbox:
    STRIPE_SECRET_KEY=sk_test_... ops adopt customers.csv --price price_1Old=pro
  Do it live, from a script:
    ops adopt customers.csv --price price_1Old=pro --live --yes --json";

/// Arguments of `ops adopt`.
#[derive(Clone, Debug, Args)]
pub struct AdoptArguments {
    /// A file with the columns customer,user and, if the current cycle's usage is known, tokens.
    #[arg(value_name = "MAPPING")]
    pub mapping: PathBuf,
    /// Which plan of the book an old price becomes; once for each old price.
    #[arg(long = "price", value_name = "OLD_PRICE=PLAN", value_parser = price)]
    pub prices: Vec<(ObjectId, PlanId)>,
    /// Shows what would be done, and does nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Does not ask before it works on the live account.
    #[arg(long)]
    pub yes: bool,
}

fn price(text: &str) -> Result<(ObjectId, PlanId), String> {
    let (old, plan) = text.split_once('=').ok_or("it must be OLD_PRICE=PLAN")?;
    let old = ObjectId::parse(old).ok_or_else(|| format!("{old:?} is no id of a price"))?;
    Ok((old, PlanId::parse(plan).map_err(|error| error.to_string())?))
}

/// Why nobody was taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptFailure {
    /// The mapping cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is too large.
    #[error("{0} is larger than {BYTES_MAX} bytes: split it")]
    TooLarge(PathBuf),
    /// It is no mapping.
    #[error(transparent)]
    Mapping(#[from] InvalidMapping),
    /// An old price is named twice.
    #[error("--price {0} is said for {1} and for {2}")]
    PriceTwice(ObjectId, PlanId, PlanId),
    /// The plan is none that is sold.
    #[error("--price {0}: the book sells no plan {1}")]
    NotSold(ObjectId, PlanId),
    /// The price is no old one.
    #[error("--price {0}: it is the book's own price of {1}")]
    NotOld(ObjectId, PlanId),
    /// The prices of the book are not to be had.
    #[error("the prices of the plan book cannot be read")]
    Prices(#[source] SetupError),
    /// They are not there.
    #[error("Stripe has no price that can be sold with the lookup key {0}: run ops setup first")]
    NotSetUp(Box<str>),
    /// Nobody confirmed.
    #[error("not confirmed: nothing was done. From a script, say --yes")]
    NotConfirmed,
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

impl AdoptFailure {
    fn exit(&self) -> Exit {
        match self {
            Self::NotConfirmed => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

/// Takes the customers of a mapping over.
///
/// # Errors
/// When nothing can be written.
pub async fn run<S: Store>(
    account: &Account,
    (ledger, book): (&Ledger<S>, &PlanBook),
    global: &Global,
    arguments: &AdoptArguments,
    console: &mut Console<'_>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> io::Result<Exit> {
    let stripe = account.stripe.clone().paced(Pace::per_second(calls_per_s(account.live)));
    let mut show = Show::new(global.json, account.live, arguments.dry_run);
    let ended = adopt(&stripe, account.live, (ledger, book), arguments, console, &mut show, now).await;
    match ended {
        Ok(exit) => {
            show.finish(console.out, None)?;
            Ok(exit)
        }
        Err(AdoptFailure::Output(error)) => Err(error),
        Err(failure) => {
            if global.json {
                show.finish(console.out, Some(&edge::log::chain(&failure)))?;
            }
            console.fail(&failure, failure.exit())
        }
    }
}

async fn adopt<S: Store>(
    stripe: &Stripe,
    live: bool,
    (ledger, book): (&Ledger<S>, &PlanBook),
    arguments: &AdoptArguments,
    console: &mut Console<'_>,
    show: &mut Show,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Result<Exit, AdoptFailure> {
    let mapped = read(&arguments.mapping)?;
    let rules = rules(stripe, book, &arguments.prices).await?;
    let work = &Work { stripe, ledger, rules: &rules, now };
    let mut to_do = Vec::new();
    let mut plans = stream::iter(&mapped)
        .map(|mapped| async move { (mapped, work.plan_patiently(mapped).await) })
        .buffered(AT_ONCE_MAX);
    while let Some((mapped, plan)) = plans.next().await {
        match plan {
            Ok(plan) => {
                show.plan(console.out, mapped, &plan)?;
                to_do.extend(plan.ok().filter(|plan| !plan.steps.is_empty()).map(|_| mapped));
            }
            // The others need not wait for it: a repeat finds it again.
            Err(error) => show.unread(console.out, mapped, &error)?,
        }
    }
    if arguments.dry_run {
        return Ok(match show.counts {
            Counts { failed: 1.., .. } => Exit::Failed,
            Counts { refused: 1.., .. } => Exit::Found,
            _ => Exit::Done,
        });
    }
    if !to_do.is_empty() && live && !arguments.yes {
        let question = format!("This is the live account. Take {} customers over? Type yes:", to_do.len());
        if (console.ask)(&question).as_deref() != Some("yes") {
            return Err(AdoptFailure::NotConfirmed);
        }
    }
    let mut ended = stream::iter(to_do)
        .map(|mapped| async move { (mapped, work.adopt(mapped).await) })
        .buffered(AT_ONCE_MAX);
    while let Some((mapped, ended)) = ended.next().await {
        show.ended(console.out, mapped, &ended)?;
    }
    let whole = show.counts.refused == 0 && show.counts.failed == 0;
    Ok(if whole { Exit::Done } else { Exit::Failed })
}

fn read(path: &Path) -> Result<Vec<Mapped>, AdoptFailure> {
    let unreadable = |error| AdoptFailure::Unreadable(path.to_owned(), error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > BYTES_MAX) {
        return Err(AdoptFailure::TooLarge(path.to_owned()));
    }
    Ok(mapping::parse(&text)?)
}

async fn rules(
    stripe: &Stripe,
    book: &PlanBook,
    named: &[(ObjectId, PlanId)],
) -> Result<Rules, AdoptFailure> {
    let mut old = BTreeMap::new();
    for (price, plan) in named {
        if book.lookup_keys(plan).is_none() {
            return Err(AdoptFailure::NotSold(price.clone(), plan.clone()));
        }
        if let Some(before) = old.insert(price.clone(), plan.clone()).filter(|before| before != plan) {
            return Err(AdoptFailure::PriceTwice(price.clone(), before, plan.clone()));
        }
    }
    let keys: Vec<&str> = book.sold().flat_map(|(_, keys)| [&*keys.base, &*keys.metered]).collect();
    let found = stripe.prices(&keys).await.map_err(AdoptFailure::Prices)?;
    let price = |key: &str| {
        let price = found.iter().find(|price| price.active && price.lookup_key.as_deref() == Some(key));
        price.map(|price| price.id.clone()).ok_or_else(|| AdoptFailure::NotSetUp(key.into()))
    };
    let mut prices = BTreeMap::new();
    for (plan, keys) in book.sold() {
        let of_plan = [price(&keys.base)?, price(&keys.metered)?];
        if let Some(own) = of_plan.iter().find(|own| old.contains_key(*own)) {
            return Err(AdoptFailure::NotOld(own.clone(), plan.id.clone()));
        }
        prices.insert(plan.id.clone(), of_plan);
    }
    Ok(Rules { book: book.clone(), old, prices })
}
