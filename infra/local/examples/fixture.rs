//! A Lambda function made to be tested against: it streams at a gate, crashes, hangs and answers large.

use std::{convert::Infallible, pin::Pin, process, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use lambda_http::{Error, Request, RequestExt as _, Response, http::StatusCode};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    #[expect(clippy::disallowed_methods, reason = "a fixture's configuration is this one word")]
    let mode = std::env::var("FIXTURE_MODE").unwrap_or_default();
    match mode.as_str() {
        "stream" => lambda_http::run_with_streaming_response_concurrent(service_fn(streaming)).await,
        "buffered" => lambda_http::run_concurrent(service_fn(buffered)).await,
        "raw" => lambda_runtime::run_concurrent(service_fn(raw)).await,
        _ => process::exit(3),
    }
}

/// Reads the number that the query holds under `name`.
fn number(request: &Request, name: &str) -> Option<u64> {
    request.query_string_parameters().first(name).and_then(|value| value.parse().ok())
}

async fn streaming(request: Request) -> Result<Response<Body>, Error> {
    let size = usize::try_from(number(&request, "size").unwrap_or(1))?;
    let port = number(&request, "gate").and_then(|port| u16::try_from(port).ok());
    let chunks: Chunks = match request.raw_http_path() {
        "/gated" => gated(port.ok_or("no gate")?, size).await?,
        "/pid" => one(process::id().to_string()),
        "/huge" => Box::pin(stream::iter((0..size).map(|_| Bytes::from(vec![b'h'; 1024 * 1024])))),
        "/echo" => one(request.body().to_vec()),
        "/die" => process::exit(7),
        "/fail" => return Err("as asked".into()),
        "/hang" => {
            std::future::pending::<()>().await;
            one("")
        }
        _ => one("?"),
    };
    let body = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk))));
    let answer = Response::builder().status(StatusCode::CREATED).header("x-fixture", "stream");
    let answer = answer.header("set-cookie", "a=1").header("set-cookie", "b=2");
    Ok(answer.body(body.boxed_unsync())?)
}

fn one(text: impl Into<Bytes>) -> Chunks {
    let text = text.into();
    Box::pin(stream::once(async move { text }))
}

/// For each byte from the gate: one chunk of `size` of it, and, once the next is asked for, the byte back.
async fn gated(port: u16, size: usize) -> Result<Chunks, Error> {
    let gate = TcpStream::connect(("127.0.0.1", port)).await?;
    let chunks = stream::unfold((gate, None), move |(mut gate, last): (TcpStream, Option<u8>)| async move {
        if let Some(last) = last {
            gate.write_u8(last).await.ok()?;
        }
        let byte = gate.read_u8().await.ok()?;
        Some((Bytes::from(vec![byte; size]), (gate, Some(byte))))
    });
    Ok(Box::pin(chunks))
}

async fn buffered(request: Request) -> Result<Response<lambda_http::Body>, Error> {
    let size = usize::try_from(number(&request, "size").unwrap_or(0))?;
    let answer = Response::builder().header("x-method", request.method().as_str());
    // lambda_http takes an answer for text or not by its type.
    let binary = request.raw_http_path() == "/buffered/binary";
    let answer =
        answer.header("content-type", if binary { "application/octet-stream" } else { "text/plain" });
    let answer = answer.header("set-cookie", "a=1").header("set-cookie", "b=2");
    let body = match request.raw_http_path() {
        "/buffered/binary" => lambda_http::Body::Binary(vec![0, 159, 146, 150]),
        "/buffered/huge" => lambda_http::Body::Text("h".repeat(size)),
        "/buffered/slow" => {
            tokio::time::sleep(Duration::from_mins(10)).await;
            lambda_http::Body::Empty
        }
        _ => {
            let values = |name: &str| {
                request
                    .headers()
                    .get_all(name)
                    .iter()
                    .map(|v| String::from_utf8_lossy(v.as_bytes()))
                    .collect::<Vec<_>>()
            };
            let query = request.query_string_parameters();
            lambda_http::Body::Text(
                json!({
                    "method": request.method().as_str(),
                    "path": request.raw_http_path(),
                    "x-many": values("x-many"),
                    "tag": query.all("tag"),
                    "body": request.body().to_vec(),
                    "pid": process::id(),
                })
                .to_string(),
            )
        }
    };
    Ok(answer.body(body)?)
}

#[expect(clippy::print_stdout, reason = "a function's log is what it prints")]
async fn raw(event: LambdaEvent<Value>) -> Result<Value, Error> {
    if event.payload.get("path") == Some(&json!("/event")) {
        return Ok(json!({ "statusCode": 200, "body": event.payload.to_string() }));
    }
    println!("raw event {}", event.payload);
    match event.payload.get("do").and_then(Value::as_str) {
        Some("fail") => Err("as asked".into()),
        _ => Ok(json!({ "echo": event.payload, "pid": process::id(), "deadline": event.context.deadline })),
    }
}
