#![doc = include_str!("../README.md")]

mod account;
mod admit;
mod amount;
mod claim;
mod ids;
mod meter;
mod plan;
mod receipt;
mod report;
mod time;
mod usage;
mod window;

pub use account::{Account, AccountChange, Placement, place};
pub use admit::{Admission, AdmitRequest, CapKind, Demand, Facts, HoldSize, Refusal, admit, cap_in_force};
pub use amount::{NanoUsd, OutOfRange, Tokens};
pub use claim::{ANSWER_BYTES_MAX, CLAIM_KEPT_MS, Claim, ClaimState, Digest, HoldRef, Repeat};
pub use ids::{CustomerId, HoldId, InvalidId, ModelId, PlanId, SubscriptionId, UserId};
pub use meter::{Hold, Meter, Opening, Predecessor, RateCounts, Totals};
pub use plan::{HOLDS_MAX, InvalidPlans, Plan, Plans};
pub use receipt::{FailedCalls, Outcome, Receipt, Release};
pub use report::{
    IDENTIFIER_FORGOTTEN_MS, NextStep, ReportRow, RowFate, Seal, Verdict, next_step, reconcile, seal,
};
pub use time::{Period, Timestamp};
pub use usage::{Classes, ModelPrice, ModelPrices, Usage};
pub use window::{RateLimit, Window};
