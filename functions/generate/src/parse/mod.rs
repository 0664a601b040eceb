//! A request: what is asked for, within bounds. A refusal names the field and what to do and repeats nothing of the request.
//! Unknown fields are let through: the AI SDK's hooks add some of their own.

mod head;
mod messages;
mod options;
#[cfg(test)]
mod tests;

pub use head::{IdempotencyKey, InvalidIdempotencyKey, idempotency_key, protocol};

use crate::{
    config::Menu,
    prompts::{self, Kind, Options, Question},
};
use domain::{ModelId, ModelPrice};
use edge::problem::{Code, Problem};
use http::{HeaderMap, header};
use openai::{Speaker, Turn};
use serde_json::{Map, Value};

/// The longest body that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest prompt, and the longest conversation that is sent, in UTF-8 bytes.
pub const PROMPT_BYTES_MAX: usize = 32_768;
/// The most messages of a conversation that are sent.
pub const MESSAGES_MAX: usize = 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What kind of text.
    pub kind: Kind,
    /// What it should be like.
    pub options: Options,
    /// From what: the newest messages that fit, the user's first and last among them. Never logged, and printed by length only.
    pub turns: Vec<Turn>,
    /// By which model, at which price, if the request names one.
    pub model: Option<ModelPrice>,
}

impl Wish {
    /// What the model is asked.
    pub fn question(&self) -> Question {
        prompts::question(self.kind, &self.options, &self.turns)
    }
}

/// Reads a request's body.
///
/// # Errors
/// What is wrong with it, in the order: content type, size, JSON, prompt or messages, type, tone, audience, length, language,
/// platform, variants, model.
pub fn parse(headers: &HeaderMap, body: &[u8], menu: &Menu) -> Result<Wish, Problem> {
    if !is_json(headers) {
        let detail = "Send the request with the header `content-type: application/json`.";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    if body.len() > BODY_BYTES_MAX {
        let detail = format!("The body has {} bytes; at most {BODY_BYTES_MAX} are read.", body.len());
        return Err(Problem::new(Code::TooLarge, detail).limit(in_u64(BODY_BYTES_MAX)));
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
        let detail = "Send a JSON object such as {\"prompt\": \"...\", \"type\": \"rewrite\"}.";
        Problem::new(Code::InvalidJson, detail)
    })?;
    let turns = turns(&mut fields)?;
    let kind = options::kind(fields.get("type"))?;
    let options = options::parse(&fields, kind)?;
    let model = model(given(&fields, "model"), menu)?;
    Ok(Wish { kind, options, turns, model })
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = |value: &http::HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    headers.get(header::CONTENT_TYPE).is_some_and(essence)
}

/// The user's text: a prompt, or a conversation. A field that is null is one that is not there.
fn turns(fields: &mut Map<String, Value>) -> Result<Vec<Turn>, Problem> {
    let mut take = |name| fields.remove(name).filter(|value| !value.is_null());
    match (take("prompt"), take("messages")) {
        (Some(_), Some(_)) => Err(invalid("prompt", "Send either `prompt` or `messages`, not both.")),
        (None, Some(messages)) => messages::conversation(messages),
        (None, None) => Err(invalid("prompt", "Send the text in `prompt`, or a conversation in `messages`.")),
        (Some(prompt), None) => Ok(vec![Turn { speaker: Speaker::User, text: prompt_text(prompt)? }]),
    }
}

fn prompt_text(value: Value) -> Result<String, Problem> {
    let Value::String(text) = value else {
        return Err(invalid("prompt", "`prompt` must be a string."));
    };
    if is_blank(&text) {
        return Err(invalid("prompt", "`prompt` must not be blank."));
    }
    if text.len() > PROMPT_BYTES_MAX {
        return Err(too_long("prompt", "`prompt`", text.len()));
    }
    Ok(text)
}

/// Whether there is nothing to read in a text. What a model would never be sent is nothing to read either.
fn is_blank(text: &str) -> bool {
    text.chars().all(|character| character.is_whitespace() || character.is_control())
}

fn too_long(field: &'static str, what: &str, bytes: usize) -> Problem {
    let detail = format!(
        "{what} has {bytes} bytes in UTF-8; at most {PROMPT_BYTES_MAX} are allowed. Shorten it or send it in parts."
    );
    Problem::new(Code::PromptTooLong, detail).field(field).limit(in_u64(PROMPT_BYTES_MAX))
}

fn model(value: Option<&Value>, menu: &Menu) -> Result<Option<ModelPrice>, Problem> {
    let name = match value {
        None => return Ok(None),
        Some(Value::String(name)) => name,
        Some(_) => return Err(invalid("model", "`model` must be a string, or absent.")),
    };
    let price = ModelId::parse(name).ok().and_then(|id| menu.prices.get(&id));
    price.cloned().map(Some).ok_or_else(|| {
        let on_offer: Vec<_> = menu.prices.iter().map(|price| price.model.as_str()).collect();
        let detail = format!("`model` must be one of `{}`, or absent.", on_offer.join("`, `"));
        Problem::new(Code::UnknownModel, detail).field("model")
    })
}

/// A field that is there; one that is null is not.
fn given<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn invalid(field: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidField, detail).field(field)
}

fn in_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
