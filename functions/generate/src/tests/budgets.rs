//! F20: what the owner pays the provider in a day has an end, and those who pay nothing share one that is lower.

use super::{BODY, World, chunks, problem, shaky::ShakyStore, upstream::HEAD};
use crate::{
    budget::{Budgets, Ceilings},
    wire::AnswerBody,
};
use domain::{Classes, Day, ModelPrice, NanoUsd, PlanId, Pool, Spending, SubscriptionId, Tokens, UserId};
use edge::{plans::PlanBook, problem::Problem};
use http::Response;
use ledger::{Ledger, Store};
use std::sync::Arc;

const USERS: u32 = 500;
const PROMPT: u32 = 30;
const ANSWER: u32 = 1_000;

fn nano(amount: u64) -> NanoUsd {
    NanoUsd::new(amount).unwrap()
}

fn ceilings(everyone: u64, trial: u64) -> Ceilings {
    Ceilings { everyone: nano(everyone), trial: nano(trial) }
}

impl World {
    fn luna(&self) -> ModelPrice {
        self.generate.front.menu.default.clone()
    }

    /// What an answer of the script costs.
    fn cost(&self) -> u64 {
        let classes = Classes {
            input: Tokens::from_u32(PROMPT),
            output: Tokens::from_u32(ANSWER),
            ..Classes::default()
        };
        self.luna().cost(&classes).get()
    }

    /// What is reserved for a request before it is known who answers.
    fn most(&self) -> u64 {
        let json = http::HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        )]);
        let wish = crate::parse::parse(&json, BODY.as_bytes(), &super::menu()).unwrap();
        let demand = self.generate.demand(&wish, &wish.question());
        let of = |price: &ModelPrice| price.cost_most(demand.prompt_most, demand.output_most).get();
        self.generate.front.menu.prices.iter().map(of).max().unwrap()
    }

    /// The provider's next answer.
    fn answers(&self) {
        self.upstream.write(HEAD).text("Hello").stop().usage(PROMPT, ANSWER).done().close();
    }

    async fn ask_of(&mut self, user: &str) -> Result<Response<AnswerBody>, Problem> {
        self.user = UserId::parse(user).unwrap();
        self.ask().await
    }

    /// Served to its end, and everything after it.
    async fn served(&mut self, user: &str) {
        self.answers();
        let answer = self.ask_of(user).await.unwrap();
        assert!(!chunks(answer).await.is_empty());
        self.drain.drained().await;
        self.drain = edge::drain::Drain::new();
    }

    /// Another instance's.
    fn ledger(&self) -> Ledger<ShakyStore> {
        Ledger::new(self.store.clone(), PlanBook::built_in().unwrap().plans().clone())
    }

    /// Begins or ends a subscription, without this instance hearing of it.
    async fn subscribe(&self, user: &str, subscribed: bool) {
        let user = UserId::parse(user).unwrap();
        let change = |account: &domain::Account| {
            let (plan, id) = if subscribed { ("pro", Some("sub_1")) } else { ("free", None) };
            let mut after = account.clone();
            after.plan = PlanId::parse(plan).unwrap();
            after.subscription = id.map(|id| SubscriptionId::parse(id).unwrap());
            Some(after)
        };
        self.ledger().change_account(&user, edge::clock::now(), change).await.unwrap();
    }

    /// What is leased of the day's budget; a test does not run across midnight, or then it only sums both days up.
    fn leased(&self, pool: Pool) -> u64 {
        let kept = self.store.inner().kept();
        kept.spendings.iter().filter(|((_, of), _)| *of == pool).map(|(_, item)| item.leased.get()).sum()
    }

    /// What is leased and not spent.
    fn left(&self, pool: Pool) -> u64 {
        self.generate.budgets.left(pool).get()
    }

    fn spent(&self, pool: Pool) -> u64 {
        self.leased(pool) - self.left(pool)
    }

    /// A new instance's slices; what was heard of users is kept.
    fn forget_slices(&mut self) {
        let now = Arc::clone(&self.generate.outside.now);
        self.generate.budgets = Budgets::new(self.generate.ledger.clone(), self.generate.front.ceilings, now);
    }
}

#[track_caller]
fn refused(answer: Result<Response<AnswerBody>, Problem>, status: u16, code: &str) {
    let (head, body) = problem(answer.map(|_| ()).unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (status, Some(code)));
    assert!(head.headers.contains_key(http::header::RETRY_AFTER));
    if code != "store_unavailable" {
        let resets_at = body["resetsAt"].as_str().unwrap();
        assert!(resets_at.ends_with("T00:00:00.000Z"), "{resets_at}");
        assert!((1..=86_400).contains(&body["retryAfter"].as_u64().unwrap()));
    }
}

#[tokio::test]
async fn f20_500_new_users_get_no_more_than_the_budget_of_all_who_pay_nothing_and_whoever_pays_goes_on() {
    // A cent for all of them.
    let trial = 10_000_000;
    let mut world = World::within(ceilings(50_000_000_000, trial)).await;
    let mut served = 0;
    for user in 0..USERS {
        world.answers();
        match world.ask_of(&format!("fresh_{user}")).await {
            Ok(answer) => {
                drop(chunks(answer).await);
                world.drain.drained().await;
                world.drain = edge::drain::Drain::new();
                served += 1;
            }
            Err(turned_away) => refused(Err(turned_away), 402, "trial_budget_used_up"),
        }
    }
    assert_eq!(world.upstream.calls(), served, "the provider was called for somebody who was turned away");
    let spent = u64::from(served) * world.cost();
    assert!(spent <= trial, "{spent} of {trial} nano-dollars");
    assert!(spent + world.most() > trial, "turned away at {spent} of {trial} nano-dollars");
    assert_eq!((world.spent(Pool::Trial), world.spent(Pool::Everyone)), (spent, spent));
    assert_eq!(world.leased(Pool::Trial), trial);
    let meters = world.store.inner().every_meter().len();
    assert_eq!(meters, usize::try_from(served).unwrap(), "a refused request left something behind");

    world.subscribe("customer", true).await;
    for _ in 0..5 {
        // The answer that was meant for somebody who was turned away.
        let answer = world.ask_of("customer").await.unwrap();
        assert!(!chunks(answer).await.is_empty());
    }
    world.drain.drained().await;
    assert_eq!(world.spent(Pool::Trial), spent, "who pays took from those who do not");
    assert_eq!(world.spent(Pool::Everyone), spent + 5 * world.cost());
}

#[tokio::test]
async fn f20_at_the_owner_s_ceiling_nobody_is_served_whoever_pays() {
    let most = World::new().await.most();
    let mut world = World::within(ceilings(most + 1, 50_000_000_000)).await;
    world.subscribe("customer", true).await;
    world.served("customer").await;
    // What is left is less than a request may cost.
    refused(world.ask_of("customer").await, 503, "owner_ceiling_reached");
    let trial = world.left(Pool::Trial);
    refused(world.ask_of("fresh").await, 503, "owner_ceiling_reached");
    assert!(
        trial == 0 && world.spent(Pool::Trial) == 0,
        "what was reserved of the other pool did not come back"
    );
    assert_eq!(world.upstream.calls(), 1);
    assert_eq!(world.spent(Pool::Everyone), world.cost());
}

#[tokio::test]
async fn f20_a_budget_of_nothing_refuses_its_pool_and_writes_nothing() {
    let mut world = World::within(ceilings(50_000_000_000, 0)).await;
    refused(world.ask_of("fresh").await, 402, "trial_budget_used_up");
    world.subscribe("customer", true).await;
    world.served("customer").await;
    let mut closed = World::within(ceilings(0, 5_000_000_000)).await;
    closed.subscribe("customer", true).await;
    refused(closed.ask_of("customer").await, 503, "owner_ceiling_reached");
    assert_eq!(closed.upstream.calls(), 0);
    assert!(closed.store.inner().kept().spendings.is_empty());
}

#[tokio::test]
async fn f20_who_has_paid_since_is_not_turned_away_and_who_has_ceased_to_is() {
    let most = World::new().await.most();
    let mut world = World::within(ceilings(50_000_000_000, most)).await;
    world.served("alice").await;
    refused(world.ask_of("alice").await, 402, "trial_budget_used_up");
    world.subscribe("alice", true).await;
    world.served("alice").await;
    world.subscribe("alice", false).await;
    let spent = world.spent(Pool::Everyone);
    refused(world.ask_of("alice").await, 402, "trial_budget_used_up");
    assert_eq!(world.upstream.calls(), 2);
    assert_eq!(world.spent(Pool::Everyone), spent, "what was reserved did not come back");
    let meter = world.store.inner().every_meter().pop().unwrap();
    assert_eq!((meter.held(), meter.totals.requests), (Tokens::ZERO, 2), "I4");
}

#[tokio::test]
async fn f20_a_refused_admission_gives_back_what_was_reserved() {
    let mut world = World::new().await;
    world.served("alice").await;
    let (left, spent) = (world.left(Pool::Trial), world.spent(Pool::Trial));
    // A cap of the user's own that is reached.
    let user = UserId::parse("alice").unwrap();
    let cap = |account: &domain::Account| {
        Some(domain::Account { spend_cap: Some(Tokens::ZERO), ..account.clone() })
    };
    world.ledger().change_account(&user, edge::clock::now(), cap).await.unwrap();
    let (head, body) = problem(world.ask_of("alice").await.map(|_| ()).unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (402, Some("spend_cap_reached")));
    assert_eq!((world.left(Pool::Trial), world.spent(Pool::Trial)), (left, spent));
}

#[tokio::test]
async fn f20_a_failed_call_that_may_have_cost_counts_whole_and_the_next_one_is_reserved_anew() {
    let mut world = World::new().await;
    world.upstream.write(HEAD).close();
    world.answers();
    let answer = world.ask_of("alice").await.unwrap();
    drop(chunks(answer).await);
    world.drain.drained().await;
    assert_eq!(world.upstream.calls(), 2);
    assert_eq!(world.spent(Pool::Everyone), world.most() + world.cost());
    assert_eq!(world.spent(Pool::Trial), world.most() + world.cost());
}

#[tokio::test]
async fn f20_a_stop_before_the_first_text_gives_nothing_of_the_budget_back() {
    let world = World::new().await;
    // The model has begun, and thinks.
    world.upstream.write(HEAD);
    let stop = async {
        while world.upstream.calls() == 0 {
            tokio::task::yield_now().await;
        }
        let id = world.store.inner().every_meter()[0].holds.keys().next().unwrap().clone();
        let until = edge::clock::now().plus_ms(60_000);
        world.store.inner().put_stop(&world.user, &id, until).await.unwrap();
    };
    let (answer, ()) = tokio::join!(world.ask(), stop);
    drop(chunks(answer.unwrap()).await);
    world.drain.drained().await;
    assert_eq!(world.upstream.calls(), 1);
    assert_eq!(
        (world.spent(Pool::Trial), world.spent(Pool::Everyone)),
        (world.most(), world.most()),
        "what the model may have thought was given back"
    );
}

#[tokio::test]
async fn f20_without_budget_for_another_call_none_is_made() {
    let most = World::new().await.most();
    let mut world = World::within(ceilings(most + 1, 50_000_000_000)).await;
    world.upstream.write(HEAD).close();
    let (head, body) = problem(world.ask_of("alice").await.map(|_| ()).unwrap_err());
    assert_eq!((head.status.as_u16(), body["code"].as_str()), (503, Some("provider_unavailable")));
    assert_eq!(world.upstream.calls(), 1);
    assert_eq!(world.spent(Pool::Everyone), most);
    assert_eq!(world.rate_count().await, 0);
}

#[tokio::test]
async fn f20_a_call_that_was_refused_costs_nothing_of_the_budget() {
    let mut world = World::new().await;
    for _ in 0..3 {
        let refusal = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 70\r\ncontent-length: 0\r\n\r\n";
        world.upstream.write(refusal).close();
    }
    drop(world.ask_of("alice").await.map(|_| ()).unwrap_err());
    assert_eq!(world.upstream.calls(), 3);
    assert_eq!((world.spent(Pool::Trial), world.spent(Pool::Everyone)), (0, 0));
}

#[tokio::test]
async fn f14_f20_without_the_store_nothing_is_leased_and_nobody_generates() {
    let mut world = World::new().await;
    world.served("alice").await;
    world.forget_slices();
    world.store.switch_off();
    refused(world.ask_of("alice").await, 503, "store_unavailable");
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test]
async fn f17_the_days_items_are_written_seldom() {
    let mut world = World::new().await;
    let mut leases = Vec::new();
    for request in 0..60 {
        world.served(&format!("fresh_{request}")).await;
        leases.push(world.leased(Pool::Everyone));
    }
    leases.dedup();
    assert!(leases.len() <= 5, "{} leases for 60 requests", leases.len());
    let day = Day::of(edge::clock::now());
    let kept = world.store.inner().kept();
    let Spending { told, .. } = kept.spendings[&(day, Pool::Trial)];
    assert_eq!(told, None);
}
