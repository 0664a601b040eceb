#![doc = include_str!("../README.md")]

mod body;
mod checkout;
pub mod config;
pub mod handler;
mod invoice;
mod portal;
mod prices;
mod receipts;
mod spend_cap;
#[cfg(test)]
mod tests;
mod usage;
