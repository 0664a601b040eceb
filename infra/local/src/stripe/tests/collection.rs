//! Payments, invoices, invoice items, disputes, and customers that go.

use super::*;

struct Pro {
    f: Fixture,
    customer: String,
    path: String,
    start_s: i64,
    end_s: i64,
}

impl Pro {
    async fn new() -> Self {
        let f = Fixture::new().await;
        f.set_clock(noon(2026, 4, 10));
        let (plan, customer) = (f.pro().await, f.customer().await);
        let made = f.subscribe(&customer, &plan).await;
        let path = format!("/v1/subscriptions/{}", made["id"].as_str().unwrap());
        let (start_s, end_s) = period(&made);
        Self { f, customer, path, start_s, end_s }
    }

    fn card(&self, card: Card) {
        self.f.stripe.set_card(&self.customer, card).unwrap();
    }

    async fn to(&self, at_s: i64) {
        self.f.stripe.advance_to(at_s).await.unwrap();
    }

    fn invoices(&self) -> Vec<InvoiceView> {
        self.f.stripe.invoices(&self.customer)
    }

    async fn status(&self) -> String {
        self.f.get(&self.path).await.json["status"].as_str().unwrap().to_owned()
    }

    fn told(&self, kind: &str) -> usize {
        self.f.stripe.events().iter().filter(|event| event.kind == kind).count()
    }
}

#[tokio::test]
async fn a_paid_cycle_is_charged_when_it_becomes_final() {
    let pro = Pro::new().await;
    pro.to(pro.end_s + HOUR_S).await;
    let invoice = pro.f.get("/v1/invoices?limit=1").await.json["data"][0].clone();
    assert_eq!((invoice["status"].as_str(), invoice["attempt_count"].as_i64()), (Some("paid"), Some(1)));
    assert_eq!(
        (invoice["amount_paid"].as_i64(), invoice["amount_remaining"].as_i64()),
        (Some(2000), Some(0))
    );
    assert_eq!(invoice["status_transitions"]["paid_at"].as_i64(), Some(pro.end_s + HOUR_S));
    assert!(invoice["hosted_invoice_url"].as_str().unwrap().starts_with("https://"));
    assert_eq!(pro.told("invoice.paid"), 2);
    let id = invoice["id"].as_str().unwrap();
    check_error(&pro.f.post(&format!("/v1/invoices/{id}/pay"), &[]).await, 400, None, None);
}

#[tokio::test]
async fn a_failed_payment_is_tried_again_after_3_5_and_7_days_and_then_the_subscription_is_canceled() {
    let pro = Pro::new().await;
    pro.card(Card::Fails);
    let failed_s = pro.end_s + HOUR_S;
    pro.to(failed_s).await;
    let invoice = pro.f.get("/v1/invoices?limit=1").await.json["data"][0].clone();
    assert_eq!((invoice["status"].as_str(), invoice["attempted"].as_bool()), (Some("open"), Some(true)));
    assert_eq!(invoice["next_payment_attempt"].as_i64(), Some(failed_s + 3 * DAY_S));
    assert_eq!((pro.status().await.as_str(), pro.told("invoice.payment_failed")), ("past_due", 1));
    for (days, attempts) in [(3, 2), (8, 3)] {
        pro.to(failed_s + days * DAY_S - 1).await;
        assert_eq!(pro.invoices()[1].attempts, attempts - 1);
        pro.to(failed_s + days * DAY_S).await;
        assert_eq!((pro.invoices()[1].attempts, pro.status().await.as_str()), (attempts, "past_due"));
    }
    pro.to(failed_s + 15 * DAY_S).await;
    assert_eq!((pro.status().await.as_str(), pro.told("invoice.payment_failed")), ("canceled", 4));
    let reason = pro.f.get(&pro.path).await.json["cancellation_details"]["reason"].clone();
    assert_eq!(reason, "payment_failed");
    assert_eq!(
        (pro.invoices()[1].status, pro.told("customer.subscription.deleted")),
        (InvoiceStatus::Open, 1)
    );
}

#[tokio::test]
async fn a_retry_that_succeeds_makes_the_subscription_active_again() {
    let pro = Pro::new().await;
    pro.card(Card::Fails);
    pro.to(pro.end_s + 2 * HOUR_S).await;
    assert_eq!(pro.status().await, "past_due");
    pro.card(Card::Works);
    pro.to(pro.end_s + 4 * DAY_S).await;
    assert_eq!((pro.status().await.as_str(), pro.invoices()[1].status), ("active", InvoiceStatus::Paid));
}

#[tokio::test]
async fn a_customer_pays_an_open_invoice_and_a_declined_card_is_a_402() {
    let pro = Pro::new().await;
    pro.card(Card::Fails);
    pro.to(pro.end_s + 2 * HOUR_S).await;
    let path = format!("/v1/invoices/{}/pay", pro.invoices()[1].id);
    let declined = pro.f.post(&path, &[]).await;
    let error = declined.error();
    assert_eq!(
        (declined.status, error["type"].as_str(), error["code"].as_str()),
        (402, Some("card_error"), Some("card_declined"))
    );
    assert_eq!(pro.invoices()[1].attempts, 1, "only the schedule's attempts count after the first");
    let invoice = pro.f.get(&path.replace("/pay", "")).await.json;
    assert_eq!(
        invoice["next_payment_attempt"].as_i64(),
        Some(pro.end_s + HOUR_S + 3 * DAY_S),
        "nor do they move it"
    );
    pro.card(Card::Works);
    assert_eq!(pro.f.post(&path, &[]).await.json["status"], "paid");
    assert_eq!(pro.status().await, "active");
}

#[tokio::test]
async fn an_unpaid_subscription_keeps_its_later_invoices_as_drafts() {
    let pro = Pro::new().await;
    pro.f.stripe.set_dunning_end(DunningEnd::Unpaid);
    pro.card(Card::None);
    pro.to(pro.end_s + 32 * DAY_S).await;
    assert_eq!(pro.status().await, "unpaid");
    let statuses: Vec<InvoiceStatus> = pro.invoices().iter().map(|invoice| invoice.status).collect();
    assert_eq!(statuses, [InvoiceStatus::Paid, InvoiceStatus::Open, InvoiceStatus::Draft]);
    pro.card(Card::Works);
    pro.f.post(&format!("/v1/invoices/{}/pay", pro.invoices()[1].id), &[]).await;
    assert_eq!(pro.status().await, "active");
}

#[tokio::test]
async fn a_first_invoice_that_is_not_paid_waits_23_hours() {
    let f = Fixture::new().await;
    f.set_clock(noon(2026, 4, 10));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let form = [("customer", customer.as_str()), ("items[0][price]", &plan.base)];
    f.stripe.set_card(&customer, Card::None).unwrap();
    check_error(&f.post("/v1/subscriptions", &form).await, 400, Some("resource_missing"), None);
    f.stripe.set_card(&customer, Card::Fails).unwrap();
    let strict = [form.as_slice(), &[("payment_behavior", "error_if_incomplete")]].concat();
    assert_eq!(f.post("/v1/subscriptions", &strict).await.status, 402);
    assert!(f.stripe.invoices(&customer).is_empty(), "a refused creation leaves nothing");
    let made = f.post("/v1/subscriptions", &form).await;
    let path = format!("/v1/subscriptions/{}", made.id());
    assert_eq!(made.json["status"], "incomplete");
    check_error(&f.post(&path, &[("cancel_at_period_end", "true")]).await, 400, None, None);
    let created_s = made.json["created"].as_i64().unwrap();
    f.stripe.advance_to(created_s + 23 * HOUR_S - 1).await.unwrap();
    assert_eq!(f.get(&path).await.json["status"], "incomplete");
    f.stripe.advance_to(created_s + 23 * HOUR_S).await.unwrap();
    assert_eq!(f.get(&path).await.json["status"], "incomplete_expired");
    assert_eq!(f.stripe.invoices(&customer)[0].status, InvoiceStatus::Void);

    let waiting = [form.as_slice(), &[("payment_behavior", "default_incomplete")]].concat();
    let made = f.post("/v1/subscriptions", &waiting).await;
    assert_eq!(made.json["status"], "incomplete");
    f.stripe.set_card(&customer, Card::Works).unwrap();
    let invoice = made.json["latest_invoice"].as_str().unwrap();
    assert_eq!(f.post(&format!("/v1/invoices/{invoice}/pay"), &[]).await.json["status"], "paid");
    assert_eq!(f.get(&format!("/v1/subscriptions/{}", made.id())).await.json["status"], "active");
    let active = f.get("/v1/subscriptions?status=active").await.json;
    assert_eq!(active["data"].as_array().unwrap().len(), 1);
    assert_eq!(f.get("/v1/subscriptions?status=ended").await.json["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn less_than_50_cents_is_not_charged_but_owed_on_the_next_invoice() {
    let pro = Pro::new().await;
    pro.f.use_tokens(&pro.customer, "row-1", "512345", pro.start_s + 60).await;
    pro.f.post(&pro.path, &[("cancel_at_period_end", "true")]).await;
    pro.to(pro.end_s + HOUR_S).await;
    let last = pro.invoices()[1].clone();
    assert_eq!((last.total_cents, last.due_cents, last.status), (2, 0, InvoiceStatus::Paid));
    assert_eq!(pro.f.get(&format!("/v1/customers/{}", pro.customer)).await.json["balance"], 2);
}

#[tokio::test]
async fn an_invoice_item_goes_on_the_next_invoice_once() {
    let pro = Pro::new().await;
    let form = [
        ("customer", pro.customer.as_str()),
        ("amount", "123"),
        ("currency", "usd"),
        ("description", "Late usage"),
        ("metadata[inkmeter_report]", "row-9"),
    ];
    let id = pro.f.post("/v1/invoiceitems", &form).await.id();
    let pending = format!("/v1/invoiceitems?customer={}&pending=true", pro.customer);
    let found = pro.f.get(&pending).await.json["data"].clone();
    assert_eq!((found[0]["id"].as_str(), found[0]["amount"].as_i64()), (Some(id.as_str()), Some(123)));
    pro.to(pro.end_s + HOUR_S).await;
    let invoice = pro.invoices()[1].clone();
    assert_eq!((invoice.total_cents, invoice.lines[0].invoice_item.as_deref()), (2123, Some(id.as_str())));
    assert!(pro.f.get(&pending).await.json["data"].as_array().unwrap().is_empty());
    let item = pro.f.get(&format!("/v1/invoiceitems/{id}")).await.json;
    assert_eq!(item["invoice"].as_str(), Some(invoice.id.as_str()));
    let gone = pro.f.send(pro.f.request("DELETE", &format!("/v1/invoiceitems/{id}"))).await;
    check_error(&gone, 400, None, None);
    pro.to(pro.end_s + 32 * DAY_S).await;
    assert_eq!(pro.invoices()[2].total_cents, 2000);
    let lines = pro.f.get(&format!("/v1/invoices/{}/lines?limit=1", invoice.id)).await.json;
    let line = &lines["data"][0];
    assert_eq!(
        (lines["has_more"].as_bool(), line["metadata"]["inkmeter_report"].as_str()),
        (Some(true), Some("row-9"))
    );
    assert_eq!(line["parent"]["type"], "invoice_item_details");
}

#[tokio::test]
async fn an_invoice_item_can_be_added_to_a_draft_and_to_nothing_else() {
    let pro = Pro::new().await;
    pro.to(pro.end_s).await;
    let draft = pro.invoices()[1].id.clone();
    let form = |invoice: &str| {
        let fields = [
            ("customer", pro.customer.as_str()),
            ("amount", "-50"),
            ("currency", "usd"),
            ("invoice", invoice),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    };
    let send = async |form: Vec<(String, String)>| {
        pro.f.send(pro.f.request("POST", "/v1/invoiceitems").form(&form)).await
    };
    assert_eq!(send(form(&draft)).await.status, 200);
    assert_eq!(pro.invoices()[1].total_cents, 1950);
    check_error(&send(form(&pro.invoices()[0].id)).await, 400, None, Some("invoice"));
    let mut missing = form(&draft);
    missing.retain(|(name, _)| name != "amount");
    check_error(&send(missing).await, 400, Some("parameter_missing"), Some("amount"));
    let mut both = form(&draft);
    both.push(("unit_amount_decimal".to_owned(), "1".to_owned()));
    check_error(&send(both).await, 400, Some("parameters_exclusive"), Some("amount"));
}

#[tokio::test]
async fn invoices_are_listed_by_customer_status_and_time() {
    let pro = Pro::new().await;
    pro.to(pro.end_s + 10).await;
    let count = async |query: &str| {
        let reply = pro.f.get(&format!("/v1/invoices?customer={}{query}", pro.customer)).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        reply.json["data"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(
        (count("&status=draft").await, count("&status=paid").await, count("&status=open").await),
        (1, 1, 0)
    );
    assert_eq!(count(&format!("&created[gte]={}", pro.end_s)).await, 1);
    assert_eq!(count(&format!("&created[lt]={}", pro.end_s)).await, 1);
    assert_eq!(count(&format!("&created[gt]={}", pro.end_s)).await, 0);
    assert_eq!(count("&subscription=sub_other").await, 0);
}

#[tokio::test]
async fn f11_a_finalization_time_of_the_accounts_own_waits_for_no_webhook() {
    let endpoint = Endpoint::start().await;
    endpoint.answer(503);
    let f = Fixture::with(endpoint.options()).await;
    f.set_clock(noon(2026, 4, 10));
    f.stripe.set_finalization_grace(Some(7_200));
    let (plan, customer) = (f.pro().await, f.customer().await);
    let (_, end_s) = period(&f.subscribe(&customer, &plan).await);
    f.stripe.advance_to(end_s + 3 * HOUR_S).await.unwrap();
    let invoice = f.stripe.invoices(&customer)[1].clone();
    assert_eq!(invoice.finalized_s, Some(end_s + 2 * HOUR_S), "although nobody heard of it");
}

#[tokio::test]
async fn a_dispute_names_its_charge_and_only_the_charge_its_customer() {
    let pro = Pro::new().await;
    let id = pro.f.stripe.open_dispute(&pro.invoices()[0].id).unwrap();
    let dispute = pro.f.get(&format!("/v1/disputes/{id}")).await.json;
    assert!(dispute.get("customer").is_none());
    assert_eq!(
        (dispute["amount"].as_i64(), dispute["status"].as_str()),
        (Some(2000), Some("needs_response"))
    );
    let charge = pro.f.get(&format!("/v1/charges/{}", dispute["charge"].as_str().unwrap())).await.json;
    assert_eq!((charge["disputed"].as_bool(), charge["paid"].as_bool()), (Some(true), Some(true)));
    assert_eq!(charge["customer"].as_str(), Some(pro.customer.as_str()));
    assert_eq!(pro.told("charge.dispute.created"), 1);
    assert_eq!(pro.f.stripe.open_dispute("ch_nobody"), Err(NoSuchObject));
}

#[tokio::test]
async fn a_deleted_customer_ends_its_subscriptions_and_is_still_named() {
    let pro = Pro::new().await;
    let path = format!("/v1/customers/{}", pro.customer);
    let gone = pro.f.send(pro.f.request("DELETE", &path)).await;
    assert_eq!((gone.status, gone.json["deleted"].as_bool()), (200, Some(true)));
    let found = RetrieveCustomer::new(pro.customer.as_str()).send(&pro.f.client).await.unwrap();
    assert!(matches!(found, RetrieveCustomerReturned::DeletedCustomer(_)));
    assert_eq!(pro.status().await, "canceled");
    assert_eq!((pro.told("customer.subscription.deleted"), pro.told("customer.deleted")), (1, 1));
    assert!(pro.f.get("/v1/customers").await.json["data"].as_array().unwrap().is_empty());
    check_error(&pro.f.post(&path, &[("name", "Ada")]).await, 404, Some("resource_missing"), Some("id"));
    let used = pro.f.use_tokens(&pro.customer, "row-1", "10", pro.start_s + 1).await;
    assert_eq!((used.status, pro.f.stripe.rejected_meter_events().len()), (200, 1));
}

#[tokio::test]
async fn an_open_invoice_can_be_voided_or_written_off() {
    for (action, status, kind) in [
        ("void", InvoiceStatus::Void, "invoice.voided"),
        ("mark_uncollectible", InvoiceStatus::Uncollectible, "invoice.marked_uncollectible"),
    ] {
        let pro = Pro::new().await;
        pro.card(Card::Fails);
        pro.to(pro.end_s).await;
        let path = format!("/v1/invoices/{}/{action}", pro.invoices()[1].id);
        check_error(&pro.f.post(&path, &[]).await, 400, None, None);
        pro.to(pro.end_s + HOUR_S).await;
        assert_eq!(pro.f.post(&path, &[]).await.status, 200);
        assert_eq!((pro.invoices()[1].status, pro.told(kind)), (status, 1));
        assert_eq!(pro.status().await, "active", "its latest invoice is settled");
        pro.to(pro.end_s + 20 * DAY_S).await;
        assert_eq!(pro.invoices()[1].attempts, 1, "it is not tried again");
    }
}
