//! An answer as it is kept for a repeat, and how it is given again. The text is kept nowhere else.

use crate::wire::{AnswerBody, Metadata, Protocol};
use domain::{Classes, HoldId, ModelId, Receipt, Tokens, Usage};
use http::{HeaderName, HeaderValue, Response};
use ledger::Ended;
use openai::FinishReason;
use serde::{Deserialize, Serialize};

/// Tells a client that it has had this answer before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Complete: the model was done.
    Stop,
    /// Complete: at its cap.
    Length,
    /// Complete: the provider's filter.
    ContentFilter,
    /// Complete: a tool.
    ToolCalls,
    /// Complete: for a reason unknown to us.
    Other,
    /// Cut by the provider.
    Cut,
    /// Cut by the function's deadline.
    OutOfTime,
    /// Stopped by the user.
    Stopped,
}

impl From<FinishReason> for Ending {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::Stop,
            FinishReason::Length => Self::Length,
            FinishReason::ContentFilter => Self::ContentFilter,
            FinishReason::ToolCalls => Self::ToolCalls,
            FinishReason::Other => Self::Other,
        }
    }
}

impl Ending {
    /// What a person is told of an answer that was cut.
    const fn why(self, paid: bool) -> &'static str {
        match (self, paid) {
            (Self::OutOfTime, true) => {
                "The answer took too long and was cut. You pay for the prompt and for what was written."
            }
            (Self::OutOfTime, false) => "The answer took too long. Nothing was charged.",
            (_, true) => "The answer was cut short. You pay for the prompt and for what was written.",
            (_, false) => "There was no answer. Nothing was charged.",
        }
    }

    /// What comes after the last text; without metadata nothing was charged.
    pub(crate) fn chunk(self, protocol: Protocol, metadata: Option<&Metadata>) -> bytes::Bytes {
        let reason = match self {
            Self::Stop => FinishReason::Stop,
            Self::Length => FinishReason::Length,
            Self::ContentFilter => FinishReason::ContentFilter,
            Self::ToolCalls => FinishReason::ToolCalls,
            Self::Other => FinishReason::Other,
            Self::Cut | Self::OutOfTime => return protocol.cut(self.why(metadata.is_some()), metadata),
            Self::Stopped => return protocol.stopped(metadata),
        };
        match metadata {
            Some(metadata) => protocol.finish(reason, metadata),
            None => protocol.stopped(None),
        }
    }
}

/// The form in which an answer is kept.
#[derive(Serialize, Deserialize)]
struct Record {
    text: String,
    ending: Ending,
    estimated: bool,
    input: u64,
    cached_input: u64,
    cache_write: u64,
    output: u64,
    reasoning: u64,
    model: String,
    clamped: bool,
}

/// An answer that can be given again.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// All of it, or what there was until it was cut.
    pub(crate) text: String,
    /// How it ended.
    pub(crate) ending: Ending,
    /// What it took.
    pub(crate) usage: Usage,
    /// Who wrote it.
    pub(crate) model: ModelId,
    /// Whether its cap had been lowered.
    pub(crate) clamped: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({} bytes, {:?})", self.text.len(), self.ending)
    }
}

impl Answer {
    /// As it is kept; none where it has no such form, which text and numbers always have.
    pub(crate) fn write(self) -> Option<String> {
        let classes = self.usage.classes();
        let record = Record {
            ending: self.ending,
            estimated: matches!(self.usage, Usage::Estimated(_)),
            input: classes.input.get(),
            cached_input: classes.cached_input.get(),
            cache_write: classes.cache_write.get(),
            output: classes.output.get(),
            reasoning: classes.reasoning.get(),
            model: self.model.to_string(),
            clamped: self.clamped,
            text: self.text,
        };
        serde_json::to_string(&record).ok()
    }

    /// From how it was kept; none where that cannot be understood.
    pub(crate) fn read(kept: &str) -> Option<Self> {
        let record: Record = serde_json::from_str(kept).ok()?;
        let tokens = |number| Tokens::new(number).ok();
        let classes = Classes {
            input: tokens(record.input)?,
            cached_input: tokens(record.cached_input)?,
            cache_write: tokens(record.cache_write)?,
            output: tokens(record.output)?,
            reasoning: tokens(record.reasoning)?,
        };
        Some(Self {
            text: record.text,
            ending: record.ending,
            usage: if record.estimated { Usage::Estimated(classes) } else { Usage::Exact(classes) },
            model: ModelId::parse(&record.model).ok()?,
            clamped: record.clamped,
        })
    }

    /// What is said of it under its last text.
    pub(crate) fn metadata(&self, receipt: Option<&Receipt>, replayed: bool) -> Metadata {
        Metadata {
            usage: self.usage,
            receipt: receipt.map(|receipt| (receipt.id.clone(), receipt.charged)),
            clamped: self.clamped,
            model: self.model.clone(),
            replayed,
        }
    }

    fn replay(&self, id: &HoldId, receipt: Option<&Receipt>, protocol: Protocol) -> Response<AnswerBody> {
        let metadata = self.metadata(receipt, true);
        let text = if self.text.is_empty() { bytes::Bytes::new() } else { protocol.delta(&self.text) };
        let end = self.ending.chunk(protocol, Some(&metadata));
        let mut response = protocol.whole([protocol.start(id), text, end].concat().into());
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// The answer of a request that was served, once more; none where it was not kept.
pub(crate) fn replay(ended: &Ended, protocol: Protocol) -> Option<Response<AnswerBody>> {
    let answer = Answer::read(ended.answer.as_deref()?)?;
    Some(answer.replay(&ended.hold.id, ended.receipt.as_ref(), protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ending: Ending) -> Answer {
        let t = Tokens::from_u32;
        let classes =
            Classes { input: t(1), cached_input: t(2), cache_write: t(3), output: t(4), reasoning: t(5) };
        let model = ModelId::parse("gpt-6-luna").unwrap();
        Answer {
            text: "a \"b\"\n".to_owned(),
            ending,
            usage: Usage::Estimated(classes),
            model,
            clamped: true,
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for ending in [
            Ending::Stop,
            Ending::Length,
            Ending::ContentFilter,
            Ending::ToolCalls,
            Ending::Other,
            Ending::Cut,
            Ending::OutOfTime,
            Ending::Stopped,
        ] {
            assert_eq!(Answer::read(&answer(ending).write().unwrap()), Some(answer(ending)));
        }
        assert_eq!(Answer::read("{}"), None);
        assert_eq!(Answer::read("text"), None);
        assert_eq!(format!("{:?}", answer(Ending::Stop)), "Answer(6 bytes, Stop)");
    }
}
