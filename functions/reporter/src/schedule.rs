//! What wakes the reporter: the schedule, or a person with an empty object. The payload decides nothing, so it is only
//! checked for being one of these: whatever else arrives here was meant for somebody else.

use serde_json::{Map, Value};

/// Who may have sent the event: EventBridge's scheduler and its older rules.
const SOURCES: [&str; 2] = ["aws.scheduler", "aws.events"];

/// The payload is neither `{}` nor a scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is neither {{}} nor a scheduled event of EventBridge")]
pub struct NotScheduled;

/// Checks that a payload is `{}` or a scheduled event.
///
/// # Errors
/// When it is anything else.
pub fn check(payload: &Value) -> Result<(), NotScheduled> {
    let is_scheduled = |event: &Map<String, Value>| {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        text("detail-type") == Some("Scheduled Event")
            && text("source").is_some_and(|source| SOURCES.contains(&source))
    };
    match payload {
        Value::Object(event) if event.is_empty() || is_scheduled(event) => Ok(()),
        _ => Err(NotScheduled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_schedule_or_an_empty_object_starts_a_run() {
        let scheduled = json!({"version": "0", "id": "a", "detail-type": "Scheduled Event", "source": "aws.scheduler",
            "account": "1", "time": "2026-11-24T12:00:00Z", "region": "eu-central-1", "resources": [], "detail": {}});
        assert_eq!(check(&scheduled), Ok(()));
        assert_eq!(check(&json!({})), Ok(()));
        for other in [
            json!(null),
            json!([]),
            json!("{}"),
            json!({"httpMethod": "POST"}),
            json!({"detail-type": "Scheduled Event", "source": "mallory"}),
            json!({"detail-type": "Object Created", "source": "aws.events"}),
        ] {
            assert_eq!(check(&other), Err(NotScheduled), "{other}");
        }
    }
}
