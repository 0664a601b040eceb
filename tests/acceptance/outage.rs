//! The store goes away under load and comes back: nobody generates without it, and nothing that was under way is lost.
//!
//! What nobody could settle is swept when its hold expires. Here the holds are made to expire, by their stored time: the
//! function's own timeout is the deployment's, so that no answer is cut while the store is away. (Holds that expire by the
//! clock are in `kills`.)

use crate::{
    books::Books,
    kills::started,
    refusals::problem,
    store::cloud_with_store,
    support::{Client, Events, metadata, report, subscribe, until, wide_plans},
};
use futures_util::future::join_all;
use local::{cloud::Cloud, openai::Outcome};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};
use tokio::task::JoinSet;

/// Tokens of the answers that end while the store is away.
const ENDS_WITHOUT_STORE: u64 = 5;
/// Tokens of those that go on through all of it.
const ENDS_AFTER_RETURN: u64 = 200;
/// Answers that the load has to have seen before the store goes away.
const WARM: u64 = 30;

/// The request and what it was charged, if its client was told.
fn charge(events: &[Value]) -> Option<(String, u64)> {
    let metadata = metadata(events);
    Some((metadata["receipt"].as_str()?.to_owned(), metadata["charged"].as_u64()?))
}

/// What those who keep asking are at.
#[derive(Default)]
struct Load {
    /// Requests that have not been answered a word yet.
    waiting: AtomicU64,
    /// Answers that began.
    begun: AtomicU64,
    /// Nobody asks any more.
    over: AtomicBool,
}

impl Load {
    /// One request after the other, until one is refused or the load is over. The charges that were told.
    async fn ask(self: Arc<Self>, client: Client) -> BTreeMap<String, u64> {
        let mut charges = BTreeMap::new();
        while !self.over.load(SeqCst) {
            self.waiting.fetch_add(1, SeqCst);
            let answer = client.generate("[[tokens=3]] A kettle.").await;
            let refused = answer.status() != 200;
            self.begun.fetch_add(u64::from(!refused), SeqCst);
            self.waiting.fetch_sub(1, SeqCst);
            if refused {
                problem(answer, 503, "store_unavailable").await;
                break;
            }
            charges.extend(charge(&Events::of(answer).rest().await));
        }
        charges
    }
}

/// Lets the gated streams write, one piece at a time, until all whose answer has `tokens` have ended at the provider.
async fn let_end(cloud: &Cloud, tokens: u64) {
    let provider = cloud.openai().unwrap();
    let of = |wanted: &dyn Fn(u64) -> bool| {
        let all = provider.requests().into_iter();
        all.filter(|record| wanted(record.planned.completion_tokens)).collect::<Vec<_>>()
    };
    let written = || {
        of(&|planned| planned >= ENDS_WITHOUT_STORE).iter().map(|record| record.deltas_written).sum::<u64>()
    };
    while of(&|planned| planned == tokens).iter().any(|record| record.outcome != Outcome::Complete) {
        let before = written();
        provider.release(1);
        until(|| (written() > before).then_some(())).await;
    }
}

/// Lets every open hold expire now.
fn expire_holds(cloud: &Cloud) {
    let dynamo = cloud.dynamo().unwrap();
    for meter in dynamo.scan().unwrap() {
        for id in meter["holds"].as_object().into_iter().flat_map(|holds| holds.keys()) {
            let update = json!({
                "TableName": dynamo.table_name(),
                "Key": { "pk": { "S": meter["pk"] }, "sk": { "S": meter["sk"] } },
                "UpdateExpression": "SET holds.#id.expires_ms = :past",
                "ExpressionAttributeNames": { "#id": id },
                "ExpressionAttributeValues": { ":past": { "N": "1" } },
            });
            dynamo.database().update_item(serde_json::from_value(update).unwrap()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i4_i6_f14_the_store_is_stopped_and_started_under_load() {
    let plans = wide_plans(64);
    let (cloud, store) = cloud_with_store(|options| options.plans = Some(plans.path().to_owned())).await;
    let provider = cloud.openai().unwrap();
    let clients = ["olga", "otto", "oona", "frank", "flora", "fritz"].map(|name| Client::new(&cloud, name));
    let mut customers = BTreeMap::new();
    for client in &clients[..3] {
        customers.insert(client.user.clone(), subscribe(&cloud, &client.user).await);
    }

    // Six streams run into the outage, three of each kind, and everybody goes on asking.
    let mut streams = Vec::new();
    let mut lasting = Vec::new();
    for (client, tokens) in clients.iter().zip([ENDS_WITHOUT_STORE, ENDS_AFTER_RETURN].iter().cycle()) {
        let asked = client.generate(&format!("[[tokens={tokens} gate gate_from=1]] A kettle.")).await;
        let mut events = Events::of(asked);
        let id = started(&mut events).await;
        if *tokens == ENDS_AFTER_RETURN {
            lasting.push(id);
        }
        streams.push(events);
    }
    let load = Arc::new(Load::default());
    let mut asking: JoinSet<_> = clients.iter().cloned().map(|client| load.clone().ask(client)).collect();
    provider.until(|counters| counters.requests >= WARM).await;
    store.stop().await;

    // What was under way is answered or refused; whoever asks from now on is refused. What ends meanwhile is settled when the
    // store is back, or swept where its function gave up before.
    until(|| (load.waiting.load(SeqCst) == 0).then_some(())).await;
    load.over.store(true, SeqCst);
    let called = || (provider.counters().requests, clients.len() as u64 + load.begun.load(SeqCst));
    let (calls, begun) = called();
    assert_eq!(calls, begun, "a call for each answer that began, and none for anybody who was refused");
    let_end(&cloud, ENDS_WITHOUT_STORE).await;
    let stranger = Client::new(&cloud, "stranger");
    join_all(clients.iter().chain([&stranger]).map(async |client| {
        problem(client.generate("[[tokens=3]] A kettle.").await, 503, "store_unavailable").await;
        problem(client.ask_usage().await, 503, "store_unavailable").await;
    }))
    .await;
    assert_eq!(provider.counters().requests, calls, "somebody generated without the store");

    store.start();
    let_end(&cloud, ENDS_AFTER_RETURN).await;
    let mut charges = BTreeMap::new();
    for events in join_all(streams.into_iter().map(Events::rest)).await {
        assert_eq!(events.last().unwrap()["type"], "finish");
        charges.extend(charge(&events));
    }
    while let Some(told) = asking.join_next().await {
        charges.extend(told.unwrap());
    }
    let (calls, begun) = called();
    assert_eq!(calls, begun);
    for client in clients.iter().chain([&stranger]) {
        charges.extend(charge(&Events::of(client.generate("[[tokens=3]] A kettle.").await).rest().await));
    }
    let open = Books::read(&cloud);
    open.agree();
    for id in &lasting {
        assert_eq!(
            open.receipt(id).unwrap()["outcome"],
            "exact",
            "it ran through the outage and ended after it"
        );
    }

    expire_holds(&cloud);
    let run = report(&cloud).await;
    assert_eq!((&run["swept"], &run["failed"]), (&open.holds().len().into(), &0.into()), "{run}");
    let books = Books::read(&cloud);
    books.balance(&cloud, &customers);
    for (id, charged) in &charges {
        assert_eq!(books.receipt(id).unwrap()["charged"], *charged, "told one thing, charged another");
    }
    cloud.shutdown().await;
}
