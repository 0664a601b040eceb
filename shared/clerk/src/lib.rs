#![doc = include_str!("../README.md")]

mod cache;
mod claims;
mod json;
mod jwks;
mod key;
mod published;
mod rejection;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

pub use claims::SessionId;
pub use key::{InvalidKey, InvalidKeyId, KeyId, VerifyingKey};
pub use published::{NotSecure, PublishedKeys};
pub use rejection::Rejection;
pub use token::TOKEN_BYTES_MAX;
pub use verifier::{InvalidSettings, Keys, Session, Settings, Verifier, VerifyError};
