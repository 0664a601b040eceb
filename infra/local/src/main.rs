//! Starts the local cloud, says how to use it, and stops it on Ctrl-C without leaving a process behind.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use local::{
    clerk,
    cloud::{Cloud, Options},
    demo,
    dynamo::Dynamo,
    logs::LogSink,
    openai,
    stripe::Stripe,
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
const OVERRIDES: [&str; 10] = [
    "DYNAMODB_ENDPOINT",
    "EVENTBRIDGE_ENDPOINT",
    "EVENT_BUS_NAME",
    "TABLE_NAME",
    "STORE_ANSWERS",
    "OWNER_DAILY_USD",
    "TRIAL_DAILY_USD",
    "MAX_OUTPUT_TOKENS",
    "PROVIDER_FIRST_TOKEN_MS",
    "PROVIDER_IDLE_MS",
];

/// Runs the whole of Inkmeter on this machine: gateway, functions, database, and stand-ins for the provider, Clerk,
/// Stripe and EventBridge. OPENAI_*, STRIPE_*, CLERK_* and `DYNAMODB_ENDPOINT` point any of them at the real thing.
#[derive(Debug, Parser)]
#[command(name = "local")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
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
    /// The built page that is served at `/`; without a build, `/` says how to make it.
    #[arg(long, value_name = "DIR", default_value = "tests/browser/dist")]
    page: PathBuf,
    /// Seconds between runs of the reporter; 0 runs it never.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    report_every: u64,
    /// Where the functions' output goes.
    #[arg(long, value_name = "DIR", default_value = ".local/logs")]
    logs: PathBuf,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Plays the whole story in a minute, from the first stream to the invoices, and says whether every figure agrees.
    Demo,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);

    let options = options(&arguments)?;
    if let Some(Command::Demo) = arguments.command {
        return tokio::select! {
            judged = play_demo(options) => judged,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        };
    }
    let started = tokio::select! {
        started = Cloud::start(options) => started,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let cloud = started.context("the local cloud did not start")?;
    greet(&mut io::stdout().lock(), &cloud, &arguments.logs)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cloud.shutdown().await;
    Ok(())
}

/// Prints the demo's table. An error unless every figure agrees.
async fn play_demo(options: Options) -> anyhow::Result<()> {
    // Nothing of an earlier run, no port that a running cloud has, and nothing real: it would cost real money.
    let options = Options { port: 0, data: None, overrides: BTreeMap::new(), ..options };
    let summary =
        demo::play(options, &mut io::stdout()).await.context("the demo was not played to its end")?;
    ensure!(summary.is_right(), "the figures do not agree");
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
        page: Some(arguments.page.clone()),
        report_every: (arguments.report_every > 0).then(|| Duration::from_secs(arguments.report_every)),
        overrides: overrides(),
        logs: logs.with_context(|| format!("cannot write logs to {}", arguments.logs.display()))?,
        openai,
        ..Options::default()
    })
}

/// The variables of this process that the functions are to see. AWS's own only go with a real endpoint.
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

/// Says where everything is, and gives a token and commands to paste.
fn greet(out: &mut impl io::Write, cloud: &Cloud, logs: &Path) -> io::Result<()> {
    let url = cloud.url();
    let real = || "the real one".to_owned();
    let parts = [
        ("API", url.clone()),
        ("Page", format!("{url}/")),
        ("Provider", cloud.openai().map_or_else(real, openai::Handle::base_url)),
        ("Clerk", cloud.clerk().map_or_else(real, clerk::Handle::base_url)),
        ("Stripe", cloud.stripe().map_or_else(real, Stripe::base_url)),
        ("DynamoDB", cloud.dynamo().map_or_else(real, Dynamo::endpoint)),
        ("EventBridge", cloud.events().base_url()),
        ("Logs", logs.display().to_string()),
    ];
    writeln!(out, "\nInkmeter runs. Ctrl-C stops it.\n")?;
    for (name, place) in parts {
        writeln!(out, "  {name:<12}{place}")?;
    }
    match cloud.token(TOKEN_USER, TOKEN_LIFETIME_S) {
        Some(token) => writeln!(out, "\nA token of {TOKEN_USER}'s, good for an hour:\n\nTOKEN={token}")?,
        None => writeln!(out, "\nWith a session token from your Clerk instance:\n\nTOKEN=...")?,
    }
    let request = r#"{"prompt": "A kettle that sings when the water boils", "type": "product_description"}"#;
    writeln!(out, "\ncurl -N {url}/v1/generate -H \"authorization: Bearer $TOKEN\" \\")?;
    writeln!(out, "  -H 'content-type: application/json' -d '{request}'")?;
    writeln!(out, "\ncurl {url}/v1/usage -H \"authorization: Bearer $TOKEN\"\n")
}
