//! Whole runs, over the ledger in memory and a small Stripe and bus behind real HTTP.

mod bus;
mod crashes;
mod customers;
mod drained;
mod drift;
mod late;
mod leases;
mod long;
mod reconcile;
mod unclear;
mod world;
