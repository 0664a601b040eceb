//! The body of an answer as far as it has come: bytes through both parsers. Pure. Where the bytes were split on their way
//! makes no difference, and nothing is read behind the answer's end.

use crate::{
    Event, StreamError,
    chunk::Answer,
    sse::{EventTooLong, Parser},
};
use std::collections::VecDeque;

/// A body. Holds at most one line and one event of it.
#[derive(Default)]
pub(crate) struct Incoming {
    parser: Parser,
    pub(crate) answer: Answer,
}

impl Incoming {
    /// Takes the next bytes and appends what they say; answers whether a chunk was complete with them.
    ///
    /// # Errors
    /// When the answer ends before its end. What came before has been appended.
    pub(crate) fn take(&mut self, bytes: &[u8], events: &mut VecDeque<Event>) -> Result<bool, StreamError> {
        let mut chunks = Vec::new();
        let parsed = self.parser.push(bytes, &mut chunks);
        for chunk in &chunks {
            self.answer.take(chunk, events)?;
        }
        match parsed {
            // What follows the answer's end may be as long as it likes.
            Err(EventTooLong) if !self.answer.is_done() => Err(StreamError::TooLong),
            Ok(()) | Err(EventTooLong) => Ok(!chunks.is_empty()),
        }
    }

    /// How many bytes are held.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.parser.kept()
    }
}
