//! At which price late usage is billed: at the one that its subscription has at Stripe, which keeps what it was sold by whatever the
//! book says by now. Usage of a trial comes to nothing, as on Stripe's own invoices.
//!
//! Where Stripe does not say, nothing is guessed: what would come to nothing by the book does, anything else is for a person.

use crate::{
    late,
    meter::{Case, Reporting},
};
use domain::{Billing, Plan, SubscriptionId, Tokens};
use ledger::{Store, StoreError};
use std::num::NonZeroU64;
use stripe::{
    FetchError, InvoiceError,
    setup::{Cents, Charge, ObjectId, SetupError, Tier},
};

/// Prices that are read in search of the one that a change of plan has taken off its subscription.
const PRICES_READ_MAX: usize = 4;
/// Subscriptions that are read in search of the one that bills what the meter counts.
const SUBSCRIPTIONS_READ_MAX: usize = 4;

/// What late usage comes to.
pub(crate) enum LatePrice {
    /// So many US cents.
    Cents(u64),
    /// Stripe does not say now.
    NotNow,
    /// It cannot be told; why.
    Unknown(String),
}

/// What a price of Stripe's charges for tokens.
struct Terms {
    included: Tokens,
    overage_per_million: Option<NonZeroU64>,
}

/// Why a price is not to be had.
enum Failed {
    NotNow(String),
    ForGood(String),
}

impl<S: Store> Reporting<'_, S> {
    /// What a late row adds to the price of its period.
    pub(crate) async fn late_price(&self, of: &Case<'_>) -> Result<LatePrice, StoreError> {
        let Case { key, meter, row, lease } = of;
        if !self.may_call(lease) {
            return Ok(LatePrice::NotNow);
        }
        let account = self.deps.ledger.account(&key.user, (self.now)()).await.map_err(|error| error.0)?;
        let own = account.subscription.filter(|_| account.customer.as_ref() == Some(&row.customer));
        let is_of_another_plan = account.plan != meter.plan;
        Ok(match self.price_at_stripe(of, own, is_of_another_plan).await {
            Ok(None) => LatePrice::Cents(0),
            Ok(Some(terms)) => self.cents_by(of, &terms),
            Err(Failed::NotNow(reason)) => {
                tracing::error!(reason, user = %key.user, customer = %row.customer, identifier = row.identifier,
                    "the price of late usage is not to be had from Stripe");
                LatePrice::NotNow
            }
            Err(Failed::ForGood(reason)) => self.by_the_book(of, reason),
        })
    }

    /// The price's terms; none: it was used in a trial.
    async fn price_at_stripe(
        &self,
        of: &Case<'_>,
        own: Option<SubscriptionId>,
        is_of_another_plan: bool,
    ) -> Result<Option<Terms>, Failed> {
        let Case { meter, row, .. } = of;
        let from = late::invoices_from(meter.period, (self.now)());
        let billed_by = match from {
            Some(from) => {
                let invoices = self.stripe.invoices_of(&row.customer, from).await?;
                self.ours(of, late::subscriptions(meter.period, invoices), own.as_ref()).await?
            }
            None => None,
        };
        // What its own subscription is billed by now was the price then, unless the plan has changed. Where an invoice says whose it is,
        // the account may have moved on since; that a change of plan ended the period is known whatever became of the account.
        let is_own = billed_by.is_none() || billed_by == own;
        let has_moved_on = match meter.billing {
            Billing::Replaced => is_of_another_plan || !is_own,
            _ => is_of_another_plan && is_own,
        };
        let unknown = || Failed::ForGood("no subscription says at which price".to_owned());
        let subscription = billed_by.or(own).ok_or_else(unknown)?;
        self.still(of)?;
        let terms = self.stripe.terms(&subscription, &self.deps.meter.id).await?;
        if terms.is_trial(meter.period) {
            return Ok(None);
        }
        if has_moved_on {
            return self.price_of_a_change(of).await.map(Some);
        }
        let none = || Failed::ForGood(format!("{subscription} has no one price for what the meter counts"));
        self.read_price(of, &terms.price.ok_or_else(none)?).await.map(Some)
    }

    /// Of the subscriptions that an invoice of the period is for, the account's own, or else the first that the meter's price bills:
    /// its customer may have bought another product besides.
    async fn ours(
        &self,
        of: &Case<'_>,
        found: Vec<SubscriptionId>,
        own: Option<&SubscriptionId>,
    ) -> Result<Option<SubscriptionId>, Failed> {
        if let Some(own) = own.filter(|own| found.contains(own)) {
            return Ok(Some(own.clone()));
        }
        for id in found.into_iter().take(SUBSCRIPTIONS_READ_MAX) {
            self.still(of)?;
            if self.stripe.terms(&id, &self.deps.meter.id).await?.is_metered {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The price that a change of plan has taken off the subscription: Stripe has made an item of what was counted at it by then.
    async fn price_of_a_change(&self, of: &Case<'_>) -> Result<Terms, Failed> {
        let end = of.meter.period.end();
        let items = self.stripe.invoice_items(&of.row.customer).await?;
        let ended =
            items.into_iter().filter(|item| item.period_end.is_some_and(|at| late::is_same_end(at, end)));
        let mut prices: Vec<ObjectId> = ended.filter_map(|item| item.price).collect();
        prices.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        prices.dedup();
        for price in prices.iter().take(PRICES_READ_MAX) {
            match self.read_price(of, price).await {
                Err(Failed::ForGood(_)) => {}
                found => return found,
            }
        }
        Err(Failed::ForGood("no invoice item of the change of plan says the old price".to_owned()))
    }

    async fn read_price(&self, of: &Case<'_>, id: &ObjectId) -> Result<Terms, Failed> {
        self.still(of)?;
        let price = self.stripe.price(id).await?;
        let of_ours = match price.charge {
            Some(Charge::Metered { ref meter, ref tiers }) if meter.as_str() == self.deps.meter.id => {
                Terms::read(tiers).filter(|_| price.is_in_dollars())
            }
            Some(Charge::Metered { .. } | Charge::Flat(_)) | None => None,
        };
        of_ours.ok_or_else(|| {
            Failed::ForGood(format!("{id} charges in another way than the prices of the book"))
        })
    }

    /// There is time for another question.
    fn still(&self, of: &Case<'_>) -> Result<(), Failed> {
        self.may_call(of.lease).then_some(()).ok_or_else(|| Failed::NotNow("time ran out".to_owned()))
    }

    fn cents_by(&self, of: &Case<'_>, terms: &Terms) -> LatePrice {
        // Of a plan only these two say what usage costs.
        let plan = Plan {
            included: terms.included,
            overage_per_million: terms.overage_per_million,
            ..self.deps.ledger.plans().first().clone()
        };
        let Case { meter, row, .. } = of;
        let cents = domain::late_cents(&plan, before(of), row.tokens);
        let too_much = || LatePrice::Unknown(format!("no invoice can have the price of {}", meter.settled));
        cents.map_or_else(too_much, LatePrice::Cents)
    }

    /// What would come to nothing by the book too is left to nobody. Of a subscription that was taken over from another billing,
    /// whoever did so has said which plan of the book its usage is priced by.
    fn by_the_book(&self, of: &Case<'_>, reason: String) -> LatePrice {
        let plan = self.deps.ledger.plans().get(&of.meter.plan);
        match plan.and_then(|plan| domain::late_cents(plan, before(of), of.row.tokens)) {
            Some(0) => LatePrice::Cents(0),
            Some(cents) if of.meter.billing == Billing::Item => LatePrice::Cents(cents),
            Some(_) | None => LatePrice::Unknown(reason),
        }
    }
}

/// What the period has that is priced already.
fn before(of: &Case<'_>) -> Tokens {
    of.meter.on_stripes_meter().saturating_sub(of.row.tokens).saturating_add(of.meter.invoiced)
}

impl Terms {
    /// None: tiers that no plan of ours can have.
    fn read(tiers: &[Tier]) -> Option<Self> {
        let (included, above) = match tiers {
            [only] if only.up_to.is_none() => (Tokens::ZERO, only.unit),
            [first, rest] if rest.up_to.is_none() && first.unit == Cents::ZERO => {
                (Tokens::new(first.up_to?).ok()?, rest.unit)
            }
            _ => return None,
        };
        Some(Self { included, overage_per_million: NonZeroU64::new(above.nano_usd_per_million()?) })
    }
}

impl From<InvoiceError> for Failed {
    fn from(error: InvoiceError) -> Self {
        match error {
            InvoiceError::NotFound(reason) | InvoiceError::Refused(reason) => Self::ForGood(reason),
            error => Self::NotNow(error.to_string()),
        }
    }
}

impl From<FetchError> for Failed {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotFound(reason) => Self::ForGood(reason),
            error => Self::NotNow(error.to_string()),
        }
    }
}

impl From<SetupError> for Failed {
    fn from(error: SetupError) -> Self {
        Self::NotNow(error.to_string())
    }
}
