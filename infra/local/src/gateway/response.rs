//! Reads what functions answer: the buffered proxy response, and the metadata in front of a streamed body.
//!
//! Strict as API Gateway is: a response that it would call malformed is malformed here, and the client gets 502.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;

/// Between the metadata of a streamed response and its body.
const SEPARATOR: [u8; 8] = [0; 8];
/// The largest metadata of a streamed response, in bytes. API Gateway bounds all headers at 10,240.
pub(super) const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Headers that API Gateway's REST flavour answers under another name, because it sets or needs them itself.
const REMAPPED: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::DATE,
    header::MAX_FORWARDS,
    header::SERVER,
    header::WWW_AUTHENTICATE,
];
/// Headers of a function's answer that no client sees.
const DROPPED: [HeaderName; 3] = [header::TRANSFER_ENCODING, header::TRAILER, header::UPGRADE];

/// Why an answer cannot be passed on; the client only gets a 502.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("not the JSON of a proxy response: {0}")]
    Json(String),
    #[error("the status code {0} is none")]
    Status(u16),
    #[error("the header {0} cannot be sent")]
    Header(String),
    #[error("the body is not base64 though the response says so")]
    Base64,
    #[error("no metadata within the first {METADATA_BYTES_MAX} bytes")]
    NoMetadata,
}

/// The status line and headers of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProxyResponse {
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, Scalar>>,
    #[serde(default)]
    multi_value_headers: Option<BTreeMap<String, Vec<Scalar>>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    multi_value_headers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    cookies: Vec<String>,
}

/// API Gateway takes numbers and booleans for header values.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Bool(bool) => bool.to_string(),
        }
    }
}

/// Parses a buffered proxy response.
pub(super) fn parse_buffered(answer: &[u8]) -> Result<(Head, Bytes), Malformed> {
    let answer: ProxyResponse =
        serde_json::from_slice(answer).map_err(|error| Malformed::Json(error.to_string()))?;
    let mut headers = Headers::default();
    let multi = answer.multi_value_headers.unwrap_or_default();
    for (name, value) in answer.headers.unwrap_or_default() {
        // A name in both forms: the multi-value form has them all.
        if !multi.keys().any(|other| other.eq_ignore_ascii_case(&name)) {
            headers.add(&name, &value.into_text())?;
        }
    }
    for (name, values) in multi {
        for value in values {
            headers.add(&name, &value.into_text())?;
        }
    }
    let body = answer.body.unwrap_or_default();
    let body = if answer.is_base64_encoded == Some(true) {
        Bytes::from(STANDARD.decode(body).map_err(|_| Malformed::Base64)?)
    } else {
        Bytes::from(body)
    };
    // API Gateway's default for an answer that names no type.
    headers.0.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Ok((Head { status: status(answer.status_code)?, headers: headers.0 }, body))
}

/// Collects the metadata of a streamed response from its first chunks.
#[derive(Debug, Default)]
pub(super) struct MetadataReader {
    seen: BytesMut,
}

impl MetadataReader {
    /// Takes a chunk. `None`: the metadata goes on. Else the head, and what of the body came with it.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<Option<(Head, Bytes)>, Malformed> {
        // The separator may lie across two chunks.
        let from = self.seen.len().saturating_sub(SEPARATOR.len());
        self.seen.extend_from_slice(chunk);
        let searched = self.seen.get(from..).unwrap_or_default();
        let found = searched.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        match found.map(|at| from.saturating_add(at)) {
            Some(at) if at <= METADATA_BYTES_MAX => {
                let mut body = self.seen.split_off(at);
                let body = body.split_off(SEPARATOR.len()).freeze();
                Ok(Some((parse_metadata(&self.seen)?, body)))
            }
            Some(_) => Err(Malformed::NoMetadata),
            None if self.seen.len() > METADATA_BYTES_MAX => Err(Malformed::NoMetadata),
            None => Ok(None),
        }
    }
}

fn parse_metadata(text: &[u8]) -> Result<Head, Malformed> {
    let metadata: Metadata =
        serde_json::from_slice(text).map_err(|error| Malformed::Json(error.to_string()))?;
    let mut headers = Headers::default();
    for (name, values) in metadata.headers {
        match values {
            OneOrMany::One(value) => headers.add(&name, &value)?,
            OneOrMany::Many(values) => values.iter().try_for_each(|value| headers.add(&name, value))?,
        }
    }
    for (name, values) in metadata.multi_value_headers {
        values.iter().try_for_each(|value| headers.add(&name, value))?;
    }
    metadata.cookies.iter().try_for_each(|cookie| headers.add("set-cookie", cookie))?;
    Ok(Head { status: status(metadata.status_code)?, headers: headers.0 })
}

fn status(code: u16) -> Result<StatusCode, Malformed> {
    // 1xx is no answer.
    let valid = StatusCode::from_u16(code).ok().filter(|status| (200..600).contains(&status.as_u16()));
    valid.ok_or(Malformed::Status(code))
}

#[derive(Default)]
struct Headers(HeaderMap);

impl Headers {
    fn add(&mut self, name: &str, value: &str) -> Result<(), Malformed> {
        let unusable = || Malformed::Header(name.to_owned());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
        let value = HeaderValue::from_str(value).map_err(|_| unusable())?;
        if DROPPED.contains(&name) {
            return Ok(());
        }
        let name = if REMAPPED.contains(&name) {
            HeaderName::from_bytes(format!("x-amzn-remapped-{name}").as_bytes()).map_err(|_| unusable())?
        } else {
            name
        };
        self.0.append(name, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::{METADATA_BYTES_MAX, Malformed, MetadataReader, parse_buffered};

    #[test]
    fn a_buffered_answer_keeps_every_value_of_a_header() {
        let answer = br#"{"statusCode":201,"headers":{"a":"1","n":5,"set-cookie":"last"},
            "multiValueHeaders":{"Set-Cookie":["x=1","y=2"]},"body":"hi"}"#;
        let (head, body) = parse_buffered(answer).unwrap();
        assert_eq!(head.status, StatusCode::CREATED);
        assert_eq!(head.headers["n"], "5");
        assert_eq!(head.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["x=1", "y=2"]);
        assert_eq!(head.headers["content-type"], "application/json");
        assert_eq!(body, "hi");
    }

    #[test]
    fn a_base64_body_is_decoded() {
        let (_, body) =
            parse_buffered(br#"{"statusCode":200,"body":"/wA=","isBase64Encoded":true}"#).unwrap();
        assert_eq!(body, Bytes::from_static(b"\xff\x00"));
    }

    #[test]
    fn a_malformed_buffered_answer_is_refused() {
        for answer in [
            &b"\"just text\""[..],
            br#"{"body":"no status"}"#,
            br#"{"statusCode":"x"}"#,
            br#"{"statusCode":99}"#,
            br#"{"statusCode":101}"#,
            br#"{"statusCode":200,"extra":1}"#,
            br#"{"statusCode":200,"headers":{"bad name":"x"}}"#,
            br#"{"statusCode":200,"body":{"not":"text"}}"#,
            br#"{"statusCode":200,"body":"!","isBase64Encoded":true}"#,
        ] {
            assert!(parse_buffered(answer).is_err(), "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn metadata_is_found_wherever_the_chunks_are_cut() {
        let whole = b"{\"statusCode\":200,\"headers\":{\"a\":\"1\",\"v\":[\"x\",\"y\"]},\"cookies\":[\"c=1\"]}\0\0\0\0\0\0\0\0body\0";
        for size in 1..whole.len() {
            let mut reader = MetadataReader::default();
            let mut rest = Vec::new();
            let mut found = None;
            for chunk in whole.chunks(size) {
                if found.is_some() {
                    rest.extend_from_slice(chunk);
                } else if let Some((head, body)) = reader.push(chunk).unwrap() {
                    found = Some(head);
                    rest.extend_from_slice(&body);
                }
            }
            let head = found.unwrap();
            assert_eq!(head.headers.get_all("v").iter().count(), 2);
            assert_eq!(head.headers["set-cookie"], "c=1");
            assert_eq!(rest, b"body\0", "chunks of {size}");
        }
    }

    #[test]
    fn f18_metadata_without_an_end_is_refused() {
        let mut reader = MetadataReader::default();
        let chunk = vec![b' '; METADATA_BYTES_MAX];
        assert!(reader.push(&chunk).unwrap().is_none());
        assert_eq!(reader.push(b" "), Err(Malformed::NoMetadata));
    }

    #[test]
    fn headers_that_the_gateway_sets_itself_are_renamed() {
        let answer =
            br#"{"statusCode":401,"headers":{"WWW-Authenticate":"Bearer","Transfer-Encoding":"chunked"}}"#;
        let (head, _) = parse_buffered(answer).unwrap();
        assert_eq!(head.headers["x-amzn-remapped-www-authenticate"], "Bearer");
        assert!(
            !head.headers.contains_key("www-authenticate") && !head.headers.contains_key("transfer-encoding")
        );
    }
}
