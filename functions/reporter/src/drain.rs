//! One user's ended periods, which an invoice's draft waits for and the webhook had no time for. It reports what is wanted and
//! nothing else, and leaves word where that cannot be done.

use crate::schedule::NotScheduled;
use bus::{Announcement, DrainWanted};
use domain::{CustomerId, Timestamp, UserId};
use ledger::Store;
use report::{Deps, Drained, Reason};
use serde::Serialize;
use serde_json::{Map, Value};

/// Who may want it, over the bus.
const WEBHOOK: &str = "inkmeter.webhook";
/// How far ahead of this clock the end of a period may lie, in milliseconds: a year. Stripe's clock says when it ended, and its test
/// clocks run ahead.
const AHEAD_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finished {
    /// Whether everything is at Stripe.
    quiet: bool,
    /// If not, why, in words.
    reasons: Vec<String>,
}

/// Reads `{"mode": "drain", "user", "customer", "until"}`, as it is or as the detail of the webhook's event; none: the payload is
/// another one.
///
/// # Errors
/// When it is this one, and not as it should be.
pub(crate) fn parse(payload: &Value, now: Timestamp) -> Result<Option<DrainWanted>, NotScheduled> {
    let Value::Object(event) = payload else { return Ok(None) };
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let detail = match (text("detail-type"), text("source"), text("mode")) {
        (Some("Drain Wanted"), source, _) => {
            let detail = event.get("detail").and_then(Value::as_object);
            detail.filter(|_| source == Some(WEBHOOK)).ok_or(NotScheduled)?
        }
        (None, None, Some("drain")) => event,
        _ => return Ok(None),
    };
    wanted(detail, now).map(Some).ok_or(NotScheduled)
}

fn wanted(detail: &Map<String, Value>, now: Timestamp) -> Option<DrainWanted> {
    let text = |name: &str| detail.get(name).and_then(Value::as_str);
    if detail.len() != 4 || text("mode") != Some("drain") {
        return None;
    }
    let until_s = detail.get("until")?.as_u64()?;
    let until = Timestamp::from_s(until_s);
    if until.s() != until_s || until.ms_since(now) > AHEAD_MS_MAX {
        return None;
    }
    let (user, customer) = (UserId::parse(text("user")?).ok()?, CustomerId::parse(text("customer")?).ok()?);
    Some(DrainWanted { user, customer, until })
}

/// Brings to Stripe what is wanted there.
pub(crate) async fn drain<S: Store>(
    deps: &Deps<S>,
    wanted: DrainWanted,
    deadline: Timestamp,
    now: impl Fn() -> Timestamp + Sync,
) -> Finished {
    let DrainWanted { user, customer, until } = &wanted;
    let reasons = match deps.ledger.roll(user, now().max(*until)).await {
        Ok(_) => match report::drain(deps, user, customer, *until, deadline, now).await {
            Drained::Quiet => Vec::new(),
            Drained::Waiting { reasons } => reasons,
        },
        Err(error) => {
            tracing::error!(error = edge::log::chain(&error), %user, "the period that follows could not be opened");
            vec![Reason::Ledger]
        }
    };
    let failed = Reason::end_by_reporting(&reasons);
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    tracing::info!(%user, %customer, %until, ?reasons, "ended periods that a draft waits for");
    if failed {
        tracing::error!(%user, %customer, %until, ?reasons, "what a draft waits for could not be reported");
        let reasons = reasons.clone();
        deps.bus.announce(&[Announcement::DrainFailed { wanted, reasons }]).await;
    }
    Finished { quiet: reasons.is_empty(), reasons }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_s(1_800_000_000);

    fn good() -> Value {
        json!({"mode": "drain", "user": "user_1", "customer": "cus_1", "until": 1_800_000_000})
    }

    fn event(source: &str, detail: &Value) -> Value {
        json!({"version": "0", "id": "a", "detail-type": "Drain Wanted", "source": source, "account": "1",
            "time": "2026-11-24T12:00:00Z", "region": "eu-central-1", "resources": [], "detail": detail})
    }

    #[test]
    fn what_the_webhook_wants_is_read_from_its_event_or_from_a_persons_payload() {
        let until = NOW;
        let (user, customer) = (UserId::parse("user_1").unwrap(), CustomerId::parse("cus_1").unwrap());
        let wanted = Ok(Some(DrainWanted { user, customer, until }));
        assert_eq!(parse(&good(), NOW), wanted);
        assert_eq!(parse(&event("inkmeter.webhook", &good()), NOW), wanted);
        for other in
            [json!({}), json!({"mode": "reconcile"}), json!([]), json!({"detail-type": "Scheduled Event"})]
        {
            assert_eq!(parse(&other, NOW), Ok(None), "{other}");
        }
    }

    #[test]
    fn nothing_else_that_calls_itself_so_is_taken() {
        let broken = |name: &str, value: Value| {
            let mut detail = good();
            detail[name] = value;
            detail
        };
        for detail in [
            json!({"mode": "drain"}),
            broken("mode", json!("drain ")),
            broken("user", json!("a b")),
            broken("user", json!(7)),
            broken("customer", json!("")),
            broken("until", json!("1800000000")),
            broken("until", json!(-1)),
            broken("until", json!(1_831_622_401)),
            broken("until", json!(u64::MAX)),
            broken("more", json!(1)),
        ] {
            assert_eq!(parse(&event("inkmeter.webhook", &detail), NOW), Err(NotScheduled), "{detail}");
            let plain = parse(&detail, NOW);
            assert!(plain == Err(NotScheduled) || detail["mode"] == "drain ", "{detail}");
        }
        assert_eq!(parse(&event("inkmeter.reporter", &good()), NOW), Err(NotScheduled));
        assert_eq!(parse(&event("inkmeter.webhook", &json!(null)), NOW), Err(NotScheduled));
    }
}
