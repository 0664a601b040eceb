#![doc = include_str!("../README.md")]

pub mod config;
mod drain;
pub mod handler;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod tests;
