//! Each call against a scripted peer: what goes over the wire, and what each answer means.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; the helpers are part of it"
)]

use domain::{CustomerId, EventId, InvoiceId, Period, SubscriptionId, Timestamp, Tokens};
use std::{collections::BTreeSet, time::Duration};
use stripe::testing::{Peer, Reply, Request};
use stripe::{
    Collection, CountError, Counted, FetchError, InvoiceError, InvoiceItem, InvoiceStatus, MeterEvent,
    NewInvoiceItem, Secret, SendError, Sent, Settings, Status, Stripe,
};

const ACCEPTED: &str = r#"{"object":"billing.meter_event","created":1800000001,"event_name":"tokens","identifier":"ink-1",
    "livemode":false,"payload":{"stripe_customer_id":"cus_1","value":"1234567"},"timestamp":1800000000}"#;

fn client(url: &str) -> Stripe {
    Stripe::new(Settings { base_url: Some(url.into()), secret_key: Secret::new("sk_test_x") }).unwrap()
}

async fn peer(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Peer, Stripe) {
    let peer = Peer::start(answer).await.unwrap();
    let stripe = client(peer.url());
    (peer, stripe)
}

async fn send(stripe: &Stripe) -> Result<Sent, SendError> {
    let customer = CustomerId::parse("cus_1").unwrap();
    let event = MeterEvent {
        event_name: "tokens",
        customer: &customer,
        tokens: Tokens::from_u32(1_234_567),
        identifier: "ink-1",
        timestamp: Timestamp::from_ms(1_800_000_000_999),
    };
    stripe.send(&event).await
}

fn error(kind: &str, code: &str, param: &str, message: &str) -> String {
    let field = |name: &str, value: &str| {
        if value.is_empty() { String::new() } else { format!(r#","{name}":"{value}""#) }
    };
    let (code, param, message) = (field("code", code), field("param", param), field("message", message));
    format!(r#"{{"error":{{"type":"{kind}"{code}{param}{message}}}}}"#)
}

#[tokio::test]
async fn f21_a_meter_event_carries_raw_tokens_whole_seconds_and_its_identifier() {
    let (peer, stripe) = peer(|_| Reply::Answer(200, ACCEPTED.into())).await;
    assert_eq!(send(&stripe).await, Ok(Sent::Accepted));
    let requests = peer.requests();
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/billing/meter_events"));
    let form: Vec<_> = request.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("event_name", "tokens"),
        ("identifier", "ink-1"),
        ("payload[stripe_customer_id]", "cus_1"),
        ("payload[value]", "1234567"),
        ("timestamp", "1800000000"),
    ];
    assert_eq!(form, expected);
    assert_eq!(request.headers["authorization"], "Bearer sk_test_x");
    assert!(request.headers.contains_key("stripe-version"));
}

#[tokio::test]
async fn f09_every_attempt_keeps_the_identifier_and_takes_a_fresh_idempotency_key() {
    let (peer, stripe) = peer(|_| Reply::Answer(500, error("api_error", "", "", "oops"))).await;
    for _ in 0..3 {
        assert!(matches!(send(&stripe).await, Err(SendError::Retry(_))));
    }
    let requests = peer.requests();
    let keys: BTreeSet<_> =
        requests.iter().map(|request| request.headers["idempotency-key"].clone()).collect();
    let identifiers: BTreeSet<_> =
        requests.iter().map(|request| request.form["identifier"].clone()).collect();
    assert_eq!((requests.len(), keys.len(), identifiers.len()), (3, 3, 1));
}

#[tokio::test]
async fn f10_an_identifier_that_exists_means_delivered() {
    let body = error(
        "invalid_request_error",
        "",
        "",
        "An event already exists with identifier ink-1. You can only have one event per identifier.",
    );
    let (_peer, stripe) = peer(move |_| Reply::Answer(400, body.clone())).await;
    assert_eq!(send(&stripe).await, Ok(Sent::AlreadyExists));
}

#[derive(Debug, PartialEq)]
enum Class {
    Refused,
    Retry,
    Unknown,
    Misconfigured,
}

#[track_caller]
fn class(outcome: &Result<Sent, SendError>) -> Class {
    match outcome {
        Err(SendError::Refused { .. }) => Class::Refused,
        Err(SendError::Retry(_)) => Class::Retry,
        Err(SendError::Unknown(_)) => Class::Unknown,
        Err(SendError::Misconfigured(_)) => Class::Misconfigured,
        Ok(sent) => panic!("{sent:?}"),
    }
}

#[tokio::test]
async fn every_answer_has_its_class() {
    const INVALID: &str = "invalid_request_error";
    let json = |status, kind, code, param| Reply::Answer(status, error(kind, code, param, "words"));
    let table = [
        // This event's own fault.
        (json(400, INVALID, "", ""), Class::Refused),
        (json(400, INVALID, "timestamp_too_far_in_past", "timestamp"), Class::Refused),
        (json(400, INVALID, "resource_missing", "payload[stripe_customer_id]"), Class::Refused),
        (json(402, "card_error", "", ""), Class::Refused),
        (json(418, "new_error_type", "new_code", ""), Class::Refused),
        // Later.
        (json(409, INVALID, "lock_timeout", ""), Class::Retry),
        (json(429, INVALID, "rate_limit", ""), Class::Retry),
        (json(500, "api_error", "", ""), Class::Retry),
        (json(503, "api_error", "", ""), Class::Retry),
        (json(400, "idempotency_error", "", ""), Class::Retry),
        // This installation's fault.
        (json(401, INVALID, "", ""), Class::Misconfigured),
        (json(403, INVALID, "", ""), Class::Misconfigured),
        (json(404, INVALID, "", ""), Class::Misconfigured),
        (json(400, INVALID, "api_key_expired", ""), Class::Misconfigured),
        (json(400, INVALID, "resource_missing", "event_name"), Class::Misconfigured),
        (json(400, INVALID, "archived_meter", ""), Class::Misconfigured),
        // Nobody knows.
        (Reply::Answer(502, "<html>bad gateway</html>".into()), Class::Unknown),
        (Reply::Answer(200, "{".into()), Class::Unknown),
        (Reply::Cut, Class::Unknown),
    ];
    for (reply, expected) in table {
        let shown = format!("{reply:?}");
        let (_peer, stripe) = peer(move |_| reply.clone()).await;
        assert_eq!(class(&send(&stripe).await), expected, "{shown}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_an_unknown_outcome() {
    let (peer, stripe) = peer(|_| Reply::Hang).await;
    let outcome = send(&stripe.timeout(Duration::from_millis(100))).await;
    assert_eq!(class(&outcome), Class::Unknown);
    assert_eq!(peer.requests().len(), 1, "one call is one request");
}

#[tokio::test]
async fn a_connection_that_was_never_made_sent_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(class(&send(&client(&url)).await), Class::Retry);
}

fn page(values: &[&str], has_more: bool) -> String {
    let data: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(n, value)| {
            format!(
                r#"{{"id":"mtrusg_{n}","object":"billing.meter_event_summary","aggregated_value":{value},
                "start_time":0,"end_time":60,"livemode":false,"meter":"mtr_1"}}"#
            )
        })
        .collect();
    let data = data.join(",");
    format!(
        r#"{{"object":"list","url":"/v1/billing/meters/mtr_1/event_summaries","has_more":{has_more},"data":[{data}]}}"#
    )
}

async fn counted(stripe: &Stripe, start_s: u64, end_s: u64) -> Result<Counted, CountError> {
    let period = Period::new(Timestamp::from_s(start_s), Timestamp::from_s(end_s)).unwrap();
    stripe.counted("mtr_1", &CustomerId::parse("cus_1").unwrap(), period).await
}

fn tokens(value: u64) -> Tokens {
    Tokens::new(value).unwrap()
}

#[tokio::test]
async fn a_period_of_whole_minutes_is_counted_exactly_by_one_question() {
    let (peer, stripe) = peer(|_| Reply::Answer(200, page(&["999999999999999"], false))).await;
    let all = Counted { at_least: Tokens::MAX, at_most: Tokens::MAX };
    assert_eq!(counted(&stripe, 600, 6_000).await, Ok(all));
    let requests = peer.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/v1/billing/meters/mtr_1/event_summaries");
    let asked = ["customer", "start_time", "end_time"].map(|name| requests[0].query[name].as_str());
    assert_eq!(asked, ["cus_1", "600", "6000"]);
}

#[tokio::test]
async fn i2_a_period_within_minutes_is_counted_from_both_sides() {
    let (_peer, stripe) = peer(|request| {
        let bounds = (request.query["start_time"].as_str(), request.query["end_time"].as_str());
        let value = match bounds {
            ("660", "6000") => "100",
            ("600", "6060") => "107",
            other => panic!("{other:?}"),
        };
        Reply::Answer(200, page(&[value], false))
    })
    .await;
    let expected = Counted { at_least: tokens(100), at_most: tokens(107) };
    assert_eq!(counted(&stripe, 601, 6_059).await, Ok(expected));
}

#[tokio::test]
async fn nothing_counted_is_none_and_pages_are_added_up_and_bounded() {
    let (_none, stripe) = peer(|_| Reply::Answer(200, page(&[], false))).await;
    assert_eq!(counted(&stripe, 600, 6_000).await.unwrap().at_least, Tokens::ZERO);

    let (_two, stripe) = peer(|request| {
        let second = request.query.contains_key("starting_after");
        Reply::Answer(200, page(if second { &["5"] } else { &["1", "2"] }, !second))
    })
    .await;
    assert_eq!(counted(&stripe, 600, 6_000).await.unwrap().at_most, tokens(8));

    let (endless, stripe) = peer(|_| Reply::Answer(200, page(&["1"], true))).await;
    assert!(matches!(counted(&stripe, 600, 6_000).await, Err(CountError::NoTokens(_))));
    assert_eq!(endless.requests().len(), 10);
}

#[tokio::test]
async fn a_count_that_is_not_to_be_had_is_never_zero() {
    for (reply, refused) in [
        (Reply::Cut, false),
        (Reply::Answer(500, error("api_error", "", "", "")), false),
        (Reply::Answer(404, error("invalid_request_error", "resource_missing", "id", "")), true),
    ] {
        let (_peer, stripe) = peer(move |_| reply.clone()).await;
        let error = counted(&stripe, 600, 6_000).await.unwrap_err();
        assert_eq!(matches!(error, CountError::Refused(_)), refused, "{error}");
    }
}

fn subscription_json(metadata: &str, customer: &str) -> String {
    format!(
        r#"{{"id":"sub_1","object":"subscription","status":"active","created":1799999999,"billing_cycle_anchor":1800000000,"ended_at":null,
        "metadata":{metadata},"customer":{customer},"items":{{"object":"list","data":[
        {{"current_period_start":1800000000,"current_period_end":1802592000,"price":{{"lookup_key":"pro_base"}}}},
        {{"current_period_start":1800000000,"current_period_end":1802592000,"price":{{"lookup_key":null}}}}]}}}}"#
    )
}

#[tokio::test]
async fn a_subscription_is_read_by_the_fields_that_are_used() {
    let body =
        subscription_json(r#"{"user_id":"user_1"}"#, r#"{"id":"cus_1","metadata":{"user_id":"user_2"}}"#);
    let (peer, stripe) = peer(move |_| Reply::Answer(200, body.clone())).await;
    let subscription = stripe.subscription(&SubscriptionId::parse("sub_1").unwrap()).await.unwrap();
    assert_eq!(subscription.user.as_ref().unwrap().as_str(), "user_1");
    assert_eq!(subscription.customer.as_str(), "cus_1");
    assert_eq!(subscription.status, Status::Active);
    assert_eq!(subscription.created.s(), 1_799_999_999);
    assert_eq!(subscription.anchor.s(), 1_800_000_000);
    assert_eq!(subscription.items[0].period.unwrap().end().s(), 1_802_592_000);
    assert_eq!(subscription.lookup_keys().collect::<Vec<_>>(), ["pro_base"]);
    assert_eq!((subscription.ended_at, subscription.paused_collection), (None, None));
    assert_eq!(subscription.latest_invoice, None);
    let requests = peer.requests();
    assert_eq!(requests[0].path, "/v1/subscriptions/sub_1");
    assert_eq!(requests[0].query["expand[0]"], "customer");
    assert_eq!(requests[0].query["expand[1]"], "latest_invoice");
}

#[tokio::test]
async fn a_subscriptions_user_is_its_own_or_else_its_customers_or_nobody() {
    for (metadata, customer, expected) in [
        ("{}", r#"{"id":"cus_1","metadata":{"user_id":"user_2"}}"#, Some("user_2")),
        ("{}", r#"{"id":"cus_1","deleted":true}"#, None),
        ("{}", r#""cus_1""#, None),
        (r#"{"user_id":"not an id"}"#, r#"{"id":"cus_1","metadata":{"user_id":"user_2"}}"#, None),
    ] {
        let body = subscription_json(metadata, customer);
        let (_peer, stripe) = peer(move |_| Reply::Answer(200, body.clone())).await;
        let subscription = stripe.subscription(&SubscriptionId::parse("sub_1").unwrap()).await.unwrap();
        assert_eq!(subscription.user.as_ref().map(domain::UserId::as_str), expected);
    }
}

#[tokio::test]
async fn a_subscription_that_is_not_there_differs_from_one_that_cannot_be_had() {
    let missing = error("invalid_request_error", "resource_missing", "id", "No such subscription: 'sub_1'");
    for (reply, found_missing) in [(Reply::Answer(404, missing), true), (Reply::Cut, false)] {
        let (_peer, stripe) = peer(move |_| reply.clone()).await;
        let error = stripe.subscription(&SubscriptionId::parse("sub_1").unwrap()).await.unwrap_err();
        assert_eq!(matches!(error, FetchError::NotFound(_)), found_missing, "{error}");
    }
}

#[tokio::test]
async fn a_subscription_tells_of_its_pause_and_its_newest_invoice() {
    let body = r#"{"id":"sub_1","object":"subscription","status":"past_due","created":1,"billing_cycle_anchor":2,"ended_at":null,
        "metadata":{"user_id":"user_1"},"customer":{"id":"cus_1","object":"customer","deleted":true},
        "pause_collection":{"behavior":"void","resumes_at":null},
        "latest_invoice":{"id":"in_1","object":"invoice","status":"draft","status_transitions":{"finalized_at":null}},
        "items":{"object":"list","data":[{"quantity":3,"price":{"lookup_key":"pro_base"}}]}}"#;
    let open =
        body.replace(r#""draft""#, r#""open""#).replace(r#""finalized_at":null"#, r#""finalized_at":7"#);
    for (body, is_draft, finalized_at) in
        [(body.to_owned(), true, None), (open, false, Some(Timestamp::from_s(7)))]
    {
        let (_peer, stripe) = peer(move |_| Reply::Answer(200, body.clone())).await;
        let subscription = stripe.subscription(&SubscriptionId::parse("sub_1").unwrap()).await.unwrap();
        assert_eq!(subscription.paused_collection, Some(Collection::Void));
        assert_eq!((subscription.items[0].quantity, subscription.items[0].period), (Some(3), None));
        let latest = subscription.latest_invoice.unwrap();
        assert_eq!(
            (latest.id.as_str(), latest.is_draft, latest.finalized_at),
            ("in_1", is_draft, finalized_at)
        );
    }
}

#[tokio::test]
async fn a_subscription_is_unpaid_since_its_oldest_open_invoice() {
    let invoice = |finalized: &str| {
        format!(r#"{{"id":"in_1","status":"open","status_transitions":{{"finalized_at":{finalized}}}}}"#)
    };
    let list =
        format!(r#"{{"object":"list","data":[{},{},{}]}}"#, invoice("9"), invoice("5"), invoice("null"));
    let (peer, stripe) = peer(move |_| Reply::Answer(200, list.clone())).await;
    let id = SubscriptionId::parse("sub_1").unwrap();
    assert_eq!(stripe.unpaid_since(&id).await, Ok(Some(Timestamp::from_s(5))));
    let query = &peer.requests()[0].query;
    assert_eq!((query["subscription"].as_str(), query["status"].as_str()), ("sub_1", "open"));
}

#[tokio::test]
async fn a_dispute_leads_over_its_payment_to_its_user() {
    let dispute = r#"{"id":"du_1","object":"dispute","charge":"ch_1","amount":2000,"currency":"usd","reason":"fraudulent",
        "status":"needs_response","evidence_details":{"due_by":1800000000}}"#;
    for (charge, customer, user) in [
        (
            r#"{"id":"ch_1","customer":{"id":"cus_1","metadata":{"user_id":"user_1"}}}"#,
            Some("cus_1"),
            Some("user_1"),
        ),
        (r#"{"id":"ch_1","customer":"cus_1"}"#, Some("cus_1"), None),
        (r#"{"id":"ch_1","customer":null}"#, None, None),
    ] {
        let (peer, stripe) = peer(move |request| {
            let is_charge = request.path == "/v1/charges/ch_1";
            Reply::Answer(200, if is_charge { charge } else { dispute }.to_owned())
        })
        .await;
        let found = stripe.dispute("du_1").await.unwrap();
        assert_eq!((found.amount, found.currency.as_str(), found.charge.as_str()), (2_000, "usd", "ch_1"));
        assert_eq!(found.answer_by, Some(Timestamp::from_s(1_800_000_000)));
        assert_eq!(found.customer.as_ref().map(CustomerId::as_str), customer);
        assert_eq!(found.user.as_ref().map(domain::UserId::as_str), user);
        assert_eq!(peer.requests()[0].path, "/v1/disputes/du_1");
        assert_eq!(stripe.dispute("du/1").await, Err(FetchError::Malformed("id")));
        assert_eq!(peer.requests().len(), 2);
    }
}

#[tokio::test]
async fn an_error_report_names_samples_by_identifier() {
    let event = r#"{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered","data":{
        "developer_message_summary":"There is 1 invalid event","reason":{"error_count":3,"error_types":[
        {"code":"meter_event_customer_not_found","error_count":3,"sample_errors":[
        {"error_message":"No such customer","request":{"identifier":"user_1-1-0"}},{"error_message":"x","request":{}}]}]},
        "validation_start":"2026-11-28T00:00:00.000Z","validation_end":"2026-11-28T00:00:10.000Z"}}"#;
    let (peer, stripe) = peer(move |_| Reply::Answer(200, event.to_owned())).await;
    let report = stripe.error_report(&EventId::parse("evt_1").unwrap()).await.unwrap();
    assert_eq!((report.rejected, report.samples.len()), (3, 1));
    assert_eq!(report.samples[0].identifier, "user_1-1-0");
    assert_eq!(report.samples[0].code, "meter_event_customer_not_found");
    assert_eq!(peer.requests()[0].path, "/v2/core/events/evt_1");

    let (_peer, stripe) = peer_of(r#"{"id":"evt_1","data":null}"#).await;
    let missing = stripe.error_report(&EventId::parse("evt_1").unwrap()).await;
    assert_eq!(missing, Err(FetchError::Malformed("reason")));
}

async fn peer_of(body: &'static str) -> (Peer, Stripe) {
    peer(move |_| Reply::Answer(200, body.to_owned())).await
}

#[tokio::test]
async fn an_object_of_the_other_mode_is_not_missing() {
    let words =
        "No such subscription: 'sub_1'; a similar object exists in live mode, but a test mode key was used.";
    let missing = error("invalid_request_error", "resource_missing", "id", words);
    let (_peer, stripe) = peer(move |_| Reply::Answer(404, missing.clone())).await;
    let error = stripe.subscription(&SubscriptionId::parse("sub_1").unwrap()).await.unwrap_err();
    assert!(matches!(error, FetchError::Refused(_)), "{error}");
}

const INVOICE: &str = r#"{"object":"invoice","id":"in_1","customer":{"id":"cus_1","object":"customer"},
    "parent":{"type":"subscription_details","subscription_details":{"subscription":"sub_1","metadata":{}}},
    "status":"draft","billing_reason":"subscription_cycle","period_start":1800000000,"period_end":1802678400,
    "created":1802678401,"automatically_finalizes_at":1802682001,"status_transitions":{"finalized_at":null,"paid_at":null},
    "total":-5,"hosted_invoice_url":null,"lines":{"data":[]}}"#;

#[tokio::test]
async fn an_invoice_is_read_by_what_is_used_of_it() {
    let (peer, stripe) = peer(|_| Reply::Answer(200, INVOICE.into())).await;
    let invoice = stripe.invoice(&InvoiceId::parse("in_1").unwrap()).await.unwrap();
    assert_eq!(peer.requests()[0].path, "/v1/invoices/in_1");
    let at = Timestamp::from_s;
    assert_eq!(invoice.subscription, SubscriptionId::parse("sub_1").ok());
    assert_eq!((invoice.status, invoice.reason.as_str()), (InvoiceStatus::Draft, "subscription_cycle"));
    assert_eq!(invoice.period, Period::new(at(1_800_000_000), at(1_802_678_400)));
    assert_eq!((invoice.finalizes_at, invoice.finalized_at), (Some(at(1_802_682_001)), None));
    assert_eq!((invoice.customer.as_str(), invoice.total_cents), ("cus_1", -5));
}

#[tokio::test]
async fn an_invoice_by_hand_and_a_first_one_have_no_subscription_or_no_period() {
    let first = INVOICE.replace(r#""period_end":1802678400"#, r#""period_end":1800000000"#);
    let first = first.replace(
        r#"{"type":"subscription_details","subscription_details":{"subscription":"sub_1","metadata":{}}}"#,
        "null",
    );
    let (_peer, stripe) = peer(move |_| Reply::Answer(200, first.clone())).await;
    let invoice = stripe.invoice(&InvoiceId::parse("in_1").unwrap()).await.unwrap();
    assert_eq!((invoice.subscription, invoice.period), (None, None));
}

#[tokio::test]
async fn invoices_of_a_customer_are_read_page_by_page() {
    let (peer, stripe) = peer(|request| {
        let (id, more) = match request.query.get("starting_after").map(String::as_str) {
            None => ("in_9", true),
            Some("in_9") => ("in_8", false),
            Some(other) => panic!("after {other}"),
        };
        let invoice = INVOICE.replace("in_1", id);
        Reply::Answer(200, format!(r#"{{"object":"list","url":"/","has_more":{more},"data":[{invoice}]}}"#))
    })
    .await;
    let customer = CustomerId::parse("cus_1").unwrap();
    let invoices = stripe.invoices_of(&customer, Timestamp::from_s(1_802_670_000)).await.unwrap();
    let ids: Vec<_> = invoices.iter().map(|invoice| invoice.id.as_str()).collect();
    assert_eq!(ids, ["in_9", "in_8"]);
    let query = &peer.requests()[0].query;
    assert_eq!((query["customer"].as_str(), query["created[gte]"].as_str()), ("cus_1", "1802670000"));
}

const ITEM: &str = r#"{"object":"invoiceitem","id":"ii_1","amount":40,"invoice":null,
    "metadata":{"inkmeter_report":"user-1-0"}}"#;

async fn create(stripe: &Stripe) -> Result<InvoiceItem, InvoiceError> {
    let customer = CustomerId::parse("cus_1").unwrap();
    let (start, end) = (Timestamp::from_s(1_800_000_000), Timestamp::from_s(1_802_678_400));
    let item = NewInvoiceItem {
        customer: &customer,
        report: "user-1-0",
        cents: 40,
        description: "40 tokens",
        period: Period::new(start, end).unwrap(),
        idempotency_key: "late-user-1-0-0",
    };
    stripe.create_invoice_item(&item).await
}

#[tokio::test]
async fn f09_f11_an_item_carries_its_report_and_is_made_under_the_key_that_is_given() {
    let (peer, stripe) = peer(|_| Reply::Answer(200, ITEM.into())).await;
    let made = create(&stripe).await.unwrap();
    assert_eq!((made.id.as_str(), made.report.as_deref(), made.cents), ("ii_1", Some("user-1-0"), 40));
    create(&stripe).await.unwrap();
    for request in peer.requests() {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/invoiceitems"));
        assert_eq!(request.headers["idempotency-key"], "late-user-1-0-0");
        let form: Vec<_> = request.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("amount", "40"),
            ("currency", "usd"),
            ("customer", "cus_1"),
            ("description", "40 tokens"),
            ("metadata[inkmeter_report]", "user-1-0"),
            ("period[end]", "1802678400"),
            ("period[start]", "1800000000"),
        ];
        assert_eq!(form, expected);
    }
}

/// What an answer says of an item that was not made.
type Known = fn(&InvoiceError) -> bool;

#[tokio::test]
async fn f09_what_is_known_of_an_item_that_was_not_made_is_said() {
    let cases: [(Reply, Known); 6] = [
        (Reply::Cut, |error| matches!(error, InvoiceError::Unknown(_))),
        (Reply::Answer(500, error("api_error", "", "", "oops")), |e| matches!(e, InvoiceError::Unknown(_))),
        (Reply::Answer(429, error("rate_limit_error", "lock_timeout", "", "wait")), |e| {
            matches!(e, InvoiceError::Unavailable(_))
        }),
        (Reply::Answer(403, error("invalid_request_error", "", "", "no permission")), |e| {
            matches!(e, InvoiceError::Misconfigured(_))
        }),
        (
            Reply::Answer(
                400,
                error("invalid_request_error", "resource_missing", "customer", "No such customer"),
            ),
            |e| matches!(e, InvoiceError::Refused(_)),
        ),
        (Reply::Answer(200, r#"{"object":"invoiceitem","id":"ii/1","amount":40}"#.into()), |e| {
            matches!(e, InvoiceError::Malformed(_))
        }),
    ];
    for (reply, expected) in cases {
        let told = format!("{reply:?}");
        let (_peer, stripe) = peer(move |_| reply.clone()).await;
        let error = create(&stripe).await.unwrap_err();
        assert!(expected(&error), "{told}: {error:?}");
    }
}

#[tokio::test]
async fn a_list_of_items_without_an_end_is_no_list_that_lacks_one() {
    let (peer, stripe) = peer(|request| {
        let after = request.query.get("starting_after").map_or(0, |id| id[3..].parse::<u32>().unwrap());
        let item = ITEM.replace("ii_1", &format!("ii_{}", after + 1));
        Reply::Answer(200, format!(r#"{{"object":"list","url":"/","has_more":true,"data":[{item}]}}"#))
    })
    .await;
    let customer = CustomerId::parse("cus_1").unwrap();
    assert!(matches!(stripe.invoice_items(&customer).await, Err(InvoiceError::Malformed(_))));
    assert_eq!(peer.requests().len(), 10);
}
