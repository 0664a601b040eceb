//! A provider on a socket that does what a test says, when it says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

/// The head of a stream that lasts until the connection closes.
pub(super) const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

enum Step {
    Write(String),
    /// Closes the connection.
    Close,
}

pub(super) struct Upstream {
    port: u16,
    calls: Arc<AtomicU32>,
    steps: mpsc::UnboundedSender<Step>,
    /// The connections that have ended, by us or by the client.
    ended: Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Upstream {
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test's runtime")]
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let calls = Arc::new(AtomicU32::new(0));
        let (steps, mut script) = mpsc::unbounded_channel();
        let (end, ended) = mpsc::unbounded_channel();
        let counter = calls.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                read_request(&mut socket).await;
                counter.fetch_add(1, Ordering::SeqCst);
                play(&mut socket, &mut script).await;
                drop(socket);
                let _: Result<(), _> = end.send(());
            }
        });
        Self { port, calls, steps, ended: Mutex::new(ended) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub(super) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Writes these bytes.
    pub(super) fn write(&self, bytes: impl Into<String>) -> &Self {
        self.steps.send(Step::Write(bytes.into())).unwrap();
        self
    }

    /// Writes an event of the stream.
    pub(super) fn event(&self, data: &str) -> &Self {
        self.write(format!("data: {data}\n\n"))
    }

    pub(super) fn text(&self, text: &str) -> &Self {
        let text = serde_json::to_string(text).unwrap();
        self.event(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":{text}}},"finish_reason":null}}]}}"#
        ))
    }

    /// The reason why the model stopped.
    pub(super) fn stop(&self) -> &Self {
        self.event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#)
    }

    pub(super) fn usage(&self, prompt: u32, completion: u32) -> &Self {
        self.event(&format!(
            r#"{{"choices":[],"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}}}"#
        ))
    }

    pub(super) fn done(&self) -> &Self {
        self.event("[DONE]")
    }

    pub(super) fn close(&self) {
        self.steps.send(Step::Close).unwrap();
    }

    /// Waits until a connection has ended.
    pub(super) async fn ended(&self) {
        self.ended.lock().await.recv().await.unwrap();
    }
}

/// Does what the script says until it says to close, or until the client closes.
async fn play(socket: &mut TcpStream, script: &mut mpsc::UnboundedReceiver<Step>) {
    let (mut from_client, mut to_client) = socket.split();
    let mut byte = [0_u8; 1];
    loop {
        tokio::select! {
            step = script.recv() => match step {
                Some(Step::Write(bytes)) => if to_client.write_all(bytes.as_bytes()).await.is_err() { return },
                Some(Step::Close) | None => return,
            },
            read = from_client.read(&mut byte) => if !matches!(read, Ok(1)) { return },
        }
    }
}

async fn read_request(socket: &mut TcpStream) {
    let mut read = Vec::new();
    let mut buffer = [0_u8; 4_096];
    loop {
        let count = socket.read(&mut buffer).await.unwrap();
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                return;
            }
        }
        assert!(count > 0, "the request ended before its end");
    }
}
