#![doc = include_str!("../README.md")]

mod counts;
mod deps;
mod meter;

pub use counts::Report;
pub use deps::{Deps, Pace, StripeMeter};
pub use meter::Reporting;
