//! A JSON web key set (RFC 7517) as Clerk publishes it. Owns which of its keys can verify a session token; does no I/O.
//!
//! Keys of other kinds and uses are passed over, as the RFC's section 5 has it. A set that says two things at once, by
//! a repeated member or a `kid` that two usable keys share, is refused whole: whoever picked one of them might pick the
//! wrong one.

use crate::{KeyId, VerifyingKey, json};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// The most keys that a set may have, of whatever kind. Clerk's has one, and two or three while it changes.
const KEYS_MAX: usize = 16;

/// Why a document is not a key set to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidKeySet {
    /// Not a JSON object, or one in which a member is repeated.
    #[error("not a JSON object that says each thing once")]
    NotAnObject,
    /// No list `keys`, or one that is too long.
    #[error("no list of at most {KEYS_MAX} keys")]
    NotAList,
    /// Two usable keys have the same id.
    #[error("two keys with the same id")]
    DuplicateKid,
    /// No usable key: going by such a set would lock everybody out.
    #[error("no RSA key for RS256 signatures of 2048 to 4096 bits that has an id")]
    NoKey,
}

/// The keys by which session tokens can be verified, each under its id; at least one, and no two with the same id.
#[derive(Clone, Debug)]
pub(crate) struct KeySet(Box<[(KeyId, VerifyingKey)]>);

impl KeySet {
    /// Reads a set.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, InvalidKeySet> {
        let document = json::object(document).map_err(|_| InvalidKeySet::NotAnObject)?;
        let listed = document.get("keys").and_then(Value::as_array);
        let listed = listed.filter(|keys| keys.len() <= KEYS_MAX).ok_or(InvalidKeySet::NotAList)?;
        let mut keys: Vec<(KeyId, VerifyingKey)> = Vec::with_capacity(listed.len());
        for (id, key) in listed.iter().filter_map(usable) {
            if keys.iter().any(|(other, _)| *other == id) {
                return Err(InvalidKeySet::DuplicateKid);
            }
            keys.push((id, key));
        }
        if keys.is_empty() { Err(InvalidKeySet::NoKey) } else { Ok(Self(keys.into())) }
    }

    /// The key with this id.
    pub(crate) fn get(&self, id: &KeyId) -> Option<&VerifyingKey> {
        self.0.iter().find(|(other, _)| other == id).map(|(_, key)| key)
    }
}

/// The key, if it is one for RS256 signatures and says so.
fn usable(key: &Value) -> Option<(KeyId, VerifyingKey)> {
    let member = |name: &str| key.get(name).and_then(Value::as_str);
    let fits = member("kty") == Some("RSA") && member("use") == Some("sig") && member("alg") == Some("RS256");
    let number = |name: &str| URL_SAFE_NO_PAD.decode(member(name)?).ok();
    let id = KeyId::parse(member("kid")?).ok().filter(|_| fits)?;
    Some((id, VerifyingKey::from_components(&number("n")?, &number("e")?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A number of this many bits, and no key's modulus.
    fn modulus(bits: usize) -> String {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] = 0xff >> (bytes.len() * 8 - bits);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn key(id: &str) -> Value {
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": modulus(2_048), "e": "AQAB"})
    }

    /// A key with a member set, or taken out.
    fn with(name: &str, value: Option<Value>) -> Value {
        let mut key = key("a");
        let members = key.as_object_mut().unwrap();
        match value {
            Some(value) => members.insert(name.to_owned(), value),
            None => members.remove(name),
        };
        key
    }

    #[track_caller]
    fn check(keys: &[Value], expected: Result<usize, InvalidKeySet>) {
        let document = json!({ "keys": keys }).to_string();
        let found = KeySet::parse(document.as_bytes()).map(|set| set.0.len());
        assert_eq!(found, expected, "{document}");
    }

    #[test]
    fn keys_for_anything_else_are_passed_over() {
        for (name, value) in [
            ("kty", Some(json!("EC"))),
            ("kty", Some(json!("rsa"))),
            ("kty", None),
            ("use", Some(json!("enc"))),
            ("use", None),
            ("alg", Some(json!("RS384"))),
            ("alg", Some(json!("none"))),
            ("alg", None),
            ("kid", Some(json!(""))),
            ("kid", Some(json!("a b"))),
            ("kid", Some(json!(7))),
            ("kid", Some(json!("k".repeat(129)))),
            ("kid", None),
            ("n", Some(json!(modulus(2_047)))),
            ("n", Some(json!(modulus(4_097)))),
            ("n", Some(json!(""))),
            ("n", Some(json!("+/+/"))),
            ("n", None),
            ("e", Some(json!("AQ"))),
            ("e", Some(json!("AA"))),
            ("e", Some(json!("AQAA"))),
            ("e", Some(json!(""))),
            ("e", Some(json!("AQAAAAE"))),
            ("e", Some(json!(65_537))),
            ("e", None),
        ] {
            let keys = [with(name, value), key("b")];
            check(&keys[..1], Err(InvalidKeySet::NoKey));
            check(&keys, Ok(1));
        }
        check(&[json!(null), json!("a"), json!([]), key("b")], Ok(1));
        // An even number is no product of two odd primes.
        let even = URL_SAFE_NO_PAD.encode([&[0xff; 255][..], &[0xfe]].concat());
        check(&[with("n", Some(json!(even)))], Err(InvalidKeySet::NoKey));
    }

    #[test]
    fn moduli_of_2048_to_4096_bits_are_taken_and_leading_zeros_do_not_count() {
        for bits in [2_048, 3_072, 4_096] {
            check(&[with("n", Some(json!(modulus(bits))))], Ok(1));
        }
        let zeros = |bits: usize| {
            let number = URL_SAFE_NO_PAD.decode(modulus(bits)).unwrap();
            URL_SAFE_NO_PAD.encode([&[0; 8][..], &number].concat())
        };
        check(&[with("n", Some(json!(zeros(4_096))))], Ok(1));
        check(&[with("n", Some(json!(zeros(2_040))))], Err(InvalidKeySet::NoKey));
        check(&[with("e", Some(json!("Aw")))], Ok(1));
    }

    #[test]
    fn a_set_that_says_two_things_at_once_is_refused() {
        check(&[key("a"), key("b")], Ok(2));
        check(&[key("a"), key("b"), key("a")], Err(InvalidKeySet::DuplicateKid));
        // Of two keys with one id, one cannot sign sessions: nothing is unclear.
        check(&[key("a"), with("use", Some(json!("enc")))], Ok(1));
        let twice = key("a").to_string().replacen('{', r#"{"n":"AQAB","#, 1);
        for document in
            [format!("{{\"keys\":[{twice}]}}"), format!("{{\"keys\":[],\"keys\":[{}]}}", key("a"))]
        {
            assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(InvalidKeySet::NotAnObject));
        }
    }

    #[test]
    fn i8_a_set_of_more_keys_than_the_bound_is_refused() {
        let keys: Vec<_> = (0..=KEYS_MAX).map(|number| key(&number.to_string())).collect();
        check(&keys[1..], Ok(KEYS_MAX));
        check(&keys, Err(InvalidKeySet::NotAList));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for (document, expected) in [
            ("", InvalidKeySet::NotAnObject),
            ("[]", InvalidKeySet::NotAnObject),
            ("{", InvalidKeySet::NotAnObject),
            ("{}", InvalidKeySet::NotAList),
            (r#"{"keys":{}}"#, InvalidKeySet::NotAList),
            (r#"{"keys":null}"#, InvalidKeySet::NotAList),
            (r#"{"keys":[]}"#, InvalidKeySet::NoKey),
        ] {
            assert_eq!(KeySet::parse(document.as_bytes()).err(), Some(expected), "{document}");
        }
    }
}
