//! Who acts: users with requests, instances of the function that serve them, reporters, deliveries of webhooks, and people
//! who change what they pay for. All of them run the functions' own code.

use crate::simulation::{
    bus,
    clients::{Asked, Got, Habit, client},
    provider, repairs,
    scenario::{HOUR_MS, Kind, Mishap},
    store::SimStore,
    stripe::{self, PlanChange, Subscription},
    world::{Process, World},
};
use clerk::{Settings as ClerkSettings, Verifier, VerifyingKey};
use domain::{Account, HoldId, NanoUsd, SubscriptionId, Timestamp, Tokens, UserId};
use edge::{cors::Cors, models};
use generate::{
    budget::Ceilings,
    config::{Front, Menu},
    handler::{Generate, Outside},
};
use ledger::{Ledger, MeterKey};
use openai::{BaseUrl, Timeouts};
use report::{Deps, Pace, StripeMeter};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use webhook::sync::Accounts;

/// The reporter's, in milliseconds.
const REPORTER_MS: u64 = 15 * 60_000;
/// How long Stripe waits for a webhook's answer, in milliseconds.
const DELIVERY_MS: u64 = 20_000;
/// How long after its event a webhook is delivered first, in milliseconds.
const DELIVERED_AFTER_MS_MAX: u64 = 40_000;
/// How often a webhook is delivered before this counts as a violation.
const DELIVERIES_MAX: u32 = 400;
/// How often the reporter runs once nothing goes wrong any more, hourly: beyond the day that Stripe remembers.
const LAST_RUNS_MAX: u32 = 40;
/// Longer than the last write that is still on its way can take, and than every hold, in milliseconds.
const QUIET_MS: u64 = 2 * HOUR_MS;
/// The most that an answer may have, in tokens: close to the least that is worth asking for.
const OUTPUT_MAX: u32 = 150;

/// One process of the function, with what is warm in it.
pub(crate) struct Instance {
    pub(crate) process: Arc<Process>,
    ledger: Ledger<SimStore>,
    provider: openai::Client,
}

impl Instance {
    fn start(world: &Arc<World>, name: String) -> Arc<Self> {
        let process = world.process(name);
        let store = SimStore::new(world, &process);
        let ledger = Ledger::new(store, world.scenario.book.plans().clone());
        let settings = openai::Settings {
            base_url: BaseUrl::parse("http://127.0.0.1:1/v1").unwrap(),
            api_key: None,
            timeouts: Timeouts { first_token_ms: 20_000, idle_ms: 25_000 },
        };
        let provider =
            openai::Client::new(http_client(), settings).in_memory(provider::reached_by(world, &process));
        Arc::new(Self { process, ledger, provider })
    }

    pub(crate) fn generate(
        &self,
        world: &Arc<World>,
        request: u64,
        tried: Arc<AtomicU64>,
    ) -> Generate<SimStore> {
        let (clock, process) = (Arc::clone(world), Arc::clone(&self.process));
        let outside = Outside {
            now: Arc::new(move || clock.clock(&process)),
            new_id: Arc::new(move || {
                let number = tried.fetch_add(1, Ordering::Relaxed);
                HoldId::parse(&format!("{request}x{number}")).unwrap()
            }),
            chance: Arc::new(|_| 0),
        };
        let front = Front { keeps_answers: world.scenario.keeps_answers, ..front().clone() };
        Generate::new(self.ledger.clone(), self.provider.clone(), front, outside)
    }
}

fn http_client() -> reqwest::Client {
    static HTTP: OnceLock<reqwest::Client> = OnceLock::new();
    HTTP.get_or_init(|| edge::http::client().unwrap()).clone()
}

pub(crate) fn front() -> &'static Front {
    static FRONT: OnceLock<Front> = OnceLock::new();
    FRONT.get_or_init(|| {
        let prices = models::built_in().unwrap();
        let default = prices.iter().next().unwrap().clone();
        let origin = vec!["https://app.example.com".to_owned()];
        let settings = ClerkSettings {
            issuer: "https://clerk.example.com".to_owned(),
            keys: VerifyingKey::from_pem(include_str!("clerk_jwt_key.pem")).unwrap().into(),
            authorized_parties: origin.clone(),
        };
        let menu = Menu { prices, default, output_max: Tokens::from_u32(OUTPUT_MAX) };
        Front {
            verifier: Verifier::new(settings).unwrap(),
            cors: Cors::new(&origin).unwrap(),
            menu,
            keeps_answers: true,
            portal_url: None,
            // Nobody is to be turned away for it here; that no call is made which it does not cover is asked at rest.
            ceilings: Ceilings { everyone: NanoUsd::of_usd(1_000_000), trial: NanoUsd::of_usd(1_000_000) },
        }
    })
}

/// The processes that serve requests: one that died is replaced by the next request.
pub(crate) struct Fleet(Mutex<Vec<Arc<Instance>>>, AtomicU64);

impl Fleet {
    fn new(world: &Arc<World>) -> Self {
        let fleet = Self(Mutex::default(), AtomicU64::new(0));
        let instances = (0..world.scenario.instances).map(|_| fleet.start(world)).collect();
        *fleet.0.lock().unwrap() = instances;
        fleet
    }

    fn start(&self, world: &Arc<World>) -> Arc<Instance> {
        Instance::start(world, format!("generate-{}", self.1.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn any(&self, world: &Arc<World>) -> Arc<Instance> {
        let slot = world.with(|inner| inner.dice.below(world.scenario.instances));
        let slot = usize::try_from(slot).unwrap();
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot].clone();
        if !current.process.is_dead() {
            return current;
        }
        let fresh = self.start(world);
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot] = Arc::clone(&fresh);
        fresh
    }
}

pub(crate) fn user(number: u64) -> UserId {
    UserId::parse(&format!("user_{number}")).unwrap()
}

/// One run of the reporter.
async fn report(world: Arc<World>, name: String) {
    let process = world.process(name.clone());
    let store = SimStore::new(&world, &process);
    let leases = AtomicU64::new(0);
    let deps = Deps {
        ledger: Ledger::new(store, world.scenario.book.plans().clone()),
        stripe: stripe::reached_by(&world, &process),
        meter: StripeMeter { event_name: stripe::EVENT_NAME.into(), id: stripe::METER.into() },
        bus: bus::bus(),
        pace: Pace::with_jitter(|most_ms| most_ms / 2),
        new_id: Box::new(move || {
            let number = leases.fetch_add(1, Ordering::Relaxed);
            HoldId::parse(&format!("{name}-{number}")).unwrap()
        }),
    };
    let deadline = world.clock(&process).plus_ms(REPORTER_MS);
    let run = reporter::run::run(&deps, deadline, || world.clock(&process));
    if let Ok(report) = timeout(Duration::from_millis(REPORTER_MS), run).await {
        count(&world, &report);
    }
    process.kill();
}

fn count(world: &World, report: &report::Report) {
    let figures = [
        (u64::from(report.swept), "reporter: swept holds"),
        (u64::from(report.parked), "reporter: parked a row"),
        (u64::from(report.reconciled), "reporter: reconciled a row"),
        (u64::from(report.unclear), "reporter: found a row unclear"),
        (u64::from(report.already_existed), "reporter: heard that a row existed"),
        (u64::from(report.accepted), "reporter: accepted a row"),
        (u64::from(report.late), "reporter: found a row late"),
        (u64::from(report.invoiced), "reporter: billed a late row"),
        (u64::from(report.failed), "reporter: left a meter for later"),
    ];
    for (figure, what) in figures {
        if figure > 0 {
            world.saw(what);
        }
    }
}

/// A delivery of Stripe's, some time after the event, repeated until it is taken. `told_at`: when Stripe told of other prices, if that is
/// what it tells of.
async fn deliver(world: Arc<World>, subscription: String, told_at: Option<Timestamp>) {
    let after_ms = world.with(|inner| if inner.calm { 0 } else { inner.dice.below(DELIVERED_AFTER_MS_MAX) });
    sleep(Duration::from_millis(after_ms)).await;
    let id = SubscriptionId::parse(&subscription).unwrap();
    for tried in 0..DELIVERIES_MAX {
        let process = world.process(format!("webhook-{subscription}-{tried}"));
        let book = world.scenario.book.clone();
        let ledger = Ledger::new(SimStore::new(&world, &process), book.plans().clone());
        let accounts = Accounts::new(ledger, stripe::reached_by(&world, &process), book);
        let now = world.clock(&process);
        let sync = accounts.sync(&id, told_at.unwrap_or(now), now);
        let outcome = timeout(Duration::from_millis(DELIVERY_MS), sync).await;
        process.kill();
        if let Ok(Ok(_)) = outcome {
            return;
        }
        sleep(Duration::from_millis(
            world.with(|inner| inner.dice.between(500, 20_000 + 60_000 * u64::from(tried))),
        ))
        .await;
    }
    world.violated(format!("a webhook of {subscription} was never taken"));
}

/// Somebody changes what they pay for, or may spend.
async fn change(world: Arc<World>, number: u64, user: UserId) {
    let now = world.now();
    let own =
        |subscription: &&mut Subscription| subscription.user == user.as_str() && subscription.ended.is_none();
    let what = world.with(|inner| inner.dice.below(7));
    if what >= 5 {
        return set_spend_cap(world, number, user).await;
    }
    let (subscription, repriced) = world.with(|inner| {
        let all = &mut inner.stripe.subscriptions;
        let active = all.iter_mut().find(|(_, subscription)| own(subscription));
        if let Some((id, subscription)) = active {
            let plans = subscription.plans.len();
            if what < 2 {
                subscription.ended = Some(now.floor_s());
            } else if what == 4 {
                subscription.debt = if subscription.debt.is_some() { None } else { Some(now.floor_s()) };
                *inner.seen.entry("an invoice was not paid, or was after all").or_default() += 1;
            } else if subscription.plans.last().unwrap().since < now.floor_s() {
                let plan = if subscription.plan() == "pro" { "team" } else { "pro" };
                subscription.plans.push(PlanChange { since: now.floor_s(), at: now, plan });
                *inner.seen.entry("a plan changed").or_default() += 1;
            }
            return (id.clone(), subscription.plans.len() > plans);
        }
        let id = format!("sub_{number}");
        let plan = inner.dice.pick(&["pro", "pro", "team"]);
        let new = Subscription::new(&user, format!("cus_{user}_{}", number % 2), now.floor_s(), plan);
        all.insert(id.clone(), new);
        (id, false)
    });
    let told_at = repriced.then(|| now.floor_s());
    world.trace(|| format!("{user} changes {subscription}"));
    if world.happens(Mishap::EventTwice) {
        let (again, subscription) = (Arc::clone(&world), subscription.clone());
        tokio::join!(deliver(again, subscription.clone(), told_at), deliver(world, subscription, told_at));
    } else {
        deliver(world, subscription, told_at).await;
    }
}

async fn set_spend_cap(world: Arc<World>, number: u64, user: UserId) {
    let process = world.process(format!("account-{number}"));
    let ledger = Ledger::new(SimStore::new(&world, &process), world.scenario.book.plans().clone());
    let own = world.with(|inner| inner.dice.in_thousand(700).then(|| inner.dice.between(500, 8_000)));
    let spend_cap = own.map(|tokens| Tokens::new(tokens).unwrap());
    let change = |account: &Account| {
        (account.spend_cap != spend_cap).then(|| Account { spend_cap, ..account.clone() })
    };
    let committed = |world: &World| {
        let kept = world.store.kept();
        let current = kept.accounts.get(&user).map(|account| account.current);
        let key = current.map(|period_start| MeterKey { user: user.clone(), period_start });
        key.and_then(|key| kept.meters.get(&key)).map_or(Tokens::ZERO, |meter| meter.committed)
    };
    if spend_cap.is_some_and(|cap| cap < committed(&world)) {
        world.saw("a spend cap below what is used and held");
    }
    let changed = ledger.change_account(&user, world.clock(&process), change);
    drop(timeout(Duration::from_millis(DELIVERY_MS), changed).await);
    process.kill();
}

/// Those who have subscribed before it begins.
pub(crate) async fn set_up(world: &Arc<World>) {
    for number in 0..world.scenario.users {
        let (subscribed, late_ms) =
            world.with(|inner| (inner.dice.in_thousand(600), inner.dice.below(60_000)));
        let anchor = world.scenario.anchor.plus_ms(late_ms).floor_s();
        let user = user(number);
        if subscribed {
            let id = format!("sub_first_{number}");
            let customer = format!("cus_{user}");
            let new = Subscription::new(&user, customer, anchor, "pro");
            world.with(|inner| inner.stripe.subscriptions.insert(id.clone(), new));
            deliver(Arc::clone(world), id, None).await;
        } else if matches!(world.scenario.kind, Kind::Rollover | Kind::Late) {
            let process = world.process(format!("set-up-{number}"));
            let ledger = Ledger::new(SimStore::new(world, &process), world.scenario.book.plans().clone());
            let since =
                |account: &Account| (account.anchor != anchor).then(|| Account { anchor, ..account.clone() });
            ledger.change_account(&user, world.now(), since).await.unwrap();
        }
    }
}

/// Everything that happens while things go wrong.
pub(crate) async fn drive(world: &Arc<World>) -> Vec<(Asked, Got)> {
    let scenario = &world.scenario;
    let fleet = Arc::new(Fleet::new(world));
    let (mut requests, mut others) = (JoinSet::new(), JoinSet::new());
    let mut burst_ms = 0;
    for number in 0..scenario.requests {
        let (at_ms, whose) = world.with(|inner| {
            if inner.dice.in_thousand(350) {
                let within_ms =
                    if inner.dice.in_thousand(800) { scenario.busy_ms } else { scenario.active_ms };
                burst_ms = inner.dice.below(within_ms);
            }
            (burst_ms + inner.dice.below(8_000), inner.dice.below(scenario.users))
        });
        let habit = Habit::draw(world, number, user(whose), at_ms);
        let (world, fleet) = (Arc::clone(world), Arc::clone(&fleet));
        requests.spawn(async move {
            sleep(Duration::from_millis(at_ms)).await;
            client(world, fleet, number, habit).await
        });
    }
    for number in 0..scenario.changes {
        let (at_ms, whose) = world.with(|inner| {
            let within_ms = if inner.dice.in_thousand(700) { scenario.busy_ms } else { scenario.active_ms };
            (inner.dice.below(within_ms), inner.dice.below(scenario.users))
        });
        let world = Arc::clone(world);
        others.spawn(async move {
            sleep(Duration::from_millis(at_ms)).await;
            change(world, number, user(whose)).await;
        });
    }
    for (what, count) in [scenario.repairs, scenario.imports, scenario.leases].into_iter().enumerate() {
        for number in 0..count {
            let (at_ms, whose) =
                world.with(|inner| (inner.dice.below(scenario.active_ms), inner.dice.below(scenario.users)));
            let (world, user) = (Arc::clone(world), user(whose));
            others.spawn(async move {
                sleep(Duration::from_millis(at_ms)).await;
                match what {
                    0 => repairs::repair(world, number, user).await,
                    1 => repairs::import(world, number, user).await,
                    _ => repairs::lease(world, number, user).await,
                }
            });
        }
    }
    for number in 0..scenario.active_ms / scenario.report_every_ms {
        let twice = world.with(|inner| inner.dice.in_thousand(scenario.rate(Mishap::TwoReporters)));
        let late_ms = world.with(|inner| inner.dice.below(3_000));
        for (second, _) in [(false, true), (true, twice)].into_iter().filter(|(_, runs)| *runs) {
            let at_ms = (number + 1) * scenario.report_every_ms + if second { late_ms } else { 0 };
            let world = Arc::clone(world);
            others.spawn(async move {
                sleep(Duration::from_millis(at_ms)).await;
                if second {
                    world.saw(Mishap::TwoReporters.name());
                }
                report(world, format!("reporter-{number}{}", if second { "b" } else { "" })).await;
            });
        }
    }
    let requests = requests.join_all().await.into_iter().flatten().collect();
    sleep(Duration::from_millis(scenario.active_ms.saturating_sub(world.ms()))).await;
    world.with(|inner| inner.calm = true);
    world.trace(|| "nothing goes wrong any more".into());
    others.join_all().await;
    requests
}

/// Until nothing is under way any more.
pub(crate) async fn come_to_rest(world: &Arc<World>) {
    sleep(Duration::from_millis(QUIET_MS)).await;
    for number in 0..LAST_RUNS_MAX {
        report(Arc::clone(world), format!("last-reporter-{number}")).await;
        sleep(Duration::from_millis(HOUR_MS)).await;
        let clean = world.store.kept().meters.values().all(|meter| !meter.dirty);
        if clean {
            return;
        }
    }
}
