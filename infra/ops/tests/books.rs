//! `ops reports` and `ops reconcile`, over a ledger in memory and a Stripe that counts what it is told.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; the helpers are part of it"
)]

use aws_sdk_eventbridge::config::{BehaviorVersion, Credentials, Region};
use bus::Bus;
use clap::Parser as _;
use domain::{
    Account, Classes, CustomerId, Demand, HoldId, ModelId, ModelPrice, PlanId, ReportRow, RowFate,
    SubscriptionId, Timestamp, Tokens, Usage, UserId,
};
use edge::plans::PlanBook;
use ledger::{Ledger, MemoryStore, MeterKey};
use ops::{Arguments, Command, Console, Exit, reconcile, reports};
use report::{Deps, Pace, StripeMeter};
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use stripe::testing::{Memory, Reply};
use stripe::{Secret, Settings, Stripe};

const START: Timestamp = Timestamp::from_s(1_800_000_000);
const HOUR_MS: u64 = 60 * 60 * 1_000;
const PERIOD: &str = "2027-01-15T08:00:00.000Z";

struct World {
    deps: Deps<MemoryStore>,
    store: MemoryStore,
    /// What Stripe has counted for everybody.
    counted: Arc<AtomicU64>,
    key: MeterKey,
    now: Timestamp,
}

/// What a command wrote, and how it ended.
struct Ended {
    out: String,
    err: String,
    exit: Exit,
    asked: usize,
}

fn summary(sum: u64) -> Reply {
    let summary = json!({"id": "mtrusg_1", "object": "billing.meter_event_summary", "aggregated_value": sum,
        "start_time": 0, "end_time": 60, "livemode": false, "meter": "mtr_1"});
    Reply::Answer(
        200,
        json!({"object": "list", "url": "/", "has_more": false, "data": [summary]}).to_string(),
    )
}

fn price() -> ModelPrice {
    let one = NonZeroU64::MIN;
    ModelPrice {
        model: ModelId::parse("m").unwrap(),
        version: 1,
        input: one,
        cached_input: one,
        cache_write: one,
        output: one,
        output_max: Tokens::from_u32(1_000),
        reasoning_effort: None,
    }
}

impl World {
    /// A user whose one row of 100 tokens ended with this fate, two hours ago.
    async fn new(fate: RowFate) -> Self {
        Self::with(fate, false).await
    }

    /// A user whose meter moves whenever Stripe is asked.
    async fn moving() -> Self {
        Self::with(RowFate::Accepted, true).await
    }

    async fn with(fate: RowFate, moves: bool) -> Self {
        let store = MemoryStore::new();
        let ledger = Ledger::new(store.clone(), PlanBook::built_in().unwrap().plans().clone());
        let counted = Arc::new(AtomicU64::new(0));
        let at_stripe = Arc::clone(&counted);
        let in_motion = store.clone();
        let memory = Memory::new(move |request| {
            if moves {
                in_motion.kept().meters.values_mut().for_each(|meter| meter.totals.requests += 1);
            }
            assert!(request.path.ends_with("/event_summaries"), "{}", request.path);
            std::future::ready(summary(at_stripe.load(Ordering::Relaxed)))
        });
        let settings = Settings { base_url: None, secret_key: Secret::new("sk_test_x") };
        let config = aws_sdk_eventbridge::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url("http://127.0.0.1:9")
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        let user = UserId::parse("user_1").unwrap();
        let key = MeterKey { user: user.clone(), period_start: START };
        settle_and_seal(&ledger, &user, &key, fate).await;
        let deps = Deps {
            ledger,
            stripe: Stripe::new(settings).unwrap().in_memory(memory),
            meter: StripeMeter { event_name: "tokens".into(), id: "mtr_1".into() },
            bus: Bus::new(aws_sdk_eventbridge::Client::from_conf(config), "bus".into()),
            pace: Pace::new(|_| 0, std::num::NonZeroU32::new(500).unwrap()),
            new_id: Box::new(|| HoldId::parse("lease").unwrap()),
        };
        Self { deps, store, counted, key, now: START.plus_ms(2 * HOUR_MS) }
    }

    async fn ops(&self, arguments: &[&str], live: bool, answer: Option<&str>) -> Ended {
        let arguments = Arguments::try_parse_from(std::iter::once(&"ops").chain(arguments)).unwrap();
        let (mut out, mut err, mut asked) = (Vec::new(), Vec::new(), 0);
        let mut ask = |_: &str| {
            asked += 1;
            answer.map(str::to_owned)
        };
        let global = &arguments.global;
        // Whoever is asked takes two minutes for the answer.
        let late_ms = AtomicU64::new(0);
        let mut ask = |question: &str| {
            late_ms.store(2 * 60_000, Ordering::Relaxed);
            ask(question)
        };
        let mut console = Console { out: &mut out, err: &mut err, ask: &mut ask };
        let now = || self.now.plus_ms(late_ms.load(Ordering::Relaxed));
        let exit = match &arguments.command {
            Command::Reports(command) => {
                let at = (
                    &now as &(dyn Fn() -> Timestamp + Sync),
                    (|| HoldId::parse("ops").unwrap()) as fn() -> HoldId,
                );
                reports::run(&self.deps.ledger, live, global, command, &mut console, at).await
            }
            Command::Reconcile(command) => {
                reconcile::run(&self.deps, live, global, command, &mut console, &now).await
            }
            other @ (Command::Setup(_) | Command::Adopt(_)) => panic!("{other:?}"),
        };
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { exit: exit.unwrap(), out: text(out), err: text(err), asked }
    }

    fn fates(&self) -> Vec<(RowFate, Option<String>)> {
        self.store.reports_of(&self.key).into_iter().map(|report| (report.fate, report.note)).collect()
    }
}

async fn settle_and_seal(ledger: &Ledger<MemoryStore>, user: &UserId, key: &MeterKey, fate: RowFate) {
    let bought = |account: &Account| {
        Some(Account {
            plan: PlanId::parse("pro").unwrap(),
            customer: Some(CustomerId::parse("cus_1").unwrap()),
            subscription: Some(SubscriptionId::parse("sub_1").unwrap()),
            anchor: START,
            ..account.clone()
        })
    };
    ledger.change_account(user, START, bought).await.unwrap();
    let tokens = Tokens::from_u32(100);
    let one = Tokens::from_u32(1);
    let demand = Demand { prompt_most: tokens, prompt_least: tokens, output_most: one, output_least: one };
    let new_id = || HoldId::parse("h1").unwrap();
    let hold = ledger.admit(user, &demand, &price(), HOUR_MS, &new_id, START).await.unwrap();
    let usage = Usage::Exact(Classes { input: tokens, ..Classes::default() });
    ledger.settle(hold, usage, &price(), START).await.unwrap();
    let (_, row) = ledger.seal(key, START).await.unwrap().unwrap();
    let note = (fate == RowFate::Parked).then_some("HTTP 400: no");
    ledger.finish(key, &row, fate, START, note).await.unwrap();
    ledger.clear(key).await.unwrap();
}

#[tokio::test]
async fn f10_what_is_parked_is_shown_with_stripes_reason_and_exit_code_4() {
    let world = World::new(RowFate::Parked).await;
    let ended = world.ops(&["reports", "list", "--parked"], false, None).await;
    assert_eq!(ended.exit.code(), 4);
    assert_eq!(ended.out, format!("user_1 {PERIOD} 0 parked 100 tokens cus_1 HTTP 400: no\n"));
    let ended = world.ops(&["reports", "list", "--user", "user_1", "--json"], false, None).await;
    assert_eq!(ended.exit, Exit::Done, "only --parked looks for something");
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&told["reports"][0]["note"], &told["complete"]), (&json!("HTTP 400: no"), &json!(true)));
    let quiet = World::new(RowFate::Accepted).await;
    let ended = quiet.ops(&["reports", "list", "--parked"], false, None).await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, ""));
}

#[tokio::test]
async fn f10_a_parked_report_is_retried_once() {
    let world = World::new(RowFate::Parked).await;
    let retry = ["reports", "retry", "user_1", PERIOD, "0"];
    assert_eq!(world.ops(&retry, false, None).await.exit, Exit::Done);
    assert_eq!(world.fates()[0].0, RowFate::Retried);
    let meter = world.store.kept().meters[&world.key].clone();
    let row = meter.pending.unwrap();
    assert_eq!((row.seq, row.tokens.get(), meter.parked.get(), meter.dirty), (1, 100, 0, true));
    let again = world.ops(&retry, false, None).await;
    assert_eq!((again.exit, again.err.as_str()), (Exit::Failed, "ops: that report is retried, not parked\n"));
}

#[tokio::test]
async fn a_parked_report_is_forgiven_with_the_reason_and_never_retried_after() {
    let world = World::new(RowFate::Parked).await;
    let forgive = ["reports", "forgive", "user_1", "1800000000", "0", "--reason", "our own test"];
    assert_eq!(world.ops(&forgive, false, None).await.exit, Exit::Done);
    assert_eq!(world.fates(), [(RowFate::Forgiven, Some("our own test".into()))]);
    assert_eq!(world.ops(&forgive, false, None).await.exit, Exit::Failed);
    let retry = world.ops(&["reports", "retry", "user_1", PERIOD, "0"], false, None).await;
    assert_eq!(retry.exit, Exit::Failed);
    let unknown = world.ops(&["reports", "retry", "user_1", PERIOD, "9"], false, None).await;
    assert_eq!((unknown.exit, unknown.err.as_str()), (Exit::Failed, "ops: there is no such report\n"));
}

#[tokio::test]
async fn nothing_live_is_moved_unless_it_is_confirmed() {
    let world = World::new(RowFate::Parked).await;
    let retry = ["reports", "retry", "user_1", PERIOD, "0"];
    for answer in [None, Some("no"), Some("y")] {
        let ended = world.ops(&retry, true, answer).await;
        assert_eq!((ended.exit.code(), ended.asked), (3, 1));
    }
    let repair = world.ops(&["reconcile", "--repair", "user_1", PERIOD], true, Some("no")).await;
    assert_eq!(repair.exit.code(), 3);
    assert_eq!(world.fates()[0].0, RowFate::Parked);
    let scripted = [retry.as_slice(), &["--yes"]].concat();
    let ended = world.ops(&scripted, true, None).await;
    assert_eq!((ended.exit, ended.asked), (Exit::Done, 0));
}

#[tokio::test]
async fn i2_books_that_agree_end_with_0_and_those_that_do_not_with_4() {
    let world = World::new(RowFate::Accepted).await;
    world.counted.store(100, Ordering::Relaxed);
    let ended = world.ops(&["reconcile"], false, None).await;
    assert_eq!(ended.exit.code(), 0, "{}{}", ended.out, ended.err);
    world.counted.store(0, Ordering::Relaxed);
    for arguments in [["reconcile", "--days", "34"].as_slice(), &["reconcile", "--user", "user_1"]] {
        let ended = world.ops(arguments, false, None).await;
        assert_eq!(ended.exit.code(), 4);
        let drift = format!(
            "user_1 {PERIOD} accepted_counted: 100, not 0\n    user_1-1800000000-0 accepted 100 tokens\n"
        );
        assert!(ended.out.starts_with(&drift), "{}", ended.out);
    }
    let ended = world.ops(&["reconcile", "--json"], false, None).await;
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told["drift"][0]["equations"][0]["equation"], "accepted_counted");
    assert_eq!(told["counts"]["drifted"], 1);
}

#[tokio::test]
async fn a_row_that_stripe_lacks_is_sent_again_as_another_when_it_is_asked_for() {
    let world = World::new(RowFate::Accepted).await;
    let repair = ["reconcile", "--repair", "user_1", PERIOD];
    let ended = world.ops(&repair, false, None).await;
    assert_eq!((ended.exit, world.fates()[0].0), (Exit::Done, RowFate::Retried), "{}", ended.out);
    let meter = world.store.kept().meters[&world.key].clone();
    assert_eq!(meter.pending.unwrap().tokens.get(), 100);
    let ended = world.ops(&repair, false, None).await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, "everything agrees\n"));
}

#[tokio::test]
async fn what_cannot_be_repaired_is_said_and_left_as_it_is() {
    let world = World::new(RowFate::Accepted).await;
    // Of the row's minute Stripe has something, but not what was sent.
    world.counted.store(40, Ordering::Relaxed);
    let ended = world.ops(&["reconcile", "--repair", "user_1", PERIOD], false, None).await;
    assert_eq!(ended.exit.code(), 4);
    assert!(ended.out.starts_with("this cannot be repaired here:\n"), "{}", ended.out);
    assert_eq!(world.fates()[0].0, RowFate::Accepted);
}

/// The row of a meter is on its way: attempted first and last so many hours ago, or never.
async fn on_its_way(attempted: Option<(u64, u64)>) -> World {
    let world = World::new(RowFate::Accepted).await;
    let mut kept = world.store.kept();
    let report = kept.reports.remove(&(world.key.clone(), 0)).unwrap();
    let before = |hours: u64| Timestamp::from_ms(START.ms() + (100 - hours) * HOUR_MS);
    let meter = kept.meters.get_mut(&world.key).unwrap();
    meter.pending = Some(ReportRow {
        seq: 0,
        customer: report.customer,
        identifier: report.identifier,
        tokens: report.tokens,
        timestamp: report.timestamp,
        first_attempt_at: attempted.map(|(first, _)| before(first)),
        last_attempt_at: attempted.map(|(_, last)| before(last)),
        fence: 0,
    });
    meter.dirty = true;
    drop(kept);
    World { now: START.plus_ms(100 * HOUR_MS), ..world }
}

#[tokio::test]
async fn a_report_on_its_way_is_shown_with_exit_code_4_once_it_takes_a_day() {
    let attempted = "user_1 2027-01-15T08:00:00.000Z 0 pending 100 tokens cus_1 of 2027-01-15T08:00:00.000Z, attempted \
                     since 2027-01-18T11:00:00.000Z, last at 2027-01-19T09:00:00.000Z\n";
    let never = "user_1 2027-01-15T08:00:00.000Z 0 pending 100 tokens cus_1 of 2027-01-15T08:00:00.000Z, never attempted\n";
    for (since, code, text) in
        [(Some((25, 3)), 4, Some(attempted)), (Some((24, 3)), 0, None), (None, 0, Some(never))]
    {
        let world = on_its_way(since).await;
        let ended = world.ops(&["reports", "list", "--pending"], false, None).await;
        assert_eq!(ended.exit.code(), code, "{since:?}");
        assert!(text.is_none_or(|text| ended.out == text), "{}", ended.out);
        let all = world.ops(&["reports", "list", "--json"], false, None).await;
        let told: Value = serde_json::from_str(&all.out).unwrap();
        assert_eq!((all.exit, &told["reports"][0]["fate"]), (Exit::Done, &json!("pending")));
        let parked = world.ops(&["reports", "list", "--parked"], false, None).await;
        assert_eq!((parked.exit, parked.out.as_str()), (Exit::Done, ""));
    }
}

#[tokio::test]
async fn f10_a_report_that_does_not_end_is_parked_by_a_persons_word_and_can_then_be_moved() {
    let world = on_its_way(Some((25, 3))).await;
    let park = ["reports", "park", "user_1", PERIOD, "0", "--reason", "not among the events"];
    let live = world.ops(&park, true, Some("no")).await;
    assert_eq!((live.exit, live.asked), (Exit::Refused, 1));
    let ended = world.ops(&park, false, None).await;
    assert_eq!(ended.exit, Exit::Done, "{}", ended.err);
    assert_eq!(world.fates(), [(RowFate::Parked, Some("not among the events".into()))]);
    let meter = world.store.kept().meters[&world.key].clone();
    assert_eq!((meter.pending, meter.parked.get()), (None, 100));
    let again = world.ops(&park, false, None).await;
    assert_eq!((again.exit, again.err.as_str()), (Exit::Refused, "ops: no such report is on its way\n"));
    let retry = world.ops(&["reports", "retry", "user_1", PERIOD, "0"], false, None).await;
    assert_eq!((retry.exit, world.fates()[0].0), (Exit::Done, RowFate::Retried));
}

#[tokio::test]
async fn f10_a_report_that_stripe_has_is_ended_as_what_was_found_and_stays_on_its_meter() {
    for (item, fate, note) in
        [(None, RowFate::Accepted, "counted"), (Some("ii_1"), RowFate::Invoiced, "ii_1: counted")]
    {
        let world = on_its_way(Some((25, 3))).await;
        let mut accept = vec!["reports", "accept", "user_1", PERIOD, "0", "--reason", "counted"];
        accept.extend(item.into_iter().flat_map(|item| ["--invoice-item", item]));
        let ended = world.ops(&accept, false, None).await;
        assert_eq!(ended.exit, Exit::Done, "{}", ended.err);
        assert_eq!(world.fates(), [(fate, Some(note.into()))]);
        let meter = world.store.kept().meters[&world.key].clone();
        let by_item = if item.is_some() { 100 } else { 0 };
        assert_eq!((meter.pending.as_ref(), meter.parked.get(), meter.invoiced.get()), (None, 0, by_item));
        assert_eq!(meter.on_stripes_meter().get(), 100 - by_item);
        world.counted.store(100 - by_item, Ordering::Relaxed);
        let ended = world.ops(&["reconcile", "--user", "user_1"], false, None).await;
        assert_eq!(ended.exit, Exit::Done, "{} {}", ended.out, ended.err);
        let again = world.ops(&accept, false, None).await;
        assert_eq!(again.exit, Exit::Refused);
    }
    // The same rules of age.
    let young = on_its_way(Some((23, 3))).await;
    let accept = ["reports", "accept", "user_1", PERIOD, "0", "--reason", "r"];
    assert_eq!(young.ops(&accept, false, None).await.exit, Exit::Refused);
}

#[tokio::test]
async fn a_lease_is_taken_when_the_answer_is_there_and_not_when_the_question_is_asked() {
    let world = on_its_way(Some((25, 3))).await;
    let (owner, until) = (HoldId::parse("run").unwrap(), world.now.plus_ms(60_000));
    let customer = CustomerId::parse("cus_1").unwrap();
    world.deps.ledger.take_lease(&customer, &owner, world.now, until).await.unwrap().unwrap();
    let park = ["reports", "park", "user_1", PERIOD, "0", "--reason", "r"];
    assert_eq!(world.ops(&park, true, Some("yes")).await.exit, Exit::Done, "the run's lease has run out");
    assert_eq!(world.store.reports_of(&world.key)[0].at, world.now.plus_ms(2 * 60_000));
}

#[tokio::test]
async fn a_report_that_may_yet_end_by_itself_is_not_parked() {
    let park = ["reports", "park", "user_1", PERIOD, "0", "--reason", "r"];
    let forced = [park.as_slice(), &["--force"]].concat();
    // Young; sent a moment ago; never sent; and a run is at it.
    for (attempted, with_force) in [(Some((23, 3)), true), (Some((30, 1)), false), (None, false)] {
        let world = on_its_way(attempted).await;
        assert_eq!(world.ops(&park, false, None).await.exit, Exit::Refused, "{attempted:?}");
        assert!(world.store.kept().meters[&world.key].pending.is_some());
        let ended = world.ops(&forced, false, None).await;
        assert_eq!(ended.exit == Exit::Done, with_force, "{attempted:?}: {}", ended.err);
    }
    let world = on_its_way(Some((25, 3))).await;
    let (owner, until) = (HoldId::parse("run").unwrap(), world.now.plus_ms(60_000));
    let customer = CustomerId::parse("cus_1").unwrap();
    let lease = world.deps.ledger.take_lease(&customer, &owner, world.now, until).await.unwrap().unwrap();
    assert_eq!(world.ops(&park, false, None).await.exit, Exit::Refused);
    assert_eq!(world.deps.ledger.drop_lease(&lease).await.unwrap(), ledger::Changed::Yes);
    // A run that was frozen finds the fence of whoever parks.
    assert_eq!(world.ops(&park, false, None).await.exit, Exit::Done);
    assert!(world.fates()[0].0 == RowFate::Parked);
}

#[tokio::test]
async fn what_cannot_be_compared_is_named_and_what_moves_is_not_taken_for_whole() {
    let world = World::new(RowFate::Accepted).await;
    world.counted.store(100, Ordering::Relaxed);
    world.store.kept().meters.get_mut(&world.key).unwrap().mixed = true;
    for arguments in [["reconcile"].as_slice(), &["reconcile", "--user", "user_1"]] {
        let ended = world.ops(arguments, false, None).await;
        let named = format!("user_1 {PERIOD} not comparable: its payer or its period has changed\n");
        assert!(ended.exit == Exit::Done && ended.out.starts_with(&named), "{}", ended.out);
    }
    let ended = world.ops(&["reconcile", "--json"], false, None).await;
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told["notComparable"], json!([{"user": "user_1", "periodStart": PERIOD}]));
    assert_eq!((&told["counts"]["incomparable"], &told["complete"]), (&json!(1), &json!(true)));
    let repair = world.ops(&["reconcile", "--repair", "user_1", PERIOD], false, None).await;
    assert!(
        repair.exit == Exit::Done && repair.out.contains("says nothing about this meter"),
        "{}",
        repair.out
    );

    let moving = World::moving().await;
    for arguments in [["reconcile"].as_slice(), &["reconcile", "--user", "user_1"]] {
        let ended = moving.ops(arguments, false, None).await;
        let named = format!("user_1 {PERIOD} moved each time it was read\n");
        assert!(ended.exit == Exit::Failed && ended.out.starts_with(&named), "{}", ended.out);
    }
}
