//! What each state of a subscription makes of its account: statuses, prices, pauses, trials, unpaid invoices.

use super::world::{
    CREATED, DAY_S, DELETED, GRACE_S, NOW, TOLD_S, UPDATED, World, answer, ended, free, invoice, pro,
    subscription,
};
use domain::Timestamp;
use serde_json::{Value, json};

const BEGAN_S: u64 = 1_799_000_000;

/// An account on Pro.
async fn on_pro() -> World {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    world
}

/// The subscription changes at Stripe, and that is delivered.
async fn changes(world: &World, change: impl FnOnce(&mut Value)) {
    let mut subscription = world.stripe(|books| books.objects["/v1/subscriptions/sub_1"].clone());
    change(&mut subscription);
    world.stripe_has(subscription);
    assert_eq!(world.delivers(UPDATED, "sub_1").await, answer(200, "in_line"));
}

fn set_prices(subscription: &mut Value, keys: &[&str]) {
    let items = keys.iter().map(|key| {
        json!({"current_period_start": BEGAN_S, "current_period_end": BEGAN_S + 30 * DAY_S, "quantity": 1,
            "price": {"lookup_key": key}})
    });
    subscription["items"]["data"] = items.collect();
}

/// The subscription's prices change at Stripe, and the update that did it is delivered.
async fn reprices(world: &World, keys: &[&str]) {
    let mut subscription = world.stripe(|books| books.objects["/v1/subscriptions/sub_1"].clone());
    set_prices(&mut subscription, keys);
    world.stripe_has(subscription);
    assert_eq!(world.reprices("sub_1").await, answer(200, "in_line"));
}

/// What the bus heard of the subscription.
fn complaints(world: &World) -> Vec<String> {
    let heard = world.heard().into_iter().filter(|(kind, _)| kind == "Subscription Unusual");
    heard.map(|(_, detail)| detail["why"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_status_has_its_consequence() {
    for (status, expected, pay_by) in [
        ("active", pro("sub_1", BEGAN_S), None),
        ("trialing", pro("sub_1", BEGAN_S), None),
        ("past_due", pro("sub_1", BEGAN_S), Some(BEGAN_S + GRACE_S)),
        ("unpaid", pro("sub_1", BEGAN_S), Some(BEGAN_S)),
        ("canceled", free(NOW.s()), None),
        ("incomplete_expired", free(NOW.s()), None),
        ("paused", free(NOW.s()), None),
        ("incomplete", pro("sub_1", BEGAN_S), None),
        ("of_the_future", pro("sub_1", BEGAN_S), None),
    ] {
        let world = on_pro().await;
        changes(&world, |subscription| subscription["status"] = json!(status)).await;
        assert_eq!(world.standing().await, expected, "{status}");
        assert_eq!(world.account().await.pay_by.map(Timestamp::s), pay_by, "{status}");
    }
}

#[tokio::test]
async fn an_upgrade_and_a_downgrade_change_the_plan_from_when_stripe_told_of_it() {
    let world = on_pro().await;
    assert_eq!(world.account().await.plan_since, None);
    for (plan, keys) in [("agency", ["agency_base", "agency_tokens"]), ("pro", ["pro_base", "pro_tokens"])] {
        // The second time nothing is new.
        for _ in 0..2 {
            reprices(&world, &keys).await;
            assert_eq!(world.standing().await, (plan.into(), Some("sub_1".into()), BEGAN_S));
            assert_eq!(world.account().await.plan_since.map(Timestamp::s), Some(TOLD_S));
        }
    }
    assert_eq!(complaints(&world), Vec::<String>::new());
    // Another subscription begins with its plan.
    world.stripe_has(ended("sub_1", BEGAN_S, BEGAN_S + 5));
    world.stripe_has(subscription("sub_2", "active", BEGAN_S + 9));
    assert_eq!(world.delivers(CREATED, "sub_2").await, answer(200, "in_line"));
    assert_eq!(world.account().await.plan_since, None);
}

/// What Stripe made before the change, and delivers after it, says nothing of when that was.
#[tokio::test]
async fn a_change_of_plan_is_never_dated_back_by_an_event_that_tells_of_something_else() {
    const KEYS: [&str; 2] = ["agency_base", "agency_tokens"];
    for (kind, object) in [
        (CREATED, "sub_1"),
        (UPDATED, "sub_1"),
        ("customer.subscription.trial_will_end", "sub_1"),
        ("invoice.paid", "in_1"),
        ("invoice.created", "in_1"),
    ] {
        let world = on_pro().await;
        world.stripe_has(invoice("in_1", "sub_1", "paid", (BEGAN_S, BEGAN_S)));
        let mut subscription = world.stripe(|books| books.objects["/v1/subscriptions/sub_1"].clone());
        set_prices(&mut subscription, &KEYS);
        world.stripe_has(subscription);
        assert_eq!(world.delivers(kind, object).await, answer(200, "in_line"));
        assert_eq!(world.standing().await.0, "agency", "{kind}");
        assert_eq!(world.account().await.plan_since, Some(NOW), "{kind}");
        // The update itself, late: what counts already goes on.
        assert_eq!(world.reprices("sub_1").await, answer(200, "in_line"));
        assert_eq!(world.account().await.plan_since, Some(NOW), "{kind}");
        // One of before, when the prices are others again: never before what the account knows of.
        reprices(&world, &["pro_base", "pro_tokens"]).await;
        assert_eq!(world.account().await.plan_since, Some(NOW), "{kind}");
    }
    // It tells of an earlier change to the same prices, which were exchanged again since.
    let world = on_pro().await;
    let mut subscription = world.stripe(|books| books.objects["/v1/subscriptions/sub_1"].clone());
    set_prices(&mut subscription, &KEYS);
    for item in subscription["items"]["data"].as_array_mut().unwrap() {
        item["created"] = json!(TOLD_S + 50);
    }
    world.stripe_has(subscription);
    assert_eq!(world.reprices("sub_1").await, answer(200, "in_line"));
    assert_eq!(world.account().await.plan_since.map(Timestamp::s), Some(TOLD_S + 50));
}

/// Customer and tokens of each meter, the oldest first.
async fn meters(world: &World) -> Vec<(Option<String>, u64)> {
    let user = domain::UserId::parse("user_1").unwrap();
    let meters = world.ledger.meters(&user, Timestamp::from_s(0)).await.unwrap();
    let of = |meter: &domain::Meter| (meter.customer.as_ref().map(ToString::to_string), meter.settled.get());
    meters.iter().rev().map(of).collect()
}

#[tokio::test]
async fn what_is_used_while_nobody_pays_is_billed_to_nobody_afterwards() {
    let world = on_pro().await;
    world.uses(100).await;
    for pause in [DAY_S, 3 * DAY_S] {
        world.set(NOW.s() + pause);
        let paused = json!({"behavior": "void", "resumes_at": null});
        changes(&world, |subscription| subscription["pause_collection"] = paused).await;
        world.uses(50).await;
        world.set(NOW.s() + pause + DAY_S);
        changes(&world, |subscription| subscription["pause_collection"] = Value::Null).await;
        world.uses(7).await;
    }
    let paid = |tokens| (Some("cus_1".to_owned()), tokens);
    assert_eq!(meters(&world).await, [paid(100), (None, 50), paid(7), (None, 50), paid(7)]);
}

#[tokio::test]
async fn what_is_used_between_the_end_of_one_subscription_and_another_of_the_same_day_is_billed_to_nobody() {
    let world = on_pro().await;
    world.uses(100).await;
    world.stripe_has(ended("sub_1", BEGAN_S, NOW.s() + 60));
    world.set(NOW.s() + 61);
    assert_eq!(world.delivers(DELETED, "sub_1").await, answer(200, "in_line"));
    world.uses(50).await;
    world.stripe_has(subscription("sub_2", "active", NOW.s() + 600));
    world.set(NOW.s() + 601);
    assert_eq!(world.delivers(CREATED, "sub_2").await, answer(200, "in_line"));
    world.uses(7).await;
    let paid = |tokens| (Some("cus_1".to_owned()), tokens);
    assert_eq!(meters(&world).await, [paid(100), (None, 50), paid(7)]);
    assert_eq!(world.standing().await, pro("sub_2", NOW.s() + 600));
}

#[tokio::test]
async fn what_is_odd_about_a_subscription_is_told_where_it_may_be_new_and_not_with_each_of_its_events() {
    let world = on_pro().await;
    world.stripe_has(invoice("in_1", "sub_1", "paid", (BEGAN_S, BEGAN_S)));
    changes(&world, |subscription| subscription["items"]["data"][0]["quantity"] = json!(3)).await;
    assert_eq!(complaints(&world), ["quantity"]);
    for (kind, object) in [
        ("invoice.finalized", "in_1"),
        ("invoice.paid", "in_1"),
        ("invoice.payment_failed", "in_1"),
        ("customer.subscription.resumed", "sub_1"),
        ("customer.subscription.trial_will_end", "sub_1"),
    ] {
        assert_eq!(world.delivers(kind, object).await, answer(200, "in_line"));
        assert_eq!(complaints(&world), ["quantity"], "{kind}");
    }
}

/// Its account is linked already, and its schedule brings it to our prices with its next period.
#[tokio::test]
async fn a_subscription_that_is_about_to_have_our_prices_keeps_its_account_and_bothers_nobody() {
    let world = on_pro().await;
    changes(&world, |subscription| {
        set_prices(subscription, &["somebody_elses"]);
        subscription["metadata"]["inkmeter"] = json!("adopt");
        subscription["metadata"]["inkmeter_adopted"] =
            json!(subscription["items"]["data"][0]["current_period_start"].to_string());
        subscription["schedule"] = json!("sub_sched_1");
    })
    .await;
    let as_it_is = world.account().await;
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    assert_eq!(domain::Account { rev: as_it_is.rev, ..world.account().await }, as_it_is);
    assert_eq!(complaints(&world), Vec::<String>::new());
    // Its schedule is gone, and with it what would have brought it to our prices.
    changes(&world, |subscription| {
        for item in subscription["items"]["data"].as_array_mut().unwrap() {
            item["current_period_start"] = item["current_period_end"].clone();
            item["current_period_end"] = json!(item["current_period_start"].as_u64().unwrap() + 2_419_200);
        }
    })
    .await;
    assert_eq!(complaints(&world), ["unknown_price"]);
    // The boundary: it is an ordinary one from here on, and what is odd about it is told.
    changes(&world, |subscription| set_prices(subscription, &["agency_base"])).await;
    assert_eq!(world.standing().await.0, "agency");
    assert_eq!(complaints(&world), ["unknown_price", "not_metered"]);
}

#[tokio::test]
async fn while_prices_are_exchanged_the_flat_one_says_the_plan_and_the_owner_hears_of_the_other() {
    let world = on_pro().await;
    changes(&world, |subscription| set_prices(subscription, &["pro_tokens", "agency_base"])).await;
    assert_eq!(world.standing().await.0, "agency");
    assert_eq!(complaints(&world), ["not_metered"]);
    changes(&world, |subscription| set_prices(subscription, &["pro_base", "agency_base"])).await;
    assert_eq!(world.standing().await.0, "agency", "of two plans neither is believed");
    assert_eq!(complaints(&world), ["not_metered", "unknown_price"]);
    changes(&world, |subscription| set_prices(subscription, &["pro_tokens"])).await;
    assert_eq!(world.standing().await.0, "pro");
    assert_eq!(complaints(&world), ["not_metered", "unknown_price", "no_base_price"]);
}

#[tokio::test]
async fn a_price_that_is_not_ours_gives_nothing_and_takes_nothing_and_the_owner_hears_of_it() {
    let world = World::new();
    let mut foreign = subscription("sub_1", "active", BEGAN_S);
    set_prices(&mut foreign, &["somebody_elses"]);
    world.stripe_has(foreign.clone());
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await.0, "free");
    assert_eq!(complaints(&world), ["unknown_price"]);

    let world = on_pro().await;
    world.stripe_has(foreign);
    world.delivers(UPDATED, "sub_1").await;
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    let (_, detail) = &world.heard()[0];
    assert_eq!(
        (&detail["user"], &detail["lookupKeys"]),
        (&json!("user_1"), &json!(["somebody_elses"])),
        "{detail}"
    );
}

#[tokio::test]
async fn who_pays_by_a_price_whose_lookup_key_was_taken_over_is_still_on_its_plan() {
    let world = on_pro().await;
    changes(&world, |subscription| {
        for item in subscription["items"]["data"].as_array_mut().unwrap() {
            let key = item["price"]["lookup_key"].take();
            item["price"]["metadata"] = json!({"inkmeter_lookup_key": key});
        }
        subscription["status"] = json!("past_due");
    })
    .await;
    assert_eq!(world.account().await.pay_by.map(Timestamp::s), Some(BEGAN_S + GRACE_S));
    assert_eq!(complaints(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_quantity_multiplies_no_limit_and_the_owner_hears_of_it() {
    let world = on_pro().await;
    changes(&world, |subscription| subscription["items"]["data"][0]["quantity"] = json!(3)).await;
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    assert_eq!(complaints(&world), ["quantity"]);
}

#[tokio::test]
async fn a_moved_anchor_moves_the_periods() {
    let world = on_pro().await;
    changes(&world, |subscription| subscription["billing_cycle_anchor"] = json!(1_799_500_000)).await;
    assert_eq!(world.standing().await, pro("sub_1", 1_799_500_000));
}

#[tokio::test]
async fn a_trial_is_a_period_of_its_own_and_the_anchor_comes_with_its_end() {
    let world = World::new();
    let ends_s = NOW.s() + 3 * DAY_S;
    let mut trial = subscription("sub_1", "trialing", BEGAN_S);
    trial["billing_cycle_anchor"] = json!(ends_s);
    for item in trial["items"]["data"].as_array_mut().unwrap() {
        item["current_period_end"] = json!(ends_s);
    }
    world.stripe_has(trial.clone());
    world.delivers(CREATED, "sub_1").await;
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    assert_eq!(world.delivers("customer.subscription.trial_will_end", "sub_1").await, answer(200, "in_line"));

    world.set(ends_s + 60);
    trial["status"] = json!("active");
    for item in trial["items"]["data"].as_array_mut().unwrap() {
        item["current_period_start"] = json!(ends_s);
        item["current_period_end"] = json!(ends_s + 30 * DAY_S);
    }
    world.stripe_has(trial);
    world.delivers(UPDATED, "sub_1").await;
    assert_eq!(world.standing().await, pro("sub_1", ends_s));
}

#[tokio::test]
async fn a_trial_that_nobody_pays_for_ends_in_the_first_plan_and_is_resumed() {
    let world = on_pro().await;
    let mut subscription = world.stripe(|books| books.objects["/v1/subscriptions/sub_1"].clone());
    subscription["status"] = json!("paused");
    world.stripe_has(subscription.clone());
    assert_eq!(world.delivers("customer.subscription.paused", "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, free(NOW.s()));
    subscription["status"] = json!("active");
    subscription["billing_cycle_anchor"] = json!(NOW.s() - 10);
    world.stripe_has(subscription);
    assert_eq!(world.delivers("customer.subscription.resumed", "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, pro("sub_1", NOW.s() - 10));
}

#[tokio::test]
async fn a_paused_collection_ends_what_nobody_will_pay_for_and_goes_on_where_it_is_paid_later() {
    for (behavior, goes_on) in
        [("void", false), ("mark_uncollectible", false), ("keep_as_draft", true), ("of_the_future", true)]
    {
        for status in ["active", "trialing", "past_due", "unpaid"] {
            let world = on_pro().await;
            changes(&world, |subscription| {
                subscription["status"] = json!(status);
                subscription["pause_collection"] = json!({"behavior": behavior, "resumes_at": null});
            })
            .await;
            let expected = if goes_on { pro("sub_1", BEGAN_S) } else { free(NOW.s()) };
            assert_eq!(world.standing().await, expected, "{behavior} {status}");
            changes(&world, |subscription| {
                subscription["status"] = json!("active");
                subscription["pause_collection"] = Value::Null;
            })
            .await;
            assert_eq!(world.standing().await, pro("sub_1", BEGAN_S), "{behavior} {status}");
        }
    }
}

#[tokio::test]
async fn what_is_canceled_at_the_periods_end_goes_on_until_then() {
    let world = on_pro().await;
    let end_s = BEGAN_S + 30 * DAY_S;
    changes(&world, |subscription| {
        subscription["cancel_at_period_end"] = json!(true);
        subscription["cancel_at"] = json!(end_s);
    })
    .await;
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    assert_eq!(world.account().await.ends_at.map(Timestamp::s), Some(end_s));
    world.set(end_s + 5);
    world.stripe_has(ended("sub_1", BEGAN_S, end_s));
    assert_eq!(world.delivers(DELETED, "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, free(end_s));
    assert_eq!(world.account().await.ends_at, None);
}

#[tokio::test]
async fn an_unpaid_invoice_gives_its_grace_once_however_many_follow_and_being_paid_ends_it() {
    let world = on_pro().await;
    let (first_s, second_s) = (BEGAN_S + 30 * DAY_S, BEGAN_S + 60 * DAY_S);
    world.set(first_s + 2 * DAY_S);
    world.stripe_has(invoice("in_1", "sub_1", "open", (BEGAN_S, first_s)));
    for _ in 0..2 {
        changes(&world, |subscription| subscription["status"] = json!("past_due")).await;
        assert_eq!(world.account().await.pay_by.map(Timestamp::s), Some(first_s + 3_600 + GRACE_S));
    }
    // Another month, and another invoice that is not paid: the user has had his grace.
    world.set(second_s + DAY_S);
    world.stripe_has(invoice("in_2", "sub_1", "open", (first_s, second_s)));
    assert_eq!(world.delivers("invoice.payment_failed", "in_2").await, answer(200, "in_line"));
    assert_eq!(world.account().await.pay_by.map(Timestamp::s), Some(first_s + 3_600 + GRACE_S));
    assert!(world.account().await.is_overdue(world.now()));

    changes(&world, |subscription| subscription["status"] = json!("unpaid")).await;
    assert_eq!(world.account().await.pay_by.map(Timestamp::s), Some(first_s + 3_600));
    changes(&world, |subscription| subscription["status"] = json!("active")).await;
    assert_eq!(world.account().await.pay_by, None);
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
}

#[tokio::test]
async fn an_overdue_user_is_refused_and_the_one_who_has_paid_is_not() {
    let world = on_pro().await;
    changes(&world, |subscription| subscription["status"] = json!("unpaid")).await;
    let user = domain::UserId::parse("user_1").unwrap();
    let loaded = world.ledger.roll(&user, NOW).await.unwrap().unwrap();
    assert!(loaded.account.is_overdue(NOW));
    changes(&world, |subscription| subscription["status"] = json!("active")).await;
    world.uses(5).await;
}

#[tokio::test]
async fn two_in_force_of_one_customer_are_both_billed_so_the_owner_hears_of_it() {
    let world = on_pro().await;
    world.stripe_has(subscription("sub_2", "active", BEGAN_S + 10));
    assert_eq!(world.delivers(CREATED, "sub_2").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, pro("sub_2", BEGAN_S + 10));
    assert_eq!(complaints(&world), ["two_of_one_customer"]);
}

#[tokio::test]
async fn two_users_of_one_customer_have_each_their_plan_and_the_owner_hears_of_it() {
    let world = on_pro().await;
    let mut of_another = subscription("sub_2", "active", BEGAN_S + 10);
    of_another["metadata"] = json!({"user_id": "user_2"});
    world.stripe_has(of_another);
    world.delivers(CREATED, "sub_2").await;
    let other = domain::UserId::parse("user_2").unwrap();
    assert_eq!(world.ledger.account(&other, NOW).await.unwrap().subscription.unwrap().as_str(), "sub_2");
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));
    assert_eq!(complaints(&world), ["two_of_one_customer"]);
}

#[tokio::test]
async fn a_deleted_customer_ends_what_that_customer_paid_for_and_nothing_else() {
    let customer = |user: &str, id: &str| {
        let object = json!({"id": id, "object": "customer", "deleted": true, "metadata": {"user_id": user}});
        json!({"id": format!("evt_{user}_{id}"), "object": "event", "type": "customer.deleted", "data": {"object": object}})
            .to_string()
    };
    // Whose the subscription is, only its customer's metadata said, which are gone.
    let gone = |ended_s: Option<u64>| {
        let mut subscription = subscription("sub_1", "active", BEGAN_S);
        subscription["metadata"] = json!({});
        subscription["customer"] = json!({"id": "cus_1", "object": "customer", "deleted": true});
        if let Some(ended_s) = ended_s {
            subscription["status"] = json!("canceled");
            subscription["ended_at"] = json!(ended_s);
        }
        subscription
    };
    let world = on_pro().await;
    let delivers = async |body: String| world.takes(&body, super::world::SECRET).await;
    // A customer who pays for nothing of this user's, and a lie: the subscription is in force.
    assert_eq!(delivers(customer("user_1", "cus_2")).await, answer(200, "in_line"));
    world.stripe_has(gone(None));
    assert_eq!(delivers(customer("user_1", "cus_1")).await, answer(200, "in_line"));
    assert_eq!(world.standing().await, pro("sub_1", BEGAN_S));

    world.stripe_has(gone(Some(BEGAN_S + 7)));
    assert_eq!(world.delivers(DELETED, "sub_1").await, answer(200, "no_user"));
    let again = customer("user_1", "cus_1").replace("evt_", "evt_again_");
    assert_eq!(delivers(again).await, answer(200, "in_line"));
    assert_eq!(world.standing().await, free(BEGAN_S + 7));

    // Stripe has not even the subscription any more.
    let world = on_pro().await;
    world.stripe(|books| books.objects.clear());
    assert_eq!(world.takes(&customer("user_1", "cus_1"), super::world::SECRET).await, answer(200, "in_line"));
    assert_eq!(world.standing().await, free(NOW.s()));
}
