//! The body of an answer: whole, or as a pump writes it. It never ends in an error, which Lambda would write into the
//! stream as text.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// A body.
pub enum AnswerBody {
    /// All there is.
    Whole(Option<Bytes>),
    /// What the pump sends, until it drops its end.
    Stream(mpsc::Receiver<Bytes>),
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl From<String> for AnswerBody {
    fn from(text: String) -> Self {
        Self::Whole(Some(Bytes::from(text)))
    }
}

impl AnswerBody {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Stream(chunks) => chunks.poll_recv(cx),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        // A protocol has nothing to say in some places; an empty piece would end a chunked body.
        loop {
            match ready!(body.poll_bytes(cx)) {
                Some(bytes) if bytes.is_empty() => {}
                next => return Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes)))),
            }
        }
    }
}
