//! What has to stand at Stripe before anything can be sold: the meter, products and prices, where events are sent, and the
//! portal. Typed calls to list, create and update; `ops setup` decides what to call.
//!
//! Each create has a key of its own and is made once. Where its outcome is unknown it is not repeated: whoever called reads
//! what is there again. A price is never edited: Stripe does not allow it, and who pays by it must not be surprised.

mod cents;
mod draft;
mod endpoint;
pub(crate) mod form;
mod meter;
mod portal;
mod price;
mod product;

pub use cents::{Cents, InvalidCents, TooFine};
pub use draft::Draft;
pub use endpoint::{Channel, Endpoint, EndpointChange, NewEndpoint};
pub use meter::{Meter, NewMeter};
pub use portal::{Portal, PortalSettings};
pub use price::{Charge, Interval, LOOKUP_KEYS_MAX, NewPrice, Price, Tier};
pub use product::{Product, ProductChange};

use crate::client::Stripe;
use crate::failure::Failure;
use form::Form;
use miniserde::Deserialize;
use std::fmt;
use stripe_client_core::{RequestBuilder, StripeMethod};

/// The API version that events are rendered as: the one that this crate reads.
pub const API_VERSION: &str = "2026-09-30.endive";
/// The metadata key of a product: the plan that it is.
pub const PLAN_KEY: &str = "inkmeter_plan";
/// The metadata key of a price: the lookup key that it was sold by, which it keeps when another price takes that key over.
pub const SOLD_BY_KEY: &str = "inkmeter_lookup_key";
/// Objects in one page of a list: Stripe's most.
const PAGE_MAX: &str = "100";
/// Pages read of one list.
const PAGES_MAX: u32 = 100;
/// The longest id.
const ID_CHARS_MAX: usize = 255;

/// The id of an object at Stripe, such as `prod_...`. Letters, digits and `_` only, so that no path reads it otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId(Box<str>);

impl ObjectId {
    /// Reads an id; none if it is not in the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = (1..=ID_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_one.then(|| Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A call that gave no success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The request was sent, and whether it was carried out is not known: read what is there again.
    #[error("Stripe gave no clear answer: {0}")]
    Unknown(String),
    /// Not carried out: no connection, or Stripe has too much to do. It may be tried later.
    #[error("Stripe did not take the request now: {0}")]
    Unavailable(String),
    /// Not carried out: Stripe refused it.
    #[error("Stripe refused: {0}")]
    Refused(String),
    /// An answer that cannot be read.
    #[error("Stripe's answer has no usable {0}")]
    Malformed(&'static str),
}

impl From<Failure> for SetupError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) => Self::Unavailable(reason),
            Failure::Lost(reason) => Self::Unknown(reason),
            Failure::Unusable(reason) => Self::Refused(reason),
            // Stripe's own failures may come after the work was done.
            Failure::Answered(answer) if answer.status >= 500 => Self::Unknown(answer.to_string()),
            Failure::Answered(answer) if answer.busy() => Self::Unavailable(answer.to_string()),
            Failure::Answered(answer) => Self::Refused(answer.to_string()),
        }
    }
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    has_more: bool,
}

/// What a page is turned by.
trait Listed: Deserialize {
    fn id(&self) -> &str;
}

fn object_id(text: &str) -> Result<ObjectId, SetupError> {
    ObjectId::parse(text).ok_or(SetupError::Malformed("id"))
}

impl Stripe {
    /// Every object of a list. `query` has its filters.
    async fn list<T: Listed>(&self, path: &str, query: &Form) -> Result<Vec<T>, SetupError> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.clone().set("limit", PAGE_MAX);
            if let Some(after) = &after {
                query = query.set("starting_after", after);
            }
            let mut request = RequestBuilder::new(StripeMethod::Get, path);
            request.query = Some(query.encode());
            let page = self.call(StripeMethod::Get, request.customize::<Page<T>>()).await?;
            after = page.data.last().map(|last| last.id().to_owned());
            all.extend(page.data);
            if !page.has_more || after.is_none() {
                return Ok(all);
            }
        }
        Err(SetupError::Refused(format!("{path} lists more than {PAGES_MAX} pages")))
    }

    pub(crate) async fn post<T: Deserialize>(&self, path: String, form: &Form) -> Result<T, SetupError> {
        let mut request = RequestBuilder::new(StripeMethod::Post, path);
        request.body = Some(form.encode());
        Ok(self.call(StripeMethod::Post, request.customize::<T>()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Answer;

    #[test]
    fn the_version_that_endpoints_are_pinned_to_is_the_one_that_is_read() {
        assert_eq!(API_VERSION, stripe_shared::version::VERSION.as_str());
    }

    #[test]
    fn an_id_cannot_lead_a_path_elsewhere() {
        assert!(ObjectId::parse("prod_1Ab").is_some());
        for bad in ["", "a/b", "..", "a?b", "a b", "ü", &"a".repeat(256)] {
            assert!(ObjectId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_what_certainly_was_not_done_may_be_done_again() {
        let of = |failure| SetupError::from(failure);
        let answered = |status| of(Failure::Answered(Answer::of_v2(status, None, None)));
        assert!(matches!(of(Failure::Lost("x".into())), SetupError::Unknown(_)));
        assert!(matches!(answered(500), SetupError::Unknown(_)));
        assert!(matches!(answered(429), SetupError::Unavailable(_)));
        assert!(matches!(of(Failure::NotSent("x".into())), SetupError::Unavailable(_)));
        assert!(matches!(answered(400), SetupError::Refused(_)));
    }
}
