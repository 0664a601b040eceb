//! Does what an event asks for. Every object is fetched anew; nothing here has seen a payload.

use crate::{
    decide::Oddity,
    left::Draft,
    sync::{Accounts, InLine, SyncError, Synced},
    task::{News, Task},
};
use bus::Announcement;
use domain::{CustomerId, EventId, InvoiceId, Period, SubscriptionId, Timestamp, UserId};
use ledger::{Ledger, Store, StoreError, Unavailable};
use report::{Deps, Drained, Reason};
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};
use stripe::{FetchError, Invoice, InvoiceError, InvoiceStatus, Stripe};

/// What was done, as whoever looks at Stripe's list of deliveries reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was dealt with before.
    Known,
    /// It is no matter of ours.
    Ignored,
    /// The account is as its subscription is.
    InLine,
    /// The same, and the period that the invoice bills is reported to its end.
    Reported,
    /// The owner is told.
    Announced,
    /// What Stripe did not count is parked.
    Parked,
    /// Nobody is named whose it would be.
    NoUser,
    /// Stripe has no such object, or has it no more.
    Gone,
}

impl Outcome {
    /// As it is in the answer.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Ignored => "ignored",
            Self::InLine => "in_line",
            Self::Reported => "reported",
            Self::Announced => "announced",
            Self::Parked => "parked",
            Self::NoUser => "no_user",
            Self::Gone => "gone",
        }
    }

    /// Whether the event is done with for good. Where a person may mend what was missing, it may be delivered again.
    pub(crate) const fn is_final(self) -> bool {
        match self {
            Self::InLine | Self::Reported | Self::Announced | Self::Parked => true,
            Self::Known | Self::Ignored | Self::NoUser | Self::Gone => false,
        }
    }
}

/// Why an event has to be delivered again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// The account may not be in line.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Stripe did not show an object.
    #[error("what the event is about could not be fetched")]
    Stripe(#[from] FetchError),
    /// The ledger did not do what was asked.
    #[error("the ledger is unavailable")]
    Store(#[from] StoreError),
    /// The ledger did not open the next period.
    #[error(transparent)]
    Ledger(#[from] Unavailable),
    /// The period that an invoice bills is not reported to its end.
    #[error("the period's usage is not all reported yet: {0}")]
    Waiting(Reasons),
    /// A row that Stripe has not counted is not at its end here.
    #[error("a row that Stripe names is still on its way")]
    RowPending,
}

/// Why a period is not reported to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reasons(pub(crate) Vec<Reason>);

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&words.join("; "))
    }
}

/// What one delivery works with.
pub(crate) struct Worker<'a, S> {
    pub(crate) accounts: &'a Accounts<S>,
    pub(crate) deps: &'a Deps<S>,
    /// When Stripe told of a change of prices; of anything else it is now.
    pub(crate) told_at: Timestamp,
    /// When Stripe made the event.
    pub(crate) created: Timestamp,
    /// When its work has to be done.
    pub(crate) deadline: Timestamp,
    /// The draft that waits for it, as far as it came.
    pub(crate) draft: &'a Mutex<Option<Draft>>,
    pub(crate) clock: &'a (dyn Fn() -> Timestamp + Sync),
}

impl<S: Store> Worker<'_, S> {
    pub(crate) fn stripe(&self) -> &Stripe {
        &self.deps.stripe
    }

    pub(crate) fn ledger(&self) -> &Ledger<S> {
        &self.deps.ledger
    }

    fn note(&self, draft: Option<Draft>) {
        *self.draft.lock().unwrap_or_else(PoisonError::into_inner) = draft;
    }

    pub(crate) async fn announce(&self, kind: &'static str, detail: Value) {
        // What the bus does not take is in the log as an error, with all its words.
        let _lost: usize = self.deps.bus.announce(&[Announcement::Webhook { kind, detail }]).await;
    }

    /// Does what a task asks for.
    pub(crate) async fn work(
        &self,
        task: &Task,
        event: &EventId,
        now: Timestamp,
    ) -> Result<Outcome, WorkError> {
        match task {
            Task::Subscription { id, news } => self.subscription(id, *news, now).await,
            Task::DeletedCustomer { id, user } => {
                self.accounts.sync_without(id, user, now).await?;
                Ok(Outcome::InLine)
            }
            Task::Draft(id) => self.draft(id, now).await,
            Task::Invoice(id) => match self.invoice(id).await? {
                None => Ok(Outcome::Gone),
                Some(Invoice { subscription: None, .. }) => Ok(Outcome::Ignored),
                Some(Invoice { subscription: Some(id), .. }) => {
                    self.subscription(&id, News::Nothing, now).await
                }
            },
            Task::StuckInvoice(id) => self.stuck_invoice(id).await,
            Task::Dispute(id) => self.dispute(id).await,
            Task::Rejections => match self.rejections(event, now).await {
                Ok(()) => Ok(Outcome::Parked),
                Err(WorkError::Stripe(FetchError::NotFound(_))) => Ok(Outcome::Gone),
                Err(error) => Err(error),
            },
            Task::Nobody => Ok(Outcome::NoUser),
            Task::Nothing => Ok(Outcome::Ignored),
        }
    }

    async fn subscription(
        &self,
        id: &SubscriptionId,
        news: News,
        now: Timestamp,
    ) -> Result<Outcome, WorkError> {
        let in_line = match self.accounts.sync(id, self.told_at, now).await? {
            Synced::Gone => return Ok(Outcome::Gone),
            Synced::NoUser => return Ok(Outcome::NoUser),
            Synced::Foreign => return Ok(Outcome::Ignored),
            Synced::InLine(in_line) => in_line,
        };
        if news != News::Nothing {
            for oddity in self.accounts.oddities(&in_line, news == News::Existence).await? {
                self.complain(&in_line, oddity).await;
            }
        }
        let Some(last) = in_line.last_draft() else { return Ok(Outcome::InLine) };
        // The end of a subscription drafts its last invoice. Whichever of the two events comes first has its usage reported.
        match self.invoice(&last.id).await? {
            None => Ok(Outcome::InLine),
            Some(invoice) => self.report(&invoice, &in_line, now).await,
        }
    }

    async fn complain(&self, of: &InLine, oddity: Oddity) {
        let subscription = &of.seen.subscription;
        let lookup_keys: Vec<_> = subscription.lookup_keys().collect();
        tracing::error!(user = %of.user, subscription = %subscription.id, ?lookup_keys, why = oddity.name(),
            "a subscription is not what this product sells");
        let detail = json!({
            "subscription": subscription.id.as_str(),
            "customer": subscription.customer.as_str(),
            "user": of.user.as_str(),
            "why": oddity.name(),
            "lookupKeys": lookup_keys,
        });
        self.announce("Subscription Unusual", detail).await;
    }

    /// An invoice was drafted, and Stripe does not finalize it before this is answered.
    async fn draft(&self, id: &InvoiceId, now: Timestamp) -> Result<Outcome, WorkError> {
        // Until Stripe has shown it: it was drafted when its period ended, and Stripe told of that at once.
        self.note(Some(Draft { invoice: id.clone(), until: self.created, of: None }));
        let Some(invoice) = self.invoice(id).await? else { return Ok(Outcome::Gone) };
        let Some(subscription) = &invoice.subscription else { return Ok(Outcome::Ignored) };
        self.note(waiting(&invoice).map(|until| Draft { invoice: id.clone(), until, of: None }));
        match self.accounts.sync(subscription, self.told_at, now).await? {
            Synced::Gone => Ok(Outcome::Gone),
            Synced::NoUser => Ok(Outcome::NoUser),
            Synced::Foreign => Ok(Outcome::Ignored),
            Synced::InLine(in_line) => self.report(&invoice, &in_line, now).await,
        }
    }

    /// Has the usage of the period that a draft bills reported to its end.
    async fn report(&self, invoice: &Invoice, of: &InLine, now: Timestamp) -> Result<Outcome, WorkError> {
        let Some(until) = waiting(invoice) else { return Ok(Outcome::InLine) };
        let payer = (invoice.customer.clone(), of.user.clone());
        self.note(Some(Draft { invoice: invoice.id.clone(), until, of: Some(payer) }));
        // The period has ended by Stripe's clock, which is the one that bills.
        self.ledger().roll(&of.user, now.max(until)).await?;
        let drained =
            report::drain(self.deps, &of.user, &invoice.customer, until, self.deadline, || (self.clock)())
                .await;
        match drained {
            Drained::Quiet => Ok(Outcome::Reported),
            Drained::Waiting { reasons } => Err(WorkError::Waiting(Reasons(reasons))),
        }
    }

    async fn stuck_invoice(&self, id: &InvoiceId) -> Result<Outcome, WorkError> {
        let Some(invoice) = self.invoice(id).await? else { return Ok(Outcome::Gone) };
        if invoice.status != InvoiceStatus::Draft && invoice.finalized_at.is_some() {
            return Ok(Outcome::Ignored);
        }
        let detail = json!({
            "invoice": invoice.id.as_str(),
            "customer": invoice.customer.as_str(),
            "subscription": invoice.subscription.as_ref().map(SubscriptionId::as_str),
            "totalCents": invoice.total_cents,
        });
        tracing::error!(%detail, "Stripe could not finalize an invoice");
        self.announce("Invoice Not Finalized", detail).await;
        Ok(Outcome::Announced)
    }

    /// Nobody is blocked for a dispute: it may be a mistake or be withdrawn, and what follows from it is for a person to say.
    async fn dispute(&self, id: &str) -> Result<Outcome, WorkError> {
        let dispute = match self.stripe().dispute(id).await {
            Err(FetchError::NotFound(_)) => return Ok(Outcome::Gone),
            answer => answer?,
        };
        let detail = json!({
            "dispute": dispute.id,
            "charge": dispute.charge,
            "customer": dispute.customer.as_ref().map(CustomerId::as_str),
            "user": dispute.user.as_ref().map(UserId::as_str),
            "amount": dispute.amount,
            "currency": dispute.currency,
            "reason": dispute.reason,
            "status": dispute.status,
            "answerBy": dispute.answer_by.map(|at| at.to_string()),
        });
        tracing::warn!(%detail, "a payment is disputed");
        self.announce("Dispute Opened", detail).await;
        Ok(Outcome::Announced)
    }

    /// The invoice as it is now; none: Stripe has none.
    async fn invoice(&self, id: &InvoiceId) -> Result<Option<Invoice>, FetchError> {
        match self.stripe().invoice(id).await.map_err(as_fetched) {
            Ok(invoice) => Ok(Some(invoice)),
            Err(FetchError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The end of the period that a draft bills; none: it is no draft any more, or bills no time.
fn waiting(invoice: &Invoice) -> Option<Timestamp> {
    invoice.period.filter(|_| invoice.status == InvoiceStatus::Draft).map(Period::end)
}

fn as_fetched(error: InvoiceError) -> FetchError {
    match error {
        InvoiceError::NotFound(reason) => FetchError::missing(reason),
        InvoiceError::Unavailable(reason) | InvoiceError::Unknown(reason) => FetchError::Unavailable(reason),
        InvoiceError::Refused(reason) | InvoiceError::Misconfigured(reason) => FetchError::Refused(reason),
        InvoiceError::Malformed(what) => FetchError::Malformed(what),
    }
}
