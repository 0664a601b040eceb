//! What the model is told: texts, versioned, and where the user's own words stand among them, so that they cannot pose as
//! instructions.
//!
//! The system message holds our words only, and of the request nothing but what comes from a fixed list or form. Everything that
//! the user wrote, the description of the readers too, stands in the user's messages between delimiters.

mod delimit;
mod options;
#[cfg(test)]
mod tests;
mod texts;

pub use options::{Audience, Kind, Language, Length, Options, Platform, Tone, Variants};

use delimit::{AUDIENCE, MATERIAL, delimited, harmless};
use openai::{Speaker, Turn};
use std::fmt;

/// The version of the texts, logged with every request; raised by every change.
pub const VERSION: u32 = 2;

/// What the model is asked. Prints its lengths only.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// What it is told to do.
    pub system: String,
    /// The conversation, the user's part of it delimited.
    pub turns: Vec<Turn>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({} bytes, {:?})", self.system.len(), self.turns)
    }
}

/// The question for a text of this kind. The last turn is the user's.
pub fn question(kind: Kind, options: &Options, turns: &[Turn]) -> Question {
    let mut sent: Vec<Turn> = turns.iter().map(protected).collect();
    if let (Some(audience), Some(last)) = (&options.audience, sent.last_mut()) {
        last.text = format!("{}\n{}", delimited(AUDIENCE, audience.as_str()), last.text);
    }
    Question { system: system(kind, options, turns.len() > 1), turns: sent }
}

/// A turn as it is sent. What the assistant said comes from the client too, so it may not hold a delimiter either.
fn protected(turn: &Turn) -> Turn {
    let text = match turn.speaker {
        Speaker::User => delimited(MATERIAL, &turn.text),
        Speaker::Assistant => harmless(&turn.text),
    };
    Turn { speaker: turn.speaker, text }
}

/// One rule a line, the form of the answer last, since what is read last is kept best.
fn system(kind: Kind, options: &Options, is_conversation: bool) -> String {
    let mut rules = vec![
        texts::job(kind).to_owned(),
        texts::tongue(kind, options.language.as_ref()),
        texts::voice(kind, options.tone).to_owned(),
        texts::extent(kind, options.length).to_owned(),
    ];
    if kind == Kind::SocialPost {
        rules.push(texts::place(options.platform));
    }
    if options.audience.is_some() {
        rules.push(texts::readers());
    }
    let material =
        if is_conversation { texts::material_in_conversation() } else { texts::material_alone(kind) };
    rules.push(material);
    rules.push(texts::form(kind, options.variants));
    rules.join("\n")
}
