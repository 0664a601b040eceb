//! Claims: who works on a request that may be repeated, and what became of it.
//!
//! A client that gives a request a key may send it again, because it heard nothing of the first. The claim on that key, put
//! before anything else is done, decides which of them works. It never decides what is charged: that is the receipt's.

use crate::{HoldId, Timestamp, UserId};
use std::fmt;

/// How long a claim is remembered, in milliseconds: 24 hours from its first request.
pub const CLAIM_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// The longest answer that is kept with a claim, in bytes. What DynamoDB takes in one item is 400 KB.
pub const ANSWER_BYTES_MAX: usize = 128 * 1024;

/// A SHA-256 digest: of an idempotency key, or of a request's body. Nothing of what was digested can be read from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Self::BYTES]);

impl Digest {
    /// Its length, in bytes.
    pub const BYTES: usize = 32;

    /// These bytes.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// From 64 lower-case hexadecimal digits, as it is displayed; none from anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let (pairs, odd) = hex.as_bytes().as_chunks::<2>();
        if pairs.len() != Self::BYTES || !odd.is_empty() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)?.checked_mul(16)?.checked_add(nibble(*low)?)?;
        }
        Some(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a')?.checked_add(10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One user's claim on one idempotency key.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub user: UserId,
    /// The key's digest.
    pub key: Digest,
    /// The digest of the body that the key was first sent with.
    pub body: Digest,
    /// Who has the claim: an id of one invocation's own, never used twice.
    pub owner: HoldId,
    /// How far it is.
    pub state: ClaimState,
    /// From when on the key is free again.
    pub forget_at: Timestamp,
}

/// How far a claimed request is.
#[derive(Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// Its owner works on it.
    Running {
        /// Until when at the most: after that its owner is gone. The same instant at which its hold expires.
        until: Timestamp,
        /// The hold that it was admitted with; none before that, and then the provider was not called either.
        hold: Option<HoldRef>,
    },
    /// It was served.
    Ended {
        /// The hold that it was admitted with, whose receipt says what it cost.
        hold: HoldRef,
        /// The answer in the form of whoever wrote it; none where it is not kept. At most [`ANSWER_BYTES_MAX`].
        answer: Option<String>,
    },
}

/// Where a hold is, or its receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRef {
    /// The start of the period that is charged.
    pub period_start: Timestamp,
    /// The hold's id.
    pub id: HoldId,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, key, owner, state, .. } = self;
        f.debug_struct("Claim")
            .field("user", user)
            .field("key", key)
            .field("owner", owner)
            .field("state", state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClaimState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { until, hold } => {
                f.debug_struct("Running").field("until", until).field("hold", hold).finish()
            }
            Self::Ended { hold, answer } => {
                let bytes = answer.as_ref().map(String::len);
                f.debug_struct("Ended").field("hold", hold).field("answer_bytes", &bytes).finish()
            }
        }
    }
}

/// What a claim that stands means for a repeated request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The key was used with another body.
    OtherBody,
    /// Its owner is at work.
    Running,
    /// Its owner is gone, and nobody can say how far it came but the ledger.
    Abandoned,
    /// It was served.
    Ended,
}

impl Claim {
    /// A claim that its owner begins with at `now`, for at most `run_ms`.
    pub fn begin(
        user: UserId,
        key: Digest,
        body: Digest,
        owner: HoldId,
        run_ms: u64,
        now: Timestamp,
    ) -> Self {
        let state = ClaimState::Running { until: now.plus_ms(run_ms), hold: None };
        Self { user, key, body, owner, state, forget_at: now.plus_ms(CLAIM_KEPT_MS) }
    }

    /// Whether the key is free again.
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        self.forget_at <= now
    }

    /// What it means for a request with the same key and this body at `now`.
    pub fn repeated(&self, body: Digest, now: Timestamp) -> Repeat {
        match &self.state {
            _ if self.body != body => Repeat::OtherBody,
            ClaimState::Running { until, .. } if now < *until => Repeat::Running,
            ClaimState::Running { .. } => Repeat::Abandoned,
            ClaimState::Ended { .. } => Repeat::Ended,
        }
    }

    /// Whether `change` may take its place: it is still running, and still `owner`'s.
    pub fn is_running_for(&self, owner: &HoldId) -> bool {
        matches!(self.state, ClaimState::Running { .. }) && self.owner == *owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        let owner = HoldId::parse("c1").unwrap();
        let user = UserId::parse("user_1").unwrap();
        Claim::begin(user, Digest::new([1; 32]), Digest::new([2; 32]), owner, 1_000, Timestamp::from_s(10))
    }

    #[test]
    fn a_repeat_waits_for_its_owner_until_that_is_gone() {
        let (claim, body) = (claim(), Digest::new([2; 32]));
        assert_eq!(claim.repeated(Digest::new([3; 32]), Timestamp::from_s(10)), Repeat::OtherBody);
        assert_eq!(claim.repeated(body, Timestamp::from_ms(10_999)), Repeat::Running);
        assert_eq!(claim.repeated(body, Timestamp::from_ms(11_000)), Repeat::Abandoned);
        let hold = HoldRef { period_start: Timestamp::from_s(1), id: HoldId::parse("h1").unwrap() };
        let ended = Claim { state: ClaimState::Ended { hold, answer: None }, ..claim.clone() };
        assert_eq!(ended.repeated(body, Timestamp::from_s(99)), Repeat::Ended);
        assert_eq!(ended.repeated(Digest::new([3; 32]), Timestamp::from_s(99)), Repeat::OtherBody);
        assert!(claim.is_running_for(&claim.owner) && !ended.is_running_for(&claim.owner));
        assert!(!claim.is_running_for(&HoldId::parse("c2").unwrap()));
    }

    #[test]
    fn a_key_is_free_again_after_24_hours() {
        let claim = claim();
        let day = Timestamp::from_s(10).plus_ms(CLAIM_KEPT_MS);
        assert!(!claim.is_forgotten(Timestamp::from_ms(day.ms() - 1)) && claim.is_forgotten(day));
    }

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is() {
        let digest = Digest::new(std::array::from_fn(|at| u8::try_from(at * 8).unwrap()));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        let text = digest.to_string();
        for bad in ["", &text[1..], &format!("{text}0"), &text.replace("f8", "F8"), &text.replace("f8", "g8")]
        {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_prints_an_answer() {
        let hold = HoldRef { period_start: Timestamp::from_s(1), id: HoldId::parse("h1").unwrap() };
        let state = ClaimState::Ended { hold, answer: Some("secret".to_owned()) };
        assert!(!format!("{:?}", Claim { state, ..claim() }).contains("secret"));
    }
}
