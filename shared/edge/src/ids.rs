//! Ids of holds: unique without asking anybody, and sorted by time, so that a user's receipts lie in the order in which
//! they came.

use crate::clock;
use domain::{HoldId, Timestamp};

/// Crockford's base 32: digits and letters without I, L, O and U, in ASCII order, so that text sorts as the number does.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of an id: 130 bits, of which 128 are used.
const LENGTH: u32 = 26;
const LENGTH_BYTES: usize = 26;
const BITS_PER_CHARACTER: u32 = 5;
const RANDOM_BITS: u32 = 80;
const TIME_MASK: u128 = (1 << 48) - 1;
const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;

/// A new id: 48 bits of milliseconds, 80 bits of a cryptographically secure random source; 26 characters.
pub fn new_hold_id() -> HoldId {
    hold_id(clock::now(), rand::random())
}

/// Reads an id as [`new_hold_id`] makes them; none from anything else.
pub fn parse_hold_id(text: &str) -> Option<HoldId> {
    let is_ours = text.len() == LENGTH_BYTES && text.bytes().all(|byte| ALPHABET.contains(&byte));
    if is_ours { HoldId::parse(text).ok() } else { None }
}

/// A random number below `bound`; 0 where that is 0.
pub fn chance(bound: u64) -> u64 {
    rand::random::<u64>().checked_rem(bound).unwrap_or(0)
}

/// The id of this instant and these random bits, of which the lowest 80 count.
#[expect(clippy::expect_used, reason = "26 letters and digits are an id by definition")]
fn hold_id(now: Timestamp, random: u128) -> HoldId {
    let number = ((u128::from(now.ms()) & TIME_MASK) << RANDOM_BITS) | (random & RANDOM_MASK);
    let text: String = (0..LENGTH)
        .rev()
        .filter_map(|place| {
            let digit = (number >> (place * BITS_PER_CHARACTER)) & 31;
            usize::try_from(digit).ok().and_then(|digit| ALPHABET.get(digit)).copied().map(char::from)
        })
        .collect();
    HoldId::parse(&text).expect("base 32 is plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_26_characters_and_sorts_by_time() {
        let early = hold_id(Timestamp::from_ms(1), u128::MAX);
        let late = hold_id(Timestamp::from_ms(2), 0);
        assert_eq!(early.as_str(), "0000000001ZZZZZZZZZZZZZZZZ");
        assert_eq!(late.as_str(), "00000000020000000000000000");
        assert!(early < late);
        assert_eq!(hold_id(Timestamp::MAX, 0).as_str().len(), 26);
    }

    #[test]
    fn only_an_id_of_ours_is_read() {
        let id = new_hold_id();
        assert_eq!(parse_hold_id(id.as_str()), Some(id.clone()));
        let lower = id.as_str().to_lowercase();
        for other in ["", "h1", &id.as_str()[1..], &format!("{id}0"), &lower, "U0000000000000000000000000"] {
            assert_eq!(parse_hold_id(other), None, "{other}");
        }
    }

    #[test]
    fn two_ids_of_one_instant_differ() {
        assert_ne!(new_hold_id(), new_hold_id());
    }
}
