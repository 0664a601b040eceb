//! The watch over one request for its user's wish to stop. No disconnect ever reaches a function, so the wish is an item of the
//! ledger's, put by another invocation, and somebody has to look for it.

use domain::{HoldId, UserId};
use edge::{drain::Drain, log::chain};
use ledger::{Ledger, Store};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long between two looks. A stop is seen within this and the time of one read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A watch. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct StopWatch {
    stopped: CancellationToken,
    _over: DropGuard,
}

impl StopWatch {
    /// Begins to look, on `drain`, until `until` at the latest.
    pub(crate) fn begin<S: Store>(
        drain: &Drain,
        ledger: Ledger<S>,
        user: UserId,
        id: HoldId,
        until: Instant,
    ) -> Self {
        let (stopped, over) = (CancellationToken::new(), CancellationToken::new());
        let watch = Self { stopped: stopped.clone(), _over: over.clone().drop_guard() };
        drain.spawn(async move {
            let look = async {
                while Instant::now() < until {
                    sleep(LOOK_EVERY).await;
                    match ledger.is_stopped(&user, &id).await {
                        Ok(false) => {}
                        Ok(true) => return stopped.cancel(),
                        // The request goes on: whether it may be paid for is not in doubt.
                        Err(error) => tracing::warn!(error = chain(&error), %user, %id, "no look for a stop"),
                    }
                }
            };
            over.run_until_cancelled(look).await;
        });
        watch
    }

    /// Ends when the user wants the request to end, and else never. May be dropped and asked again.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }
}
