//! A cloud for each test, with binaries built once; a client; and the table as it is.

use local::{
    binaries::{Cargo, Targets},
    clerk,
    cloud::{Binaries, Cloud, FUNCTIONS, Options},
    net, stripe,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, time::Duration};
use tokio::sync::OnceCell;

/// How long anything may take before its test fails instead of hanging. No test depends on how long it does take.
const LIMIT: Duration = Duration::from_mins(2);
/// How long a minted token is good, in seconds.
const TOKEN_LIFETIME_S: u64 = 600;
/// How often a condition is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(2);

async fn built() -> Binaries {
    static BUILT: OnceCell<BTreeMap<String, PathBuf>> = OnceCell::const_new();
    let build = async || {
        Cargo::of_this_build()
            .build(Targets::Binaries(&FUNCTIONS), |_| {})
            .await
            .expect("the functions build")
    };
    Binaries::Given(BUILT.get_or_init(build).await.clone())
}

/// A cloud as `change` wants it: two processes of sixteen requests each, unless it says otherwise.
pub(crate) async fn cloud(change: impl FnOnce(&mut Options)) -> Cloud {
    let mut options = Options {
        concurrency: NonZeroU32::new(16).unwrap(),
        pool_max: NonZeroU32::new(2).unwrap(),
        binaries: built().await,
        ..Options::default()
    };
    change(&mut options);
    Cloud::start(options).await.expect("the cloud starts")
}

/// Fails the test where it would hang.
pub(crate) async fn soon<F: Future>(wait: F) -> F::Output {
    tokio::time::timeout(LIMIT, wait).await.expect("it takes too long")
}

/// Looks until there is something to see.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    soon(looking).await
}

/// Runs the reporter once, as its schedule does. Its answer.
pub(crate) async fn report(cloud: &Cloud) -> Value {
    soon(cloud.run_reporter()).await.unwrap().payload
}

/// One test user's way to the API.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) token: String,
    pub(crate) user: String,
}

impl Client {
    pub(crate) fn new(cloud: &Cloud, name: &str) -> Self {
        Self {
            http: net::client().unwrap(),
            url: cloud.url(),
            token: cloud.token(name, TOKEN_LIFETIME_S).unwrap(),
            user: clerk::user_id(name).unwrap(),
        }
    }

    /// Another user's, over the same connections.
    pub(crate) fn beside(&self, cloud: &Cloud, name: &str) -> Self {
        let (token, user) = (cloud.token(name, TOKEN_LIFETIME_S).unwrap(), clerk::user_id(name).unwrap());
        Self { http: self.http.clone(), url: self.url.clone(), token, user }
    }

    pub(crate) fn post(&self) -> RequestBuilder {
        self.http.post(format!("{}/v1/generate", self.url))
    }

    pub(crate) async fn generate(&self, prompt: &str) -> Response {
        self.generate_json(&json!({ "prompt": prompt, "type": "rewrite" })).await
    }

    pub(crate) async fn generate_json(&self, body: &Value) -> Response {
        soon(self.post().bearer_auth(&self.token).json(body).send()).await.unwrap()
    }

    /// Any other request, with a body if it is not null: status and answer.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let mut asked = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if !body.is_null() {
            asked = asked.json(body);
        }
        let answer = soon(asked.send()).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What a browser asks before it calls from `origin`.
    pub(crate) async fn preflight(&self, origin: &str) -> Response {
        let asked = self.http.request(Method::OPTIONS, format!("{}/v1/generate", self.url));
        let asked = asked.header("origin", origin).header("access-control-request-method", "POST");
        soon(asked.send()).await.unwrap()
    }

    pub(crate) async fn ask_usage(&self) -> Response {
        let asked = self.http.get(format!("{}/v1/usage", self.url)).bearer_auth(&self.token);
        soon(asked.send()).await.unwrap()
    }

    pub(crate) async fn usage(&self) -> Value {
        let answer = self.ask_usage().await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

/// A UI message stream, read event by event.
pub(crate) struct Events {
    answer: Response,
    buffered: String,
}

/// The provider writes an answer's first piece, without which there is no status, and each further one when it is released.
pub(crate) fn gate(options: &mut Options) {
    options.openai.behaviour.gate = true;
    options.openai.behaviour.gate_from = 1;
}

/// What an answer said of itself, once.
#[track_caller]
pub(crate) fn metadata(events: &[Value]) -> &Value {
    let mut told = events.iter().filter(|event| event["type"] == "message-metadata");
    let metadata = &told.next().unwrap()["messageMetadata"];
    assert!(told.next().is_none(), "told twice: {events:?}");
    metadata
}

impl Events {
    #[track_caller]
    pub(crate) fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-vercel-ai-ui-message-stream"], "v1");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, buffered: String::new() }
    }

    /// The next chunk of the protocol; comments are skipped. None at `[DONE]` or where the stream ends without it.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.buffered.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.buffered = rest;
                match event.strip_prefix("data: ") {
                    Some("[DONE]") => return None,
                    Some(json) => return Some(serde_json::from_str(json).unwrap()),
                    None => assert!(event.starts_with(':'), "neither data nor comment: {event}"),
                }
            }
            let chunk = soon(self.answer.chunk()).await.ok()??;
            self.buffered.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next piece of text.
    pub(crate) async fn text(&mut self) -> Option<String> {
        while let Some(event) = self.next().await {
            if event["type"] == "text-delta" {
                return Some(event["delta"].as_str().unwrap().to_owned());
            }
        }
        None
    }

    /// All that is left.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// A numeric attribute.
#[track_caller]
pub(crate) fn number(item: &Value, name: &str) -> u64 {
    item[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {item}"))
}

/// A user's items whose sort key begins with `prefix`.
pub(crate) fn items(cloud: &Cloud, user: &str, prefix: &str) -> Vec<Value> {
    let all = cloud.dynamo().unwrap().scan().unwrap();
    let of_user =
        |item: &Value| item["pk"] == format!("U#{user}") && item["sk"].as_str().unwrap().starts_with(prefix);
    all.into_iter().filter(of_user).collect()
}

/// The one meter of a user.
#[track_caller]
pub(crate) fn meter(cloud: &Cloud, user: &str) -> Value {
    let mut meters = items(cloud, user, "M#");
    assert_eq!(meters.len(), 1);
    meters.remove(0)
}

/// A plan book of one plan.
pub(crate) fn one_plan(cap: u64, requests: u64, concurrent: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let book = format!(
        "version = 1\n[[plan]]\nid = \"free\"\nprice_cents_per_month = 0\nincluded_tokens = {cap}\ncap_tokens = {cap}\n\
         requests_per_window = {requests}\nwindow_seconds = 86400\nconcurrent_requests = {concurrent}\n"
    );
    std::fs::write(file.path(), book).unwrap();
    file
}

/// A free and a Pro plan that refuse nobody but for `concurrent` requests at once. The rate window is ten years long, so that
/// no test meets its end.
pub(crate) fn wide_plans(concurrent: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let plan = |id: &str, price: &str| {
        format!(
            "[[plan]]\nid = \"{id}\"\nincluded_tokens = 50_000_000\ncap_tokens = 50_000_000\n\
             requests_per_window = 100_000\nwindow_seconds = 315_360_000\nconcurrent_requests = {concurrent}\n{price}\n"
        )
    };
    let free = plan("free", "price_cents_per_month = 0");
    let price = "price_cents_per_month = 2_000\noverage_nano_usd_per_million_tokens = 2_000_000_000\n\
                 base_lookup_key = \"base\"\nmetered_lookup_key = \"metered\"";
    std::fs::write(file.path(), format!("version = 1\n{free}{}", plan("pro", price))).unwrap();
    file
}

/// Puts a user on the Pro plan as a checkout would: a customer and a subscription at Stripe, whose webhook the function
/// hears. Answers the customer.
pub(crate) async fn subscribe(cloud: &Cloud, user: &str) -> String {
    let (stripe, plan) = (cloud.stripe().unwrap(), &cloud.catalog().unwrap().plans["pro"]);
    let http = net::client().unwrap();
    let create = async |path: &str, form: &[(&str, &str)]| {
        let url = format!("{}v1/{path}", stripe.base_url());
        let answer =
            http.post(url).bearer_auth(stripe::Options::default().api_key).form(form).send().await.unwrap();
        let object: Value = answer.json().await.unwrap();
        object["id"].as_str().unwrap_or_else(|| panic!("{path} was refused: {object}")).to_owned()
    };
    let customer = create("customers", &[("metadata[user_id]", user)]).await;
    let lines = [
        ("customer", customer.as_str()),
        ("items[0][price]", &plan.base_price_id),
        ("items[1][price]", &plan.metered_price_id),
        ("metadata[user_id]", user),
    ];
    create("subscriptions", &lines).await;
    assert_eq!(soon(stripe.deliver_pending()).await, 0, "the webhook function did not take an event");
    customer
}
