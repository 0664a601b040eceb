//! Subscription schedules, and what an old account has: prices without a meter. Every amount is worked out by hand.

use super::*;

const SCHEDULES: &str = "/v1/subscription_schedules";

/// A subscription from before there were meters: $10 a month and 0.001 cents for each token that was recorded.
struct Old {
    f: Fixture,
    /// The plan that it is to be moved to: $20 and 500,000 tokens, then 0.0002 cents each.
    pro: Plan,
    customer: String,
    base: String,
    tokens: String,
    path: String,
    id: String,
    /// The items of the old base and the old tokens.
    items: [String; 2],
    start_s: i64,
    end_s: i64,
}

impl Old {
    /// It began at noon of April 10: its period has 30 days.
    async fn new() -> Self {
        let f = Fixture::new().await;
        f.set_clock(noon(2026, 4, 10));
        let (pro, customer) = (f.pro().await, f.customer().await);
        let product = f.post("/v1/products", &[("name", "Old")]).await.id();
        let base = [
            ("product", product.as_str()),
            ("currency", "usd"),
            ("unit_amount", "1000"),
            ("recurring[interval]", "month"),
        ];
        let base = f.post("/v1/prices", &base).await.id();
        let tokens = f.stripe.legacy_price(&old_tokens(&product)).unwrap();
        let form =
            [("customer", customer.as_str()), ("items[0][price]", &base), ("items[1][price]", &tokens)];
        let id = f.stripe.legacy_subscription(&form).unwrap();
        let path = format!("/v1/subscriptions/{id}");
        let made = f.get(&path).await.json;
        let item = |at: usize| made["items"]["data"][at]["id"].as_str().unwrap().to_owned();
        let items = [item(0), item(1)];
        let (start_s, end_s) = period(&made);
        Self { f, pro, customer, base, tokens, path, id, items, start_s, end_s }
    }

    async fn schedule(&self) -> String {
        self.f.post(SCHEDULES, &[("from_subscription", self.id.as_str())]).await.id()
    }

    /// The phases of the move to Pro: as it is until the period ends, then Pro for one period.
    fn phases(&self) -> Vec<(&'static str, String)> {
        vec![
            ("phases[0][start_date]", self.start_s.to_string()),
            ("phases[0][end_date]", self.end_s.to_string()),
            ("phases[0][items][0][price]", self.base.clone()),
            ("phases[0][items][1][price]", self.tokens.clone()),
            ("phases[1][items][0][price]", self.pro.base.clone()),
            ("phases[1][items][1][price]", self.pro.tokens.clone()),
            ("phases[1][proration_behavior]", "none".to_owned()),
        ]
    }

    async fn update(&self, schedule: &str, form: &[(&str, String)]) -> Reply {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.f.post(&format!("{SCHEDULES}/{schedule}"), &form).await
    }

    /// A schedule that moves it to Pro.
    async fn scheduled(&self) -> String {
        let schedule = self.schedule().await;
        self.update(&schedule, &self.phases()).await.id();
        schedule
    }

    async fn read(&self) -> Value {
        self.f.get(&self.path).await.json
    }

    async fn read_schedule(&self, id: &str) -> Value {
        self.f.get(&format!("{SCHEDULES}/{id}")).await.json
    }

    /// When the period after so many others begins.
    fn month(&self, months: u32) -> i64 {
        noon(2026, 4 + months, 10) - noon(2026, 4, 10) + self.start_s
    }

    async fn to(&self, at_s: i64) {
        self.f.stripe.advance_to(at_s).await.unwrap();
    }

    fn told(&self, kind: &str) -> Vec<Value> {
        let events = self.f.stripe.events().into_iter().filter(|event| event.kind == kind);
        events.map(|event| event.object).collect()
    }
}

fn old_tokens(product: &str) -> [(&str, &str); 5] {
    [
        ("product", product),
        ("currency", "usd"),
        ("unit_amount_decimal", "0.001"),
        ("recurring[interval]", "month"),
        ("recurring[usage_type]", "metered"),
    ]
}

/// `(price, quantity, cents)` of each line.
fn lines(invoice: &InvoiceView) -> Vec<(String, u64, i64)> {
    invoice.lines.iter().map(|line| (line.price.clone(), line.quantity, line.cents)).collect()
}

fn prices(of: &Value) -> Vec<&str> {
    let items = of["items"]["data"].as_array().unwrap();
    items.iter().map(|item| item["price"]["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_metered_price_without_a_meter_can_be_neither_made_nor_attached_any_more() {
    let old = Old::new().await;
    let product = old.f.post("/v1/products", &[("name", "New")]).await.id();
    let refused = old.f.post("/v1/prices", &old_tokens(&product)).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &"recurring[meter]".into()));
    let read = old.f.get(&format!("/v1/prices/{}", old.tokens)).await.json;
    assert_eq!(read["recurring"]["usage_type"], "metered");
    assert_eq!(read["recurring"]["meter"], Value::Null);
    let other = old.f.customer().await;
    let subscribe = [("customer", other.as_str()), ("items[0][price]", &old.tokens)];
    assert_eq!(old.f.post("/v1/subscriptions", &subscribe).await.status, 400);
    let checkout = [
        ("mode", "subscription"),
        ("success_url", "https://example.com/"),
        ("line_items[0][price]", old.tokens.as_str()),
    ];
    let refused = old.f.post("/v1/checkout/sessions", &checkout).await;
    assert_eq!(refused.error()["param"], "line_items[0][price]", "{}", refused.json);
    let bad = old.f.stripe.legacy_price(&old_tokens("prod_unknown")).unwrap_err();
    assert!(bad.to_string().contains("No such product"), "{bad}");
}

#[tokio::test]
async fn usage_that_was_recorded_is_billed_with_its_own_period() {
    let old = Old::new().await;
    let read = old.read().await;
    assert_eq!(read["billing_mode"], serde_json::json!({ "flexible": null, "type": "classic" }));
    let item = &read["items"]["data"][1];
    assert_eq!((&item["plan"]["usage_type"], &item["quantity"]), (&"metered".into(), &Value::Null));
    old.f.stripe.legacy_usage(&old.items[1], 100_000).unwrap();
    old.f.stripe.legacy_usage(&old.items[1], 150_000).unwrap();
    assert_eq!(old.f.stripe.legacy_usage(&old.items[0], 1), Err(NoSuchObject), "a licensed item");
    old.to(old.end_s + 60).await;
    old.f.stripe.legacy_usage(&old.items[1], 7_000).unwrap();
    let invoices = old.f.stripe.invoices(&old.customer);
    let base = (old.base.clone(), 1, 1000);
    assert_eq!(lines(&invoices[0]), std::slice::from_ref(&base));
    assert_eq!(lines(&invoices[1]), [base.clone(), (old.tokens.clone(), 250_000, 250)]);
    old.to(old.month(2) + 60).await;
    let invoices = old.f.stripe.invoices(&old.customer);
    assert_eq!(lines(&invoices[2]), [base, (old.tokens.clone(), 7_000, 7)]);
}

#[tokio::test]
async fn a_schedule_moves_an_old_subscription_to_the_meter_when_its_period_ends() {
    let old = Old::new().await;
    let schedule = old.scheduled().await;
    old.f.stripe.legacy_usage(&old.items[1], 250_000).unwrap();
    let (early_s, late_s) = (old.start_s + DAY_S, old.end_s + DAY_S);
    old.to(early_s + 60).await;
    // What the meter counts before the move is on no invoice.
    old.f.use_tokens(&old.customer, "early", "900000", early_s).await.json.as_object().unwrap();
    old.to(old.end_s - HOUR_S).await;
    assert_eq!(prices(&old.read().await), [&old.base, &old.tokens]);
    let updates = old.told("customer.subscription.updated").len();
    old.to(old.end_s + 60).await;
    let read = old.read().await;
    assert_eq!(prices(&read), [&old.pro.base, &old.pro.tokens]);
    assert_eq!(read["billing_mode"]["type"], "classic");
    assert_eq!(read["schedule"], schedule.as_str());
    let june_s = old.month(2);
    assert_eq!(period(&read), (old.end_s, june_s));
    let told = old.told("customer.subscription.updated");
    assert_eq!(told.len(), updates + 1, "one change at the boundary");
    assert_eq!(prices(told.last().unwrap()), [&old.pro.base, &old.pro.tokens]);
    let phase = old.told("subscription_schedule.updated").last().unwrap()["current_phase"].clone();
    assert_eq!(phase, serde_json::json!({ "end_date": june_s, "start_date": old.end_s }));
    old.to(late_s + 60).await;
    old.f.use_tokens(&old.customer, "late", "1000000", late_s).await.json.as_object().unwrap();
    old.to(june_s + 60).await;
    let invoices = old.f.stripe.invoices(&old.customer);
    let base = (old.pro.base.clone(), 1, 2000);
    assert_eq!(lines(&invoices[1]), [base.clone(), (old.tokens.clone(), 250_000, 250)]);
    let tiers = [(old.pro.tokens.clone(), 500_000, 0), (old.pro.tokens.clone(), 500_000, 100)];
    assert_eq!(lines(&invoices[2]), [base, tiers[0].clone(), tiers[1].clone()]);
    assert!(invoices.iter().all(|invoice| invoice.lines.iter().all(|line| !line.proration)));
    // The last phase is over: the subscription goes on by itself.
    let done = old.read_schedule(&schedule).await;
    assert_eq!((&done["status"], &done["completed_at"]), (&"completed".into(), &june_s.into()));
    assert_eq!((&done["subscription"], &done["current_phase"]), (&Value::Null, &Value::Null));
    assert_eq!(old.told("subscription_schedule.completed").len(), 1);
    let read = old.read().await;
    assert_eq!((&read["schedule"], &read["status"]), (&Value::Null, &"active".into()));
    old.to(old.month(3) + 60).await;
    assert_eq!(old.f.stripe.invoices(&old.customer).len(), 4);
}

#[tokio::test]
async fn a_schedule_is_made_of_a_subscription_and_of_nothing_else() {
    let old = Old::new().await;
    let refused = old.f.post(SCHEDULES, &[("customer", old.customer.as_str()), ("start_date", "now")]).await;
    assert_eq!(refused.status, 501);
    let with = [("from_subscription", old.id.as_str()), ("metadata[a]", "b")];
    let refused = old.f.post(SCHEDULES, &with).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &"metadata".into()));
    let unknown = old.f.post(SCHEDULES, &[("from_subscription", "sub_unknown")]).await;
    assert_eq!(unknown.error()["code"], "resource_missing");
    assert!(old.told("subscription_schedule.created").is_empty());

    let made = old.f.post(SCHEDULES, &[("from_subscription", old.id.as_str())]).await;
    let id = made.id();
    assert_eq!(made.json["current_phase"]["start_date"], old.start_s);
    assert_eq!(made.json["current_phase"]["end_date"], old.end_s);
    assert_eq!(made.json["end_behavior"], "release");
    assert_eq!(made.json["phases"][0]["items"][0]["quantity"], 1);
    assert!(made.json["phases"][0]["items"][1].get("quantity").is_none());
    assert_eq!(old.told("subscription_schedule.created").len(), 1);
    let expanded = old.f.get(&format!("{}?expand[]=schedule", old.path)).await.json;
    assert_eq!(expanded["schedule"]["id"], id.as_str());
    let hook = [("url", "https://example.com/"), ("enabled_events[]", "subscription_schedule.updated")];
    old.f.post("/v1/webhook_endpoints", &hook).await.id();
    let second = old.f.post(SCHEDULES, &[("from_subscription", old.id.as_str())]).await;
    let message = second.error()["message"].as_str().unwrap();
    assert!(message.contains("already attached to a schedule") && message.contains(&id), "{message}");
    let other = old.f.customer().await;
    let list = async |customer: &str| {
        let list = old.f.get(&format!("{SCHEDULES}?customer={customer}")).await.json;
        list["data"].as_array().unwrap().len()
    };
    assert_eq!((list(&old.customer).await, list(&other).await), (1, 0));

    let ended = Old::new().await;
    ended.f.send(ended.f.request("DELETE", &ended.path)).await.id();
    let refused = ended.f.post(SCHEDULES, &[("from_subscription", ended.id.as_str())]).await;
    assert_eq!(refused.status, 400, "{}", refused.json);
}

#[tokio::test]
async fn an_update_gives_the_current_phase_again_and_the_others_follow_it() {
    let old = Old::new().await;
    let schedule = old.schedule().await;
    let good = old.phases();
    let change = async |name: &'static str, value: Option<String>| {
        let mut form = good.clone();
        form.retain(|(given, _)| *given != name);
        form.extend(value.map(|value| (name, value)));
        let reply = old.update(&schedule, &form).await;
        let text = reply.json["error"]["message"].as_str().unwrap_or_default().to_owned();
        (reply.status, text)
    };
    let is = |found: (u16, String), status: u16, text: &str| {
        assert!(found.0 == status && found.1.contains(text), "{found:?} is not {status} with {text}");
    };
    let second_only: Vec<_> =
        good.iter().filter(|(name, _)| name.starts_with("phases[1]")).cloned().collect();
    let dropped = old.update(&schedule, &second_only).await;
    assert!(
        dropped.error()["message"]
            .as_str()
            .unwrap()
            .contains("missing at least one phase with a `start_date`")
    );
    is(change("phases[0][start_date]", None).await, 400, "missing at least one phase");
    let later = Some(old.end_s.to_string());
    is(
        change("phases[0][start_date]", later).await,
        400,
        "can not modify the start date of the current phase",
    );
    let gap = Some((old.end_s + 1).to_string());
    is(change("phases[1][start_date]", gap).await, 400, "must be the end_date of the phase before");
    let month = Some("month".to_owned());
    is(change("phases[0][duration][interval]", month).await, 400, "only specify one of these");
    is(change("phases[1][iterations]", Some("1".to_owned())).await, 400, "unknown parameter");
    is(change("phases[1][items][1][quantity]", Some("1".to_owned())).await, 400, "Quantity should not be");
    is(change("phases[1][items][1][price]", Some(old.tokens.clone())).await, 400, "must be backed by meters");
    is(change("phases[1][items][0][price]", Some(old.pro.tokens.clone())).await, 400, "same price");
    is(change("phases[1][items][0][price]", Some("price_x".to_owned())).await, 400, "No such price");
    is(
        change("phases[0][items][1][price]", Some(old.pro.tokens.clone())).await,
        501,
        "current phase's items",
    );
    is(change("phases[0][end_date]", Some((old.start_s + DAY_S).to_string())).await, 501, "within a period");
    is(change("phases[0][end_date]", Some(old.start_s.to_string())).await, 400, "after its start_date");
    is(change("phases[1][trial]", Some("true".to_owned())).await, 501, "trial");
    is(change("phases[1][billing_cycle_anchor]", Some("phase_start".to_owned())).await, 501, "phase_start");
    is(change("end_behavior", Some("renew".to_owned())).await, 501, "end_behavior");
    assert_eq!(old.told("subscription_schedule.updated").len(), 0, "a refused change changes nothing");

    let two = Some("2".to_owned());
    let mut form = good.clone();
    form.extend([("phases[1][duration][interval]", "month".to_owned()), ("metadata[by]", "us".to_owned())]);
    form.extend(two.map(|two| ("phases[1][duration][interval_count]", two)));
    let done = old.update(&schedule, &form).await;
    done.id();
    assert_eq!(done.json["metadata"]["by"], "us");
    assert_eq!(done.json["phases"][1]["start_date"], old.end_s);
    assert_eq!(done.json["phases"][1]["end_date"], old.month(3));
    assert_eq!(done.json["phases"][1]["proration_behavior"], "none");
    old.to(old.end_s + 60).await;
    // What is over stays and is not given again.
    let mut form = second_only;
    form.push(("phases[1][start_date]", old.end_s.to_string()));
    let done = old.update(&schedule, &form).await;
    done.id();
    assert_eq!(done.json["phases"].as_array().unwrap().len(), 2);
    assert_eq!(done.json["phases"][1]["end_date"], old.month(2));
}

#[tokio::test]
async fn a_phase_takes_its_metadata_along_and_only_active_prices() {
    let old = Old::new().await;
    let schedule = old.schedule().await;
    let mut form = old.phases();
    form.extend([
        ("phases[1][metadata][plan]", "pro".to_owned()),
        ("phases[1][metadata][old]", String::new()),
    ]);
    old.update(&schedule, &form).await.id();
    let metadata = [("metadata[user_id]", "user_1"), ("metadata[old]", "yes")];
    old.f.post(&old.path, &metadata).await.id();
    old.to(old.end_s + 60).await;
    let found = old.read().await["metadata"].clone();
    assert_eq!(found, serde_json::json!({ "plan": "pro", "user_id": "user_1" }));

    let old = Old::new().await;
    let schedule = old.schedule().await;
    old.f.post(&format!("/v1/prices/{}", old.pro.base), &[("active", "false")]).await.id();
    let refused = old.update(&schedule, &old.phases()).await;
    assert!(refused.error()["message"].as_str().unwrap().contains("inactive"), "{}", refused.json);
}

#[tokio::test]
async fn a_price_without_a_meter_can_be_refused_even_where_it_stays() {
    let old = Old::new().await;
    let schedule = old.schedule().await;
    old.f.stripe.refuse_legacy_phases(true);
    let refused = old.update(&schedule, &old.phases()).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &"phases[0][items][1][price]".into()));
    old.f.stripe.refuse_legacy_phases(false);
    old.update(&schedule, &old.phases()).await.id();
}

#[tokio::test]
async fn what_a_schedule_manages_is_not_changed_past_it() {
    let old = Old::new().await;
    let schedule = old.scheduled().await;
    for form in
        [("cancel_at_period_end", "true"), ("cancel_at_period_end", "false"), ("cancel_at", "min_period_end")]
    {
        let refused = old.f.post(&old.path, &[form]).await;
        let message = refused.error()["message"].as_str().unwrap();
        assert!(message.contains(&format!("managed by the subscription schedule `{schedule}`")), "{message}");
    }
    old.f.post(&old.path, &[("metadata[user_id]", "user_1"), ("description", "kept")]).await.id();
    old.f.post(&format!("/v1/customers/{}", old.customer), &[("metadata[user_id]", "user_1")]).await.id();
    let read = old.read().await;
    assert_eq!(
        (&read["metadata"]["user_id"], &read["schedule"]),
        (&"user_1".into(), &schedule.as_str().into())
    );

    // In the portal there is no button, and a request that knows it is refused.
    old.f.stripe.save_default_portal().unwrap();
    let session = old.f.post("/v1/billing_portal/sessions", &[("customer", old.customer.as_str())]).await;
    let url = session.json["url"].as_str().unwrap();
    let page = old.f.http.get(url).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Renews on") && !page.contains("Cancel subscription"), "{page}");
    let form = [("action", "cancel"), ("subscription", old.id.as_str())];
    old.f.http.post(url).form(&form).send().await.unwrap();
    assert_eq!(old.read().await["cancel_at"], Value::Null);
}

#[tokio::test]
async fn a_change_of_the_items_is_a_change_of_the_current_phase() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let made = f.subscribe(&customer, &plan).await;
    let (of, item) = (made["id"].as_str().unwrap(), made["items"]["data"][0]["id"].as_str().unwrap());
    let schedule = f.post(SCHEDULES, &[("from_subscription", of)]).await.id();
    let form = [("items[0][id]", item), ("items[0][quantity]", "3"), ("proration_behavior", "none")];
    f.post(&format!("/v1/subscriptions/{of}"), &form).await.id();
    let read = f.get(&format!("{SCHEDULES}/{schedule}")).await.json;
    let items = read["phases"][0]["items"].as_array().unwrap();
    let base = items.iter().find(|item| item["price"] == plan.base.as_str()).unwrap();
    assert_eq!(base["quantity"], 3);
    let refused = f.post(&format!("/v1/subscriptions/{of}"), &[("billing_cycle_anchor[type]", "now")]).await;
    assert_eq!(refused.status, 501);
}

#[tokio::test]
async fn a_released_subscription_stays_as_it_is() {
    let old = Old::new().await;
    let schedule = old.scheduled().await;
    let path = format!("{SCHEDULES}/{schedule}/release");
    let released = old.f.post(&path, &[]).await;
    released.id();
    assert_eq!(released.json["status"], "released");
    assert_eq!(released.json["released_subscription"], old.id.as_str());
    assert_eq!((&released.json["subscription"], &old.read().await["schedule"]), (&Value::Null, &Value::Null));
    assert_eq!(old.told("subscription_schedule.released").len(), 1);
    for (path, form) in
        [(path.as_str(), vec![]), (&format!("{SCHEDULES}/{schedule}"), vec![("metadata[a]", "b")])]
    {
        let refused = old.f.post(path, &form).await;
        assert!(
            refused.error()["message"].as_str().unwrap().contains("`released` status"),
            "{}",
            refused.json
        );
    }
    old.to(old.end_s + 60).await;
    assert_eq!(prices(&old.read().await), [&old.base, &old.tokens]);
    // It can have another one.
    old.schedule().await;
}

#[tokio::test]
async fn a_schedule_that_ends_with_a_cancellation_ends_its_subscription() {
    let old = Old::new().await;
    let schedule = old.scheduled().await;
    let form = [("end_behavior", "cancel".to_owned())];
    old.update(&schedule, &form).await.id();
    let june_s = old.month(2);
    assert_eq!(old.read().await["cancel_at"], june_s);
    // Released, it goes on; unless the date is to be kept.
    let other = Old::new().await;
    let kept = other.scheduled().await;
    other.update(&kept, &form).await.id();
    let keep = [("preserve_cancel_date", "true")];
    other.f.post(&format!("{SCHEDULES}/{kept}/release"), &keep).await.id();
    assert_eq!(other.read().await["cancel_at"], other.month(2));

    old.to(june_s + 60).await;
    let read = old.read().await;
    assert_eq!((&read["status"], &read["ended_at"]), (&"canceled".into(), &june_s.into()));
    assert_eq!(old.read_schedule(&schedule).await["status"], "completed");
    assert_eq!(old.told("subscription_schedule.completed").len(), 1);

    let gone = Old::new().await;
    let lifted = gone.scheduled().await;
    gone.update(&lifted, &form).await.id();
    gone.f.post(&format!("{SCHEDULES}/{lifted}/release"), &[]).await.id();
    assert_eq!(gone.read().await["cancel_at"], Value::Null);
}

#[tokio::test]
async fn a_schedule_ends_with_its_subscription() {
    let old = Old::new().await;
    let schedule = old.scheduled().await;
    old.f.stripe.legacy_usage(&old.items[1], 250_000).unwrap();
    old.to(old.start_s + DAY_S).await;
    let canceled = old.f.post(&format!("{SCHEDULES}/{schedule}/cancel"), &[("prorate", "false")]).await;
    canceled.id();
    assert_eq!(canceled.json["status"], "canceled");
    assert_eq!(old.read().await["status"], "canceled");
    // Without a word on it the usage is invoiced.
    let last = old.f.stripe.invoices(&old.customer).pop().unwrap();
    assert_eq!(lines(&last), [(old.tokens.clone(), 250_000, 250)]);
    assert_eq!(old.told("subscription_schedule.canceled").len(), 1);

    let old = Old::new().await;
    let schedule = old.scheduled().await;
    old.f.send(old.f.request("DELETE", &old.path)).await.id();
    assert_eq!(old.read_schedule(&schedule).await["status"], "canceled");

    let old = Old::new().await;
    let schedule = old.scheduled().await;
    old.f.stripe.set_dunning_end(DunningEnd::Canceled);
    old.f.stripe.set_card(&old.customer, Card::Fails).unwrap();
    old.to(old.end_s + 20 * DAY_S).await;
    assert_eq!(old.read_schedule(&schedule).await["status"], "canceled");
    assert_eq!(old.told("subscription_schedule.aborted").len(), 1);
}

#[tokio::test]
async fn classic_billing_is_left_only_without_a_price_from_before_meters() {
    let old = Old::new().await;
    let flexible = [("billing_mode[type]", "flexible")];
    let path = format!("{}/migrate", old.path);
    let refused = old.f.post(&path, &flexible).await;
    assert!(refused.error()["message"].as_str().unwrap().contains("legacy usage-based billing"));
    let change = [("items[0][id]", old.items[0].as_str()), ("items[0][quantity]", "2")];
    assert_eq!(old.f.post(&old.path, &change).await.status, 501);
    let schedule = old.scheduled().await;
    old.to(old.end_s + 60).await;
    assert_eq!(old.f.post(&path, &flexible).await.status, 501);
    old.f.post(&format!("{SCHEDULES}/{schedule}/release"), &[]).await.id();
    let migrated = old.f.post(&path, &flexible).await;
    migrated.id();
    assert_eq!(migrated.json["billing_mode"]["type"], "flexible");
    assert!(migrated.json["billing_mode"]["updated_at"].as_i64().unwrap() >= old.end_s + 60);
    assert_eq!(old.f.post(&path, &flexible).await.status, 400);
}
