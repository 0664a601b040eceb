//! F20: what the provider costs in a day has an end. Real processes, whose slices nobody else knows of.

use crate::{
    refusals::problem,
    support::{Client, Events, cloud, items, subscribe, until},
};
use serde_json::{Map, Value, json};

const USERS: u32 = 40;
/// What all free users may cost in a day, in nano-dollars: a cent.
const TRIAL: u64 = 10_000_000;
/// Of an answer, and what each costs in nano-dollars.
const TOKENS: u64 = 1_000;
const NANO_USD_PER_TOKEN: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn f20_a_farm_of_free_accounts_ends_at_the_trial_budget_and_whoever_pays_goes_on() {
    let cloud = cloud(|options| {
        options.extra.insert("TRIAL_DAILY_USD".to_owned(), "0.01".to_owned());
    })
    .await;
    let first = Client::new(&cloud, "farm_0");
    let mut served = 0;
    let mut turned_away = 0;
    for user in 0..USERS {
        let client = first.beside(&cloud, &format!("farm_{user}"));
        let answer = client.generate(&format!("[[tokens={TOKENS}]] A kettle.")).await;
        if answer.status() == 200 {
            Events::of(answer).rest().await;
            served += 1;
        } else {
            let body = problem(answer, 402, "trial_budget_used_up").await;
            assert!(body["resetsAt"].as_str().unwrap().ends_with("T00:00:00.000Z"), "{body}");
            assert_eq!(items(&cloud, &client.user, ""), Vec::<Value>::new(), "it left something behind");
            turned_away += 1;
        }
    }
    let calls = u64::try_from(cloud.openai().unwrap().requests().len()).unwrap();
    assert_eq!(calls, served, "the provider was called for somebody who was turned away");
    assert!(served > 0 && turned_away > 0, "{served} served, {turned_away} turned away");
    let spent = served * TOKENS * NANO_USD_PER_TOKEN;
    assert!(spent <= TRIAL, "{spent} of {TRIAL} nano-dollars");

    // The owner hears of each level, and hears it as exact as it is.
    let told = || {
        let events =
            cloud.events().events().into_iter().filter(|event| event.detail_type == "Budget Threshold");
        events.map(|event| (event.source, event.detail)).collect::<Vec<_>>()
    };
    let told =
        until(|| Some(told()).filter(|told| told.iter().any(|(_, detail)| detail["percent"] == 100))).await;
    for percent in [50, 80, 100] {
        let of_level = |(_, detail): &&(String, Map<String, Value>)| detail["percent"] == percent;
        let (source, detail) =
            told.iter().find(of_level).unwrap_or_else(|| panic!("no {percent} %: {told:?}"));
        assert_eq!((source.as_str(), &detail["pool"]), ("inkmeter.generate", &json!("trial")));
        assert_eq!(detail["ceilingNanoUsd"], TRIAL.to_string());
    }

    let paying = first.beside(&cloud, "paula");
    subscribe(&cloud, &paying.user).await;
    let answer = paying.generate("A kettle.").await;
    assert_eq!(answer.status(), 200);
    Events::of(answer).rest().await;
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f20_an_owner_s_ceiling_of_nothing_closes_the_service_for_everybody() {
    let cloud = cloud(|options| {
        options.extra.insert("OWNER_DAILY_USD".to_owned(), "0".to_owned());
    })
    .await;
    let (free, paying) = (Client::new(&cloud, "fred"), Client::new(&cloud, "paula"));
    subscribe(&cloud, &paying.user).await;
    for client in [&free, &paying] {
        let body = problem(client.generate("A kettle.").await, 503, "owner_ceiling_reached").await;
        assert!(body["retryAfter"].as_u64().unwrap() <= 86_400, "{body}");
    }
    assert!(cloud.openai().unwrap().requests().is_empty());
    cloud.shutdown().await;
}
