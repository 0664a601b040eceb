//! One run: the dirty meters of all shards, many customers in parallel, each customer's meters one after the other
//! (Stripe takes one call at a time for a customer and meter). Whatever happens to one customer happens to no other.
//!
//! It keeps the keys of one page at a time, however many users there are.

use domain::Timestamp;
use futures_util::{StreamExt, stream::FuturesUnordered};
use ledger::{Cursor, Ledger, MeterKey, SHARDS, Store, StoreError};
use report::{Deps, Report, Reporting};
use std::collections::VecDeque;

/// How many customers are worked on at a time. How fast Stripe is called is not decided here: all calls of a run come from one
/// bucket.
const CUSTOMERS_AT_ONCE_MAX: usize = 8;
/// Pages read of one shard: 20,000 dirty meters in each of the shards. What lies beyond is the next run's.
const PAGES_OF_SHARD_MAX: u32 = 200;
/// Keys of one user that are kept together. One who has more is worked on in parts, which his customer's lease keeps apart.
const KEYS_OF_USER_MAX: usize = 100;
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
    run_from(deps, None, deadline, now).await.0
}

/// The same, from the shard on in which the run before came to its end; none: from whichever's turn it is. Answers also the
/// shard in which this one did; none: it has looked at everything.
pub async fn run_from<S: Store>(
    deps: &Deps<S>,
    first: Option<u8>,
    deadline: Timestamp,
    now: impl Fn() -> Timestamp + Sync,
) -> (Report, Option<u8>) {
    let reporting = Reporting::new(deps, deadline, &now);
    let mut report = Report::default();
    let mut listing = Listing::new(&deps.ledger, first.unwrap_or_else(|| shard_of_turn(now())));
    let mut working = FuturesUnordered::new();
    let mut keys_working = 0_usize;
    while reporting.has_time() {
        let Some(keys) = listing.next().await else { break };
        keys_working = keys_working.saturating_add(keys.len());
        report.keys_most = report.keys_most.max(keys_working.saturating_add(listing.kept()));
        working.push(customer(&reporting, keys));
        if working.len() >= CUSTOMERS_AT_ONCE_MAX
            && let Some((done, keys)) = working.next().await
        {
            report = report.plus(&done);
            keys_working = keys_working.saturating_sub(keys);
        }
    }
    while let Some((done, _)) = working.next().await {
        report = report.plus(&done);
    }
    report.shards_failed = listing.failed;
    let kept = u32::try_from(listing.kept()).unwrap_or(u32::MAX);
    report.postponed = report.postponed.saturating_add(kept);
    report.shards_postponed = listing.left();
    report.calls = reporting.calls();
    report.log();
    let stopped_in = report.is_unfinished().then(|| listing.shard());
    (report, stopped_in)
}

fn shard_of_turn(now: Timestamp) -> u8 {
    u8::try_from(now.ms() / TURN_MS % u64::from(SHARDS)).unwrap_or(0)
}

/// The dirty meters of all shards by user, read page by page.
struct Listing<'a, S> {
    ledger: &'a Ledger<S>,
    first: u8,
    /// Shards before this one, counted from the first, were listed to their end.
    done: u8,
    pages: u32,
    from: Option<Cursor>,
    /// Users whose keys are all there.
    users: VecDeque<Vec<MeterKey>>,
    /// The last user of the page, of whom the next may have more.
    last: Vec<MeterKey>,
    failed: u32,
}

impl<'a, S: Store> Listing<'a, S> {
    fn new(ledger: &'a Ledger<S>, first: u8) -> Self {
        let first = first % SHARDS;
        let (users, last) = (VecDeque::new(), Vec::new());
        Self { ledger, first, done: 0, pages: 0, from: None, users, last, failed: 0 }
    }

    /// The shard that is being listed, or was last.
    fn shard(&self) -> u8 {
        (self.first + self.done.min(SHARDS - 1)) % SHARDS
    }

    /// Shards that were not listed to their end.
    fn left(&self) -> u32 {
        u32::from(SHARDS - self.done)
    }

    /// Keys that it keeps.
    fn kept(&self) -> usize {
        self.users.iter().map(Vec::len).sum::<usize>().saturating_add(self.last.len())
    }

    /// The next user's dirty meters; none: there is none.
    async fn next(&mut self) -> Option<Vec<MeterKey>> {
        loop {
            if let Some(keys) = self.users.pop_front() {
                return Some(keys);
            }
            if self.done >= SHARDS {
                return None;
            }
            let shard = self.shard();
            if let Err(error) = self.page(shard).await {
                tracing::error!(error = edge::log::chain(&error), shard, "dirty meters could not be listed");
                self.failed = self.failed.saturating_add(1);
                self.end_shard();
            }
        }
    }

    async fn page(&mut self, shard: u8) -> Result<(), StoreError> {
        let page = self.ledger.dirty(shard, self.from.take()).await?;
        for key in page.keys {
            let is_next = self.last.first().is_some_and(|last| last.user != key.user);
            if is_next || self.last.len() >= KEYS_OF_USER_MAX {
                self.users.push_back(std::mem::take(&mut self.last));
            }
            self.last.push(key);
        }
        self.pages = self.pages.saturating_add(1);
        self.from = page.next;
        if self.from.is_none() {
            self.end_shard();
        } else if self.pages >= PAGES_OF_SHARD_MAX {
            tracing::warn!(shard, "more dirty meters than one run looks at; the next one goes on");
            self.end_shard();
        }
        Ok(())
    }

    fn end_shard(&mut self) {
        if !self.last.is_empty() {
            self.users.push_back(std::mem::take(&mut self.last));
        }
        (self.pages, self.from) = (0, None);
        self.done = self.done.saturating_add(1);
    }
}

/// One user's meters, oldest period first. Answers also how many they were.
async fn customer<S: Store>(reporting: &Reporting<'_, S>, mut keys: Vec<MeterKey>) -> (Report, usize) {
    let number = keys.len();
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
    (report, number)
}
