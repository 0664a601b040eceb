//! Is this webhook from Stripe, and recent? Only then what it is about. Nothing is read from a body before its signature.
//!
//! The scheme is Stripe's `v1`: `Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>...]`, where each `v1` is an
//! HMAC-SHA256 of `<t>.<body>` under one signing secret. While a secret is rolled, Stripe signs under both, and the endpoint
//! knows both.

use crate::client::Secret;
use domain::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// How far the time of a signature may lie from now, in seconds, before or after: Stripe's own libraries' figure.
pub const TOLERANCE_S: u64 = 300;
/// The most signatures of one header that are looked at.
pub const SIGNATURES_MAX: usize = 8;

/// Bytes of an HMAC-SHA256.
const SIGNATURE_BYTES: usize = 32;

/// A webhook event, by the few fields that are read. What it says of its object is not among them: fetch the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `evt_...`, the same however often the event is delivered.
    pub id: String,
    /// The type, such as `customer.subscription.updated`.
    pub kind: String,
    /// The id of the object that it is about, if it names one.
    pub object: Option<String>,
}

/// This is no webhook to act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The header has no time or no `v1` signature.
    #[error("the Stripe-Signature header has no time or no v1 signature")]
    Header,
    /// No signature fits: not from Stripe, changed on the way, or signed under a secret that is not known here.
    #[error("no signature fits the body")]
    Signature,
    /// Signed, but too long ago, or ahead of this clock.
    #[error("signed {age_s} s away from now; at most {TOLERANCE_S} s are allowed")]
    Stale {
        /// The distance between the signature's time and now, in seconds.
        age_s: u64,
    },
    /// Signed, recent, and not an event.
    #[error("the signed body is not an event: {0}")]
    Body(String),
}

/// Checks a webhook against the signing secrets of its endpoint and reads what it is about.
///
/// `signature_header` is the value of `Stripe-Signature`; `body` is the body as it came, byte for byte.
///
/// # Errors
/// When no signature fits, the signature's time is more than [`TOLERANCE_S`] away from `now`, or the body is no event.
pub fn verify_webhook(
    body: &[u8],
    signature_header: &str,
    secrets: &[Secret],
    now: Timestamp,
) -> Result<Event, WebhookError> {
    let header = Header::parse(signature_header).ok_or(WebhookError::Header)?;
    if !secrets.iter().any(|secret| header.fits(body, secret)) {
        return Err(WebhookError::Signature);
    }
    let age_s = header.signed_at.abs_diff(now.s());
    if age_s > TOLERANCE_S {
        return Err(WebhookError::Stale { age_s });
    }
    read(body)
}

struct Header<'a> {
    /// The time as it was written, which is what was signed.
    time: &'a str,
    signed_at: u64,
    signatures: Vec<[u8; SIGNATURE_BYTES]>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts = || text.split(',').filter_map(|part| part.trim().split_once('='));
        let (_, time) = parts().find(|(scheme, _)| *scheme == "t")?;
        let signatures: Vec<_> = parts()
            .filter(|(scheme, _)| *scheme == "v1")
            .take(SIGNATURES_MAX)
            .filter_map(|(_, hex)| from_hex(hex))
            .collect();
        if signatures.is_empty() {
            return None;
        }
        Some(Self { time, signed_at: time.parse().ok()?, signatures })
    }

    /// Whether any signature is the body's under this secret. Each comparison takes the same time wherever the two differ.
    fn fits(&self, body: &[u8], secret: &Secret) -> bool {
        self.signatures.iter().any(|signature| {
            let Some(mac) = mac(self.time, body, secret) else { return false };
            mac.verify_slice(signature).is_ok()
        })
    }
}

/// None cannot be: an HMAC takes a key of any length. An empty secret is none, since everybody knows it.
pub(crate) fn mac(time: &str, body: &[u8], secret: &Secret) -> Option<Hmac<Sha256>> {
    let key = Some(secret.expose().as_bytes()).filter(|key| !key.is_empty())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

fn from_hex(hex: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Vec<u8> =
        pairs.iter().map(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?)).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[derive(serde::Deserialize)]
struct Wire {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: Option<WireData>,
    related_object: Option<WireObject>,
}

#[derive(serde::Deserialize)]
struct WireData {
    object: Option<WireObject>,
}

#[derive(serde::Deserialize)]
struct WireObject {
    id: Option<String>,
}

/// Reads a snapshot event (`data.object`) or a thin one (`related_object`).
fn read(body: &[u8]) -> Result<Event, WebhookError> {
    let wire: Wire = serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
    let object = wire.data.and_then(|data| data.object).or(wire.related_object).and_then(|object| object.id);
    Ok(Event { id: wire.id, kind: wire.kind, object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sign;

    const BODY: &str = r#"{"id":"evt_1","object":"event","type":"customer.subscription.updated","data":{"object":{"id":"sub_1"}}}"#;
    const NOW_S: u64 = 1_800_000_000;

    fn verify(body: &str, header: &str, secrets: &[&str], now_s: u64) -> Result<Event, WebhookError> {
        let secrets: Vec<_> = secrets.iter().copied().map(Secret::new).collect();
        verify_webhook(body.as_bytes(), header, &secrets, Timestamp::from_s(now_s))
    }

    fn header(time_s: u64, secrets: &[&str]) -> String {
        let signed = |header, secret: &&str| format!("{header},v1={}", sign(BODY, secret, time_s));
        secrets.iter().fold(format!("t={time_s}"), signed) + ",v0=00"
    }

    #[test]
    fn a_signed_event_is_read_by_the_fields_that_are_used() {
        let event = verify(BODY, &header(NOW_S, &["whsec_a"]), &["whsec_a"], NOW_S).unwrap();
        let expected = Event {
            id: "evt_1".into(),
            kind: "customer.subscription.updated".into(),
            object: Some("sub_1".into()),
        };
        assert_eq!(event, expected);
    }

    /// Computed with another implementation: `printf '1800000000.{}' | openssl dgst -sha256 -hmac whsec_test`.
    #[test]
    fn a_signature_is_the_one_that_openssl_computes() {
        let known = "482e6337ac5272392d375c6fdc4d52a7e615dc2facedab0ffe155ddfd6a56e66";
        assert_eq!(sign("{}", "whsec_test", NOW_S), known);
    }

    #[test]
    fn a_changed_body_time_or_secret_does_not_pass() {
        let header_a = header(NOW_S, &["whsec_a"]);
        let changed = BODY.replace("sub_1", "sub_2");
        assert_eq!(verify(&changed, &header_a, &["whsec_a"], NOW_S), Err(WebhookError::Signature));
        assert_eq!(verify(BODY, &header_a, &["whsec_b"], NOW_S), Err(WebhookError::Signature));
        assert_eq!(verify(BODY, &header_a, &[], NOW_S), Err(WebhookError::Signature));
        let moved = header_a.replacen(&NOW_S.to_string(), &(NOW_S + 1).to_string(), 1);
        assert_eq!(verify(BODY, &moved, &["whsec_a"], NOW_S), Err(WebhookError::Signature));
    }

    #[test]
    fn while_a_secret_is_rolled_either_side_may_know_both() {
        assert!(verify(BODY, &header(NOW_S, &["old", "new"]), &["new"], NOW_S).is_ok());
        assert!(verify(BODY, &header(NOW_S, &["new"]), &["old", "new"], NOW_S).is_ok());
    }

    #[test]
    fn an_empty_secret_accepts_nothing() {
        assert_eq!(verify(BODY, &header(NOW_S, &[""]), &[""], NOW_S), Err(WebhookError::Signature));
    }

    #[test]
    fn a_signature_is_good_for_five_minutes_either_way() {
        let header = header(NOW_S, &["whsec_a"]);
        let at = |now_s| verify(BODY, &header, &["whsec_a"], now_s);
        assert!(at(NOW_S + 300).is_ok() && at(NOW_S - 300).is_ok());
        assert_eq!(at(NOW_S + 301), Err(WebhookError::Stale { age_s: 301 }));
        assert_eq!(at(NOW_S - 301), Err(WebhookError::Stale { age_s: 301 }));
    }

    #[test]
    fn a_header_without_a_time_or_a_v1_signature_is_refused() {
        for bad in ["", "t=1800000000", "v1=00", "t=x,v1=00", "t=1800000000,v1=zz", "t=1800000000,v0=00"] {
            assert_eq!(verify(BODY, bad, &["whsec_a"], NOW_S), Err(WebhookError::Header), "{bad:?}");
        }
    }

    #[test]
    fn only_so_many_signatures_are_looked_at() {
        let wrong = format!(",v1={}", "0".repeat(64)).repeat(SIGNATURES_MAX);
        let header = format!("t={NOW_S}{wrong},v1={}", sign(BODY, "whsec_a", NOW_S));
        assert_eq!(verify(BODY, &header, &["whsec_a"], NOW_S), Err(WebhookError::Signature));
    }

    #[test]
    fn a_thin_event_names_its_related_object() {
        let thin =
            r#"{"id":"evt_2","type":"v1.billing.meter.no_meter_found","related_object":{"id":"mtr_1"}}"#;
        let header = format!("t={NOW_S},v1={}", sign(thin, "whsec_a", NOW_S));
        let event = verify(thin, &header, &["whsec_a"], NOW_S).unwrap();
        assert_eq!(event.object.as_deref(), Some("mtr_1"));
    }

    #[test]
    fn a_signed_body_that_is_no_event_is_an_error_of_its_own() {
        let header = format!("t={NOW_S},v1={}", sign("[]", "whsec_a", NOW_S));
        assert!(matches!(verify("[]", &header, &["whsec_a"], NOW_S), Err(WebhookError::Body(_))));
    }
}
