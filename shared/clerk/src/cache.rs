//! What is known of the keys that Clerk publishes, and what follows for one token at one instant. Pure: does no I/O,
//! reads no clock.
//!
//! One rule bounds what strangers can cause: Clerk is asked once in [`COOLDOWN_MS`] at most, whatever tokens come.

use crate::{KeyId, VerifyingKey, jwks::KeySet};
use domain::Timestamp;
use std::collections::VecDeque;

/// How long a set is gone by without asking again, in milliseconds: as long as Clerk's own backend does. A key that is
/// taken back is used for that long at most, while Clerk answers.
const FRESH_MS: u64 = 300_000;
/// How long a set is gone by while Clerk does not answer, in milliseconds. Then nobody gets in.
const STALE_MS: u64 = 3_600_000;
/// From one time that Clerk is asked to the next, in milliseconds.
const COOLDOWN_MS: u64 = 5_000;
/// How long an id that was asked for and not there counts as not there, in milliseconds.
const UNKNOWN_MS: u64 = 60_000;
/// The most such ids. Beyond it the oldest is forgotten, and may cost one more question, once the cooldown allows it.
const UNKNOWN_IDS_MAX: usize = 64;

/// A set, and since when it is gone by.
struct Known {
    keys: KeySet,
    since: Timestamp,
}

/// The last time that Clerk was asked.
#[derive(Clone, Copy)]
struct Asked {
    at: Timestamp,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is still being asked, or whoever asked was dropped.
    Pending,
    /// It gave no set.
    Failed,
    /// It gave one.
    Answered,
}

/// The keys, as far as they are known.
#[derive(Default)]
pub(crate) struct Cache {
    known: Option<Known>,
    asked: Option<Asked>,
    unknown: VecDeque<(KeyId, Timestamp)>,
}

/// What follows for a token.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// This is its key.
    Key(VerifyingKey),
    /// This is its key, from a set that is no longer fresh: one request should ask again, and none needs to wait.
    Due(VerifyingKey),
    /// Clerk has to be asked, or is being asked.
    Ask,
    /// Clerk publishes no such key.
    Unknown,
    /// It cannot be said now.
    Unavailable,
}

impl Cache {
    /// What follows for a token with this key id.
    pub(crate) fn look(&self, id: &KeyId, now: Timestamp) -> Look {
        let known = self.known.as_ref().filter(|known| apart_ms(known.since, now) < STALE_MS);
        let asked = self.asked.filter(|asked| apart_ms(asked.at, now) < COOLDOWN_MS);
        if let Some((known, key)) = known.and_then(|known| Some((known, known.keys.get(id)?))) {
            let fresh = apart_ms(known.since, now) < FRESH_MS;
            return if fresh || asked.is_some() { Look::Key(key.clone()) } else { Look::Due(key.clone()) };
        }
        if self.is_unknown(id, now) {
            return Look::Unknown;
        }
        match asked.map(|asked| asked.outcome) {
            None | Some(Outcome::Pending) => Look::Ask,
            // The set is newer than the cooldown is long. A key that has come since is found when it is over.
            Some(Outcome::Answered) => Look::Unknown,
            Some(Outcome::Failed) => Look::Unavailable,
        }
    }

    /// Notes that Clerk is being asked, before it is, so that the cooldown holds even if whoever asks is dropped.
    pub(crate) fn asking(&mut self, now: Timestamp) {
        self.asked = Some(Asked { at: now, outcome: Outcome::Pending });
    }

    /// Notes that nobody asks any more: what was asked and not answered has failed.
    pub(crate) fn nobody_asks(&mut self) {
        if let Some(asked @ Asked { outcome: Outcome::Pending, .. }) = &mut self.asked {
            asked.outcome = Outcome::Failed;
        }
    }

    /// Takes Clerk's answer to a question that `id`, if any, was the reason for. What was known before is forgotten, so that a key
    /// that Clerk has taken back is gone.
    pub(crate) fn answered(&mut self, keys: KeySet, id: Option<&KeyId>, now: Timestamp) {
        if let Some(id) = id.filter(|id| keys.get(id).is_none()) {
            self.unknown.retain(|(other, _)| other != id);
            if self.unknown.len() >= UNKNOWN_IDS_MAX {
                self.unknown.pop_front();
            }
            self.unknown.push_back((id.clone(), now));
        }
        self.asked = Some(Asked { at: now, outcome: Outcome::Answered });
        self.known = Some(Known { keys, since: now });
    }

    fn is_unknown(&self, id: &KeyId, now: Timestamp) -> bool {
        self.unknown.iter().any(|(other, since)| other == id && apart_ms(*since, now) < UNKNOWN_MS)
    }
}

/// The time between two instants, whichever is first: requests that wait for the same answer have each their own `now`,
/// and a clock that was set back must not make a set last.
fn apart_ms(one: Timestamp, other: Timestamp) -> u64 {
    one.ms_since(other).max(other.ms_since(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> KeySet {
        let key = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "a", "n": format!("{}w", "_".repeat(341)), "e": "AQAB"});
        KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn i8_no_more_unknown_ids_are_remembered_than_the_bound() {
        let mut cache = Cache::default();
        let id = |number: usize| KeyId::parse(&number.to_string()).unwrap();
        let now = Timestamp::from_s(1_800_000_000);
        for number in 0..10 * UNKNOWN_IDS_MAX {
            cache.answered(set(), Some(&id(number)), now);
            cache.answered(set(), Some(&id(number)), now);
            assert!(cache.unknown.len() <= UNKNOWN_IDS_MAX);
        }
        let later = now.plus_ms(COOLDOWN_MS);
        assert!(matches!(cache.look(&id(10 * UNKNOWN_IDS_MAX - 1), later), Look::Unknown));
        assert!(matches!(cache.look(&id(9 * UNKNOWN_IDS_MAX), later), Look::Unknown));
        assert!(matches!(cache.look(&id(9 * UNKNOWN_IDS_MAX - 1), later), Look::Ask));
    }
}
