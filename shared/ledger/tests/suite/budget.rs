//! The owner's budgets in every store: a day's slices never sum to more than its ceiling, whoever asks at the same time.

use super::support::{T0, on_each, plans, subscribe, user};
use domain::{Day, Level, NanoUsd, Pool, SliceAnswer, SliceAsk, Spending};
use ledger::{Changed, Known, Ledger, Store};

const MS_PER_DAY: u64 = 86_400_000;

fn nano(amount: u64) -> NanoUsd {
    NanoUsd::new(amount).unwrap()
}

/// Of a day that no other test looks at.
fn ask(days_on: u64, amount: u64) -> SliceAsk {
    let day = Day::of(T0.plus_ms(days_on * MS_PER_DAY));
    SliceAsk { pool: Pool::Trial, day, amount: nano(amount), ceiling: nano(1_000) }
}

fn leased(leased: u64, told: Option<Level>) -> SliceAnswer {
    SliceAnswer::Leased(Spending { leased: nano(leased), told })
}

#[test]
fn f20_200_leases_at_once_take_the_budget_and_no_more_of_it() {
    on_each(async |store| {
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let ledger = Ledger::new(store.clone(), plans());
                #[expect(clippy::disallowed_methods, reason = "the test itself awaits them")]
                tokio::spawn(async move { ledger.lease_slice(&ask(1, 7)).await.unwrap() })
            })
            .collect();
        let (mut sums, mut refused) = (Vec::new(), 0);
        for task in tasks {
            match task.await.unwrap() {
                SliceAnswer::Leased(item) => sums.push(item.leased.get()),
                SliceAnswer::Refused(item) => {
                    assert_eq!(item.leased, nano(994), "refused while there was room");
                    refused += 1;
                }
            }
        }
        sums.sort_unstable();
        assert_eq!(sums, (1..=142).map(|n| 7 * n).collect::<Vec<u64>>(), "a slice was leased twice");
        assert_eq!(refused, 58);
        let ledger = Ledger::new(store, plans());
        assert_eq!(ledger.lease_slice(&ask(1, 6)).await.unwrap(), leased(1_000, None));
        assert!(matches!(ledger.lease_slice(&ask(1, 1)).await.unwrap(), SliceAnswer::Refused(_)));
    });
}

#[test]
fn f20_each_day_and_each_pool_has_a_budget_of_its_own() {
    on_each(async |store| {
        let ledger = Ledger::new(store, plans());
        assert_eq!(ledger.lease_slice(&ask(2, 1_000)).await.unwrap(), leased(1_000, None));
        assert_eq!(ledger.lease_slice(&ask(3, 400)).await.unwrap(), leased(400, None));
        let everyone = SliceAsk { pool: Pool::Everyone, ..ask(2, 300) };
        assert_eq!(ledger.lease_slice(&everyone).await.unwrap(), leased(300, None));
        // A ceiling that was lowered: what is leased stays leased.
        let lowered = SliceAsk { ceiling: nano(100), ..ask(3, 1) };
        let refused = SliceAnswer::Refused(Spending { leased: nano(400), told: None });
        assert_eq!(ledger.lease_slice(&lowered).await.unwrap(), refused);
    });
}

#[test]
fn f20_that_the_owner_was_told_is_kept_and_every_lease_answers_it() {
    on_each(async |store| {
        let ledger = Ledger::new(store, plans());
        let day = ask(4, 1).day;
        let told = async |level| ledger.note_told(day, Pool::Trial, level).await.unwrap();
        assert_eq!(told(Level::Half).await, Changed::No, "of a day of which nothing is leased");
        assert_eq!(ledger.lease_slice(&ask(4, 500)).await.unwrap(), leased(500, None));
        assert_eq!(told(Level::Half).await, Changed::Yes);
        assert_eq!(told(Level::Half).await, Changed::No);
        assert_eq!(ledger.lease_slice(&ask(4, 400)).await.unwrap(), leased(900, Some(Level::Half)));
        assert_eq!(told(Level::All).await, Changed::Yes);
        assert_eq!(told(Level::FourFifths).await, Changed::No, "back to a lower level");
        let refused = SliceAnswer::Refused(Spending { leased: nano(900), told: Some(Level::All) });
        assert_eq!(ledger.lease_slice(&ask(4, 101)).await.unwrap(), refused);
    });
}

#[test]
fn f20_whose_account_it_is_is_read_once_then_remembered_and_nothing_is_created() {
    on_each(async |store| {
        let (user, other) = (user(), Ledger::new(store.clone(), plans()));
        let ledger = Ledger::new(store.clone(), plans());
        let known = ledger.known_account(&user, T0).await.unwrap();
        assert!(matches!(&known, Known::Read(account) if account.subscription.is_none()));
        assert_eq!(store.load(&user).await.unwrap(), None, "a request that may be refused left something");
        subscribe(&other, &user, T0).await;
        let Known::Read(paying) = ledger.known_account(&user, T0).await.unwrap() else { panic!() };
        assert!(paying.subscription.is_some());
        assert_eq!(ledger.known_account(&user, T0).await.unwrap(), Known::Remembered(paying));
    });
}
