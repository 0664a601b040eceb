#![doc = include_str!("../README.md")]

mod counts;
mod deps;
mod drain;
mod late;
mod meter;
mod park;
mod price;
mod reconcile;
mod repair;
mod rows;
mod uninvoiced;
mod verdict;

pub use counts::Report;
pub use deps::{CALLS_PER_S_MAX, Deps, Pace, StripeMeter, calls_per_s};
pub use drain::{Drained, Reason, drain};
pub use meter::{Reporting, STUCK_MS};
pub use park::{FoundAtStripe, ParkRefused, Parking, end_pending};
pub use reconcile::{
    AtStripe, Checked, Checkup, DRIFTS_TOLD_MAX, Drift, Equation, Figures, Finding, Items, Place,
    Reconciling, RowName, WINDOW_MS, compare, fate_name,
};
pub use repair::Repair;
pub use uninvoiced::Uninvoiced;
