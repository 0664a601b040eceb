#![doc = include_str!("../README.md")]

pub mod binaries;
pub mod clerk;
pub mod clock;
pub mod cloud;
pub mod demo;
pub mod dynamo;
pub mod events;
pub mod gateway;
pub mod logs;
pub mod net;
pub mod openai;
pub mod page;
pub mod runtime;
mod serve;
pub mod stripe;
