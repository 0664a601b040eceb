//! One user who is as busy as five hundred.

use crate::{
    books::Books,
    refusals::problem,
    store::{Store, cloud_with_store},
    support::{Client, Events, items, number, wide_plans},
};
use futures_util::{StreamExt, stream};
use local::{cloud::Cloud, logs::LogSink};
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

const REQUESTS: usize = 500;
/// Requests of the user who asks for more than he may at the same time.
const TOO_MANY: usize = 150;
/// Requests at the same time: what the plan allows one user.
const AT_ONCE: usize = 8;
/// Requests at the same time of a user who asks for more than that.
const TOO_MANY_AT_ONCE: usize = 3 * AT_ONCE;
/// Tokens of an answer.
const TOKENS: u64 = 3;

/// What became of one request; every other answer fails the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Served to its end.
    Whole,
    /// As many as the plan allows are under way.
    Limited,
    /// The store's answer took longer than the function waits for one. [`Late`] tells whether that was so.
    NoStore,
}

/// One request from its first byte to its last, and how long it took.
async fn asked(client: Client) -> (Answer, Duration) {
    let begun = Instant::now();
    let answer = client.generate(&format!("[[tokens={TOKENS}]] A kettle.")).await;
    let became = match answer.status().as_u16() {
        200 => {
            assert_eq!(Events::of(answer).rest().await.last().unwrap()["type"], "finish");
            Answer::Whole
        }
        503 => {
            problem(answer, 503, "store_unavailable").await;
            Answer::NoStore
        }
        _ => {
            problem(answer, 429, "concurrency").await;
            Answer::Limited
        }
    };
    (became, begun.elapsed())
}

/// Why functions said that the store does not answer. On a machine that is busy with other things a time-out is right, and says
/// nothing of the key; that a decision was overtaken too often is what must not be.
#[derive(Clone, Default)]
struct Late(Arc<Mutex<Vec<String>>>);

impl Late {
    fn sink(&self) -> LogSink {
        let lines = self.0.clone();
        LogSink::callback(move |line| {
            if line.text.contains("the ledger does not answer") {
                lines.lock().unwrap().push(line.text);
            }
        })
    }

    fn is_all_there_was(&self) {
        let lines = self.0.lock().unwrap();
        assert!(lines.iter().all(|line| line.contains("timed out")), "refused for no limit: {lines:?}");
    }
}

/// One request of each of these clients: the answers, and the 99th percentile of those that were whole.
async fn p99(clients: impl Iterator<Item = Client>) -> (Vec<Answer>, Duration) {
    let answers: Vec<_> = stream::iter(clients.map(asked)).buffer_unordered(AT_ONCE).collect().await;
    let whole = answers.iter().filter(|(answer, _)| *answer == Answer::Whole);
    let mut took: Vec<Duration> = whole.map(|(_, took)| *took).collect();
    took.sort_unstable();
    let p99 = took[(took.len() * 99).div_ceil(100) - 1];
    (answers.into_iter().map(|(answer, _)| answer).collect(), p99)
}

fn count(answers: &[Answer], of: Answer) -> usize {
    answers.iter().filter(|answer| **answer == of).count()
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

/// The books agree, with a receipt for each request that was served; how many admissions were voided. One is where its answer took
/// over two seconds: then it is made anew, and may hold a place beside its successor's for a while.
fn settled_exactly(cloud: &Cloud, user: &str, requests: usize) -> usize {
    let books = Books::read(cloud);
    books.agree();
    assert_eq!(number(books.meter(user), "requests"), requests as u64);
    let of_user = items(cloud, user, "R#");
    let (void, served): (Vec<_>, Vec<_>) = of_user.iter().partition(|receipt| receipt["outcome"] == "void");
    assert_eq!(served.len(), requests);
    void.len()
}

/// A cloud with a plan of [`AT_ONCE`], its store, what comes late there, and a user who has asked once before.
async fn known(user: &str) -> (Cloud, Store, Late, Client, NamedTempFile) {
    let plans = wide_plans(AT_ONCE as u64);
    let late = Late::default();
    let (cloud, store) = cloud_with_store(|options| {
        options.plans = Some(plans.path().to_owned());
        options.logs = late.sink();
    })
    .await;
    let client = Client::new(&cloud, user);
    assert_eq!(asked(client.clone()).await.0, Answer::Whole);
    // The plans' file is read whenever a process starts.
    (cloud, store, late, client, plans)
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_f17_a_hot_user_meets_limits_and_no_error_and_costs_three_writes_a_request() {
    let (cloud, store, late, hot, _plans) = known("hot").await;
    let many: Vec<Client> = (0..REQUESTS).map(|n| hot.beside(&cloud, &format!("one-{n}"))).collect();

    let (_, of_many) = p99(many.into_iter()).await;
    let ((answers, of_hot), counts) = counting(&store, p99(std::iter::repeat_n(hot.clone(), REQUESTS))).await;

    late.is_all_there_was();
    let served = count(&answers, Answer::Whole);
    let voided = settled_exactly(&cloud, &hot.user, 1 + served);
    // As many at once as the plan allows, and whose stream has ended has given its hold back: nobody is one too many.
    assert!(count(&answers, Answer::Limited) == 0 || voided > 0, "refused within the limit");
    assert!(!counts.contains_key("TransactWriteItems"), "a transaction on the hot path: {counts:?}");
    // Admit, receipt, release: three writes. One that takes over two seconds on a machine that stalls is repeated; hence the
    // tenth. A read comes before them where a process does not know the user yet, or remembers as many holds as there may be.
    let of = |operation: &str| counts.get(operation).copied().unwrap_or_default();
    let (least, writes) = (3 * served as u64, of("UpdateItem") + of("PutItem"));
    assert!((least..=least * 11 / 10).contains(&writes), "not three writes a request: {counts:?}");
    assert!(counts.values().sum::<u64>() - writes <= served as u64, "more than a read a request: {counts:?}");

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
    let (cloud, store, late, hot, _plans) = known("hotter").await;
    let asking = stream::iter(std::iter::repeat_n(hot.clone(), TOO_MANY).map(asked))
        .buffer_unordered(TOO_MANY_AT_ONCE);
    let asking = asking.map(|(answer, _)| answer);
    let (answers, counts) = counting(&store, asking.collect::<Vec<_>>()).await;
    late.is_all_there_was();
    let admitted = count(&answers, Answer::Whole);
    assert!(admitted > 0 && count(&answers, Answer::Limited) > 0, "{admitted} of {TOO_MANY} were served");
    settled_exactly(&cloud, &hot.user, 1 + admitted);
    assert_eq!(cloud.openai().unwrap().counters().requests, 1 + admitted as u64);
    assert!(!counts.contains_key("TransactWriteItems"), "a transaction on the hot path: {counts:?}");
    cloud.shutdown().await;
}
