//! What is told: the log of events, endpoints, thin events, mischief; and that two months of it take seconds.

use super::*;

#[tokio::test]
async fn events_are_listed_for_30_days_by_type_and_time() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (start_s, end_s) = period(&f.subscribe(&customer, &plan).await);
    let all = f.get("/v1/events").await.json["data"].clone();
    let id = all[0]["id"].as_str().unwrap();
    assert_eq!(f.get(&format!("/v1/events/{id}")).await.json, all[0]);
    assert_eq!(all[0]["type"], "customer.subscription.created");
    let count = async |query: &str| {
        f.get(&format!("/v1/events?{query}")).await.json["data"].as_array().unwrap().len()
    };
    assert_eq!(count("type=invoice.paid").await, 1);
    assert_eq!(count("types[]=invoice.paid&types[]=invoice.created").await, 2);
    assert_eq!(count(&format!("created[gt]={}", start_s + 5)).await, 0);
    f.stripe.advance_to(end_s + DAY_S).await.unwrap();
    assert_eq!(count("type=customer.subscription.created").await, 0, "older than 30 days");
    assert_eq!(f.get(&format!("/v1/events/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_refused_meter_event_is_told_later_by_a_thin_event_that_must_be_fetched() {
    let (endpoint, snapshots) = (Endpoint::start().await, Endpoint::start().await);
    let f = Fixture::with(snapshots.options()).await;
    let thin = WebhookEndpoint { url: endpoint.url.clone(), secret: "whsec_thin".to_owned() };
    f.stripe.set_thin_webhook(Some(thin));
    let plan = f.pro().await;
    let now_s = f.stripe.now_s();
    for number in 0..7 {
        assert_eq!(f.use_tokens("cus_nobody", &format!("row-{number}"), "10", now_s).await.status, 200);
    }
    assert!(endpoint.kinds().is_empty(), "not at once");
    f.stripe.advance_to(now_s + 30).await.unwrap();
    assert_eq!(f.stripe.deliver_all(3).await, 0);
    assert!(snapshots.kinds().is_empty());
    let heard = lock(&endpoint.heard).clone();
    let errors = heard.iter().map(|(signature, body)| {
        assert!(signature.starts_with("t="));
        serde_json::from_str::<Value>(body).unwrap()
    });
    let errors: Vec<Value> = errors.collect();
    let event = &errors[0];
    assert_eq!((event["object"].as_str(), event.get("data")), (Some("v2.core.event"), None));
    assert_eq!(event["type"], "v1.billing.meter.error_report_triggered");
    assert_eq!(
        (&event["related_object"]["id"], &event["related_object"]["type"]),
        (&plan.meter.as_str().into(), &"billing.meter".into())
    );
    let mut count = 0;
    for event in &errors {
        let path = format!("/v2/core/events/{}", event["id"].as_str().unwrap());
        let request = f.request("GET", &path).header("stripe-version", "2026-09-30.endive");
        let full = f.send(request).await.json;
        let reason = &full["data"]["reason"];
        let kind = &reason["error_types"][0];
        assert_eq!(kind["code"], "meter_event_customer_not_found");
        assert!(kind["sample_errors"].as_array().unwrap().len() <= 5, "samples only");
        assert!(kind["sample_errors"][0]["request"]["identifier"].as_str().unwrap().starts_with("row-"));
        assert!(full["data"]["validation_start"].as_str() < full["data"]["validation_end"].as_str());
        count += reason["error_count"].as_i64().unwrap();
    }
    assert_eq!(count, 7);
    f.stripe.report_no_meter("row-lost");
    f.stripe.deliver_all(3).await;
    assert_eq!(endpoint.kinds().last().unwrap(), "v1.billing.meter.no_meter_found");
}

#[tokio::test]
async fn an_event_that_was_counted_can_be_refused_afterwards() {
    let f = Fixture::new().await;
    let (_, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    f.use_tokens(&customer, "row-1", "10", now_s).await;
    f.stripe.reject_meter_event("row-1").unwrap();
    assert_eq!(f.stripe.counted(&customer, 0, i64::MAX), 0);
    f.stripe.advance_to(now_s + 30).await.unwrap();
    let events = f.stripe.events();
    assert_eq!(events.last().unwrap().kind, "v1.billing.meter.error_report_triggered");
    assert_eq!(f.stripe.reject_meter_event("row-1"), Err(NoSuchObject));
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 400, "its identifier is used up");
}

#[tokio::test]
async fn a_deactivated_meter_takes_no_events_until_it_is_reactivated() {
    let f = Fixture::new().await;
    let (plan, customer, now_s) = (f.pro().await, f.customer().await, f.stripe.now_s());
    let path = format!("/v1/billing/meters/{}", plan.meter);
    let off = f.post(&format!("{path}/deactivate"), &[]).await;
    assert_eq!((off.json["status"].as_str(), off.status), (Some("inactive"), 200));
    check_error(&f.use_tokens(&customer, "row-1", "10", now_s).await, 400, None, Some("event_name"));
    assert!(f.get("/v1/billing/meters").await.json["data"].as_array().unwrap().is_empty());
    check_error(&f.post(&format!("{path}/deactivate"), &[]).await, 400, None, None);
    assert_eq!(f.post(&format!("{path}/reactivate"), &[]).await.json["status"], "active");
    assert_eq!(f.use_tokens(&customer, "row-1", "10", now_s).await.status, 200);
}

#[tokio::test]
async fn a_draft_waits_until_every_endpoint_that_wants_it_has_heard_of_it() {
    let (one, other, simple) = (Endpoint::start().await, Endpoint::start().await, Endpoint::start().await);
    let f = Fixture::with(simple.options()).await;
    f.set_clock(noon(2026, 4, 10));
    for endpoint in [&one, &other] {
        let form = [("url", endpoint.url.as_str()), ("enabled_events[0]", "invoice.created")];
        assert_eq!(f.post("/v1/webhook_endpoints", &form).await.status, 200);
    }
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (_, end_s) = period(&f.subscribe(&customer, &plan).await);
    f.stripe.deliver_all(3).await;
    other.answer(503);
    f.stripe.advance_to(end_s + 5 * HOUR_S).await.unwrap();
    assert_eq!((one.kinds().len(), f.stripe.invoices(&customer)[1].status), (2, InvoiceStatus::Draft));
    other.answer(200);
    assert_eq!(f.stripe.deliver_all(3).await, 0);
    let heard_s = f.stripe.now_s();
    f.stripe.advance_to(heard_s + HOUR_S + 60).await.unwrap();
    assert_eq!(f.stripe.invoices(&customer)[1].status, InvoiceStatus::Paid);
    assert!(one.kinds().iter().all(|kind| kind == "invoice.created"), "only what it wants");
    assert!(simple.kinds().is_empty(), "the simple endpoint is for an account without any other");
}

async fn mischievous(mischief: Mischief) -> (Fixture, Endpoint, String, i64) {
    let endpoint = Endpoint::start().await;
    let f = Fixture::with(endpoint.options()).await;
    f.set_clock(noon(2026, 4, 10));
    f.stripe.set_mischief(Some(mischief));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (_, end_s) = period(&f.subscribe(&customer, &plan).await);
    (f, endpoint, customer, end_s)
}

#[tokio::test]
async fn deliveries_are_doubled_late_and_out_of_order_in_the_same_way_each_time() {
    let mischief =
        Mischief { seed: 7, duplicate_every: 2, reorder: true, delay_max_s: 300, ..Mischief::default() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (f, endpoint, _, end_s) = mischievous(mischief).await;
        f.stripe.advance_to(end_s + 2 * HOUR_S).await.unwrap();
        let made: Vec<String> = f.stripe.events().into_iter().map(|event| event.kind).collect();
        let heard = endpoint.kinds();
        assert!(heard.len() > made.len(), "some come twice");
        let mut once: Vec<&String> = heard.iter().collect();
        once.dedup();
        assert_ne!(once, made.iter().collect::<Vec<_>>(), "not in order");
        let missing = made.iter().find(|kind| !heard.contains(*kind));
        assert_eq!(missing, None, "and none is missing");
        runs.push(heard);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_lost_day_is_heard_by_nobody_and_taken_for_heard() {
    let (f, endpoint, customer, end_s) = mischievous(Mischief::default()).await;
    f.stripe.deliver_all(3).await;
    let before = endpoint.kinds().len();
    let lost = Mischief { drop_from_s: end_s - HOUR_S, drop_until_s: end_s + DAY_S, ..Mischief::default() };
    f.stripe.set_mischief(Some(lost));
    f.stripe.advance_to(end_s + 2 * DAY_S).await.unwrap();
    assert_eq!(endpoint.kinds().len(), before);
    assert!(f.stripe.undelivered().is_empty() && f.stripe.lost_deliveries() >= 4);
    assert_eq!(f.stripe.invoices(&customer)[1].finalized_s, Some(end_s + HOUR_S), "as if it had been heard");
    let listed = f.get("/v1/events?type=invoice.paid").await.json;
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "the log has them");
}

#[tokio::test]
async fn two_months_of_182_subscriptions_and_20_000_meter_events_take_seconds() {
    const CUSTOMERS: usize = 182;
    const EVENTS_MADE: usize = 20_000;
    const DAYS: usize = 60;
    let endpoint = Endpoint::start().await;
    let f = Fixture::with(endpoint.options()).await;
    f.set_clock(noon(2026, 4, 1));
    let plan = f.pro().await;
    let mut customers = Vec::new();
    for _ in 0..CUSTOMERS {
        let customer = f.customer().await;
        f.subscribe(&customer, &plan).await;
        customers.push(customer);
    }
    let start_s = f.stripe.now_s();
    let began = std::time::Instant::now();
    for number in 0..EVENTS_MADE {
        if number % (EVENTS_MADE / DAYS) == 0 {
            let day = i64::try_from(number / (EVENTS_MADE / DAYS)).unwrap();
            f.stripe.advance_to(start_s + day * DAY_S).await.unwrap();
        }
        // Most do without HTTP, whose cost is not the engine's.
        let (customer, row) = (&customers[number % CUSTOMERS], format!("row-{number}"));
        let (now_s, at) = (f.stripe.now_s(), f.stripe.now_s().to_string());
        if number % 20 == 0 {
            assert_eq!(f.use_tokens(customer, &row, "20000", now_s).await.status, 200);
        } else {
            let mut world = lock(&f.stripe.shared().world);
            let params = form::Params::of(event(customer, &row, "20000", &at));
            let proposed = meter_events::propose(&world, params).unwrap();
            billing::catch_up(&mut world, now_s);
            meter_events::accept(&mut world, proposed, now_s).unwrap();
        }
    }
    f.stripe.advance_to(start_s + 63 * DAY_S).await.unwrap();
    let took = began.elapsed();
    let views: Vec<InvoiceView> = customers.iter().flat_map(|customer| f.stripe.invoices(customer)).collect();
    assert_eq!(views.len(), CUSTOMERS * 3);
    assert!(views.iter().all(|invoice| invoice.status == InvoiceStatus::Paid));
    let billed: u64 = views.iter().map(InvoiceView::metered_quantity).sum();
    assert_eq!(billed, 20_000 * u64::try_from(EVENTS_MADE).unwrap());
    println!("two months took {took:?}");
    assert!(took < Duration::from_mins(1), "{took:?}");
}
