//! The data stream of AI SDK 4: a line for each part, a letter or digit before its JSON. Its reader splits at every line feed
//! and throws at a line that it does not know, so that JSON must stay on its line and keep-alive is a text of nothing.

use super::metadata::{MetadataWire, UsageWire};
use serde::Serialize;

/// A text of nothing, which keeps connections open while the provider is silent.
pub(super) const KEEP_ALIVE: &str = "0:\"\"\n";

/// One part.
#[derive(Debug)]
pub(super) enum Part<'a> {
    StartStep { message_id: &'a str },
    Text(&'a str),
    MessageAnnotations(MetadataWire<'a>),
    FinishStep { reason: &'static str, usage: Option<StepUsage> },
    FinishMessage { reason: &'static str, usage: Option<StepUsage> },
    Error(&'a str),
}

/// The figures that the SDK reads of a step.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StepUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl From<&UsageWire> for StepUsage {
    fn from(usage: &UsageWire) -> Self {
        Self { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    message_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finish {
    #[serde(rename = "finishReason")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<StepUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_continued: Option<bool>,
}

impl Part<'_> {
    /// Appends the part as a line.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::StartStep { message_id } => line("f", &Start { message_id }, out),
            Self::Text(text) => line("0", text, out),
            Self::MessageAnnotations(metadata) => line("8", &[metadata], out),
            Self::FinishStep { reason, usage } => {
                line("e", &Finish { reason, usage: *usage, is_continued: Some(false) }, out);
            }
            Self::FinishMessage { reason, usage } => {
                line("d", &Finish { reason, usage: *usage, is_continued: None }, out);
            }
            Self::Error(text) => line("3", text, out),
        }
    }
}

fn line(code: &str, value: &impl Serialize, out: &mut String) {
    out.push_str(code);
    out.push(':');
    super::write_json(value, out);
    out.push('\n');
}
