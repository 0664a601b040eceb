//! Whole runs, over the ledger in memory and a small Stripe and bus behind real HTTP.

mod bus;
mod crashes;
mod customers;
mod reconcile;
mod world;
