#![doc = include_str!("../README.md")]

mod checkout;
mod client;
mod customer;
mod failure;
mod meter_event;
mod portal;
pub mod setup;
mod subscription;
mod summary;
#[cfg(feature = "testing")]
pub mod testing;
mod v2;
mod webhook;

pub use checkout::{Checkout, NewCheckout, Progress};
pub use client::{InvalidSettings, Secret, Settings, Stripe, TIMEOUT};
pub use customer::SaleError;
pub use meter_event::{MeterEvent, SendError, Sent};
pub use subscription::{Status, Subscription, SubscriptionError};
pub use summary::{CountError, Counted};
pub use webhook::{Event, SIGNATURES_MAX, TOLERANCE_S, WebhookError, verify_webhook};
