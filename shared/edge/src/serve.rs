//! The loop that asks Lambda for work. One request at a time on classic Lambda, as many as
//! `AWS_LAMBDA_MAX_CONCURRENCY` says on Managed Instances; either way an invocation's [`Drain`] is empty before its worker
//! asks for the next event.

use crate::drain::{Drain, DrainLayer};
use bytes::Bytes;
use lambda_http::{Error, Request, Response, service_fn};
use std::fmt::Debug;
use std::future::Future;

/// Serves a handler whose answers are streamed: its route must say so at the gateway.
///
/// # Errors
/// When the runtime's API is gone.
pub async fn streaming<H, F, B>(handler: H) -> Result<(), Error>
where
    H: Fn(Request, Drain) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Unpin + Send + 'static,
    B::Data: Into<Bytes> + Send,
    B::Error: Into<Error> + Send + Debug,
{
    let service = service_fn(move |request| in_drain(handler.clone(), request));
    lambda_http::streaming_runtime_concurrent(service).layer(DrainLayer).run_concurrent().await
}

/// Serves a handler whose answers are sent whole.
///
/// # Errors
/// When the runtime's API is gone.
pub async fn buffered<H, F>(handler: H) -> Result<(), Error>
where
    H: Fn(Request, Drain) -> F + Clone + Send + 'static,
    F: Future<Output = Response<lambda_http::Body>> + Send + 'static,
{
    let service = service_fn(move |request| in_drain(handler.clone(), request));
    lambda_http::runtime_concurrent(service).layer(DrainLayer).run_concurrent().await
}

/// Without a drain nothing is served: what a request starts could not be brought to its end.
async fn in_drain<H, F, B>(handler: H, request: Request) -> Result<Response<B>, Error>
where
    H: Fn(Request, Drain) -> F,
    F: Future<Output = Response<B>>,
{
    let drain = Drain::current().ok_or("the drain layer is missing")?;
    Ok(handler(request, drain).await)
}
