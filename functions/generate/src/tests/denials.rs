//! What is kept of requests that a limit refused.

use super::{PORTAL_URL, World, problem};
use crate::budget::Ceilings;
use domain::{Account, DenialCode, NanoUsd, Timestamp};
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

#[tokio::test]
async fn f20_who_met_a_used_up_budget_sees_later_which_and_until_when() {
    for (trial_usd, owner_usd, code, problem_code) in [
        (0, 50, DenialCode::TrialBudget, "trial_budget_used_up"),
        (5, 0, DenialCode::OwnerCeiling, "owner_ceiling_reached"),
    ] {
        let ceilings = Ceilings { everyone: NanoUsd::of_usd(owner_usd), trial: NanoUsd::of_usd(trial_usd) };
        let world = World::within(ceilings).await;
        // Nobody has seen this user yet: one more account that is made is no reason to write.
        drop(world.ask().await.err().unwrap());
        world.drain.drained().await;
        assert!(world.store.inner().kept().denials.is_empty());
        assert!(world.store.inner().every_meter().is_empty());

        let standing = world.generate.ledger.standing(&world.user, edge::clock::now()).await.unwrap();
        let (_, body) = problem(world.ask().await.err().unwrap());
        assert_eq!(body["code"], problem_code);
        world.drain.drained().await;
        let kept = world.store.inner().kept();
        let denials: Vec<_> = kept.denials.values().collect();
        let [denial] = denials[..] else { panic!("{denials:?}") };
        assert_eq!((denial.code, denial.period_start), (code, standing.meter.period.start()));
        assert_eq!(denial.until.unwrap().to_string(), body["resetsAt"].as_str().unwrap());
        assert!(denial.asked.get() > 0 && denial.left.is_none(), "{denial:?}");
    }
}
