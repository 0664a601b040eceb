#![doc = include_str!("../README.md")]

mod advice;
mod chunk;
mod client;
mod estimate;
mod failure;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
mod incoming;
mod request;
mod settings;
mod sse;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;

pub use advice::{Advice, RETRY_WAIT_MS_MAX};
pub use chunk::{Event, FinishReason};
pub use client::Client;
pub use estimate::{estimate, prompt_bound};
pub use failure::{CallError, Label, ProviderError, StreamError};
pub use request::{ChatRequest, Speaker, Turn};
pub use settings::{ApiKey, BaseUrl, InvalidApiKey, InvalidBaseUrl, Settings, Timeouts};
pub use stream::{ChatStream, RESPONSE_BYTES_MAX};
