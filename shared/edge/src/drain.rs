//! Work that outlives an answer and must not outlive its invocation.
//!
//! Lambda freezes the environment once the runtime asks for the next event, and the runtime asks as soon as an answer's
//! body has closed or its connection broke. A task that is still settling then stops in the middle, for seconds or for
//! ever. So a handler spawns such tasks on the [`Drain`] of its own invocation, and [`DrainLayer`], around the whole of the
//! runtime's service, waits for them before it lets the worker ask again. On Managed Instances many workers run in
//! one process: each waits for its own invocation's tasks only.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::task::TaskTracker;
use tower::{Layer, Service};
use tracing::Instrument;

tokio::task_local! {
    static CURRENT: Drain;
}

/// The tasks of one invocation. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    tasks: TaskTracker,
}

impl Drain {
    /// A drain without tasks; in a function, [`DrainLayer`] makes it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The drain of the invocation that the caller runs in; none outside of [`DrainLayer`].
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Starts a task that the invocation waits for. It must end by itself, before the function's deadline.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task.in_current_span()));
    }

    /// Ends when every task has ended, one that panicked included. Tasks that tasks spawn meanwhile are waited for.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Gives each invocation its [`Drain`] and waits for it. Must be the outermost layer of the runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrainLayer;

impl<S> Layer<S> for DrainLayer {
    type Service = DrainService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DrainService { inner }
    }
}

/// What [`DrainLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct DrainService<S> {
    inner: S,
}

impl<S, R> Service<R> for DrainService<S>
where
    S: Service<R, Response = ()>,
    S::Error: Display + Send,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    /// Runs the invocation and its tasks to their end. An answer that could not be sent is logged and not an error: it
    /// concerns one client, and as an error it would end the worker and with it a share of the environment.
    fn call(&mut self, invocation: R) -> Self::Future {
        let drain = Drain::new();
        let answer = CURRENT.sync_scope(drain.clone(), || self.inner.call(invocation));
        Box::pin(async move {
            let sent = CURRENT.scope(drain.clone(), answer).await;
            drain.drained().await;
            if let Err(error) = sent {
                tracing::warn!(%error, "the answer could not be sent");
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::oneshot;
    use tower::{ServiceExt, service_fn};

    type Gate = oneshot::Receiver<()>;

    /// A service whose answer is `sent` at once, while a task waits for the invocation's gate and then counts.
    fn service(
        sent: Result<(), &'static str>,
        settled: &Arc<AtomicU32>,
    ) -> impl Service<Gate, Response = (), Error = &'static str, Future: Send + 'static> + Clone + Send + 'static
    {
        let settled = settled.clone();
        DrainLayer.layer(service_fn(move |gate: Gate| {
            let settled = settled.clone();
            async move {
                Drain::current().unwrap().spawn(async move {
                    gate.await.unwrap();
                    settled.fetch_add(1, Ordering::SeqCst);
                });
                sent
            }
        }))
    }

    #[track_caller]
    fn pending<T>(task: &mut tokio_test_like::Polled<T>) {
        assert!(!task.is_ready(), "the invocation ended before its task");
    }

    /// Polls a future once, without a runtime's help.
    mod tokio_test_like {
        use std::future::Future;
        use std::pin::Pin;
        use std::task::{Context, Waker};

        pub(super) struct Polled<T>(pub(super) Pin<Box<dyn Future<Output = T> + Send>>);

        impl<T> Polled<T> {
            pub(super) fn is_ready(&mut self) -> bool {
                self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
            }
        }
    }

    #[tokio::test]
    async fn f08_the_next_event_is_not_asked_for_before_the_task_has_ended() {
        let settled = Arc::new(AtomicU32::new(0));
        let (open, gate) = oneshot::channel();
        let mut invocation = tokio_test_like::Polled(Box::pin(service(Ok(()), &settled).oneshot(gate)));
        pending(&mut invocation);
        tokio::task::yield_now().await;
        pending(&mut invocation);
        open.send(()).unwrap();
        invocation.0.await.unwrap();
        assert_eq!(settled.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn f08_an_answer_that_cannot_be_sent_loses_neither_task_nor_worker() {
        let settled = Arc::new(AtomicU32::new(0));
        let (open, gate) = oneshot::channel();
        let mut invocation = tokio_test_like::Polled(Box::pin(service(Err("cut"), &settled).oneshot(gate)));
        pending(&mut invocation);
        open.send(()).unwrap();
        assert_eq!(invocation.0.await, Ok(()));
        assert_eq!(settled.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_slow_task_delays_its_own_invocation_only() {
        let settled = Arc::new(AtomicU32::new(0));
        let service = service(Ok(()), &settled);
        let (_never, slow) = oneshot::channel();
        let (open, quick) = oneshot::channel();
        let mut slow = tokio_test_like::Polled(Box::pin(service.clone().oneshot(slow)));
        pending(&mut slow);
        open.send(()).unwrap();
        service.oneshot(quick).await.unwrap();
        pending(&mut slow);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_not_waited_for_for_ever() {
        let drain = Drain::new();
        drain.spawn(async { panic!("as planned") });
        drain.drained().await;
    }

    #[tokio::test]
    async fn a_task_started_by_a_task_is_waited_for() {
        let drain = Drain::new();
        let (done, seen) = oneshot::channel();
        let inner = drain.clone();
        drain.spawn(async move {
            tokio::task::yield_now().await;
            inner.spawn(async move {
                tokio::task::yield_now().await;
                done.send(()).unwrap();
            });
        });
        drain.drained().await;
        assert_eq!(seen.await, Ok(()));
    }

    #[test]
    fn outside_of_an_invocation_there_is_no_drain() {
        assert!(Drain::current().is_none());
    }
}
