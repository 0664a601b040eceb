//! Every way in which a token can be wrong, with tokens signed by a key that is made once per process.

use crate::{
    InvalidKey, InvalidSettings, Rejection, Session, Settings, TOKEN_BYTES_MAX, Verifier, VerifyingKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{Timestamp, UserId};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rsa::{
    RsaPrivateKey,
    pkcs1::{EncodeRsaPrivateKey as _, EncodeRsaPublicKey as _},
    pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding},
    rand_core::OsRng,
};
use serde_json::{Value, json};
use std::sync::OnceLock;

const NOW_S: u64 = 1_800_000_000;
const ISSUER: &str = "https://clerk.example.com";
const PARTY: &str = "https://app.example.com";

struct Pair {
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
    Settings {
        issuer: ISSUER.to_owned(),
        key: VerifyingKey::from_pem(&pair().public).unwrap(),
        authorized_parties: vec!["https://admin.example.com".to_owned(), PARTY.to_owned()],
    }
}

fn verify(token: &str) -> Result<Session, Rejection> {
    verify_at(token, NOW_S * 1_000)
}

fn verify_at(token: &str, now_ms: u64) -> Result<Session, Rejection> {
    Verifier::new(settings()).unwrap().verify(token, Timestamp::from_ms(now_ms))
}

fn header() -> Value {
    json!({"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": "ins_2abc", "typ": "JWT"})
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

#[track_caller]
fn check_header(name: &str, value: Option<Value>, expected: Option<Rejection>) {
    let shown = format!("header {name} = {value:?}");
    assert_eq!(verify(&token(&with(header(), name, value), &claims())).err(), expected, "{shown}");
}

#[track_caller]
fn check_claim(name: &str, value: Option<Value>, expected: Option<Rejection>) {
    let shown = format!("claim {name} = {value:?}");
    assert_eq!(verify(&token(&header(), &with(claims(), name, value))).err(), expected, "{shown}");
}

#[test]
fn a_session_token_says_who_the_user_is() {
    let session = verify(&token(&header(), &claims())).unwrap();
    assert_eq!(session.user, UserId::parse("user_2abc").unwrap());
    assert_eq!(session.session_id.unwrap().as_str(), "sess_2abc");
    assert_eq!(session.expires_at, Timestamp::from_s(NOW_S + 60));
}

#[test]
fn version_1_of_the_claims_is_taken_too() {
    let claims = json!({
        "azp": PARTY, "exp": NOW_S + 60, "iat": NOW_S, "iss": ISSUER, "nbf": NOW_S - 10, "org_id": "org_1",
        "org_role": "org:admin", "org_slug": "acme", "org_permissions": [], "sid": "sess_2abc", "sub": "user_2abc",
    });
    let header = json!({"alg": "RS256", "kid": "ins_2abc", "typ": "JWT"});
    assert!(verify(&token(&header, &claims)).is_ok());
}

#[test]
fn an_algorithm_that_is_not_the_keys_is_refused_whatever_the_signature() {
    let rsa = pair().signing();
    let public_as_secret = EncodingKey::from_secret(pair().public.as_bytes());
    let rs256 = || Algorithm::RS256;
    for (name, key, algorithm, expected) in [
        ("none", &rsa, rs256(), Rejection::Algorithm),
        ("HS256", &public_as_secret, Algorithm::HS256, Rejection::Algorithm),
        ("HS256", &rsa, rs256(), Rejection::Algorithm),
        ("RS384", &rsa, Algorithm::RS384, Rejection::AlgorithmNotOfKey),
        ("RS512", &rsa, Algorithm::RS512, Rejection::AlgorithmNotOfKey),
        ("RS384", &rsa, rs256(), Rejection::AlgorithmNotOfKey),
        ("PS256", &rsa, Algorithm::PS256, Rejection::Algorithm),
        ("ES256", &rsa, rs256(), Rejection::Algorithm),
        ("EdDSA", &rsa, rs256(), Rejection::Algorithm),
        ("rs256", &rsa, rs256(), Rejection::Algorithm),
        ("", &rsa, rs256(), Rejection::Algorithm),
        // The header is right, and the signature is of another algorithm.
        ("RS256", &public_as_secret, Algorithm::HS256, Rejection::Signature),
        ("RS256", &rsa, Algorithm::RS384, Rejection::Signature),
        ("RS256", &rsa, Algorithm::PS256, Rejection::Signature),
    ] {
        let header = with(header(), "alg", Some(name.into()));
        let token = token_of(&header.to_string(), &claims().to_string(), key, algorithm);
        assert_eq!(verify(&token).err(), Some(expected), "alg {name} signed as {algorithm:?}");
    }
    let unsigned = |alg: &str| {
        format!(
            "{}.{}.",
            encode(&with(header(), "alg", Some(alg.into())).to_string()),
            encode(&claims().to_string())
        )
    };
    assert_eq!(verify(&unsigned("none")).err(), Some(Rejection::Algorithm));
    assert_eq!(verify(&unsigned("RS256")).err(), Some(Rejection::Signature));
    check_header("alg", None, Some(Rejection::Algorithm));
    check_header("alg", Some(json!(["RS256"])), Some(Rejection::Algorithm));
}

#[test]
fn a_header_is_that_of_a_session_token() {
    check_header("cat", None, None);
    check_header("cat", Some("cl_I7d4PD111III".into()), None);
    for cat in [json!("cl_B7d4PD222AAA"), json!("cl_B7d4PD333AAA"), json!(""), json!(null), json!(1)] {
        check_header("cat", Some(cat), Some(Rejection::Category));
    }
    check_header("typ", None, None);
    for typ in [json!("at+jwt"), json!("jwt"), json!("JWS"), json!(""), json!(null), json!(["JWT"])] {
        check_header("typ", Some(typ), Some(Rejection::Type));
    }
    for crit in [json!(["exp"]), json!([]), json!(null)] {
        check_header("crit", Some(crit), Some(Rejection::CriticalHeader));
    }
    check_header("kid", Some("ins_other".into()), None);
    check_header("kid", None, None);
}

#[test]
fn a_token_tampered_with_is_refused() {
    let good = token(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let forged = encode(&with(claims(), "sub", Some("user_rich".into())).to_string());
    let header = encode(&with(header(), "kid", None).to_string());
    for (name, token) in [
        ("payload", format!("{}.{forged}.{}", parts[0], parts[2])),
        ("header", format!("{header}.{}.{}", parts[1], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("short signature", format!("{}.{}.{}", parts[0], parts[1], encode("short"))),
        ("zero signature", format!("{}.{}.{}", parts[0], parts[1], "A".repeat(parts[2].len()))),
    ] {
        assert_eq!(verify(&token).err(), Some(Rejection::Signature), "{name}");
    }
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    for at in [0, 1, 127, 254, 255] {
        let mut bytes = signature.clone();
        bytes[at] ^= 1;
        let token = format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(verify(&token).err(), Some(Rejection::Signature), "byte {at}");
    }
    let key = other_pair().signing();
    let stranger = token_of(&self::header().to_string(), &claims().to_string(), &key, Algorithm::RS256);
    assert_eq!(verify(&stranger).err(), Some(Rejection::Signature));
}

#[test]
fn what_is_not_a_jwt_is_refused() {
    let good = token(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        h.to_owned(),
        format!("{h}.{p}"),
        format!("{good}.x"),
        format!("{h}.{p}.{s}.{s}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("Bearer {good}"),
        format!("{h}.{p}.{s}="),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}.+/{s}"),
        format!("{}.{p}.{s}", encode("not json")),
        format!("{}.{p}.{s}", encode("[]")),
        format!("{}.{p}.{s}", encode("null")),
        format!("{h}.{}.{s}", encode("\"text\"")),
        format!("{h}.{}.{s}", encode("{\"sub\":")),
        format!("{h}.{}.{s}", URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}")),
        format!("{h}.{p}.ü"),
    ] {
        assert_eq!(verify(&bad).err(), Some(Rejection::Malformed), "{bad:?}");
    }
}

#[test]
fn a_key_said_twice_is_refused_even_if_signed() {
    let key = pair().signing();
    let claims = claims().to_string();
    let twice = claims.replacen('{', r#"{"sub":"user_rich","#, 1);
    let token = token_of(&header().to_string(), &twice, &key, Algorithm::RS256);
    assert_eq!(verify(&token).err(), Some(Rejection::DuplicateKey));
    let escaped = header().to_string().replacen('{', r#"{"\u0061lg":"none","#, 1);
    let token = token_of(&escaped, &claims, &key, Algorithm::RS256);
    assert_eq!(verify(&token).err(), Some(Rejection::DuplicateKey));
}

#[test]
fn f18_a_token_longer_than_the_bound_is_not_read() {
    let padded = |bytes: usize| token(&header(), &with(claims(), "pad", Some("x".repeat(bytes).into())));
    let empty = padded(0).len();
    let mut room = (TOKEN_BYTES_MAX - empty) * 3 / 4;
    while padded(room).len() > TOKEN_BYTES_MAX {
        room -= 1;
    }
    assert!(verify(&padded(room)).is_ok());
    let over = padded(room + 2);
    assert!(over.len() > TOKEN_BYTES_MAX && over.len() < TOKEN_BYTES_MAX + 8);
    assert_eq!(verify(&over).err(), Some(Rejection::TooLarge));
    assert_eq!(verify(&".".repeat(TOKEN_BYTES_MAX + 1)).err(), Some(Rejection::TooLarge));
    assert_eq!(verify(&".".repeat(TOKEN_BYTES_MAX)).err(), Some(Rejection::Malformed));
}

#[test]
fn a_subject_must_be_a_user_id() {
    for sub in
        [json!(""), json!(7), json!(null), json!({}), json!("user#1"), json!("user 1"), json!("u".repeat(65))]
    {
        check_claim("sub", Some(sub), Some(Rejection::Subject));
    }
    check_claim("sub", None, Some(Rejection::Subject));
    check_claim("sub", Some("u".repeat(64).into()), None);
}

#[test]
fn a_token_for_an_audience_is_refused() {
    for aud in [json!("https://api.example.com"), json!(["a"]), json!([]), json!(""), json!(null)] {
        check_claim("aud", Some(aud), Some(Rejection::Audience));
    }
}

#[test]
fn a_party_and_an_issuer_match_to_the_letter() {
    check_claim("azp", Some("https://admin.example.com".into()), None);
    for azp in [
        json!("https://app.example.com/"),
        json!("https://APP.example.com"),
        json!("http://app.example.com"),
        json!("https://app.example.com.evil.com"),
        json!("https://app.example.co"),
        json!(""),
        json!(null),
        json!([PARTY]),
    ] {
        check_claim("azp", Some(azp), Some(Rejection::AuthorizedParty));
    }
    check_claim("azp", None, Some(Rejection::AuthorizedParty));
    for iss in [
        json!("https://clerk.example.com/"),
        json!("https://clerk.evil.com"),
        json!(""),
        json!(null),
        json!([ISSUER]),
    ] {
        check_claim("iss", Some(iss), Some(Rejection::Issuer));
    }
    check_claim("iss", None, Some(Rejection::Issuer));
}

#[test]
fn a_token_ends_five_seconds_after_exp_to_the_millisecond() {
    let token = token(&header(), &claims());
    let end_ms = (NOW_S + 60 + 5) * 1_000;
    for (now_ms, expected) in [
        (end_ms - 1_000, None),
        (end_ms - 1, None),
        (end_ms, Some(Rejection::Expired)),
        (end_ms + 1_000, Some(Rejection::Expired)),
    ] {
        assert_eq!(verify_at(&token, now_ms).err(), expected, "{now_ms}");
    }
    check_claim("exp", Some((NOW_S - 4).into()), None);
    check_claim("exp", Some((NOW_S - 5).into()), Some(Rejection::Expired));
    check_claim("exp", Some(0.into()), Some(Rejection::Expired));
    check_claim("exp", Some((-1).into()), Some(Rejection::Expired));
    check_claim("exp", Some(i64::MIN.into()), Some(Rejection::Expired));
    check_claim("exp", Some(i64::MAX.into()), None);
}

#[test]
fn a_token_begins_five_seconds_before_nbf_and_iat() {
    for (claim, early) in [("nbf", Rejection::NotActiveYet), ("iat", Rejection::IssuedInFuture)] {
        check_claim(claim, None, None);
        check_claim(claim, Some((NOW_S + 4).into()), None);
        check_claim(claim, Some((NOW_S + 5).into()), None);
        check_claim(claim, Some((NOW_S + 6).into()), Some(early));
        check_claim(claim, Some(i64::MAX.into()), Some(early));
        check_claim(claim, Some((-1).into()), None);
        let token = token(&header(), &with(claims(), claim, Some((NOW_S + 6).into())));
        assert_eq!(verify_at(&token, (NOW_S + 1) * 1_000 - 1).err(), Some(early), "{claim}");
        assert_eq!(verify_at(&token, (NOW_S + 1) * 1_000).err(), None, "{claim}");
    }
}

#[test]
fn a_time_must_be_a_whole_number() {
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            json!("1800000060"),
            json!(1.5),
            json!(1e12),
            json!(null),
            json!([1]),
            json!(true),
            json!(u64::MAX),
        ] {
            check_claim(claim, Some(value), Some(Rejection::Time { claim }));
        }
    }
    check_claim("exp", None, Some(Rejection::Time { claim: "exp" }));
}

#[test]
fn a_pending_session_is_refused() {
    check_claim("sts", None, None);
    for sts in [json!("pending"), json!("Active"), json!(""), json!(null), json!(1), json!("new status")] {
        check_claim("sts", Some(sts), Some(Rejection::SessionPending));
    }
}

#[test]
fn a_session_id_is_plain_or_absent() {
    check_claim("sid", None, None);
    for sid in [json!(""), json!(1), json!(null), json!("sess\n1"), json!("s".repeat(65))] {
        check_claim("sid", Some(sid), Some(Rejection::SessionId));
    }
    let session = verify(&token(&header(), &with(claims(), "sid", None))).unwrap();
    assert_eq!(session.session_id, None);
}

#[test]
fn the_first_check_that_fails_gives_the_reason() {
    // Everything is wrong; each step puts one thing right, in the order of the checks.
    let mut bad_header = json!({"alg": "none", "cat": "x", "typ": "x", "crit": []});
    let far = NOW_S + 1_000;
    let mut bad = json!({"sub": 1, "aud": "x", "azp": "x", "iss": "x", "exp": 1, "nbf": far, "iat": far, "sts": "x", "sid": 1});
    let good_header = header();
    let good = claims();
    for (member, expected) in [
        ("cat", Rejection::Category),
        ("typ", Rejection::Type),
        ("crit", Rejection::CriticalHeader),
        ("alg", Rejection::Algorithm),
    ] {
        let token =
            token_of(&bad_header.to_string(), &bad.to_string(), &other_pair().signing(), Algorithm::RS256);
        assert_eq!(verify(&token).err(), Some(expected));
        bad_header = with(bad_header, member, good_header.get(member).cloned());
    }
    let token =
        token_of(&bad_header.to_string(), &bad.to_string(), &other_pair().signing(), Algorithm::RS256);
    assert_eq!(verify(&token).err(), Some(Rejection::Signature));
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
        assert_eq!(verify(&self::token(&bad_header, &bad)).err(), Some(expected));
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
        let settings = Settings { key: VerifyingKey::from_pem(text).unwrap(), ..settings() };
        let verifier = Verifier::new(settings).unwrap();
        assert!(verifier.verify(&token, Timestamp::from_s(NOW_S)).is_ok(), "{text}");
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
