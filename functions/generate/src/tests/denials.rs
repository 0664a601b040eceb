//! What is kept of requests that a limit refused.

use super::{PORTAL_URL, World, problem};
use domain::{Account, DenialCode, Timestamp};
use edge::plans::PlanBook;
use ledger::Ledger;
use serde_json::Value;

/// Makes the user owe, since the first second of time.
async fn owe(world: &World) {
    let ledger = Ledger::new(world.store.inner().clone(), PlanBook::built_in().unwrap().plans().clone());
    let owes = |account: &Account| Some(Account { pay_by: Some(Timestamp::from_s(1)), ..account.clone() });
    ledger.change_account(&world.user, edge::clock::now(), owes).await.unwrap();
}

#[tokio::test]
async fn i4_who_owes_is_told_where_to_pay_and_sees_later_what_was_in_the_way() {
    let world = World::new().await;
    owe(&world).await;
    for _ in 0..3 {
        let (head, body) = problem(world.ask().await.err().unwrap());
        assert_eq!((head.status.as_u16(), &body["code"]), (402, &Value::from("past_due")));
        assert_eq!(
            (&body["payBy"], &body["portalUrl"]),
            (&"1970-01-01T00:00:01.000Z".into(), &PORTAL_URL.into())
        );
    }
    assert_eq!(world.rate_count().await, 0, "a refused request was counted");
    assert_eq!(world.upstream.calls(), 0);
    let kept = world.store.inner().kept();
    let denials: Vec<_> = kept.denials.values().collect();
    let [denial] = denials[..] else { panic!("{denials:?}") };
    let current = kept.accounts[&world.user].current;
    assert_eq!((denial.code, denial.period_start, denial.until), (DenialCode::PastDue, current, None));
    assert!(denial.asked.get() > 0);
}

#[tokio::test]
async fn f14_a_store_that_does_not_answer_refuses_nobody_by_a_limit() {
    let world = World::new().await;
    owe(&world).await;
    world.store.switch_off();
    let (head, _) = problem(world.ask().await.err().unwrap());
    assert_eq!(head.status.as_u16(), 503);
    world.drain.drained().await;
    assert!(world.store.inner().kept().denials.is_empty());
}
