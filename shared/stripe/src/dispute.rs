//! A dispute as Stripe has it now, with the payment that it is about. Read by the few fields that are used.

use crate::client::Stripe;
use crate::fetch::FetchError;
use domain::{CustomerId, Timestamp, UserId};
use miniserde::json::Value;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The metadata key of a customer that names the user.
const USER_KEY: &str = "user_id";

/// A dispute: a customer's bank takes a payment back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// `du_...` or `dp_...`.
    pub id: String,
    /// The payment, `ch_...` or `py_...`.
    pub charge: String,
    /// What is taken back, in the currency's smallest unit.
    pub amount: i64,
    /// Its currency, `usd`.
    pub currency: String,
    /// What the customer told the bank, `fraudulent` and so on.
    pub reason: String,
    /// Where it stands, `needs_response` and so on.
    pub status: String,
    /// Until when evidence is taken; none: no more.
    pub answer_by: Option<Timestamp>,
    /// Whose payment; none: nobody's that Stripe names.
    pub customer: Option<CustomerId>,
    /// The user that this customer's metadata names.
    pub user: Option<UserId>,
}

impl Stripe {
    /// Fetches a dispute, then its payment with its customer. `id` is in the form of an id of Stripe's.
    ///
    /// # Errors
    /// When Stripe does not have it, does not answer, refuses, or answers with what is no dispute.
    pub async fn dispute(&self, id: &str) -> Result<Dispute, FetchError> {
        let request =
            RequestBuilder::new(StripeMethod::Get, format!("/disputes/{}", word(id)?)).customize::<Wire>();
        let wire = self.call(StripeMethod::Get, request).await?;
        let charge = id_of(&wire.charge).ok_or(FetchError::Malformed("charge"))?.to_owned();
        let request = RequestBuilder::new(StripeMethod::Get, format!("/charges/{}", word(&charge)?))
            .query(&Expanded { expand: ["customer"] })
            .customize::<WireCharge>();
        let payment = self.call(StripeMethod::Get, request).await?;
        let customer = payment.customer.as_ref();
        Ok(Dispute {
            id: wire.id,
            charge,
            amount: wire.amount,
            currency: wire.currency,
            reason: wire.reason,
            status: wire.status,
            answer_by: wire.evidence_details.and_then(|details| details.due_by).map(Timestamp::from_s),
            customer: customer.and_then(id_of).and_then(|id| CustomerId::parse(id).ok()),
            user: customer.and_then(user_of),
        })
    }
}

/// An id that no address reads otherwise.
fn word(id: &str) -> Result<&str, FetchError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = !id.is_empty() && id.len() <= CustomerId::LENGTH_MAX && id.bytes().all(is_word);
    fits.then_some(id).ok_or(FetchError::Malformed("id"))
}

#[derive(serde::Serialize)]
struct Expanded {
    expand: [&'static str; 1],
}

#[derive(miniserde::Deserialize)]
struct Wire {
    id: String,
    charge: Value,
    amount: i64,
    currency: String,
    reason: String,
    status: String,
    evidence_details: Option<WireEvidence>,
}

#[derive(miniserde::Deserialize)]
struct WireEvidence {
    due_by: Option<u64>,
}

#[derive(miniserde::Deserialize)]
struct WireCharge {
    customer: Option<Value>,
}

/// The id of an object, expanded or not.
fn id_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(id) => Some(id),
        Value::Object(object) => match object.get("id") {
            Some(Value::String(id)) => Some(id),
            _ => None,
        },
        _ => None,
    }
}

fn user_of(customer: &Value) -> Option<UserId> {
    let Value::Object(customer) = customer else { return None };
    let Some(Value::Object(metadata)) = customer.get("metadata") else { return None };
    let Some(Value::String(user)) = metadata.get(USER_KEY) else { return None };
    UserId::parse(user).ok()
}
