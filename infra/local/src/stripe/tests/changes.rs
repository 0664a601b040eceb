//! Changes of a subscription, trials and pauses. Every amount is worked out by hand, from the seconds.

use super::*;

/// A plan of 99 dollars and 5,000,000 tokens, then 0.00015 cents for each, on the same meter.
async fn agency(f: &Fixture, plan: &Plan) -> Plan {
    let product = f.post("/v1/products", &[("name", "Agency")]).await.id();
    let base = [
        ("product", product.as_str()),
        ("currency", "usd"),
        ("unit_amount", "9900"),
        ("recurring[interval]", "month"),
    ];
    let base = f.post("/v1/prices", &base).await.id();
    let mut form = tiered(&product, &plan.meter);
    form.retain(|(name, _)| !name.starts_with("tiers["));
    form.extend([("tiers[0][up_to]", "5000000"), ("tiers[0][unit_amount]", "0"), ("tiers[1][up_to]", "inf")]);
    form.push(("tiers[1][unit_amount_decimal]", "0.00015"));
    let tokens = f.post("/v1/prices", &form).await.id();
    Plan { meter: plan.meter.clone(), base, tokens }
}

struct Pro {
    f: Fixture,
    plan: Plan,
    customer: String,
    path: String,
    start_s: i64,
    end_s: i64,
    items: [String; 2],
}

impl Pro {
    /// A Pro subscription that began at noon of April 10: its period has 30 days.
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(extra: &[(&str, &str)]) -> Self {
        let f = Fixture::new().await;
        f.set_clock(noon(2026, 4, 10));
        let (plan, customer) = (f.pro().await, f.customer().await);
        let mut form = vec![("customer", customer.as_str()), ("items[0][price]", &plan.base)];
        form.push(("items[1][price]", &plan.tokens));
        form.extend_from_slice(extra);
        let made = f.post("/v1/subscriptions", &form).await;
        let path = format!("/v1/subscriptions/{}", made.id());
        let (start_s, end_s) = period(&made.json);
        let item = |at: usize| made.json["items"]["data"][at]["id"].as_str().unwrap().to_owned();
        let items = [item(0), item(1)];
        Self { f, plan, customer, path, start_s, end_s, items }
    }

    async fn update(&self, form: &[(&str, &str)]) -> Value {
        let reply = self.f.post(&self.path, form).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        reply.json
    }

    async fn to(&self, at_s: i64) {
        self.f.stripe.advance_to(at_s).await.unwrap();
    }

    /// Moves the clock to so many days after the start, and a change to the agency plan there. When it was made.
    async fn upgrade(&self, days: i64, proration: &str) -> (Plan, i64) {
        let agency = agency(&self.f, &self.plan).await;
        self.to(self.start_s + days * DAY_S).await;
        let form = [
            ("items[0][id]", self.items[0].as_str()),
            ("items[0][price]", &agency.base),
            ("items[1][id]", &self.items[1]),
            ("items[1][price]", &agency.tokens),
            ("proration_behavior", proration),
        ];
        self.update(&form).await;
        let at_s = self.f.get("/v1/events?limit=1").await.json["data"][0]["created"].as_i64().unwrap();
        (agency, at_s)
    }

    fn invoices(&self) -> Vec<InvoiceView> {
        self.f.stripe.invoices(&self.customer)
    }

    fn cents(&self, at: usize) -> Vec<i64> {
        self.invoices()[at].lines.iter().map(|line| line.cents).collect()
    }

    async fn status(&self) -> String {
        self.f.get(&self.path).await.json["status"].as_str().unwrap().to_owned()
    }

    fn told(&self, kind: &str) -> usize {
        self.f.stripe.events().iter().filter(|event| event.kind == kind).count()
    }
}

/// The share of a price for the seconds that are left, by another way than the engine's: half up of a positive amount.
fn part(cents: i64, left_s: i64, whole_s: i64) -> i64 {
    let exact = i128::from(cents) * i128::from(left_s);
    let (whole, rest) = (exact / i128::from(whole_s), exact % i128::from(whole_s));
    i64::try_from(whole).unwrap() + i64::from(rest * 2 >= i128::from(whole_s))
}

#[tokio::test]
async fn an_upgrade_prorates_by_the_second_and_bills_earlier_usage_at_the_earlier_price() {
    let pro = Pro::new().await;
    let used_s = pro.start_s + 60;
    pro.f.use_tokens(&pro.customer, "before", "700000", used_s).await;
    let (_, at_s) = pro.upgrade(10, "create_prorations").await;
    assert_eq!(pro.invoices().len(), 1, "it waits for the next invoice");
    pro.f.use_tokens(&pro.customer, "after", "5200000", at_s + 5).await;
    pro.f.use_tokens(&pro.customer, "too-late", "1000000", used_s).await;
    pro.to(pro.end_s + HOUR_S).await;
    let invoice = pro.invoices()[1].clone();
    let (left_s, whole_s) = (pro.end_s - at_s, pro.end_s - pro.start_s);
    let (credit, debit) = (-part(2000, left_s, whole_s), part(9900, left_s, whole_s));
    // The latest item first: usage, debit and credit of the change; then the new plan's base and its own usage.
    let cents = [debit, credit];
    let found: Vec<i64> = invoice.lines.iter().filter(|line| line.proration).map(|line| line.cents).collect();
    assert_eq!(found, cents);
    let metered: Vec<(u64, i64)> =
        invoice.lines.iter().filter(|line| line.metered).map(|line| (line.quantity, line.cents)).collect();
    assert_eq!(metered, [(200_000, 40), (500_000, 0), (5_000_000, 0), (200_000, 30)]);
    assert_eq!(invoice.total_cents, 9900 + debit + credit + 40 + 30);
    assert_eq!(
        invoice.metered_quantity(),
        5_900_000,
        "what was told after the change for before is on nothing"
    );
    assert_eq!(invoice.status, InvoiceStatus::Paid);
    pro.to(pro.end_s + 40 * DAY_S).await;
    assert_eq!(pro.invoices()[2].total_cents, 9900, "prorations are billed once");
}

#[tokio::test]
async fn a_change_without_proration_bills_neither_the_rest_nor_the_earlier_usage() {
    let pro = Pro::new().await;
    pro.f.use_tokens(&pro.customer, "before", "700000", pro.start_s + 60).await;
    pro.upgrade(10, "none").await;
    pro.to(pro.end_s + HOUR_S).await;
    assert_eq!(pro.cents(1), [9900, 0]);
}

#[tokio::test]
async fn always_invoice_bills_a_change_at_once() {
    let pro = Pro::new().await;
    let (_, at_s) = pro.upgrade(10, "always_invoice").await;
    let (left_s, whole_s) = (pro.end_s - at_s, pro.end_s - pro.start_s);
    let invoice = pro.invoices()[1].clone();
    assert_eq!(invoice.total_cents, part(9900, left_s, whole_s) - part(2000, left_s, whole_s));
    assert_eq!((invoice.reason, invoice.status), ("subscription_update", InvoiceStatus::Paid));
    pro.to(pro.end_s + HOUR_S).await;
    assert_eq!(pro.invoices()[2].total_cents, 9900);
}

#[tokio::test]
async fn a_downgrade_credits_what_was_billed_and_the_rest_of_it_stays_for_later_invoices() {
    let pro = Pro::new().await;
    let (agency, at_s) = pro.upgrade(1, "create_prorations").await;
    pro.to(pro.start_s + 2 * DAY_S).await;
    let back = [
        ("items[0][id]", pro.items[0].as_str()),
        ("items[0][price]", &pro.plan.base),
        ("items[1][id]", &pro.items[1]),
        ("items[1][price]", &pro.plan.tokens),
    ];
    assert_ne!(agency.base, pro.plan.base);
    let changed = pro.update(&back).await;
    let back_s = pro.f.get("/v1/events?limit=1").await.json["data"][0]["created"].as_i64().unwrap();
    assert_eq!(changed["items"]["data"][0]["price"]["id"].as_str(), Some(pro.plan.base.as_str()));
    pro.to(pro.end_s + HOUR_S).await;
    let whole_s = pro.end_s - pro.start_s;
    let debit = part(9900, pro.end_s - at_s, whole_s);
    let expected = 2000 - part(2000, pro.end_s - at_s, whole_s) + debit
        - part(debit, pro.end_s - back_s, pro.end_s - at_s)
        + part(2000, pro.end_s - back_s, whole_s);
    assert_eq!(pro.invoices()[1].total_cents, expected);
}

#[tokio::test]
async fn a_credit_above_the_total_goes_to_the_balance_and_pays_the_next_invoice() {
    let pro = Pro::new().await;
    pro.update(&[("items[0][id]", &pro.items[0]), ("items[0][quantity]", "10")]).await;
    pro.to(pro.end_s + HOUR_S).await;
    let (_, next_end_s) = period(&pro.f.get(&pro.path).await.json);
    pro.update(&[("items[0][id]", &pro.items[0]), ("items[0][quantity]", "1")]).await;
    pro.to(next_end_s + HOUR_S).await;
    let invoice = pro.invoices()[2].clone();
    assert!(invoice.total_cents < -10_000, "{invoice:?}");
    assert_eq!((invoice.due_cents, invoice.status), (0, InvoiceStatus::Paid));
    let path = format!("/v1/customers/{}", pro.customer);
    assert_eq!(pro.f.get(&path).await.json["balance"], invoice.total_cents);
    pro.to(next_end_s + 31 * DAY_S + HOUR_S).await;
    let next = pro.invoices()[3].clone();
    assert_eq!((next.total_cents, next.due_cents), (2000, 0));
    assert_eq!(pro.f.get(&path).await.json["balance"], invoice.total_cents + 2000);
}

#[tokio::test]
async fn items_are_added_and_removed_and_one_must_stay() {
    let pro = Pro::new().await;
    let agency = agency(&pro.f, &pro.plan).await;
    let left = pro.update(&[("items[0][id]", &pro.items[1]), ("items[0][deleted]", "true")]).await;
    assert_eq!(left["items"]["data"].as_array().unwrap().len(), 1);
    let added = pro.update(&[("items[0][price]", &agency.tokens)]).await;
    assert_eq!(added["items"]["data"].as_array().unwrap().len(), 2);
    let twice = pro.f.post(&pro.path, &[("items[0][price]", &agency.tokens)]).await;
    check_error(&twice, 400, None, Some("items"));
    let ids: Vec<&str> =
        added["items"]["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    let all = [
        ("items[0][id]", ids[0]),
        ("items[0][deleted]", "true"),
        ("items[1][id]", ids[1]),
        ("items[1][deleted]", "true"),
    ];
    check_error(&pro.f.post(&pro.path, &all).await, 400, None, Some("items"));
    let unknown = pro.f.post(&pro.path, &[("items[0][id]", "si_1"), ("items[0][quantity]", "2")]).await;
    check_error(&unknown, 400, Some("resource_missing"), Some("items[0][id]"));
}

#[tokio::test]
async fn a_new_billing_date_bills_the_usage_and_the_new_period_at_once() {
    let pro = Pro::new().await;
    pro.f.use_tokens(&pro.customer, "before", "1500000", pro.start_s + 60).await;
    pro.to(pro.start_s + 15 * DAY_S).await;
    let moved = pro.update(&[("billing_cycle_anchor[type]", "now")]).await;
    let (start_s, end_s) = period(&moved);
    assert_eq!((moved["billing_cycle_anchor"].as_i64(), end_s - start_s), (Some(start_s), 30 * DAY_S));
    let credit = part(2000, pro.end_s - start_s, pro.end_s - pro.start_s);
    let invoice = pro.invoices()[1].clone();
    assert_eq!((invoice.total_cents, invoice.status), (2000 + 200 - credit, InvoiceStatus::Paid));
    pro.to(end_s + HOUR_S).await;
    assert_eq!((pro.invoices()[2].period_end_s, pro.invoices()[2].total_cents), (end_s, 2000));
}

#[tokio::test]
async fn a_cancellation_can_be_set_for_the_end_of_a_later_period_and_taken_back() {
    let pro = Pro::new().await;
    let may = pro.end_s + 31 * DAY_S;
    let ending = pro.update(&[("cancel_at", &may.to_string())]).await;
    assert_eq!(
        (ending["cancel_at"].as_i64(), ending["cancel_at_period_end"].as_bool()),
        (Some(may), Some(false))
    );
    let within = (pro.end_s - DAY_S).to_string();
    let prorated = pro.f.post(&pro.path, &[("cancel_at", &within)]).await;
    assert_eq!(prorated.status, 501, "{}", prorated.json);
    assert!(pro.update(&[("cancel_at", "")]).await["cancel_at"].is_null());
    let flexible = pro.update(&[("cancel_at", "max_period_end")]).await;
    assert_eq!(flexible["cancel_at"].as_i64(), Some(pro.end_s));
    pro.f.use_tokens(&pro.customer, "last", "1000000", pro.start_s + 60).await;
    pro.to(pro.end_s + 40 * DAY_S).await;
    assert_eq!(pro.status().await, "canceled");
    assert_eq!(pro.invoices().iter().map(|invoice| invoice.total_cents).collect::<Vec<_>>(), [2000, 100]);
    let changed = pro.f.post(&pro.path, &[("cancel_at", "")]).await;
    check_error(&changed, 400, None, None);
    pro.update(&[("metadata[why]", "moved")]).await;
}

#[tokio::test]
async fn canceling_at_once_loses_the_usage_unless_it_is_invoiced_and_credits_only_when_asked() {
    for (form, totals) in [
        (&[][..], &[2000][..]),
        (&[("invoice_now", "true")][..], &[2000, 200][..]),
        (&[("invoice_now", "true"), ("prorate", "true")][..], &[2000, 200 - 1000][..]),
    ] {
        let pro = Pro::new().await;
        pro.f.use_tokens(&pro.customer, "row-1", "1500000", pro.start_s + 60).await;
        pro.to(pro.start_s + 15 * DAY_S).await;
        let ended = pro.f.send(pro.f.request("DELETE", &pro.path).form(form)).await;
        assert_eq!(ended.json["status"], "canceled");
        pro.to(pro.end_s + DAY_S).await;
        let found: Vec<i64> = pro.invoices().iter().map(|invoice| invoice.total_cents).collect();
        assert_eq!(found.len(), totals.len(), "{form:?}");
        // The clock of the machine runs on: a second or two of 30 days is less than a cent.
        assert!(
            found.iter().zip(totals).all(|(found, total)| (found - total).abs() <= 1),
            "{form:?} {found:?}"
        );
    }
}

#[tokio::test]
async fn a_trial_bills_nothing_not_even_usage_and_its_end_is_announced_three_days_before() {
    let pro = Pro::with(&[("trial_period_days", "14")]).await;
    let trial_end_s = pro.start_s + 14 * DAY_S;
    assert_eq!((pro.status().await.as_str(), pro.end_s), ("trialing", trial_end_s));
    assert_eq!((pro.invoices()[0].total_cents, pro.invoices()[0].lines.len()), (0, 1));
    pro.f.use_tokens(&pro.customer, "free", "9000000", pro.start_s + 60).await;
    pro.to(trial_end_s - 3 * DAY_S - 60).await;
    assert_eq!(pro.told("customer.subscription.trial_will_end"), 0);
    pro.to(trial_end_s - 3 * DAY_S).await;
    assert_eq!(pro.told("customer.subscription.trial_will_end"), 1);
    pro.to(trial_end_s + 10).await;
    assert_eq!(pro.status().await, "active");
    pro.f.use_tokens(&pro.customer, "paid", "1000000", trial_end_s).await;
    assert_eq!(pro.cents(1), [2000, 0]);
    assert_eq!(pro.invoices()[1].metered_quantity(), 9_000_000, "shown, for nothing");
    let (start_s, end_s) = period(&pro.f.get(&pro.path).await.json);
    assert_eq!((start_s, end_s), (trial_end_s, trial_end_s + 30 * DAY_S));
    pro.to(end_s + HOUR_S).await;
    assert_eq!(pro.cents(2), [2000, 0, 100]);
}

#[tokio::test]
async fn a_trial_that_ends_without_a_card_does_what_was_asked_for() {
    let setting = "trial_settings[end_behavior][missing_payment_method]";
    for (behavior, status) in [("create_invoice", "past_due"), ("cancel", "canceled"), ("pause", "paused")] {
        let pro = Pro::with(&[("trial_period_days", "14"), (setting, behavior)]).await;
        pro.f.stripe.set_card(&pro.customer, Card::None).unwrap();
        pro.to(pro.end_s + 2 * HOUR_S).await;
        assert_eq!(pro.status().await, status);
        assert_eq!(pro.told("customer.subscription.paused"), usize::from(status == "paused"));
        if status != "paused" {
            check_error(&pro.f.post(&format!("{}/resume", pro.path), &[]).await, 400, None, None);
            continue;
        }
        pro.to(pro.end_s + 40 * DAY_S).await;
        assert_eq!(pro.invoices().len(), 1, "a paused subscription has no periods");
        pro.f.use_tokens(&pro.customer, "paused", "9000000", pro.end_s + 20 * DAY_S).await;
        pro.f.stripe.set_card(&pro.customer, Card::Works).unwrap();
        let resumed = pro.f.post(&format!("{}/resume", pro.path), &[]).await;
        assert_eq!((resumed.json["status"].as_str(), pro.cents(1)), (Some("active"), vec![2000]));
        assert_eq!(pro.told("customer.subscription.resumed"), 1);
        pro.to(period(&resumed.json).1 + HOUR_S).await;
        assert_eq!(pro.cents(2), [2000, 0], "what was used meanwhile is billed to nobody");
    }
}

#[tokio::test]
async fn a_trial_can_end_now_move_and_begin_later() {
    let pro = Pro::with(&[("trial_period_days", "14")]).await;
    let later_s = pro.start_s + 20 * DAY_S;
    let moved = pro.update(&[("trial_end", &later_s.to_string())]).await;
    assert_eq!(period(&moved).1, later_s);
    let ended = pro.update(&[("trial_end", "now")]).await;
    let (start_s, end_s) = period(&ended);
    assert_eq!((ended["status"].as_str(), end_s - start_s), (Some("active"), 30 * DAY_S));
    assert_eq!(pro.invoices()[1].total_cents, 2000);
    let again_s = end_s - 10 * DAY_S;
    let begun = pro.update(&[("trial_end", &again_s.to_string())]).await;
    assert_eq!((begun["status"].as_str(), period(&begun).1), (Some("trialing"), again_s));
    assert!(pro.invoices()[2].total_cents <= -1999, "what was paid for the time that is free now");
    check_error(&pro.f.post(&pro.path, &[("trial_end", "5")]).await, 400, None, Some("trial_end"));
    let both = [("trial_end", "now"), ("trial_period_days", "5"), ("customer", pro.customer.as_str())];
    let mut form = both.to_vec();
    form.push(("items[0][price]", &pro.plan.base));
    let both = pro.f.post("/v1/subscriptions", &form).await;
    check_error(&both, 400, Some("parameters_exclusive"), Some("trial_end"));
}

#[tokio::test]
async fn a_billing_date_ahead_bills_a_part_of_the_first_period_or_nothing() {
    let may_first = noon(2026, 5, 1);
    for (proration, cents) in [("create_prorations", Some(())), ("none", None)] {
        let anchor = may_first.to_string();
        let pro = Pro::with(&[("billing_cycle_anchor", &anchor), ("proration_behavior", proration)]).await;
        assert_eq!(pro.end_s, may_first);
        let found: Vec<i64> = pro.invoices().iter().map(|invoice| invoice.total_cents).collect();
        let expected: Vec<i64> =
            cents.map(|()| part(2000, may_first - pro.start_s, 30 * DAY_S)).into_iter().collect();
        assert_eq!(found, expected);
        pro.f.use_tokens(&pro.customer, "row-1", "1000000", pro.start_s + 60).await;
        pro.to(may_first + HOUR_S).await;
        assert_eq!(pro.invoices().last().unwrap().total_cents, 2100);
    }
}

#[tokio::test]
async fn a_pause_of_the_collection_keeps_writes_off_or_voids_what_is_made_meanwhile() {
    for (behavior, status) in [
        ("keep_as_draft", InvoiceStatus::Draft),
        ("mark_uncollectible", InvoiceStatus::Uncollectible),
        ("void", InvoiceStatus::Void),
    ] {
        let pro = Pro::new().await;
        let resumes = (pro.end_s + 5 * DAY_S).to_string();
        let form = [("pause_collection[behavior]", behavior), ("pause_collection[resumes_at]", &resumes)];
        assert_eq!(pro.update(&form).await["pause_collection"]["behavior"], behavior);
        pro.to(pro.end_s + 4 * DAY_S).await;
        assert_eq!((pro.invoices()[1].status, pro.status().await.as_str()), (status, "active"));
        pro.to(pro.end_s + 5 * DAY_S).await;
        assert!(pro.f.get(&pro.path).await.json["pause_collection"].is_null());
        pro.to(pro.end_s + 32 * DAY_S).await;
        assert_eq!((pro.invoices()[1].status, pro.invoices()[2].status), (status, InvoiceStatus::Paid));
    }
    let pro = Pro::new().await;
    pro.update(&[("pause_collection[behavior]", "void")]).await;
    assert!(pro.update(&[("pause_collection", "")]).await["pause_collection"].is_null());
    check_error(
        &pro.f.post(&pro.path, &[("pause_collection[resumes_at]", "99999999999")]).await,
        400,
        Some("parameter_missing"),
        Some("pause_collection[behavior]"),
    );
}

#[tokio::test]
async fn a_change_tells_what_it_was_before_and_a_refused_one_changes_nothing() {
    let pro = Pro::new().await;
    let before = pro.f.get(&pro.path).await.json;
    let refused = [("items[0][id]", pro.items[0].as_str()), ("items[0][quantity]", "2"), ("trial_end", "1")];
    assert_eq!(pro.f.post(&pro.path, &refused).await.status, 400);
    assert_eq!(pro.f.get(&pro.path).await.json, before);
    assert_eq!(pro.told("customer.subscription.updated"), 0);
    pro.update(&[("items[0][id]", &pro.items[0]), ("items[0][quantity]", "2")]).await;
    let event = &pro.f.get("/v1/events?type=customer.subscription.updated").await.json["data"][0];
    let old = &event["data"]["previous_attributes"]["items"]["data"][0];
    assert_eq!(
        (&old["quantity"], event["data"]["previous_attributes"].as_object().unwrap().len()),
        (&1.into(), 1)
    );
    pro.update(&[("items[0][id]", &pro.items[0]), ("items[0][quantity]", "2")]).await;
    assert_eq!(pro.told("customer.subscription.updated"), 1, "nothing changed, nothing is told");
}
