//! One run: the dirty meters of all shards, many customers in parallel, each customer's meters one after the other
//! (Stripe takes one call at a time for a customer and meter). Whatever happens to one customer happens to no other.

use domain::{Timestamp, UserId};
use futures_util::{StreamExt, stream::FuturesUnordered};
use ledger::{Ledger, MeterKey, SHARDS, Store, StoreError};
use report::{Deps, Report, Reporting};
use std::collections::BTreeMap;

/// How many customers are worked on at a time. With a call of Stripe's taking 50 ms and more, this stays far below
/// its live limit of 1,000 calls a second; a sandbox's 25 it may touch, and then waits.
const CUSTOMERS_AT_ONCE_MAX: usize = 8;
/// Pages read of one shard: 20,000 dirty meters in each of the shards. What lies beyond is the next run's.
const PAGES_OF_SHARD_MAX: u32 = 200;
/// Which shard comes first moves by one in this time, in milliseconds: the runs' own pace, so that a deadline that cuts
/// run after run does not always cut the same users.
const TURN_MS: u64 = 60 * 60 * 1_000;

/// One run. It begins no meter and sends nothing when `deadline` is near; what is left is the next run's.
///
/// It cannot fail: whatever went wrong is logged where it happened, counted, and left for the next run.
pub async fn run<S: Store>(
    deps: &Deps<S>,
    deadline: Timestamp,
    now: impl Fn() -> Timestamp + Sync,
) -> Report {
    let reporting = Reporting::new(deps, deadline, &now);
    let mut report = Report::default();
    let mut working = FuturesUnordered::new();
    for shard in shards(now()) {
        let (users, listed) = dirty_users(&deps.ledger, shard).await;
        if let Err(error) = listed {
            tracing::error!(error = edge::log::chain(&error), shard, "dirty meters could not be listed");
            report.shards_failed = report.shards_failed.saturating_add(1);
        }
        for keys in users.into_values() {
            if working.len() >= CUSTOMERS_AT_ONCE_MAX
                && let Some(done) = working.next().await
            {
                report = report.plus(&done);
            }
            working.push(customer(&reporting, keys));
        }
    }
    while let Some(done) = working.next().await {
        report = report.plus(&done);
    }
    report.log();
    report
}

fn shards(now: Timestamp) -> impl Iterator<Item = u8> {
    let first = u8::try_from(now.ms() / TURN_MS % u64::from(SHARDS)).unwrap_or(0);
    (first..SHARDS).chain(0..first)
}

/// The dirty meters of one shard by user, as far as they could be listed.
async fn dirty_users<S: Store>(
    ledger: &Ledger<S>,
    shard: u8,
) -> (BTreeMap<UserId, Vec<MeterKey>>, Result<(), StoreError>) {
    let mut users = BTreeMap::<UserId, Vec<MeterKey>>::new();
    let mut cursor = None;
    for _ in 0..PAGES_OF_SHARD_MAX {
        let page = match ledger.dirty(shard, cursor).await {
            Ok(page) => page,
            Err(error) => return (users, Err(error)),
        };
        for key in page.keys {
            users.entry(key.user.clone()).or_default().push(key);
        }
        cursor = page.next;
        if cursor.is_none() {
            return (users, Ok(()));
        }
    }
    tracing::warn!(shard, "more dirty meters than one run looks at; the next one goes on");
    (users, Ok(()))
}

/// One user's meters, oldest period first.
async fn customer<S: Store>(reporting: &Reporting<'_, S>, mut keys: Vec<MeterKey>) -> Report {
    keys.sort_unstable();
    keys.dedup();
    let mut report = Report::default();
    for key in keys {
        if reporting.has_time() {
            report = report.plus(&reporting.meter(&key).await);
        } else {
            report.postponed = report.postponed.saturating_add(1);
        }
    }
    report
}
