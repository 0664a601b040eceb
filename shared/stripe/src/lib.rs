#![doc = include_str!("../README.md")]

mod client;
mod failure;
mod invoice;
mod invoice_item;
mod meter_event;
mod pace;
pub mod setup;
mod subscription;
mod summary;
#[cfg(feature = "testing")]
pub mod testing;
mod v2;
mod webhook;

pub use client::{InvalidSettings, Secret, Settings, Stripe, TIMEOUT};
pub use invoice::{Invoice, InvoiceError, InvoiceStatus};
pub use invoice_item::{InvoiceItem, NewInvoiceItem};
pub use meter_event::{MeterEvent, SendError, Sent};
pub use pace::Pace;
pub use subscription::{Status, Subscription, SubscriptionError};
pub use summary::{CountError, Counted};
pub use webhook::{Event, SIGNATURES_MAX, TOLERANCE_S, WebhookError, verify_webhook};
