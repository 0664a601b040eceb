#![doc = include_str!("../README.md")]

pub mod binaries;
pub mod clock;
pub mod dynamo;
pub mod gateway;
pub mod logs;
pub mod net;
pub mod runtime;
