//! The rules from outside: replayed golden vectors, random histories of one user, and the failures of others by number.
//!
//! One binary. `world` is what a store would keep for one user; everything else only asks it questions.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "a sum that overflows in a test panics, which is a failing test"
)]

#[cfg(test)]
mod budgets;
#[cfg(test)]
mod calendar;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod prices;
#[cfg(test)]
mod support;
#[cfg(test)]
mod windows;
#[cfg(test)]
mod world;
