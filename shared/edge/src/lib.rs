#![doc = include_str!("../README.md")]

pub mod clock;
pub mod config;
pub mod cors;
pub mod drain;
pub mod http;
pub mod ids;
pub mod log;
pub mod models;
pub mod money;
pub mod plans;
pub mod problem;
pub mod request;
pub mod respond;
pub mod serve;
pub mod session;
