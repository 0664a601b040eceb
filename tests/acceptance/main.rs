//! The real binaries behind the local cloud.

mod cap;
mod readme;
mod refusals;
mod streaming;
mod structure;
mod support;
