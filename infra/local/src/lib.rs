#![doc = include_str!("../README.md")]

pub mod clerk;
pub mod events;
pub mod openai;
