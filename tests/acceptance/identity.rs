//! Whose session it is: published keys, their change, and the cookie, through the real binary.

use crate::{
    refusals::problem,
    support::{Client, cloud, soon},
};
use http::StatusCode;
use local::{
    clerk::{Claims, KeySet},
    cloud::Cloud,
};
use reqwest::Response;
use std::{
    num::NonZeroU32,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What `shared/clerk` promises, in milliseconds.
const COOLDOWN_MS: u128 = 5_000;

/// A cloud whose functions are not given Clerk's key, and have one process each.
async fn keyless() -> Cloud {
    cloud(|options| {
        options.pool_max = NonZeroU32::MIN;
        options.extra.insert("CLERK_JWT_KEY".to_owned(), String::new());
    })
    .await
}

fn claims() -> Claims {
    #[expect(clippy::disallowed_methods, reason = "the functions read the machine's clock too")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Claims::new("user_local_alice", now.as_secs()).lifetime_s(600)
}

/// Asks until the answer has this status: a key set is asked for again when its cooldown is over.
async fn until_status(client: &Client, status: u16) -> Response {
    let asking = async {
        loop {
            let answer = client.ask_usage().await;
            if answer.status() == status {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(asking).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_strangers_cannot_make_a_process_ask_for_keys_more_than_once_in_a_cooldown() {
    let cloud = keyless().await;
    let clerk = cloud.clerk().unwrap();
    let client = Client::new(&cloud, "alice");
    let began = Instant::now();
    assert_eq!(client.ask_usage().await.status(), 200);
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut stranger = client.clone();
        stranger.token = clerk.mint_with(claims().header("kid", format!("ins_stray{number}")));
        requests.spawn(async move { stranger.ask_usage().await });
    }
    while let Some(answer) = requests.join_next().await {
        let body = problem(answer.unwrap(), 401, "unauthenticated").await;
        assert!(body["detail"].as_str().unwrap().contains("jwk-kid-mismatch"), "{body}");
    }
    let most = began.elapsed().as_millis() / COOLDOWN_MS + 1;
    assert!((1..=most).contains(&u128::from(clerk.jwks_fetches())), "{} fetches", clerk.jwks_fetches());
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_a_key_that_is_changed_at_clerk_is_picked_up_by_a_running_function() {
    let cloud = keyless().await;
    let clerk = cloud.clerk().unwrap();
    let before = Client::new(&cloud, "alice");
    assert_eq!(before.ask_usage().await.status(), 200);
    clerk.rotate_key().await.unwrap();
    let after = Client::new(&cloud, "alice");
    assert_ne!(before.token, after.token);
    until_status(&after, 200).await;
    // The old key is still published, so what it signed is still good.
    assert_eq!(before.ask_usage().await.status(), 200);
    assert_eq!(clerk.jwks_fetches(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_checked_is_a_503_until_clerk_answers() {
    let cloud = keyless().await;
    let clerk = cloud.clerk().unwrap();
    let client = Client::new(&cloud, "alice");
    clerk.set_key_set(KeySet::Refused(StatusCode::INTERNAL_SERVER_ERROR));
    problem(client.ask_usage().await, 503, "identity_unavailable").await;
    clerk.set_key_set(KeySet::HungUp);
    problem(client.ask_usage().await, 503, "identity_unavailable").await;
    clerk.set_key_set(KeySet::Served);
    until_status(&client, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cookie_is_taken_from_a_page_of_the_same_origin_only() {
    let cloud = cloud(|_| {}).await;
    let client = Client::new(&cloud, "alice");
    let http = local::net::client().unwrap();
    let ask = async |cookie: &str, site: &str| {
        let asked = http.get(format!("{}/v1/usage", cloud.url()));
        soon(asked.header("cookie", cookie).header("sec-fetch-site", site).send()).await.unwrap()
    };
    let cookie = format!("theme=dark; __session={}; other=1", client.token);
    assert_eq!(ask(&cookie, "same-origin").await.status(), 200);
    for site in ["cross-site", "same-site", "none"] {
        problem(ask(&cookie, site).await, 401, "unauthenticated").await;
    }
    let two = format!("{cookie}; __session={}", client.token);
    problem(ask(&two, "same-origin").await, 401, "unauthenticated").await;
}
