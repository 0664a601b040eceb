#![doc = include_str!("../README.md")]

pub mod bus;
pub mod config;
mod meter;
pub mod report;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod tests;
