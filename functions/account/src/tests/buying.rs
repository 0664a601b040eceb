//! Checkout and portal.

use super::{
    APP, NOW, api, ask,
    fake::{Dice, Fake, subscription},
    user,
};
use crate::handler::{AccountApi, STRIPE_PATIENCE};
use domain::{Account, CustomerId, SubscriptionId, Timestamp};
use http::Method;
use ledger::{MemoryStore, Store};
use serde_json::{Value, json};

fn wanted(plan: &str) -> Value {
    json!({"plan": plan, "successUrl": format!("{APP}/done"), "cancelUrl": format!("{APP}/plans")})
}

async fn buy(api: &AccountApi<MemoryStore>, plan: &str, now: Timestamp) -> (u16, Value) {
    ask(api, Method::POST, "/v1/checkout", &wanted(plan), now).await
}

async fn account(store: &MemoryStore) -> Account {
    store.load(&user()).await.unwrap().unwrap().account
}

/// Changes the stored account without more ado.
fn plant(store: &MemoryStore, change: impl FnOnce(&mut Account)) {
    change(store.kept().accounts.get_mut(&user()).unwrap());
}

#[tokio::test]
async fn a_plan_is_bought_on_stripes_page_by_a_customer_who_is_billed_for_nothing_yet() {
    let (store, fake) = (MemoryStore::new(), Fake::new(1));
    let api = api(store.clone(), fake.stripe());
    let (status, body) = buy(&api, "pro", NOW).await;
    assert_eq!((status, &body["url"]), (200, &"https://stripe.example/c/cs_1".into()), "{body}");
    assert_eq!(body["expiresAt"], "2027-01-15T10:00:00.000Z");
    let form = fake
        .world(|world| world.asked.iter().find(|(_, _, form)| form.contains_key("mode")).unwrap().2.clone());
    let expect = [
        ("cancel_url", "https://app.example.com/plans"),
        ("client_reference_id", "user_1"),
        ("customer", "cus_1"),
        ("expires_at", "1800007200"),
        ("line_items[0][price]", "price_inkmeter_pro_base_v1"),
        ("line_items[0][quantity]", "1"),
        ("line_items[1][price]", "price_inkmeter_pro_tokens_v1"),
        ("metadata[inkmeter_asked]", &form["metadata[inkmeter_asked]"]),
        ("metadata[user_id]", "user_1"),
        ("mode", "subscription"),
        ("subscription_data[metadata][user_id]", "user_1"),
        ("success_url", "https://app.example.com/done"),
    ];
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(form, expect);
    let account = account(&store).await;
    assert_eq!(account.customer, CustomerId::parse("cus_1").ok());
    assert_eq!((account.billed_to(), account.plan.as_str()), (None, "free"));
}

#[tokio::test]
async fn the_same_wish_has_the_same_page_and_another_ends_it() {
    let fake = Fake::new(2);
    let api = api(MemoryStore::new(), fake.stripe());
    let first = buy(&api, "pro", NOW).await;
    assert_eq!(buy(&api, "pro", NOW.plus_ms(60_000)).await, first);
    let other = buy(&api, "agency", NOW.plus_ms(120_000)).await;
    assert_ne!(other.1["url"], first.1["url"]);
    // Back again in the same half hour: not the page that has ended.
    let again = buy(&api, "pro", NOW.plus_ms(180_000)).await;
    assert_eq!(again.1["url"], "https://stripe.example/c/cs_3");
    fake.world(|world| {
        assert_eq!(world.open().len(), 1);
        assert_eq!(world.customers.len(), 1);
    });
    // With too little time left there is a new one.
    let late = buy(&api, "pro", NOW.plus_ms(115 * 60_000)).await;
    assert_eq!(late.1["url"], "https://stripe.example/c/cs_4");
    fake.world(|world| assert_eq!(world.open().len(), 1));
}

#[tokio::test]
async fn nobody_buys_a_second_subscription_whoever_knows_of_the_first() {
    let (store, fake) = (MemoryStore::new(), Fake::new(3));
    let api = api(store.clone(), fake.stripe());
    buy(&api, "pro", NOW).await;
    // Paid, and the webhook has not come yet.
    fake.world(|world| world.pay(0));
    let (status, body) = buy(&api, "pro", NOW).await;
    assert_eq!((status, &body["code"]), (409, &"already_subscribed".into()));
    assert!(body["detail"].as_str().unwrap().contains("/v1/portal"));
    // It has come.
    plant(&store, |account| account.subscription = SubscriptionId::parse("sub_1").ok());
    let asked = fake.world(|world| world.asked.len());
    assert_eq!(buy(&api, "agency", NOW).await.0, 409);
    fake.world(|world| assert_eq!(world.asked.len(), asked, "Stripe need not be asked"));
}

#[tokio::test]
async fn only_a_subscription_of_ours_that_has_not_ended_is_in_the_way() {
    let ours = json!({"lookup_key": "inkmeter_pro_tokens_v1", "metadata": {}});
    let replaced = json!({"lookup_key": null, "metadata": {"inkmeter_lookup_key": "inkmeter_pro_base_v1"}});
    let foreign = json!({"lookup_key": "newsletter", "metadata": {}});
    let unnamed = json!({"lookup_key": null, "metadata": {}});
    let in_force = ["active", "trialing", "past_due", "unpaid", "paused", "incomplete", "whatever_comes"];
    let cases = in_force.iter().flat_map(|status| {
        [(*status, &ours, 409), (status, &replaced, 409), (status, &foreign, 200), (status, &unnamed, 200)]
    });
    let ended = ["canceled", "incomplete_expired"].map(|status| (status, &ours, 200));
    for (status, price, expected) in cases.chain(ended) {
        let fake = Fake::new(8);
        let api = api(MemoryStore::new(), fake.stripe());
        fake.world(|world| world.others.push(subscription(status, price)));
        let (answer, body) = buy(&api, "pro", NOW).await;
        assert_eq!(answer, expected, "{status} {price}: {body}");
        if expected == 409 {
            assert_eq!(body["code"], "already_subscribed");
            assert!(body["detail"].as_str().unwrap().contains("/v1/portal"), "{body}");
            fake.world(|world| assert!(world.open().is_empty(), "a page that can be paid beside it"));
        }
    }
}

#[tokio::test]
async fn a_subscription_whose_prices_are_about_to_be_ours_is_in_the_way() {
    let fake = Fake::new(8);
    let api = api(MemoryStore::new(), fake.stripe());
    let mut old = subscription("active", &json!({"lookup_key": null, "metadata": {}}));
    old["metadata"] = json!({"inkmeter": "adopt"});
    fake.world(|world| world.others.push(old));
    assert_eq!(buy(&api, "pro", NOW).await.0, 409);
}

#[tokio::test]
async fn a_page_where_something_else_is_bought_is_left_alone() {
    let fake = Fake::new(9);
    let api = api(MemoryStore::new(), fake.stripe());
    fake.world(|world| {
        world
            .sessions
            .push(json!({"id": "cs_other", "status": "open", "url": null, "created": 1_800_000_001,
            "expires_at": 1_800_090_000, "customer": "cus_1", "metadata": {}}));
    });
    assert_eq!(buy(&api, "pro", NOW).await.0, 200);
    fake.world(|world| assert_eq!(world.open().len(), 2, "{:?}", world.sessions));
}

#[tokio::test]
async fn a_customer_that_was_deleted_is_replaced() {
    let (store, fake) = (MemoryStore::new(), Fake::new(4));
    let api = api(store.clone(), fake.stripe());
    buy(&api, "pro", NOW).await;
    fake.world(|world| world.deleted.push("cus_1".to_owned()));
    assert_eq!(buy(&api, "pro", NOW).await.0, 200);
    assert_eq!(account(&store).await.customer, CustomerId::parse("cus_2").ok());
    fake.world(|world| assert_eq!(world.sessions.last().unwrap()["customer"], "cus_2"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_stripes_own_that_it_keeps_is_not_kept_for_a_day_here() {
    for path in ["/v1/customers", "/v1/checkout/sessions"] {
        let fake = Fake::new(5);
        let api = api(MemoryStore::new(), fake.stripe());
        // Carried out, and answered with a 500 that its key keeps. The look before a session is made may fail as well.
        fake.world(|world| world.failing = Some((path, 500, 1)));
        let first = buy(&api, "pro", NOW).await;
        let second = if first.0 == 200 { first } else { buy(&api, "pro", NOW).await };
        assert_eq!(second.0, 200, "{path}: {}", second.1);
        fake.world(|world| assert_eq!(world.open().len(), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn i8_a_stripe_that_says_nothing_is_waited_for_ten_seconds() {
    let fake = Fake::new(6);
    let api = api(MemoryStore::new(), fake.stripe());
    fake.world(|world| world.silent = true);
    let began = tokio::time::Instant::now();
    let (status, body) = buy(&api, "pro", NOW).await;
    assert_eq!((status, &body["code"], &body["retryAfter"]), (503, &"stripe_unavailable".into(), &5.into()));
    assert!(began.elapsed() <= STRIPE_PATIENCE, "{:?}", began.elapsed());
}

/// Two tabs and somebody who pays, in every order that the dice come to.
#[tokio::test(start_paused = true)]
async fn whatever_comes_together_one_page_can_be_paid_and_none_beside_a_subscription() {
    let (mut paid, mut refused, mut moved) = (0, 0, 0);
    for seed in 0..600 {
        let fake = Fake::new(seed);
        let api = api(MemoryStore::new(), fake.stripe());
        let mut dice = Dice::new(seed + 1_000_000);
        let plans = [["pro", "pro"], ["pro", "agency"]][usize::from(dice.below(2) == 1)];
        let payer = async {
            for _ in 0..dice.below(60) {
                tokio::task::yield_now().await;
            }
            if dice.below(3) > 0 {
                fake.world(|world| world.pay(usize::from(dice.below(4) == 0)));
            }
        };
        let (one, other, ()) = tokio::join!(buy(&api, plans[0], NOW), buy(&api, plans[1], NOW), payer);
        fake.world(|world| {
            let open = world.open();
            let most = usize::from(world.subscriptions.is_empty());
            assert!(open.len() <= most, "seed {seed}: {} open, {:?} paid", open.len(), world.subscriptions);
            assert_eq!(world.customers.len(), 1, "seed {seed}");
            assert!(world.subscriptions.len() <= 1, "seed {seed}");
            for (status, body) in [&one, &other] {
                assert!([200, 409, 503].contains(status), "seed {seed}: {status} {body}");
                refused += u32::from(*status == 409);
            }
            if world.subscriptions.is_empty() && plans[0] == plans[1] {
                assert_eq!((one.0, other.0), (200, 200), "seed {seed}");
                assert_eq!(one.1["url"], other.1["url"], "seed {seed}");
            }
            paid += u32::from(!world.subscriptions.is_empty());
            moved += u32::from(world.sessions.len() > 1);
        });
    }
    assert!(paid > 50 && refused > 50 && moved > 50, "{paid} {refused} {moved}: the dice came to too little");
}

#[tokio::test]
async fn the_portal_is_the_accounts_own_customers() {
    let (store, fake) = (MemoryStore::new(), Fake::new(7));
    let api = api(store.clone(), fake.stripe());
    let back = json!({"returnUrl": format!("{APP}/account")});
    let (status, body) = ask(&api, Method::POST, "/v1/portal", &back, NOW).await;
    assert_eq!((status, &body["code"]), (409, &"no_customer".into()));
    buy(&api, "pro", NOW).await;
    let (status, body) = ask(&api, Method::POST, "/v1/portal", &back, NOW).await;
    assert_eq!((status, body), (200, json!({"url": "https://stripe.example/p/cus_1"})));
    fake.world(|world| {
        let (_, path, form) = world.asked.last().unwrap();
        assert_eq!(
            (path.as_str(), form["return_url"].as_str()),
            ("/v1/billing_portal/sessions", "https://app.example.com/account")
        );
        assert!(!form.contains_key("configuration"));
    });
}
