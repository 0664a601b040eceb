//! What wakes the reporter: its schedules, a run before it that had no time for everything, or a person. Whatever else arrives here
//! was meant for somebody else.

use bus::Unfinished;
use ledger::{SHARDS, UserCursor};
use serde_json::{Map, Value};

/// Who may have sent a schedule's event: EventBridge's scheduler and its older rules.
const SCHEDULERS: [&str; 2] = ["aws.scheduler", "aws.events"];
/// Who sends [`Announcement::Unfinished`](bus::Announcement::Unfinished).
const REPORTER: &str = "inkmeter.reporter";
/// How many runs in a row go on where another's time ran out. Then something is wrong.
pub const RUNS_MAX: u32 = 20;
/// The longest id of a run, in bytes: a request id of Lambda's is 36.
const RUN_BYTES_MAX: usize = 64;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Report what is dirty.
    Report,
    /// Hold the figures against each other.
    Reconcile,
}

impl Mode {
    /// Its name on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Reconcile => "reconcile",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Report, Self::Reconcile].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// Why the reporter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    /// What to do.
    pub mode: Mode,
    /// Where to go on; none: from the start.
    pub on: Option<On>,
}

/// Where a run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct On {
    /// The id of the first of these runs.
    pub run: String,
    /// This run's number: 1 for the first that goes on.
    pub n: u32,
    /// The shard.
    pub shard: u8,
    /// Behind which user.
    pub after: Option<UserCursor>,
}

/// The payload is none that starts a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is neither {{}}, a mode, a scheduled event, nor a run's to go on")]
pub struct NotScheduled;

impl Wake {
    /// Reads a payload: `{}`, `{"mode": "reconcile"}`, a scheduled event, or the event of a run whose time ran out.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(payload: &Value) -> Result<Self, NotScheduled> {
        let Value::Object(event) = payload else { return Err(NotScheduled) };
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let from_start = |mode| Self { mode, on: None };
        if event.is_empty() {
            return Ok(from_start(Mode::Report));
        }
        match (text("detail-type"), text("source")) {
            (Some("Scheduled Event"), Some(source)) if SCHEDULERS.contains(&source) => {
                Ok(from_start(Mode::Report))
            }
            (Some("Reporter Unfinished"), Some(REPORTER)) => {
                event.get("detail").and_then(Value::as_object).and_then(going_on).ok_or(NotScheduled)
            }
            (None, None) if event.len() == 1 => {
                text("mode").and_then(Mode::parse).map(from_start).ok_or(NotScheduled)
            }
            _ => Err(NotScheduled),
        }
    }

    /// What this run, which came to its end in a shard and behind a user, leaves to the next; none: there were too many in a
    /// row. `request`: this invocation's id.
    pub fn leave(&self, request: &str, shard: u8, after: Option<&UserCursor>) -> Option<Unfinished> {
        let (run, n) = self.on.as_ref().map_or((request, 0), |on| (on.run.as_str(), on.n));
        (n < RUNS_MAX).then(|| Unfinished {
            run: run.to_owned(),
            n: n + 1,
            mode: self.mode.as_str(),
            shard,
            after: after.map(UserCursor::to_text),
        })
    }
}

fn going_on(detail: &Map<String, Value>) -> Option<Wake> {
    let run = detail.get("run")?.as_str().filter(|run| !run.is_empty() && run.len() <= RUN_BYTES_MAX)?;
    let n = u32::try_from(detail.get("n")?.as_u64()?).ok().filter(|n| (1..=RUNS_MAX).contains(n))?;
    let mode = Mode::parse(detail.get("mode")?.as_str()?)?;
    let shard = u8::try_from(detail.get("shard")?.as_u64()?).ok().filter(|shard| *shard < SHARDS)?;
    let after = match detail.get("after") {
        None | Some(Value::Null) => None,
        Some(after) => Some(UserCursor::parse(after.as_str()?)?),
    };
    Some(Wake { mode, on: Some(On { run: run.to_owned(), n, shard, after }) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::UserId;
    use serde_json::json;

    fn unfinished(detail: &Value) -> Value {
        json!({"version": "0", "id": "a", "detail-type": "Reporter Unfinished", "source": "inkmeter.reporter",
            "account": "1", "time": "2026-11-24T12:00:00Z", "region": "eu-central-1", "resources": [],
            "detail": detail})
    }

    #[test]
    fn a_schedule_an_empty_object_and_a_mode_start_a_run() {
        let scheduled = json!({"version": "0", "id": "a", "detail-type": "Scheduled Event", "source": "aws.scheduler",
            "account": "1", "time": "2026-11-24T12:00:00Z", "region": "eu-central-1", "resources": [], "detail": {}});
        let report = Ok(Wake { mode: Mode::Report, on: None });
        assert_eq!(Wake::parse(&scheduled), report);
        assert_eq!(Wake::parse(&json!({})), report);
        assert_eq!(Wake::parse(&json!({"mode": "report"})), report);
        let reconcile = Ok(Wake { mode: Mode::Reconcile, on: None });
        assert_eq!(Wake::parse(&json!({"mode": "reconcile"})), reconcile);
    }

    #[test]
    fn nothing_else_starts_a_run() {
        let good = json!({"run": "r", "n": 1, "mode": "report", "shard": 0, "after": null});
        assert!(Wake::parse(&unfinished(&good)).is_ok());
        let broken = |name: &str, value: Value| {
            let mut detail = good.clone();
            detail[name] = value;
            unfinished(&detail)
        };
        for other in [
            json!(null),
            json!([]),
            json!("{}"),
            json!({"httpMethod": "POST"}),
            json!({"mode": "delete"}),
            json!({"mode": "reconcile", "more": 1}),
            json!({"detail-type": "Scheduled Event", "source": "mallory"}),
            json!({"detail-type": "Object Created", "source": "aws.events"}),
            json!({"detail-type": "Reporter Unfinished", "source": "aws.events", "detail": good}),
            json!({"detail-type": "Reporter Unfinished", "source": "inkmeter.reporter"}),
            broken("n", json!(0)),
            broken("n", json!(21)),
            broken("n", json!("1")),
            broken("run", json!("")),
            broken("run", json!("x".repeat(65))),
            broken("mode", json!("delete")),
            broken("shard", json!(16)),
            broken("after", json!("a b")),
        ] {
            assert_eq!(Wake::parse(&other), Err(NotScheduled), "{other}");
        }
    }

    #[test]
    fn i8_a_run_is_followed_by_twenty_at_the_most_each_where_the_one_before_stopped() {
        let after = UserCursor::after(&UserId::parse("user_1").unwrap());
        let mut wake = Wake { mode: Mode::Reconcile, on: None };
        for n in 1..=RUNS_MAX {
            let left = wake.leave("request-1", 5, Some(&after)).unwrap();
            let detail = json!({"run": left.run, "n": left.n, "mode": left.mode, "shard": left.shard,
                "after": left.after});
            wake = Wake::parse(&unfinished(&detail)).unwrap();
            let on = On { run: "request-1".into(), n, shard: 5, after: Some(after.clone()) };
            assert_eq!(wake, Wake { mode: Mode::Reconcile, on: Some(on) });
        }
        assert_eq!(wake.leave("request-21", 5, None), None);
    }
}
