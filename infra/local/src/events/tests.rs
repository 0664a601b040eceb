//! The bus's stand-in, over raw HTTP: what is accepted, what is refused, and every fault.

use serde_json::{Value, json};

use super::*;
use crate::serve::testing::{client, listener, within};

const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261124/eu-central-1/events/aws4_request, \
     SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
     Signature=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

async fn bus() -> Handle {
    let buses = vec!["default".to_owned(), "inkmeter".to_owned()];
    start(listener().await, Options { buses, ..Options::default() }).await.unwrap()
}

fn entry(changes: &Value) -> Value {
    let mut entry = json!({
        "Source": "inkmeter.reporter", "DetailType": "report parked", "Detail": "{\"user\":\"u\"}",
        "EventBusName": "inkmeter",
    });
    for (key, value) in changes.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry
}

fn head() -> Vec<(&'static str, String)> {
    vec![
        ("x-amz-target", "AWSEvents.PutEvents".to_owned()),
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("x-amz-date", "20261124T110000Z".to_owned()),
        ("authorization", AUTHORIZATION.to_owned()),
    ]
}

async fn send(
    handle: &Handle,
    head: &[(&'static str, String)],
    body: String,
) -> reqwest::Result<(u16, Value)> {
    let mut request = client().post(handle.base_url()).body(body);
    for (name, value) in head {
        request = request.header(*name, value);
    }
    let response = request.send().await?;
    assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.1");
    Ok((response.status().as_u16(), response.json().await?))
}

async fn put(handle: &Handle, entries: &Value) -> (u16, Value) {
    send(handle, &head(), json!({"Entries": entries}).to_string()).await.unwrap()
}

#[tokio::test]
async fn events_are_taken_in_order_and_can_be_looked_at() {
    let bus = bus().await;
    let arn = "arn:aws:events:eu-central-1:123456789012:event-bus/inkmeter";
    let entries = json!([
        entry(&json!({"Time": 1_800_000_000, "Resources": ["arn:x"], "TraceHeader": "Root=1"})),
        entry(&json!({"EventBusName": arn, "Detail": "{}"})),
        entry(&json!({"EventBusName": null})),
    ]);
    let (status, answer) = put(&bus, &entries).await;
    assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)));
    let events = within(bus.until_taken(3)).await;
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let answered: Vec<&str> = answer["Entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["EventId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, answered);
    assert_eq!(ids[0].len(), 36);
    let buses: Vec<&str> = events.iter().map(|event| event.bus.as_str()).collect();
    assert_eq!(buses, ["inkmeter", "inkmeter", "default"]);
    assert_eq!(events[0].source, "inkmeter.reporter");
    assert_eq!(events[0].detail_type, "report parked");
    assert_eq!(Value::Object(events[0].detail.clone()), json!({"user": "u"}));
    assert_eq!(events[0].resources, ["arn:x"]);
    assert_eq!(events[0].time_s, Some(1_800_000_000.into()));
}

#[tokio::test]
async fn an_entry_that_is_wrong_fails_alone() {
    let bus = bus().await;
    let wrong = [
        (json!({"Source": null}), "InvalidArgument", "Parameter Source is not valid"),
        (json!({"Source": "s".repeat(257)}), "InvalidArgument", "longer than 256"),
        (json!({"Source": "aws.ec2"}), "NotAuthorizedForSourceException", "Not authorized"),
        (json!({"DetailType": ""}), "InvalidArgument", "Parameter DetailType is not valid"),
        (json!({"DetailType": "d".repeat(129)}), "InvalidArgument", "longer than 128"),
        (json!({"Detail": null}), "InvalidArgument", "Parameter Detail is not valid"),
        (json!({"Detail": "{"}), "MalformedDetail", "Detail is malformed."),
        (json!({"Detail": "[1]"}), "MalformedDetail", "Detail is malformed."),
        (json!({"EventBusName": "nobody"}), "InvalidArgument", "the event bus does not exist"),
    ];
    for (changes, code, message) in wrong {
        let (status, answer) = put(&bus, &json!([entry(&json!({})), entry(&changes)])).await;
        assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(1)), "{changes}");
        assert!(answer["Entries"][0]["EventId"].is_string());
        assert_eq!(answer["Entries"][1]["ErrorCode"], code, "{changes}");
        assert!(answer["Entries"][1]["ErrorMessage"].as_str().unwrap().contains(message), "{changes}");
        assert_eq!(answer["Entries"][1].get("EventId"), None);
    }
    assert_eq!(bus.events().len(), 9);
}

#[tokio::test]
async fn a_malformed_request_is_refused_as_a_whole() {
    let bus = bus().await;
    let eleven = Value::Array(vec![entry(&json!({})); 11]);
    for (body, kind, message) in [
        ("{".to_owned(), "SerializationException", "not a JSON object"),
        ("[]".to_owned(), "SerializationException", "not a JSON object"),
        ("{}".to_owned(), "ValidationException", "must not be null"),
        (json!({"Entries": "x"}).to_string(), "SerializationException", "not a list"),
        (json!({"Entries": []}).to_string(), "ValidationException", "greater than or equal to 1"),
        (json!({"Entries": eleven}).to_string(), "ValidationException", "less than or equal to 10"),
        (json!({"Entries": [1]}).to_string(), "SerializationException", "not an object"),
        (json!({"Entries": [], "Colour": 1}).to_string(), "SerializationException", "'Colour'"),
        (
            json!({"Entries": [entry(&json!({"Colour": 1}))]}).to_string(),
            "SerializationException",
            "'Colour'",
        ),
        (
            json!({"Entries": [entry(&json!({"Source": 1}))]}).to_string(),
            "SerializationException",
            "'Source'",
        ),
        (
            json!({"Entries": [entry(&json!({"Detail": {}}))]}).to_string(),
            "SerializationException",
            "'Detail'",
        ),
        (
            json!({"Entries": [entry(&json!({"Time": "now"}))]}).to_string(),
            "SerializationException",
            "'Time'",
        ),
        (
            json!({"Entries": [entry(&json!({"Resources": [1]}))]}).to_string(),
            "SerializationException",
            "Resources",
        ),
    ] {
        let (status, answer) = send(&bus, &head(), body.clone()).await.unwrap();
        assert_eq!((status, answer["__type"].as_str().unwrap()), (400, kind), "{body}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{body}: {answer}");
    }
    assert!(bus.events().is_empty());
    assert_eq!(bus.requests(), 13);
}

#[tokio::test]
async fn a_wrong_head_is_refused_before_the_body_is_read() {
    let bus = bus().await;
    let signed = |from: &str, to: &str| Some(AUTHORIZATION.replace(from, to));
    for (name, value, kind, message) in [
        ("x-amz-target", None, "UnknownOperationException", "missing target"),
        ("x-amz-target", Some("AWSEvents.PutRule".to_owned()), "UnknownOperationException", "PutRule"),
        ("content-type", Some("application/json".to_owned()), "SerializationException", "Content-Type"),
        ("authorization", None, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ("authorization", Some("Bearer x".to_owned()), "IncompleteSignatureException", "AWS4-HMAC-SHA256"),
        ("x-amz-date", None, "IncompleteSignatureException", "X-Amz-Date"),
        ("authorization", signed("/events/", "/dynamodb/"), "InvalidSignatureException", "service: 'events'"),
        ("authorization", signed("aws4_request", "aws5"), "InvalidSignatureException", "terminator"),
        ("authorization", signed("20261124", "20261123"), "InvalidSignatureException", "Date in Credential"),
        ("authorization", signed("AKIDEXAMPLE/", ""), "IncompleteSignatureException", "five parts"),
        ("authorization", signed(";x-amz-target", ""), "InvalidSignatureException", "'x-amz-target'"),
        ("authorization", signed("=aaaa", "="), "IncompleteSignatureException", "64 hex"),
    ] {
        let mut head = head();
        head.retain(|(header, _)| *header != name);
        head.extend(value.clone().map(|value| (name, value)));
        let (status, answer) = send(&bus, &head, "nonsense".to_owned()).await.unwrap();
        assert_eq!((status, answer["__type"].as_str().unwrap()), (400, kind), "{name} {value:?}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{name} {value:?}: {answer}");
    }
}

#[tokio::test]
async fn the_limit_counts_time_texts_and_resources_to_the_byte() {
    let bus = bus().await;
    let sized = |bytes: usize| {
        let fixed =
            14 + "inkmeter.reporter".len() + "report parked".len() + "arn:x".len() + r#"{"a":""}"#.len();
        let detail = format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - fixed));
        json!([entry(&json!({"Time": 1, "Resources": ["arn:x"], "Detail": detail}))])
    };
    assert_eq!(put(&bus, &sized(1_048_576)).await.0, 200);
    let (status, answer) = put(&bus, &sized(1_048_577)).await;
    assert_eq!((status, answer["__type"].as_str().unwrap()), (400, "ValidationException"));
    assert_eq!(answer["message"], "Total size of the entries in the request is over the limit.");
    let half = sized(600_000)[0].clone();
    assert_eq!(put(&bus, &json!([half, half])).await.0, 400, "the entries count together");
    let (status, _) = send(&bus, &head(), " ".repeat(4 * 1_024 * 1_024 + 1)).await.unwrap();
    assert_eq!(status, 413);
}

#[tokio::test]
async fn faults_are_played_once_each_and_in_order() {
    let bus = bus().await;
    for fault in [
        Fault::Throttle,
        Fault::InternalError,
        Fault::FailEntries(vec![0, 2], EntryFault::Throttling),
        Fault::FailEntries(vec![1], EntryFault::InternalFailure),
    ] {
        assert!(bus.inject(fault));
    }
    let three = json!([entry(&json!({})), entry(&json!({})), entry(&json!({}))]);
    let (status, answer) = put(&bus, &three).await;
    assert_eq!((status, answer["__type"].as_str().unwrap()), (400, "ThrottlingException"));
    let (status, answer) = put(&bus, &three).await;
    assert_eq!((status, answer["__type"].as_str().unwrap()), (500, "InternalException"));
    assert!(bus.events().is_empty());
    let (_, answer) = put(&bus, &three).await;
    assert_eq!(answer["FailedEntryCount"], 2);
    assert_eq!(answer["Entries"][0]["ErrorCode"], "ThrottlingException");
    assert!(answer["Entries"][1]["EventId"].is_string());
    let (_, answer) = put(&bus, &three).await;
    assert_eq!(answer["FailedEntryCount"], 1);
    assert_eq!(answer["Entries"][1]["ErrorCode"], "InternalFailure");
    assert_eq!(put(&bus, &three).await.1["FailedEntryCount"], 0);
    assert_eq!(bus.events().len(), 1 + 2 + 3);
}

#[tokio::test]
async fn a_lost_answer_leaves_its_events_behind() {
    let bus = bus().await;
    assert!(bus.inject(Fault::LoseAnswer));
    let body = json!({"Entries": [entry(&json!({}))]}).to_string();
    assert!(send(&bus, &head(), body.clone()).await.is_err());
    assert_eq!(within(bus.until_taken(1)).await.len(), 1);
    send(&bus, &head(), body).await.unwrap();
    assert_eq!(bus.events().len(), 2, "a sender that tries again delivers twice, as on AWS");
}

#[tokio::test]
async fn faults_wait_in_a_bounded_queue() {
    let bus = bus().await;
    assert!((0..1_000).all(|_| bus.inject(Fault::Throttle)));
    assert!(!bus.inject(Fault::Throttle));
}

#[tokio::test]
async fn the_last_handle_stops_the_server() {
    let bus = bus().await;
    let url = bus.base_url();
    assert!(client().get(&url).send().await.is_ok());
    drop(bus);
    assert!(client().get(&url).send().await.is_err());
}
