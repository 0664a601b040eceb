//! Claims on idempotency keys, on every store: one of several equal requests works, and nobody pays twice whoever crashes.

use super::support::{AnyStore, HOLD_MS, T0, demand, new_id, on_each, plans, price, t, used, user};
use domain::{ANSWER_BYTES_MAX, CLAIM_KEPT_MS, Claim, Digest, Outcome, Timestamp, UserId};
use ledger::{Claimed, Ended, Ledger, MeterKey, OfKey, OpenClaim, OpenHold, Store};

const KEY: Digest = Digest::new([1; 32]);
const BODY: Digest = Digest::new([2; 32]);

fn wanted(user: &UserId, now: Timestamp) -> Claim {
    Claim::begin(user.clone(), KEY, BODY, new_id(), HOLD_MS, now)
}

/// One function instance and its user.
struct Instance {
    ledger: Ledger<AnyStore>,
    user: UserId,
}

impl Instance {
    fn new(store: &AnyStore, user: &UserId) -> Self {
        Self { ledger: Ledger::new(store.clone(), plans()), user: user.clone() }
    }

    async fn claim(&self, now: Timestamp) -> Claimed {
        self.ledger.claim(wanted(&self.user, now), now).await.unwrap()
    }

    #[track_caller]
    fn ours(claimed: Claimed) -> OpenClaim {
        match claimed {
            Claimed::Ours(claim) => claim,
            other => panic!("not ours: {other:?}"),
        }
    }

    #[track_caller]
    fn ended(claimed: Claimed) -> Ended {
        match claimed {
            Claimed::Ended(ended) => *ended,
            other => panic!("not ended: {other:?}"),
        }
    }

    async fn admit(&self, now: Timestamp) -> OpenHold {
        self.ledger.admit(&self.user, &demand(300), &price(), HOLD_MS, &new_id, now).await.unwrap()
    }
}

#[test]
fn i3_a_repeat_waits_while_the_first_runs_and_gets_its_answer_after() {
    on_each(async |store| {
        let user = user();
        let (first, other) = (Instance::new(&store, &user), Instance::new(&store, &user));
        let mut claim = Instance::ours(first.claim(T0).await);
        assert!(matches!(other.claim(T0).await, Claimed::Running));
        assert_eq!(other.ledger.of_key(&user, KEY).await.unwrap(), OfKey::NotYetAdmitted);
        assert_eq!(other.ledger.of_key(&user, BODY).await.unwrap(), OfKey::Nothing);
        let hold = first.admit(T0).await;
        let reference = hold.reference();
        first.ledger.note_hold(&mut claim, &hold).await.unwrap();
        assert_eq!(other.ledger.of_key(&user, KEY).await.unwrap(), OfKey::Hold(reference.id.clone()));
        assert!(matches!(other.claim(T0).await, Claimed::Running));
        assert_eq!(other.ledger.ended(&user, KEY, T0).await.unwrap(), None);
        first.ledger.end_claim(&claim, reference.clone(), Some("text".to_owned())).await.unwrap();
        let before_it_is_settled = Instance::ended(other.claim(T0).await);
        assert_eq!(
            (before_it_is_settled.answer.as_deref(), before_it_is_settled.receipt),
            (Some("text"), None)
        );
        let receipt = first.ledger.settle(hold, used(200), &price(), T0).await.unwrap();
        let ended = Instance::ended(other.claim(T0.plus_ms(CLAIM_KEPT_MS - 1)).await);
        let expected = Ended { hold: reference, answer: Some("text".to_owned()), receipt: Some(receipt) };
        assert_eq!(ended, expected);
        assert_eq!(other.ledger.ended(&user, KEY, T0).await.unwrap(), Some(expected));
    });
}

#[test]
fn a_key_belongs_to_one_body_one_user_and_one_day() {
    on_each(async |store| {
        let user = user();
        let one = Instance::new(&store, &user);
        let claim = Instance::ours(one.claim(T0).await);
        let other_body = Claim { body: Digest::new([3; 32]), ..wanted(&user, T0) };
        assert!(matches!(one.ledger.claim(other_body.clone(), T0).await.unwrap(), Claimed::OtherBody));
        let somebody_else = Instance::new(&store, &UserId::parse("somebody_else").unwrap());
        drop(Instance::ours(somebody_else.claim(T0).await));
        one.ledger.end_claim(&claim, one.admit(T0).await.reference(), None).await.unwrap();
        assert!(matches!(one.ledger.claim(other_body.clone(), T0).await.unwrap(), Claimed::OtherBody));
        let next_day = T0.plus_ms(CLAIM_KEPT_MS);
        assert_eq!(one.ledger.ended(&user, KEY, next_day).await.unwrap(), None);
        drop(Instance::ours(one.ledger.claim(other_body, next_day).await.unwrap()));
    });
}

#[test]
fn i4_a_refused_request_gives_its_key_free() {
    on_each(async |store| {
        let user = user();
        let one = Instance::new(&store, &user);
        let claim = Instance::ours(one.claim(T0).await);
        one.ledger.drop_claim(claim).await.unwrap();
        let again = Instance::ours(one.claim(T0).await);
        // What is dropped late is not somebody else's.
        let stale = OpenClaimOf::another(&one).await;
        one.ledger.drop_claim(stale).await.unwrap();
        assert!(matches!(one.claim(T0).await, Claimed::Running));
        drop(again);
    });
}

/// A claim whose key somebody else has taken over since.
struct OpenClaimOf;

impl OpenClaimOf {
    /// On a key of its own first, so that it can be had at all.
    async fn another(one: &Instance) -> OpenClaim {
        let key = Digest::new([9; 32]);
        let old = Claim { key, ..wanted(&one.user, T0) };
        let stale = Instance::ours(one.ledger.claim(old, T0).await.unwrap());
        let later = T0.plus_ms(HOLD_MS);
        let new = Claim { key, ..wanted(&one.user, later) };
        drop(Instance::ours(one.ledger.claim(new, later).await.unwrap()));
        stale
    }
}

/// An instance that dies once its claim has its hold, and that hold.
async fn dies_at_work(store: &AnyStore, user: &UserId) -> (Instance, OpenHold) {
    let dead = Instance::new(store, user);
    let mut claim = Instance::ours(dead.claim(T0).await);
    let hold = dead.admit(T0).await;
    dead.ledger.note_hold(&mut claim, &hold).await.unwrap();
    (dead, hold)
}

#[test]
fn i3_what_a_crash_left_is_taken_over_by_one_of_many_when_its_time_is_out() {
    on_each(async |store| {
        let user = user();
        let (_, hold) = dies_at_work(&store, &user).await;
        let reference = hold.reference();
        drop(hold);
        let later = T0.plus_ms(HOLD_MS);
        let repeats: Vec<_> = (0..8)
            .map(|_| {
                let one = Instance::new(&store, &user);
                #[expect(clippy::disallowed_methods, reason = "the test itself awaits them")]
                tokio::spawn(async move { one.claim(later).await })
            })
            .collect();
        let (mut ours, mut running) = (0, 0);
        for repeat in repeats {
            match repeat.await.unwrap() {
                Claimed::Ours(_) => ours += 1,
                Claimed::Running => running += 1,
                other => panic!("neither: {other:?}"),
            }
        }
        assert_eq!((ours, running), (1, 7));
        // Its hold is gone with it, uncharged, and cannot be settled any more.
        let key = MeterKey { user: user.clone(), period_start: reference.period_start };
        let receipt = store.receipt(&key, &reference.id).await.unwrap().unwrap();
        assert_eq!((receipt.outcome, receipt.charged), (Outcome::Swept, t(0)));
        assert!(store.meter(&key).await.unwrap().unwrap().holds.is_empty());
    });
}

#[test]
fn i3_what_was_paid_for_before_a_crash_is_never_done_again() {
    on_each(async |store| {
        let user = user();
        let (dead, hold) = dies_at_work(&store, &user).await;
        let receipt = dead.ledger.settle(hold, used(200), &price(), T0).await.unwrap();
        let later = T0.plus_ms(HOLD_MS);
        let ended = Instance::ended(Instance::new(&store, &user).claim(later).await);
        assert_eq!((ended.answer, ended.receipt), (None, Some(receipt)));
    });
}

#[test]
fn i3_a_receipt_that_no_meter_has_heard_of_is_paid_for_too() {
    on_each(async |store| {
        let user = user();
        let (_, hold) = dies_at_work(&store, &user).await;
        // The process dies between the receipt and the meter.
        let key = MeterKey { user: user.clone(), period_start: hold.reference().period_start };
        let open = (hold.id().clone(), hold.hold());
        let receipt = domain::Receipt::settled(user.clone(), key.period_start, open, used(200), &price(), T0);
        store.put_receipt(&receipt).await.unwrap();
        let ended = Instance::ended(Instance::new(&store, &user).claim(T0.plus_ms(HOLD_MS)).await);
        assert_eq!(ended.receipt, Some(receipt));
        assert_eq!(store.meter(&key).await.unwrap().unwrap().settled, t(200), "the meter has not moved");
    });
}

#[test]
fn i8_an_answer_beyond_its_bound_is_not_kept() {
    on_each(async |store| {
        let user = user();
        for (bytes, kept) in [(ANSWER_BYTES_MAX, true), (ANSWER_BYTES_MAX + 1, false)] {
            let one = Instance::new(&store, &user);
            let key = Digest::new([u8::from(kept) + 10; 32]);
            let claim = Claim { key, ..wanted(&user, T0) };
            let claim = Instance::ours(one.ledger.claim(claim, T0).await.unwrap());
            let hold = one.admit(T0).await;
            let answer = Some("x".repeat(bytes));
            one.ledger.end_claim(&claim, hold.reference(), answer).await.unwrap();
            let ended = one.ledger.ended(&user, key, T0).await.unwrap().unwrap();
            assert_eq!(ended.answer.is_some(), kept);
            one.ledger.void(hold, T0).await.unwrap();
        }
    });
}

#[test]
fn a_wish_to_stop_is_one_users_about_one_request() {
    on_each(async |store| {
        let (user, id) = (user(), new_id());
        let one = Instance::new(&store, &user);
        assert!(!one.ledger.is_stopped(&user, &id).await.unwrap());
        for _ in 0..2 {
            one.ledger.stop(&user, &id, T0).await.unwrap();
        }
        assert!(one.ledger.is_stopped(&user, &id).await.unwrap());
        assert!(!one.ledger.is_stopped(&user, &new_id()).await.unwrap());
        let somebody_else = UserId::parse("somebody_else").unwrap();
        assert!(!one.ledger.is_stopped(&somebody_else, &id).await.unwrap());
    });
}
