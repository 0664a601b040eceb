//! Answers that are not problems.

use ::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// An answer in JSON. It concerns one user at one moment, so nobody may keep it.
pub fn json<B: From<String>>(status: StatusCode, body: &impl Serialize) -> Response<B> {
    with_text(status, HeaderValue::from_static("application/json"), serialize(body))
}

/// A body in JSON. Wire types are structs of text and numbers, which always have one; if ever one had none, the client would
/// see an empty object.
pub(crate) fn serialize(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_else(|error| {
        tracing::error!(%error, "a body could not be written as JSON");
        "{}".to_owned()
    })
}

pub(crate) fn with_text<B: From<String>>(
    status: StatusCode,
    content_type: HeaderValue,
    text: String,
) -> Response<B> {
    let mut response = Response::new(B::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
