//! Everything that a provider can do to an answer: it dies, stands still, cuts it short at any chunk, refuses, loses a
//! model. Each time the client learns of it, there is a receipt, and the books balance.

use crate::{
    books::{Books, last},
    support::{Client, Events, cloud, items, number, report, soon, subscribe, until, wide_plans},
};
use futures_util::future::join_all;
use local::{
    cloud::{Cloud, Options},
    openai::RequestRecord,
};
use reqwest::Response;
use serde_json::{Value, json};
use std::{collections::BTreeMap, num::NonZeroU32};

/// Chunks of text of an answer that is broken off.
const CHUNKS: usize = 30;
/// Users who ask for them, so many of whom pay.
const USERS: usize = 10;
const PAYERS: usize = 3;
/// A machine that leaves a process waiting for so long is not one that tests are run on; a test waits for it in earnest.
const FIRST_TOKEN_MS: &str = "6000";
const IDLE_MS: &str = "8000";

/// How an answer is broken off: the connection is dropped, an error stands in its place, nothing comes any more.
const ENDS: [&str; 3] = ["cut", "inband", "stall"];

fn impatient(options: &mut Options) {
    options.extra.insert("PROVIDER_FIRST_TOKEN_MS".to_owned(), FIRST_TOKEN_MS.to_owned());
    options.extra.insert("PROVIDER_IDLE_MS".to_owned(), IDLE_MS.to_owned());
    // All of a wave at once.
    options.concurrency = NonZeroU32::new(64).unwrap();
}

fn text(events: &[Value]) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "text-delta");
    deltas.map(|event| event["delta"].as_str().unwrap()).collect()
}

/// A token of the stand-in's is a word.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn metadata(events: &[Value]) -> &Value {
    let mut told = events.iter().filter(|event| event["type"] == "message-metadata");
    let metadata = &told.next().unwrap()["messageMetadata"];
    assert!(told.next().is_none(), "told twice: {events:?}");
    metadata
}

fn failed_calls(receipt: &Value) -> u64 {
    receipt["failed_calls"].as_u64().unwrap_or_default()
}

async fn unavailable(answer: Response) {
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "provider_unavailable");
}

/// An answer that was broken off: so much of it and then an error, as the client sees it.
struct Broken {
    user: String,
    text: String,
    metadata: Value,
}

/// Asks for an answer that ends as `end` says after `chunks` of its chunks. None where it is an error of HTTP's.
async fn ends_after(client: &Client, end: &str, chunks: usize) -> Option<Broken> {
    let prompt = format!("[[tokens={CHUNKS} {end}={chunks}]] A kettle that sings.");
    let answer = client.generate(&prompt).await;
    if chunks == 0 {
        unavailable(answer).await;
        return None;
    }
    let status = answer.status();
    assert!(status == 200, "{end} after {chunks}: {status} {}", answer.text().await.unwrap());
    let events = Events::of(answer).rest().await;
    let text = text(&events);
    assert_eq!(words(&text), chunks, "{end} after {chunks}: {events:?}");
    assert_eq!(events.last().unwrap()["type"], "error", "{end} after {chunks}: {events:?}");
    assert!(events.iter().all(|event| event["type"] != "finish"), "{end} after {chunks} looks whole");
    Some(Broken { user: client.user.clone(), text, metadata: metadata(&events).clone() })
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i3_f05_f28_a_provider_that_dies_stalls_or_cuts_at_any_chunk_is_seen_charged_and_booked() {
    let plans = wide_plans(64);
    let cloud = cloud(|options| {
        impatient(options);
        options.plans = Some(plans.path().to_owned());
    })
    .await;
    let first = Client::new(&cloud, "user0");
    let clients: Vec<Client> = (0..USERS).map(|user| first.beside(&cloud, &format!("user{user}"))).collect();
    let mut customers = BTreeMap::new();
    for payer in &clients[..PAYERS] {
        customers.insert(payer.user.clone(), subscribe(&cloud, &payer.user).await);
    }
    let mut broken: Vec<Broken> = Vec::new();
    for end in ENDS {
        let asked = (0..CHUNKS).map(|chunks| ends_after(&clients[chunks % USERS], end, chunks));
        broken.extend(join_all(asked).await.into_iter().flatten());
    }
    assert_eq!(broken.len(), ENDS.len() * (CHUNKS - 1));

    let run = report(&cloud).await;
    assert_eq!((&run["failed"], &run["parked"], &run["swept"]), (&0.into(), &0.into(), &0.into()), "{run}");
    let books = Books::read(&cloud);
    let used = books.balance(&cloud, &customers);
    let mut charged: BTreeMap<String, u64> = BTreeMap::new();
    for Broken { user, text, metadata } in &broken {
        let receipt = books.receipt(metadata["receipt"].as_str().unwrap()).unwrap();
        assert_eq!((&receipt["outcome"], &receipt["charged"]), (&"estimated".into(), &metadata["charged"]));
        assert_eq!(metadata["usage"]["estimated"], true);
        // What was streamed, and the prompt; not what would have come.
        assert_eq!(number(receipt, "output"), (text.len() as u64).div_ceil(4), "{receipt}");
        assert!(number(receipt, "input") > 0 && failed_calls(receipt) == 0, "{receipt}");
        *charged.entry(user.clone()).or_default() += number(receipt, "charged");
    }
    assert_eq!(used, charged);
    // Those without text have receipts as well, which charge nothing and count each call.
    // (On a slow machine an admission of unknown outcome is taken back and made again: its receipt counts no call.)
    let void = books.receipts().iter().filter(|receipt| failed_calls(receipt) > 0).collect::<Vec<_>>();
    assert_eq!(void.len(), ENDS.len(), "{void:?}");
    let is_void = |receipt: &Value| receipt["outcome"] == "void" && receipt["charged"] == 0;
    assert!(void.iter().all(|receipt| is_void(receipt) && failed_calls(receipt) > 1), "{void:?}");
    let others = books.receipts().iter().filter(|receipt| failed_calls(receipt) == 0 && !is_void(receipt));
    assert_eq!(others.count(), broken.len());
    let calls = void.iter().map(|receipt| failed_calls(receipt)).sum::<u64>() + broken.len() as u64;
    let provider = cloud.openai().unwrap();
    soon(provider.idle()).await;
    assert_eq!(provider.counters().requests, calls, "f19: no call that is not counted, none after text");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_f05_a_client_that_left_pays_for_what_came_before_the_provider_broke_off() {
    let cloud = cloud(impatient).await;
    let provider = cloud.openai().unwrap();
    let client = Client::new(&cloud, "moe");
    for (asked, end) in ENDS.into_iter().enumerate() {
        let prompt = format!("[[tokens={CHUNKS} {end}=7 gate]] A kettle that sings.");
        let before = provider.deltas_written();
        let (answer, ()) = tokio::join!(client.generate(&prompt), async {
            soon(provider.until(|counters| counters.in_flight > 0)).await;
            provider.release(1);
        });
        let mut events = Events::of(answer);
        assert!(events.text().await.is_some());
        drop(events);
        provider.release(6);
        let receipts = until(|| {
            let receipts = items(&cloud, &client.user, "R#");
            (receipts.len() > asked).then_some(receipts)
        })
        .await;
        assert_eq!(provider.deltas_written() - before, 7, "{end}: it was read to its end");
        let estimated = receipts.iter().filter(|receipt| receipt["outcome"] == "estimated");
        assert_eq!(estimated.count(), asked + 1, "{end}: {receipts:?}");
        // The first seven words have 30 bytes at least, a quarter of which is the estimate.
        assert!(receipts.iter().all(|receipt| number(receipt, "output") >= 7), "{end}: {receipts:?}");
    }
    cloud.shutdown().await;
}

/// What one request came to at the provider and in the books.
struct Came {
    events: Vec<Value>,
    calls: Vec<RequestRecord>,
    receipt: Value,
}

/// Asks, alone. None: an error of HTTP's.
async fn ask(cloud: &Cloud, client: &Client, body: &Value) -> (u16, Came) {
    let provider = cloud.openai().unwrap();
    let before = provider.requests().len();
    let known: Vec<String> =
        items(cloud, &client.user, "R#").iter().map(|receipt| last(receipt).to_owned()).collect();
    let answer = client.generate_json(body).await;
    let status = answer.status().as_u16();
    let events = if status == 200 {
        Events::of(answer).rest().await
    } else {
        unavailable(answer).await;
        Vec::new()
    };
    let mut receipts = items(cloud, &client.user, "R#");
    receipts.retain(|receipt| !known.iter().any(|id| id == last(receipt)));
    assert_eq!(receipts.len(), 1, "{body}: one receipt for each request");
    let calls = provider.requests().split_off(before);
    (status, Came { events, calls, receipt: receipts.remove(0) })
}

fn rewrite(prompt: &str) -> Value {
    json!({ "prompt": prompt, "type": "rewrite" })
}

#[tokio::test(flavor = "multi_thread")]
async fn f19_a_call_that_fails_before_the_first_text_is_made_again_and_one_after_it_is_not() {
    let plans = wide_plans(16);
    let cloud = cloud(|options| options.plans = Some(plans.path().to_owned())).await;
    let client = Client::new(&cloud, "jan");
    for fault in
        ["error=500", "error=503", "error=429 retry_after=1", "error=408", "drop_head", "cut=0", "inband=0"]
    {
        let (status, came) =
            ask(&cloud, &client, &rewrite(&format!("[[tokens=5 {fault} fail_first=1]] A mug."))).await;
        assert_eq!((status, came.calls.len(), failed_calls(&came.receipt)), (200, 2, 1), "{fault}");
        assert_eq!(came.events.last().unwrap()["type"], "finish", "{fault}: {:?}", came.events);
        assert_eq!(words(&text(&came.events)), 5, "{fault}: the text of one call");
        let served = came.calls[1].reported.unwrap().total_tokens();
        assert_eq!(
            (&came.receipt["outcome"], number(&came.receipt, "charged")),
            (&"exact".into(), served),
            "{fault}"
        );
        assert_eq!(came.calls[0].reported, None, "{fault}");
    }
    for fault in ["cut=3", "inband=3"] {
        let (status, came) =
            ask(&cloud, &client, &rewrite(&format!("[[tokens=5 {fault} fail_first=1]] A mug."))).await;
        assert_eq!((status, came.calls.len(), failed_calls(&came.receipt)), (200, 1, 0), "{fault}");
        assert_eq!(came.events.last().unwrap()["type"], "error", "{fault}: {:?}", came.events);
        assert_eq!(came.receipt["outcome"], "estimated");
    }
    for fault in ["error=400", "error=401", "error=403", "error=413"] {
        let (status, came) = ask(&cloud, &client, &rewrite(&format!("[[tokens=5 {fault}]] A mug."))).await;
        assert_eq!((status, came.calls.len(), failed_calls(&came.receipt)), (503, 1, 1), "{fault}");
        assert_eq!(
            (&came.receipt["outcome"], &came.receipt["charged"]),
            (&"void".into(), &0.into()),
            "{fault}"
        );
    }
    // A provider that stays down is asked so often and no more.
    let (status, came) = ask(&cloud, &client, &rewrite("[[error=500]] A mug.")).await;
    assert_eq!((status, came.calls.len() as u64), (503, failed_calls(&came.receipt)));
    assert!((2..=8).contains(&came.calls.len()), "{} calls", came.calls.len());
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_model_is_answered_for_by_the_next_of_the_list_unless_it_was_asked_for_by_name() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "kim");
    let models = |came: &Came| -> Vec<String> {
        came.calls.iter().map(|call| call.model.clone().unwrap_or_default()).collect()
    };
    let (status, came) = ask(&cloud, &client, &rewrite("[[tokens=5 gone=gpt-6-luna]] A mug.")).await;
    assert_eq!((status, came.calls.len(), failed_calls(&came.receipt)), (200, 2, 1));
    assert_eq!(came.events.last().unwrap()["type"], "finish");
    assert_eq!(metadata(&came.events)["model"], models(&came)[1].as_str());
    assert_ne!(models(&came)[1], "gpt-6-luna");
    assert_eq!(number(&came.receipt, "charged"), came.calls[1].reported.unwrap().total_tokens());

    let mut named = rewrite("[[tokens=5 gone=gpt-6-luna]] A mug.");
    named["model"] = json!("gpt-6-luna");
    let (status, came) = ask(&cloud, &client, &named).await;
    assert_eq!((status, came.calls.len()), (503, 1));

    let all = "[[tokens=5 gone=gpt-6-luna,gpt-5.4-nano,gpt-4o-mini]] A mug.";
    let (status, came) = ask(&cloud, &client, &rewrite(all)).await;
    assert_eq!((status, came.calls.len(), failed_calls(&came.receipt)), (503, 3, 3), "each was asked once");
    assert_eq!(came.receipt["outcome"], "void");
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_sent_and_a_moderating_provider_is_understood() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "lea");
    let said =
        |role: &str, text: &str| json!({"id": role, "role": role, "parts": [{"type": "text", "text": text}]});
    let talk = [
        said("user", "[[tokens=9]] A mug."),
        said("assistant", "Meet the mug."),
        said("user", "Shorter. [[tokens=4 moderation cached=3]]"),
    ];
    let (status, came) = ask(&cloud, &client, &json!({"messages": talk, "type": "rewrite"})).await;
    assert_eq!((status, words(&text(&came.events))), (200, 4), "{:?}", came.events);
    assert_eq!(came.events.last().unwrap()["type"], "finish");
    assert_eq!((&came.receipt["outcome"], number(&came.receipt, "cached_input")), (&"exact".into(), 3));
    assert!(
        came.calls[0].text_bytes
            > talk.iter().map(|said| said["parts"][0]["text"].as_str().unwrap().len() as u64).sum()
    );
    cloud.shutdown().await;
}
