//! Keys that are fetched, against an HTTP server on this machine that does what a test says. Time is what a test says too.

use super::*;
use crate::PublishedKeys;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinSet, yield_now},
};

/// A cooldown, and how long a set is fresh and how long it may be stale: what the README promises, in milliseconds.
const COOLDOWN_MS: u64 = 5_000;
const FRESH_MS: u64 = 5 * 60_000;
const STALE_MS: u64 = 60 * 60_000;
const UNKNOWN_MS: u64 = 60_000;
const START_MS: u64 = NOW_S * 1_000;

/// Where keys are published.
#[derive(Clone)]
struct Publisher(Arc<State>);

struct State {
    port: u16,
    /// The whole of an answer; none: there never is one.
    answer: Mutex<Option<String>>,
    fetches: AtomicUsize,
    /// One permit for each answer that may be given.
    leave: Semaphore,
}

impl Publisher {
    /// A publisher of these keys, each of which goes by its id.
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    async fn start(keys: &[(&Pair, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            port: listener.local_addr().unwrap().port(),
            answer: Mutex::default(),
            fetches: AtomicUsize::new(0),
            leave: Semaphore::new(Semaphore::MAX_PERMITS),
        };
        let publisher = Self(Arc::new(state));
        publisher.publish(keys);
        let server = publisher.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(server.clone().serve(socket));
            }
        });
        publisher
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"GET /.well-known/jwks.json HTTP/1.1\r\n"), "{}", head.escape_ascii());
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        self.0.leave.acquire().await.unwrap().forget();
        let answer = self.0.answer.lock().unwrap().clone();
        match answer {
            // The client may have left.
            Some(answer) => drop(socket.write_all(answer.as_bytes()).await),
            None => std::future::pending().await,
        }
    }

    fn publish(&self, keys: &[(&Pair, &str)]) {
        let keys: Vec<_> = keys.iter().map(|(pair, id)| jwk(pair, id)).collect();
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    fn answer(&self, status: &str, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        *self.0.answer.lock().unwrap() = Some(head + body);
    }

    fn answer_raw(&self, answer: Option<&str>) {
        *self.0.answer.lock().unwrap() = answer.map(str::to_owned);
    }

    /// From now on, an answer needs leave.
    fn hold(&self) {
        self.0.leave.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn let_go(&self) {
        self.0.leave.add_permits(1_000);
    }

    fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    async fn fetched(&self, times: usize) {
        wait_for(|| self.fetches() >= times).await;
    }

    fn verifier(&self) -> Verifier {
        self.verifier_within(Duration::from_mins(1))
    }

    fn verifier_within(&self, timeout: Duration) -> Verifier {
        let url = format!("http://127.0.0.1:{}/.well-known/jwks.json", self.0.port);
        let keys = PublishedKeys::within(timeout, url.parse().unwrap(), http_client()).unwrap();
        Verifier::new(settings_of(Keys::Published(keys))).unwrap()
    }
}

/// Until it is so. A test that waits for what never comes fails instead of hanging.
#[track_caller]
fn wait_for(mut so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let waiting = async move {
        while !so() {
            yield_now().await;
        }
    };
    async move {
        let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        waited.unwrap_or_else(|_| panic!("it never came: {caller}"));
    }
}

/// A good token for a long time, that names this key.
fn token_by(pair: &Pair, id: &str) -> String {
    let claims = with(claims(), "exp", Some((NOW_S + 1_000_000).into()));
    let header = with(header(), "kid", Some(id.into()));
    token_of(&header.to_string(), &claims.to_string(), &pair.signing(), Algorithm::RS256)
}

/// A token that names a key which nobody publishes.
fn stray(number: usize) -> String {
    format!("{}.e30.AA", encode(&json!({"alg": "RS256", "kid": format!("ins_stray{number}")}).to_string()))
}

/// One verifier, and a time that passes when a test says so.
struct Visit {
    verifier: Verifier,
    now_ms: u64,
}

impl Visit {
    fn new(publisher: &Publisher) -> Self {
        Self { verifier: publisher.verifier(), now_ms: START_MS }
    }

    fn later(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self
    }

    #[track_caller]
    fn check(&self, token: &str, expected: Option<VerifyError>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let found = self.verifier.verify(token, Timestamp::from_ms(self.now_ms)).await.err();
            assert_eq!(found, expected, "at {} ms, {caller}", self.now_ms - START_MS);
        }
    }
}

const UNAVAILABLE: Option<VerifyError> = Some(VerifyError::Unavailable);

#[tokio::test]
async fn f27_a_hundred_requests_at_once_with_unknown_keys_cause_one_fetch() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    publisher.hold();
    let verifier = Arc::new(publisher.verifier());
    let begun = Arc::new(AtomicUsize::new(0));
    let mut requests = JoinSet::new();
    for number in 0..100 {
        let (verifier, begun) = (Arc::clone(&verifier), Arc::clone(&begun));
        // Half of them name a key that is not known yet either, but exists.
        let good = number % 2 == 0;
        let token = if good { token_by(pair(), KID) } else { stray(number) };
        requests.spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            let now = Timestamp::from_ms(START_MS + u64::try_from(number % 7).unwrap());
            (good, verifier.verify(&token, now).await)
        });
    }
    // All of them wait by now: this test has one thread, and each waits as soon as it has begun.
    wait_for(|| begun.load(Ordering::SeqCst) == 100).await;
    publisher.fetched(1).await;
    publisher.let_go();
    let mut seen = BTreeSet::new();
    while let Some(request) = requests.join_next().await {
        let (good, session) = request.unwrap();
        assert_eq!(session.err(), if good { None } else { refused(Rejection::KeyId) });
        seen.insert(good);
    }
    assert_eq!(seen.len(), 2);
    assert_eq!(publisher.fetches(), 1);
}

#[tokio::test]
async fn f27_a_hundred_requests_at_once_while_clerk_fails_cause_one_fetch() {
    let publisher = Publisher::start(&[]).await;
    publisher.answer("500 Internal Server Error", "");
    publisher.hold();
    let verifier = Arc::new(publisher.verifier());
    let begun = Arc::new(AtomicUsize::new(0));
    let mut requests = JoinSet::new();
    for number in 0..100 {
        let (verifier, begun) = (Arc::clone(&verifier), Arc::clone(&begun));
        requests.spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            verifier.verify(&stray(number), Timestamp::from_ms(START_MS)).await
        });
    }
    wait_for(|| begun.load(Ordering::SeqCst) == 100).await;
    publisher.fetched(1).await;
    publisher.let_go();
    while let Some(request) = requests.join_next().await {
        assert_eq!(request.unwrap().err(), UNAVAILABLE);
    }
    assert_eq!(publisher.fetches(), 1);
}

#[tokio::test]
async fn f27_unknown_keys_in_quick_succession_cause_one_fetch_in_a_cooldown() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    // The five in 2.8 s that were seen, then one each 100 ms for a minute.
    for number in 0..5 {
        visit.later(560).check(&stray(number), refused(Rejection::KeyId)).await;
    }
    assert_eq!(publisher.fetches(), 1);
    for number in 5..605 {
        visit.later(100).check(&stray(number), refused(Rejection::KeyId)).await;
    }
    let span_ms = visit.now_ms - START_MS;
    let most = usize::try_from(span_ms.div_ceil(COOLDOWN_MS)).unwrap();
    assert!((2..=most).contains(&publisher.fetches()), "{} in {span_ms} ms", publisher.fetches());
}

#[tokio::test]
async fn f27_one_unknown_key_is_remembered_as_such() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    visit.check(&stray(1), refused(Rejection::KeyId)).await;
    while visit.now_ms < START_MS + UNKNOWN_MS - 1_000 {
        visit.later(1_000).check(&stray(1), refused(Rejection::KeyId)).await;
    }
    assert_eq!(publisher.fetches(), 1);
    visit.later(1_000).check(&stray(1), refused(Rejection::KeyId)).await;
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test]
async fn f27_a_rotated_key_is_picked_up_and_the_old_one_is_refused() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    let (old, new) = (token_by(pair(), KID), token_by(other_pair(), "ins_new"));
    visit.check(&old, None).await;
    visit.later(COOLDOWN_MS).check(&new, refused(Rejection::KeyId)).await;
    publisher.publish(&[(pair(), KID), (other_pair(), "ins_new")]);
    // It was not there a moment ago, and that is remembered, for a minute at most.
    visit.later(UNKNOWN_MS).check(&new, None).await;
    visit.check(&old, None).await;
    assert_eq!(publisher.fetches(), 3);
    publisher.publish(&[(other_pair(), "ins_new")]);
    visit.later(FRESH_MS - 1).check(&old, None).await;
    assert_eq!(publisher.fetches(), 3);
    visit.later(1).check(&old, refused(Rejection::KeyId)).await;
    visit.check(&new, None).await;
    assert_eq!(publisher.fetches(), 4);
}

#[tokio::test]
async fn a_new_key_is_found_at_once_after_a_cooldown() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    visit.check(&token_by(pair(), KID), None).await;
    publisher.publish(&[(other_pair(), "ins_new")]);
    let new = token_by(other_pair(), "ins_new");
    visit.later(COOLDOWN_MS - 1).check(&new, refused(Rejection::KeyId)).await;
    visit.later(1).check(&new, None).await;
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test]
async fn while_clerk_does_not_answer_known_keys_are_used_for_an_hour_and_then_nobody_gets_in() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    let known = token_by(pair(), KID);
    visit.check(&known, None).await;
    publisher.answer("503 Service Unavailable", "");
    visit.later(FRESH_MS).check(&known, None).await;
    // Whether this one holds cannot be said: it may be newer than what is known.
    visit.check(&token_by(other_pair(), "ins_new"), UNAVAILABLE).await;
    assert_eq!(publisher.fetches(), 2);
    visit.later(STALE_MS - FRESH_MS - 1).check(&known, None).await;
    visit.later(1).check(&known, UNAVAILABLE).await;
    publisher.publish(&[(pair(), KID)]);
    visit.later(COOLDOWN_MS - 2).check(&known, UNAVAILABLE).await;
    visit.later(1).check(&known, None).await;
    assert_eq!(publisher.fetches(), 4);
}

#[tokio::test]
async fn who_has_a_known_key_waits_for_no_other_requests_fetch() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    let known = token_by(pair(), KID);
    visit.check(&known, None).await;
    publisher.hold();
    // Once by a key that is not known, once by one that is due.
    for (count, waiting, answer) in [(2, stray(1), refused(Rejection::KeyId)), (3, known.clone(), None)] {
        visit.later(FRESH_MS / 2);
        let (verifier, now_ms) = (visit.verifier.clone(), visit.now_ms);
        let mut requests = JoinSet::new();
        requests.spawn(async move { verifier.verify(&waiting, Timestamp::from_ms(now_ms)).await.err() });
        publisher.fetched(count).await;
        visit.later(if count == 3 { COOLDOWN_MS } else { 0 });
        assert!(verify_by(&visit.verifier, &known, visit.now_ms).is_ok());
        publisher.0.leave.add_permits(1);
        assert_eq!(requests.join_next().await.unwrap().unwrap(), answer);
        visit.later(FRESH_MS / 2);
    }
    assert_eq!(publisher.fetches(), 3);
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_fetches_leaves_no_one_waiting() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    publisher.hold();
    let mut visit = Visit::new(&publisher);
    let verifier = visit.verifier.clone();
    let token = token_by(pair(), KID);
    let now = Timestamp::from_ms(visit.now_ms);
    let mut second = pin!(verifier.verify(&token, now));
    {
        let mut first = pin!(verifier.verify(&token, now));
        tokio::select! {
            session = &mut first => panic!("nothing was answered: {session:?}"),
            () = publisher.fetched(1) => {}
        }
        let waits = second.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending(), "{waits:?}");
    }
    assert_eq!(second.await.err(), UNAVAILABLE);
    publisher.let_go();
    visit.later(COOLDOWN_MS - 1).check(&token, UNAVAILABLE).await;
    assert_eq!(publisher.fetches(), 1);
    visit.later(1).check(&token, None).await;
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test]
async fn what_is_not_a_key_set_lets_nobody_in_and_displaces_no_key() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let good = json!({"keys": [jwk(pair(), KID)]}).to_string();
    let other = json!({"keys": [jwk(other_pair(), "ins_new")]}).to_string();
    let long = format!("{}{}", " ".repeat(65_537 - good.len()), good);
    let endless =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10001\r\n{}", "x".repeat(65_537));
    let elsewhere =
        format!("302 Found\r\nlocation: http://127.0.0.1:{}/.well-known/jwks.json", publisher.0.port);
    for (number, (status, body)) in [
        ("500 Internal Server Error", good.as_str()),
        ("404 Not Found", good.as_str()),
        ("204 No Content", ""),
        (&elsewhere, good.as_str()),
        ("200 OK", ""),
        ("200 OK", "<html>"),
        ("200 OK", r#"{"keys":[]}"#),
        ("200 OK", &long),
        ("200 OK", &format!("{good}{good}")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut visit = Visit::new(&publisher);
        let before = publisher.fetches();
        publisher.answer(status, body);
        visit.check(&token_by(pair(), KID), UNAVAILABLE).await;
        publisher.answer("200 OK", &good);
        visit.later(COOLDOWN_MS).check(&token_by(pair(), KID), None).await;
        publisher.answer(status, body);
        visit.later(FRESH_MS).check(&token_by(pair(), KID), None).await;
        assert_eq!(publisher.fetches() - before, 3, "case {number}");
    }
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{\"keys\":[", &endless] {
        publisher.answer_raw(Some(answer));
        Visit::new(&publisher).check(&token_by(pair(), KID), UNAVAILABLE).await;
    }
    publisher.answer("200 OK", &other);
    Visit::new(&publisher).check(&token_by(pair(), KID), refused(Rejection::KeyId)).await;
}

#[tokio::test]
async fn a_set_as_long_as_may_be_is_read() {
    let publisher = Publisher::start(&[]).await;
    let good = json!({"keys": [jwk(pair(), KID)]}).to_string();
    publisher.answer("200 OK", &format!("{}{good}", " ".repeat(65_536 - good.len())));
    Visit::new(&publisher).check(&token_by(pair(), KID), None).await;
}

#[tokio::test]
async fn a_clerk_that_never_answers_is_not_waited_for() {
    let publisher = Publisher::start(&[]).await;
    // Never a head; and a head without its body.
    for answer in [None, Some("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")] {
        publisher.answer_raw(answer);
        publisher.hold();
        if answer.is_some() {
            publisher.let_go();
        }
        let verifier = publisher.verifier_within(Duration::from_millis(50));
        let token = token_by(pair(), KID);
        let session = verifier.verify(&token, Timestamp::from_ms(START_MS));
        let session = tokio::time::timeout(Duration::from_mins(1), session).await;
        assert_eq!(session.expect("it is not waited for").err(), UNAVAILABLE);
    }
}

#[tokio::test]
async fn what_cannot_be_a_token_of_clerks_causes_no_fetch() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let visit = Visit::new(&publisher);
    let of = |header: &Value| format!("{}.e30.AA", encode(&header.to_string()));
    for (header, why) in [
        (json!({"alg": "none", "kid": "x"}), Rejection::Algorithm),
        (json!({"alg": "RS384", "kid": "x"}), Rejection::AlgorithmNotOfKey),
        (json!({"alg": "RS256", "kid": "x", "typ": "JOSE"}), Rejection::Type),
        (json!({"alg": "RS256"}), Rejection::KeyId),
        (json!({"alg": "RS256", "kid": ""}), Rejection::KeyId),
        (json!({"alg": "RS256", "kid": ["x"]}), Rejection::KeyId),
    ] {
        visit.check(&of(&header), refused(why)).await;
    }
    visit.check("a.b.c", refused(Rejection::Malformed)).await;
    assert_eq!(publisher.fetches(), 0);
}

#[tokio::test]
async fn a_clock_that_is_set_back_neither_stops_fetches_nor_keeps_keys() {
    let publisher = Publisher::start(&[(pair(), KID)]).await;
    let mut visit = Visit::new(&publisher);
    visit.later(10 * STALE_MS).check(&token_by(pair(), KID), None).await;
    visit.now_ms = START_MS;
    publisher.publish(&[(other_pair(), "ins_new")]);
    visit.check(&token_by(pair(), KID), refused(Rejection::KeyId)).await;
    visit.check(&token_by(other_pair(), "ins_new"), None).await;
    assert_eq!(publisher.fetches(), 2);
}

#[test]
fn keys_come_by_a_safe_way_or_from_this_machine() {
    let at = |url: &str| PublishedKeys::at(url.parse().unwrap(), http_client()).is_ok();
    for url in
        ["https://clerk.example.com/k", "http://127.0.0.1:1/k", "http://localhost:1/k", "http://[::1]:1/k"]
    {
        assert!(at(url), "{url}");
    }
    for url in [
        "http://clerk.example.com/k",
        "http://localhost.example.com/k",
        "http://127.0.0.1.example.com/k",
        "http://127.0.0.1@example.com/k",
        "ftp://127.0.0.1/k",
        "file:///etc/passwd",
    ] {
        assert!(!at(url), "{url}");
    }
}
