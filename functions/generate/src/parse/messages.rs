//! A conversation, as the hook `useChat` sends it: of AI SDK 4 `{role, content}`, of later ones `{role, parts}`. The newest
//! messages that fit are kept.

use super::{MESSAGES_MAX, PROMPT_BYTES_MAX, invalid, is_blank, too_long};
use edge::problem::Problem;
use openai::{Speaker, Turn};
use serde_json::{Map, Value};

const FIELD: &str = "messages";
/// What stands between the text parts of one message.
const BETWEEN_PARTS: &str = "\n\n";

/// Reads a conversation. All of its messages must be well-formed, also those that are then left out.
pub(super) fn conversation(value: Value) -> Result<Vec<Turn>, Problem> {
    let Value::Array(messages) = value else {
        return Err(invalid(FIELD, "`messages` must be a list of messages."));
    };
    let turns: Vec<Turn> = messages.into_iter().map(turn).collect::<Result<_, _>>()?;
    let Some(last) = turns.last().filter(|last| last.speaker == Speaker::User) else {
        return Err(invalid(FIELD, "The last of `messages` must be one of role `user`."));
    };
    if is_blank(&last.text) {
        return Err(invalid(FIELD, "The last of `messages` must not be blank."));
    }
    if last.text.len() > PROMPT_BYTES_MAX {
        return Err(too_long(FIELD, "The last of `messages`", last.text.len()));
    }
    Ok(newest_that_fit(turns))
}

/// The longest end of a conversation that is within the bounds and begins with the user. Messages without text are passed over.
fn newest_that_fit(mut turns: Vec<Turn>) -> Vec<Turn> {
    turns.retain(|turn| !is_blank(&turn.text));
    let mut room_bytes = PROMPT_BYTES_MAX;
    let mut first = turns.len();
    for (at, turn) in turns.iter().enumerate().rev().take(MESSAGES_MAX) {
        let Some(left_bytes) = room_bytes.checked_sub(turn.text.len()) else { break };
        room_bytes = left_bytes;
        if turn.speaker == Speaker::User {
            first = at;
        }
    }
    turns.split_off(first)
}

fn turn(message: Value) -> Result<Turn, Problem> {
    let Value::Object(mut message) = message else {
        return Err(invalid(
            FIELD,
            "Each of `messages` must be an object with `role` and `parts` or `content`.",
        ));
    };
    let speaker = match message.get("role").and_then(Value::as_str) {
        Some("user") => Speaker::User,
        Some("assistant") => Speaker::Assistant,
        _ => return Err(invalid(FIELD, "The `role` of each of `messages` must be `user` or `assistant`.")),
    };
    if speaker == Speaker::User && has_attachments(&message) {
        return Err(no_files());
    }
    let text = match (message.remove("parts"), message.remove("content")) {
        (Some(Value::Array(parts)), None | Some(Value::Null)) => text_of(parts, speaker)?,
        (Some(Value::Array(parts)), _) if !parts.is_empty() => text_of(parts, speaker)?,
        (None | Some(Value::Null | Value::Array(_)), Some(Value::String(content))) => content,
        _ => {
            let detail =
                "Each of `messages` must have its text in `parts`, a list, or in `content`, a string.";
            return Err(invalid(FIELD, detail));
        }
    };
    Ok(Turn { speaker, text })
}

/// Files, as AI SDK 4 sends them.
fn has_attachments(message: &Map<String, Value>) -> bool {
    let attachments = message.get("experimental_attachments").and_then(Value::as_array);
    attachments.is_some_and(|attachments| !attachments.is_empty())
}

/// The text of a message's parts. The user's may be nothing but text, since what is left out would be missed; the assistant's may
/// be what its SDK made of earlier answers.
fn text_of(parts: Vec<Value>, speaker: Speaker) -> Result<String, Problem> {
    let mut texts = Vec::new();
    for part in parts {
        match part.get("type").and_then(Value::as_str) {
            Some("text") => match part.get("text").and_then(Value::as_str) {
                Some(text) => texts.push(text.to_owned()),
                None => return Err(invalid(FIELD, "Each part of type `text` must have a string in `text`.")),
            },
            Some("file") if speaker == Speaker::User => return Err(no_files()),
            _ if speaker == Speaker::User => {
                return Err(invalid(FIELD, "A message of role `user` may have parts of type `text` only."));
            }
            _ => {}
        }
    }
    Ok(texts.join(BETWEEN_PARTS))
}

fn no_files() -> Problem {
    invalid(FIELD, "Files cannot be read here. Remove the file and paste its text into the message.")
}
