//! What an event asks for. Pure: its type and the ids in it decide; nothing that it says of its object does.

use domain::{CustomerId, InvoiceId, SubscriptionId, UserId};
use stripe::{Event, Form};

/// How much of a subscription may be new to its owner, who is told of what is odd about it. What an invoice is about was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    Nothing,
    /// What it is.
    Itself,
    /// That there is one, so that it may be one too many.
    Existence,
}

/// What has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// A subscription.
    Subscription {
        /// Which.
        id: SubscriptionId,
        /// How much of it may be new to its owner.
        news: News,
    },
    /// What the account has that a deleted customer paid for.
    DeletedCustomer {
        /// Whom Stripe has no more.
        id: CustomerId,
        /// Who that was. Of a deleted customer Stripe itself does not say it any more.
        user: UserId,
    },
    /// An invoice that was drafted, and waits.
    Draft(InvoiceId),
    /// The subscription of an invoice.
    Invoice(InvoiceId),
    /// An invoice that Stripe could not finalize.
    StuckInvoice(InvoiceId),
    /// A dispute.
    Dispute(String),
    /// What Stripe has not counted of what it took.
    Rejections,
    /// Nobody that we know.
    Nobody,
    /// Nothing.
    Nothing,
}

/// An event that names no object in the form that its type has: it will never be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unnamed;

/// What an event asks for.
pub(crate) fn task(event: &Event) -> Result<Task, Unnamed> {
    match event.form {
        Form::Snapshot => snapshot(event),
        Form::Thin => Ok(match event.kind.as_str() {
            "v1.billing.meter.error_report_triggered" | "v1.billing.meter.no_meter_found" => Task::Rejections,
            _ => Task::Nothing,
        }),
    }
}

fn snapshot(event: &Event) -> Result<Task, Unnamed> {
    let object = |prefixes: &[&str]| named(event.object.as_deref(), prefixes);
    let subscription = |text: &str, news| {
        let id = SubscriptionId::parse(text).map_err(|_| Unnamed)?;
        Ok(Task::Subscription { id, news })
    };
    let invoice = || InvoiceId::parse(object(&["in_"])?).map_err(|_| Unnamed);
    match event.kind.as_str() {
        "checkout.session.completed" => {
            object(&["cs_"])?;
            // One that bought something else has none.
            match &event.subscription {
                None => Ok(Task::Nothing),
                Some(text) => subscription(named(Some(text), &["sub_"])?, News::Existence),
            }
        }
        "customer.subscription.created" => subscription(object(&["sub_"])?, News::Existence),
        "customer.subscription.updated" => subscription(object(&["sub_"])?, News::Itself),
        "customer.subscription.deleted"
        | "customer.subscription.paused"
        | "customer.subscription.resumed"
        | "customer.subscription.trial_will_end" => subscription(object(&["sub_"])?, News::Nothing),
        "customer.deleted" => {
            let id = CustomerId::parse(object(&["cus_"])?).map_err(|_| Unnamed)?;
            Ok(event.user.clone().map_or(Task::Nobody, |user| Task::DeletedCustomer { id, user }))
        }
        "invoice.created" => Ok(Task::Draft(invoice()?)),
        "invoice.finalized" | "invoice.paid" | "invoice.payment_failed" => Ok(Task::Invoice(invoice()?)),
        "invoice.finalization_failed" => Ok(Task::StuckInvoice(invoice()?)),
        "charge.dispute.created" => Ok(Task::Dispute(object(&["du_", "dp_"])?.to_owned())),
        _ => Ok(Task::Nothing),
    }
}

/// The id, if it is one word that begins as the ids of its kind do: it becomes a part of an address.
fn named<'a>(id: Option<&'a str>, prefixes: &[&str]) -> Result<&'a str, Unnamed> {
    let is_word = |id: &&str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_ours = |id: &&str| {
        prefixes.iter().any(|prefix| id.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
    };
    id.filter(is_ours).filter(is_word).filter(|id| id.len() <= InvoiceId::LENGTH_MAX).ok_or(Unnamed)
}
