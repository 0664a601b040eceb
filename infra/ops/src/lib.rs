//! The owner's tool. `docs/OPERATIONS.md` says how it is used.
//!
//! Every command is a function of its arguments, of what the environment said, and of a [`Console`]; it answers with an
//! [`Exit`]. Keys come from the environment only, because arguments are seen by every process of the machine. Nothing live
//! is touched without `--live`.

pub mod adopt;
pub mod books;
pub mod cli;
pub mod console;
pub mod key;
pub mod reconcile;
pub mod reports;
pub mod setup;

pub use cli::{Arguments, Command, Global};
pub use console::{Console, Exit};
