//! Everything that may arrive at an address that anybody can reach, with its status and what it leaves of an account that is on
//! Pro: forged, stale, replayed, truncated, huge, reduced, of wrong types, lying. None changes the account wrongly, none is a 500.

use super::world::{
    CREATED, DELETED, NOW, OLD_SECRET, SECRET, THIN_SECRET, UPDATED, World, answer, event, pro, signature,
    subscription, thin_event,
};
use crate::handler::BODY_BYTES_MAX;
use domain::{Account, Timestamp};
use serde_json::{Value, json};
use stripe::testing::sign;

const BEGAN_S: u64 = 1_799_000_000;
/// Every type that is acted on, and how ids of its objects begin.
const KINDS: [(&str, &str); 14] = [
    ("checkout.session.completed", "cs_"),
    (CREATED, "sub_"),
    (UPDATED, "sub_"),
    (DELETED, "sub_"),
    ("customer.subscription.paused", "sub_"),
    ("customer.subscription.resumed", "sub_"),
    ("customer.subscription.trial_will_end", "sub_"),
    ("customer.deleted", "cus_"),
    ("invoice.created", "in_"),
    ("invoice.finalized", "in_"),
    ("invoice.paid", "in_"),
    ("invoice.payment_failed", "in_"),
    ("invoice.finalization_failed", "in_"),
    ("charge.dispute.created", "du_"),
];
const THIN_KINDS: [&str; 2] = ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"];

/// One delivery and what becomes of it.
struct Case {
    name: String,
    body: String,
    header: String,
    expected: (u16, &'static str),
}

/// A body as the endpoint's secret signs it.
fn signed(name: impl Into<String>, body: impl Into<String>, expected: (u16, &'static str)) -> Case {
    let body = body.into();
    let header = signature(&body, SECRET, NOW);
    Case { name: name.into(), body, header, expected }
}

/// An event of a type about an object that a test has made.
fn about(id: &str, kind: &str, data: &Value) -> String {
    json!({"id": id, "object": "event", "type": kind, "data": data}).to_string()
}

/// Signatures that do not hold, over an event that would end the subscription if anybody believed it.
fn forged() -> Vec<Case> {
    const REFUSED: (u16, &str) = (401, "unauthenticated");
    let mut cases = Vec::new();
    for (kind, prefix) in KINDS {
        let body = event("evt_forged", kind, &format!("{prefix}1"));
        let at = |at_s: u64| signature(&body, SECRET, Timestamp::from_s(at_s));
        let mac = sign(&body, SECRET, NOW.s());
        let now = NOW.s();
        let headers = [
            ("no signature", String::new()),
            ("no scheme", mac.clone()),
            ("no time", format!("v1={mac}")),
            ("a time that is none", format!("t=now,v1={mac}")),
            ("a time beyond all numbers", format!("t=99999999999999999999,v1={mac}")),
            ("another scheme", format!("t={now},v0={mac}")),
            ("half a signature", format!("t={now},v1={}", &mac[..32])),
            ("no hexadecimal", format!("t={now},v1={}", "zz".repeat(32))),
            ("zeros", format!("t={now},v1={}", "00".repeat(32))),
            ("another secret", signature(&body, "whsec_wrong", NOW)),
            ("no secret", signature(&body, "", NOW)),
            ("the thin events' secret", signature(&body, THIN_SECRET, NOW)),
            ("another time than was signed", format!("t={},v1={mac}", now + 1)),
            ("stale", at(now - 301)),
            ("of the future", at(now + 301)),
            ("replayed the next day", at(now - 24 * 60 * 60)),
            (
                "too many before it",
                format!("t={now}{},v1={mac}", format!(",v1={}", "00".repeat(32)).repeat(8)),
            ),
        ];
        for (name, header) in headers {
            let name = format!("{kind}: {name}");
            cases.push(Case { name, body: body.clone(), header, expected: REFUSED });
        }
        let header = signature(&body, SECRET, NOW);
        for (name, body) in [
            ("truncated", body[..body.len() - 1].to_owned()),
            ("longer", format!("{body} ")),
            ("about another", body.replace("evt_forged", "evt_other")),
            ("empty", String::new()),
        ] {
            cases.push(Case {
                name: format!("{kind}: {name}"),
                body,
                header: header.clone(),
                expected: REFUSED,
            });
        }
    }
    for kind in THIN_KINDS {
        let body = thin_event("evt_forged", kind);
        for secret in [SECRET, OLD_SECRET, "whsec_wrong"] {
            let header = signature(&body, secret, NOW);
            cases.push(Case {
                name: format!("{kind} under {secret}"),
                body: body.clone(),
                header,
                expected: REFUSED,
            });
        }
    }
    cases
}

/// Signed bodies that are no event.
fn no_events() -> Vec<Case> {
    let long = "x".repeat(300);
    let bodies = [
        String::new(),
        " ".into(),
        "{".into(),
        "null".into(),
        "7".into(),
        "\"evt_1\"".into(),
        "[]".into(),
        "{}".into(),
        "[".repeat(100_000),
        json!({"object": "event", "type": CREATED}).to_string(),
        json!({"id": null, "object": "event", "type": CREATED}).to_string(),
        json!({"id": 7, "object": "event", "type": CREATED}).to_string(),
        json!({"id": "", "object": "event", "type": CREATED}).to_string(),
        json!({"id": "evt/1", "object": "event", "type": CREATED}).to_string(),
        json!({"id": "evt#1", "object": "event", "type": CREATED}).to_string(),
        json!({"id": long, "object": "event", "type": CREATED}).to_string(),
        json!({"id": "evt_1", "object": "event"}).to_string(),
        json!({"id": "evt_1", "object": "event", "type": ["x"]}).to_string(),
        json!({"id": "evt_1", "type": CREATED}).to_string(),
        json!({"id": "evt_1", "object": "subscription", "type": CREATED}).to_string(),
        json!({"id": "evt_1", "object": {"event": true}, "type": CREATED}).to_string(),
        format!("{} x", event("evt_1", CREATED, "sub_1")),
    ];
    let case = |body: String| {
        let start: String = body.chars().take(60).collect();
        signed(format!("no event: {start}"), body, (422, "invalid_json"))
    };
    bodies.into_iter().map(case).collect()
}

/// Events whose object is missing, or has no id in the form of its type.
fn unnamed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, prefix) in KINDS {
        let id = |id: Value| json!({"object": {"id": id, "metadata": {"user_id": "user_1"}}});
        let other = if prefix == "sub_" { "in_1" } else { "sub_1" };
        let data = [
            Value::Null,
            json!({}),
            json!([]),
            json!("sub_1"),
            json!({"object": null}),
            json!({"object": []}),
            json!({"object": "sub_1"}),
            json!({"object": {}}),
            id(Value::Null),
            id(json!(1)),
            id(json!(true)),
            id(json!(["sub_1"])),
            id(json!({"id": "sub_1"})),
            id(json!("")),
            id(json!(prefix)),
            id(json!(other)),
            id(json!(format!("{prefix}1/../x"))),
            id(json!(format!("{prefix}..%2f"))),
            id(json!(format!("{prefix}1?x=1"))),
            id(json!(format!("{prefix}1#x"))),
            id(json!(format!("{prefix}1 "))),
            id(json!(format!("{prefix}\u{fc}"))),
            id(json!(format!("{prefix}{}", "x".repeat(300)))),
        ];
        for data in data {
            let start: String = data.to_string().chars().take(60).collect();
            let body = about("evt_unnamed", kind, &data);
            cases.push(signed(format!("{kind}: {start}"), body, (422, "invalid_json")));
        }
    }
    for subscription in ["cus_1", "sub_", "sub_1/x", ""] {
        let data = json!({"object": {"id": "cs_1", "subscription": subscription}});
        let body = about("evt_unnamed", "checkout.session.completed", &data);
        cases.push(signed(format!("a session of {subscription:?}"), body, (422, "invalid_json")));
    }
    cases
}

/// Events that are what they should be, about objects that Stripe does not have, or that are nobody's matter.
fn of_no_use() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, prefix) in KINDS {
        let expected = match kind {
            "checkout.session.completed" => (200, "ignored"),
            // That is another user's, who has no account.
            "customer.deleted" => (200, "in_line"),
            _ => (200, "gone"),
        };
        let id = format!("evt_unknown{}", cases.len());
        cases.push(signed(
            format!("{kind}: unknown to Stripe"),
            event(&id, kind, &format!("{prefix}unknown")),
            expected,
        ));
    }
    let nobodys = json!({"object": {"id": "cus_1", "metadata": "x"}});
    cases.push(signed(
        "a customer of nobody's",
        about("evt_nobody", "customer.deleted", &nobodys),
        (200, "no_user"),
    ));
    for subscription in [Value::Null, json!(7), json!({"id": "sub_1"})] {
        let data = json!({"object": {"id": "cs_1", "subscription": subscription}});
        let body = about("evt_session", "checkout.session.completed", &data);
        cases.push(signed(format!("a session of {subscription}"), body, (200, "ignored")));
    }
    for kind in
        ["", "x", "customer.created", "invoice.upcoming", "customer.subscription", "CUSTOMER.DELETED", "ping"]
    {
        cases.push(signed(format!("type {kind:?}"), event("evt_ignored", kind, "sub_1"), (200, "ignored")));
    }
    for kind in ["customer.subscription.deleted", "v1.billing.meter.other"] {
        let body = thin_event("evt_thin", kind);
        let header = signature(&body, THIN_SECRET, NOW);
        cases.push(Case { name: format!("thin {kind}"), body, header, expected: (200, "ignored") });
    }
    for (number, kind) in THIN_KINDS.into_iter().enumerate() {
        let body = thin_event(&format!("evt_gone{number}"), kind);
        let header = signature(&body, THIN_SECRET, NOW);
        cases.push(Case {
            name: format!("{kind}: unknown to Stripe"),
            body,
            header,
            expected: (200, "gone"),
        });
    }
    cases
}

/// Payloads that lie about a subscription that is in force, or say next to nothing of it.
fn lies() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, _) in KINDS.into_iter().filter(|(_, prefix)| *prefix == "sub_") {
        let claims = [
            json!({}),
            json!({"status": "canceled", "ended_at": BEGAN_S + 1}),
            json!({"status": "unpaid", "customer": "cus_evil"}),
            json!({"status": 7, "items": "none", "metadata": ["user_evil"], "customer": null}),
            json!({"metadata": {"user_id": "user_evil"}}),
            json!({"items": {"data": [{"price": {"lookup_key": "agency_base"}}]}, "billing_cycle_anchor": 1}),
            json!({"object": "invoice", "subscription": "sub_evil"}),
            json!({"pause_collection": {"behavior": "void"}, "status": "paused"}),
        ];
        for claim in claims {
            let mut object = json!({"id": "sub_1"});
            object.as_object_mut().unwrap().extend(claim.as_object().unwrap().clone());
            let id = format!("evt_lie{}", cases.len());
            let name = format!("{kind} claims {claim}");
            cases.push(signed(name, about(&id, kind, &json!({ "object": object })), (200, "in_line")));
        }
    }
    let data = json!({"object": {"id": "cus_1", "deleted": true, "metadata": {"user_id": "user_1"}}});
    cases.push(signed(
        "a customer who is there",
        about("evt_liar", "customer.deleted", &data),
        (200, "in_line"),
    ));
    let data =
        json!({"object": {"id": "cs_1", "subscription": "sub_1", "metadata": {"user_id": "user_evil"}}});
    cases.push(signed(
        "a session",
        about("evt_session1", "checkout.session.completed", &data),
        (200, "in_line"),
    ));
    cases
}

/// Deliveries that hold: rotated secrets, several signatures, bodies up to the bound, and the same again.
fn good() -> Vec<Case> {
    let mut cases = Vec::new();
    let body = |id: &str| event(id, UPDATED, "sub_1");
    for (name, header) in [
        ("the old secret", |body: &str| signature(body, OLD_SECRET, NOW)),
        ("both secrets", |body: &str| {
            format!("{},v1={}", signature(body, OLD_SECRET, NOW), sign(body, SECRET, NOW.s()))
        }),
        ("an unknown one first", |body: &str| {
            format!("{},v1={},v0=x", signature(body, "whsec_new", NOW), sign(body, SECRET, NOW.s()))
        }),
        ("five minutes old", |body: &str| signature(body, SECRET, Timestamp::from_s(NOW.s() - 300))),
    ] as [(&str, fn(&str) -> String); 4]
    {
        let id = format!("evt_good{}", cases.len());
        for expected in [(200, "in_line"), (200, "known")] {
            let body = body(&id);
            let header = header(&body);
            cases.push(Case { name: name.to_owned(), body, header, expected });
        }
    }
    let padded = |id: &str, length: usize| {
        let body = body(id);
        let room = length - body.len();
        body + &" ".repeat(room)
    };
    cases.push(signed("as long as may be", padded("evt_long", BODY_BYTES_MAX), (200, "in_line")));
    cases.push(signed("too long", padded("evt_longer", BODY_BYTES_MAX + 1), (413, "too_large")));
    cases.push(signed("far too long", padded("evt_longest", 6 * BODY_BYTES_MAX), (413, "too_large")));
    cases
}

#[tokio::test]
async fn f16_nothing_that_arrives_changes_an_account_wrongly_and_nothing_is_a_500() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    let as_it_is = Account { rev: 0, ..world.account().await };
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    let cases = [forged(), no_events(), unnamed(), of_no_use(), lies(), good()];
    let count: usize = cases.iter().map(Vec::len).sum();
    assert!(count >= 700, "{count} cases");
    // What takes time is Stripe: a call takes it 100 to 300 ms.
    let mut asked_most = 0;
    for Case { name, body, header, expected } in cases.into_iter().flatten() {
        let asked = world.asked().len();
        let (status, answer) = world.answers(body, &header).await;
        asked_most = asked_most.max(world.asked().len() - asked);
        let outcome = answer.get("outcome").or(answer.get("code")).and_then(Value::as_str);
        assert_eq!((status.as_u16(), outcome), (expected.0, Some(expected.1)), "{name}: {answer}");
        assert_eq!(
            answer.get("limit"),
            (expected.0 == 413).then(|| json!(BODY_BYTES_MAX)).as_ref(),
            "{name}"
        );
        assert_eq!(Account { rev: 0, ..world.account().await }, as_it_is, "{name}");
        let quiet = expected.0 >= 400 || matches!(expected.1, "ignored" | "known" | "no_user");
        assert!(!quiet || world.asked().len() == asked, "{name}: Stripe was asked");
    }
    assert_eq!(world.heard(), [], "nobody is bothered");
    assert_eq!(asked_most, 3);
}

#[tokio::test]
async fn while_stripe_is_away_every_kind_is_to_be_delivered_again_and_nothing_changes() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    let as_it_is = world.account().await;
    world.stripe(|books| books.down = true);
    for (kind, prefix) in KINDS {
        let mut body: Value = serde_json::from_str(&event("evt_down", kind, &format!("{prefix}1"))).unwrap();
        body["data"]["object"]["subscription"] = json!("sub_1");
        body["data"]["object"]["metadata"]["user_id"] = json!("user_1");
        let taken = world.takes(&body.to_string(), SECRET).await;
        assert_eq!(taken, answer(503, "stripe_unavailable"), "{kind}");
    }
    for kind in THIN_KINDS {
        let taken = world.takes(&thin_event("evt_down", kind), THIN_SECRET).await;
        assert_eq!(taken, answer(503, "stripe_unavailable"), "{kind}");
    }
    assert_eq!(world.account().await, as_it_is);
}

/// What Stripe answers is not what it should be: that is nobody's 500, and changes nothing.
#[tokio::test]
async fn an_object_of_stripes_that_makes_no_sense_is_to_be_asked_for_again() {
    let good = subscription("sub_1", "active", BEGAN_S);
    for (field, value) in [
        ("id", json!(7)),
        ("id", json!("sub/1")),
        ("customer", Value::Null),
        ("customer", json!({"id": "cus 1"})),
        ("status", json!(7)),
        ("created", json!("yesterday")),
        ("billing_cycle_anchor", Value::Null),
        ("items", json!([])),
        ("metadata", json!({"user_id": 7})),
        ("ended_at", json!("never")),
        ("pause_collection", json!("void")),
    ] {
        let world = World::new();
        world.stripe_has(good.clone());
        world.delivers(CREATED, "sub_1").await;
        let mut bad = good.clone();
        bad[field] = value.clone();
        world.stripe(|books| books.put("/v1/subscriptions/sub_1", bad));
        let taken = world.delivers(UPDATED, "sub_1").await;
        assert_eq!(taken, answer(503, "stripe_unavailable"), "{field}: {value}");
        assert_eq!(world.standing().await, pro("sub_1", BEGAN_S), "{field}: {value}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let world = World::new();
    let clock = || NOW;
    for (method, uri, status) in [
        (http::Method::GET, "http://gateway/v1/webhooks/stripe", 405),
        (http::Method::POST, "http://gateway/v1/other", 404),
        (http::Method::POST, "http://gateway/v1/webhooks/stripe/", 404),
    ] {
        let mut request = super::world::request("", "");
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        assert_eq!(world.webhook.handle(request, &clock).await.status().as_u16(), status, "{uri}");
    }
}
