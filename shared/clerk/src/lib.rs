#![doc = include_str!("../README.md")]

mod claims;
mod json;
mod key;
mod rejection;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

pub use claims::SessionId;
pub use key::{InvalidKey, VerifyingKey};
pub use rejection::Rejection;
pub use token::TOKEN_BYTES_MAX;
pub use verifier::{InvalidSettings, Session, Settings, Verifier};
