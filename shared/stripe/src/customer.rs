//! Customers: who pays for a user, and the errors of whatever is asked of Stripe while a user waits for it.

use crate::client::Stripe;
use crate::failure::Failure;
use domain::{CustomerId, UserId};
use serde::Serialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// Stripe did not do what a user waits for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaleError {
    /// Stripe has no such customer, or not any more.
    #[error("Stripe has no such customer: {0}")]
    NoCustomer(String),
    /// No answer, or none now. It may have been done; asked again it is done once all the same.
    #[error("Stripe does not answer: {0}")]
    Unavailable(String),
    /// Refused; every such request would be, until a person looks.
    #[error("Stripe refused: {0}")]
    Refused(String),
    /// An answer that cannot be used.
    #[error("Stripe's answer has no usable {0}")]
    Malformed(&'static str),
}

impl From<Failure> for SaleError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Lost(reason) => Self::Unavailable(reason),
            Failure::Unusable(reason) => Self::Refused(reason),
            Failure::Answered(answer) if answer.misses("customer") => Self::NoCustomer(answer.to_string()),
            Failure::Answered(answer) if answer.busy() => Self::Unavailable(answer.to_string()),
            Failure::Answered(answer) => Self::Refused(answer.to_string()),
        }
    }
}

#[derive(Serialize)]
struct New<'a> {
    metadata: Whose<'a>,
}

/// The metadata that names the user, wherever Stripe shows it.
#[derive(Serialize)]
pub(crate) struct Whose<'a> {
    pub(crate) user_id: &'a str,
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    deleted: Option<bool>,
}

impl Stripe {
    /// The customer for a user who has none, or whose customer `lost` Stripe has no more. Whoever asks at the same time, or
    /// again within a day, gets the same one.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn create_customer(
        &self,
        user: &UserId,
        lost: Option<&CustomerId>,
    ) -> Result<CustomerId, SaleError> {
        let key = format!("inkmeter-customer-{user}-{}", lost.map_or("first", CustomerId::as_str));
        let new = New { metadata: Whose { user_id: user.as_str() } };
        let wire: Wire = self.create_once(&key, "/customers", &new).await?;
        CustomerId::parse(&wire.id).map_err(|_| SaleError::Malformed("customer id"))
    }

    /// Whether Stripe has this customer, and has it still.
    ///
    /// # Errors
    /// See [`SaleError`].
    pub async fn has_customer(&self, customer: &CustomerId) -> Result<bool, SaleError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/customers/{customer}"));
        match self.call(StripeMethod::Get, request.customize::<Wire>()).await {
            Ok(wire) => Ok(wire.deleted != Some(true)),
            Err(Failure::Answered(answer)) if answer.status == 404 => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}
