//! One answer while it comes in: the body's bytes through the two parsers, under a bound and two timeouts. Does not
//! retry, and holds no more of the answer than what one read brought.

use crate::{Event, StreamError, Timeouts, estimate, incoming::Incoming};
use domain::Classes;
use reqwest::Response;
use std::{collections::VecDeque, fmt, time::Duration};
use tokio::time::{Instant, timeout_at};

/// The longest answer that is read, in bytes as they come. A token takes about 250 in a chunk of its own, so this is
/// some 250,000 tokens: more than a model may write.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A provider's answer. Dropping it closes the connection, which is what makes a provider stop.
pub struct ChatStream {
    response: Response,
    body: Incoming,
    /// What has been parsed and not yet taken: of one read at most.
    events: VecDeque<Event>,
    /// What ends the answer once those are taken.
    failure: Option<StreamError>,
    ended: bool,
    bytes_left: usize,
    /// When the first text must have come.
    first_text_by: Instant,
    idle: Duration,
    /// When the next chunk must have come; none until somebody waits for it. A caller that is slow itself must not find
    /// that the provider's time has run out, and one that asks again and again must not prolong it.
    next_chunk_by: Option<Instant>,
    prompt: Classes,
}

impl ChatStream {
    pub(crate) fn new(
        response: Response,
        timeouts: Timeouts,
        first_text_by: Instant,
        prompt: Classes,
    ) -> Self {
        Self {
            response,
            body: Incoming::default(),
            events: VecDeque::new(),
            failure: None,
            ended: false,
            bytes_left: RESPONSE_BYTES_MAX,
            first_text_by,
            idle: Duration::from_millis(timeouts.idle_ms),
            next_chunk_by: None,
            prompt,
        }
    }

    /// The next event; none after [`Event::Done`] or after an error.
    ///
    /// May be dropped while it waits, and called again: nothing is lost and no timeout begins anew.
    ///
    /// # Errors
    /// When the answer ends before its end. What came before has been given out, and was served.
    pub async fn next(&mut self) -> Option<Result<Event, StreamError>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if let Some(failure) = self.failure.take() {
                return Some(Err(failure));
            }
            if self.ended {
                return None;
            }
            // Each turn takes bytes off `bytes_left`, or ends the answer, or is the last before the deadline.
            let read = timeout_at(self.deadline(), self.response.chunk()).await;
            let result = match read {
                Err(_) => Err(StreamError::Idle),
                Ok(Ok(Some(bytes))) => self.take(&bytes),
                Ok(Ok(None) | Err(_)) => {
                    self.ended = true;
                    self.body.answer.end(&mut self.events)
                }
            };
            self.failure = result.err();
            self.ended |= self.failure.is_some() || self.body.answer.is_done();
        }
    }

    /// What the answer is taken to have used if it ends here: see [`estimate()`]. Reasoning that the provider showed
    /// counts as such.
    pub fn estimate(&self) -> Classes {
        Classes {
            output: estimate::tokens(self.body.answer.output_bytes()),
            reasoning: estimate::tokens(self.body.answer.reasoning_bytes()),
            ..self.prompt
        }
    }

    /// What the provider counted, if all of the answer has come but for its end.
    pub fn counted(&self) -> Option<Classes> {
        self.body.answer.counted()
    }

    /// Sets how many bytes more are read, for a test that cannot send as many as the bound.
    #[cfg(test)]
    pub(crate) fn bound(&mut self, bytes: usize) {
        self.bytes_left = bytes;
    }

    fn deadline(&mut self) -> Instant {
        if self.body.answer.begun() {
            *self.next_chunk_by.get_or_insert_with(|| Instant::now() + self.idle)
        } else {
            self.first_text_by
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes.len()).ok_or(StreamError::TooLong)?;
        if self.body.take(bytes, &mut self.events)? {
            self.next_chunk_by = None;
        }
        Ok(())
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatStream")
            .field("status", &self.response.status().as_u16())
            .field("answer", &self.body.answer)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
