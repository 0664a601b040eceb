//! Drafts of subscriptions' invoices: the one place where the API shows how long an invoice waits before it is final. The
//! setting itself is in no API.

use super::form::Form;
use super::{ObjectId, Page, SetupError, object_id};
use crate::client::Stripe;
use domain::Timestamp;
use miniserde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// Drafts that are looked at: the newest.
const DRAFTS_MAX: &str = "20";

/// An invoice that is not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its id.
    pub id: ObjectId,
    /// Why there is one, `subscription_cycle` for instance.
    pub reason: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it becomes final by itself; none: never, or when nobody knows yet.
    pub finalizes_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    billing_reason: Option<String>,
    created: u64,
    automatically_finalizes_at: Option<u64>,
}

impl Stripe {
    /// The newest drafts, newest first.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn newest_drafts(&self) -> Result<Vec<Draft>, SetupError> {
        let query = Form::default().set("status", "draft").set("limit", DRAFTS_MAX);
        let mut request = RequestBuilder::new(StripeMethod::Get, "/invoices");
        request.query = Some(query.encode());
        let page = self.call(StripeMethod::Get, request.customize::<Page<Wire>>()).await?;
        let read = |wire: Wire| {
            Ok(Draft {
                id: object_id(&wire.id)?,
                reason: wire.billing_reason,
                created: Timestamp::from_s(wire.created),
                finalizes_at: wire.automatically_finalizes_at.map(Timestamp::from_s),
            })
        };
        page.data.into_iter().map(read).collect()
    }
}
