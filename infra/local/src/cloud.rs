//! The whole cloud in one process: gateway, functions, database and stand-ins, wired as the deployment wires them.
//!
//! Owns the composition and nothing else. Must never read the environment: what points a part at the real thing
//! is in [`Options::overrides`].

mod catalog;
mod environment;

use std::{collections::BTreeMap, io, num::NonZeroU32, path::PathBuf, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    binaries::{BuildError, Cargo, Targets},
    clerk,
    clock::{CloudClock, request_id},
    dynamo::{Dynamo, DynamoError, DynamoOptions, SWEEP_EVERY, TableDefinition},
    events,
    gateway::{Gateway, GatewayOptions, Route, RouteTable},
    logs::LogSink,
    net::{bind_loopback, bind_loopback_port},
    openai,
    page::{self, Page},
    runtime::{FunctionSpec, Invocation, InvokeError, Invoker, Runtime},
    stripe::{self, Stripe, WebhookEndpoint},
};
pub(crate) use catalog::Api as StripeApi;
pub use catalog::{Catalog, CatalogError, PlanPrices};
pub use environment::{Real, real_parts};

/// The functions, which are also their packages and binaries.
pub const FUNCTIONS: [&str; 4] = ["generate", "account", "webhook", "reporter"];
/// The deployment's template, which defines the table.
pub const TEMPLATE: &str = include_str!("../../template.yaml");
/// The plans that are built into the functions.
pub const PLANS: &str = include_str!("../../plans.toml");
/// The stage's name.
pub const STAGE: &str = "local";
/// As in the template: how long one generation may take, and its route waits.
pub const GENERATE_TIMEOUT: Duration = Duration::from_mins(5);
/// As in the template.
pub const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(20);
/// As in the template.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(28);
/// As in the template.
pub const REPORTER_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a request may wait for a process. On AWS a request over the concurrency is refused at once; on one
/// machine processes start while others compile.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Where the functions' binaries come from.
#[derive(Debug, Clone)]
pub enum Binaries {
    /// Cargo builds what is missing or stale.
    Build(Cargo),
    /// They are there, by function.
    Given(BTreeMap<String, PathBuf>),
}

/// How the cloud runs. [`Options::default`] is everything on this machine, in memory, on a free port.
#[derive(Clone)]
pub struct Options {
    /// The gateway's port; 0 takes a free one.
    pub port: u16,
    /// The directory of the database's file; `None` keeps it in memory.
    pub data: Option<PathBuf>,
    /// Requests at once in one process of an HTTP function.
    pub concurrency: NonZeroU32,
    /// The most processes of one function.
    pub pool_max: NonZeroU32,
    /// How long a request may wait for a process.
    pub queue_wait_max: Duration,
    /// Another plan book than the built-in one.
    pub plans: Option<PathBuf>,
    /// Serves the page whose build is, or will be, in this directory, and signs its test users in.
    pub page: Option<PathBuf>,
    /// How long one generation may take; its route waits as long.
    pub generate_timeout: Duration,
    /// Runs the reporter at this interval, if at all.
    pub report_every: Option<Duration>,
    /// Variables that point a part at the real thing: `OPENAI_*`, `STRIPE_*`, `CLERK_*`, `DYNAMODB_ENDPOINT` and
    /// so on; see [`real_parts`].
    pub overrides: BTreeMap<String, String>,
    /// Variables that every function gets, whatever else was said: for tests, e.g. a proxy before the database.
    pub extra: BTreeMap<String, String>,
    /// The clock that functions are told the time by; for tests that move it, and their own clocks with it.
    pub clock: CloudClock,
    /// Where the functions' output goes.
    pub logs: LogSink,
    /// The functions' binaries.
    pub binaries: Binaries,
    /// The provider's stand-in.
    pub openai: openai::Options,
    /// Clerk's stand-in.
    pub clerk: clerk::Options,
    /// Stripe's stand-in. Its webhook is set to this cloud's.
    pub stripe: stripe::Options,
    /// EventBridge's stand-in. The cloud's bus is added to its buses.
    pub events: events::Options,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds secrets, or nothing to show.
        f.debug_struct("Options")
            .field("port", &self.port)
            .field("data", &self.data)
            .field("concurrency", &self.concurrency)
            .field("pool_max", &self.pool_max)
            .field("overrides", &self.overrides.keys())
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            data: None,
            concurrency: NonZeroU32::MIN,
            pool_max: NonZeroU32::MIN.saturating_add(31),
            queue_wait_max: QUEUE_WAIT_MAX,
            plans: None,
            page: None,
            generate_timeout: GENERATE_TIMEOUT,
            report_every: None,
            overrides: BTreeMap::new(),
            extra: BTreeMap::new(),
            clock: CloudClock::default(),
            logs: LogSink::discard(),
            binaries: Binaries::Build(Cargo::of_this_build()),
            openai: openai::Options::default(),
            clerk: clerk::Options::default(),
            stripe: stripe::Options::default(),
            events: events::Options::default(),
        }
    }
}

/// Why the cloud did not start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A part could not start.
    #[error("cannot start {part}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The functions could not be built.
    #[error("cannot build the functions")]
    Build(#[from] BuildError),
    /// The database could not start.
    #[error("cannot start the database")]
    Dynamo(#[from] DynamoError),
    /// The plan book cannot be read.
    #[error("cannot read the plans in {path}")]
    Plans {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plans' products and prices could not be set up in Stripe's stand-in.
    #[error("cannot set Stripe up")]
    Catalog(#[from] CatalogError),
    /// A given set of binaries lacks one.
    #[error("there is no binary for the function {0}")]
    NoBinary(String),
}

/// A running cloud. Dropping it kills every function process; [`Cloud::shutdown`] also waits.
#[derive(Debug)]
pub struct Cloud {
    gateway: Gateway,
    runtime: Runtime,
    parts: Parts,
    catalog: Option<Catalog>,
    stripe_key: String,
    clock: CloudClock,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The parts that are not pointed at the real thing.
struct Parts {
    dynamo: Option<Dynamo>,
    openai: Option<openai::Handle>,
    clerk: Option<clerk::Handle>,
    stripe: Option<Stripe>,
    events: events::Handle,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("dynamo", &self.dynamo)
            .field("stripe", &self.stripe)
            .finish_non_exhaustive()
    }
}

impl Cloud {
    /// Builds the functions if need be, starts every part and returns once requests can come. No function process
    /// runs before its first request.
    ///
    /// # Errors
    /// See [`CloudError`].
    pub async fn start(options: Options) -> Result<Self, CloudError> {
        let binaries = binaries(options.binaries.clone()).await?;
        let plans = match &options.plans {
            None => PLANS.to_owned(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| CloudError::Plans { path: path.clone(), source })?,
        };
        let parts = Parts::start(&options).await?;
        let catalog = match &parts.stripe {
            None => None,
            Some(stripe) => Some(Catalog::set_up(&stripe.base_url(), &options.stripe.api_key, &plans).await?),
        };
        let listener = bind_loopback_port(options.port).map_err(part("the gateway"))?;
        let origin = format!("http://{}", listener.local_addr().map_err(part("the gateway"))?);
        let environment = environment::of_functions(&options, &parts.addresses(&origin), catalog.as_ref());
        let functions = specs(&options, &binaries, &environment)?;
        let runtime = Runtime::start(functions, &options.logs).map_err(part("the Lambda service"))?;
        let gateway_options = GatewayOptions {
            routes: RouteTable::new(routes(options.generate_timeout)),
            stage: STAGE.to_owned(),
            page: page(&options, &parts, catalog.as_ref(), &origin)?,
        };
        let gateway =
            Gateway::start(listener, runtime.invoker(), gateway_options).map_err(part("the gateway"))?;
        if let Some(stripe) = &parts.stripe {
            let url = format!("{}/v1/webhooks/stripe", gateway.url());
            let under = |secret: &str| Some(WebhookEndpoint { url: url.clone(), secret: secret.to_owned() });
            stripe.set_webhook(under(environment::WEBHOOK_SECRET));
            stripe.set_thin_webhook(under(environment::THIN_WEBHOOK_SECRET));
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let rules = events::Rule::of_template(TEMPLATE, environment::BUS_NAME);
        for rule in rules.map_err(|error| part("the bus")(io::Error::other(error)))? {
            let (function, events) = (rule.function.clone(), parts.events.matching(rule));
            tasks.spawn(deliver(runtime.invoker(), function, events, options.clock.clone(), stop.clone()));
        }
        if let Some(every) = options.report_every {
            tasks.spawn(report(runtime.invoker(), every, options.clock.clone(), stop.clone()));
        }
        let stripe_key = options.stripe.api_key.clone();
        Ok(Self { gateway, runtime, parts, catalog, stripe_key, clock: options.clock, stop, tasks })
    }

    /// The API's base URL, without a slash at its end.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// The functions' processes.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The database, unless it is the real one.
    pub fn dynamo(&self) -> Option<&Dynamo> {
        self.parts.dynamo.as_ref()
    }

    /// The provider's stand-in, unless it is the real one.
    pub fn openai(&self) -> Option<&openai::Handle> {
        self.parts.openai.as_ref()
    }

    /// Clerk's stand-in, unless it is the real one.
    pub fn clerk(&self) -> Option<&clerk::Handle> {
        self.parts.clerk.as_ref()
    }

    /// Stripe's stand-in, unless it is the real one.
    pub fn stripe(&self) -> Option<&Stripe> {
        self.parts.stripe.as_ref()
    }

    /// EventBridge's stand-in.
    pub fn events(&self) -> &events::Handle {
        &self.parts.events
    }

    /// The secret key of Stripe's stand-in.
    pub(crate) fn stripe_key(&self) -> &str {
        &self.stripe_key
    }

    /// What was set up in Stripe's stand-in.
    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref()
    }

    /// A session token of a named test user (`alice` is `user_local_alice`), good for `lifetime_s` seconds from now.
    /// `None` with the real Clerk, or for a name that is none.
    pub fn token(&self, name: &str, lifetime_s: u64) -> Option<String> {
        let clerk = self.parts.clerk.as_ref()?;
        let now_s = u64::try_from(self.clock.now_ms() / 1000).ok()?;
        Some(clerk.mint_with(clerk::Claims::new(clerk::user_id(name)?, now_s).lifetime_s(lifetime_s)))
    }

    /// Runs the reporter once, as its schedule does, and waits for its answer.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn run_reporter(&self) -> Result<Invocation, InvokeError> {
        self.runtime.invoke("reporter", &scheduled_event(self.clock.now_ms())).await
    }

    /// Stops everything and waits until every process and connection is gone.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.runtime.shutdown().await;
        self.gateway.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
        let Parts { dynamo, openai, clerk, stripe, events } = &self.parts;
        if let Some(openai) = openai {
            openai.shutdown().await;
        }
        if let Some(clerk) = clerk {
            clerk.shutdown().await;
        }
        if let Some(stripe) = stripe {
            stripe.shutdown().await;
        }
        events.shutdown().await;
        if let Some(dynamo) = dynamo {
            dynamo.shutdown().await;
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Parts {
    async fn start(options: &Options) -> Result<Self, CloudError> {
        let real = real_parts(&options.overrides);
        let dynamo = if real.contains(&Real::DynamoDb) {
            None
        } else {
            Some(Dynamo::start(&DynamoOptions {
                data: options.data.clone(),
                table_name: environment::TABLE_NAME.to_owned(),
                table: TableDefinition::from_template(TEMPLATE)?,
                sweep_every: SWEEP_EVERY,
            })?)
        };
        let listen = || bind_loopback().map_err(part("a stand-in"));
        let openai = if real.contains(&Real::OpenAi) {
            None
        } else {
            let started = openai::start(listen()?, options.openai.clone()).await;
            Some(started.map_err(part("the provider's stand-in"))?)
        };
        let clerk = if real.contains(&Real::Clerk) {
            None
        } else {
            let started = clerk::start(listen()?, options.clerk.clone()).await;
            Some(started.map_err(part("Clerk's stand-in"))?)
        };
        let stripe = if real.contains(&Real::Stripe) {
            None
        } else {
            let started = stripe::start(listen()?, options.stripe.clone()).await;
            Some(started.map_err(part("Stripe's stand-in"))?)
        };
        let mut bus = options.events.clone();
        bus.buses.push(environment::BUS_NAME.to_owned());
        let events = events::start(listen()?, bus).await.map_err(part("EventBridge's stand-in"))?;
        Ok(Self { dynamo, openai, clerk, stripe, events })
    }

    /// `origin`: the gateway's.
    fn addresses(&self, origin: &str) -> environment::Addresses {
        environment::Addresses {
            dynamo: self.dynamo.as_ref().map(Dynamo::endpoint),
            openai: self.openai.as_ref().map(|openai| format!("{}/v1", openai.base_url())),
            stripe: self.stripe.as_ref().map(Stripe::base_url),
            events: self.events.base_url(),
            clerk: self.clerk.as_ref().map(|clerk| environment::ClerkIdentity {
                issuer: clerk.issuer().to_owned(),
                public_key_pem: clerk.public_key_pem(),
                authorized_parties: format!("{},{origin}", clerk.authorized_party()),
            }),
        }
    }
}

fn part(part: &'static str) -> impl FnOnce(io::Error) -> CloudError {
    move |source| CloudError::Part { part, source }
}

/// The page, if it is asked for, with test users unless Clerk is the real one.
fn page(
    options: &Options,
    parts: &Parts,
    catalog: Option<&Catalog>,
    origin: &str,
) -> Result<Option<Page>, CloudError> {
    let Some(directory) = options.page.clone() else { return Ok(None) };
    let key = options.stripe.api_key.clone();
    let billing = parts.stripe.clone().zip(catalog.cloned());
    let billing = billing.map(|(stripe, catalog)| page::Billing { stripe, key, catalog });
    let (clock, steerable) = (options.clock.clone(), parts.openai.is_some());
    let visitors = parts.clerk.clone().map(|clerk| {
        let origin = origin.to_owned();
        page::Visitors::new(page::VisitorParts { clerk, clock, origin, billing, steerable })
    });
    let no_client = |error| part("the page")(io::Error::other::<reqwest::Error>(error));
    Ok(Some(Page::new(directory, origin.to_owned(), visitors.transpose().map_err(no_client)?)))
}

async fn binaries(binaries: Binaries) -> Result<BTreeMap<String, PathBuf>, CloudError> {
    match binaries {
        Binaries::Given(binaries) => Ok(binaries),
        Binaries::Build(cargo) => Ok(cargo.build(Targets::Binaries(&FUNCTIONS), |_| {}).await?),
    }
}

fn specs(
    options: &Options,
    binaries: &BTreeMap<String, PathBuf>,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<FunctionSpec>, CloudError> {
    let spec = |(name, timeout, concurrency, memory_mb): (&str, Duration, NonZeroU32, u32)| {
        Ok(FunctionSpec {
            name: name.to_owned(),
            binary: binaries.get(name).cloned().ok_or_else(|| CloudError::NoBinary(name.to_owned()))?,
            environment: environment.clone(),
            timeout,
            concurrency,
            pool_max: options.pool_max,
            queue_wait_max: options.queue_wait_max,
            memory_mb,
            clock: options.clock.clone(),
        })
    };
    let one = NonZeroU32::MIN;
    [
        ("generate", options.generate_timeout, options.concurrency, 512),
        ("account", ACCOUNT_TIMEOUT, options.concurrency, 256),
        ("webhook", WEBHOOK_TIMEOUT, options.concurrency, 256),
        ("reporter", REPORTER_TIMEOUT, one, 512),
    ]
    .into_iter()
    .map(spec)
    .collect()
}

/// The template's routes.
fn routes(generate_timeout: Duration) -> Vec<Route> {
    let streamed = [
        (Method::POST, "/v1/generate"),
        (Method::GET, "/v1/generate/{id}/stream"),
        (Method::POST, "/v1/generate/{id}/stop"),
        (Method::POST, "/v1/quote"),
    ];
    // Each with its preflight, which this function answers as a stream like everything else.
    let streamed = streamed.into_iter().flat_map(|(method, path)| {
        [method, Method::OPTIONS]
            .map(|method| Route::stream(method, path, "generate").with_timeout(generate_timeout))
    });
    let buffered = [
        (Method::GET, "/v1/usage"),
        (Method::GET, "/v1/receipts"),
        (Method::POST, "/v1/checkout"),
        (Method::POST, "/v1/portal"),
        (Method::PUT, "/v1/spend-cap"),
    ];
    let buffered = buffered.into_iter().flat_map(|(method, path)| {
        [method, Method::OPTIONS].map(|method| Route::buffered(method, path, "account"))
    });
    let webhook = Route::buffered(Method::POST, "/v1/webhooks/stripe", "webhook");
    streamed.chain(buffered).chain([webhook]).collect()
}

/// The event of an EventBridge schedule without an input of its own. `now_ms`: milliseconds since 1970.
pub fn scheduled_event(now_ms: i64) -> Value {
    let time = chrono::DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    json!({
        "version": "0",
        "id": request_id(),
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": "123456789012",
        "time": time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": environment::REGION,
        "resources": ["arn:aws:scheduler:us-east-1:123456789012:schedule/default/reporter"],
        "detail": "{}",
    })
}

/// Wakes a function for each event of a rule, as EventBridge hands it on.
async fn deliver(
    invoker: Invoker,
    function: String,
    mut events: mpsc::Receiver<events::Event>,
    clock: CloudClock,
    stop: CancellationToken,
) {
    while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
        let time = chrono::DateTime::from_timestamp_millis(clock.now_ms()).unwrap_or_default();
        let payload = json!({
            "version": "0",
            "id": event.id,
            "detail-type": event.detail_type,
            "source": event.source,
            "account": "123456789012",
            "time": time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "region": environment::REGION,
            "resources": event.resources,
            "detail": event.detail,
        });
        match invoker.call(&function, &payload).await {
            Ok(_) | Err(InvokeError::Stopping) => {}
            Err(error) => tracing::warn!(%error, function, "a run that an event asked for failed"),
        }
    }
}

async fn report(invoker: Invoker, every: Duration, clock: CloudClock, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        match invoker.call("reporter", &scheduled_event(clock.now_ms())).await {
            Ok(_) | Err(InvokeError::Stopping) => {}
            Err(error) => tracing::warn!(%error, "a scheduled run of the reporter failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::Method;

    use super::{Binaries, Cloud, CloudError, Options, TEMPLATE, TableDefinition, routes, scheduled_event};
    use crate::gateway::{RouteTable, Transfer};

    #[test]
    fn the_template_defines_the_table_that_is_created() {
        TableDefinition::from_template(TEMPLATE).unwrap();
    }

    #[test]
    fn every_route_of_the_template_is_a_route_here_in_the_same_mode() {
        let template: serde_json::Value = serde_saphyr::from_str(TEMPLATE).unwrap();
        let table = RouteTable::new(routes(super::GENERATE_TIMEOUT));
        let mut seen = 0;
        for resource in template["Resources"].as_object().unwrap().values() {
            for event in
                resource["Properties"]["Events"].as_object().into_iter().flat_map(|events| events.values())
            {
                if event["Type"] != "Api" {
                    continue;
                }
                let properties = &event["Properties"];
                let method: Method = properties["Method"].as_str().unwrap().parse().unwrap();
                let (route, _) = table.find(&method, properties["Path"].as_str().unwrap()).unwrap();
                assert_eq!(properties["Path"], route.resource);
                assert_eq!(resource["Metadata"]["BuildProperties"]["Binary"], route.function);
                let streams = properties["ResponseTransferMode"] == "RESPONSE_STREAM";
                assert_eq!(route.transfer == Transfer::Stream, streams, "{properties}");
                if streams {
                    assert_eq!(
                        properties["TimeoutInMillis"].as_u64().map(u128::from),
                        Some(route.timeout.as_millis())
                    );
                }
                seen += 1;
            }
        }
        assert_eq!(seen, routes(super::GENERATE_TIMEOUT).len());
    }

    #[test]
    fn a_scheduled_event_is_dated() {
        assert_eq!(scheduled_event(1_589_522_469_693)["time"], "2020-05-15T06:01:09Z");
    }

    #[tokio::test]
    async fn a_cloud_without_a_binary_does_not_start() {
        let options = Options { binaries: Binaries::Given(BTreeMap::new()), ..Options::default() };
        let error = Cloud::start(options).await.unwrap_err();
        assert!(matches!(error, CloudError::NoBinary(name) if name == "generate"));
    }

    #[tokio::test]
    async fn a_cloud_sets_stripe_up_mints_tokens_and_stops() {
        let binaries = super::FUNCTIONS.map(|name| (name.to_owned(), "/bin/false".into())).into();
        let options = Options { binaries: Binaries::Given(binaries), ..Options::default() };
        let cloud = Cloud::start(options).await.unwrap();
        let catalog = cloud.catalog().unwrap();
        assert!(catalog.meter_id.starts_with("mtr_"), "{catalog:?}");
        assert_eq!(catalog.plans["pro"].included_tokens, 500_000);
        assert!(cloud.token("alice", 3600).is_some_and(|token| token.split('.').count() == 3));
        assert_eq!(cloud.token("Not A Name", 3600), None);
        assert_eq!(cloud.dynamo().unwrap().scan().unwrap(), Vec::<serde_json::Value>::new());
        let answer = reqwest_get(&format!("{}/v1/usage", cloud.url())).await;
        assert_eq!(answer, 502, "the function is /bin/false");
        cloud.shutdown().await;
    }

    async fn reqwest_get(url: &str) -> u16 {
        crate::net::client().unwrap().get(url).send().await.unwrap().status().as_u16()
    }
}
