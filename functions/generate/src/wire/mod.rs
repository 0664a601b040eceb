//! The wire form of an answer, in each of the protocols that the AI SDK's hooks read. A protocol is what its readers take, to
//! the letter: nothing may be added to it.

mod body;
mod data;
mod metadata;
#[cfg(test)]
mod tests;
mod ui_message;

pub use body::AnswerBody;
pub use metadata::Metadata;

use bytes::Bytes;
use data::{Part, StepUsage};
use domain::HoldId;
use http::{HeaderName, HeaderValue, Response, header};
use metadata::MetadataWire;
use openai::FinishReason;
use serde::Serialize;
use tokio::sync::mpsc;
use ui_message::{Chunk, DONE, TEXT_ID};

/// The headers by which the AI SDK's tools tell the protocols.
const UI_MESSAGE_STREAM: HeaderName = HeaderName::from_static("x-vercel-ai-ui-message-stream");
const DATA_STREAM: HeaderName = HeaderName::from_static("x-vercel-ai-data-stream");
const PROTOCOL_VERSION: HeaderValue = HeaderValue::from_static("v1");
/// Asks reverse proxies not to collect the stream.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// What a stop by the user is, in a protocol that has no word for it.
const STOPPED: FinishReason = FinishReason::Other;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// AI SDK 5, 6 and 7: UI message stream chunks as server-sent events.
    #[default]
    UiMessage,
    /// AI SDK 4: data stream parts, one a line.
    Data,
    /// The text and nothing else. It has no place for metadata, and none for an error but the text itself.
    Text,
}

impl Protocol {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::UiMessage, Self::Data, Self::Text];

    /// The name as a request gives it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UiMessage => "ui-message",
            Self::Data => "data",
            Self::Text => "text",
        }
    }

    /// The one of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text)
    }

    /// What comes before the first text. The message's id is the hold's, which is the receipt's too.
    pub fn start(self, id: &HoldId) -> Bytes {
        let message_id = id.as_str();
        match self {
            Self::UiMessage => {
                events(&[Chunk::Start { message_id }, Chunk::StartStep, Chunk::TextStart { id: TEXT_ID }])
            }
            Self::Data => lines(&[Part::StartStep { message_id }]),
            Self::Text => Bytes::new(),
        }
    }

    /// More text.
    pub fn delta(self, text: &str) -> Bytes {
        match self {
            Self::UiMessage => events(&[Chunk::TextDelta { id: TEXT_ID, delta: text }]),
            Self::Data => lines(&[Part::Text(text)]),
            Self::Text => Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    /// What keeps a silent connection open, where the protocol has such a thing.
    pub fn keep_alive(self) -> Option<Bytes> {
        match self {
            Self::UiMessage => Some(Bytes::from_static(ui_message::KEEP_ALIVE.as_bytes())),
            Self::Data => Some(Bytes::from_static(data::KEEP_ALIVE.as_bytes())),
            Self::Text => None,
        }
    }

    /// Everything that comes after the last text of an answer that is complete.
    pub fn finish(self, reason: FinishReason, metadata: &Metadata) -> Bytes {
        let reason = finish_reason(reason);
        match self {
            Self::UiMessage => ended(&[
                Chunk::TextEnd { id: TEXT_ID },
                Chunk::FinishStep,
                Chunk::MessageMetadata { message_metadata: metadata.into() },
                Chunk::Finish { finish_reason: reason },
            ]),
            Self::Data => finished(reason, Some(metadata)),
            Self::Text => Bytes::new(),
        }
    }

    /// Everything that comes after the last text of an answer that is not complete; `text` tells a person why. The metadata, of
    /// what was settled if anything was, comes first: the SDK keeps the text so far, shows the error and ignores whatever
    /// follows.
    pub fn cut(self, text: &str, metadata: Option<&Metadata>) -> Bytes {
        match self {
            Self::UiMessage => {
                let metadata =
                    metadata.map(|metadata| Chunk::MessageMetadata { message_metadata: metadata.into() });
                let chunks: Vec<_> =
                    metadata.into_iter().chain([Chunk::Error { error_text: text }]).collect();
                ended(&chunks)
            }
            Self::Data => {
                let metadata = metadata.map(|metadata| Part::MessageAnnotations(metadata.into()));
                let parts: Vec<_> = metadata.into_iter().chain([Part::Error(text)]).collect();
                lines(&parts)
            }
            Self::Text => Bytes::from(format!("\n\n[{text}]")),
        }
    }

    /// Everything that comes after the last text of an answer that the user stopped, which is no error.
    pub fn stopped(self, metadata: Option<&Metadata>) -> Bytes {
        match self {
            Self::UiMessage => {
                let metadata =
                    metadata.map(|metadata| Chunk::MessageMetadata { message_metadata: metadata.into() });
                let chunks: Vec<_> = [Chunk::TextEnd { id: TEXT_ID }, Chunk::FinishStep]
                    .into_iter()
                    .chain(metadata)
                    .chain([Chunk::Abort])
                    .collect();
                ended(&chunks)
            }
            Self::Data => finished(finish_reason(STOPPED), metadata),
            Self::Text => Bytes::new(),
        }
    }

    /// A streamed answer: 200 and this protocol's headers.
    pub fn streamed(self, chunks: mpsc::Receiver<Bytes>) -> Response<AnswerBody> {
        self.answer(AnswerBody::Stream(chunks))
    }

    /// An answer that is there already, in the form of a streamed one.
    pub fn whole(self, bytes: Bytes) -> Response<AnswerBody> {
        self.answer(AnswerBody::Whole(Some(bytes)))
    }

    fn answer(self, body: AnswerBody) -> Response<AnswerBody> {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        let content_type = match self {
            Self::UiMessage => {
                headers.insert(UI_MESSAGE_STREAM, PROTOCOL_VERSION);
                "text/event-stream"
            }
            Self::Data => {
                headers.insert(DATA_STREAM, PROTOCOL_VERSION);
                "text/plain; charset=utf-8"
            }
            Self::Text => "text/plain; charset=utf-8",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(BUFFERING, HeaderValue::from_static("no"));
        response
    }
}

/// A reason by the name that the SDK knows it by.
fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content-filter",
        FinishReason::ToolCalls => "tool-calls",
        FinishReason::Other => "other",
    }
}

fn events(chunks: &[Chunk<'_>]) -> Bytes {
    Bytes::from(events_text(chunks))
}

/// Events and the end of their stream.
fn ended(chunks: &[Chunk<'_>]) -> Bytes {
    Bytes::from(events_text(chunks) + DONE)
}

fn events_text(chunks: &[Chunk<'_>]) -> String {
    let mut text = String::new();
    for chunk in chunks {
        chunk.write(&mut text);
    }
    text
}

fn lines(parts: &[Part<'_>]) -> Bytes {
    let mut text = String::new();
    for part in parts {
        part.write(&mut text);
    }
    Bytes::from(text)
}

/// The end of a data stream, with the figures where there are any.
fn finished(reason: &'static str, metadata: Option<&Metadata>) -> Bytes {
    let metadata: Option<MetadataWire<'_>> = metadata.map(Into::into);
    let usage = metadata.as_ref().map(|metadata| StepUsage::from(&metadata.usage));
    let annotations = metadata.map(Part::MessageAnnotations);
    let end = [Part::FinishStep { reason, usage }, Part::FinishMessage { reason, usage }];
    let parts: Vec<_> = annotations.into_iter().chain(end).collect();
    lines(&parts)
}

/// Appends a value as JSON on one line. What is written here is text and numbers, so it always has that form.
fn write_json(value: &impl Serialize, out: &mut String) {
    match serde_json::to_string(value) {
        Ok(json) => out.push_str(&json),
        Err(error) => tracing::error!(%error, "a chunk could not be written as JSON"),
    }
}
