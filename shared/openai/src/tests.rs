//! The client against a provider that is a bare socket, so that each test says byte for byte what comes and when.

use crate::{
    ApiKey, BaseUrl, CallError, ChatRequest, ChatStream, Client, Event, FinishReason, Settings, Speaker,
    StreamError, Timeouts, Turn, estimate,
    request::tests::{model, turn},
};
use domain::{ModelPrice, Tokens};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{self, Instant},
};

const FIRST_TOKEN_MS: u64 = 60_000;
const IDLE_MS: u64 = 20_000;
const SYSTEM: &str = "the secret system";
const USER: &str = "the secret prompt";
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#;
const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":3}}"#;

fn delta(text: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"usage":null}}"#)
}

/// The provider's side of one connection, its request read.
struct Peer {
    socket: TcpStream,
    request: String,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            let text = String::from_utf8(bytes.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    return Self { socket, request: text };
                }
            }
            let read = socket.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the client left before its request was complete");
            bytes.extend_from_slice(&buffer[..read]);
        }
    }

    async fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    /// One piece of a chunked body.
    async fn piece(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    async fn event(&mut self, data: &str) {
        self.piece(&format!("data: {data}\n\n")).await;
    }

    async fn end(&mut self) {
        self.write("0\r\n\r\n").await;
    }
}

struct Provider {
    listener: TcpListener,
    client: Client,
    model: ModelPrice,
    turns: [Turn; 1],
}

impl Provider {
    async fn new(api_key: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let settings = Settings {
            base_url: BaseUrl::parse(&base_url).unwrap(),
            api_key: api_key.map(|key| ApiKey::parse(key).unwrap()),
            timeouts: Timeouts { first_token_ms: FIRST_TOKEN_MS, idle_ms: IDLE_MS },
        };
        let turns = [turn(Speaker::User, USER)];
        Self { listener, client: Client::new(http(), settings), model: model(Some("none")), turns }
    }

    fn request(&self) -> ChatRequest<'_> {
        let output_cap = Tokens::from_u32(100);
        ChatRequest { model: &self.model, system: SYSTEM, turns: &self.turns, output_cap }
    }

    /// A stream whose head has come, and the provider's side of it.
    async fn streaming(&self) -> (ChatStream, Peer) {
        let request = self.request();
        let (stream, peer) = tokio::join!(self.client.stream(&request), async {
            let mut peer = Peer::accept(&self.listener).await;
            peer.write(HEAD).await;
            peer
        });
        (stream.unwrap(), peer)
    }

    /// What a call comes to that is answered with `answer`, the connection being closed then.
    async fn answered(&self, answer: &str) -> Result<ChatStream, CallError> {
        let request = self.request();
        let (result, ()) = tokio::join!(self.client.stream(&request), async {
            Peer::accept(&self.listener).await.write(answer).await;
        });
        result
    }
}

fn http() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let none = reqwest::redirect::Policy::none();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().redirect(none).build().unwrap()
}

async fn rest(stream: &mut ChatStream) -> (Vec<Event>, Option<StreamError>) {
    let mut events = Vec::new();
    while let Some(next) = stream.next().await {
        match next {
            Ok(event) => events.push(event),
            Err(error) => {
                assert!(stream.next().await.is_none(), "an error is the end");
                return (events, Some(error));
            }
        }
    }
    assert!(stream.next().await.is_none(), "the end stays the end");
    (events, None)
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

#[tokio::test]
async fn a_call_waits_for_the_head_and_not_for_the_body() {
    let provider = Provider::new(Some("sk-secret")).await;
    let request = provider.request();
    let call = provider.client.stream(&request);
    tokio::pin!(call);
    let mut peer = tokio::select! {
        _ = &mut call => panic!("answered before the head"),
        peer = Peer::accept(&provider.listener) => peer,
    };
    let (head, body) = peer.request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    for line in
        ["authorization: Bearer sk-secret", "accept: text/event-stream", "content-type: application/json"]
    {
        assert!(head.lines().any(|sent| sent == line), "{line} is not in {head}");
    }
    assert!(body.contains(USER) && body.contains(r#""include_usage":true"#), "{body}");
    peer.write(HEAD).await;
    let mut stream = call.await.unwrap();

    peer.event(ROLE).await;
    peer.event(&delta("a")).await;
    assert_eq!(stream.next().await, Some(Ok(text("a"))), "text comes while the provider is still writing");
    for data in [&delta("b"), FINISH, USAGE, "[DONE]"] {
        peer.event(data).await;
    }
    peer.end().await;
    let (events, error) = rest(&mut stream).await;
    assert_eq!(events[..2], [text("b"), Event::Finish(FinishReason::Stop)]);
    assert!(
        matches!(&events[2..], [Event::Usage(used), Event::Done] if used.total() == Tokens::from_u32(23))
    );
    assert_eq!(error, None);
}

#[tokio::test]
async fn without_a_key_no_authorization_is_sent_whatever_the_base() {
    for (base, path) in [
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai/v1/", "/openai/v1/chat/completions"),
        ("/gateway/team%20a/v1", "/gateway/team%20a/v1/chat/completions"),
    ] {
        let mut provider = Provider::new(None).await;
        let origin = format!("http://{}", provider.listener.local_addr().unwrap());
        let settings = Settings {
            base_url: BaseUrl::parse(&format!("{origin}{base}")).unwrap(),
            api_key: None,
            timeouts: Timeouts { first_token_ms: FIRST_TOKEN_MS, idle_ms: IDLE_MS },
        };
        provider.client = Client::new(http(), settings);
        let (mut stream, mut peer) = provider.streaming().await;
        let head = peer.request.split("\r\n\r\n").next().unwrap().to_lowercase();
        assert!(head.starts_with(&format!("post {path} http/1.1\r\n")), "{base}: {head}");
        assert!(!head.contains("authorization") && !head.contains("bearer"), "{base}: {head}");
        for data in [&delta("a"), FINISH, "[DONE]"] {
            peer.event(data).await;
        }
        assert_eq!(rest(&mut stream).await.1, None);
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_status_its_wait_and_its_labels() {
    for (status, header, body, wait, code) in [
        (
            401,
            "",
            r#"{"error":{"message":"bad key sk-secret","type":"t","code":"invalid_api_key"}}"#,
            None,
            Some("invalid_api_key"),
        ),
        (
            404,
            "",
            r#"{"error":{"message":"no model","type":"t","code":"model_not_found"}}"#,
            None,
            Some("model_not_found"),
        ),
        (
            429,
            "retry-after: 7\r\n",
            r#"{"error":{"message":"the secret prompt","code":"rate_limit_exceeded"}}"#,
            Some(7_000),
            Some("rate_limit_exceeded"),
        ),
        (429, "retry-after-ms: 250\r\nretry-after: 7\r\n", "", Some(250), None),
        (503, "", "<html>the secret prompt</html>", None, None),
        (302, "location: http://127.0.0.1:1/\r\n", "", None, None),
    ] {
        let provider = Provider::new(Some("sk-secret")).await;
        let answer = format!("HTTP/1.1 {status} X\r\n{header}content-length: {}\r\n\r\n{body}", body.len());
        let error = provider.answered(&answer).await.unwrap_err();
        let shown = format!("{error:?} {error}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(!error.may_have_cost());
        let CallError::Status { status: seen, retry_after_ms, error, .. } = error else { panic!("{shown}") };
        assert_eq!((seen, retry_after_ms), (status, wait));
        assert_eq!(error.code.as_ref().map(crate::Label::as_str), code);
    }
}

#[tokio::test]
async fn f18_of_a_refusals_body_only_so_much_is_read() {
    let provider = Provider::new(None).await;
    let body = format!(r#"{{"pad":"{}","error":{{"code":"late"}}}}"#, "x".repeat(17 * 1_024));
    let answer = format!("HTTP/1.1 500 X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let error = provider.answered(&answer).await.unwrap_err();
    assert!(matches!(error, CallError::Status { status: 500, error, .. } if error.code.is_none()));
}

#[tokio::test]
async fn a_body_that_is_not_a_stream_of_events_is_said_to_be_none() {
    let provider = Provider::new(None).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let error = provider.answered(answer).await.unwrap_err();
    assert!(matches!(error, CallError::NotAStream) && error.may_have_cost());
}

#[tokio::test]
async fn a_provider_that_is_not_there_costs_nothing() {
    let mut provider = Provider::new(None).await;
    provider.listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = provider.client.stream(&provider.request()).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)) && !error.may_have_cost(), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_head_may_have_cost() {
    let provider = Provider::new(None).await;
    let error = provider.answered("").await.unwrap_err();
    assert!(matches!(error, CallError::Broken(_)) && error.may_have_cost(), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_waited_for_as_long_as_the_first_text() {
    let provider = Provider::new(None).await;
    let request = provider.request();
    let begun = Instant::now();
    let (result, _peer) = tokio::join!(provider.client.stream(&request), async {
        let peer = Peer::accept(&provider.listener).await;
        time::pause();
        peer
    });
    assert!(matches!(result, Err(CallError::Timeout)));
    check_elapsed(begun, FIRST_TOKEN_MS);
}

/// At least this long, and less than a second more: real time runs until a test stops the clock.
#[track_caller]
fn check_elapsed(since: Instant, ms: u64) {
    let elapsed = since.elapsed();
    let range = Duration::from_millis(ms)..Duration::from_millis(ms + 1_000);
    assert!(range.contains(&elapsed), "{elapsed:?} instead of {ms} ms");
}

#[tokio::test]
async fn comments_and_roles_do_not_put_off_the_first_text() {
    let provider = Provider::new(None).await;
    let begun = Instant::now();
    let (mut stream, mut peer) = provider.streaming().await;
    time::pause();
    for _ in 0..5 {
        peer.piece(": still here\n\n").await;
        peer.event(ROLE).await;
        let waited = time::timeout(Duration::from_secs(10), stream.next()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    assert_eq!(stream.next().await, Some(Err(StreamError::Idle)));
    check_elapsed(begun, FIRST_TOKEN_MS);
}

#[tokio::test]
async fn a_stream_that_stands_still_is_given_up_however_often_it_is_asked() {
    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    peer.event(&delta("a")).await;
    assert_eq!(stream.next().await, Some(Ok(text("a"))));
    time::pause();
    let begun = Instant::now();
    for _ in 0..9 {
        peer.piece(": still here\n\n").await;
        assert!(time::timeout(Duration::from_secs(2), stream.next()).await.is_err());
    }
    assert_eq!(rest(&mut stream).await, (vec![], Some(StreamError::Idle)));
    check_elapsed(begun, IDLE_MS);
    assert_eq!(stream.estimate(), estimate(SYSTEM, &provider.turns, 1));
}

#[tokio::test]
async fn a_caller_that_is_slow_itself_is_not_told_that_the_provider_is() {
    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    peer.event(&delta("a")).await;
    assert_eq!(stream.next().await, Some(Ok(text("a"))));
    time::pause();
    time::advance(Duration::from_millis(10 * IDLE_MS)).await;
    let waited = time::timeout(Duration::from_millis(IDLE_MS - 1), stream.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    peer.event(&delta("b")).await;
    assert_eq!(stream.next().await, Some(Ok(text("b"))));
}

#[tokio::test]
async fn f28_a_stream_cut_anywhere_says_so_after_what_came() {
    // A socket closed inside a chunked body, a body that ends properly, and half an event.
    for (end, half) in [(false, ""), (true, ""), (true, "data: {\"choices\":[")] {
        let provider = Provider::new(None).await;
        let (mut stream, mut peer) = provider.streaming().await;
        peer.event(&delta("Hello")).await;
        if !half.is_empty() {
            peer.piece(half).await;
        }
        if end {
            peer.end().await;
        }
        drop(peer);
        assert_eq!(rest(&mut stream).await, (vec![text("Hello")], Some(StreamError::Cut)), "{end} {half}");
        assert_eq!(stream.estimate().output, Tokens::from_u32(2));
    }
}

#[tokio::test]
async fn an_answer_that_lacks_only_its_last_word_is_whole() {
    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    for data in [&delta("a"), FINISH, USAGE] {
        peer.event(data).await;
    }
    drop(peer);
    let (events, error) = rest(&mut stream).await;
    assert_eq!((events.len(), events.last(), error), (4, Some(&Event::Done), None));
}

#[tokio::test]
async fn an_error_inside_a_stream_ends_it_after_what_came() {
    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    let error = r#"{"error":{"message":"the secret prompt","type":"server_error","code":null}}"#;
    peer.piece(&format!("data: {}\n\ndata: {error}\n\n", delta("a"))).await;
    let (events, failure) = rest(&mut stream).await;
    assert_eq!(events, [text("a")]);
    let shown = format!("{failure:?} {stream:?}");
    assert!(shown.contains("server_error") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn f18_an_answer_and_an_event_are_bounded() {
    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    let event = format!("data: {}\n\n", delta("a"));
    stream.bound(2 * event.len());
    for _ in 0..3 {
        peer.piece(&event).await;
    }
    assert_eq!(rest(&mut stream).await, (vec![text("a"), text("a")], Some(StreamError::TooLong)));

    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    peer.event(&delta("a")).await;
    let long = "x".repeat(300 * 1_024);
    let (outcome, ()) = tokio::join!(rest(&mut stream), peer.piece(&long));
    assert_eq!(outcome, (vec![text("a")], Some(StreamError::TooLong)));
}

#[tokio::test]
async fn dropping_a_stream_closes_the_connection() {
    let provider = Provider::new(None).await;
    let (mut stream, mut peer) = provider.streaming().await;
    peer.event(&delta("a")).await;
    assert_eq!(stream.next().await, Some(Ok(text("a"))));
    drop(stream);
    let mut byte = [0];
    assert_eq!(peer.socket.read(&mut byte).await.unwrap_or(0), 0);
}
