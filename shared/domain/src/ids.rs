//! Who and what: identifiers, each a type of its own with a bounded, printable alphabet.
//!
//! An identifier becomes part of a storage key and of an identifier at Stripe, so none may hold the separator `#`, a
//! space or a control character.

use std::fmt;

/// A string that cannot be this kind of identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: it must be 1 to {length_max} characters of A-Z a-z 0-9 . _ : / -")]
pub struct InvalidId {
    /// What it should have been.
    pub kind: &'static str,
    /// The longest allowed length, in bytes.
    pub length_max: usize,
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-')
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $length_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The longest accepted length, in bytes.
            pub const LENGTH_MAX: usize = $length_max;

            /// Parses an identifier.
            ///
            /// # Errors
            /// When it is empty, too long, or has a character outside `A-Z a-z 0-9 . _ : / -`.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let fits = !text.is_empty() && text.len() <= Self::LENGTH_MAX;
                if fits && text.bytes().all(is_plain) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { kind: $kind, length_max: Self::LENGTH_MAX })
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// The user that consumes and pays: Clerk's `sub`, `user_...`.
    UserId, "user id", 64
);
id!(
    /// The customer at Stripe that is billed for a user: `cus_...`.
    CustomerId, "customer id", 64
);
id!(
    /// The subscription at Stripe that a plan was bought with: `sub_...`.
    SubscriptionId, "subscription id", 64
);
id!(
    /// One attempt at one request. Also the id of its receipt, and the `messageId` of its stream.
    HoldId, "hold id", 40
);
id!(
    /// A plan of `infra/plans.toml`.
    PlanId, "plan id", 32
);
id!(
    /// A model of `infra/models.toml`.
    ModelId, "model id", 64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_holds_the_key_separator() {
        assert!(UserId::parse("user_2abcDEF").is_ok());
        for bad in ["", "a#b", "a b", "a\n", "ü", &"x".repeat(65)] {
            assert!(UserId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
