//! What is asked of a provider, and its form on the wire.

use domain::{ModelPrice, Tokens};
use serde::Serialize;
use std::fmt;

/// Who says something to the model, or as the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Who asks.
    User,
    /// The model, earlier in the conversation.
    Assistant,
}

impl Speaker {
    const fn role(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation. Prints its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// Whose it is.
    pub speaker: Speaker,
    /// What it says.
    pub text: String,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({:?}, {} bytes)", self.speaker, self.text.len())
    }
}

/// One question.
#[derive(Clone, Copy)]
pub struct ChatRequest<'a> {
    /// The model and its price: what has no price cannot be called.
    pub model: &'a ModelPrice,
    /// What the model is told to do. Not sent when empty.
    pub system: &'a str,
    /// The conversation, oldest first; its last turn is what is asked.
    pub turns: &'a [Turn],
    /// The most tokens that the model may write, reasoning included.
    pub output_cap: Tokens,
}

impl fmt::Debug for ChatRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatRequest")
            .field("model", &self.model.model)
            .field("system_bytes", &self.system.len())
            .field("turns", &self.turns)
            .field("output_cap", &self.output_cap)
            .finish()
    }
}

/// The body of `POST /chat/completions`.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    stream_options: StreamOptions,
    max_completion_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    /// The provider keeps no copy.
    store: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    /// Without it the provider never says what an answer took.
    include_usage: bool,
    /// Padding against those who watch the wire's packet sizes. TLS to the provider passes no shared network that we
    /// can spare the bytes for.
    include_obfuscation: bool,
}

impl<'a> From<&ChatRequest<'a>> for Body<'a> {
    fn from(request: &ChatRequest<'a>) -> Self {
        let system =
            (!request.system.is_empty()).then_some(Message { role: "system", content: request.system });
        let turn = |turn: &'a Turn| Message { role: turn.speaker.role(), content: &turn.text };
        Body {
            model: request.model.model.as_str(),
            messages: system.into_iter().chain(request.turns.iter().map(turn)).collect(),
            stream: true,
            stream_options: StreamOptions { include_usage: true, include_obfuscation: false },
            max_completion_tokens: request.output_cap.get(),
            reasoning_effort: request.model.reasoning_effort,
            store: false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use domain::ModelId;
    use serde_json::json;
    use std::num::NonZeroU64;

    pub(crate) fn model(reasoning_effort: Option<&'static str>) -> ModelPrice {
        let price = NonZeroU64::new(1).unwrap();
        ModelPrice {
            model: ModelId::parse("gpt-6-luna").unwrap(),
            version: 1,
            input: price,
            cached_input: price,
            cache_write: price,
            output: price,
            output_max: Tokens::from_u32(4_096),
            reasoning_effort,
        }
    }

    pub(crate) fn turn(speaker: Speaker, text: &str) -> Turn {
        Turn { speaker, text: text.to_owned() }
    }

    fn request<'a>(model: &'a ModelPrice, system: &'a str, turns: &'a [Turn]) -> ChatRequest<'a> {
        ChatRequest { model, system, turns, output_cap: Tokens::from_u32(99) }
    }

    fn body(request: &ChatRequest<'_>) -> serde_json::Value {
        serde_json::to_value(Body::from(request)).unwrap()
    }

    #[test]
    fn f05_a_request_always_asks_for_usage_and_has_a_cap() {
        let model = model(Some("none"));
        let expected = json!({
            "model": "gpt-6-luna",
            "messages": [{"role": "system", "content": "Rewrite."}, {"role": "user", "content": "Hi"}],
            "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": false},
            "max_completion_tokens": 99,
            "reasoning_effort": "none",
            "store": false,
        });
        assert_eq!(body(&request(&model, "Rewrite.", &[turn(Speaker::User, "Hi")])), expected);
    }

    #[test]
    fn a_conversation_is_sent_in_its_order_and_by_its_roles() {
        let model = model(None);
        let turns =
            [turn(Speaker::User, "Hi"), turn(Speaker::Assistant, "Hello"), turn(Speaker::User, "Shorter")];
        let expected = json!([
            {"role": "system", "content": "Rewrite."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Shorter"},
        ]);
        assert_eq!(body(&request(&model, "Rewrite.", &turns))["messages"], expected);
    }

    #[test]
    fn an_empty_system_and_an_absent_effort_are_not_sent() {
        let model = model(None);
        let turns = [turn(Speaker::User, "Hi")];
        let body = body(&request(&model, "", &turns));
        assert_eq!(body["messages"], json!([{"role": "user", "content": "Hi"}]));
        assert!(body.get("reasoning_effort").is_none());
    }

    #[test]
    fn a_request_prints_without_what_was_written() {
        let model = model(None);
        let turns = [turn(Speaker::User, "secret"), turn(Speaker::Assistant, "secret")];
        let printed = format!("{:?}", request(&model, "secret", &turns));
        assert!(!printed.contains("secret"), "{printed}");
        assert!(printed.contains("Turn(Assistant, 6 bytes)"), "{printed}");
    }
}
