#![doc = include_str!("../README.md")]

pub mod config;
mod decide;
pub mod handler;
mod left;
mod rejections;
pub mod sync;
mod task;
#[cfg(test)]
mod tests;
mod work;
