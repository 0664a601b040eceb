//! A transport in memory, for tests under a virtual clock. It knows nothing of the protocol; the test that scripts it does.

use reqwest::{Request, Response};
use std::{fmt, future::Future, pin::Pin, sync::Arc};

/// A transport that is a function. Clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Answering>);

type Answering = dyn Fn(Vec<u8>) -> Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync;

impl Memory {
    /// Answers every request, given its body, as `answer` says; an answer that never comes is one that times out.
    pub fn new<F>(answer: impl Fn(Vec<u8>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self(Arc::new(move |body| Box::pin(answer(body))))
    }

    pub(crate) async fn answer(&self, request: Request) -> Response {
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        (self.0)(body.to_vec()).await
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory(..)")
    }
}
