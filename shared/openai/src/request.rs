//! What is asked of a provider, and its form on the wire.

use domain::{ModelPrice, Tokens};
use serde::Serialize;
use std::fmt;

/// One question.
#[derive(Clone, Copy)]
pub struct ChatRequest<'a> {
    /// The model and its price: what has no price cannot be called.
    pub model: &'a ModelPrice,
    /// What the model is told to do. Not sent when empty.
    pub system: &'a str,
    /// What the user wrote.
    pub user: &'a str,
    /// The most tokens that the model may write, reasoning included.
    pub output_cap: Tokens,
}

impl fmt::Debug for ChatRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatRequest")
            .field("model", &self.model.model)
            .field("system_bytes", &self.system.len())
            .field("user_bytes", &self.user.len())
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
        let system = Message { role: "system", content: request.system };
        let user = Message { role: "user", content: request.user };
        let messages = if request.system.is_empty() { vec![user] } else { vec![system, user] };
        Body {
            model: request.model.model.as_str(),
            messages,
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

    fn body(request: &ChatRequest<'_>) -> serde_json::Value {
        serde_json::to_value(Body::from(request)).unwrap()
    }

    #[test]
    fn f05_a_request_always_asks_for_usage_and_has_a_cap() {
        let model = model(Some("none"));
        let request =
            ChatRequest { model: &model, system: "Rewrite.", user: "Hi", output_cap: Tokens::from_u32(99) };
        let expected = json!({
            "model": "gpt-6-luna",
            "messages": [{"role": "system", "content": "Rewrite."}, {"role": "user", "content": "Hi"}],
            "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": false},
            "max_completion_tokens": 99,
            "reasoning_effort": "none",
            "store": false,
        });
        assert_eq!(body(&request), expected);
    }

    #[test]
    fn an_empty_system_and_an_absent_effort_are_not_sent() {
        let model = model(None);
        let request = ChatRequest { model: &model, system: "", user: "Hi", output_cap: Tokens::from_u32(1) };
        assert_eq!(body(&request)["messages"], json!([{"role": "user", "content": "Hi"}]));
        assert!(body(&request).get("reasoning_effort").is_none());
    }

    #[test]
    fn a_request_prints_without_what_was_written() {
        let model = model(None);
        let request =
            ChatRequest { model: &model, system: "secret", user: "secret", output_cap: Tokens::from_u32(1) };
        assert!(!format!("{request:?}").contains("secret"));
    }
}
