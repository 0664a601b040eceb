#![doc = include_str!("../README.md")]

mod cache;
mod claims;
mod dynamo;
mod expression;
mod item;
mod memory;
mod protocol;
mod quote;
mod store;

pub use claims::{Claimed, Ended, OfKey, OpenClaim};
pub use dynamo::{DynamoSettings, DynamoStore};
pub use memory::{Kept, MemoryStore};
pub use protocol::{AdmitError, Attempt, ChangeError, Ledger, OpenHold, SettleError, Standing, Unavailable};
pub use quote::Quote;
pub use store::{
    AdmitAnswer, AdmitFailure, Changed, Cursor, Fault, Loaded, MeterKey, PAGE_MAX, Page, SHARDS, Store,
    StoreError,
};
