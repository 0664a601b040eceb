//! A client of the API as a browser is one: it reads a stream, may leave it, and believes what the stream says.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::cast::{Actor, Scene};
use super::{DemoError, now_s};
use crate::{clerk, cloud::Cloud, net};

/// How long a minted token is good, in seconds.
const TOKEN_LIFETIME_S: u64 = 600;
/// The most bytes of a stream without an end of a line.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How a request ended, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With `finish`: the receipt's id and the tokens charged.
    Finished { receipt: String, charged: u64 },
    /// The client left.
    Left,
    /// The stream ended without a finish.
    Cut,
    /// Refused before it began.
    Refused { status: u16, code: String },
}

/// A client. Clones share connections.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    clerk: clerk::Handle,
}

impl Client {
    pub(super) fn new(cloud: &Cloud) -> Result<Self, DemoError> {
        let clerk = cloud.clerk().cloned().ok_or(DemoError::NotStandIns)?;
        Ok(Self { http: net::client()?, url: format!("{}/v1/generate", cloud.url()), clerk })
    }

    /// Plays a user's scenes, `at_once` of them at a time.
    pub(super) async fn play(
        self,
        actor: Actor,
        turns: &Arc<Semaphore>,
        tick: impl Fn() + Clone + Send + 'static,
    ) -> Result<Vec<(String, Scene, End)>, DemoError> {
        let mut ends = Vec::with_capacity(actor.scenes.len());
        for together in actor.scenes.chunks(actor.at_once) {
            let asked = together.iter().map(|scene| self.turn(&actor, scene, turns, tick.clone()));
            for (scene, end) in together.iter().zip(futures_util::future::join_all(asked).await) {
                ends.push((actor.user.clone(), scene.clone(), end?));
            }
        }
        Ok(ends)
    }

    async fn turn(
        &self,
        actor: &Actor,
        scene: &Scene,
        turns: &Semaphore,
        tick: impl Fn(),
    ) -> Result<End, DemoError> {
        // The semaphore is never closed.
        let _turn = turns.acquire().await.ok();
        let end = self.ask(actor, scene).await;
        tick();
        end
    }

    async fn ask(&self, actor: &Actor, scene: &Scene) -> Result<End, DemoError> {
        let now_s = u64::try_from(now_s()).unwrap_or_default();
        let claims = clerk::Claims::new(actor.user.clone(), now_s).lifetime_s(TOKEN_LIFETIME_S);
        let body = serde_json::json!({ "prompt": scene.prompt, "type": scene.kind });
        let request = self.http.post(&self.url).bearer_auth(self.clerk.mint_with(claims)).json(&body);
        let mut answer = request.send().await?;
        let status = answer.status().as_u16();
        if status != 200 {
            let problem: Value = answer.json().await.unwrap_or_default();
            let code = problem.get("code").and_then(Value::as_str).unwrap_or("none").to_owned();
            // A process that is killed before its head is the gateway's 502: cut, for its client.
            return Ok(if status == 502 { End::Cut } else { End::Refused { status, code } });
        }
        let (mut line, mut pieces, mut told) = (Vec::new(), 0_usize, None);
        while let Ok(Some(chunk)) = answer.chunk().await {
            for byte in chunk {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > LINE_BYTES_MAX {
                        return Ok(End::Cut);
                    }
                    continue;
                }
                let event = event(&line);
                line.clear();
                match event.get("type").and_then(Value::as_str) {
                    Some("text-delta") => pieces += 1,
                    Some("message-metadata") => told = finished(&event),
                    Some("finish") => return Ok(told.unwrap_or(End::Cut)),
                    Some("error") => return Ok(End::Cut),
                    _ => {}
                }
                if scene.leaves_after.is_some_and(|after| pieces >= after) {
                    return Ok(End::Left);
                }
            }
        }
        Ok(End::Cut)
    }
}

fn event(line: &[u8]) -> Value {
    line.strip_prefix(b"data: ").and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

/// What a message that is finished says of itself; none where it names no receipt.
fn finished(event: &Value) -> Option<End> {
    let metadata = event.get("messageMetadata")?;
    let receipt = metadata.get("receipt")?.as_str()?.to_owned();
    let charged = metadata.get("charged")?.as_u64()?;
    Some(End::Finished { receipt, charged })
}
