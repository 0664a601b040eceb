#![doc = include_str!("../README.md")]

mod adopt;
mod checkout;
mod client;
mod customer;
mod dispute;
mod error_report;
mod failure;
mod fetch;
mod invoice;
mod invoice_item;
mod meter_event;
mod pace;
mod portal;
mod schedule;
pub mod setup;
mod subscription;
mod summary;
mod terms;
#[cfg(feature = "testing")]
pub mod testing;
mod v2;
mod webhook;

pub use adopt::{OldCustomer, OldItem, OldSubscription};
pub use checkout::{Checkout, NewCheckout, Progress};
pub use client::{InvalidSettings, Secret, Settings, Stripe, TIMEOUT};
pub use customer::SaleError;
pub use dispute::Dispute;
pub use error_report::{ErrorReport, Rejected, SAMPLES_MAX};
pub use fetch::FetchError;
pub use invoice::{Invoice, InvoiceError, InvoiceStatus};
pub use invoice_item::{InvoiceItem, NewInvoiceItem};
pub use meter_event::{MeterEvent, SendError, Sent};
pub use pace::Pace;
pub use schedule::{Move, Phase, PhaseItem, Schedule};
pub use subscription::{Collection, Item, LatestInvoice, Status, Subscription};
pub use summary::{CountError, Counted};
pub use terms::Terms;
pub use webhook::{Event, Form, SIGNATURES_MAX, SigningSecrets, TOLERANCE_S, WebhookError, verify_webhook};
