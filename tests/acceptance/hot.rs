//! One user who is as busy as five hundred.

use crate::{
    refusals::problem,
    store::{Store, cloud_with_store},
    support::{Client, Events, items, meter, number, wide_plans},
};
use futures_util::{StreamExt, stream};
use local::cloud::Cloud;
use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

const REQUESTS: usize = 500;
/// Requests of the user who asks for more than he may at the same time.
const TOO_MANY: usize = 150;
/// Requests at the same time: what the plan allows one user.
const AT_ONCE: usize = 16;
/// Requests at the same time of a user who asks for more than that.
const TOO_MANY_AT_ONCE: usize = 3 * AT_ONCE;
/// Tokens of an answer.
const TOKENS: u64 = 3;

/// One request from its first byte to its last; how long it took. It must be admitted.
async fn asked(client: Client) -> Duration {
    let begun = Instant::now();
    let answer = client.generate(&format!("[[tokens={TOKENS}]] A kettle.")).await;
    let events = Events::of(answer).rest().await;
    assert_eq!(events.last().unwrap()["type"], "finish");
    begun.elapsed()
}

/// The 99th percentile of a request for each of these clients.
async fn p99(clients: impl Iterator<Item = Client>) -> Duration {
    let mut took: Vec<Duration> = stream::iter(clients.map(asked)).buffer_unordered(AT_ONCE).collect().await;
    took.sort_unstable();
    assert_eq!(took.len(), REQUESTS);
    took[REQUESTS * 99 / 100 - 1]
}

/// What was asked of the store meanwhile, by operation.
async fn counting<T>(store: &Store, work: impl Future<Output = T>) -> (T, BTreeMap<String, u64>) {
    let before = store.counts();
    let done = work.await;
    let since = |(operation, count): (String, u64)| {
        let new = count - before.get(&operation).copied().unwrap_or_default();
        (new > 0).then_some((operation, new))
    };
    (done, store.counts().into_iter().filter_map(since).collect())
}

fn settled_exactly(cloud: &Cloud, user: &str, requests: usize) {
    let meter = meter(cloud, user);
    assert_eq!(number(&meter, "requests"), requests as u64);
    assert_eq!(number(&meter, "committed"), number(&meter, "settled"), "a hold was left");
    let receipts = items(cloud, user, "R#");
    assert_eq!(receipts.len(), requests);
    assert_eq!(
        receipts.iter().map(|receipt| number(receipt, "charged")).sum::<u64>(),
        number(&meter, "settled")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_f17_a_hot_user_meets_limits_and_no_error_and_costs_three_writes_a_request() {
    let plans = wide_plans(AT_ONCE as u64);
    let (cloud, store) = cloud_with_store(|options| options.plans = Some(plans.path().to_owned())).await;
    let hot = Client::new(&cloud, "hot");
    asked(hot.clone()).await;
    let many: Vec<Client> = (0..REQUESTS).map(|n| hot.beside(&cloud, &format!("one-{n}"))).collect();

    let of_many = p99(many.into_iter()).await;
    let (of_hot, counts) = counting(&store, p99(std::iter::repeat_n(hot.clone(), REQUESTS))).await;

    // The plan's own concurrency, and no more: nobody was refused, so nothing was decided on what another had not given back.
    settled_exactly(&cloud, &hot.user, 1 + REQUESTS);
    let asked_of_store: u64 = counts.values().sum();
    assert!(!counts.contains_key("TransactWriteItems"), "a transaction on the hot path: {counts:?}");
    // Admit, receipt, release: three writes. Each process reads a user whom it does not know yet, once for each request that
    // comes before it does; a write that takes over two seconds on a machine that stalls is repeated. Hence the tenth.
    let most = 3 * REQUESTS as u64 * 11 / 10;
    assert!((3 * REQUESTS as u64..=most).contains(&asked_of_store), "not three writes a request: {counts:?}");

    let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
    let (of_hot, of_many) = (ms(of_hot), ms(of_many));
    let ratio = of_hot / of_many;
    let line = format!(
        "f17: p99 of one user's {REQUESTS} requests {of_hot:.1} ms, of {REQUESTS} users' one request {of_many:.1} ms: ratio \
         {ratio:.2}; store requests of the one user {counts:?}\n"
    );
    // Past the capture of a test's output: a report, not a diagnosis.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_f17_a_user_who_asks_for_more_than_the_plan_allows_at_once_is_told_so_and_nothing_else() {
    let plans = wide_plans(AT_ONCE as u64);
    let (cloud, store) = cloud_with_store(|options| options.plans = Some(plans.path().to_owned())).await;
    let hot = Client::new(&cloud, "hotter");
    asked(hot.clone()).await;
    let ask = async |client: Client| {
        let answer = client.generate(&format!("[[tokens={TOKENS}]] A kettle.")).await;
        if answer.status() == 200 {
            assert_eq!(Events::of(answer).rest().await.last().unwrap()["type"], "finish");
            return true;
        }
        problem(answer, 429, "concurrency").await;
        false
    };
    let asking =
        stream::iter(std::iter::repeat_n(hot.clone(), TOO_MANY).map(ask)).buffer_unordered(TOO_MANY_AT_ONCE);
    let (answers, counts) = counting(&store, asking.collect::<Vec<bool>>()).await;
    let admitted = answers.iter().filter(|admitted| **admitted).count();
    assert!((AT_ONCE..TOO_MANY).contains(&admitted), "{admitted} were admitted");
    settled_exactly(&cloud, &hot.user, 1 + admitted);
    assert_eq!(cloud.openai().unwrap().counters().requests, 1 + admitted as u64);
    assert!(!counts.contains_key("TransactWriteItems"), "a transaction on the hot path: {counts:?}");
    assert_eq!(counts["PutItem"], admitted as u64, "a refusal left a receipt: {counts:?}");
    cloud.shutdown().await;
}
