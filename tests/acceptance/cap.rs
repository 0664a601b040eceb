//! A cap that concurrency cannot break, through the real binaries.

use crate::support::{Client, Events, cloud, gate, items, metadata, meter, number, one_plan};
use futures_util::future::join_all;
use local::openai::{Behaviour, PromptCount};
use serde_json::Value;
use std::num::NonZeroU32;

const PROMPT: &str = "A kettle that sings when the water boils.";
/// The function's own output cap, in tokens.
const OUTPUT_MAX: u64 = 1_024;
const FITS: usize = 10;
const ASKED: usize = 200;

/// What one request of [`PROMPT`] holds, in tokens, as the table says while it runs.
async fn hold_tokens() -> u64 {
    let cloud = cloud(gate).await;
    let client = Client::new(&cloud, "probe");
    let mut events = Events::of(client.generate(PROMPT).await);
    assert_eq!(events.next().await.unwrap()["type"], "start");
    let meter = meter(&cloud, &client.user);
    let holds = meter["holds"].as_object().unwrap();
    assert_eq!(holds.len(), 1);
    let tokens = number(holds.values().next().unwrap(), "tokens");
    cloud.openai().unwrap().release(1_000);
    events.rest().await;
    cloud.shutdown().await;
    tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn f01_i1_two_hundred_at_once_get_exactly_the_ten_that_fit() {
    let hold = hold_tokens().await;
    let plans = one_plan(hold * FITS as u64, 1_000, 64);
    let cloud = cloud(|options| {
        options.plans = Some(plans.path().to_owned());
        options.concurrency = NonZeroU32::new(64).unwrap();
        options.pool_max = NonZeroU32::new(4).unwrap();
        // Each uses exactly what it holds, and none ends before the test says so.
        options.openai.behaviour = Behaviour {
            gate: true,
            gate_from: 1,
            output_tokens: 5,
            prompt_tokens: PromptCount::Exact(hold - OUTPUT_MAX),
            completion_tokens: Some(OUTPUT_MAX),
            ..Behaviour::default()
        };
    })
    .await;
    let client = Client::new(&cloud, "hot");

    let answers = join_all((0..ASKED).map(|_| client.generate(PROMPT))).await;
    let (streams, refusals): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == 200);
    assert_eq!((streams.len(), refusals.len()), (FITS, ASKED - FITS));
    for refusal in refusals {
        assert_eq!(refusal.status(), 429);
        let problem: Value = refusal.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["upperBound"]), (&"quota_held".into(), &true.into()));
    }
    // 190 refusals consumed nothing: no tokens, no rate slot, no call.
    let running = meter(&cloud, &client.user);
    assert_eq!((number(&running, "committed"), number(&running, "settled")), (hold * FITS as u64, 0));
    let counts = running["rate"].as_object().unwrap().values();
    let counted: u64 = counts.map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(counted, FITS as u64);
    assert_eq!(cloud.openai().unwrap().requests().len(), FITS);

    cloud.openai().unwrap().release(1_000);
    for ended in join_all(streams.into_iter().map(|answer| Events::of(answer).rest())).await {
        assert_eq!(metadata(&ended)["charged"], hold);
    }
    let refused = client.generate(PROMPT).await;
    assert_eq!(refused.status(), 402);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["left"]), (&"quota_exceeded".into(), &0.into()));
    let usage = client.usage().await;
    assert_eq!(usage["usage"]["settled"], hold * FITS as u64);
    assert_eq!((&usage["usage"]["held"], &usage["usage"]["left"]), (&0.into(), &0.into()));
    let receipts = items(&cloud, &client.user, "R#");
    assert_eq!(receipts.iter().map(|receipt| number(receipt, "charged")).sum::<u64>(), hold * FITS as u64);
    cloud.shutdown().await;
}
