//! One invocation: what it was woken for, then word to the next one where time ran out.

use crate::{
    drain::{self, Finished},
    run::run_from,
    schedule::{Mode, NotScheduled, RUNS_MAX, Wake},
};
use bus::Announcement;
use domain::Timestamp;
use ledger::{SHARDS, Store, UserCursor};
use report::{Checked, Checkup, Deps, Finding, Reconciling, Report, Uninvoiced};
use serde::Serialize;
use serde_json::Value;

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// It reported.
    Report(Report),
    /// It reported what a draft waits for.
    Drained(Finished),
    /// It held figures against each other.
    Checked(Checked),
}

/// Why a run did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The payload was meant for somebody else.
    #[error(transparent)]
    NotScheduled(#[from] NotScheduled),
    /// No shard could be listed.
    #[error("nothing could be listed")]
    NothingListed,
}

/// Runs as the payload says. `request`: this invocation's id.
///
/// # Errors
/// When the payload is none that starts a run, or no shard could be listed: then the run did nothing, and Lambda is told.
pub async fn handle<S: Store>(
    deps: &Deps<S>,
    payload: &Value,
    request: &str,
    deadline: Timestamp,
    now: impl Fn() -> Timestamp + Sync,
) -> Result<Answer, HandleError> {
    if let Some(wanted) = drain::parse(payload, now())? {
        return Ok(Answer::Drained(Box::pin(drain::drain(deps, wanted, deadline, now)).await));
    }
    let wake = Wake::parse(payload)?;
    // Boxed, for a future of all that they do is too deep for the compiler to lay out.
    let (answer, shards_failed, stopped) = match wake.mode {
        Mode::Report => {
            let first = wake.on.as_ref().map(|on| on.shard);
            let (report, shard) = Box::pin(run_from(deps, first, deadline, now)).await;
            (Answer::Report(report.clone()), report.shards_failed, shard.map(|shard| (shard, None)))
        }
        Mode::Reconcile => {
            let from = wake.on.as_ref().map(|on| (on.shard, on.after.clone()));
            let reconciling = Reconciling::new(deps, deadline, &now);
            let (checked, stopped) = Box::pin(reconciling.all(from)).await;
            let failed = checked.shards_failed;
            tell(deps, &checked).await;
            (Answer::Checked(checked), failed, stopped)
        }
    };
    if let Some((shard, after)) = stopped {
        go_on(deps, &wake, request, shard, after.as_ref()).await;
    }
    if shards_failed >= u32::from(SHARDS) { Err(HandleError::NothingListed) } else { Ok(answer) }
}

/// Announces what does not agree: meter by meter, then how many more.
async fn tell<S: Store>(deps: &Deps<S>, checked: &Checked) {
    let mut announcements: Vec<Announcement> = Vec::new();
    for Checkup { key, finding, .. } in &checked.drifts {
        if let Finding::Drifted(drifts) = finding {
            let equations = serde_json::to_value(drifts).unwrap_or_default();
            let (user, period_start) = (key.user.clone(), key.period_start);
            announcements.push(Announcement::Drift { user, period_start, equations });
        }
    }
    let told = u64::try_from(announcements.len()).unwrap_or(u64::MAX);
    let meters = checked.drifted.saturating_sub(told);
    announcements.extend((meters > 0).then_some(Announcement::DriftBeyond { meters }));
    // What is on no invoice is told once, by the one night that finds it; the figures may agree.
    let found = checked.drifts.iter().chain(&checked.others);
    let uninvoiced = found.filter_map(|checkup| checkup.uninvoiced.zip(Some(&checkup.key)));
    announcements.extend(uninvoiced.map(|(Uninvoiced { tokens, cents }, key)| {
        let (user, period_start) = (key.user.clone(), key.period_start);
        Announcement::NotInvoiced { user, period_start, tokens, cents }
    }));
    deps.bus.announce(&announcements).await;
}

async fn go_on<S: Store>(deps: &Deps<S>, wake: &Wake, request: &str, shard: u8, after: Option<&UserCursor>) {
    let Some(unfinished) = wake.leave(request, shard, after) else {
        tracing::error!(
            runs = RUNS_MAX,
            mode = wake.mode.as_str(),
            "so many runs in a row had no time for everything; the next scheduled one goes on"
        );
        return;
    };
    tracing::info!(run = unfinished.run, n = unfinished.n, shard, "time ran out; the next run goes on");
    deps.bus.announce(&[Announcement::Unfinished(unfinished)]).await;
}
