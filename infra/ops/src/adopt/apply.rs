//! Reads what there is of one customer, and does one step. Every step may be done again: what changes something at Stripe is
//! planned from what Stripe shows, and what changes the ledger is conditional there.

use super::mapping::Mapped;
use super::plan::{self, Imported, Obstacle, Plan, Rules, Seen, Step, Target};
use domain::{
    Billing, CustomerId, HoldId, Meter, Receipt, Report, ReportRow, RowFate, SubscriptionId, Timestamp,
    Tokens,
};
use ledger::{ChangeError, Changed, Ledger, MeterKey, Store, StoreError, Unavailable};
use stripe::setup::{ObjectId, SetupError};
use stripe::{Progress, SaleError, Stripe};

/// The id of the receipt of what was imported, one for each meter.
const RECEIPT: &str = "adopted";
/// What the report item of it says.
const NOTE: &str = "counted and billed before the subscription was adopted";
/// How often a customer is read and planned for anew where an answer was not clear.
const ROUNDS_MAX: u32 = 4;
/// How often an import is decided anew when something was sealed meanwhile.
const IMPORT_TRIES_MAX: u32 = 4;

/// Why a customer could not be read, or a step not be done.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Stripe did not do it, or did not show something.
    #[error(transparent)]
    Stripe(#[from] SetupError),
    /// Stripe did not show, or end, what the account's other customer was about to buy.
    #[error(transparent)]
    Sale(#[from] SaleError),
    /// The ledger did not show something, or did not import.
    #[error("the ledger did not answer")]
    Store(#[from] StoreError),
    /// The ledger did not open the period.
    #[error(transparent)]
    Ledger(#[from] Unavailable),
    /// The ledger did not change the account.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The account is not what the step was planned for.
    #[error("the account changed meanwhile: {0}")]
    Changed(&'static str),
    /// The receipt's name is no id; a test holds that it is.
    #[error("a name that is no id")]
    Name,
}

impl AdoptError {
    /// Whether what is there may tell more than the error does.
    fn is_unclear(&self) -> bool {
        matches!(
            self,
            Self::Stripe(SetupError::Unknown(_) | SetupError::Unavailable(_))
                | Self::Sale(SaleError::Unavailable(_))
                | Self::Changed(_)
        )
    }
}

/// How it ended for one customer.
#[derive(Debug)]
pub struct Ended {
    /// What was done.
    pub done: Vec<Step>,
    /// How.
    pub how: How,
}

/// How it ended.
#[derive(Debug)]
pub enum How {
    /// Nothing is left to do.
    Done,
    /// Something stands in the way.
    Refused(Obstacle),
    /// Something failed; a repeat goes on.
    Failed(Option<Step>, AdoptError),
    /// Answers were lost again and again; a repeat goes on.
    Unclear,
}

/// What everything here works with.
pub struct Work<'a, S> {
    /// Stripe, paced.
    pub stripe: &'a Stripe,
    /// The ledger.
    pub ledger: &'a Ledger<S>,
    /// What becomes what.
    pub rules: &'a Rules,
    /// The clock.
    pub now: &'a (dyn Fn() -> Timestamp + Sync),
}

impl<S: Store> Work<'_, S> {
    /// What is to be done about a customer. Changes nothing.
    ///
    /// # Errors
    /// When Stripe or the ledger does not show what there is.
    pub async fn plan(&self, mapped: &Mapped) -> Result<Result<Plan, Obstacle>, AdoptError> {
        let now = (self.now)();
        let seen = self.read(mapped, now).await?;
        Ok(plan::plan(mapped, &seen, self.rules, now))
    }

    /// The same, asked again where an answer is lost.
    ///
    /// # Errors
    /// When it is lost again and again, or when there is none.
    pub async fn plan_patiently(&self, mapped: &Mapped) -> Result<Result<Plan, Obstacle>, AdoptError> {
        for _ in 1..ROUNDS_MAX {
            match self.plan(mapped).await {
                Err(error) if error.is_unclear() => {}
                plan => return plan,
            }
        }
        self.plan(mapped).await
    }

    /// Does what is to be done about a customer, until a reading shows that nothing is left.
    pub async fn adopt(&self, mapped: &Mapped) -> Ended {
        let mut done = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let steps = match self.plan(mapped).await {
                Ok(Ok(plan)) => plan.steps,
                Ok(Err(obstacle)) => return Ended { done, how: How::Refused(obstacle) },
                Err(error) if error.is_unclear() => continue,
                Err(error) => return Ended { done, how: How::Failed(None, error) },
            };
            if steps.is_empty() {
                return Ended { done, how: How::Done };
            }
            for step in steps {
                match self.step(mapped, &step).await {
                    Ok(()) => done.push(step),
                    Err(error) if error.is_unclear() => break,
                    Err(error) => return Ended { done, how: How::Failed(Some(step), error) },
                }
            }
        }
        Ended { done, how: How::Unclear }
    }

    async fn read(&self, mapped: &Mapped, now: Timestamp) -> Result<Seen, AdoptError> {
        let customer = self.stripe.old_customer(&mapped.customer).await?;
        let (mut subscriptions, mut schedules) = (Vec::new(), Vec::new());
        if customer.is_some() {
            subscriptions = self.stripe.old_subscriptions(&mapped.customer).await?;
        }
        for schedule in subscriptions.iter().filter_map(|of| of.schedule.as_ref()) {
            schedules.push(self.stripe.schedule(schedule).await?);
        }
        let account = self.ledger.account(&mapped.user, now).await?;
        let (mut known, mut imported) = (None, None);
        let other = account.customer.as_ref().filter(|id| **id != mapped.customer);
        let pays_elsewhere = match other {
            Some(other) => self.buys(other).await?,
            None => false,
        };
        if account.rev > 0 {
            let adopted = subscriptions.iter().filter_map(|of| of.adopted);
            let from = adopted.fold(account.current, Timestamp::min);
            let meters = self.ledger.meters(&mapped.user, from).await?;
            imported = self.imported(&meters).await?;
            let is_current = |meter: &Meter| meter.period.start() == account.current;
            let current = meters.into_iter().find(is_current);
            known = Some((account, current.ok_or(AdoptError::Changed("its period is another"))?));
        }
        Ok(Seen { customer, subscriptions, schedules, account: known, pays_elsewhere, imported })
    }

    async fn imported(&self, meters: &[Meter]) -> Result<Option<Imported>, AdoptError> {
        for meter in meters {
            if let Some(receipt) = self.ledger.receipt(&MeterKey::of(meter), &receipt_id()?).await? {
                return Ok(Some(Imported { tokens: receipt.charged }));
            }
        }
        Ok(None)
    }

    /// Does one step.
    async fn step(&self, mapped: &Mapped, step: &Step) -> Result<(), AdoptError> {
        let Mapped { customer, user, .. } = mapped;
        match step {
            Step::NameCustomer => self.stripe.name_customer(customer, user).await?,
            Step::MarkSubscription { id, cycle } => {
                self.stripe.mark_subscription(id, user, *cycle).await?;
            }
            Step::Unmark(id) => self.stripe.unmark_subscription(id).await?,
            Step::MakeFlexible(id) => self.stripe.make_flexible(id).await?,
            Step::Schedule { subscription, id, planned, .. } => {
                let id = match id {
                    Some(id) => id.clone(),
                    None => self.stripe.schedule_from(subscription).await?.id,
                };
                let planned = self.stripe.plan_schedule(&id, planned).await;
                if let Err(SetupError::Refused(_)) = planned {
                    self.let_go(subscription, &id).await?;
                }
                planned?;
            }
            Step::Release(id) => self.stripe.release_schedule(id).await?,
            Step::OpenAccount(target) => {
                let now = (self.now)();
                self.ledger.change_account(user, now, |account| target.opened(account)).await?;
                self.ledger.roll(user, now).await?;
            }
            Step::Import { target, tokens, billing } => {
                self.import(mapped, target, *tokens, *billing).await?;
            }
            Step::Attach { target, instead_of } => {
                if let Some(other) = instead_of {
                    self.end_checkouts(other).await?;
                }
                let attach =
                    |account: &domain::Account| target.attached(account, customer, instead_of.as_ref());
                let account = self.ledger.change_account(user, (self.now)(), attach).await?;
                if account.subscription.as_ref() != Some(&target.subscription) {
                    return Err(AdoptError::Changed("it has another customer"));
                }
            }
        }
        Ok(())
    }

    /// Whether a customer has a subscription to a plan of the book's that has not ended.
    async fn buys(&self, customer: &CustomerId) -> Result<bool, AdoptError> {
        let is_ours = |key: &str| self.rules.book.plan_of_price(key).is_some();
        match self.stripe.is_subscribed(customer, is_ours).await {
            Err(SaleError::NoCustomer(_)) => Ok(false),
            subscribed => Ok(subscribed?),
        }
    }

    /// Ends what a customer was about to buy, so that nobody pays twice. What was bought meanwhile is seen.
    async fn end_checkouts(&self, customer: &CustomerId) -> Result<(), AdoptError> {
        let checkouts = match self.stripe.checkouts(customer).await {
            Err(SaleError::NoCustomer(_)) => Vec::new(),
            checkouts => checkouts?,
        };
        for checkout in checkouts {
            if matches!(checkout.progress, Progress::Open { .. }) {
                // One that is not open any more was bought or has ended; the look below tells.
                let _was_open: bool = self.stripe.expire_checkout(&checkout.id).await?;
            }
        }
        if self.buys(customer).await? {
            return Err(AdoptError::Changed("its other customer has bought a plan"));
        }
        Ok(())
    }

    /// Takes a schedule away that says nothing yet, for while there is one nobody can cancel the subscription; and the mark, for
    /// the subscription is not on its way. One that says something stays.
    async fn let_go(&self, subscription: &SubscriptionId, id: &ObjectId) -> Result<(), SetupError> {
        if !self.stripe.schedule(id).await?.is_unmarked {
            return Ok(());
        }
        self.stripe.release_schedule(id).await?;
        self.stripe.unmark_subscription(subscription).await
    }

    /// Puts what was used before into the current period, once. A period that Stripe's meter does not bill has it as billed
    /// otherwise, so that nobody looks for it in Stripe's count.
    async fn import(
        &self,
        mapped: &Mapped,
        target: &Target,
        tokens: Tokens,
        billing: Billing,
    ) -> Result<(), AdoptError> {
        for _ in 0..IMPORT_TRIES_MAX {
            let now = (self.now)();
            let loaded = self.ledger.roll(&mapped.user, now).await?;
            let meter = loaded.ok_or(AdoptError::Changed("it is gone"))?.meter;
            if meter.period.end() != target.cycle.end() {
                return Err(AdoptError::Changed("its period is another"));
            }
            if meter.customer.is_some() {
                return Err(AdoptError::Changed("somebody pays for it"));
            }
            let key = MeterKey::of(&meter);
            let user = || mapped.user.clone();
            let receipt = Receipt::imported(user(), key.period_start, receipt_id()?, tokens, now);
            let row = ReportRow {
                seq: meter.seq,
                customer: mapped.customer.clone(),
                identifier: format!("{RECEIPT}-{}-{}", mapped.user, key.period_start.s()),
                tokens,
                timestamp: meter.period.clamp_s(now),
                first_attempt_at: None,
                last_attempt_at: None,
                fence: 0,
            };
            // Stripe's meter never heard of it, whatever bills the rest.
            let report = Report::of((user(), key.period_start), &row, RowFate::Invoiced, now, Some(NOTE));
            if self.ledger.import(&key, &receipt, &report, billing).await? == Changed::Yes
                || self.imported(&[meter]).await? == Some(Imported { tokens })
            {
                return Ok(());
            }
        }
        Err(AdoptError::Changed("it goes on changing"))
    }
}

fn receipt_id() -> Result<HoldId, AdoptError> {
    HoldId::parse(RECEIPT).map_err(|_| AdoptError::Name)
}
