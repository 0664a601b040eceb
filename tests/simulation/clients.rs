//! The users' side: requests with and without an idempotency key, repeats of them, wishes to stop, and what is heard of it.

use crate::simulation::{
    actors::{Fleet, front},
    checks,
    dice::Dice,
    keys,
    scenario::{HOUR_MS, Mishap},
    store::SimStore,
    world::World,
};
use domain::{Demand, Digest, HoldId, Timestamp, UserId};
use edge::drain::Drain;
use generate::{
    generation::{self, Repeatable},
    parse::{self, Wish},
    pump::Deadlines,
    wire::{AnswerBody, Protocol},
};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt;
use ledger::{Ledger, OfKey};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The function's time-out, in milliseconds.
pub(crate) const FUNCTION_MS: u64 = 60_000;
/// How long a claim lives without its owner, in milliseconds: the function's time-out and what a hold lives beyond it.
pub(crate) const CLAIM_MS: u64 = FUNCTION_MS + 15_000;
/// How long a client waits for its wish to stop to be taken, in milliseconds.
const STOP_MS: u64 = 20_000;
/// The most repeats of a request, not counting those that are sent at once with another.
const REPEATS_MAX: u64 = 4;
/// The most repeats that are sent at once.
const AT_ONCE_MAX: u64 = 3;
/// The latest that one is sent, in milliseconds: after its key is forgotten.
const LATE_MS_MAX: u64 = 30 * HOUR_MS;

/// An idempotency key and the body that it is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) name: u64,
    pub(crate) body: u64,
}

impl Key {
    /// The digests by which the function knows it. What is digested is the handler's.
    fn repeatable(self) -> Repeatable {
        Repeatable { key: digest(self.name), body: digest(self.body) }
    }

    pub(crate) fn digest(self) -> Digest {
        digest(self.name)
    }
}

fn digest(number: u64) -> Digest {
    let mut bytes = [0; Digest::BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Digest::new(bytes)
}

/// What is known of every request that was sent, from its beginning on.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    requests: BTreeMap<u64, Request>,
    next: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) user: UserId,
    pub(crate) key: Option<Key>,
    pub(crate) begun_ms: u64,
    /// When its invocation ended by itself; none while it is at work, and of one that died.
    pub(crate) ended_ms: Option<u64>,
    /// The id of its message, once its client has heard it.
    message: Option<HoldId>,
}

impl Sent {
    pub(crate) fn get(&self, number: u64) -> &Request {
        &self.requests[&number]
    }

    /// All others of the same user with the same key.
    pub(crate) fn others(&self, number: u64) -> impl Iterator<Item = (u64, &Request)> {
        let own = self.get(number);
        let name = own.key.map(|key| key.name);
        let same = move |request: &Request| {
            name.is_some() && request.key.map(|key| key.name) == name && request.user == own.user
        };
        self.requests
            .iter()
            .filter(move |(other, request)| **other != number && same(request))
            .map(|(n, r)| (*n, r))
    }
}

/// One request, as it was made.
pub(crate) struct Asked {
    pub(crate) number: u64,
    pub(crate) user: UserId,
    pub(crate) demand: Demand,
    /// By the clock of the process that served it.
    pub(crate) now: Timestamp,
    /// How many states of the user there had been.
    pub(crate) history_from: usize,
    /// How many ids were tried.
    pub(crate) tried: Arc<AtomicU64>,
    /// How often the store failed the process meanwhile.
    pub(crate) store_failures: u64,
    /// Whether the process died or was killed before the invocation had ended.
    pub(crate) died: bool,
}

/// What came of it.
pub(crate) enum Got {
    Refused { code: String, receipt: Option<String> },
    Stream(Heard),
    Nothing,
}

/// How a message ended, for whoever read all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finish,
    Error,
    Abort,
    /// It was not read to its end.
    Unheard,
}

/// What a client read.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) message: Option<String>,
    pub(crate) ending: Ending,
    pub(crate) replayed: bool,
    /// What the message says of its receipt: its id, and what it charges.
    pub(crate) told: Option<(String, u64)>,
}

/// When a request is repeated, in milliseconds.
#[derive(Clone, Copy)]
enum When {
    /// After its beginning.
    Begun(u64),
    /// After its end.
    Ended(u64),
}

#[derive(Clone, Copy)]
struct Repeat {
    when: When,
    /// How many at once.
    times: u64,
    other_body: bool,
}

#[derive(Clone, Copy)]
struct Stop {
    /// After the request's beginning.
    after_ms: u64,
    by_key: bool,
    twice: bool,
}

/// What a client does about one thing that it wants.
pub(crate) struct Habit {
    pub(crate) user: UserId,
    key: Option<Key>,
    repeats: Vec<Repeat>,
    stop: Option<Stop>,
    /// How long the provider takes for each piece of it, in milliseconds.
    pace_ms: u64,
}

impl Habit {
    pub(crate) fn draw(world: &World, number: u64, user: UserId, at_ms: u64) -> Self {
        let scenario = &world.scenario;
        let left_ms = scenario.active_ms.saturating_sub(at_ms).clamp(1_000, LATE_MS_MAX);
        world.with(|inner| {
            let dice = &mut inner.dice;
            // Now and then a client takes a key for two things.
            let name = if dice.in_thousand(100) { number.saturating_sub(1) } else { number };
            let key = dice.in_thousand(scenario.keyed).then_some(Key { name, body: number * 2 });
            let repeats = if key.is_some() { dice.between(0, REPEATS_MAX) } else { 0 };
            let repeats = (0..repeats)
                .map(|_| Repeat {
                    when: when(left_ms, dice),
                    times: if dice.in_thousand(300) { dice.between(2, AT_ONCE_MAX) } else { 1 },
                    other_body: dice.in_thousand(100),
                })
                .collect();
            let stop = dice.in_thousand(scenario.stopped).then(|| {
                let most_ms = dice.pick(&[1_500, 5_000, 5_000, 40_000]);
                Stop {
                    after_ms: dice.below(most_ms),
                    by_key: key.is_some() && dice.in_thousand(500),
                    twice: dice.in_thousand(300),
                }
            });
            let pace_ms = match (stop, key) {
                (Some(_), _) => dice.pick(&[0, 400, 1_500, 3_000]),
                (None, Some(_)) => dice.pick(&[0, 0, 0, 800]),
                (None, None) => 0,
            };
            Self { user, key, repeats, stop, pace_ms }
        })
    }
}

fn when(left_ms: u64, dice: &mut Dice) -> When {
    match dice.below(6) {
        0 => When::Begun(dice.below(2_000)),
        1 => When::Begun(dice.below(FUNCTION_MS)),
        2 | 3 => When::Ended(dice.below(3_000)),
        // About when a claim that nobody ends is out of time.
        4 => When::Begun(CLAIM_MS - 3_000 + dice.below(20_000)),
        _ => When::Begun(dice.below(left_ms)),
    }
}

/// A request, its repeats and the wish to stop it.
pub(crate) async fn client(
    world: Arc<World>,
    fleet: Arc<Fleet>,
    number: u64,
    habit: Habit,
) -> Vec<(Asked, Got)> {
    let Habit { user, key, repeats, stop, pace_ms } = habit;
    world.with(|inner| {
        inner.sent.next = inner.sent.next.max(world.scenario.requests);
        inner.calls.pace(number, pace_ms);
    });
    let ended = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for repeat in repeats {
        for _ in 0..repeat.times {
            let (world, fleet, user, ended) =
                (Arc::clone(&world), Arc::clone(&fleet), user.clone(), ended.clone());
            tasks.spawn(async move {
                match repeat.when {
                    When::Begun(ms) => sleep(Duration::from_millis(ms)).await,
                    When::Ended(ms) => {
                        ended.cancelled().await;
                        sleep(Duration::from_millis(ms)).await;
                    }
                }
                let number = world.with(|inner| {
                    let next = inner.sent.next;
                    inner.sent.next += 1;
                    inner.calls.pace(next, pace_ms);
                    next
                });
                let other = u64::from(repeat.other_body);
                let key = key.map(|key| Key { body: key.body + other, ..key });
                Some(request(world, fleet, number, user, key).await)
            });
        }
    }
    if let Some(stop) = stop {
        let (world, user) = (Arc::clone(&world), user.clone());
        tasks.spawn(async move {
            for time in 0..=u64::from(stop.twice) {
                sleep(Duration::from_millis(stop.after_ms)).await;
                wish_to_stop(&world, number, time, &user, key.filter(|_| stop.by_key)).await;
            }
            None
        });
    }
    let first = request(world, fleet, number, user, key).await;
    ended.cancel();
    let mut all = vec![first];
    all.extend(tasks.join_all().await.into_iter().flatten());
    all
}

/// A user presses Stop: by the key, or by the message's id where that has been heard.
async fn wish_to_stop(world: &Arc<World>, number: u64, time: u64, user: &UserId, key: Option<Key>) {
    let process = world.short_process(format!("stop-{number}-{time}"));
    let ledger = Ledger::new(SimStore::new(world, &process), world.scenario.book.plans().clone());
    let stop = async {
        let id = match key {
            Some(key) => match ledger.of_key(user, key.digest()).await {
                Ok(OfKey::Hold(id)) => Some(id),
                Ok(OfKey::NotYetAdmitted | OfKey::Nothing) | Err(_) => None,
            },
            None => world.with(|inner| inner.sent.requests.get(&number)?.message.clone()),
        };
        match id {
            Some(id) => drop(ledger.stop(user, &id, world.clock(&process)).await),
            None => world.saw("stop: nothing to stop yet"),
        }
    };
    drop(timeout(Duration::from_millis(STOP_MS), stop).await);
    process.kill();
}

fn wish(world: &World, request: u64) -> Wish {
    let length = world.with(|inner| inner.dice.pick(&[1, 50, 300]));
    let prompt = format!("request-{request}; {}", "make it shine ".repeat(length));
    let body = serde_json::json!({"prompt": prompt, "type": "rewrite"}).to_string();
    let json = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    parse::parse(&json, body.as_bytes(), &front().menu).unwrap()
}

/// One request from its beginning to where its invocation ends, or is ended.
async fn request(
    world: Arc<World>,
    fleet: Arc<Fleet>,
    number: u64,
    user: UserId,
    key: Option<Key>,
) -> (Asked, Got) {
    let instance = fleet.any(&world);
    let process = Arc::clone(&instance.process);
    let tried = Arc::new(AtomicU64::new(0));
    let generate = instance.generate(&world, number, Arc::clone(&tried));
    let failures_before = process.failures();
    let wish = wish(&world, number);
    let now = world.clock(&process);
    let history = world.with(|inner| inner.journal.history.get(&user).map_or(0, Vec::len));
    // The last state before the request began is the first that it can see.
    let history_from = history.saturating_sub(1);
    let demand = generate.demand(&wish, &wish.question());
    let mut asked = Asked { number, user, demand, now, history_from, tried, store_failures: 0, died: false };
    let deadlines = Deadlines::of(Some(now.plus_ms(FUNCTION_MS)), now).unwrap();
    let user = asked.user.clone();
    let begun_ms = world.ms();
    let sent = Request { user: user.clone(), key, begun_ms, ended_ms: None, message: None };
    world.with(|inner| inner.sent.requests.insert(number, sent));
    let repeatable = key.map(Key::repeatable);
    let wanted = generation::Asked { user, wish, protocol: Protocol::UiMessage, repeatable };
    let drain = Drain::new();
    let invocation = async {
        let answer = generate.generate(&wanted, deadlines, &drain, now).await;
        let got = match answer {
            Ok(answer) => listen(&world, number, answer).await,
            Err(problem) => {
                let body = problem.into_response::<String>().into_body();
                let body: Value = serde_json::from_str(&body).unwrap();
                let code = body["code"].as_str().unwrap().to_owned();
                world.trace(|| format!("request {number} is refused: {code}"));
                world.saw(refused(&code));
                checks::refusal_is_exact(&world, &asked, &body);
                Got::Refused { code, receipt: body["receipt"].as_str().map(str::to_owned) }
            }
        };
        drain.drained().await;
        got
    };
    let ended = timeout(Duration::from_millis(FUNCTION_MS), invocation).await;
    if ended.is_err() && !process.is_dead() {
        world.violated(format!("F8: request {number} was still at work at its function's deadline"));
        process.kill();
    }
    asked.store_failures = process.failures() - failures_before;
    asked.died = process.is_dead();
    if !asked.died {
        let ms = world.ms();
        world.with(|inner| inner.sent.requests.get_mut(&number).unwrap().ended_ms = Some(ms));
    }
    (asked, ended.unwrap_or(Got::Nothing))
}

fn refused(code: &str) -> &'static str {
    match code {
        "quota_exceeded" => "refused: quota_exceeded",
        "spend_cap_reached" => "refused: spend_cap_reached",
        "quota_held" => "refused: quota_held",
        "past_due" => "refused: past_due",
        "concurrency" => "refused: concurrency",
        "rate_limited" => "refused: rate_limited",
        "store_unavailable" => "refused: store_unavailable",
        "provider_unavailable" => "refused: provider_unavailable",
        "in_progress" => "refused: in_progress",
        "already_answered" => "refused: already_answered",
        "idempotency_key_reused" => "refused: idempotency_key_reused",
        _ => "refused: otherwise",
    }
}

/// A client that reads, slowly, or leaves.
async fn listen(world: &World, number: u64, answer: Response<AnswerBody>) -> Got {
    keys::status_is_due(world, number, answer.headers().contains_key("idempotency-replayed"));
    let leaves = world.happens(Mishap::ClientLeaves);
    let stalls = world.happens(Mishap::ClientStalls);
    let patience = world.with(|inner| inner.dice.below(8));
    let mut body = answer.into_body();
    let (mut read, mut stream) = (0, String::new());
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(bytes) = frame.into_data() {
            stream.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        if read == 0 {
            let message = heard(&stream).message.and_then(|id| HoldId::parse(&id).ok());
            world.with(|inner| inner.sent.requests.get_mut(&number).unwrap().message = message);
        }
        read += 1;
        if leaves && read > patience {
            return Got::Stream(heard(&stream));
        }
        if stalls {
            sleep(Duration::from_millis(700)).await;
        }
    }
    let heard = heard(&stream);
    if heard.ending == Ending::Unheard {
        world.violated("F28: a stream ended without finish and without error".into());
    }
    Got::Stream(heard)
}

fn heard(stream: &str) -> Heard {
    let mut heard =
        Heard { text: String::new(), message: None, ending: Ending::Unheard, replayed: false, told: None };
    for chunk in stream.split_terminator("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
        let Ok(chunk) = serde_json::from_str::<Value>(chunk) else { continue };
        match chunk["type"].as_str() {
            Some("start") => heard.message = chunk["messageId"].as_str().map(str::to_owned),
            Some("text-delta") => heard.text.push_str(chunk["delta"].as_str().unwrap()),
            Some("message-metadata") => {
                let metadata = &chunk["messageMetadata"];
                heard.replayed = metadata["replayed"] == true;
                let receipt = metadata["receipt"].as_str().map(str::to_owned);
                heard.told = receipt.zip(metadata["charged"].as_u64());
            }
            Some("finish") => heard.ending = Ending::Finish,
            Some("error") => heard.ending = Ending::Error,
            Some("abort") => heard.ending = Ending::Abort,
            _ => {}
        }
    }
    heard
}

impl Asked {
    /// The number of its last attempt to be admitted.
    pub(crate) fn last_tried(&self) -> Option<u64> {
        self.tried.load(Ordering::Relaxed).checked_sub(1)
    }
}
