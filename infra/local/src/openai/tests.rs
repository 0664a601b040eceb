//! The provider's stand-in, over real sockets and without a client library of the provider's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::record::Book;
use super::*;
use crate::serve::testing::{client, listener, within};

const KEY: &str = "sk-local";

async fn provider(behaviour: Behaviour) -> Handle {
    let options = Options { behaviour, clock: Arc::new(|| 1_800_000_000), ..Options::default() };
    start(listener().await, options).await.unwrap()
}

/// A good request; `changes` are set (or, when null, taken out).
fn request(prompt: &str, changes: &Value) -> Value {
    let mut body = json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "Write copy."}, {"role": "user", "content": prompt}],
    });
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    body
}

fn streaming(prompt: &str) -> Value {
    request(prompt, &json!({"stream": true, "stream_options": {"include_usage": true}}))
}

async fn post(handle: &Handle, body: impl Into<reqwest::Body>) -> reqwest::Response {
    client()
        .post(format!("{}/v1/chat/completions", handle.base_url()))
        .bearer_auth(KEY)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap()
}

/// The stream's chunks, and whether it ended in `[DONE]`.
fn chunks(text: &str) -> (Vec<Value>, bool) {
    let mut events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let done = events.last() == Some(&"[DONE]");
    if done {
        events.pop();
    }
    (events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect(), done)
}

async fn stream(handle: &Handle, body: &Value) -> (Vec<Value>, bool) {
    let response = post(handle, body.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    chunks(&response.text().await.unwrap())
}

fn deltas(chunks: &[Value]) -> Vec<&str> {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0)?["delta"]["content"].as_str())
        .filter(|text| !text.is_empty())
        .collect()
}

async fn whole_answer(handle: &Handle, body: &Value) -> Value {
    let response = post(handle, body.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

async fn copy_of(handle: &Handle, prompt: &str) -> String {
    let answer = whole_answer(handle, &request(prompt, &json!({}))).await;
    answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_has_the_vendors_chunks_in_the_vendors_order() {
    let handle = provider(Behaviour { output_tokens: 3, cached_tokens: 4, ..Behaviour::default() }).await;
    let response = post(&handle, streaming("A mug").to_string()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let (chunks, done) = chunks(&response.text().await.unwrap());
    assert!(done);
    assert_eq!(chunks.len(), 1 + 3 + 1 + 1);
    for chunk in &chunks {
        assert_eq!(chunk["id"], id.as_str());
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["created"], 1_800_000_000);
        assert_eq!(chunk["model"], "gpt-4o-mini-2024-07-18");
        assert!(!chunk["obfuscation"].as_str().unwrap().is_empty());
    }
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    for chunk in &chunks[..4] {
        assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null);
    }
    assert_eq!(deltas(&chunks).len(), 3);
    assert_eq!(chunks[4]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "stop");
    for chunk in &chunks[..5] {
        assert_eq!(chunk.get("usage"), Some(&Value::Null));
    }
    // 16 bytes of text, 2 messages: 4 + 6 + 3.
    let usage = json!({
        "prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    });
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[5]["usage"], usage);
}

#[tokio::test]
async fn usage_and_padding_come_only_when_they_are_wanted() {
    let handle = provider(Behaviour::default()).await;
    let bare = request("A mug", &json!({"stream": true, "stream_options": {"include_obfuscation": false}}));
    let (chunks, done) = stream(&handle, &bare).await;
    assert!(done);
    for chunk in &chunks {
        assert_eq!(chunk.get("usage"), None);
        assert_eq!(chunk.get("obfuscation"), None);
        assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
    }
    assert_eq!(handle.total_reported(), Usage::default(), "usage that was not asked for is not reported");
}

#[tokio::test]
async fn the_requests_limit_cuts_the_text_and_says_length() {
    let handle = provider(Behaviour::default()).await;
    for limit in ["max_tokens", "max_completion_tokens"] {
        let mut body = streaming("A mug [[tokens=400]]");
        body[limit] = json!(5);
        let (chunks, _) = stream(&handle, &body).await;
        assert_eq!(deltas(&chunks).len(), 5);
        assert_eq!(chunks[6]["choices"][0]["finish_reason"], "length");
        assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 5);
    }
}

#[tokio::test]
async fn a_whole_answer_is_one_object_with_usage() {
    let handle = provider(Behaviour { output_tokens: 9, ..Behaviour::default() }).await;
    let answer = whole_answer(&handle, &request("A mug", &json!({}))).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text.split(' ').count(), 9, "a token is a word: {text}");
    assert_eq!(answer["usage"]["total_tokens"], 13 + 9);
}

#[tokio::test]
async fn two_identical_prompts_give_identical_copy() {
    let (one, other) = (provider(Behaviour::default()).await, provider(Behaviour::default()).await);
    let first = copy_of(&one, "A blue mug").await;
    assert_eq!(copy_of(&one, "A blue mug").await, first);
    assert_eq!(copy_of(&other, "A blue mug").await, first);
    assert_ne!(copy_of(&one, "A red mug").await, first);
    let (chunks, _) = stream(&one, &streaming("A blue mug")).await;
    assert_eq!(deltas(&chunks).concat(), first, "a stream and an object hold the same text");
}

#[tokio::test]
async fn a_directive_changes_the_length_and_not_the_words() {
    let handle = provider(Behaviour::default()).await;
    let plain = copy_of(&handle, "A blue mug").await;
    let short = copy_of(&handle, "A blue[[tokens=7]] mug").await;
    assert_eq!(short.split(' ').count(), 7);
    assert!(plain.starts_with(&short), "{plain} / {short}");
}

#[tokio::test]
async fn brackets_that_are_no_directive_are_text() {
    let handle = provider(Behaviour { output_tokens: 6, ..Behaviour::default() }).await;
    for prompt in ["[[Main Page]] a mug", "[[", "]] [[ ]]", "[[tokens=2", "[[]]", "é[[ü]]é"] {
        assert_eq!(copy_of(&handle, prompt).await.split(' ').count(), 6, "{prompt}");
    }
    assert_eq!(copy_of(&handle, "[[Page]] é [[tokens=2]]").await.split(' ').count(), 2);
}

#[tokio::test]
async fn prompt_tokens_are_counted_as_asked() {
    let handle = provider(Behaviour::default()).await;
    let reported = async |directive: &str| {
        let body = streaming(&format!("A mug [[{directive}]]"));
        let (chunks, _) = stream(&handle, &body).await;
        (chunks.last().unwrap()["usage"].clone(), u64::try_from(body.to_string().len()).unwrap())
    };
    let text = u64::try_from("Write copy.A mug [[prompt=bytes:5]]".len()).unwrap();
    assert_eq!(reported("prompt=bytes:5").await.0["prompt_tokens"], text + 5);
    assert_eq!(reported("prompt=exact:512").await.0["prompt_tokens"], 512);
    assert_eq!(reported("prompt=quarter").await.0["prompt_tokens"], (text.div_ceil(4)) + 9);
    let (usage, body_bytes) = reported("overrun=beyond").await;
    assert!(usage["prompt_tokens"].as_u64().unwrap() > body_bytes + 16_384, "{usage}");
    let (usage, _) = reported("prompt=exact:100 completion=9999 cached=60 cache_write=80").await;
    assert_eq!(usage["completion_tokens"], 9_999);
    assert_eq!(usage["total_tokens"], 10_099);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 60);
    assert_eq!(usage["prompt_tokens_details"]["cache_write_tokens"], 40, "parts never exceed the prompt");
}

#[tokio::test]
async fn a_model_that_thinks_spends_the_limit_on_thinking_unless_told_not_to() {
    let handle = provider(Behaviour { output_tokens: 10, ..Behaviour::default() }).await;
    let luna = |changes: Value| {
        let mut body = request("A mug", &json!({"model": "gpt-6-luna", "max_completion_tokens": 100}));
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let answer = whole_answer(&handle, &luna(json!({"reasoning_effort": "none", "temperature": 0.7}))).await;
    assert_eq!(answer["usage"]["completion_tokens"], 10);
    let answer = whole_answer(&handle, &luna(json!({}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 100);
    assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 100);
    let answer = whole_answer(&handle, &luna(json!({"max_completion_tokens": 300}))).await;
    assert_eq!(answer["usage"]["completion_tokens"], 266);
    assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 256);
}

#[tokio::test]
async fn the_key_is_checked_first() {
    let handle = provider(Behaviour::default()).await;
    let url = format!("{}/v1/chat/completions", handle.base_url());
    let answer = client().post(&url).body("nonsense").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert_eq!(body["error"]["code"], Value::Null);
    let answer = client().post(&url).bearer_auth("sk-wrong-key-0001").body("nonsense").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "invalid_api_key");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("sk-w*********0001") && !message.contains("wrong"), "{message}");
    let answer = client().get(format!("{}/v1/models", handle.base_url())).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

/// What is wrong, in the vendor's words: the changed fields, the status, `param`, `code` and a part of the message.
type Wrong = (Value, u16, &'static str, &'static str, &'static str);

fn wrong_fields() -> Vec<Wrong> {
    vec![
        (json!({"colour": 1}), 400, "colour", "unknown_parameter", "Unknown parameter: 'colour'."),
        (
            json!({"temperature": "hot"}),
            400,
            "temperature",
            "invalid_type",
            "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        ),
        (json!({"temperature": 2.5}), 400, "temperature", "decimal_above_max_value", "<= 2, but got 2.5"),
        (json!({"top_p": -1}), 400, "top_p", "decimal_below_min_value", ">= 0, but got -1.0"),
        (json!({"stream": "yes"}), 400, "stream", "invalid_type", "expected a boolean, but got a string"),
        (
            json!({"max_tokens": "5"}),
            400,
            "max_tokens",
            "invalid_type",
            "expected an integer, but got a string",
        ),
        (
            json!({"max_tokens": 5.5}),
            400,
            "max_tokens",
            "invalid_type",
            "expected an integer, but got a decimal",
        ),
        (json!({"max_tokens": 0}), 400, "max_tokens", "integer_below_min_value", ">= 1, but got 0"),
        (
            json!({"max_tokens": 16_385}),
            400,
            "max_tokens",
            "invalid_value",
            "at most 16384 completion tokens",
        ),
        (json!({"max_tokens": u64::MAX}), 400, "max_tokens", "integer_above_max_value", "above maximum"),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 5}),
            400,
            "max_tokens",
            "invalid_parameter_combination",
            "at the same time",
        ),
    ]
}

fn wrong_choices() -> Vec<Wrong> {
    vec![
        (json!({"model": "gpt-1"}), 404, "", "model_not_found", "The model `gpt-1` does not exist"),
        (json!({"model": 4}), 400, "model", "invalid_type", "expected a string, but got an integer"),
        (json!({"model": null}), 400, "", "", "you must provide a model parameter"),
        (json!({"reasoning_effort": "none"}), 400, "", "", "Unrecognized request argument supplied"),
        (
            json!({"service_tier": "gold"}),
            400,
            "service_tier",
            "invalid_value",
            "Supported values are: 'auto', ",
        ),
        (json!({"tools": []}), 400, "tools", "unsupported_by_stand_in", "tools"),
        (json!({"n": 2}), 400, "n", "unsupported_by_stand_in", "'n'"),
        (json!({"stream_options": {}}), 400, "stream_options", "", "only allowed when 'stream' is enabled"),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            400,
            "stream_options.usage",
            "unknown_parameter",
            "stream_options.usage",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            400,
            "stream_options.include_usage",
            "invalid_type",
            "expected a boolean, but got an integer",
        ),
    ]
}

fn wrong_for_luna() -> Vec<Wrong> {
    let luna = |mut changes: Value| {
        changes["model"] = json!("gpt-6-luna");
        changes
    };
    vec![
        (
            luna(json!({"max_tokens": 5})),
            400,
            "max_tokens",
            "unsupported_parameter",
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ),
        (
            luna(json!({"presence_penalty": 1})),
            400,
            "presence_penalty",
            "unsupported_parameter",
            "not supported",
        ),
        (luna(json!({"temperature": 0.2})), 400, "temperature", "unsupported_value", "does not support 0.2"),
        (
            luna(json!({"reasoning_effort": "minimal"})),
            400,
            "reasoning_effort",
            "unsupported_value",
            "'minimal'",
        ),
        (luna(json!({"reasoning_effort": "huge"})), 400, "reasoning_effort", "invalid_value", "'huge'"),
    ]
}

fn wrong_messages() -> Vec<Wrong> {
    let with = |messages: Value| json!({"messages": messages});
    let text = |content: Value| with(json!([{"role": "user", "content": content}]));
    vec![
        (with(Value::Null), 400, "messages", "missing_required_parameter", "'messages'"),
        (
            with(json!("hi")),
            400,
            "messages",
            "invalid_type",
            "expected an array of objects, but got a string",
        ),
        (with(json!([])), 400, "messages", "empty_array", "minimum length 1"),
        (with(json!(["hi"])), 400, "messages[0]", "invalid_type", "expected an object"),
        (with(json!([{"content": "hi"}])), 400, "messages[0].role", "missing_required_parameter", "role"),
        (
            with(json!([{"role": "boss", "content": "hi"}])),
            400,
            "messages[0].role",
            "invalid_value",
            "Invalid value: 'boss'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and \
             'developer'.",
        ),
        (with(json!([{"role": 1, "content": "hi"}])), 400, "messages[0].role", "invalid_type", "an integer"),
        (
            with(json!([{"role": "user"}])),
            400,
            "messages[0].content",
            "missing_required_parameter",
            "content",
        ),
        (
            with(json!([{"role": "user", "content": "hi", "mood": 1}])),
            400,
            "messages[0].mood",
            "unknown_parameter",
            "mood",
        ),
        (text(Value::Null), 400, "messages.[0].content", "", "expected a string, got null"),
        (text(json!(7)), 400, "messages[0].content", "invalid_type", "one of an array of objects or string"),
        (text(json!([])), 400, "messages[0].content", "empty_array", "empty array"),
        (text(json!([{"type": "video"}])), 400, "messages[0].content[0].type", "invalid_value", "'video'"),
        (
            text(json!([{"type": "image_url"}])),
            400,
            "messages[0].content[0].type",
            "unsupported_by_stand_in",
            "content",
        ),
        (
            text(json!([{"type": "text"}])),
            400,
            "messages[0].content[0].text",
            "missing_required_parameter",
            "text",
        ),
        (text(json!("x [[tokens=many]]")), 400, "messages", "invalid_directive", "'tokens=many'"),
        (text(json!("x [[tokens=1 speed=2]]")), 400, "messages", "invalid_directive", "'speed=2'"),
        (text(json!("x [[gone=gpt-6-luno]]")), 400, "messages", "invalid_directive", "'gone=gpt-6-luno'"),
        (
            json!({"model": "gpt-6-luna", "messages": [{"role": "user", "content": "x [[gone=gpt-4o-mini,gpt-6-luna]]"}]}),
            404,
            "",
            "model_not_found",
            "The model `gpt-6-luna` does not exist or you do not have access to it.",
        ),
        (text(json!("x [[retry_after=1]]")), 400, "messages", "invalid_directive", "needs 'error'"),
        (text(json!("word ".repeat(110_000))), 400, "messages", "context_length_exceeded", "128000 tokens"),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_the_vendors_words() {
    let handle = provider(Behaviour::default()).await;
    for (changes, status, param, code, message) in
        wrong_fields().into_iter().chain(wrong_choices()).chain(wrong_for_luna()).chain(wrong_messages())
    {
        let response = post(&handle, request("A mug", &changes).to_string()).await;
        let what = changes.to_string().chars().take(100).collect::<String>();
        assert_eq!(response.status().as_u16(), status, "{what}");
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error", "{what}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{what}: {error}");
        assert_eq!(error["code"].as_str().unwrap_or_default(), code, "{what}: {error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{what}: {error}");
    }
    assert!(handle.requests().iter().all(|record| matches!(record.outcome, Outcome::Refused(400 | 404))));
    assert_eq!(handle.total_reported(), Usage::default());
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let handle = provider(Behaviour::default()).await;
    for body in ["", "{", "[]", "\"text\"", "{\"model\":}"] {
        let response = post(&handle, body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let error = response.json::<Value>().await.unwrap();
        assert!(error["error"]["message"].as_str().unwrap().starts_with("We could not parse the JSON body"));
    }
    let url = format!("{}/v1/chat/completions", handle.base_url());
    let plain = client().post(url).bearer_auth(KEY).header("content-type", "text/plain").body("{}");
    let error: Value = plain.send().await.unwrap().json().await.unwrap();
    assert_eq!(error["error"]["code"], "unsupported_content_type");
    let big = post(&handle, vec![b' '; 4 * 1_024 * 1_024 + 1]).await;
    assert_eq!(big.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn models_are_listed_and_other_paths_do_not_exist() {
    let handle = provider(Behaviour::default()).await;
    let get = async |path: &str| {
        let response =
            client().get(format!("{}{path}", handle.base_url())).bearer_auth(KEY).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, list) = get("/v1/models").await;
    assert_eq!(status, 200);
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["gpt-4o-mini", "gpt-6-luna", "gpt-5.4-nano"]);
    assert_eq!(get("/v1/models/gpt-6-luna").await.1["object"], "model");
    assert_eq!(get("/v1/models/gpt-1").await.0, 404);
    assert_eq!(get("/v1/modelsX").await.0, 404);
    assert_eq!(get("/v1/chat/completions").await.0, 405);
    assert_eq!(get("/v1/responses").await.1["error"]["message"], "Invalid URL (GET /v1/responses)");
}

#[tokio::test]
async fn a_cut_drops_the_connection_after_exactly_so_many_tokens() {
    let handle = provider(Behaviour::default()).await;
    let mut response = post(&handle, streaming("A mug [[tokens=20 cut=7]]").to_string()).await;
    let mut text = String::new();
    let end = loop {
        match response.chunk().await {
            Ok(Some(bytes)) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(end.is_err(), "a cut stream must not end cleanly");
    let (chunks, done) = chunks(&text);
    assert!(!done);
    assert_eq!(deltas(&chunks).len(), 7);
    assert_eq!(chunks.len(), 8);
    let record = handle.requests().pop().unwrap();
    assert_eq!((record.outcome, record.deltas_written, record.reported), (Outcome::Cut, 7, None));
    assert_eq!(record.planned.completion_tokens, 20);
}

#[tokio::test]
async fn a_cut_before_the_head_gives_no_status() {
    let handle = provider(Behaviour { drop_before_head: true, ..Behaviour::default() }).await;
    for body in [streaming("A mug"), request("A mug", &json!({}))] {
        let sent = client()
            .post(format!("{}/v1/chat/completions", handle.base_url()))
            .bearer_auth(KEY)
            .json(&body)
            .send()
            .await;
        assert!(sent.is_err());
    }
    assert!(handle.requests().iter().all(|record| record.outcome == Outcome::Cut));
}

#[tokio::test]
async fn an_error_status_comes_with_its_retry_after_and_the_script_is_played_in_order() {
    let handle = provider(Behaviour::default()).await;
    for status in [429, 503] {
        let status_error = Some(StatusError { status, retry_after_s: Some(2) });
        assert!(handle.script(Behaviour { status_error, ..Behaviour::default() }));
    }
    let response = post(&handle, streaming("A mug").to_string()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.headers()["retry-after-ms"], "2000");
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "rate_limit_exceeded");
    let response = post(&handle, streaming("A mug").to_string()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["type"], "server_error");
    assert_eq!(post(&handle, streaming("A mug").to_string()).await.status(), StatusCode::OK);
    let response = post(&handle, streaming("A mug [[error=500]]").to_string()).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn an_error_in_the_stream_follows_its_tokens_and_ends_it() {
    let handle = provider(Behaviour::default()).await;
    let (chunks, done) = stream(&handle, &streaming("A mug [[inband=2]]")).await;
    assert!(!done);
    assert_eq!(deltas(&chunks).len(), 2);
    assert_eq!(chunks.last().unwrap()["error"]["type"], "server_error");
    assert_eq!(handle.requests()[0].outcome, Outcome::InBandError);
}

#[tokio::test]
async fn a_stall_stands_still_until_the_peer_leaves() {
    let handle = provider(Behaviour::default()).await;
    for (prompt, stands) in
        [("A mug [[stall=0]]", 0), ("A mug [[tokens=9 stall=3]]", 3), ("A mug [[tokens=3 stall=3]]", 3)]
    {
        let before = handle.deltas_written();
        let response = post(&handle, streaming(prompt).to_string()).await;
        within(handle.until(|counters| counters.deltas_written == before + stands)).await;
        drop(response);
        within(handle.idle()).await;
        let record = handle.requests().pop().unwrap();
        assert_eq!((record.outcome, record.deltas_written), (Outcome::PeerClosed, stands), "{prompt}");
    }
}

#[tokio::test]
async fn only_the_first_calls_with_a_prompt_fail_where_they_are_told_to() {
    let handle = provider(Behaviour::default()).await;
    let status = async |prompt: &str, model: &str| {
        let mut body = streaming(prompt);
        body["model"] = json!(model);
        post(&handle, body.to_string()).await.status().as_u16()
    };
    for (prompt, failed) in [("[[fail_first=2]]", 500), ("[[error=429 fail_first=2]]", 429)] {
        assert_eq!(status(prompt, "gpt-4o-mini").await, failed);
        assert_eq!(status(prompt, "gpt-6-luna").await, failed, "another model's call counts too");
        assert_eq!(status(prompt, "gpt-4o-mini").await, 200);
        assert_eq!(status(prompt, "gpt-4o-mini").await, 200);
    }
    let (cut, whole) = ("A mug [[tokens=9 inband=2 fail_first=1]]", streaming("A mug [[tokens=9]]"));
    assert_eq!(deltas(&stream(&handle, &streaming(cut)).await.0).len(), 2);
    let (again, plain) = (stream(&handle, &streaming(cut)).await, stream(&handle, &whole).await);
    assert!(again.1);
    assert_eq!(deltas(&again.0), deltas(&plain.0));
    for k in 0..=COUNTED_PROMPTS_MAX {
        handle.state.calls_before(u64::try_from(k).unwrap());
    }
    assert_eq!(lock(&handle.state.calls).len(), COUNTED_PROMPTS_MAX);
}

#[tokio::test]
async fn a_conversation_is_taken_and_its_last_user_message_steers() {
    let handle = provider(Behaviour::default()).await;
    let talk = |last: &str| {
        json!([
            {"role": "system", "content": "Write copy."},
            {"role": "user", "content": "A mug [[tokens=9]]"},
            {"role": "assistant", "content": "Meet the mug [[tokens=8]]"},
            {"role": "user", "content": last},
        ])
    };
    let answer = async |last: &str| {
        let mut body = streaming("");
        body["messages"] = talk(last);
        deltas(&stream(&handle, &body).await.0).len()
    };
    assert_eq!(answer("Shorter [[tokens=3]]").await, 3);
    assert_eq!(answer("Shorter").await, 64, "what was said before steers nothing");
    assert_eq!(handle.requests()[1].text_bytes, 11 + 18 + 25 + 7);
}

#[tokio::test]
async fn a_filters_findings_go_around_the_text_and_change_nothing_of_it() {
    let handle = provider(Behaviour { output_tokens: 2, ..Behaviour::default() }).await;
    let (plain, _) = stream(&handle, &streaming("A mug")).await;
    let (chunks, done) = stream(&handle, &streaming("A mug[[moderation]]")).await;
    assert!(done);
    assert_eq!(deltas(&chunks), deltas(&plain));
    assert_eq!(chunks.len(), plain.len() + 2);
    let found = &chunks[0]["prompt_filter_results"][0]["content_filter_results"];
    assert_eq!((&chunks[0]["choices"], &found["hate"]["filtered"]), (&json!([]), &json!(false)));
    assert_eq!(chunks[2]["choices"][0]["content_filter_results"]["violence"]["severity"], "safe");
    let late = &chunks[5]["choices"][0];
    assert_eq!(
        (late.get("delta"), late["content_filter_offsets"]["end_offset"].as_u64().unwrap() > 0),
        (None, true)
    );
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[6]["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn usage_and_done_can_be_left_out() {
    let handle = provider(Behaviour::default()).await;
    let (chunks, done) = stream(&handle, &streaming("A mug [[no_usage omit_done tokens=2]]")).await;
    assert!(!done);
    assert_eq!(chunks.len(), 4);
    assert!(chunks.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    let record = handle.requests().pop().unwrap();
    assert_eq!((record.outcome, record.reported), (Outcome::Complete, None));
}

#[tokio::test]
async fn a_gated_delta_is_written_only_after_its_release_and_then_at_once() {
    let handle = provider(Behaviour { gate: true, output_tokens: 5, ..Behaviour::default() }).await;
    let mut response = post(&handle, streaming("A mug").to_string()).await;
    let mut text = String::new();
    for k in 1..=5 {
        assert_eq!(handle.deltas_written(), k - 1);
        handle.release(1);
        // Delta k has to arrive while delta k + 1 is not released: a provider that batches would hang here.
        while chunks(text.get(..text.rfind("\n\n").map_or(0, |end| end + 2)).unwrap())
            .0
            .iter()
            .filter(|chunk| {
                chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
            })
            .count()
            < usize::try_from(k).unwrap()
        {
            let bytes = within(response.chunk()).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        assert_eq!(handle.deltas_written(), k);
    }
    text.push_str(&response.text().await.unwrap());
    assert!(chunks(&text).1);
}

#[tokio::test]
async fn every_frame_is_flushed_before_the_next_one_is_made() {
    let handle = provider(Behaviour { output_tokens: 8, ..Behaviour::default() }).await;
    let chat = request::parse(streaming("A mug").to_string().as_bytes()).unwrap();
    let (behaviour, seed) = handle.state.directed(&chat).unwrap();
    let ticket = Arc::clone(&handle.state.book).open(completion_id);
    let plan = Plan::new(ticket.id().to_owned(), 0, &chat, behaviour, seed);
    let mut body = answer::streamed(plan, Arc::clone(&handle.state), ticket);
    let mut frames = 0;
    loop {
        let mut next = std::pin::pin!(body.frame());
        // A connection flushes when its body has nothing yet: it must be told so between any two frames.
        assert!(futures_util::poll!(&mut next).is_pending(), "frame {frames} came with the one before it");
        match next.await {
            Some(frame) => frame.unwrap(),
            None => break,
        };
        frames += 1;
    }
    assert_eq!(frames, 1 + 8 + 1 + 1 + 1, "role, deltas, finish, usage, done");
}

#[tokio::test]
async fn a_peer_that_leaves_is_noticed_while_the_provider_waits() {
    let handle = provider(Behaviour { gate: true, ..Behaviour::default() }).await;
    let response = post(&handle, streaming("A mug").to_string()).await;
    within(handle.until(|counters| counters.in_flight == 1)).await;
    drop(response);
    within(handle.idle()).await;
    let record = handle.requests().pop().unwrap();
    assert_eq!((record.outcome, record.reported), (Outcome::PeerClosed, None));
    assert!(record.bytes_written > 0);
}

#[tokio::test]
async fn delays_come_before_the_head_the_first_token_and_each_further_one() {
    let handle = provider(Behaviour::default()).await;
    let began = Instant::now();
    let response =
        post(&handle, streaming("A mug [[tokens=3 head_ms=40 first_ms=30 delay_ms=20]]").to_string()).await;
    assert!(began.elapsed() >= Duration::from_millis(40));
    response.text().await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(40 + 30 + 2 * 20));
}

#[tokio::test]
async fn what_was_reported_adds_up_over_concurrent_requests() {
    let handle = provider(Behaviour { gate: true, output_tokens: 3, ..Behaviour::default() }).await;
    let body = streaming("A mug [[prompt=exact:10]]").to_string();
    let requests = (0..20).map(|_| async { post(&handle, body.clone()).await.text().await.unwrap() });
    let all = futures_util::future::join_all(requests);
    let release = async {
        let counters = within(handle.until(|counters| counters.in_flight == 20)).await;
        assert_eq!(counters.deltas_written, 0);
        handle.release(60);
    };
    let (texts, ()) = futures_util::future::join(all, release).await;
    assert!(texts.iter().all(|text| chunks(text).1));
    within(handle.idle()).await;
    let total = handle.total_reported();
    assert_eq!((total.prompt_tokens, total.completion_tokens, total.total_tokens()), (200, 60, 260));
    assert_eq!(handle.counters().in_flight_max, 20);
    let records = handle.requests();
    assert_eq!(
        records.iter().filter_map(|record| record.reported).map(|usage| usage.total_tokens()).sum::<u64>(),
        260
    );
    assert!(
        records.iter().all(|record| record.limit.is_none() && record.model.as_deref() == Some("gpt-4o-mini"))
    );
    let mut ids: Vec<_> = records.into_iter().map(|record| record.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn the_last_handle_stops_the_server_and_so_does_shutdown() {
    let handle = provider(Behaviour { gate: true, ..Behaviour::default() }).await;
    let clone = handle.clone();
    let response = post(&handle, streaming("A mug").to_string()).await;
    drop(handle);
    let url = clone.base_url();
    assert!(client().get(&url).send().await.is_ok(), "one handle is left");
    drop(clone);
    assert!(within(response.text()).await.is_err(), "open streams are dropped with the server");
    assert!(client().get(&url).send().await.is_err());

    let handle = provider(Behaviour::default()).await;
    handle.shutdown().await;
    assert!(client().get(handle.base_url()).send().await.is_err());
}

#[test]
fn the_book_is_bounded_and_its_totals_are_not() {
    let book = Arc::new(Book::new());
    let first = Arc::clone(&book).open(|number| number.to_string());
    for _ in 0..10_000 {
        let mut ticket = Arc::clone(&book).open(|number| number.to_string());
        ticket.reported(Usage { prompt_tokens: 1, ..Usage::default() });
        ticket.end(Outcome::Complete);
    }
    first.note(|_| panic!("a forgotten record cannot be changed"));
    drop(first);
    let records = book.records();
    assert_eq!(records.len(), 10_000);
    assert_eq!(records[0].id, "1");
    assert!(records.iter().all(|record| record.reported.is_some()));
    assert_eq!(book.reported().prompt_tokens, 10_000);
    assert_eq!(book.counters().in_flight, 0);
}
