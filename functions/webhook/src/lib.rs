#![doc = include_str!("../README.md")]

pub mod config;
mod decide;
pub mod handler;
pub mod sync;
#[cfg(test)]
mod tests;
