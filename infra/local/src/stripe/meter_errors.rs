//! What Stripe tells of meter events that it took and then could not count.
//!
//! Owns the reports: the refusals of ten seconds go, for each meter, in one thin event of API v2. Only the event that is
//! fetched says what was wrong, and it shows only a few samples of each kind.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::webhooks::Thin;
use super::world::{Rejected, World};

/// How many seconds of refusals go in one report.
const WINDOW_S: i64 = 10;
/// How long after its window a report is made, in seconds.
const DELAY_S: i64 = 2;
/// Most samples of one kind of error.
const MAX_SAMPLES: usize = 5;

/// A time as API v2 writes it.
pub(super) fn timestamp(at_s: i64) -> Option<String> {
    Some(DateTime::from_timestamp(at_s, 0)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn window_end_s(at_s: i64) -> i64 {
    at_s.div_euclid(WINDOW_S).saturating_add(1).saturating_mul(WINDOW_S)
}

/// When the next report is made.
pub(super) fn due_s(world: &World) -> Option<i64> {
    let untold = world.rejected.iter().rev().take_while(|rejected| !rejected.told);
    untold.map(|rejected| window_end_s(rejected.at_s) + DELAY_S).min()
}

/// Makes the reports that are due.
pub(super) fn tell(world: &mut World, at_s: i64) {
    let mut meters: BTreeMap<(String, i64), Vec<Rejected>> = BTreeMap::new();
    for rejected in world.rejected.iter_mut().rev().take_while(|rejected| !rejected.told) {
        let end_s = window_end_s(rejected.at_s);
        if end_s + DELAY_S <= at_s {
            meters.entry((rejected.meter.clone(), end_s)).or_default().push(rejected.clone());
            rejected.told = true;
        }
    }
    for ((meter, end_s), rejected) in meters {
        let thin = Thin {
            id: world.ids.next("evt_test"),
            kind: "v1.billing.meter.error_report_triggered",
            related: Some((meter.clone(), "billing.meter", format!("/v1/billing/meters/{meter}"))),
            data: report(&rejected, end_s),
        };
        world.outbox.emit_thin(thin, at_s);
    }
}

/// Reports an event whose meter nobody knows.
pub(super) fn tell_no_meter(world: &mut World, identifier: &str, at_s: i64) {
    let sample = json!({
        "error_message": "No meter exists for the event name.",
        "request": { "identifier": identifier },
    });
    let types = json!([{ "code": "no_meter", "error_count": 1, "sample_errors": [sample] }]);
    let data = data(1, &types, window_end_s(at_s));
    let id = world.ids.next("evt_test");
    let thin = Thin { id, kind: "v1.billing.meter.no_meter_found", related: None, data };
    world.outbox.emit_thin(thin, at_s);
}

fn report(rejected: &[Rejected], end_s: i64) -> Value {
    let mut kinds: BTreeMap<&str, Vec<&Rejected>> = BTreeMap::new();
    for one in rejected.iter().rev() {
        kinds.entry(one.code).or_default().push(one);
    }
    let types: Vec<Value> = kinds
        .iter()
        .map(|(code, of)| {
            let samples = of.iter().take(MAX_SAMPLES).map(|one| {
                json!({
                    "error_message": message(one),
                    "request": { "identifier": one.event.identifier },
                })
            });
            let samples: Vec<Value> = samples.collect();
            json!({ "code": code, "error_count": of.len(), "sample_errors": samples })
        })
        .collect();
    data(rejected.len(), &json!(types), end_s)
}

fn message(one: &Rejected) -> String {
    match one.code {
        "meter_event_customer_not_found" => format!("Customer {} not found.", one.event.customer),
        code => format!("The event was refused: {code}."),
    }
}

fn data(count: usize, types: &Value, end_s: i64) -> Value {
    let summary = if count == 1 {
        "There is 1 invalid event".to_owned()
    } else {
        format!("There are {count} invalid events")
    };
    json!({
        "developer_message_summary": summary,
        "reason": { "error_count": count, "error_types": types },
        "validation_end": timestamp(end_s),
        "validation_start": timestamp(end_s - WINDOW_S),
    })
}
