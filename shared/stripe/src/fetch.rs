//! Why an object that Stripe was asked for is not to be had.

use crate::failure::Failure;

/// Stripe's words for an id that is another mode's: there is such an object, but not for this key.
const OTHER_MODE: &str = "a similar object exists in";
/// What the APIs, v1 and v2, call an id that leads nowhere.
const MISSING: [&str; 2] = ["resource_missing", "not_found"];

/// The object is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Stripe has none with this id, and will not have it again.
    #[error("Stripe has no such object: {0}")]
    NotFound(String),
    /// No answer, or none now; ask again later.
    #[error("Stripe does not show the object now: {0}")]
    Unavailable(String),
    /// Refused; every such question would be, until a person looks.
    #[error("Stripe refused to show the object: {0}")]
    Refused(String),
    /// An answer that cannot be the object.
    #[error("Stripe's object has no usable {0}")]
    Malformed(&'static str),
}

impl FetchError {
    /// What Stripe's words of a missing object come to: one of the key's other mode is there all the same.
    pub fn missing(reason: String) -> Self {
        if reason.contains(OTHER_MODE) { Self::Refused(reason) } else { Self::NotFound(reason) }
    }
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent(reason) | Failure::Lost(reason) => Self::Unavailable(reason),
            Failure::Unusable(reason) => Self::Refused(reason),
            Failure::Answered(answer) if answer.busy() => Self::Unavailable(answer.to_string()),
            // Only what Stripe itself calls missing: an address that it does not know is a fault of ours.
            Failure::Answered(answer)
                if answer.status == 404 && MISSING.contains(&answer.code.as_deref().unwrap_or_default()) =>
            {
                Self::missing(answer.to_string())
            }
            Failure::Answered(answer) => Self::Refused(answer.to_string()),
        }
    }
}
