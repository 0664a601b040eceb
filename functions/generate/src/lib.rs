#![doc = include_str!("../README.md")]

mod answer;
pub mod budget;
mod call;
pub mod config;
mod denials;
pub mod generation;
pub mod handler;
pub mod parse;
pub mod prompts;
pub mod pump;
mod quote;
mod routes;
mod stop;
#[cfg(test)]
mod tests;
pub mod wire;
