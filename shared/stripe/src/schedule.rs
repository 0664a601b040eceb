//! Subscription schedules: how a subscription comes to another price at the end of its cycle, as Stripe's guide has it for
//! those who come from usage records (docs.stripe.com/billing/subscriptions/usage-based-legacy/migration-guide).
//!
//! A schedule is made from a subscription, as Stripe wants it, in two steps: at first it repeats what is, then it gets the
//! phase that follows. In between it changes nothing.

use crate::client::Stripe;
use crate::setup::form::Form;
use crate::setup::{ObjectId, SetupError};
use domain::{Period, SubscriptionId, Timestamp};
use miniserde::Deserialize;
use std::collections::BTreeMap;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The metadata of a schedule that was made here.
const MADE_KEY: &str = "inkmeter";
const MADE_BY: &str = "adopt";

/// One price of a phase.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhaseItem {
    /// The price.
    pub price: ObjectId,
    /// How many; none for a metered price.
    pub quantity: Option<u64>,
}

/// A stretch of time with the same prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// When it begins and ends.
    pub period: Period,
    /// Its prices.
    pub items: Vec<PhaseItem>,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its id.
    pub id: ObjectId,
    /// Whether it was made here.
    pub is_ours: bool,
    /// Whether nobody wrote anything on it, so that it may be one whose second step is missing.
    pub is_unmarked: bool,
    /// Whether the subscription goes on once it has ended.
    pub releases: bool,
    /// What is, and what follows.
    pub phases: Vec<Phase>,
}

/// What a schedule is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// What is, up to the cycle's end.
    pub now: Phase,
    /// The prices of the month that follows, after which the subscription goes on by itself.
    pub then: Vec<PhaseItem>,
    /// Whether Stripe reckons the taxes.
    pub automatic_tax: bool,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    metadata: Option<BTreeMap<String, String>>,
    end_behavior: String,
    phases: Vec<WirePhase>,
}

#[derive(Deserialize)]
struct WirePhase {
    start_date: u64,
    end_date: u64,
    items: Vec<WireItem>,
}

#[derive(Deserialize)]
struct WireItem {
    price: String,
    quantity: Option<u64>,
}

impl Wire {
    fn read(self) -> Result<Schedule, SetupError> {
        let metadata = self.metadata.unwrap_or_default();
        Ok(Schedule {
            id: ObjectId::parse(&self.id).ok_or(SetupError::Malformed("id of a schedule"))?,
            is_ours: metadata.get(MADE_KEY).is_some_and(|by| by == MADE_BY),
            is_unmarked: metadata.is_empty(),
            releases: self.end_behavior == "release",
            phases: self.phases.into_iter().map(WirePhase::read).collect::<Result<_, _>>()?,
        })
    }
}

impl WirePhase {
    fn read(self) -> Result<Phase, SetupError> {
        let item = |item: WireItem| {
            let price = ObjectId::parse(&item.price).ok_or(SetupError::Malformed("price of a phase"))?;
            Ok(PhaseItem { price, quantity: item.quantity })
        };
        let period = Period::new(Timestamp::from_s(self.start_date), Timestamp::from_s(self.end_date));
        Ok(Phase {
            period: period.ok_or(SetupError::Malformed("end of a phase"))?,
            items: self.items.into_iter().map(item).collect::<Result<_, SetupError>>()?,
        })
    }
}

fn fill(form: Form, phase: &str, items: &[PhaseItem], automatic_tax: bool) -> Form {
    let mut form = form.set(format!("{phase}[proration_behavior]"), "none");
    if automatic_tax {
        form = form.set(format!("{phase}[automatic_tax][enabled]"), "true");
    }
    for (index, item) in items.iter().enumerate() {
        form = form.set(format!("{phase}[items][{index}][price]"), item.price.as_str());
        if let Some(quantity) = item.quantity {
            form = form.set(format!("{phase}[items][{index}][quantity]"), quantity.to_string());
        }
    }
    form
}

impl Stripe {
    /// A schedule.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn schedule(&self, id: &ObjectId) -> Result<Schedule, SetupError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/subscription_schedules/{id}"));
        self.call(StripeMethod::Get, request.customize::<Wire>()).await?.read()
    }

    /// Makes a schedule that repeats what a subscription is. Stripe takes nothing else together with that.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn schedule_from(&self, subscription: &SubscriptionId) -> Result<Schedule, SetupError> {
        let form = Form::default().set("from_subscription", subscription.as_str());
        self.post::<Wire>("/subscription_schedules".into(), &form).await?.read()
    }

    /// Says what a schedule's subscription comes to. Nothing is prorated: the phase begins with a cycle.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn plan_schedule(&self, id: &ObjectId, planned: &Move) -> Result<Schedule, SetupError> {
        let Move { now, then, automatic_tax } = planned;
        let form = Form::default()
            .set(format!("metadata[{MADE_KEY}]"), MADE_BY)
            .set("end_behavior", "release")
            .set("proration_behavior", "none")
            .set("phases[0][start_date]", now.period.start().s().to_string())
            .set("phases[0][end_date]", now.period.end().s().to_string());
        let form = fill(form, "phases[0]", &now.items, *automatic_tax)
            .set("phases[1][start_date]", now.period.end().s().to_string())
            .set("phases[1][duration][interval]", "month")
            .set("phases[1][duration][interval_count]", "1");
        let form = fill(form, "phases[1]", then, *automatic_tax);
        self.post::<Wire>(format!("/subscription_schedules/{id}"), &form).await?.read()
    }

    /// Ends a schedule; its subscription goes on as it is.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn release_schedule(&self, id: &ObjectId) -> Result<(), SetupError> {
        self.post::<Wire>(format!("/subscription_schedules/{id}/release"), &Form::default()).await.map(drop)
    }
}
