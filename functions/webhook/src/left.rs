//! What is left of a draft when its delivery has to have an answer: the reporter goes on with it at once, and whoever owns this
//! hears of it once it has waited for hours. It decides nothing, and changes nothing but what is on the bus.

use crate::work::WorkError;
use bus::{Announcement, DrainWanted};
use domain::{CustomerId, InvoiceId, Timestamp, UserId};
use report::Reason;
use serde_json::json;

/// How long after its end a period may still be waited for before an owner hears of it, in milliseconds: 6 hours. Stripe waits
/// for up to 72.
const WAITING_MS_MAX: u64 = 6 * 60 * 60 * 1_000;

/// A draft that waits, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) invoice: InvoiceId,
    /// The end of the period that it bills; until that is known, when Stripe told of it.
    pub(crate) until: Timestamp,
    /// Who pays, and whose usage it is, once its subscription was looked at.
    pub(crate) of: Option<(CustomerId, UserId)>,
}

impl Draft {
    /// What to say of it. `error`: why it waits; none: time ran out.
    pub(crate) fn announcements(&self, error: Option<&WorkError>, now: Timestamp) -> Vec<Announcement> {
        let mut announcements = Vec::new();
        if let Some((customer, user)) = self.of.as_ref().filter(|_| may_help(error)) {
            let (user, customer) = (user.clone(), customer.clone());
            announcements.push(Announcement::DrainWanted(DrainWanted { user, customer, until: self.until }));
        }
        if now.ms_since(self.until) > WAITING_MS_MAX {
            let detail = json!({
                "invoice": self.invoice.as_str(),
                "customer": self.of.as_ref().map(|(customer, _)| customer.as_str()),
                "user": self.of.as_ref().map(|(_, user)| user.as_str()),
                "periodEnd": self.until.to_string(),
                "reasons": error.map_or_else(|| Reason::Time.to_string(), |error| edge::log::chain(error)),
            });
            announcements.push(Announcement::Webhook { kind: "Invoice Waiting", detail });
        }
        announcements
    }
}

/// Whether reporting can change anything. A request that is under way ends by itself, and Stripe tells of the draft again.
fn may_help(error: Option<&WorkError>) -> bool {
    match error {
        Some(WorkError::Waiting(reasons)) => Reason::end_by_reporting(&reasons.0),
        Some(_) | None => true,
    }
}
