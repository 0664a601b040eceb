//! Logs: one JSON object a line on standard output, which Lambda forwards.
//!
//! No prompt, completion, token, key or e-mail is ever logged. Our code does not, and what libraries would say about
//! bodies they say at `TRACE`, which is off whatever the environment asks for.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// The most that is ever logged, whatever `RUST_LOG` says: below it, libraries print whole events and bodies.
const LEVEL_MAX: LevelFilter = LevelFilter::DEBUG;

/// Starts logging, at the level that `RUST_LOG` says, `info` by default. Once in a process; a second call does nothing.
pub fn init() {
    let wanted = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_filter(wanted)
        .with_filter(LEVEL_MAX);
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            // The message may quote what was being worked on; the place says enough.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panicked");
        }));
    }
}

/// An error and everything that caused it, in one line: errors here do not repeat their source.
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
