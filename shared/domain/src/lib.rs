#![doc = include_str!("../README.md")]

mod account;
mod admit;
mod amount;
mod budget;
mod claim;
mod denial;
mod ids;
mod invoice;
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
pub use budget::{Budget, Day, Level, Part, Pool, Slice, SliceAnswer, SliceAsk, Spending, Take};
pub use claim::{ANSWER_BYTES_MAX, CLAIM_KEPT_MS, Claim, ClaimState, Digest, HoldRef, Repeat};
pub use denial::{DENIAL_KEPT_MS, Denial, DenialCode};
pub use ids::{
    CustomerId, EventId, HoldId, InvalidId, InvoiceId, InvoiceItemId, ModelId, PlanId, SubscriptionId, UserId,
};
pub use invoice::{NextInvoice, Used, next_invoice};
pub use meter::{Billing, Hold, Meter, Opening, Predecessor, RateCounts, Totals};
pub use plan::{
    HOLDS_MAX, InvalidPlans, Plan, Plans, invoice_cents, late_cents, overage, overage_between, overage_cents,
};
pub use receipt::{FailedCalls, Outcome, Receipt, Release};
pub use report::{
    Attempt, IDENTIFIER_FORGOTTEN_MS, Lease, NOTE_CHARS_MAX, NextStep, Report, ReportRow, RowFate, Seal,
    Verdict, bounded_note, next_step, reconcile, reconcile_minute, retry, seal,
};
pub use time::{Period, Timestamp};
pub use usage::{Classes, ModelPrice, ModelPrices, Usage};
pub use window::{RateLimit, Window};
