#![doc = include_str!("../README.md")]

mod books;
mod budget;
mod cache;
mod claims;
mod dynamo;
mod expression;
mod item;
mod memory;
mod page;
mod protocol;
mod quote;
mod store;

pub use budget::Known;
pub use claims::{Claimed, Ended, OfKey, OpenClaim};
pub use domain::Attempt;
pub use dynamo::{DynamoSettings, DynamoStore};
pub use memory::{Kept, MemoryStore};
pub use page::{
    Cursor, METERS_MAX, PAGE_MAX, Page, ReceiptCursor, ReceiptPage, ReportCursor, ReportPage, UserCursor,
    UserPage,
};
pub use protocol::{
    AdmitError, CapError, ChangeError, Ledger, OpenHold, Retried, SettleError, Standing, Unavailable,
};
pub use quote::Quote;
pub use store::{AdmitAnswer, AdmitFailure, Changed, Fault, Loaded, MeterKey, SHARDS, Store, StoreError};
