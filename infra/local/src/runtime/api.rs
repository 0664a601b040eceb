//! The Lambda Runtime API, version 2018-06-01, as one process sees it.
//!
//! Owns the wire; who gets which event is the pool's decision. Must go on reading a response to its end whether
//! or not anybody still wants it: a function never learns that its caller has left.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response as HttpResponse, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    ChunkReader, InvokeError, Part, RESPONSE_BYTES_MAX, Response, ResponseBody, STREAM_BYTES_MAX,
    STREAM_PARTS_MAX,
    pool::{Event, Pool, ProcessKey, Reply, Stale},
};

const PREFIX: &str = "/2018-06-01/runtime/";
const REQUEST_ID: &str = "lambda-runtime-aws-request-id";
const DEADLINE_MS: &str = "lambda-runtime-deadline-ms";
const FUNCTION_ARN: &str = "lambda-runtime-invoked-function-arn";
const TRACE_ID: &str = "lambda-runtime-trace-id";
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";

type Answer = HttpResponse<Full<Bytes>>;

/// Answers one request of a function process.
pub(super) async fn handle(pool: &Arc<Pool>, key: ProcessKey, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let Some(call) = path.strip_prefix(PREFIX) else { return problem(StatusCode::NOT_FOUND, "NotFound") };
    let call: Vec<&str> = call.split('/').collect();
    match (request.method(), call.as_slice()) {
        (&Method::GET, ["invocation", "next"]) => next(pool, key).await,
        (&Method::POST, ["invocation", id, "response"]) => response(pool, key, id, request).await,
        (&Method::POST, ["invocation", id, "error"]) => invocation_error(pool, key, id, request).await,
        (&Method::POST, ["init", "error"]) => init_error(pool, key, request).await,
        _ => problem(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn next(pool: &Arc<Pool>, key: ProcessKey) -> Answer {
    let event = match pool.poll(key) {
        Some(waiting) => waiting.await,
        None => return problem(StatusCode::FORBIDDEN, "InvalidStateTransition"),
    };
    let Ok(Event { request_id, payload, deadline_ms }) = event else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "ContainerError");
    };
    let arn = format!("arn:aws:lambda:us-east-1:123456789012:function:{}", pool.spec().name);
    let root: u128 = rand::random();
    let trace = format!("Root=1-{:08x}-{:024x};Sampled=0", deadline_ms / 1000, root >> 32);
    HttpResponse::builder()
        .header(CONTENT_TYPE, "application/json")
        .header(REQUEST_ID, request_id)
        .header(DEADLINE_MS, deadline_ms.to_string())
        .header(FUNCTION_ARN, arn)
        .header(TRACE_ID, trace)
        .body(Full::new(payload))
        .unwrap_or_else(|_| problem(StatusCode::INTERNAL_SERVER_ERROR, "ContainerError"))
}

async fn response(pool: &Arc<Pool>, key: ProcessKey, id: &str, request: Request<Incoming>) -> Answer {
    let reply = match pool.begin_answer(key, id) {
        Ok(reply) => reply,
        Err(stale) => return refuse(stale),
    };
    let answer = if header(request.headers(), RESPONSE_MODE) == "streaming" {
        stream(id, request.into_body(), reply).await
    } else {
        buffer(id, request.into_body(), reply).await
    };
    pool.finish(key, id);
    answer
}

async fn buffer(id: &str, body: Incoming, reply: Reply) -> Answer {
    match read(body).await {
        Ok(body) => {
            let body = ResponseBody::Buffered(body);
            reply.send(Ok(Response { request_id: id.to_owned(), body })).ok();
            accepted()
        }
        Err(error) => {
            let answer = match error {
                InvokeError::ResponseTooLarge => {
                    problem(StatusCode::PAYLOAD_TOO_LARGE, "Function.ResponseSizeTooLarge")
                }
                _ => problem(StatusCode::BAD_REQUEST, "InvalidRequest"),
            };
            reply.send(Err(error)).ok();
            answer
        }
    }
}

/// Reads a body of at most `RESPONSE_BYTES_MAX`. A larger one is read on and dropped, up to what a stream may be:
/// a function whose write fails would take the refusal for a broken Runtime API and exit.
async fn read(mut body: Incoming) -> Result<Bytes, InvokeError> {
    let mut whole = BytesMut::new();
    let mut length: usize = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(InvokeError::Cut) };
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= RESPONSE_BYTES_MAX {
            whole.extend_from_slice(&data);
        } else if length > STREAM_BYTES_MAX {
            break;
        }
    }
    if length > RESPONSE_BYTES_MAX { Err(InvokeError::ResponseTooLarge) } else { Ok(whole.freeze()) }
}

/// Passes a response on as it is written. A return without `Part::End` is how a reader learns of a cut.
async fn stream(id: &str, mut body: Incoming, reply: Reply) -> Answer {
    let (parts, reader) = mpsc::channel(STREAM_PARTS_MAX);
    let body_reader = ResponseBody::Streamed(ChunkReader::new(reader));
    reply.send(Ok(Response { request_id: id.to_owned(), body: body_reader })).ok();
    let mut room = STREAM_BYTES_MAX;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return problem(StatusCode::BAD_REQUEST, "InvalidRequest") };
        match frame.into_data() {
            Ok(data) => {
                let Some(left) = room.checked_sub(data.len()) else {
                    return problem(StatusCode::PAYLOAD_TOO_LARGE, "Function.ResponseSizeTooLarge");
                };
                room = left;
                // A reader that is gone changes nothing for the function.
                parts.send(Part::Data(data)).await.ok();
            }
            Err(frame) => {
                if frame.trailers_ref().is_some_and(|trailers| trailers.contains_key(ERROR_TYPE)) {
                    return accepted();
                }
            }
        }
    }
    parts.send(Part::End).await.ok();
    accepted()
}

async fn invocation_error(pool: &Arc<Pool>, key: ProcessKey, id: &str, request: Request<Incoming>) -> Answer {
    let reply = match pool.begin_answer(key, id) {
        Ok(reply) => reply,
        Err(stale) => return refuse(stale),
    };
    let error_type = header(request.headers(), ERROR_TYPE).to_owned();
    let payload = read(request.into_body()).await.unwrap_or_default();
    pool.finish(key, id);
    reply.send(Err(InvokeError::Function { error_type, payload })).ok();
    accepted()
}

async fn init_error(pool: &Arc<Pool>, key: ProcessKey, request: Request<Incoming>) -> Answer {
    let body = read(request.into_body()).await.unwrap_or_default();
    pool.init_failed(key, String::from_utf8_lossy(&body).into_owned());
    accepted()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn accepted() -> Answer {
    answer(StatusCode::ACCEPTED, &json!({ "status": "OK" }))
}

fn refuse(stale: Stale) -> Answer {
    match stale {
        Stale::Unknown => problem(StatusCode::BAD_REQUEST, "InvalidRequestID"),
        Stale::Answered => problem(StatusCode::FORBIDDEN, "InvalidStateTransition"),
    }
}

fn problem(status: StatusCode, error_type: &str) -> Answer {
    answer(status, &json!({ "errorType": error_type, "errorMessage": error_type }))
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = HttpResponse::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}
