//! Builds the event that API Gateway's REST flavour (payload version 1) hands to a function.

use std::{collections::BTreeMap, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header, request::Parts};
use serde_json::{Map, Value, json};

/// Headers of one connection only; a gateway does not pass them on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// What an event is made of, besides the request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) resource: &'a str,
    /// Still encoded.
    pub(super) parameters: &'a BTreeMap<String, String>,
    pub(super) stage: &'a str,
    pub(super) request_id: &'a str,
    pub(super) peer: SocketAddr,
    /// Milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// The event of one request, as JSON.
pub(super) fn proxy_event(call: &Call<'_>, parts: &Parts, body: &Bytes) -> Bytes {
    let headers = forwarded(&parts.headers, call);
    let (single, multi) = both(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let query = parts.uri.query().unwrap_or_default();
    let query: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    let (query, multi_query) = both(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let (body, is_base64) = text_of(body);
    let event = json!({
        "resource": call.resource,
        "path": parts.uri.path(),
        "httpMethod": parts.method.as_str(),
        "headers": single,
        "multiValueHeaders": multi,
        "queryStringParameters": null_if_empty(query),
        "multiValueQueryStringParameters": null_if_empty(multi_query),
        "pathParameters": null_if_empty(decoded(call.parameters)),
        "stageVariables": Value::Null,
        "requestContext": context(call, parts),
        "body": body,
        "isBase64Encoded": is_base64,
    });
    Bytes::from(event.to_string())
}

fn context(call: &Call<'_>, parts: &Parts) -> Value {
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
    let time = chrono::DateTime::from_timestamp_millis(call.now_ms).unwrap_or_default();
    json!({
        "accountId": "123456789012",
        "apiId": "local",
        "domainName": host,
        "domainPrefix": "local",
        "extendedRequestId": call.request_id,
        "httpMethod": parts.method.as_str(),
        "identity": {
            "accessKey": null,
            "accountId": null,
            "caller": null,
            "cognitoAuthenticationProvider": null,
            "cognitoAuthenticationType": null,
            "cognitoIdentityId": null,
            "cognitoIdentityPoolId": null,
            "principalOrgId": null,
            "sourceIp": call.peer.ip().to_string(),
            "user": null,
            "userAgent": user_agent,
            "userArn": null,
        },
        "path": format!("/{}{}", call.stage, parts.uri.path()),
        "protocol": format!("{:?}", parts.version),
        "requestId": call.request_id,
        "requestTime": time.format("%d/%b/%Y:%H:%M:%S +0000").to_string(),
        "requestTimeEpoch": call.now_ms,
        "resourceId": "local",
        "resourcePath": call.resource,
        "stage": call.stage,
    })
}

/// The client's headers without those of its connection, and with those that the gateway adds.
fn forwarded(headers: &HeaderMap, call: &Call<'_>) -> Vec<(String, String)> {
    let passed = headers.iter().filter(|(name, _)| !HOP_BY_HOP.contains(name) && *name != "keep-alive");
    let mut all: Vec<(String, String)> = passed
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    for (name, value) in [
        (
            "X-Amzn-Trace-Id",
            format!("Root=1-{:08x}-{:024x}", call.now_ms / 1000, rand::random::<u128>() >> 32),
        ),
        ("X-Forwarded-For", call.peer.ip().to_string()),
        ("X-Forwarded-Port", call.peer.port().to_string()),
        ("X-Forwarded-Proto", "http".to_owned()),
    ] {
        all.retain(|(existing, _)| !existing.eq_ignore_ascii_case(name));
        all.push((name.to_owned(), value));
    }
    all
}

/// The two forms in which an event holds a multimap: the last value of each name, and all of them.
fn both<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> (Map<String, Value>, Map<String, Value>) {
    let mut single = Map::new();
    let mut multi: Map<String, Value> = Map::new();
    for (name, value) in pairs {
        single.insert(name.to_owned(), Value::from(value));
        let values = multi.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(Value::from(value));
        }
    }
    (single, multi)
}

fn decoded(parameters: &BTreeMap<String, String>) -> Map<String, Value> {
    parameters.iter().map(|(name, value)| (name.clone(), Value::from(percent_decoded(value)))).collect()
}

/// Decodes `%XX`; what is not valid stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn null_if_empty(map: Map<String, Value>) -> Value {
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}

/// A body that is text goes as it is. One that is not goes in base64, as for an API with binary media types.
fn text_of(body: &Bytes) -> (Value, bool) {
    if body.is_empty() {
        return (Value::Null, false);
    }
    match std::str::from_utf8(body) {
        Ok(text) => (Value::from(text), false),
        Err(_) => (Value::from(STANDARD.encode(body)), true),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use http::Request;
    use serde_json::{Value, json};

    use super::{Call, percent_decoded, proxy_event};

    fn event(request: http::request::Builder, body: &'static [u8]) -> Value {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let parameters = BTreeMap::from([("id".to_owned(), "a%20b".to_owned())]);
        let call = Call {
            resource: "/v1/{id}",
            parameters: &parameters,
            stage: "local",
            request_id: "r-1",
            peer: "127.0.0.1:5000".parse().unwrap(),
            now_ms: 1_589_522_469_693,
        };
        serde_json::from_slice(&proxy_event(&call, &parts, &Bytes::from_static(body))).unwrap()
    }

    #[test]
    fn names_and_values_that_repeat_are_in_both_forms() {
        let request = Request::post("/v1/a%20b?tag=1&tag=two%20words&x=").header("a", "1").header("a", "2");
        let event = event(request, b"{}");
        assert_eq!(event["path"], "/v1/a%20b");
        assert_eq!(event["pathParameters"], json!({ "id": "a b" }));
        assert_eq!(event["queryStringParameters"], json!({ "tag": "two words", "x": "" }));
        assert_eq!(event["multiValueQueryStringParameters"], json!({ "tag": ["1", "two words"], "x": [""] }));
        assert_eq!(event["headers"]["a"], "2");
        assert_eq!(event["multiValueHeaders"]["a"], json!(["1", "2"]));
        assert_eq!(event["requestContext"]["requestTime"], "15/May/2020:06:01:09 +0000");
        assert_eq!(event["requestContext"]["path"], "/local/v1/a%20b");
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("{}"), &json!(false)));
    }

    #[test]
    fn what_is_empty_is_null_and_what_is_not_text_is_base64() {
        let empty = event(Request::get("/v1/a"), b"");
        assert_eq!(empty["body"], Value::Null);
        assert_eq!(empty["queryStringParameters"], Value::Null);
        let binary = event(Request::get("/v1/a"), b"\xff\x00");
        assert_eq!((&binary["body"], &binary["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
    }

    #[test]
    fn headers_of_the_connection_stay_here_and_the_gateways_own_cannot_be_forged() {
        let request =
            Request::get("/v1/a").header("connection", "close").header("x-forwarded-for", "1.2.3.4");
        let event = event(request, b"");
        assert_eq!(event["headers"].get("connection"), None);
        assert_eq!(event["headers"].get("x-forwarded-for"), None);
        assert_eq!(event["headers"]["X-Forwarded-For"], "127.0.0.1");
    }

    #[test]
    fn a_percent_sign_that_encodes_nothing_stays() {
        assert_eq!(percent_decoded("100%+%zz%4"), "100%+%zz%4");
        assert_eq!(percent_decoded("%E2%82%AC"), "€");
    }
}
