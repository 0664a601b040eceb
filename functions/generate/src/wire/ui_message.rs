//! AI SDK UI message stream chunks as server-sent events, for versions 5, 6 and 7. The SDK refuses an unknown type, an unknown
//! finish reason and, in some versions, a key too many: nothing may be added but inside `messageMetadata`.

use super::metadata::MetadataWire;
use serde::Serialize;

/// The end of a stream.
pub(super) const DONE: &str = "data: [DONE]\n\n";
/// A comment that keeps connections open while the provider is silent; readers skip it.
pub(super) const KEEP_ALIVE: &str = ": keep-alive\n\n";
/// A stream has one text.
pub(super) const TEXT_ID: &str = "t1";

/// One chunk.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Chunk<'a> {
    Start { message_id: &'a str },
    StartStep,
    TextStart { id: &'static str },
    TextDelta { id: &'static str, delta: &'a str },
    TextEnd { id: &'static str },
    FinishStep,
    MessageMetadata { message_metadata: MetadataWire<'a> },
    Finish { finish_reason: &'static str },
    Error { error_text: &'a str },
    Abort,
}

impl Chunk<'_> {
    /// Appends the chunk as an event.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str("data: ");
        super::write_json(self, out);
        out.push_str("\n\n");
    }
}
