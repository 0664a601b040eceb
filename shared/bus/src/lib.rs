#![doc = include_str!("../README.md")]

use aws_config::{BehaviorVersion, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_eventbridge::{
    Client,
    error::DisplayErrorContext,
    types::{PutEventsRequestEntry, PutEventsResultEntry},
};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use domain::{CustomerId, Day, InvoiceItemId, Level, NanoUsd, Pool, ReportRow, Timestamp, Tokens, UserId};
use serde_json::{Value, json};
use std::time::Duration;

/// Entries of one call: EventBridge's most.
const ENTRIES_MAX: usize = 10;
/// How often an entry is put before it counts as lost.
const TRIES_MAX: u32 = 3;
/// How long one try of a call may take, in milliseconds.
const ATTEMPT_MS_MAX: u64 = 3_000;
/// How often the SDK itself tries a call that was not answered.
const SDK_ATTEMPTS_MAX: u32 = 2;
/// Who speaks of what is reported.
const REPORTER: &str = "inkmeter.reporter";
/// Who speaks of what is asked for.
const GENERATE: &str = "inkmeter.generate";
/// Who speaks of what Stripe tells.
const WEBHOOK: &str = "inkmeter.webhook";

/// Where the bus is.
#[derive(Clone, Debug)]
pub struct BusSettings {
    /// The bus's name or ARN.
    pub name: String,
    /// Another endpoint than the region's own, for a local bus.
    pub endpoint: Option<String>,
}

/// One row, as an announcement tells of it.
#[derive(Clone, Debug)]
pub struct AboutRow {
    /// Whose.
    pub user: UserId,
    /// The row.
    pub row: ReportRow,
}

/// What an owner should know.
#[derive(Clone, Debug)]
pub enum Announcement {
    /// Stripe refused a row for good.
    Parked {
        /// Which.
        about: AboutRow,
        /// Stripe's words.
        reason: String,
    },
    /// Whether Stripe has a row cannot be told, so nothing was sent. Said again in each run until it is resolved.
    Unclear {
        /// Which.
        about: AboutRow,
        /// What Stripe must have counted if it has the row.
        expected: Tokens,
        /// What it has counted, from and to.
        counted: Option<(Tokens, Tokens)>,
    },
    /// A row has not ended for over a day. Said again in each run until it has.
    Stuck {
        /// Which.
        about: AboutRow,
        /// When it was attempted first.
        since: Timestamp,
    },
    /// Usage above what is included was reported, and no invoice covers its period. Said once.
    NotInvoiced {
        /// Whose.
        user: UserId,
        /// The start of its period.
        period_start: Timestamp,
        /// What Stripe has counted and bills to nobody: tokens of the period.
        tokens: Tokens,
        /// What it comes to above the flat price, in US cents.
        cents: u64,
    },
    /// Stripe refuses everything, for how this installation is set up. Said once in a run.
    Misconfigured {
        /// Stripe's words.
        reason: String,
    },
    /// A row came too late for the invoice of its period, and an item on the next one bills it.
    Invoiced {
        /// Which.
        about: AboutRow,
        /// What it comes to, in US cents.
        cents: u64,
        /// The item at Stripe; none: it comes to nothing.
        item: Option<InvoiceItemId>,
    },
    /// A run had no time for everything. It is not for people: a rule wakes the next run with it.
    Unfinished(Unfinished),
    /// A draft waits for what is not reported yet. It is not for people: a rule has the reporter go on with it at once.
    DrainWanted(DrainWanted),
    /// The reporter could not go on with it either.
    DrainFailed {
        /// What was wanted.
        wanted: DrainWanted,
        /// Why, in words.
        reasons: Vec<String>,
    },
    /// The figures of a meter do not agree.
    Drift {
        /// Whose meter.
        user: UserId,
        /// The start of its period.
        period_start: Timestamp,
        /// Each equation that does not hold, with both figures and the rows that it is about.
        equations: Value,
    },
    /// More meters drifted than are announced one by one.
    DriftBeyond {
        /// How many more.
        meters: u64,
    },
    /// The webhook tells of something.
    Webhook {
        /// What it is called.
        kind: &'static str,
        /// What is known of it.
        detail: Value,
    },
    /// A budget of the owner's reached a level. Said once a day for each, or a few times.
    Budget(BudgetLevel),
}

/// How much of a day's budget is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLevel {
    /// Whose budget.
    pub pool: Pool,
    /// Of which day.
    pub day: Day,
    /// The level that is reached.
    pub level: Level,
    /// What is leased, of which most is spent.
    pub leased: NanoUsd,
    /// The whole budget.
    pub ceiling: NanoUsd,
}

impl BudgetLevel {
    /// Amounts are nano-dollars, which are exact, in texts, for a number in JSON may not be.
    fn wire(&self) -> Value {
        json!({
            "pool": self.pool.as_str(),
            "day": self.day.to_string(),
            "percent": self.level.percent(),
            "leasedNanoUsd": self.leased.get().to_string(),
            "ceilingNanoUsd": self.ceiling.get().to_string(),
            "resetsAt": self.day.end().to_string(),
        })
    }
}

/// A user's ended periods that are wanted at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainWanted {
    /// Whose usage.
    pub user: UserId,
    /// Who pays for it.
    pub customer: CustomerId,
    /// The end of the last of these periods.
    pub until: Timestamp,
}

impl DrainWanted {
    /// The instant is in Unix seconds.
    fn wire(&self) -> Value {
        let (user, customer) = (self.user.as_str(), self.customer.as_str());
        json!({ "mode": "drain", "user": user, "customer": customer, "until": self.until.s() })
    }
}

/// What a run leaves to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The id of the first of these runs.
    pub run: String,
    /// The number of the run that is asked for: 1 for the first that goes on.
    pub n: u32,
    /// `report` or `reconcile`.
    pub mode: &'static str,
    /// The shard to go on in.
    pub shard: u8,
    /// Behind which user; none: from the shard's start.
    pub after: Option<String>,
}

/// The bus. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    name: String,
}

impl Bus {
    /// A bus with a client of its own: region and credentials from the AWS environment, rustls with ring.
    pub async fn connect(settings: BusSettings) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts =
            TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(ATTEMPT_MS_MAX)).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard().with_max_attempts(SDK_ATTEMPTS_MAX))
            .timeout_config(timeouts);
        if let Some(endpoint) = settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self::new(Client::new(&loader.load().await), settings.name)
    }

    /// A bus over a client that was configured elsewhere.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Puts announcements on the bus; an entry that the bus does not take is put again, a bounded number of times.
    /// Answers how many were lost, each of which is in the log as an error.
    pub async fn announce(&self, announcements: &[Announcement]) -> usize {
        let mut lost = 0;
        for chunk in announcements.chunks(ENTRIES_MAX) {
            let mut entries: Vec<_> = chunk.iter().map(|announcement| self.entry(announcement)).collect();
            for _ in 0..TRIES_MAX {
                entries = self.put(entries).await;
                if entries.is_empty() {
                    break;
                }
            }
            for entry in &entries {
                tracing::error!(
                    kind = entry.detail_type(),
                    detail = entry.detail(),
                    "an event for the bus was lost"
                );
            }
            lost += entries.len();
        }
        lost
    }

    /// Puts entries and answers those that were not taken.
    async fn put(&self, entries: Vec<PutEventsRequestEntry>) -> Vec<PutEventsRequestEntry> {
        match self.client.put_events().set_entries(Some(entries.clone())).send().await {
            Ok(output) if output.failed_entry_count() == 0 => Vec::new(),
            // Results come in the order of the entries; one that is missing counts as not taken.
            Ok(output) => {
                let results = output.entries().iter().map(Some).chain(std::iter::repeat(None));
                let not_taken = |result: Option<&PutEventsResultEntry>| {
                    result.is_none_or(|result| result.error_code().is_some() || result.event_id().is_none())
                };
                entries
                    .into_iter()
                    .zip(results)
                    .filter(|(_, result)| not_taken(*result))
                    .map(|(e, _)| e)
                    .collect()
            }
            Err(error) => {
                tracing::warn!(error = %DisplayErrorContext(&error), "the bus did not answer");
                entries
            }
        }
    }

    fn entry(&self, announcement: &Announcement) -> PutEventsRequestEntry {
        let (source, kind, detail) = announcement.wire();
        PutEventsRequestEntry::builder()
            .event_bus_name(&self.name)
            .source(source)
            .detail_type(kind)
            .detail(detail.to_string())
            .build()
    }
}

impl AboutRow {
    fn wire(&self) -> Value {
        json!({
            "user": self.user.as_str(),
            "customer": self.row.customer.as_str(),
            "identifier": self.row.identifier,
            "tokens": self.row.tokens.get(),
            "timestamp": self.row.timestamp.to_string(),
        })
    }
}

impl Announcement {
    /// Source, detail type and detail.
    fn wire(&self) -> (&'static str, &'static str, Value) {
        let (kind, detail) = match self {
            Self::Parked { about, reason } => {
                ("Report Parked", json!({ "report": about.wire(), "reason": reason }))
            }
            Self::Unclear { about, expected, counted } => {
                let counted = counted.map(|(least, most)| json!({ "from": least.get(), "to": most.get() }));
                let detail =
                    json!({ "report": about.wire(), "expected": expected.get(), "counted": counted });
                ("Report Unclear", detail)
            }
            Self::Stuck { about, since } => {
                ("Report Stuck", json!({ "report": about.wire(), "since": since.to_string() }))
            }
            Self::NotInvoiced { user, period_start, tokens, cents } => {
                let period = period_start.to_string();
                let detail = json!({ "user": user.as_str(), "period": period, "tokens": tokens.get(), "cents": cents });
                ("Usage Not Invoiced", detail)
            }
            Self::Misconfigured { reason } => ("Reporter Misconfigured", json!({ "reason": reason })),
            Self::Budget(level) => return (GENERATE, "Budget Threshold", level.wire()),
            Self::Invoiced { about, cents, item } => {
                let item = item.as_ref().map(InvoiceItemId::as_str);
                let detail = json!({ "report": about.wire(), "cents": cents, "invoiceItem": item });
                ("Usage Invoiced", detail)
            }
            Self::Unfinished(Unfinished { run, n, mode, shard, after }) => (
                "Reporter Unfinished",
                json!({ "run": run, "n": n, "mode": mode, "shard": shard, "after": after }),
            ),
            Self::DrainWanted(wanted) => return (WEBHOOK, "Drain Wanted", wanted.wire()),
            Self::DrainFailed { wanted, reasons } => {
                let (user, customer) = (wanted.user.as_str(), wanted.customer.as_str());
                let until = wanted.until.to_string();
                let detail =
                    json!({ "user": user, "customer": customer, "until": until, "reasons": reasons });
                ("Drain Failed", detail)
            }
            Self::Drift { user, period_start, equations } => {
                let period = period_start.to_string();
                ("Drift Found", json!({ "user": user.as_str(), "period": period, "equations": equations }))
            }
            Self::DriftBeyond { meters } => ("Drift Found", json!({ "furtherMeters": meters })),
            Self::Webhook { kind, detail } => return (WEBHOOK, kind, detail.clone()),
        };
        (REPORTER, kind, detail)
    }
}
