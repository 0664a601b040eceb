//! Who and what: identifiers, each a type of its own with a bounded, printable alphabet.
//!
//! An identifier becomes part of a storage key and of an identifier at Stripe, so none may hold the separator `#`, a
//! space or a control character. Stripe's own become part of an address as well: they are letters, digits and `_`, so that
//! none can be read there as another path.

use std::fmt;

/// A string that cannot be this kind of identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind}: it must be 1 to {length_max} characters of {alphabet}")]
pub struct InvalidId {
    /// What it should have been.
    pub kind: &'static str,
    /// What it may be made of.
    pub alphabet: &'static str,
    /// The longest allowed length, in bytes.
    pub length_max: usize,
}

/// What an identifier may be made of.
struct Alphabet {
    name: &'static str,
    holds: fn(u8) -> bool,
}

/// Ours, and Clerk's.
const PLAIN: Alphabet = Alphabet {
    name: "A-Z a-z 0-9 . _ : / -",
    holds: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-'),
};

/// Stripe's.
const WORD: Alphabet =
    Alphabet { name: "A-Z a-z 0-9 _", holds: |byte| byte.is_ascii_alphanumeric() || byte == b'_' };

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $alphabet:ident, $length_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The longest accepted length, in bytes.
            pub const LENGTH_MAX: usize = $length_max;

            /// Parses an identifier.
            ///
            /// # Errors
            /// When it is empty, too long, or has a character outside its alphabet.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let fits = !text.is_empty() && text.len() <= Self::LENGTH_MAX;
                if fits && text.bytes().all($alphabet.holds) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { kind: $kind, alphabet: $alphabet.name, length_max: Self::LENGTH_MAX })
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
    UserId, "user id", PLAIN, 64
);
id!(
    /// The customer at Stripe that is billed for a user: `cus_...`.
    CustomerId, "customer id", WORD, 255
);
id!(
    /// The subscription at Stripe that a plan was bought with: `sub_...`.
    SubscriptionId, "subscription id", WORD, 255
);
id!(
    /// An event that Stripe tells of: `evt_...`.
    EventId, "event id", WORD, 255
);
id!(
    /// An invoice at Stripe: `in_...`.
    InvoiceId, "invoice id", WORD, 255
);
id!(
    /// One line of an invoice that somebody put on it: `ii_...`.
    InvoiceItemId, "invoice item id", WORD, 255
);
id!(
    /// One attempt at one request. Also the id of its receipt, and the `messageId` of its stream.
    HoldId, "hold id", PLAIN, 40
);
id!(
    /// A plan of `infra/plans.toml`.
    PlanId, "plan id", PLAIN, 32
);
id!(
    /// A model of `infra/models.toml`.
    ModelId, "model id", PLAIN, 64
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

    #[test]
    fn an_id_of_stripes_is_one_word_in_an_address() {
        let longest = "x".repeat(255);
        for good in ["cus_1", "evt_1AbC", &longest] {
            assert!(CustomerId::parse(good).is_ok() && SubscriptionId::parse(good).is_ok(), "{good}");
            let others = (EventId::parse(good), InvoiceId::parse(good), InvoiceItemId::parse(good));
            assert!(others.0.is_ok() && others.1.is_ok() && others.2.is_ok(), "{good}");
        }
        for bad in ["", "a/b", "..", "a.b", "a-b", "a:b", "a?b", "a%2f", &"x".repeat(256)] {
            assert!(CustomerId::parse(bad).is_err() && SubscriptionId::parse(bad).is_err(), "{bad}");
            let others = (EventId::parse(bad), InvoiceId::parse(bad), InvoiceItemId::parse(bad));
            assert!(others.0.is_err() && others.1.is_err() && others.2.is_err(), "{bad}");
        }
        let told = InvoiceId::parse("in/1").unwrap_err().to_string();
        assert_eq!(told, "no invoice id: it must be 1 to 255 characters of A-Z a-z 0-9 _");
    }
}
