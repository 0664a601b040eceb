//! Processes that are killed at the worst instants, twenty times each, and books that balance to the token afterwards.
//!
//! Holds expire by the machine's own clock: the function's timeout is short here, so that they do while one watches.

use crate::{
    books::Books,
    store::{Caught, Store, cloud_with_store},
    support::{Client, Events, metadata, report, soon, subscribe, until, wide_plans},
};
use local::{cloud::Cloud, stripe::Fault};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const METER_EVENTS: &str = "/v1/billing/meter_events";
/// How long one generation may take: an answer has 10 s of it, and a hold expires 15 s after it.
const GENERATE_TIMEOUT: Duration = Duration::from_secs(25);
const KILLS: usize = 20;

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "holds expire by the machine's clock, and a test waits for them"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// The request's id, as its client is told at its start.
pub(crate) async fn started(events: &mut Events) -> String {
    let start = events.next().await.unwrap();
    assert_eq!(start["type"], "start");
    start["messageId"].as_str().unwrap().to_owned()
}

/// A whole answer; what it was charged.
pub(crate) async fn charged(client: &Client, tokens: usize) -> u64 {
    let events = Events::of(client.generate(&format!("[[tokens={tokens}]] A kettle.")).await).rest().await;
    metadata(&events)["charged"].as_u64().unwrap()
}

/// What is left of a stream whose process is dead: no word that it was whole.
async fn cut(events: Events) {
    let rest = events.rest().await;
    assert!(rest.iter().all(|event| event["type"] != "finish"), "a cut stream looked whole: {rest:?}");
}

/// Until the last open hold has expired.
async fn holds_expired(books: &Books) {
    let last_ms = books.holds().into_values().max().unwrap();
    while now_ms() <= last_ms {
        tokio::time::sleep(Duration::from_millis(last_ms.saturating_sub(now_ms()) + 1)).await;
    }
}

/// Kills the process that is working, and waits until it is gone.
pub(crate) async fn kill(cloud: &Cloud, function: &str) {
    let deaths = cloud.runtime().counts(function).deaths;
    assert!(cloud.runtime().kill_one(function).is_some(), "no {function} was at work");
    until(|| (cloud.runtime().counts(function).deaths > deaths).then_some(())).await;
}

/// Two streams of one process, each with its first piece and then `deltas` more between them; then it is killed. Their ids.
async fn killed_in_mid_stream(cloud: &Cloud, clients: [&Client; 2], deltas: usize) -> [String; 2] {
    let provider = cloud.openai().unwrap();
    let written = provider.deltas_written();
    let ask = async |client: &Client| {
        let mut events = Events::of(client.generate("[[tokens=300 gate gate_from=1]] A kettle.").await);
        (started(&mut events).await, events)
    };
    let ((one, first), (other, second)) = (ask(clients[0]).await, ask(clients[1]).await);
    provider.release(deltas);
    soon(provider.until(|counters| counters.deltas_written == written + 2 + deltas as u64)).await;
    kill(cloud, "generate").await;
    cut(first).await;
    cut(second).await;
    [one, other]
}

/// A stream whose process is killed at one of its last two writes. Its id, and what its client had been told it cost: nothing.
async fn killed_while_settling(
    cloud: &Cloud,
    store: &Store,
    client: &Client,
    (operation, caught): (&'static str, Caught),
) -> String {
    let mut events = Events::of(client.generate("[[tokens=5 gate gate_from=1]] A kettle.").await);
    let id = started(&mut events).await;
    let mut snare = store.catch(operation, &client.user, 0, caught);
    cloud.openai().unwrap().release(4);
    snare.sprung().await;
    kill(cloud, "generate").await;
    cut(events).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i3_f03_f08_generate_is_killed_in_mid_stream_and_while_settling_and_every_token_is_in_the_books() {
    let plans = wide_plans(64);
    let (cloud, store) = cloud_with_store(|options| {
        options.plans = Some(plans.path().to_owned());
        options.generate_timeout = GENERATE_TIMEOUT;
        // One process at a time: whoever streams, streams from the one that is killed.
        options.pool_max = NonZeroU32::MIN;
    })
    .await;
    let [payer, settler, free] = ["kira", "kolya", "free"].map(|name| Client::new(&cloud, name));
    let mut customers = BTreeMap::new();
    for client in [&payer, &settler] {
        customers.insert(client.user.clone(), subscribe(&cloud, &client.user).await);
    }

    let (mut whole, mut swept) = (0, Vec::new());
    for deltas in 0..KILLS {
        whole += charged(&payer, 3 + deltas).await;
        swept.extend(killed_in_mid_stream(&cloud, [&payer, &free], deltas).await);
    }
    let mut settled = Vec::new();
    for (instant, is_charged) in [
        // The receipt, then the meter.
        (("PutItem", Caught::Undone), false),
        (("PutItem", Caught::Unanswered), true),
        (("UpdateItem", Caught::Undone), true),
        (("UpdateItem", Caught::Unanswered), true),
    ] {
        let id = killed_while_settling(&cloud, &store, &settler, instant).await;
        if is_charged { settled.push(id) } else { swept.push(id) }
    }
    assert_eq!(cloud.runtime().counts("generate").deaths, (KILLS + 4) as u64);
    let open = Books::read(&cloud);
    open.agree();
    let holding = 2 * KILLS as u64 + 3;
    assert_eq!(
        open.holds().len() as u64,
        holding,
        "each killed request holds, but for the one that was through"
    );

    // Nobody may sweep a hold that has not expired: not even a reporter that runs before it has.
    let early = report(&cloud).await;
    let left = Books::read(&cloud);
    let looked_at_ms = now_ms();
    for (id, expires_ms) in open.holds() {
        assert!(left.holds().contains_key(&id) || expires_ms <= looked_at_ms, "{id} was swept too early");
    }
    holds_expired(&left).await;
    let run = report(&cloud).await;
    let swept_by = [&early, &run].map(|run| run["swept"].as_u64().unwrap());
    assert_eq!((swept_by.iter().sum(), &run["failed"]), (holding, &0.into()), "{early} {run}");
    let books = Books::read(&cloud);
    let used = books.balance(&cloud, &customers);
    for id in &swept {
        let receipt = books.receipt(id).unwrap();
        assert_eq!((&receipt["outcome"], &receipt["charged"]), (&"swept".into(), &0.into()), "{receipt}");
    }
    let mut told = 0;
    for id in &settled {
        let receipt = books.receipt(id).unwrap();
        assert_eq!(receipt["outcome"], "exact");
        told += receipt["charged"].as_u64().unwrap();
    }
    assert_eq!(books.receipts().len(), KILLS + swept.len() + settled.len(), "one receipt for each request");
    assert!(told > 0 && whole > 0);
    assert_eq!((used[&payer.user], used[&settler.user], used[&free.user]), (whole, told, 0));
    let quiet = report(&cloud).await;
    assert_eq!((&quiet["meters"], &quiet["sent"]), (&0.into(), &0.into()), "{quiet}");
    cloud.shutdown().await;
}

/// Where between sending a row and knowing that it is off its meter a reporter is killed.
#[derive(Clone, Copy, Debug)]
enum Instant {
    /// Stripe has counted the event, and its answer is on its way.
    Counted,
    /// At the put of the report item.
    Noted(Caught),
    /// At the drop of the row, which is the third update of a meter: sealed, attempted, dropped.
    Dropped(Caught),
}

const INSTANTS: [Instant; 5] = [
    Instant::Counted,
    Instant::Noted(Caught::Undone),
    Instant::Noted(Caught::Unanswered),
    Instant::Dropped(Caught::Undone),
    Instant::Dropped(Caught::Unanswered),
];
/// Updates of a meter before its row is dropped.
const UPDATES_BEFORE_DROP: u32 = 2;

/// Runs the reporter and kills it at `instant` of this user's row, if the row comes so far.
async fn killed_while_reporting(cloud: &Cloud, store: &Store, user: &str, instant: Instant, others: usize) {
    let stripe = cloud.stripe().unwrap();
    let before = stripe.meter_events().len();
    let mut snare = match instant {
        Instant::Counted => {
            // Whose event it is does not matter: all are counted, and one of them is not answered.
            stripe.fail_next_on(METER_EVENTS, 1, Fault::TimeoutAfterCommit);
            None
        }
        Instant::Noted(caught) => Some(store.catch("PutItem", user, 0, caught)),
        Instant::Dropped(caught) => Some(store.catch("UpdateItem", user, UPDATES_BEFORE_DROP, caught)),
    };
    let come = async {
        match &mut snare {
            Some(snare) => snare.sprung().await,
            None => until(|| (stripe.meter_events().len() == before + 1 + others).then_some(())).await,
        }
        kill(cloud, "reporter").await;
    };
    let (run, ()) = tokio::join!(soon(cloud.run_reporter()), soon(come));
    assert!(run.is_err(), "the run was not killed: {run:?}");
}

/// What a dead reporter has leased is free again two minutes later. A test does not wait that long.
pub(crate) fn leases_run_out(cloud: &Cloud) {
    let dynamo = cloud.dynamo().unwrap();
    for lease in dynamo.scan().unwrap().iter().filter(|item| item["sk"] == "L") {
        dynamo.set_number([lease["pk"].as_str().unwrap(), "L"], "until_ms", 0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i3_f09_f10_f23_the_reporter_is_killed_between_send_and_accept_and_every_token_is_counted_once() {
    let plans = wide_plans(16);
    let (cloud, store) = cloud_with_store(|options| options.plans = Some(plans.path().to_owned())).await;
    let clients = ["rosa", "ruth", "rita"].map(|name| Client::new(&cloud, name));
    let mut customers = BTreeMap::new();
    for client in &clients {
        customers.insert(client.user.clone(), subscribe(&cloud, &client.user).await);
    }
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    for kill in 0..KILLS {
        let instant = INSTANTS[kill % INSTANTS.len()];
        for client in &clients {
            *used.entry(client.user.clone()).or_default() += charged(client, 2 + kill).await;
        }
        let victim = &clients[kill % clients.len()].user;
        killed_while_reporting(&cloud, &store, victim, instant, clients.len() - 1).await;

        let killed = Books::read(&cloud);
        killed.agree();
        let rows: Vec<Value> =
            clients.iter().map(|client| killed.meter(&client.user)["pending"].clone()).collect();
        let waits = !killed.meter(victim)["pending"].is_null();
        let gone = matches!(instant, Instant::Dropped(Caught::Unanswered));
        // What the dead run has noted of its row stands: Stripe is not asked again.
        let noted = gone || matches!(instant, Instant::Noted(Caught::Unanswered) | Instant::Dropped(_));
        if !matches!(instant, Instant::Counted) {
            assert_eq!(waits, !gone, "{instant:?}: {}", killed.meter(victim));
        }
        leases_run_out(&cloud);
        // What was counted before the kill is not counted again; what was sealed goes out as it was sealed.
        let run = report(&cloud).await;
        let again = run["already_existed"].as_u64().unwrap();
        assert_eq!(again == 0, noted, "{instant:?}: nothing had been counted before the kill: {run}");
        assert_eq!(
            (&run["failed"], &run["parked"], &run["unclear"]),
            (&0.into(), &0.into(), &0.into()),
            "{run}"
        );
        let books = Books::read(&cloud);
        assert_eq!(books.balance(&cloud, &customers), used, "{instant:?}");
        for row in rows.iter().filter(|row| !row.is_null()) {
            assert!(books.has_reported(row), "{instant:?}: sealed as {row}, and reported as something else");
        }
    }
    assert_eq!(cloud.runtime().counts("reporter").deaths, KILLS as u64);
    let events = cloud.stripe().unwrap().meter_events().len();
    assert_eq!(events, KILLS * clients.len(), "a row for each user and turn");
    cloud.shutdown().await;
}
