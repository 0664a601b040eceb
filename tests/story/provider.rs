//! A provider that counts what the story says.

use futures_util::stream;
use openai::testing::Memory;
use reqwest::{Body, Response};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc};

/// Pieces of an answer.
const PIECES: u32 = 3;

/// A prompt for which the provider counts these tokens: as many bytes, so that its hold has room for them.
pub(crate) fn prompt(prompt: u32, answer: u32) -> String {
    let directive = format!("count {prompt} {answer};");
    let rest = usize::try_from(prompt).unwrap().saturating_sub(directive.len());
    directive + &"x".repeat(rest)
}

/// The provider.
pub(crate) fn provider() -> Memory {
    Memory::new(|body| async move { answer(&serde_json::from_slice(&body).unwrap()) })
}

fn counts(body: &Value) -> (u32, u32) {
    let messages = body["messages"].as_array().unwrap();
    let text = messages.last().unwrap()["content"].as_str().unwrap();
    let (_, counts) = text.split_once("count ").unwrap();
    let (prompt, rest) = counts.split_once(' ').unwrap();
    let (answer, _) = rest.split_once(';').unwrap();
    (prompt.parse().unwrap(), answer.parse().unwrap())
}

fn answer(body: &Value) -> Response {
    let (prompt, answer) = counts(body);
    let piece = |n| {
        let words = "word ".repeat(usize::try_from(answer / PIECES).unwrap().min(20) + n);
        json!({"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": null}]})
    };
    let mut chunks: Vec<_> = (1..=usize::try_from(PIECES).unwrap()).map(piece).collect();
    chunks.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    chunks.push(json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}}));
    let lines =
        chunks.into_iter().map(|chunk| format!("data: {chunk}\n\n")).chain(["data: [DONE]\n\n".to_owned()]);
    let body = Body::wrap_stream(stream::iter(lines.map(Ok::<_, Arc<Infallible>>).collect::<Vec<_>>()));
    http::Response::builder().header("content-type", "text/event-stream").body(body).unwrap().into()
}
