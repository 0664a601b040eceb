//! Invoices as Stripe has them now. Read by the few fields that are used, so that nothing else in them can stop us.

use crate::client::Stripe;
use crate::failure::Failure;
use domain::{CustomerId, InvoiceId, Period, SubscriptionId, Timestamp};
use miniserde::json::Value;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// Invoices asked for in one page: Stripe's most.
const PAGE_MAX: u8 = 100;
/// Pages read of one answer: five hundred invoices of one customer.
const PAGES_MAX: u32 = 5;

/// How far an invoice has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// Its lines follow the meters.
    Draft,
    /// Final, and not paid yet.
    Open,
    /// Paid, or nothing was to be paid.
    Paid,
    /// Final, and given up.
    Uncollectible,
    /// Taken back.
    Void,
    /// A status that Stripe added since.
    Other(String),
}

/// An invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Its id.
    pub id: InvoiceId,
    /// Who pays.
    pub customer: CustomerId,
    /// The subscription that it is for; none: somebody made it by hand.
    pub subscription: Option<SubscriptionId>,
    /// How far it has come.
    pub status: InvoiceStatus,
    /// Stripe's `billing_reason`: `subscription_cycle`, `subscription_create`, ...
    pub reason: String,
    /// The period whose usage it bills: the one that ended when it was made. None where it bills none.
    pub period: Option<Period>,
    /// When it was made.
    pub created: Timestamp,
    /// When Stripe means to make it final; none: it does not.
    pub finalizes_at: Option<Timestamp>,
    /// When it became final.
    pub finalized_at: Option<Timestamp>,
    /// What is to be paid, in cents; below zero where the customer gets something back.
    pub total_cents: i64,
    /// The page where its customer pays it.
    pub url: Option<String>,
}

/// Invoices, or what is put on them, are not to be had or not to be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// Stripe knows none with this id.
    #[error("Stripe knows no such invoice: {0}")]
    NotFound(String),
    /// Not done for certain; ask again later.
    #[error("Stripe does not do it now: {0}")]
    Unavailable(String),
    /// No answer, so that nobody knows whether it was done.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Refused for good, for a reason that lies in what was asked.
    #[error("refused for good: {0}")]
    Refused(String),
    /// Refused for a reason that lies in this installation: everything would be.
    #[error("refused for how this installation is set up: {0}")]
    Misconfigured(String),
    /// An answer that cannot be what was asked for.
    #[error("Stripe's answer has no usable {0}")]
    Malformed(&'static str),
}

impl Stripe {
    /// Fetches an invoice.
    ///
    /// # Errors
    /// When Stripe does not know it, does not answer, refuses, or answers with what is no invoice.
    pub async fn invoice(&self, id: &InvoiceId) -> Result<Invoice, InvoiceError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/invoices/{id}")).customize::<Wire>();
        match self.call(StripeMethod::Get, request).await {
            Ok(wire) => wire.read(),
            Err(Failure::Answered(answer)) if answer.status == 404 => {
                Err(InvoiceError::NotFound(answer.to_string()))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The invoices of a customer that were made at `created_from` or later, the newest first; the oldest of more than 500 are
    /// left out.
    ///
    /// # Errors
    /// When Stripe does not answer, refuses, or answers with what is no list of invoices.
    pub async fn invoices_of(
        &self,
        customer: &CustomerId,
        created_from: Timestamp,
    ) -> Result<Vec<Invoice>, InvoiceError> {
        let mut invoices: Vec<Invoice> = Vec::new();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let created = Created { gte: created_from.s() };
            let query =
                Query { customer: customer.as_str(), created, limit: PAGE_MAX, starting_after: after };
            let request =
                RequestBuilder::new(StripeMethod::Get, "/invoices").query(&query).customize::<List<Wire>>();
            let page = self.call(StripeMethod::Get, request).await?;
            for wire in page.data {
                invoices.push(wire.read()?);
            }
            after = invoices.last().map(|last| last.id.to_string()).filter(|_| page.has_more);
            if after.is_none() {
                break;
            }
        }
        Ok(invoices)
    }
}

#[derive(serde::Serialize)]
struct Query<'a> {
    customer: &'a str,
    created: Created,
    limit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<String>,
}

#[derive(serde::Serialize)]
struct Created {
    gte: u64,
}

/// A page of a list.
#[derive(miniserde::Deserialize)]
pub(crate) struct List<T> {
    pub(crate) data: Vec<T>,
    pub(crate) has_more: bool,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    customer: Value,
    parent: Option<WireParent>,
    status: Option<String>,
    billing_reason: Option<String>,
    period_start: u64,
    period_end: u64,
    created: u64,
    automatically_finalizes_at: Option<u64>,
    status_transitions: WireTransitions,
    total: i64,
    hosted_invoice_url: Option<String>,
}

#[derive(miniserde::Deserialize)]
struct WireParent {
    subscription_details: Option<WireSubscription>,
}

#[derive(miniserde::Deserialize)]
struct WireSubscription {
    subscription: Value,
}

#[derive(miniserde::Deserialize)]
struct WireTransitions {
    finalized_at: Option<u64>,
}

impl Wire {
    fn read(self) -> Result<Invoice, InvoiceError> {
        let subscription = self.parent.and_then(|parent| parent.subscription_details);
        let subscription =
            subscription.and_then(|of| id_in(&of.subscription).and_then(|id| SubscriptionId::parse(id).ok()));
        Ok(Invoice {
            id: InvoiceId::parse(&self.id).map_err(|_| InvoiceError::Malformed("id"))?,
            customer: id_in(&self.customer)
                .and_then(|id| CustomerId::parse(id).ok())
                .ok_or(InvoiceError::Malformed("customer"))?,
            subscription,
            status: InvoiceStatus::parse(self.status.unwrap_or_default()),
            reason: self.billing_reason.unwrap_or_default(),
            period: Period::new(Timestamp::from_s(self.period_start), Timestamp::from_s(self.period_end)),
            created: Timestamp::from_s(self.created),
            finalizes_at: self.automatically_finalizes_at.map(Timestamp::from_s),
            finalized_at: self.status_transitions.finalized_at.map(Timestamp::from_s),
            total_cents: self.total,
            url: self.hosted_invoice_url,
        })
    }
}

impl InvoiceStatus {
    fn parse(text: String) -> Self {
        match text.as_str() {
            "draft" => Self::Draft,
            "open" => Self::Open,
            "paid" => Self::Paid,
            "uncollectible" => Self::Uncollectible,
            "void" => Self::Void,
            _ => Self::Other(text),
        }
    }
}

/// The id of what may be expanded: itself, or in the object that stands for it.
pub(crate) fn id_in(value: &Value) -> Option<&str> {
    match value {
        Value::String(id) => Some(id),
        Value::Object(object) => match object.get("id") {
            Some(Value::String(id)) => Some(id),
            _ => None,
        },
        _ => None,
    }
}

impl From<Failure> for InvoiceError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) => Self::Unavailable(reason),
            Failure::Lost(reason) => Self::Unknown(reason),
            Failure::Unusable(reason) => Self::Misconfigured(reason),
            // A fault of Stripe's may have come after it was done.
            Failure::Answered(answer) if answer.status >= 500 => Self::Unknown(answer.to_string()),
            Failure::Answered(answer) if answer.busy() => Self::Unavailable(answer.to_string()),
            Failure::Answered(answer) if answer.setup() => Self::Misconfigured(answer.to_string()),
            Failure::Answered(answer) => Self::Refused(answer.to_string()),
        }
    }
}
