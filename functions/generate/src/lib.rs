#![doc = include_str!("../README.md")]

pub mod config;
pub mod handler;
pub mod parse;
pub mod prompts;
pub mod pump;
#[cfg(test)]
mod tests;
pub mod wire;
