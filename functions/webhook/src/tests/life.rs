//! A subscription's whole life in every order of its deliveries, each of them twice.

use super::world::{
    CREATED, DAY_S, DELETED, SECRET, UPDATED, World, ended, event, free, invoice, subscription,
};
use domain::Account;
use serde_json::json;

const BEGAN_S: u64 = 1_799_000_000;
const ENDED_S: u64 = BEGAN_S + 9 * DAY_S;

/// The five events, in the order in which Stripe made them.
const LIFE: [(&str, &str); 5] = [
    ("checkout.session.completed", "cs_1"),
    (CREATED, "sub_1"),
    (UPDATED, "sub_1"),
    ("invoice.paid", "in_1"),
    (DELETED, "sub_1"),
];

fn body(number: usize) -> String {
    let (kind, object) = LIFE[number];
    let mut body: serde_json::Value =
        serde_json::from_str(&event(&format!("evt_{number}"), kind, object)).unwrap();
    if object == "cs_1" {
        body["data"]["object"]["subscription"] = json!("sub_1");
    }
    body.to_string()
}

/// Every order of `0..5`.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for number in 0..LIFE.len() {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, number);
                    longer
                })
            })
            .collect();
    }
    orders
}

/// Stripe moves on before each delivery, or was at its end before the first.
async fn lives(order: &[usize], moves_on: bool) -> Account {
    let world = World::new();
    world.stripe_has(invoice("in_1", "sub_1", "paid", (BEGAN_S, BEGAN_S)));
    let states = [
        subscription("sub_1", "incomplete", BEGAN_S),
        subscription("sub_1", "active", BEGAN_S),
        subscription("sub_1", "past_due", BEGAN_S),
        subscription("sub_1", "active", BEGAN_S),
        ended("sub_1", BEGAN_S, ENDED_S),
    ];
    world.stripe_has(states[4].clone());
    for (step, number) in order.iter().enumerate() {
        if moves_on {
            world.stripe_has(states[step].clone());
        }
        for outcome in ["in_line", "known"] {
            assert_eq!(world.takes(&body(*number), SECRET).await, (200, outcome.to_owned()), "{order:?}");
        }
    }
    Account { rev: 0, ..world.account().await }
}

#[tokio::test]
async fn f16_a_life_of_five_events_ends_in_one_account_in_every_order_with_every_event_twice() {
    let orders = orders();
    assert_eq!(orders.len(), 120);
    for moves_on in [true, false] {
        let expected = lives(&[0, 1, 2, 3, 4], moves_on).await;
        assert_eq!(
            (expected.plan.as_str(), expected.anchor.s(), expected.pay_by),
            ("free", if moves_on { free(ENDED_S).2 } else { super::world::NOW.s() }, None)
        );
        for order in &orders {
            assert_eq!(lives(order, moves_on).await, expected, "{order:?}");
        }
    }
}

#[tokio::test]
async fn f16_an_event_that_is_known_asks_stripe_nothing_and_one_that_failed_is_not_known() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    let created = event("evt_1", CREATED, "sub_1");
    world.stripe(|books| books.down = true);
    assert_eq!(world.takes(&created, SECRET).await, (503, "stripe_unavailable".to_owned()));
    world.stripe(|books| books.down = false);
    assert_eq!(world.takes(&created, SECRET).await, (200, "in_line".to_owned()));
    let (asked, rev) = (world.asked(), world.account().await.rev);
    assert_eq!(world.takes(&created, SECRET).await, (200, "known".to_owned()));
    assert_eq!((world.asked(), world.account().await.rev), (asked, rev));
}

#[tokio::test]
async fn f16_two_deliveries_of_one_event_at_once_end_as_one() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    let created = event("evt_1", CREATED, "sub_1");
    let (one, other) = tokio::join!(world.takes(&created, SECRET), world.takes(&created, SECRET));
    assert!(one.0 == 200 && other.0 == 200, "{one:?} {other:?}");
    assert_eq!(world.standing().await, super::world::pro("sub_1", BEGAN_S));
}

#[tokio::test]
async fn the_usual_delivery_asks_stripe_two_or_three_things() {
    let world = World::new();
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    world.stripe_has(invoice("in_1", "sub_1", "paid", (BEGAN_S, BEGAN_S)));
    let mut before = 0;
    for (kind, object, questions) in
        [(CREATED, "sub_1", 3), (UPDATED, "sub_1", 2), ("invoice.paid", "in_1", 3)]
    {
        world.delivers(kind, object).await;
        let asked = world.asked();
        assert_eq!(asked.len() - before, questions, "{kind}: {asked:?}");
        before = asked.len();
    }
}

/// A person may mend what was missing, and have the event delivered again.
#[tokio::test]
async fn what_was_gone_or_nobodys_is_looked_at_again_under_the_same_event() {
    let world = World::new();
    let created = event("evt_1", CREATED, "sub_1");
    assert_eq!(world.takes(&created, SECRET).await, (200, "gone".to_owned()));
    let mut nobodys = subscription("sub_1", "active", BEGAN_S);
    nobodys["metadata"] = json!({});
    world.stripe_has(nobodys);
    assert_eq!(world.takes(&created, SECRET).await, (200, "no_user".to_owned()));
    world.stripe_has(subscription("sub_1", "active", BEGAN_S));
    assert_eq!(world.takes(&created, SECRET).await, (200, "in_line".to_owned()));
}
