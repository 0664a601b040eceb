//! What the events of a chat completion mean: text, why it ended, what it took. Pure. Never keeps what the model wrote,
//! only how much of it there was.

use crate::{
    failure::{ProviderError, StreamError},
    sse::SseEvent,
};
use domain::{Classes, Tokens};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::VecDeque, fmt};

/// One step of an answer. They come in this order: texts, one finish, at most one usage, done.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// More text; never empty.
    Text(String),
    /// The model stopped writing. No text follows.
    Finish(FinishReason),
    /// What the provider counted, in disjoint classes. It may be missing: then the usage is to be estimated.
    Usage(Classes),
    /// The answer is complete. Nothing follows.
    Done,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Finish(reason) => f.debug_tuple("Finish").field(reason).finish(),
            Self::Usage(classes) => f.debug_tuple("Usage").field(classes).finish(),
            Self::Done => f.write_str("Done"),
        }
    }
}

/// Why the model stopped writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// It was done.
    Stop,
    /// It reached the output cap.
    Length,
    /// The provider's filter stopped it.
    ContentFilter,
    /// It called a tool, though none was offered.
    ToolCalls,
    /// A reason unknown to us.
    Other,
}

impl FinishReason {
    fn of(text: &str) -> Self {
        match text {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            "tool_calls" | "function_call" => Self::ToolCalls,
            _ => Self::Other,
        }
    }
}

/// One `chat.completion.chunk`; of what else it has, `obfuscation` among it, nothing is read.
#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u64>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    /// Written in place of content by a model that declines.
    refusal: Option<String>,
    /// Reasoning that some compatible providers show. Not passed on, but it was served.
    reasoning_content: Option<Value>,
}

/// A provider's `usage`. Its details are parts of the two figures, not additions to them.
#[derive(Deserialize)]
struct UsageWire {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Default, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl UsageWire {
    /// Splits both figures into disjoint classes that add up to them. Details that claim more than there is are cut to
    /// what is left, the cached part first: the two figures are what the provider charges by.
    ///
    /// None when a figure is beyond [`Tokens::MAX`].
    fn classes(&self) -> Option<Classes> {
        let prompt = Tokens::new(self.prompt_tokens).ok()?;
        let completion = Tokens::new(self.completion_tokens).ok()?;
        let part = |claimed: Option<u64>, of: Tokens| match claimed {
            None => Tokens::ZERO,
            Some(claimed) => Tokens::new(claimed).unwrap_or(Tokens::MAX).min(of),
        };
        let details = self.prompt_tokens_details.as_ref();
        let cached_input = part(details.and_then(|details| details.cached_tokens), prompt);
        let first_read = prompt.saturating_sub(cached_input);
        let cache_write = part(details.and_then(|details| details.cache_write_tokens), first_read);
        let details = self.completion_tokens_details.as_ref();
        let reasoning = part(details.and_then(|details| details.reasoning_tokens), completion);
        Some(Classes {
            input: first_read.saturating_sub(cache_write),
            cached_input,
            cache_write,
            output: completion.saturating_sub(reasoning),
            reasoning,
        })
    }
}

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    finished: bool,
    /// The last usage that a chunk had. Some providers send a running count with every chunk, so it means something
    /// only once the answer has ended.
    usage: Option<Classes>,
    output_bytes: usize,
    reasoning_bytes: usize,
    done: bool,
}

impl Answer {
    /// Takes one event of the stream and appends what it says.
    ///
    /// # Errors
    /// When it is an error, or makes no sense.
    pub(crate) fn take(&mut self, event: &SseEvent, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        if self.done {
            return Ok(());
        }
        if event.data == b"[DONE]" {
            return self.done(events);
        }
        if event.is_error {
            return Err(StreamError::InBand(ProviderError::of_body(&event.data)));
        }
        let chunk: Chunk = serde_json::from_slice(&event.data).map_err(|_| StreamError::Malformed)?;
        if let Some(error) = chunk.error {
            return Err(StreamError::InBand(ProviderError::of(&error)));
        }
        if let Some(usage) = chunk.usage {
            // A usage that cannot be read is unknown. The text is still good, and the caller estimates.
            self.usage = UsageWire::deserialize(usage).ok().and_then(|usage| usage.classes());
        }
        let asked_for = |choice: &Choice| choice.index.is_none_or(|index| index == 0);
        for choice in chunk.choices.into_iter().flatten().filter(asked_for) {
            self.choice(choice, events)?;
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        if let Some(delta) = choice.delta {
            let reasoning = delta.reasoning_content.as_ref().and_then(Value::as_str).map_or(0, str::len);
            self.reasoning_bytes = self.reasoning_bytes.saturating_add(reasoning);
            let texts = [delta.content, delta.refusal].into_iter().flatten();
            for text in texts.filter(|text| !text.is_empty()) {
                if self.finished {
                    return Err(StreamError::Malformed);
                }
                self.output_bytes = self.output_bytes.saturating_add(text.len());
                events.push_back(Event::Text(text));
            }
        }
        if let Some(reason) = choice.finish_reason
            && !std::mem::replace(&mut self.finished, true)
        {
            events.push_back(Event::Finish(FinishReason::of(&reason)));
        }
        Ok(())
    }

    /// The provider says that this is all. Without a reason why the model stopped, it is not.
    fn done(&mut self, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        if !self.finished {
            return Err(StreamError::Cut);
        }
        self.done = true;
        events.extend(self.usage.filter(|usage| self.credible(usage)).map(Event::Usage));
        events.push_back(Event::Done);
        Ok(())
    }

    /// Every request has a prompt, and text takes tokens: a count that denies either was never made.
    fn credible(&self, usage: &Classes) -> bool {
        let wrote = self.output_bytes > 0;
        usage.prompt() > Tokens::ZERO && (!wrote || usage.completion() > Tokens::ZERO)
    }

    /// The body has ended, or broke. An answer that had its finish and its usage is complete even so: only the
    /// provider's `[DONE]` is missing.
    ///
    /// # Errors
    /// When the answer was not complete.
    pub(crate) fn end(&mut self, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        if self.done {
            return Ok(());
        }
        if self.usage.is_none() { Err(StreamError::Cut) } else { self.done(events) }
    }

    /// Whether the model has begun to write, or is through without.
    pub(crate) fn begun(&self) -> bool {
        self.output_bytes > 0 || self.finished
    }

    /// Whether [`Event::Done`] has been said.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The text so far, in UTF-8 bytes.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    /// The reasoning that was shown so far, in UTF-8 bytes.
    pub(crate) fn reasoning_bytes(&self) -> usize {
        self.reasoning_bytes
    }
}
