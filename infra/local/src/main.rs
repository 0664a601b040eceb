//! Starts the local cloud, says how to use it, and stops it on Ctrl-C without leaving a process behind.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use local::{
    cloud::{Cloud, Options, Real, real_parts},
    logs::LogSink,
    openai,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long the printed token is good, in seconds.
const TOKEN_LIFETIME_S: u64 = 3_600;
/// The user that it is for.
const TOKEN_USER: &str = "alice";
/// How long the provider's stand-in waits between words here, so that a stream is seen to stream.
const BETWEEN_WORDS: Duration = Duration::from_millis(40);
/// What points a part at the real thing.
const OVERRIDES: [&str; 4] = ["DYNAMODB_ENDPOINT", "EVENTBRIDGE_ENDPOINT", "EVENT_BUS_NAME", "TABLE_NAME"];

/// Runs the whole of Inkmeter on this machine: gateway, functions, database, and stand-ins for the provider, Clerk,
/// Stripe and EventBridge. OPENAI_*, STRIPE_*, CLERK_* and DYNAMODB_ENDPOINT point any of them at the real thing.
#[derive(Debug, Parser)]
#[command(name = "local")]
struct Arguments {
    /// The gateway's port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// Keeps the database in this directory instead of in memory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Requests at once in one function process: 1 as on classic Lambda, more as on Managed Instances.
    #[arg(long, value_name = "N", default_value = "1")]
    concurrency: NonZeroU32,
    /// The most processes of one function.
    #[arg(long, value_name = "N", default_value = "32")]
    pool_max: NonZeroU32,
    /// Another plan book than infra/plans.toml.
    #[arg(long, value_name = "FILE")]
    plans: Option<PathBuf>,
    /// Seconds between runs of the reporter; 0 runs it never.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    report_every: u64,
    /// Where the functions' output goes.
    #[arg(long, value_name = "DIR", default_value = ".local/logs")]
    logs: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);

    let options = options(&arguments)?;
    let real = real_parts(&options.overrides);
    let started = tokio::select! {
        started = Cloud::start(options) => started,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let cloud = started.context("the local cloud did not start")?;
    io::stdout().write_all(greeting(&cloud, &real, &arguments).as_bytes())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cloud.shutdown().await;
    Ok(())
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    if let Some(data) = &arguments.data {
        std::fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
    }
    // The functions have another working directory than the one that the path is relative to.
    let plans = arguments.plans.as_deref().map(|path| {
        path.canonicalize().with_context(|| format!("cannot find the plans in {}", path.display()))
    });
    let logs = LogSink::directory(&arguments.logs);
    let mut openai = openai::Options::default();
    openai.behaviour.inter_token_delay = BETWEEN_WORDS;
    Ok(Options {
        port: arguments.port,
        data: arguments.data.clone(),
        concurrency: arguments.concurrency,
        pool_max: arguments.pool_max,
        plans: plans.transpose()?,
        report_every: (arguments.report_every > 0).then(|| Duration::from_secs(arguments.report_every)),
        overrides: overrides(),
        logs: logs.with_context(|| format!("cannot write logs to {}", arguments.logs.display()))?,
        openai,
        ..Options::default()
    })
}

/// The variables of this process that the functions are to see. AWS's own only go with a real endpoint.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn overrides() -> BTreeMap<String, String> {
    let all: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| !value.trim().is_empty())
        .collect();
    let with_aws = all.contains_key("DYNAMODB_ENDPOINT") || all.contains_key("EVENTBRIDGE_ENDPOINT");
    let passes = |name: &str| {
        ["OPENAI_", "STRIPE_", "CLERK_"].iter().any(|prefix| name.starts_with(prefix))
            || OVERRIDES.contains(&name)
            || (with_aws && name.starts_with("AWS_"))
    };
    all.into_iter().filter(|(name, _)| passes(name)).collect()
}

fn greeting(cloud: &Cloud, real: &std::collections::BTreeSet<Real>, arguments: &Arguments) -> String {
    let url = cloud.url();
    let is_real = |part: Real| if real.contains(&part) { Some("the real one".to_owned()) } else { None };
    let line = |name: &str, part: Real, stand_in: Option<String>| {
        format!("  {name:<12}{}\n", is_real(part).or(stand_in).unwrap_or_default())
    };
    let mut text = format!("\nInkmeter runs. Ctrl-C stops it.\n\n  {:<12}{url}\n", "API");
    text.push_str(&line("Provider", Real::OpenAi, cloud.openai().map(openai::Handle::base_url)));
    text.push_str(&line("Clerk", Real::Clerk, cloud.clerk().map(local::clerk::Handle::base_url)));
    text.push_str(&line("Stripe", Real::Stripe, cloud.stripe().map(local::stripe::Stripe::base_url)));
    text.push_str(&line("DynamoDB", Real::DynamoDb, cloud.dynamo().map(local::dynamo::Dynamo::endpoint)));
    text.push_str(&format!("  {:<12}{}\n", "EventBridge", cloud.events().base_url()));
    text.push_str(&format!("  {:<12}{}\n", "Logs", arguments.logs.display()));
    let token = cloud.token(TOKEN_USER, TOKEN_LIFETIME_S);
    let shown = token.as_deref().unwrap_or("$CLERK_SESSION_TOKEN");
    if token.is_some() {
        text.push_str(&format!("\nA token of {TOKEN_USER}'s, good for an hour:\n\nTOKEN={shown}\n"));
    } else {
        text.push_str("\nWith a session token from your Clerk instance:\n\nTOKEN=...\n");
    }
    text.push_str(&format!(
        "\ncurl -N {url}/v1/generate -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\\n  \
         -d '{{\"prompt\": \"A kettle that sings when the water boils\", \"type\": \"product_description\"}}'\n\
         curl {url}/v1/usage -H \"authorization: Bearer $TOKEN\"\n\n"
    ));
    text
}
