//! What Stripe has rejected of the meter events that it took: a thin event says that there is something, and the event itself,
//! fetched, names samples of it.

use crate::client::Stripe;
use crate::fetch::FetchError;
use domain::EventId;
use serde::Deserialize;
use stripe_client_core::StripeMethod;

/// The most samples of one report that are read. Stripe gives a handful of each kind of error.
pub const SAMPLES_MAX: usize = 200;
/// The most characters of a text of Stripe's that are kept: it goes into a log line, a report item and an event.
const TEXT_CHARS_MAX: usize = 300;

/// Meter events that Stripe took and then did not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// Stripe's summary, for people.
    pub summary: String,
    /// How many were rejected; samples are fewer.
    pub rejected: u64,
    /// Samples, at most [`SAMPLES_MAX`].
    pub samples: Vec<Rejected>,
}

/// One meter event that was not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The identifier that it was sent under.
    pub identifier: String,
    /// Stripe's code of the error, `meter_event_customer_not_found` and so on.
    pub code: String,
    /// Stripe's words.
    pub reason: String,
}

impl Stripe {
    /// Fetches the report that a thin event tells of.
    ///
    /// # Errors
    /// When Stripe does not have the event, does not answer, refuses, or answers with what is no such report.
    pub async fn error_report(&self, event: &EventId) -> Result<ErrorReport, FetchError> {
        let path = format!("/v2/core/events/{event}");
        let wire = self.call_v2::<Wire>(StripeMethod::Get, &path, None).await?;
        wire.data.and_then(WireData::read).ok_or(FetchError::Malformed("reason"))
    }
}

#[derive(Deserialize)]
struct Wire {
    data: Option<WireData>,
}

#[derive(Deserialize)]
struct WireData {
    developer_message_summary: Option<String>,
    reason: Option<WireReason>,
}

#[derive(Deserialize)]
struct WireReason {
    error_count: Option<u64>,
    #[serde(default)]
    error_types: Vec<WireErrors>,
}

#[derive(Deserialize)]
struct WireErrors {
    code: String,
    #[serde(default)]
    sample_errors: Vec<WireSample>,
}

#[derive(Deserialize)]
struct WireSample {
    error_message: Option<String>,
    request: Option<WireRequest>,
}

#[derive(Deserialize)]
struct WireRequest {
    identifier: Option<String>,
}

impl WireData {
    fn read(self) -> Option<ErrorReport> {
        let reason = self.reason?;
        let samples = reason.error_types.into_iter().flat_map(|errors| {
            let code = shortened(&errors.code);
            errors.sample_errors.into_iter().filter_map(move |sample| sample.read(&code))
        });
        let samples: Vec<_> = samples.take(SAMPLES_MAX).collect();
        let found = u64::try_from(samples.len()).unwrap_or(u64::MAX);
        Some(ErrorReport {
            summary: shortened(&self.developer_message_summary.unwrap_or_default()),
            rejected: reason.error_count.unwrap_or(found),
            samples,
        })
    }
}

impl WireSample {
    fn read(self, code: &str) -> Option<Rejected> {
        let identifier = self.request?.identifier?;
        let reason = shortened(&self.error_message.unwrap_or_default());
        Some(Rejected { identifier, code: code.to_owned(), reason })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
