use super::*;
use crate::{
    prompts::{Length, Platform, Tone},
    tests::menu,
    wire::Protocol,
};
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

fn headers(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

fn read(body: &str) -> Result<Wish, Problem> {
    parse(&headers("application/json"), body.as_bytes(), &menu())
}

/// What this problem is answered with, which repeats nothing of the request.
#[track_caller]
fn check_problem(
    problem: Problem,
    status: u16,
    code: &str,
    field: Option<&str>,
    limit: Option<u64>,
) -> String {
    let (head, text) = problem.into_response::<String>().into_parts();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(head.status, status, "{text}");
    assert_eq!(answer["code"], json!(code), "{text}");
    assert_eq!(answer.get("field"), field.map(|field| json!(field)).as_ref(), "{text}");
    assert_eq!(answer.get("limit"), limit.map(|limit| json!(limit)).as_ref(), "{text}");
    assert!(!text.contains("hunter2"), "the request was repeated: {text}");
    answer["detail"].as_str().unwrap().to_owned()
}

#[track_caller]
fn check(body: &str, status: u16, code: &str, field: Option<&str>, limit: Option<u64>) {
    check_problem(read(body).unwrap_err(), status, code, field, limit);
}

/// A field that is not what it has to be, in a body that is else right; the detail tells `hint`.
#[track_caller]
fn check_field(field: &str, value: &Value, hint: &str) {
    let mut body = json!({"prompt": "hunter2", "type": "social_post"});
    body[field] = value.clone();
    let detail = check_problem(read(&body.to_string()).unwrap_err(), 422, "invalid_field", Some(field), None);
    assert!(detail.contains(hint) && detail.contains(&format!("`{field}`")), "{value}: {detail}");
}

/// The options of a social post with this field.
#[track_caller]
fn options(field: &str, value: &Value) -> Options {
    let mut body = json!({"prompt": "x", "type": "social_post"});
    body[field] = value.clone();
    read(&body.to_string()).unwrap().options
}

#[test]
fn bad_input_is_refused_by_field_and_limit() {
    check("hunter2", 422, "invalid_json", None, None);
    check("", 422, "invalid_json", None, None);
    check("[\"hunter2\"]", 422, "invalid_json", None, None);
    check("\"hunter2\"", 422, "invalid_json", None, None);
    check(&"[".repeat(60_000), 422, "invalid_json", None, None);
    check(r#"{"prompt":"hunter2","type":"rewrite""#, 422, "invalid_json", None, None);
    check("{}", 422, "invalid_field", Some("prompt"), None);
    check(r#"{"type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
    check(r#"{"prompt":7,"type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
    check(r#"{"prompt":null,"type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
    check(r#"{"prompt":"","type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
    check(r#"{"prompt":" \n\t\u2003\u0000","type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
    check(r#"{"prompt":"hunter2"}"#, 422, "invalid_field", Some("type"), None);
    check(r#"{"prompt":"x","type":"hunter2"}"#, 422, "invalid_field", Some("type"), None);
    check(r#"{"prompt":"x","type":"Rewrite"}"#, 422, "invalid_field", Some("type"), None);
    check(r#"{"prompt":"x","type":["rewrite"]}"#, 422, "invalid_field", Some("type"), None);
    check(r#"{"prompt":"x","type":null}"#, 422, "invalid_field", Some("type"), None);
    check(r#"{"prompt":"x","type":"rewrite","model":"hunter2"}"#, 422, "unknown_model", Some("model"), None);
    check(r#"{"prompt":"x","type":"rewrite","model":""}"#, 422, "unknown_model", Some("model"), None);
    check(r#"{"prompt":"x","type":"rewrite","model":7}"#, 422, "invalid_field", Some("model"), None);
}

#[test]
fn a_prompt_is_bounded_in_bytes_and_a_body_too() {
    let with = |prompt: &str| json!({"prompt": prompt, "type": "rewrite"}).to_string();
    assert!(read(&with(&"ü".repeat(16_384))).is_ok());
    check(&with(&"ü".repeat(16_385)), 413, "prompt_too_long", Some("prompt"), Some(32_768));
    let body = with("x");
    let padded = |bytes: usize| format!("{body}{}", " ".repeat(bytes - body.len()));
    assert!(read(&padded(65_536)).is_ok());
    check(&padded(65_537), 413, "too_large", None, Some(65_536));
}

#[test]
fn an_unknown_name_is_told_which_there_are() {
    for (field, all) in [
        ("type", Kind::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>()),
        ("tone", Tone::ALL.iter().map(|one| one.as_str()).collect()),
        ("length", Length::ALL.iter().map(|one| one.as_str()).collect()),
        ("platform", Platform::ALL.iter().map(|one| one.as_str()).collect()),
    ] {
        for name in all {
            check_field(field, &json!("hunter2"), &format!("`{name}`"));
        }
    }
}

#[test]
fn what_the_hooks_add_is_let_through() {
    let body =
        r#"{"id":"x","trigger":"submit-message","messageId":"y","prompt":"Hi","type":"social_post","k":{}}"#;
    let wish = read(body).unwrap();
    assert_eq!(wish.kind, Kind::SocialPost);
    assert_eq!(wish.options, Options::NONE);
    assert_eq!(wish.turns, [turn(Speaker::User, "Hi")]);
    assert_eq!(wish.model, None);
    assert!(!format!("{wish:?}").contains("Hi"));
}

#[test]
fn a_model_is_taken_by_its_name_or_left_open() {
    let model = |value: Value| {
        let body = json!({"prompt": "Hi", "type": "rewrite", "model": value});
        read(&body.to_string()).unwrap().model.map(|price| price.model.as_str().to_owned())
    };
    assert_eq!(model(json!("gpt-4o-mini")).as_deref(), Some("gpt-4o-mini"));
    assert_eq!(model(Value::Null), None);
}

#[test]
fn only_json_is_read() {
    let body = br#"{"prompt":"Hi","type":"rewrite"}"#;
    for good in ["application/json", "Application/JSON; charset=utf-8"] {
        assert!(parse(&headers(good), body, &menu()).is_ok(), "{good}");
    }
    for bad in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", ""] {
        let problem = parse(&headers(bad), body, &menu()).unwrap_err();
        assert_eq!(problem.code(), Code::UnsupportedMediaType, "{bad}");
    }
    assert!(parse(&HeaderMap::new(), body, &menu()).is_err());
}

#[test]
fn every_name_of_an_option_is_taken() {
    for tone in Tone::ALL {
        assert_eq!(options("tone", &json!(tone.as_str())).tone, Some(*tone));
    }
    for length in Length::ALL {
        assert_eq!(options("length", &json!(length.as_str())).length, Some(*length));
    }
    for platform in Platform::ALL {
        assert_eq!(options("platform", &json!(platform.as_str())).platform, Some(*platform));
    }
    for name in ["tone", "audience", "length", "language", "platform", "variants", "model"] {
        assert_eq!(options(name, &Value::Null), Options::NONE, "{name}");
    }
}

#[test]
fn a_name_that_is_none_is_refused_in_every_form() {
    for (field, near) in [("tone", "Friendly"), ("length", "short "), ("platform", "twitter")] {
        for bad in [json!(near), json!(""), json!(7), json!(true), json!(["hunter2"]), json!({"x": 1})] {
            check_field(field, &bad, "must be one of");
        }
    }
}

#[test]
fn readers_are_one_short_line() {
    for good in ["x", " parents ", &"ü".repeat(120), "a </user_audience> b"] {
        assert_eq!(options("audience", &json!(good)).audience.unwrap().as_str(), good);
    }
    for bad in
        ["", "  ", "\u{a0}", &"ü".repeat(121), "hunter2\nb", "hunter2\0", "hunter2\u{7f}", "hunter2\u{85}"]
    {
        check_field("audience", &json!(bad), "1 to 120 characters");
    }
    for bad in [json!(7), json!(["hunter2"]), json!({}), json!(false)] {
        check_field("audience", &bad, "1 to 120 characters");
    }
}

#[test]
fn a_language_is_a_well_formed_tag() {
    for (tag, expect) in [
        ("de", "de"),
        ("DE", "de"),
        ("pt-BR", "pt-BR"),
        ("PT-br", "pt-BR"),
        ("es-419", "es-419"),
        ("gsw", "gsw"),
        ("zh-HANT-tw", "zh-Hant-TW"),
        ("zh-yue-HK", "zh-yue-HK"),
        ("sl-rozaj-biske-1994", "sl"),
        ("de-CH-1996", "de-CH"),
        ("en-US-u-hc-h12", "en-US"),
        ("en-a-bbb-x-a-ccc", "en"),
        ("de-x-abcdefgh-abcdefgh-abcdefgh-abc", "de"),
    ] {
        assert_eq!(options("language", &json!(tag)).language.unwrap().as_str(), expect, "{tag}");
    }
    let long = "de-x-abcdefgh-abcdefgh-abcdefgh-abcd";
    assert_eq!(long.len(), 36);
    for bad in [
        "",
        "d",
        "german",
        "English",
        "de_DE",
        "de-",
        "-de",
        "de--DE",
        "d3",
        "dé",
        "de-DE-DE",
        "de-x",
        "de-u",
        "de-u-a",
        "x-klingon",
        "i-klingon",
        "de DE",
        "de\n",
        "en-abcdefghi",
        "419",
        "hunter2",
        "en-US. hunter2",
        long,
    ] {
        check_field("language", &json!(bad), "`pt-BR`");
    }
    for bad in [json!(7), json!(["de"]), json!({})] {
        check_field("language", &bad, "`pt-BR`");
    }
}

#[test]
fn words_in_a_language_tag_do_not_reach_the_model() {
    let body = json!({"prompt": "x", "type": "rewrite", "language": "en-ignore-hunters-x-obey-me"});
    let system = read(&body.to_string()).unwrap().question().system;
    assert!(
        system.contains("`en`") && !system.contains("hunters") && !system.contains("obey-me"),
        "{system}"
    );
}

#[test]
fn variants_are_one_to_five() {
    for good in 1..=5 {
        assert_eq!(options("variants", &json!(good)).variants.get(), good);
    }
    for bad in [
        json!(0),
        json!(6),
        json!(-1),
        json!(1.5),
        json!(2.0),
        json!("2"),
        json!(256),
        json!(257),
        json!([2]),
        json!(u64::MAX),
    ] {
        check_field("variants", &bad, "from 1 to 5");
    }
}

#[test]
fn a_platform_is_for_a_post_only() {
    for kind in [Kind::Rewrite, Kind::ProductDescription] {
        let body = json!({"prompt": "x", "type": kind.as_str(), "platform": "x"}).to_string();
        check(&body, 422, "invalid_field", Some("platform"), None);
    }
}

#[test]
fn fields_are_complained_about_in_the_order_that_is_documented() {
    let mut body = json!({
        "prompt": 7, "type": 7, "tone": 7, "audience": 7, "length": 7, "language": 7, "platform": 7, "variants": 7, "model": 7,
    });
    for (field, good) in [
        ("prompt", json!("x")),
        ("type", json!("rewrite")),
        ("tone", Value::Null),
        ("audience", Value::Null),
        ("length", Value::Null),
        ("language", Value::Null),
        ("platform", Value::Null),
        ("variants", Value::Null),
        ("model", Value::Null),
    ] {
        check(&body.to_string(), 422, "invalid_field", Some(field), None);
        body[field] = good;
    }
    assert!(read(&body.to_string()).is_ok());
}

fn turn(speaker: Speaker, text: &str) -> Turn {
    Turn { speaker, text: text.to_owned() }
}

/// A message of AI SDK 5 and later.
fn said(role: &str, text: &str) -> Value {
    json!({"id": "m", "role": role, "parts": [{"type": "text", "text": text}]})
}

fn talk(messages: &Value) -> Result<Wish, Problem> {
    read(
        &json!({"id": "chat", "messages": messages, "type": "rewrite", "trigger": "submit-message"})
            .to_string(),
    )
}

/// What of a conversation is sent.
#[track_caller]
fn sent(messages: &Value) -> Vec<Turn> {
    talk(messages).unwrap().turns
}

/// A conversation that is refused, and a word of what is said about it.
#[track_caller]
fn check_talk(messages: &Value, hint: &str) {
    let detail = check_problem(talk(messages).unwrap_err(), 422, "invalid_field", Some("messages"), None);
    assert!(detail.contains(hint), "{messages}: {detail}");
}

#[test]
fn a_conversation_is_read_in_the_form_of_every_version() {
    let expect = [
        turn(Speaker::User, "Hi"),
        turn(Speaker::Assistant, "Hello"),
        turn(Speaker::User, "Shorter, please"),
    ];
    let v4 = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Shorter, please"},
    ]);
    let v4_with_parts = json!([
        {"role": "user", "content": "Hi", "parts": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello", "annotations": [{"charged": 1}], "revisionId": "r", "id": "h1",
         "parts": [{"type": "step-start"}, {"type": "text", "text": "Hello"}]},
        {"role": "user", "content": "Shorter, please", "parts": [], "experimental_attachments": []},
    ]);
    let v5 = json!([
        said("user", "Hi"),
        {"id": "h1", "role": "assistant", "metadata": {"charged": 1},
         "parts": [{"type": "step-start"}, {"type": "text", "text": "Hello", "state": "done"}, {"type": "reasoning", "text": "hm"},
                   {"type": "file", "url": "data:"}, 7, {}]},
        {"id": "m2", "role": "user", "parts": [{"type": "text", "text": "Shorter, please"}]},
    ]);
    for messages in [v4, v4_with_parts, v5] {
        assert_eq!(sent(&messages), expect);
    }
}

#[test]
fn texts_of_one_message_are_joined_by_an_empty_line() {
    let parts = json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]);
    assert_eq!(sent(&json!([{"role": "user", "parts": parts}])), [turn(Speaker::User, "one\n\ntwo")]);
}

#[test]
fn a_text_comes_in_a_prompt_or_in_messages() {
    let both = json!({"prompt": "hunter2", "messages": [said("user", "x")], "type": "rewrite"}).to_string();
    check(&both, 422, "invalid_field", Some("prompt"), None);
    let null = json!({"prompt": null, "messages": [said("user", "x")], "type": "rewrite"}).to_string();
    assert_eq!(read(&null).unwrap().turns, [turn(Speaker::User, "x")]);
}

#[test]
fn messages_that_cannot_be_read_are_refused() {
    for bad in [json!("hunter2"), json!({}), json!(7), json!(true)] {
        check_talk(&bad, "a list");
    }
    for bad in [json!(["hunter2"]), json!([null]), json!([[]])] {
        check_talk(&bad, "an object");
    }
    for role in [
        json!("system"),
        json!("data"),
        json!("tool"),
        json!("developer"),
        json!("User"),
        json!("hunter2"),
        json!(7),
        Value::Null,
    ] {
        check_talk(
            &json!([{"role": role, "content": "hunter2"}, said("user", "x")]),
            "`user` or `assistant`",
        );
    }
    check_talk(&json!([]), "must be one of role `user`");
    check_talk(&json!([said("user", "x"), said("assistant", "hunter2")]), "must be one of role `user`");
    for bad in [
        json!({"role": "user"}),
        json!({"role": "user", "content": 7}),
        json!({"role": "user", "parts": "hunter2"}),
        json!({"role": "user", "parts": [], "content": ["hunter2"]}),
        json!({"role": "assistant", "content": null}),
    ] {
        check_talk(&json!([bad, said("user", "x")]), "in `parts`, a list, or in `content`, a string");
    }
    for blank in ["", " \n", "\u{0}\u{2003}"] {
        check_talk(&json!([said("user", blank)]), "must not be blank");
    }
    check_talk(&json!([{"role": "user", "parts": []}]), "must not be blank");
    for role in ["user", "assistant"] {
        for text in [json!(7), Value::Null, json!(["hunter2"])] {
            let message = json!({"role": role, "parts": [{"type": "text", "text": text}]});
            check_talk(&json!([message, said("user", "x")]), "a string in `text`");
        }
    }
}

#[test]
fn files_are_refused_with_a_way_out() {
    let text = json!({"type": "text", "text": "hunter2"});
    let file = json!({"type": "file", "mediaType": "text/plain", "url": "data:text/plain,hunter2"});
    check_talk(&json!([{"role": "user", "parts": [text, file]}]), "paste its text");
    let attachments = json!([{"name": "hunter2.txt", "url": "data:text/plain,hunter2"}]);
    check_talk(
        &json!([{"role": "user", "content": "x", "experimental_attachments": attachments}]),
        "paste its text",
    );
    for other in [json!({"type": "data-x", "data": "hunter2"}), json!({}), json!("hunter2")] {
        check_talk(&json!([{"role": "user", "parts": [text, other]}]), "type `text` only");
    }
}

#[test]
fn of_a_long_conversation_the_newest_messages_are_sent() {
    let messages = |count: usize| {
        let one = |n: usize| said(if n.is_multiple_of(2) { "user" } else { "assistant" }, &n.to_string());
        Value::Array((0..count).map(one).collect())
    };
    let texts = |count| sent(&messages(count)).iter().map(|turn| turn.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(19).first().unwrap(), "0");
    // Of 21 messages the newest 20 begin with the assistant's, which is left out.
    assert_eq!(texts(21).len(), 19);
    assert_eq!(texts(21).first().unwrap(), "2");
    assert_eq!(texts(21).last().unwrap(), "20");
    let monologue = |count: usize| Value::Array((0..count).map(|n| said("user", &n.to_string())).collect());
    assert_eq!(sent(&monologue(20)).len(), 20);
    assert_eq!(sent(&monologue(21)).len(), 20);
    assert_eq!(sent(&monologue(21))[0].text, "1");
}

#[test]
fn a_conversation_is_cut_at_the_exact_byte() {
    let first = |old: usize, mine: usize, last: usize| {
        let texts = [("user", old), ("assistant", mine), ("user", last)];
        let messages = texts.map(|(role, bytes)| said(role, &"ü".repeat(bytes / 2)));
        sent(&Value::Array(messages.into())).len()
    };
    assert_eq!(first(2, 30_000, 2_766), 3, "32,768 bytes");
    assert_eq!(first(4, 30_000, 2_766), 1, "32,770 bytes: an answer without its question is not sent");
    assert_eq!(first(2, 30_002, 2_766), 1);
    assert_eq!(first(2, 2, 32_764), 3);
    assert_eq!(first(2, 2, 32_766), 1);
    assert_eq!(first(2, 2, 32_768), 1);
    let long = json!([said("user", "a"), said("user", &"x".repeat(32_769))]);
    check_problem(talk(&long).unwrap_err(), 413, "prompt_too_long", Some("messages"), Some(32_768));
}

#[test]
fn a_message_that_does_not_fit_ends_the_conversation_also_where_an_older_one_would() {
    let messages = json!([said("user", "old"), said("user", &"x".repeat(32_768)), said("user", "new")]);
    assert_eq!(sent(&messages), [turn(Speaker::User, "new")]);
}

#[test]
fn messages_without_text_are_passed_over() {
    let mut messages = vec![said("user", "first")];
    messages.extend(
        (0..30).map(
            |_| json!({"role": "assistant", "parts": [{"type": "tool-x", "state": "output-available"}]}),
        ),
    );
    messages.extend([said("user", " "), said("user", "last")]);
    assert_eq!(sent(&Value::Array(messages)), [turn(Speaker::User, "first"), turn(Speaker::User, "last")]);
    assert_eq!(
        sent(&json!([said("assistant", "Welcome!"), said("user", "Hi")])),
        [turn(Speaker::User, "Hi")]
    );
}

#[test]
fn a_conversation_is_asked_as_one() {
    let asked = talk(&json!([said("user", "Hi"), said("assistant", "Hello"), said("user", "Shorter")]))
        .unwrap()
        .question();
    assert_eq!(asked.turns.len(), 3);
    assert!(asked.turns[2].text.contains("Shorter") && asked.system.contains("conversation"));
}

fn with(name: &'static str, values: &[&str]) -> HeaderMap {
    let name = HeaderName::from_static(name);
    values.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
}

#[test]
fn a_protocol_is_asked_for_by_query_or_header() {
    let asked = |query, values: &[&str]| protocol(query, &with("x-inkmeter-protocol", values)).unwrap();
    assert_eq!(asked(None, &[]), Protocol::UiMessage);
    for one in Protocol::ALL {
        assert_eq!(asked(Some(one.as_str()), &[]), one);
        assert_eq!(asked(None, &[one.as_str()]), one);
        assert_eq!(asked(Some(one.as_str()), &["hunter2"]), one, "the query wins");
    }
}

#[test]
fn a_protocol_that_is_none_is_refused() {
    let refused = |query, values: &[&str]| {
        let problem = protocol(query, &with("x-inkmeter-protocol", values)).unwrap_err();
        let detail = check_problem(problem, 422, "invalid_field", Some("protocol"), None);
        assert!(detail.contains("`ui-message`, `data`, `text`"), "{detail}");
    };
    for bad in ["", "hunter2", "Data", "ui_message", "datä"] {
        refused(Some(bad), &["data"]);
        refused(None, &[bad]);
    }
    refused(None, &["data", "data"]);
    refused(None, &["data, text"]);
}

#[test]
fn an_idempotency_key_is_short_and_visible() {
    let key = |values: &[&str]| idempotency_key(&with("idempotency-key", values));
    assert_eq!(key(&[]).unwrap(), None);
    for good in ["k", "!~", "\"quoted\"", "a/b%20c", &"k".repeat(255)] {
        assert_eq!(key(&[good]).unwrap().unwrap().as_str(), good);
        assert_eq!(IdempotencyKey::parse(good).unwrap().as_str(), good);
    }
    for bad in ["", "hunter2 x", "hunter2\u{9}", "hünter2", &"k".repeat(256)] {
        let detail =
            check_problem(key(&[bad]).unwrap_err(), 422, "invalid_field", Some("idempotency-key"), None);
        assert!(detail.contains("1 to 255"), "{detail}");
        assert_eq!(IdempotencyKey::parse(bad), Err(InvalidIdempotencyKey), "{bad}");
    }
    for bad in ["hunter2\n", "hunter2\0", "\u{7f}"] {
        assert_eq!(IdempotencyKey::parse(bad), Err(InvalidIdempotencyKey), "{bad:?}");
    }
    check_problem(
        key(&["hunter2", "hunter2"]).unwrap_err(),
        422,
        "invalid_field",
        Some("idempotency-key"),
        None,
    );
    let printed =
        format!("{:?} {:?}", IdempotencyKey::parse("hunter2").unwrap(), IdempotencyKey::parse("hunter 2"));
    assert!(!printed.contains("hunter"), "{printed}");
}

/// A value in which every text says the same, so that it can be looked for, and which is often nearly what is asked for.
fn any_json() -> impl Strategy<Value = Value> {
    let known = [
        "user",
        "assistant",
        "text",
        "rewrite",
        "social_post",
        "friendly",
        "short",
        "de",
        "x",
        "file",
        "gpt-4o-mini",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..7_u8).prop_map(Value::from),
        "hunter2[\u{0}-\u{2ff}]{0,40}".prop_map(Value::from),
        prop::sample::select(known.to_vec()).prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "prompt",
        "messages",
        "type",
        "tone",
        "audience",
        "length",
        "language",
        "platform",
        "variants",
        "model",
        "role",
        "parts",
        "content",
        "text",
        "id",
        "experimental_attachments",
        "hunter2",
    ]);
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..8).prop_map(|fields| fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Value>()),
        ]
    })
}

/// A body in which fields are as often right as wrong.
fn any_body() -> impl Strategy<Value = Value> {
    let good = [
        ("prompt", json!("hunter2")),
        ("messages", json!([said("user", "hunter2")])),
        ("type", json!("social_post")),
        ("tone", json!("bold")),
        ("audience", json!("hunter2")),
        ("length", json!("long")),
        ("language", json!("de")),
        ("platform", json!("x")),
        ("variants", json!(2)),
        ("model", json!("gpt-4o-mini")),
    ];
    good.map(|(name, value)| {
        prop_oneof![3 => Just(None), 6 => Just(Some(value)), 1 => any_json().prop_map(Some)]
            .prop_map(move |value| (name, value))
    })
    .to_vec()
    .prop_map(|fields| {
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

/// A body is read or refused, a refusal repeats nothing of it, and what is read is within its bounds.
fn check_any(body: &[u8]) -> Result<(), TestCaseError> {
    match parse(&headers("application/json"), body, &menu()) {
        Err(problem) => {
            let text = problem.into_response::<String>().into_body();
            prop_assert!(!text.contains("hunter2"), "{}", text);
        }
        Ok(wish) => {
            prop_assert!(!wish.turns.is_empty() && wish.turns.len() <= MESSAGES_MAX);
            prop_assert!(wish.turns.iter().map(|turn| turn.text.len()).sum::<usize>() <= PROMPT_BYTES_MAX);
            prop_assert!(
                [wish.turns.first(), wish.turns.last()]
                    .iter()
                    .all(|turn| turn.unwrap().speaker == Speaker::User)
            );
            let asked = wish.question();
            prop_assert!(!asked.system.contains("hunter2"), "{}", asked.system);
            let printed = format!("{wish:?} {asked:?}");
            prop_assert!(!printed.contains("hunter2"), "{}", printed);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused_without_repeating_it(body in any_json()) {
        check_any(body.to_string().as_bytes())?;
    }

    #[test]
    fn a_body_that_is_nearly_right_is_read_or_refused_without_repeating_it(body in any_body()) {
        check_any(body.to_string().as_bytes())?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        check_any(&body)?;
    }

    #[test]
    fn any_conversation_is_cut_within_its_bounds(
        lengths in prop::collection::vec((any::<bool>(), prop_oneof![0..4_usize, 0..12_000_usize]), 1..40)
    ) {
        let messages: Vec<_> = lengths.iter().map(|(mine, bytes)| said(if *mine { "assistant" } else { "user" }, &"x".repeat(*bytes))).collect();
        let body = json!({"messages": messages, "type": "rewrite"}).to_string();
        if body.len() <= BODY_BYTES_MAX {
            check_any(body.as_bytes())?;
        }
    }
}
