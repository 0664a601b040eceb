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
    support::{Client, Events, report, subscribe, until, wide_plans},
};
use futures_util::future::join_all;
use local::{cloud::Cloud, openai::Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Answers of streams that end while the store is away, so long that their functions give up.
const ENDS_WITHOUT_STORE: u64 = 5;
/// Of those that end while it is away, just before it comes back.
const ENDS_BEFORE_RETURN: u64 = 20;
/// Of those that go on through all of it.
const ENDS_AFTER_RETURN: u64 = 200;
/// Answers that the load has to have seen before the store goes away.
const WARM: u64 = 30;

/// What became of a user's requests.
#[derive(Debug, Default)]
struct Told {
    /// Answers that began.
    begun: u64,
    /// Charges by request.
    charges: BTreeMap<String, u64>,
}

impl Told {
    fn heard(&mut self, events: &[Value]) {
        self.begun += 1;
        let metadata = &events.last().unwrap()["messageMetadata"];
        if let (Some(id), Some(charged)) = (metadata["receipt"].as_str(), metadata["charged"].as_u64()) {
            self.charges.insert(id.to_owned(), charged);
        }
    }

    fn plus(mut self, other: Self) -> Self {
        self.charges.extend(other.charges);
        Self { begun: self.begun + other.begun, charges: self.charges }
    }
}

/// One request after the other, until the store is missed.
async fn load(client: Client) -> Told {
    let mut told = Told::default();
    loop {
        let answer = client.generate("[[tokens=3]] A kettle.").await;
        if answer.status() != 200 {
            problem(answer, 503, "store_unavailable").await;
            return told;
        }
        told.heard(&Events::of(answer).rest().await);
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

    // Six streams run into the outage, two of each kind, and everybody goes on asking.
    let kinds = [ENDS_WITHOUT_STORE, ENDS_BEFORE_RETURN, ENDS_AFTER_RETURN];
    let mut streams: BTreeMap<u64, Vec<Events>> = BTreeMap::new();
    let mut lasting = Vec::new();
    for (client, tokens) in clients.iter().zip(kinds.iter().cycle()) {
        let asked = client.generate(&format!("[[tokens={tokens} gate]] A kettle.")).await;
        let mut events = Events::of(asked);
        let id = started(&mut events).await;
        if *tokens == ENDS_AFTER_RETURN {
            lasting.push(id);
        }
        streams.entry(*tokens).or_default().push(events);
    }
    let mut told = Told { begun: clients.len() as u64, ..Told::default() };
    let mut asking: JoinSet<Told> = clients.iter().cloned().map(load).collect();
    provider.until(|counters| counters.requests >= WARM).await;
    store.stop().await;

    // Whoever asks is refused; what ends is settled by nobody.
    let end = async |streams: Vec<Events>| join_all(streams.into_iter().map(Events::rest)).await;
    let given_up = async {
        let_end(&cloud, ENDS_WITHOUT_STORE).await;
        end(streams.remove(&ENDS_WITHOUT_STORE).unwrap()).await
    };
    let refused = async {
        let mut all = Told::default();
        while let Some(one) = asking.join_next().await {
            all = all.plus(one.unwrap());
        }
        all
    };
    let (given_up, refused) = tokio::join!(given_up, refused);
    told = told.plus(refused);
    for events in given_up {
        assert_eq!(
            events.last().unwrap()["messageMetadata"]["charged"],
            Value::Null,
            "who could have stored it?"
        );
    }
    let calls = provider.counters().requests;
    assert_eq!(calls, told.begun, "a call for each answer that began, and none for anybody who was refused");
    let stranger = Client::new(&cloud, "stranger");
    for client in [&stranger, &clients[0]] {
        problem(client.generate("[[tokens=3]] A kettle.").await, 503, "store_unavailable").await;
    }
    assert_eq!(provider.counters().requests, calls, "somebody generated without the store");

    let_end(&cloud, ENDS_BEFORE_RETURN).await;
    store.start();
    let_end(&cloud, ENDS_AFTER_RETURN).await;
    for (_, streams) in streams {
        for events in end(streams).await {
            assert_eq!(events.last().unwrap()["type"], "finish");
            told.heard(&events);
            told.begun -= 1;
        }
    }
    for client in clients.iter().chain([&stranger]) {
        told.heard(&Events::of(client.generate("[[tokens=3]] A kettle.").await).rest().await);
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
    for (id, charged) in &told.charges {
        assert_eq!(books.receipt(id).unwrap()["charged"], *charged, "told one thing, charged another");
    }
    assert!(books.receipts().iter().any(|receipt| receipt["outcome"] == "swept"), "nothing was under way");
    assert_eq!(provider.counters().requests, told.begun);
    cloud.shutdown().await;
}
