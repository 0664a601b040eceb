//! Which denials are worth keeping: the latest of each kind is, and not every one of a client that hammers. What is forgotten
//! here is written once more; nothing depends on it.

use domain::{Denial, DenialCode, Timestamp, UserId};
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

/// How long the same user's denials of one kind are not written again by one instance, in milliseconds.
const QUIET_MS: u64 = 10_000;
/// The most users and kinds that one instance remembers; each takes some 200 bytes.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// The denials that this instance has written lately. Clones share it.
#[derive(Clone)]
pub(crate) struct Denials(Arc<Mutex<LruCache<(UserId, DenialCode), Timestamp>>>);

impl Denials {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(REMEMBERED_MAX))))
    }

    /// Whether a denial is to be written, which is then taken as done.
    pub(crate) fn is_due(&self, denial: &Denial) -> bool {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (denial.user.clone(), denial.code);
        let due = written.get(&place).is_none_or(|at| denial.at.ms_since(*at) >= QUIET_MS);
        if due {
            written.put(place, denial.at);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Refusal, Tokens};

    fn denial(user: &str, refusal: &Refusal, at_ms: u64) -> Denial {
        let user = UserId::parse(user).unwrap();
        let at = Timestamp::from_ms(at_ms);
        Denial::of(refusal, (user, Timestamp::from_s(0)), Tokens::ZERO, at)
    }

    #[test]
    fn i8_one_user_is_written_once_in_ten_seconds_for_each_kind() {
        let denials = Denials::new();
        let owes = Refusal::PastDue { pay_by: Timestamp::from_s(1) };
        let full = Refusal::Concurrency { limit: 2, until_most: Timestamp::from_s(1) };
        assert!(denials.is_due(&denial("a", &owes, 5_000)));
        assert!(!denials.is_due(&denial("a", &owes, 14_999)));
        assert!(!denials.is_due(&denial("a", &owes, 4_000)), "a clock that went back");
        assert!(denials.is_due(&denial("a", &full, 14_999)) && denials.is_due(&denial("b", &owes, 14_999)));
        assert!(denials.is_due(&denial("a", &owes, 15_000)));
        assert!(!denials.is_due(&denial("a", &owes, 24_999)), "not counted from what was written last");
    }

    #[test]
    fn i8_f18_what_is_remembered_is_bounded() {
        let denials = Denials::new();
        let owes = Refusal::PastDue { pay_by: Timestamp::from_s(1) };
        for n in 0..=REMEMBERED_MAX.get() {
            assert!(denials.is_due(&denial(&format!("u{n}"), &owes, 0)));
        }
        assert_eq!(denials.0.lock().unwrap().len(), REMEMBERED_MAX.get());
        assert!(denials.is_due(&denial("u0", &owes, 1)), "the longest unused is forgotten");
    }
}
