//! What the events of a chat completion mean: text, why it ended, what it took. Pure. Never keeps what the model wrote,
//! only how much of it there was.

use crate::{
    failure::{ProviderError, StreamError},
    sse::SseEvent,
};
use domain::{Classes, Tokens};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
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

/// Reasons that are none: the provider gave up in the middle. What came is a part of an answer.
const FAILED: [&str; 3] = ["error", "abort", "insufficient_system_resource"];

impl FinishReason {
    fn of(text: &str) -> Self {
        match text {
            "stop" => Self::Stop,
            "length" | "model_length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            "tool_calls" | "function_call" => Self::ToolCalls,
            _ => Self::Other,
        }
    }
}

/// One `chat.completion.chunk`; of what else it has, `obfuscation` and a filter's findings among it, nothing is read.
#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    /// There is one. What it says is read apart, so that one which makes no sense costs no text.
    usage: Option<IgnoredAny>,
    /// There is one, which is read apart too.
    error: Option<IgnoredAny>,
    /// `error` where a provider has the members of an error at the top.
    object: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u64>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
    /// Some gateways say here that the provider behind them failed.
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<Content>,
    /// Written in place of content by a model that declines.
    refusal: Option<Content>,
    /// Reasoning that some compatible providers show, under either name or both. Not passed on, but it was served.
    reasoning_content: Option<Content>,
    reasoning: Option<Content>,
}

/// A text, or a list of parts that have one.
#[derive(Default)]
struct Content {
    text: String,
    /// Of the parts that are reasoning.
    reasoning_bytes: usize,
}

#[derive(Deserialize)]
struct Part {
    text: Option<Content>,
    thinking: Option<Content>,
}

impl Content {
    fn bytes(&self) -> usize {
        self.text.len().saturating_add(self.reasoning_bytes)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, because half of a surrogate pair, or of a character, is not a reason to lose the rest: whoever cuts
        // a text into chunks may cut there. It becomes U+FFFD, as the encoding standard reads it.
        deserializer.deserialize_bytes(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of parts")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Content, E> {
        Ok(Content { text: String::from_utf8_lossy(bytes).into_owned(), reasoning_bytes: 0 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut whole = Content::default();
        while let Some(Part { text, thinking }) = parts.next_element()? {
            let text = text.unwrap_or_default();
            let thinking = thinking.map_or(0, |thinking| thinking.bytes());
            whole.text.push_str(&text.text);
            whole.reasoning_bytes =
                whole.reasoning_bytes.saturating_add(text.reasoning_bytes).saturating_add(thinking);
        }
        Ok(whole)
    }
}

/// Reads the `usage` of a chunk into disjoint classes that add up to the provider's two figures, which are what it
/// charges by: the details are parts of them, not additions. Details that claim more than there is are cut to what is
/// left, the cached part first; one that makes no sense says nothing.
///
/// None when one of the two figures is missing, no count, or beyond [`Tokens::MAX`].
fn usage_of(data: &[u8]) -> Option<Classes> {
    #[derive(Deserialize)]
    struct Counted {
        usage: Value,
    }
    let usage = serde_json::from_slice::<Counted>(data).ok()?.usage;
    let figure = |name: &str| Tokens::new(usage.get(name)?.as_u64()?).ok();
    let part = |pointer: &str, of: Tokens| {
        let claimed = usage.pointer(pointer)?.as_u64()?;
        Some(Tokens::new(claimed).unwrap_or(Tokens::MAX).min(of))
    };
    let prompt = figure("prompt_tokens")?;
    let completion = figure("completion_tokens")?;
    let cached_input = part("/prompt_tokens_details/cached_tokens", prompt)
        // DeepSeek's name for it, which is older than the other.
        .or_else(|| part("/prompt_cache_hit_tokens", prompt))
        .unwrap_or(Tokens::ZERO);
    let first_read = prompt.saturating_sub(cached_input);
    let cache_write = part("/prompt_tokens_details/cache_write_tokens", first_read).unwrap_or(Tokens::ZERO);
    let reasoning = part("/completion_tokens_details/reasoning_tokens", completion).unwrap_or(Tokens::ZERO);
    Some(Classes {
        input: first_read.saturating_sub(cache_write),
        cached_input,
        cache_write,
        output: completion.saturating_sub(reasoning),
        reasoning,
    })
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
        if event.is_error {
            return Err(StreamError::InBand(ProviderError::of_body(&event.data)));
        }
        match event.data.trim_ascii() {
            b"[DONE]" => return self.done(events),
            // Some send it to keep the connection alive.
            b"" => return Ok(()),
            _ => {}
        }
        let chunk: Chunk = serde_json::from_slice(&event.data).map_err(|_| StreamError::Malformed)?;
        if chunk.error.is_some() || chunk.object.is_some_and(|object| object == "error") {
            return Err(StreamError::InBand(ProviderError::of_body(&event.data)));
        }
        if chunk.usage.is_some() {
            // A usage that cannot be read is unknown. The text is still good, and the caller estimates.
            self.usage = usage_of(&event.data);
        }
        let asked_for = |choice: &Choice| choice.index.is_none_or(|index| index == 0);
        for choice in chunk.choices.into_iter().flatten().filter(asked_for) {
            self.choice(choice, events)?;
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        if let Some(error) = choice.error {
            return Err(StreamError::InBand(ProviderError::of(&error)));
        }
        if let Some(delta) = choice.delta {
            self.delta(delta, events)?;
        }
        match choice.finish_reason.as_deref() {
            // An empty one is how some write that there is none yet.
            None | Some("") => {}
            Some(reason) if FAILED.contains(&reason) => {
                return Err(StreamError::InBand(ProviderError::coded(reason)));
            }
            Some(reason) => {
                if !std::mem::replace(&mut self.finished, true) {
                    events.push_back(Event::Finish(FinishReason::of(reason)));
                }
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        let shown =
            [&delta.reasoning_content, &delta.reasoning].into_iter().flatten().map(Content::bytes).max();
        self.reasoning_bytes = self.reasoning_bytes.saturating_add(shown.unwrap_or(0));
        for content in [delta.content, delta.refusal].into_iter().flatten() {
            self.reasoning_bytes = self.reasoning_bytes.saturating_add(content.reasoning_bytes);
            if content.text.is_empty() {
                continue;
            }
            if self.finished {
                return Err(StreamError::Malformed);
            }
            self.output_bytes = self.output_bytes.saturating_add(content.text.len());
            events.push_back(Event::Text(content.text));
        }
        Ok(())
    }

    /// The provider says that this is all. Without a reason why the model stopped, it is not.
    fn done(&mut self, events: &mut VecDeque<Event>) -> Result<(), StreamError> {
        if !self.finished {
            return Err(StreamError::Cut);
        }
        self.done = true;
        events.extend(self.counted().map(Event::Usage));
        events.push_back(Event::Done);
        Ok(())
    }

    /// What the provider counted, once the answer has its finish: before that a count is of a part.
    pub(crate) fn counted(&self) -> Option<Classes> {
        self.usage.filter(|usage| self.finished && self.credible(usage))
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

    /// Whether the model has begun to write or to show how it reasons, or is through without.
    pub(crate) fn begun(&self) -> bool {
        self.output_bytes > 0 || self.reasoning_bytes > 0 || self.finished
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Outcome = (Vec<Event>, Option<StreamError>);

    /// Reads these chunks as a stream whose body then ends.
    fn read(chunks: &[String]) -> Outcome {
        let (mut answer, mut events) = (Answer::default(), VecDeque::new());
        for chunk in chunks {
            let event = SseEvent { is_error: false, data: chunk.clone().into_bytes() };
            if let Err(error) = answer.take(&event, &mut events) {
                return (events.into(), Some(error));
            }
        }
        let end = answer.end(&mut events).err();
        (events.into(), end)
    }

    fn delta(delta: &Value, finish: Option<&str>) -> String {
        chunk(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]), &Value::Null)
    }

    /// A chunk as OpenAI's reference has it.
    fn chunk(choices: &Value, usage: &Value) -> String {
        json!({
            "id": "chatcmpl-123", "object": "chat.completion.chunk", "created": 1_694_268_190, "model": "gpt-6-luna",
            "service_tier": "default", "system_fingerprint": "fp_44709d6fcb", "obfuscation": "x7Yq",
            "choices": choices, "usage": usage,
        })
        .to_string()
    }

    fn text(text: &str) -> String {
        delta(&json!({"content": text}), None)
    }

    fn finish(reason: &str) -> String {
        delta(&json!({}), Some(reason))
    }

    fn usage(usage: &Value) -> String {
        chunk(&json!([]), usage)
    }

    fn done() -> String {
        "[DONE]".to_owned()
    }

    fn classes(input: u32, cached_input: u32, cache_write: u32, output: u32, reasoning: u32) -> Classes {
        let t = Tokens::from_u32;
        Classes {
            input: t(input),
            cached_input: t(cached_input),
            cache_write: t(cache_write),
            output: t(output),
            reasoning: t(reasoning),
        }
    }

    #[track_caller]
    fn check_usage(wire: &Value, expected: Option<Classes>) {
        let (events, error) = read(&[text("a"), finish("stop"), usage(wire), done()]);
        let mut whole = vec![Event::Text("a".into()), Event::Finish(FinishReason::Stop)];
        whole.extend(expected.map(Event::Usage));
        whole.push(Event::Done);
        assert_eq!((events, error), (whole, None), "{wire}");
        if let Some(classes) = expected {
            assert_eq!(classes.prompt().get(), wire["prompt_tokens"], "{wire}");
            assert_eq!(classes.completion().get(), wire["completion_tokens"], "{wire}");
        }
    }

    #[test]
    fn an_answer_is_text_finish_usage_done() {
        let chunks = [
            delta(&json!({"role": "assistant", "content": "", "refusal": null}), None),
            text("Hel"),
            text("lo"),
            finish("stop"),
            usage(&json!({"prompt_tokens": 19, "completion_tokens": 2, "total_tokens": 21})),
            done(),
            text("never read"),
        ];
        let expected = vec![
            Event::Text("Hel".into()),
            Event::Text("lo".into()),
            Event::Finish(FinishReason::Stop),
            Event::Usage(classes(19, 0, 0, 2, 0)),
            Event::Done,
        ];
        assert_eq!(read(&chunks), (expected, None));
    }

    #[test]
    fn f06_cached_and_reasoning_tokens_are_parts_and_not_additions() {
        // The usage of OpenAI's reference, with each detail it documents.
        check_usage(
            &json!({
                "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 192, "audio_tokens": 0,
                    "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
                },
            }),
            Some(classes(86, 1920, 0, 108, 192)),
        );
        check_usage(
            &json!({
                "prompt_tokens": 2006, "completion_tokens": 10, "total_tokens": 2016,
                "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 900},
            }),
            Some(classes(82, 1024, 900, 10, 0)),
        );
        check_usage(&json!({"prompt_tokens": 7, "completion_tokens": 3}), Some(classes(7, 0, 0, 3, 0)));
        check_usage(
            &json!({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": null, "completion_tokens_details": {}}),
            Some(classes(7, 0, 0, 3, 0)),
        );
    }

    #[test]
    fn f06_details_beyond_their_whole_are_cut_to_it() {
        let wire = |cached: u64, write: u64, reasoning: u64| {
            json!({
                "prompt_tokens": 10, "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": write},
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            })
        };
        check_usage(&wire(11, 0, 6), Some(classes(0, 10, 0, 0, 5)));
        check_usage(&wire(8, 8, 5), Some(classes(0, 8, 2, 0, 5)));
        check_usage(&wire(0, 99, 0), Some(classes(0, 0, 10, 5, 0)));
        check_usage(&wire(u64::MAX, u64::MAX, u64::MAX), Some(classes(0, 10, 0, 0, 5)));
    }

    #[test]
    fn f06_details_that_make_no_sense_say_nothing_and_the_two_figures_stand() {
        for details in [json!(7), json!([]), json!({"cached_tokens": -1}), json!({"cached_tokens": "3"})] {
            let wire = json!({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": details});
            check_usage(&wire, Some(classes(10, 0, 0, 5, 0)));
        }
        let hit = json!({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2});
        check_usage(&hit, Some(classes(2, 8, 0, 5, 0)));
    }

    #[test]
    fn f05_a_usage_that_no_number_can_hold_costs_no_text() {
        for figure in ["1e999", "123456789012345678901234567890", "-1e-999", &"[".repeat(9_999), "1.5"] {
            let close = if figure.starts_with('[') { "]".repeat(9_999) } else { String::new() };
            let wire = format!(
                r#"{{"created":1e999,"choices":[{{"delta":{{"content":"a"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{figure}{close},"completion_tokens":1}}}}"#
            );
            let whole = vec![Event::Text("a".into()), Event::Finish(FinishReason::Stop), Event::Done];
            assert_eq!(read(&[wire, done()]), (whole, None), "{}", &figure[..figure.len().min(40)]);
        }
    }

    #[test]
    fn nesting_is_no_danger_wherever_it_is() {
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        let (events, error) = read(&[
            format!(r#"{{"new":{deep},"choices":[{{"delta":{{"new":{deep}}}}}]}}"#),
            finish("stop"),
            done(),
        ]);
        assert_eq!((events.len(), error), (2, None), "what is not read is passed over");
        for bad in [
            format!(r#"{{"choices":[{{"delta":{{"content":{deep}}}}}]}}"#),
            format!(r#"{{"choices":{deep}}}"#),
            format!(r#"{{"object":{deep}}}"#),
        ] {
            assert_eq!(read(&[bad]).1, Some(StreamError::Malformed));
        }
        assert!(matches!(read(&[format!(r#"{{"error":{deep}}}"#)]).1, Some(StreamError::InBand(_))));
    }

    #[test]
    fn half_a_character_is_replaced_and_costs_no_text() {
        for (content, expected) in [
            (br"a\ud83d".as_slice(), "a\u{fffd}\u{fffd}\u{fffd}"),
            (br"\ude00 b", "\u{fffd}\u{fffd}\u{fffd} b"),
            (br"\ud83d\ude00", "\u{1f600}"),
            (b"a\xf0\x9f", "a\u{fffd}"),
            (b"\xffb", "\u{fffd}b"),
        ] {
            let data = [br#"{"choices":[{"delta":{"content":""#, content, br#""}}]}"#].concat();
            let mut events = VecDeque::new();
            Answer::default().take(&SseEvent { is_error: false, data }, &mut events).unwrap();
            assert_eq!(events, [Event::Text(expected.into())], "{content:?}");
        }
    }

    #[test]
    fn content_may_be_a_list_of_parts_of_which_reasoning_is_not_text() {
        let parts = json!([
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hmm"}]},
            {"type": "text", "text": "Hel"}, {"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "lo"},
        ]);
        let (mut answer, mut events) = (Answer::default(), VecDeque::new());
        let chunk = delta(&json!({"content": parts}), None).into_bytes();
        answer.take(&SseEvent { is_error: false, data: chunk }, &mut events).unwrap();
        assert_eq!(events, [Event::Text("Hello".into())]);
        assert_eq!((answer.output_bytes(), answer.reasoning_bytes()), (5, 3));
    }

    #[test]
    fn f28_a_provider_that_gives_up_says_so_in_many_ways_and_never_ends_an_answer() {
        let error = json!({"message": "quoting the prompt", "type": "server_error", "code": 502});
        for (said, code) in [
            (json!({"error": error}), Some("502")),
            (json!({"error": "quoting the prompt"}), None),
            (json!({"error": {"code": "1e9"}}), Some("1e9")),
            (
                json!({"object": "error", "message": "quoting the prompt", "type": "BadRequestError", "code": 400}),
                Some("400"),
            ),
            (
                json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], "error": error}),
                Some("502"),
            ),
            (json!({"choices": [{"index": 0, "error": error}]}), Some("502")),
            (json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}), Some("error")),
            (json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}), Some("abort")),
            (
                json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "insufficient_system_resource"}]}),
                Some("insufficient_system_resource"),
            ),
        ] {
            let (events, failure) = read(&[text("a"), said.to_string(), text("b"), finish("stop"), done()]);
            assert_eq!(events, [Event::Text("a".into())], "{said}");
            let Some(StreamError::InBand(labels)) = failure else { panic!("{said}: {failure:?}") };
            assert_eq!(labels.code.as_ref().map(crate::Label::as_str), code, "{said}");
            assert!(!format!("{labels:?}").contains("quoting"));
        }
    }

    #[test]
    fn data_without_anything_in_it_keeps_a_stream_alive() {
        let (events, error) = read(&[String::new(), text("a"), " ".to_owned(), finish("stop"), done()]);
        assert_eq!((events.len(), error), (3, None));
    }

    #[test]
    fn f05_a_usage_that_cannot_be_is_unknown_and_not_zero() {
        for wire in [
            json!({"prompt_tokens": 0, "completion_tokens": 0}),
            json!({"prompt_tokens": 9, "completion_tokens": 0}),
            json!({"prompt_tokens": 0, "completion_tokens": 9}),
            json!({"prompt_tokens": -1, "completion_tokens": 9}),
            json!({"prompt_tokens": 9}),
            json!({"prompt_tokens": 9, "completion_tokens": 1.5}),
            json!({"prompt_tokens": "9", "completion_tokens": 1}),
            json!({"prompt_tokens": 1_000_000_000_000_000_u64, "completion_tokens": 1}),
            json!({}),
            json!(7),
            json!(null),
        ] {
            check_usage(&wire, None);
        }
    }

    #[test]
    fn an_answer_without_text_may_have_no_completion_tokens() {
        let (events, error) = read(&[
            finish("content_filter"),
            usage(&json!({"prompt_tokens": 5, "completion_tokens": 0})),
            done(),
        ]);
        let expected = vec![
            Event::Finish(FinishReason::ContentFilter),
            Event::Usage(classes(5, 0, 0, 0, 0)),
            Event::Done,
        ];
        assert_eq!((events, error), (expected, None));
    }

    #[test]
    fn a_running_usage_counts_once_at_the_end() {
        let running = |content: &str, completion: u32, finish: Option<&str>| {
            chunk(
                &json!([{"index": 0, "delta": {"content": content}, "finish_reason": finish}]),
                &json!({"prompt_tokens": 5, "completion_tokens": completion}),
            )
        };
        let (events, error) =
            read(&[running("a", 1, None), running("b", 2, None), running("", 3, Some("stop")), done()]);
        let counted: Vec<_> = events.iter().filter(|event| matches!(event, Event::Usage(_))).collect();
        assert_eq!((counted, error), (vec![&Event::Usage(classes(5, 0, 0, 3, 0))], None));
        let (events, error) = read(&[running("a", 1, None), running("b", 2, None)]);
        assert_eq!((events.len(), error), (2, Some(StreamError::Cut)), "a cut one says nothing of usage");
    }

    #[test]
    fn f28_an_answer_that_lacks_its_end_is_cut() {
        let known = json!({"prompt_tokens": 5, "completion_tokens": 1});
        let cut = |chunks: &[String]| read(chunks).1 == Some(StreamError::Cut);
        assert!(cut(&[]));
        assert!(cut(&[text("a")]));
        assert!(cut(&[text("a"), finish("stop")]), "no usage and no [DONE]");
        assert!(cut(&[text("a"), usage(&known)]), "no finish");
        assert!(cut(&[text("a"), done()]), "no finish");
        assert!(cut(&[text("a"), usage(&known), done()]), "no finish");
        // Only [DONE] is missing: the answer and its usage are whole.
        let (events, error) = read(&[text("a"), finish("stop"), usage(&known)]);
        assert_eq!((events.last(), error), (Some(&Event::Done), None));
    }

    #[test]
    fn every_reason_to_finish_has_its_name() {
        for (wire, expected) in [
            ("stop", FinishReason::Stop),
            ("length", FinishReason::Length),
            ("model_length", FinishReason::Length),
            ("content_filter", FinishReason::ContentFilter),
            ("tool_calls", FinishReason::ToolCalls),
            ("function_call", FinishReason::ToolCalls),
            ("new_reason", FinishReason::Other),
        ] {
            let (events, _) = read(&[finish(wire), finish(wire), done()]);
            assert_eq!(events, [Event::Finish(expected), Event::Done], "{wire}");
        }
    }

    #[test]
    fn an_error_in_the_stream_keeps_its_labels_only() {
        let error = r#"{"error":{"message":"quoting the prompt","type":"server_error","param":null,"code":"overloaded"}}"#;
        let (events, failure) = read(&[text("a"), error.to_owned(), text("b"), done()]);
        assert_eq!(events, [Event::Text("a".into())]);
        let Some(StreamError::InBand(labels)) = failure else { panic!("{failure:?}") };
        assert_eq!(labels.code.as_ref().unwrap().as_str(), "overloaded");
        assert!(!format!("{labels:?} {labels}").contains("quoting"));

        let named = SseEvent { is_error: true, data: br#"{"message":"x"}"#.to_vec() };
        let mut events = VecDeque::new();
        let failure = Answer::default().take(&named, &mut events).unwrap_err();
        assert_eq!(failure, StreamError::InBand(ProviderError::default()));
    }

    #[test]
    fn a_refusal_is_text_and_another_choice_is_not() {
        let other = json!([{"index": 1, "delta": {"content": "x"}}, {"delta": {"content": "y"}}]);
        let (events, _) = read(&[
            delta(&json!({"refusal": "No."}), None),
            chunk(&other, &Value::Null),
            finish("stop"),
            done(),
        ]);
        assert_eq!(events[..2], [Event::Text("No.".into()), Event::Text("y".into())]);
    }

    #[test]
    fn what_is_empty_absent_or_unknown_is_passed_over() {
        for odd in [
            json!({}),
            json!({"choices": null}),
            json!({"choices": []}),
            json!({"choices": [{}]}),
            json!({"choices": [{"index": 0, "delta": null, "finish_reason": null}]}),
            json!({"choices": [{"index": 0, "delta": {"content": null, "tool_calls": [{}], "new": {"a": 1}}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": ""}]}),
            json!({"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "error": null}),
        ] {
            let (events, error) = read(&[odd.to_string(), finish("stop"), done()]);
            assert_eq!((events.len(), error), (2, None), "{odd}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_malformed() {
        for bad in
            ["{", "[]", "null", "{} {}", "x", r#"{"choices":7}"#, r#"{"choices":[{"delta":{"content":7}}]}"#]
        {
            assert_eq!(read(&[bad.to_owned()]).1, Some(StreamError::Malformed), "{bad}");
        }
        let after_finish = read(&[finish("stop"), text("more")]);
        assert_eq!(after_finish, (vec![Event::Finish(FinishReason::Stop)], Some(StreamError::Malformed)));
    }

    #[test]
    fn f05_reasoning_that_is_shown_is_counted_and_not_passed_on() {
        let (mut answer, mut events) = (Answer::default(), VecDeque::new());
        let shown = delta(&json!({"reasoning_content": "Hmm, ü", "content": null}), None);
        answer.take(&SseEvent { is_error: false, data: shown.into_bytes() }, &mut events).unwrap();
        assert_eq!((answer.reasoning_bytes(), answer.output_bytes(), events.len()), (7, 0, 0));
        assert!(answer.begun());
    }

    #[test]
    fn nothing_prints_what_the_model_wrote() {
        assert_eq!(format!("{:?}", Event::Text("secret".into())), "Text(6 bytes)");
    }
}
