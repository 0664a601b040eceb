use super::*;
use domain::{Classes, ModelId, Tokens, Usage};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};

const REASONS: [FinishReason; 5] = [
    FinishReason::Stop,
    FinishReason::Length,
    FinishReason::ContentFilter,
    FinishReason::ToolCalls,
    FinishReason::Other,
];
/// The metadata of [`metadata`], by which every protocol's exact bytes are told.
const METADATA: &str = concat!(
    r#"{"usage":{"promptTokens":34,"completionTokens":5,"totalTokens":39,"cachedPromptTokens":20,"reasoningTokens":2},"#,
    r#""receipt":"h1","charged":39,"clamped":false,"model":"gpt-6-luna"}"#
);

fn id() -> HoldId {
    HoldId::parse("h1").unwrap()
}

fn metadata() -> Metadata {
    let t = Tokens::from_u32;
    let classes =
        Classes { input: t(10), cached_input: t(20), cache_write: t(4), output: t(3), reasoning: t(2) };
    Metadata {
        usage: Usage::Exact(classes),
        receipt: Some((id(), t(39))),
        clamped: false,
        model: ModelId::parse("gpt-6-luna").unwrap(),
        replayed: false,
    }
}

#[track_caller]
fn check(bytes: &Bytes, expect: &[&str]) {
    let text = std::str::from_utf8(bytes).unwrap();
    assert_eq!(text, expect.concat());
}

/// Events of these data.
#[track_caller]
fn check_events(bytes: &Bytes, expect: &[&str]) {
    let text = std::str::from_utf8(bytes).unwrap();
    assert_eq!(text, format!("data: {}\n\n", expect.join("\n\ndata: ")));
}

#[test]
fn every_ui_message_chunk_is_exactly_what_the_sdk_takes() {
    let ui = Protocol::UiMessage;
    let settled = format!(r#"{{"type":"message-metadata","messageMetadata":{METADATA}}}"#);
    let (text_end, step_end) = (r#"{"type":"text-end","id":"t1"}"#, r#"{"type":"finish-step"}"#);
    check_events(
        &ui.start(&id()),
        &[
            r#"{"type":"start","messageId":"h1"}"#,
            r#"{"type":"start-step"}"#,
            r#"{"type":"text-start","id":"t1"}"#,
        ],
    );
    check_events(&ui.delta("Hel\n\"lo"), &[r#"{"type":"text-delta","id":"t1","delta":"Hel\n\"lo"}"#]);
    check(&ui.keep_alive().unwrap(), &[": keep-alive\n\n"]);
    check_events(
        &ui.finish(FinishReason::Stop, &metadata()),
        &[text_end, step_end, &settled, r#"{"type":"finish","finishReason":"stop"}"#, "[DONE]"],
    );
    let error = r#"{"type":"error","errorText":"It was \"cut\"."}"#;
    check_events(&ui.cut("It was \"cut\".", None), &[error, "[DONE]"]);
    check_events(&ui.cut("It was \"cut\".", Some(&metadata())), &[&settled, error, "[DONE]"]);
    let abort = r#"{"type":"abort"}"#;
    check_events(&ui.stopped(None), &[text_end, step_end, abort, "[DONE]"]);
    check_events(&ui.stopped(Some(&metadata())), &[text_end, step_end, &settled, abort, "[DONE]"]);
}

#[test]
fn every_data_stream_part_is_exactly_what_the_sdk_takes() {
    let data = Protocol::Data;
    let settled = format!("8:[{METADATA}]\n");
    let usage = r#""usage":{"promptTokens":34,"completionTokens":5}"#;
    let ended = |reason: &str| {
        let step = format!("e:{{\"finishReason\":\"{reason}\",{usage},\"isContinued\":false}}\n");
        format!("{step}d:{{\"finishReason\":\"{reason}\",{usage}}}\n")
    };
    check(&data.start(&id()), &["f:{\"messageId\":\"h1\"}\n"]);
    check(&data.delta("Hel\n\"lo"), &["0:\"Hel\\n\\\"lo\"\n"]);
    check(&data.keep_alive().unwrap(), &["0:\"\"\n"]);
    check(&data.finish(FinishReason::Stop, &metadata()), &[&settled, &ended("stop")]);
    check(&data.cut("It was \"cut\".", None), &["3:\"It was \\\"cut\\\".\"\n"]);
    check(&data.cut("cut", Some(&metadata())), &[&settled, "3:\"cut\"\n"]);
    check(&data.stopped(Some(&metadata())), &[&settled, &ended("other")]);
    check(
        &data.stopped(None),
        &["e:{\"finishReason\":\"other\",\"isContinued\":false}\n", "d:{\"finishReason\":\"other\"}\n"],
    );
}

#[test]
fn plain_text_is_the_text_and_an_error_is_text_too() {
    let text = Protocol::Text;
    check(&text.start(&id()), &[]);
    check(&text.delta("Hel\n\"lo"), &["Hel\n\"lo"]);
    assert_eq!(text.keep_alive(), None);
    check(&text.finish(FinishReason::Length, &metadata()), &[]);
    check(&text.cut("It was cut.", Some(&metadata())), &["\n\n[It was cut.]"]);
    check(&text.stopped(Some(&metadata())), &[]);
}

/// Names a member of the metadata, with what it is; none if it is absent.
#[track_caller]
fn check_metadata(metadata: &Metadata, expect: &Value) {
    let end = Protocol::Data.stopped(Some(metadata));
    let line = std::str::from_utf8(&end).unwrap().lines().next().unwrap();
    let found: Value = serde_json::from_str(line.strip_prefix("8:").unwrap()).unwrap();
    assert_eq!(found, json!([expect]));
}

#[test]
fn f06_parts_of_the_usage_are_parts_of_its_wholes() {
    check_metadata(&metadata(), &serde_json::from_str(METADATA).unwrap());
}

#[test]
fn an_estimate_says_so_and_a_missing_receipt_is_not_claimed() {
    let plain = Classes { input: Tokens::from_u32(4), output: Tokens::from_u32(1), ..Classes::default() };
    let usage = json!({"promptTokens": 4, "completionTokens": 1, "totalTokens": 5, "estimated": true});
    check_metadata(
        &Metadata { usage: Usage::Estimated(plain), receipt: None, clamped: true, ..metadata() },
        &json!({"usage": usage, "clamped": true, "model": "gpt-6-luna"}),
    );
}

#[test]
fn an_answer_that_is_given_again_says_so() {
    let mut expect: Value = serde_json::from_str(METADATA).unwrap();
    expect["replayed"] = json!(true);
    check_metadata(&Metadata { replayed: true, ..metadata() }, &expect);
}

#[test]
fn every_finish_reason_is_one_that_the_sdk_knows() {
    let known = ["stop", "length", "content-filter", "tool-calls", "error", "other"];
    for reason in REASONS {
        assert!(known.contains(&finish_reason(reason)));
    }
}

/// Names and values of the headers of an answer.
#[track_caller]
fn check_headers(protocol: Protocol, content_type: &str, own: Option<&str>) {
    let (_, chunks) = mpsc::channel(1);
    for answer in [protocol.streamed(chunks), protocol.whole(Bytes::new())] {
        let headers = answer.headers();
        assert_eq!(answer.status(), 200);
        assert_eq!(headers[header::CONTENT_TYPE], content_type);
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(headers["x-accel-buffering"], "no");
        let found: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("x-vercel-ai-")).collect();
        assert_eq!(found, Vec::from_iter(own));
        assert!(own.is_none_or(|name| headers[name] == "v1"));
    }
}

#[test]
fn an_answer_has_its_protocol_s_headers() {
    check_headers(Protocol::UiMessage, "text/event-stream", Some("x-vercel-ai-ui-message-stream"));
    check_headers(Protocol::Data, "text/plain; charset=utf-8", Some("x-vercel-ai-data-stream"));
    check_headers(Protocol::Text, "text/plain; charset=utf-8", None);
}

#[tokio::test]
async fn a_body_has_no_empty_pieces() {
    let (sender, chunks) = mpsc::channel(4);
    for piece in ["", "a", "", ""] {
        sender.send(Bytes::from(piece)).await.unwrap();
    }
    drop(sender);
    let mut body = Protocol::Text.streamed(chunks).into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert!(body.frame().await.is_none());
    assert!(Protocol::Text.whole(Bytes::new()).into_body().frame().await.is_none());
}

proptest! {
    #[test]
    fn any_text_comes_back_whole_from_every_protocol(text in ".*|[\u{0}-\u{ff}\u{2028}\u{2029}\n\r]*") {
        let bytes = Protocol::UiMessage.delta(&text);
        let event = std::str::from_utf8(&bytes).unwrap().strip_suffix("\n\n").unwrap();
        prop_assert!(!event.contains(['\n', '\r']));
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        prop_assert_eq!(chunk["delta"].as_str(), Some(text.as_str()));

        let bytes = Protocol::Data.delta(&text);
        let line = std::str::from_utf8(&bytes).unwrap().strip_suffix('\n').unwrap();
        prop_assert!(!line.contains(['\n', '\r']));
        let part: Value = serde_json::from_str(line.strip_prefix("0:").unwrap()).unwrap();
        prop_assert_eq!(part.as_str(), Some(text.as_str()));

        prop_assert_eq!(Protocol::Text.delta(&text), text.as_bytes());
    }
}
