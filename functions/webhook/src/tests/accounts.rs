//! What the deliveries about a subscription make of its account, in every order and under every race.

use super::world::{
    Books, CREATED, DELETED, Hook, NOW, UPDATED, World, answer, ended, free, pro, subscription,
};
use domain::{Account, Timestamp, UserId};
use serde_json::json;
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

#[tokio::test]
async fn a_bought_subscription_gives_its_plan_customer_and_periods() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, pro("sub_1", 1_799_000_000));
    assert_eq!(world.account().await.billed_to().unwrap().as_str(), "cus_1");
}

#[tokio::test]
async fn f16_an_event_delivered_twice_changes_the_account_once() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    world.delivers(CREATED, "sub_1").await;
    let once = world.account().await;
    world.delivers(CREATED, "sub_1").await;
    world.delivers(UPDATED, "sub_1").await;
    let again = world.account().await;
    assert_eq!(Account { rev: once.rev, ..again.clone() }, once);
    assert!(again.rev > once.rev, "a write of an older answer would not be refused");
}

/// Every order of the three deliveries of a subscription's life, after its end: what Stripe has now decides.
#[tokio::test]
async fn f16_events_in_any_order_end_in_what_stripe_has() {
    for order in [
        [CREATED, UPDATED, DELETED],
        [CREATED, DELETED, UPDATED],
        [DELETED, CREATED, UPDATED],
        [DELETED, UPDATED, CREATED],
        [UPDATED, DELETED, CREATED],
        [UPDATED, CREATED, DELETED],
    ] {
        let world = World::new();
        world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
        assert_eq!(world.delivers(order[0], "sub_1").await, answer(200, "in_line"));
        world.stripe_has(ended("sub_1", 1_799_000_000, 1_799_900_000));
        for kind in &order[1..] {
            assert_eq!(world.delivers(kind, "sub_1").await, answer(200, "in_line"));
        }
        assert_eq!(world.standing().await, free(1_799_900_000), "{order:?}");
    }
}

#[tokio::test]
async fn f16_an_older_subscriptions_end_does_not_touch_the_newer_one() {
    let world = World::new();
    world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
    world.delivers(CREATED, "sub_old").await;
    world.stripe_has(ended("sub_old", 1_798_000_000, 1_799_000_000));
    world.stripe_has(subscription("sub_new", "active", 1_799_000_001));
    world.delivers(CREATED, "sub_new").await;
    world.delivers(DELETED, "sub_old").await;
    world.delivers(UPDATED, "sub_old").await;
    assert_eq!(world.standing().await, pro("sub_new", 1_799_000_001));
}

#[tokio::test]
async fn f16_of_two_subscriptions_in_force_the_younger_counts_in_any_order() {
    for order in [["sub_old", "sub_new"], ["sub_new", "sub_old"]] {
        let world = World::new();
        world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
        world.stripe_has(subscription("sub_new", "past_due", 1_799_000_000));
        for id in order {
            world.delivers(UPDATED, id).await;
        }
        assert_eq!(world.standing().await, pro("sub_new", 1_799_000_000), "{order:?}");
    }
}

/// The account's own one ends, and the other one is still paid for: whatever is heard of first, the account is never free.
#[tokio::test]
async fn f16_of_two_in_force_the_end_of_the_accounts_own_leaves_the_other_in_any_order() {
    let mut ends = Vec::new();
    for order in [
        vec![(DELETED, "sub_new")],
        vec![(DELETED, "sub_new"), (UPDATED, "sub_old")],
        vec![(UPDATED, "sub_old"), (DELETED, "sub_new")],
        vec![(UPDATED, "sub_old"), (DELETED, "sub_new"), (UPDATED, "sub_old"), (UPDATED, "sub_new")],
    ] {
        let world = World::new();
        world.stripe_has(subscription("sub_older", "active", 1_797_000_000));
        world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
        world.stripe_has(subscription("sub_new", "active", 1_799_000_000));
        world.delivers(CREATED, "sub_old").await;
        world.delivers(CREATED, "sub_new").await;
        assert_eq!(world.standing().await, pro("sub_new", 1_799_000_000));
        world.stripe_has(ended("sub_new", 1_799_000_000, 1_799_900_000));
        for (kind, id) in &order {
            assert_eq!(world.delivers(kind, id).await, answer(200, "in_line"));
        }
        assert_eq!(world.standing().await, pro("sub_old", 1_798_000_000), "{order:?}");
        ends.push(Account { rev: 0, ..world.account().await });
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[tokio::test]
async fn f16_what_is_not_this_users_or_not_in_force_follows_no_subscription_that_has_ended() {
    let not_ours: [fn(&mut serde_json::Value); 5] = [
        |other| other["metadata"] = json!({"user_id": "user_2"}),
        // Whose it is, only its customer says.
        |other| {
            other["metadata"] = json!({});
            other["customer"]["metadata"] = json!({"user_id": "user_2"});
        },
        |other| other["status"] = json!("incomplete"),
        |other| other["pause_collection"] = json!({"behavior": "void", "resumes_at": null}),
        |other| other["items"]["data"] = json!([{"price": {"lookup_key": "a_book"}}]),
    ];
    for change in not_ours {
        let world = World::new();
        world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
        world.delivers(CREATED, "sub_1").await;
        let mut other = subscription("sub_2", "active", 1_798_000_000);
        change(&mut other);
        world.stripe_has(other.clone());
        world.stripe_has(ended("sub_1", 1_799_000_000, 1_799_900_000));
        assert_eq!(world.delivers(DELETED, "sub_1").await, answer(200, "in_line"));
        assert_eq!(world.standing().await, free(1_799_900_000), "{other}");
    }
}

/// While the first delivery looks at what follows, that ends too, and the delivery that says so finds nothing to change.
#[tokio::test]
async fn f16_what_follows_a_subscription_is_asked_again_when_another_delivery_comes_between() {
    let world = World::new();
    world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
    world.stripe_has(subscription("sub_new", "active", 1_799_000_000));
    world.delivers(CREATED, "sub_new").await;
    world.stripe_has(ended("sub_new", 1_799_000_000, 1_799_900_000));
    let ledger = world.ledger.clone();
    let end = move |books: &mut Books| {
        books.put("/v1/subscriptions/sub_old", ended("sub_old", 1_798_000_000, 1_799_950_000));
        let user = UserId::parse("user_1").unwrap();
        at_once(ledger.change_account(&user, NOW, |account: &Account| Some(account.clone()))).unwrap();
    };
    // Whose the subscription is, what it is, what else there is; the answer to the fourth is what would be written.
    world.stripe(|books| books.hook = Some(Hook { question: 4, then: Box::new(end) }));
    assert_eq!(world.delivers(DELETED, "sub_new").await, answer(200, "in_line"));
    assert!(world.stripe(|books| books.hook.is_none()));
    assert_eq!(world.standing().await, free(1_799_900_000));

    // Or that is nothing any more that entitles, which a list did not show yet.
    let world = World::new();
    world.stripe_has(subscription("sub_old", "active", 1_798_000_000));
    world.stripe_has(subscription("sub_new", "active", 1_799_000_000));
    world.delivers(CREATED, "sub_new").await;
    world.stripe_has(ended("sub_new", 1_799_000_000, 1_799_900_000));
    let change = |books: &mut Books| {
        let mut other = subscription("sub_old", "active", 1_798_000_000);
        other["items"]["data"] = json!([{"price": {"lookup_key": "a_book"}}]);
        books.put("/v1/subscriptions/sub_old", other);
    };
    world.stripe(|books| books.hook = Some(Hook { question: 3, then: Box::new(change) }));
    assert_eq!(world.delivers(DELETED, "sub_new").await, answer(200, "in_line"));
    assert!(world.stripe(|books| books.hook.is_none()));
    assert_eq!(world.standing().await, free(1_799_900_000));

    let both = tokio::join!(world.delivers(DELETED, "sub_new"), world.delivers(DELETED, "sub_old"));
    assert_eq!(both, (answer(200, "in_line"), answer(200, "in_line")));
    assert_eq!(world.standing().await, free(1_799_900_000));
}

/// The subscription ends between Stripe's answer and the write, and another delivery writes that first: the older answer must
/// not be written over it.
#[tokio::test]
async fn f16_an_answer_that_is_older_than_the_account_is_never_written() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", 1_799_000_000));
    world.delivers(CREATED, "sub_1").await;
    let mut moved = subscription("sub_1", "active", 1_799_000_000);
    moved["billing_cycle_anchor"] = json!(1_799_500_000);
    world.stripe_has(moved);
    let ledger = world.ledger.clone();
    let end = move |books: &mut Books| {
        books.put("/v1/subscriptions/sub_1", ended("sub_1", 1_799_000_000, 1_799_900_000));
        let user = UserId::parse("user_1").unwrap();
        let plan = ledger.plans().first().id.clone();
        let anchor = Timestamp::from_s(1_799_900_000);
        let after = |account: &Account| {
            Some(Account { plan: plan.clone(), subscription: None, anchor, ..account.clone() })
        };
        at_once(ledger.change_account(&user, NOW, after)).unwrap();
    };
    let before = world.account().await;
    // The first question is whose the subscription is; the answer to the second is what would be written.
    world.stripe(|books| books.hook = Some(Hook { question: 2, then: Box::new(end) }));
    assert_eq!(world.delivers(UPDATED, "sub_1").await, answer(200, "in_line"));
    assert_eq!(world.standing().await, free(1_799_900_000));
    assert_eq!(
        world.account().await.rev,
        before.rev + 2,
        "the other delivery wrote, then this one its fence"
    );
    assert!(world.stripe(|books| books.hook.is_none()));
}

/// The subscription ends after Stripe's answer, and the delivery that says so finds nothing to change: the older answer is
/// still not to be written, neither late nor over an account that was not there when it was asked for.
#[tokio::test]
async fn f16_a_delivery_that_changes_nothing_still_refuses_the_writes_of_older_answers() {
    for known_before in [true, false] {
        let world = World::new();
        if known_before {
            let user = UserId::parse("user_1").unwrap();
            world.ledger.standing(&user, NOW).await.unwrap();
        }
        let ledger = world.ledger.clone();
        let user = UserId::parse("user_1").unwrap();
        let read = ledger.account(&user, NOW).await.unwrap();
        world.stripe_has(ended("sub_1", 1_799_000_000, 1_799_900_000));
        assert_eq!(world.delivers(DELETED, "sub_1").await, answer(200, "in_line"));
        // What a slower delivery made of the older answer, on condition of what it had read.
        let active = |account: &Account| {
            let pro = Account { plan: domain::PlanId::parse("pro").unwrap(), ..account.clone() };
            (account.rev == read.rev).then_some(pro)
        };
        ledger.change_account(&user, NOW, active).await.unwrap();
        assert_eq!(world.account().await.plan.as_str(), "free", "known before: {known_before}");
    }
}

/// What the ledger in memory answers without waiting.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the ledger in memory waits"),
    }
}

#[tokio::test]
async fn a_subscription_of_nobody_is_answered_and_changes_nothing() {
    let world = World::new();
    let mut nobodys = subscription("sub_1", "active", 1_799_000_000);
    nobodys["metadata"] = json!({});
    world.stripe_has(nobodys);
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "no_user"));
    assert_eq!(world.standing().await.0, "free");
}

/// Whoever sells something else under the same account of Stripe's is not to be bothered with it.
#[tokio::test]
async fn a_subscription_to_something_else_that_names_nobody_is_ignored() {
    let world = World::new();
    let mut foreign = subscription("sub_1", "active", 1_799_000_000);
    foreign["metadata"] = json!({});
    foreign["items"]["data"] = json!([{"price": {"lookup_key": "a_book"}}, {"price": {"lookup_key": null}}]);
    world.stripe_has(foreign);
    assert_eq!(world.delivers(CREATED, "sub_1").await, answer(200, "ignored"));
    assert_eq!(world.heard(), []);
}
