//! Tokens, good and bad, signed by keys that are made once per process. `corpus` is the table of all the ways in which a
//! token can be wrong, `rotation` is about keys that are fetched; here is what they share, and the settings.

mod corpus;
mod rotation;

use crate::{
    InvalidKey, InvalidSettings, Keys, Rejection, Session, Settings, Verifier, VerifyError, VerifyingKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{Timestamp, UserId};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs1::{EncodeRsaPrivateKey as _, EncodeRsaPublicKey as _},
    pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
    rand_core::OsRng,
    traits::PublicKeyParts as _,
};
use serde_json::{Value, json};
use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

const NOW_S: u64 = 1_800_000_000;
const ISSUER: &str = "https://clerk.example.com";
const PARTY: &str = "https://app.example.com";
/// A party with an accent, its letter and accent one character.
const PARTY_NFC: &str = "https://caf\u{e9}.example.com";
/// The id of Clerk's key.
const KID: &str = "ins_2abc";

struct Pair {
    public_key: RsaPublicKey,
    private: String,
    public: String,
    public_pkcs1: String,
    private_pkcs8: String,
}

impl Pair {
    fn new(bits: usize) -> Self {
        let private = RsaPrivateKey::new(&mut OsRng, bits).unwrap();
        let public = private.to_public_key();
        Self {
            public_key: public.clone(),
            private: private.to_pkcs1_pem(LineEnding::LF).unwrap().to_string(),
            private_pkcs8: private.to_pkcs8_pem(LineEnding::LF).unwrap().to_string(),
            public: public.to_public_key_pem(LineEnding::LF).unwrap(),
            public_pkcs1: public.to_pkcs1_pem(LineEnding::LF).unwrap(),
        }
    }

    fn signing(&self) -> EncodingKey {
        EncodingKey::from_rsa_pem(self.private.as_bytes()).unwrap()
    }
}

/// Clerk's key.
fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| Pair::new(2_048))
}

/// Somebody else's.
fn other_pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| Pair::new(2_048))
}

fn settings() -> Settings {
    settings_of(VerifyingKey::from_pem(&pair().public).unwrap().into())
}

fn settings_of(keys: Keys) -> Settings {
    Settings {
        issuer: ISSUER.to_owned(),
        keys,
        authorized_parties: vec![PARTY_NFC.to_owned(), PARTY.to_owned()],
    }
}

fn verify(token: &str) -> Result<Session, VerifyError> {
    verify_by(&Verifier::new(settings()).unwrap(), token, NOW_S * 1_000)
}

/// A verifier that has its key verifies without waiting for anything.
#[track_caller]
fn verify_by(verifier: &Verifier, token: &str, now_ms: u64) -> Result<Session, VerifyError> {
    let mut session = pin!(verifier.verify(token, Timestamp::from_ms(now_ms)));
    match session.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(session) => session,
        Poll::Pending => panic!("it waits, and has its key"),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a result's `err()` is compared with")]
fn refused(why: Rejection) -> Option<VerifyError> {
    Some(VerifyError::Refused(why))
}

fn header() -> Value {
    json!({"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": KID, "typ": "JWT"})
}

/// Version 2 of the claims, as Clerk documents them.
fn claims() -> Value {
    json!({
        "azp": PARTY, "exp": NOW_S + 60, "fva": [7, -1], "iat": NOW_S, "iss": ISSUER, "jti": "a1", "nbf": NOW_S - 10,
        "o": {"id": "org_1", "rol": "admin", "slg": "acme"}, "pla": "u:pro", "fea": "u:x", "sid": "sess_2abc",
        "sts": "active", "sub": "user_2abc", "v": 2,
    })
}

/// `base` with a member set, or taken out.
fn with(mut base: Value, name: &str, value: Option<Value>) -> Value {
    let members = base.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    base
}

/// A key as Clerk publishes it.
fn jwk(pair: &Pair, id: &str) -> Value {
    let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
    let (n, e) = (number(pair.public_key.n()), number(pair.public_key.e()));
    json!({"use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": n, "e": e})
}

/// A client that trusts no certificate, and follows nobody elsewhere.
pub(crate) fn http_client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of these very texts, signed as `algorithm` has it, whatever its header says.
fn token_of(header: &str, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn token(header: &Value, claims: &Value) -> String {
    token_of(&header.to_string(), &claims.to_string(), &pair().signing(), Algorithm::RS256)
}

#[test]
fn a_session_token_says_who_the_user_is() {
    let session = verify(&token(&header(), &claims())).unwrap();
    assert_eq!(session.user, UserId::parse("user_2abc").unwrap());
    assert_eq!(session.session_id.unwrap().as_str(), "sess_2abc");
    assert_eq!(session.expires_at, Timestamp::from_s(NOW_S + 60));
}

#[test]
fn the_first_check_that_fails_gives_the_reason() {
    // Everything is wrong; each step puts one thing right, in the order of the checks.
    let mut bad_header = json!({"alg": "none", "cat": "x", "typ": "x", "crit": [], "kid": ""});
    let far = NOW_S + 1_000;
    let mut bad = json!({"sub": 1, "aud": "x", "azp": "x", "iss": "x", "exp": 1, "nbf": far, "iat": far, "sts": "x", "sid": 1});
    let good_header = header();
    let good = claims();
    for (member, expected) in [
        ("cat", Rejection::Category),
        ("typ", Rejection::Type),
        ("crit", Rejection::CriticalHeader),
        ("alg", Rejection::Algorithm),
        ("kid", Rejection::KeyId),
    ] {
        let token =
            token_of(&bad_header.to_string(), &bad.to_string(), &other_pair().signing(), Algorithm::RS256);
        assert_eq!(verify(&token).err(), refused(expected));
        bad_header = with(bad_header, member, good_header.get(member).cloned());
    }
    let token =
        token_of(&bad_header.to_string(), &bad.to_string(), &other_pair().signing(), Algorithm::RS256);
    assert_eq!(verify(&token).err(), refused(Rejection::Signature));
    for (claim, expected) in [
        ("sub", Rejection::Subject),
        ("aud", Rejection::Audience),
        ("azp", Rejection::AuthorizedParty),
        ("iss", Rejection::Issuer),
        ("exp", Rejection::Expired),
        ("nbf", Rejection::NotActiveYet),
        ("iat", Rejection::IssuedInFuture),
        ("sts", Rejection::SessionPending),
        ("sid", Rejection::SessionId),
    ] {
        assert_eq!(verify(&self::token(&bad_header, &bad)).err(), refused(expected));
        bad = with(bad, claim, good.get(claim).cloned());
    }
    assert!(verify(&self::token(&bad_header, &bad)).is_ok());
}

#[test]
fn reasons_are_clerks_own() {
    for (rejection, reason) in [
        (Rejection::TooLarge, "token-too-large"),
        (Rejection::Malformed, "token-invalid"),
        (Rejection::DuplicateKey, "token-invalid"),
        (Rejection::Category, "token-invalid"),
        (Rejection::Type, "token-invalid"),
        (Rejection::CriticalHeader, "token-critical-header"),
        (Rejection::Algorithm, "token-invalid-algorithm"),
        (Rejection::AlgorithmNotOfKey, "token-verification-failed"),
        (Rejection::KeyId, "jwk-kid-mismatch"),
        (Rejection::Signature, "token-invalid-signature"),
        (Rejection::Subject, "token-verification-failed"),
        (Rejection::Audience, "token-verification-failed"),
        (Rejection::AuthorizedParty, "token-invalid-authorized-parties"),
        (Rejection::Issuer, "token-invalid-issuer"),
        (Rejection::Time { claim: "exp" }, "token-verification-failed"),
        (Rejection::Expired, "token-expired"),
        (Rejection::NotActiveYet, "token-not-active-yet"),
        (Rejection::IssuedInFuture, "token-iat-in-the-future"),
        (Rejection::SessionPending, "session-pending"),
        (Rejection::SessionId, "token-verification-failed"),
    ] {
        assert_eq!(rejection.reason(), reason);
    }
}

#[test]
fn settings_that_would_treat_all_alike_are_refused() {
    let party = |parties: &[&str]| parties.iter().map(|party| (*party).to_owned()).collect::<Vec<_>>();
    for (issuer, parties, expected) in [
        ("", party(&[PARTY]), InvalidSettings::NoIssuer),
        (ISSUER, party(&[]), InvalidSettings::NoAuthorizedParty),
        (ISSUER, party(&[PARTY, ""]), InvalidSettings::NotAnOrigin),
        (ISSUER, party(&["https://app.example.com/"]), InvalidSettings::NotAnOrigin),
    ] {
        let settings = Settings { issuer: issuer.to_owned(), authorized_parties: parties, ..settings() };
        assert_eq!(Verifier::new(settings).err(), Some(expected));
    }
}

#[test]
fn a_public_key_is_read_however_its_lines_are_broken() {
    let pem = &pair().public;
    let one_line = pem.trim_end().replace('\n', "\\n");
    let crlf = pem.replace('\n', "\r\n");
    let token = token(&header(), &claims());
    for text in [pem, &one_line, &crlf, &pair().public_pkcs1, &format!("\n  {pem}  \n")] {
        let settings = settings_of(VerifyingKey::from_pem(text).unwrap().into());
        let verifier = Verifier::new(settings).unwrap();
        assert!(verify_by(&verifier, &token, NOW_S * 1_000).is_ok(), "{text}");
    }
}

#[test]
fn what_is_not_a_public_rsa_key_is_refused_at_once() {
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA2+Jj2UvNCvQiUPNYRgSi0cJSPiJI6Rs6D0UTeEpQVj8=\n-----END PUBLIC KEY-----\n";
    let body_lost =
        pair().public.lines().take(3).chain(["-----END PUBLIC KEY-----"]).collect::<Vec<_>>().join("\n");
    for text in
        ["", "sk_live_x", &pair().private, &pair().private_pkcs8, ED25519, &body_lost, &"x".repeat(5_000)]
    {
        assert_eq!(VerifyingKey::from_pem(text).err(), Some(InvalidKey::NotAnRsaPublicKey), "{text}");
    }
    assert_eq!(VerifyingKey::from_pem(&Pair::new(1_024).public).err(), Some(InvalidKey::TooShort));
}

#[test]
fn nothing_prints_the_key_or_the_token() {
    let printed = format!("{:?} {:?}", settings(), Verifier::new(settings()).unwrap());
    assert!(printed.contains("redacted"));
    for line in pair().public.lines().filter(|line| !line.starts_with('-')) {
        assert!(!printed.contains(line));
    }
    let token = token(&header(), &with(claims(), "sub", Some("the#secret".into())));
    let rejection = verify(&token).unwrap_err();
    assert!(!format!("{rejection:?} {rejection}").contains("secret"));
}
