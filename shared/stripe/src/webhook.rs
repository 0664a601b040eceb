//! Is this webhook from Stripe, and recent? Only then what it is about. Nothing is read from a body before its signature.
//!
//! The scheme is Stripe's `v1`: `Stripe-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>...]`, where each `v1` is an
//! HMAC-SHA256 of `<t>.<body>` under one signing secret. While a secret is rolled, Stripe signs under both, and the endpoint
//! knows both. Snapshot events and thin ones come from different destinations of Stripe's, which have different secrets: a
//! secret vouches for its own kind only.

use crate::client::Secret;
use domain::{EventId, Timestamp, UserId};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::collections::BTreeSet;

/// How far the time of a signature may lie from now, in seconds, before or after: Stripe's own libraries' figure.
pub const TOLERANCE_S: u64 = 300;
/// The most signatures of one header that are looked at.
pub const SIGNATURES_MAX: usize = 8;

/// Bytes of an HMAC-SHA256.
const SIGNATURE_BYTES: usize = 32;

/// The signing secrets by what they vouch for. Each list has more than one while a secret is rolled.
#[derive(Clone, Debug, Default)]
pub struct SigningSecrets {
    /// Of the endpoint that hears snapshot events.
    pub snapshot: Vec<Secret>,
    /// Of the event destination that hears thin events.
    pub thin: Vec<Secret>,
}

/// How much an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// It has its object in it, as that was.
    Snapshot,
    /// It has next to nothing in it.
    Thin,
}

/// A webhook event, by the few ids that are read. What it says of its object is not among them: fetch the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same however often the event is delivered.
    pub id: EventId,
    /// How much it says, which is as much as its secret vouches for.
    pub form: Form,
    /// The type, such as `customer.subscription.updated`.
    pub kind: String,
    /// When Stripe made it: at or after what it tells of; none: it says none, as thin ones do in another form.
    pub created: Option<Timestamp>,
    /// Whether it tells that its object, a subscription, has other prices since. The update that changed them says so, and no
    /// other does.
    pub reprices: bool,
    /// The id of the object that it is about, if it names one.
    pub object: Option<String>,
    /// The id of the subscription that its object belongs to, if it names one as a checkout session does.
    pub subscription: Option<String>,
    /// The user that its object's metadata names. A customer that was deleted has no metadata any more.
    pub user: Option<UserId>,
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
    /// Signed, by a secret that vouches for the other form of events only.
    #[error("a {0:?} event that the other form's secret signed")]
    Form(Form),
    /// Signed, recent, and not an event.
    #[error("the signed body is not an event: {0}")]
    Body(String),
}

/// Checks a webhook against the signing secrets and reads what it is about.
///
/// `signature_header` is the value of `Stripe-Signature`; `body` is the body as it came, byte for byte.
///
/// # Errors
/// When no signature fits, the signature's time is more than [`TOLERANCE_S`] away from `now`, the body is no event, or it is one
/// that the secret does not vouch for.
pub fn verify_webhook(
    body: &[u8],
    signature_header: &str,
    secrets: &SigningSecrets,
    now: Timestamp,
) -> Result<Event, WebhookError> {
    let header = Header::parse(signature_header).ok_or(WebhookError::Header)?;
    let fits = |secrets: &[Secret]| secrets.iter().any(|secret| header.fits(body, secret));
    let (snapshot, thin) = (fits(&secrets.snapshot), fits(&secrets.thin));
    if !snapshot && !thin {
        return Err(WebhookError::Signature);
    }
    let age_s = header.signed_at.abs_diff(now.s());
    if age_s > TOLERANCE_S {
        return Err(WebhookError::Stale { age_s });
    }
    let event = read(body)?;
    let vouched = match event.form {
        Form::Snapshot => snapshot,
        Form::Thin => thin,
    };
    if vouched { Ok(event) } else { Err(WebhookError::Form(event.form)) }
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

/// Reads a snapshot event (`data.object`) or a thin one (`related_object`). Only what makes it an event must be there; whatever
/// else is missing, or of another type, is not named.
fn read(body: &[u8]) -> Result<Event, WebhookError> {
    let wire: Value = serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
    let text = |path: &str| wire.pointer(path).and_then(Value::as_str);
    let missing = |what: &str| WebhookError::Body(format!("no usable {what}"));
    let form = match text("/object") {
        Some("event") => Form::Snapshot,
        Some("v2.core.event") => Form::Thin,
        _ => return Err(missing("object")),
    };
    let object = match form {
        Form::Snapshot => "/data/object",
        Form::Thin => "/related_object",
    };
    let of_object = |path: &str| text(&format!("{object}{path}")).map(str::to_owned);
    Ok(Event {
        id: text("/id").and_then(|id| EventId::parse(id).ok()).ok_or_else(|| missing("id"))?,
        form,
        kind: text("/type").ok_or_else(|| missing("type"))?.to_owned(),
        created: wire.pointer("/created").and_then(Value::as_u64).map(Timestamp::from_s),
        reprices: form == Form::Snapshot && reprices(&wire),
        object: of_object("/id"),
        subscription: of_object("/subscription"),
        user: of_object("/metadata/user_id").and_then(|user| UserId::parse(&user).ok()),
    })
}

/// Whether a subscription's update names prices that it had before and has no more, or the other way round. A period's end changes
/// its items too, and no price.
fn reprices(wire: &Value) -> bool {
    let prices = |path: &str| {
        let items = wire.pointer(path).and_then(Value::as_array)?;
        let price = |item: &Value| item.pointer("/price/id").and_then(Value::as_str).map(str::to_owned);
        Some(items.iter().map(price).collect::<BTreeSet<_>>())
    };
    let before = prices("/data/previous_attributes/items/data");
    before.is_some() && before != prices("/data/object/items/data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sign;

    const BODY: &str = r#"{"id":"evt_1","object":"event","created":7,"type":"customer.subscription.updated","data":{"object":{"id":"sub_1"}}}"#;
    const NOW_S: u64 = 1_800_000_000;
    const THIN: &str = "whsec_thin";

    fn verify(body: &str, header: &str, secrets: &[&str], now_s: u64) -> Result<Event, WebhookError> {
        let snapshot = secrets.iter().copied().map(Secret::new).collect();
        let secrets = SigningSecrets { snapshot, thin: vec![Secret::new(THIN)] };
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
            id: EventId::parse("evt_1").unwrap(),
            form: Form::Snapshot,
            kind: "customer.subscription.updated".into(),
            created: Some(Timestamp::from_s(7)),
            reprices: false,
            object: Some("sub_1".into()),
            subscription: None,
            user: None,
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
    fn an_event_names_whom_and_what_it_is_about_by_ids() {
        let session = r#"{"id":"evt_1","object":"event","type":"checkout.session.completed",
            "data":{"object":{"id":"cs_1","subscription":"sub_1","metadata":{"user_id":"user_1"}}}}"#;
        let header = format!("t={NOW_S},v1={}", sign(session, "whsec_a", NOW_S));
        let event = verify(session, &header, &["whsec_a"], NOW_S).unwrap();
        assert_eq!(event.object.as_deref(), Some("cs_1"));
        assert_eq!(event.subscription.as_deref(), Some("sub_1"));
        assert_eq!(event.user, UserId::parse("user_1").ok());
    }

    #[test]
    fn an_update_that_changed_prices_says_so_and_one_that_ended_a_period_does_not() {
        let items = |prices: &[&str], start: u64| {
            let item =
                |price: &&str| format!(r#"{{"current_period_start":{start},"price":{{"id":"{price}"}}}}"#);
            format!(r#"{{"data":[{}]}}"#, prices.iter().map(item).collect::<Vec<_>>().join(","))
        };
        let body = |before: &str, now: &str| {
            format!(
                r#"{{"id":"evt_1","object":"event","type":"customer.subscription.updated","data":{{
                "object":{{"id":"sub_1","items":{now}}},"previous_attributes":{before}}}}}"#
            )
        };
        let now = items(&["a", "b"], 2);
        for (before, reprices) in [
            ("{}".to_owned(), false),
            (r#"{"status":"incomplete"}"#.to_owned(), false),
            (format!(r#"{{"items":{}}}"#, items(&["a", "b"], 1)), false),
            (format!(r#"{{"items":{}}}"#, items(&["a", "c"], 2)), true),
            (format!(r#"{{"items":{}}}"#, items(&["a"], 2)), true),
            (r#"{"items":7}"#.to_owned(), false),
        ] {
            let body = body(&before, &now);
            let header = format!("t={NOW_S},v1={}", sign(&body, "whsec_a", NOW_S));
            let event = verify(&body, &header, &["whsec_a"], NOW_S).unwrap();
            assert_eq!(event.reprices, reprices, "{before}");
        }
    }

    #[test]
    fn a_secret_vouches_for_one_form_of_events_only() {
        let thin = r#"{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter.no_meter_found",
            "related_object":{"id":"mtr_1"}}"#;
        let signed = |body: &str, secret: &str| format!("t={NOW_S},v1={}", sign(body, secret, NOW_S));
        let event = verify(thin, &signed(thin, THIN), &["whsec_a"], NOW_S).unwrap();
        assert_eq!((event.form, event.object.as_deref()), (Form::Thin, Some("mtr_1")));
        let refused = verify(thin, &signed(thin, "whsec_a"), &["whsec_a"], NOW_S);
        assert_eq!(refused, Err(WebhookError::Form(Form::Thin)));
        let refused = verify(BODY, &signed(BODY, THIN), &["whsec_a"], NOW_S);
        assert_eq!(refused, Err(WebhookError::Form(Form::Snapshot)));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_not_named_and_stops_nothing() {
        for data in [
            "",
            r#","data":null"#,
            r#","data":{"object":[1]}"#,
            r#","data":{"object":{"id":7,"metadata":"x"}}"#,
        ] {
            let body = format!(r#"{{"id":"evt_1","object":"event","type":"x"{data}}}"#);
            let header = format!("t={NOW_S},v1={}", sign(&body, "whsec_a", NOW_S));
            let event = verify(&body, &header, &["whsec_a"], NOW_S).unwrap();
            assert_eq!((event.object, event.subscription, event.user), (None, None, None), "{data}");
        }
    }

    #[test]
    fn a_signed_body_that_is_no_event_is_an_error_of_its_own() {
        for body in [
            "[]",
            "{",
            r#"{"object":"event","type":"x"}"#,
            r#"{"id":"evt#1","object":"event","type":"x"}"#,
            r#"{"id":"evt_1","object":"event","type":1}"#,
            r#"{"id":"evt_1","object":"subscription","type":"x"}"#,
        ] {
            let header = format!("t={NOW_S},v1={}", sign(body, "whsec_a", NOW_S));
            let refused = verify(body, &header, &["whsec_a"], NOW_S);
            assert!(matches!(refused, Err(WebhookError::Body(_))), "{body}: {refused:?}");
        }
    }
}
