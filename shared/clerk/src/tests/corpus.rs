//! The corpus: one table of tokens, each with the reason for which it is refused, or none. Every token is held against
//! three verifiers: one with a given key, one with a given key and its id, one with published keys.

use super::*;
use crate::{KeyId, PublishedKeys, TOKEN_BYTES_MAX, jwks::KeySet};
use std::collections::HashSet;

/// The fewest tokens that the table may shrink to.
const TOKENS_MIN: usize = 200;

type Expected = Option<Rejection>;

struct Row {
    name: String,
    token: String,
    now_ms: u64,
    /// By a key that has no id.
    given: Expected,
    /// By a key that is found by its id.
    keyed: Expected,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, name: impl Into<String>, token: impl Into<String>, expected: Expected) {
        self.keyed(name, token, expected, expected);
    }

    /// A row for which it matters whether the key is found by its id.
    fn keyed(&mut self, name: impl Into<String>, token: impl Into<String>, given: Expected, keyed: Expected) {
        self.0.push(Row { name: name.into(), token: token.into(), now_ms: NOW_S * 1_000, given, keyed });
    }

    fn at(&mut self, now_ms: u64, name: &str, token: &str, expected: Expected) {
        let (name, token) = (format!("{name}, at {now_ms}"), token.to_owned());
        self.0.push(Row { name, token, now_ms, given: expected, keyed: expected });
    }

    /// A well-signed token with one claim set, or taken out.
    fn claim(&mut self, claim: &str, value: impl Into<Option<Value>>, expected: Expected) {
        let value = value.into();
        let name = format!("claim {claim} = {}", shown(value.as_ref()));
        self.row(name, token(&header(), &with(claims(), claim, value)), expected);
    }

    /// A well-signed token with one member of its header set, or taken out.
    fn header(&mut self, member: &str, value: impl Into<Option<Value>>, given: Expected, keyed: Expected) {
        let value = value.into();
        let name = format!("header {member} = {}", shown(value.as_ref()));
        self.keyed(name, token(&with(header(), member, value), &claims()), given, keyed);
    }

    /// A well-signed token of this very payload.
    fn payload(&mut self, name: &str, payload: impl AsRef<[u8]>, expected: Expected) {
        self.row(format!("payload: {name}"), signed(header().to_string(), payload), expected);
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "absent".to_owned(), Value::to_string);
    let start: String = text.chars().take(60).collect();
    if start == text { text } else { format!("{start}... ({} bytes)", text.len()) }
}

/// A token of these very bytes, signed by Clerk's key.
fn signed(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = crypto::sign(message.as_bytes(), &pair().signing(), Algorithm::RS256).unwrap();
    format!("{message}.{signature}")
}

/// A key on the curve P-256 whose secret is 32 times 7, as PKCS#8.
fn p256_key() -> EncodingKey {
    let head = [0x30, 0x41, 2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86];
    let curve = [0x48, 0xce, 0x3d, 3, 1, 7, 4, 0x27, 0x30, 0x25, 2, 1, 1, 4, 0x20];
    EncodingKey::from_ec_der(&[&head[..], &curve, &[7; 32]].concat())
}

/// A key on Curve25519 whose secret is 32 times 7, as PKCS#8.
fn ed25519_key() -> EncodingKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    EncodingKey::from_ed_der(&[&head[..], &[7; 32]].concat())
}

fn good_tokens(table: &mut Table) {
    table.row("version 2, as Clerk documents it", token(&header(), &claims()), None);
    let version_1 = json!({
        "azp": PARTY, "exp": NOW_S + 60, "iat": NOW_S, "iss": ISSUER, "nbf": NOW_S - 10, "org_id": "org_1",
        "org_role": "org:admin", "org_slug": "acme", "org_permissions": [], "sid": "sess_2abc", "sub": "user_2abc",
    });
    table.row("version 1", token(&json!({"alg": "RS256", "kid": KID, "typ": "JWT"}), &version_1), None);
    let least = json!({"sub": "u", "azp": PARTY, "iss": ISSUER, "exp": NOW_S + 60});
    table.row("the least that is needed", token(&json!({"alg": "RS256", "kid": KID}), &least), None);
    for claim in ["fva", "jti", "o", "pla", "fea", "v", "nbf", "iat", "sts", "sid"] {
        table.claim(claim, None, None);
    }
    table.claim("o", json!({"id": [], "per": {"deep": [1, 2]}}), None);
    table.claim("v", json!(3), None);
    table.claim("act", json!({"iss": "https://dashboard.clerk.com", "sub": "user_admin"}), None);
    table.claim("role", json!("\u{202e}nimda \u{0}"), None);
}

fn algorithms(table: &mut Table) {
    let rsa = pair().signing();
    let secrets = [
        ("the public PEM", pair().public.clone().into_bytes()),
        ("the public PEM in one line", pair().public.trim_end().replace('\n', "\\n").into_bytes()),
        ("the public PEM without its last line break", pair().public.trim_end().into()),
        ("the PKCS#1 PEM", pair().public_pkcs1.clone().into_bytes()),
        ("the public DER", pair().public_key.to_public_key_der().unwrap().into_vec()),
        ("the PKCS#1 DER", pair().public_key.to_pkcs1_der().unwrap().into_vec()),
        ("the modulus", pair().public_key.n().to_bytes_be()),
        ("nothing", Vec::new()),
    ];
    let signed_as = |alg: &str, key: &EncodingKey, algorithm| {
        let header = with(header(), "alg", Some(alg.into()));
        token_of(&header.to_string(), &claims().to_string(), key, algorithm)
    };
    for (alg, algorithm) in
        [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
    {
        for (name, secret) in &secrets {
            let key = EncodingKey::from_secret(secret);
            table.row(
                format!("{alg} with {name}"),
                signed_as(alg, &key, algorithm),
                Some(Rejection::Algorithm),
            );
            let posing = signed_as("RS256", &key, algorithm);
            table.row(format!("RS256, but {alg} with {name}"), posing, Some(Rejection::Signature));
        }
    }
    for (alg, key, algorithm, expected) in [
        ("RS384", &rsa, Algorithm::RS384, Rejection::AlgorithmNotOfKey),
        ("RS512", &rsa, Algorithm::RS512, Rejection::AlgorithmNotOfKey),
        ("PS256", &rsa, Algorithm::PS256, Rejection::Algorithm),
        ("PS384", &rsa, Algorithm::PS384, Rejection::Algorithm),
        ("PS512", &rsa, Algorithm::PS512, Rejection::Algorithm),
        ("ES256", &p256_key(), Algorithm::ES256, Rejection::Algorithm),
        ("EdDSA", &ed25519_key(), Algorithm::EdDSA, Rejection::Algorithm),
    ] {
        table.row(alg, signed_as(alg, key, algorithm), Some(expected));
        table.row(
            format!("RS256, but {alg}"),
            signed_as("RS256", key, algorithm),
            Some(Rejection::Signature),
        );
    }
    for alg in ["none", "None", "NONE", "nOnE", "RS256", ""] {
        let header = with(header(), "alg", Some(alg.into()));
        let unsigned = format!("{}.{}.", encode(&header.to_string()), encode(&claims().to_string()));
        let why = if alg == "RS256" { Rejection::Signature } else { Rejection::Algorithm };
        table.row(format!("alg {alg:?}, unsigned"), unsigned, Some(why));
    }
    for alg in [
        "none",
        "rs256",
        "Rs256",
        "RS256 ",
        " RS256",
        "RS256\0",
        "RS-256",
        "R\u{405}256",
        "ES256",
        "ES256K",
        "RSA",
        "",
    ] {
        table.header("alg", json!(alg), Some(Rejection::Algorithm), Some(Rejection::Algorithm));
    }
    for alg in ["RS384", "RS512"] {
        let why = Some(Rejection::AlgorithmNotOfKey);
        table.header("alg", json!(alg), why, why);
    }
    for alg in [None, Some(json!(null)), Some(json!(256)), Some(json!(["RS256"])), Some(json!({"RS256": 1}))]
    {
        table.header("alg", alg, Some(Rejection::Algorithm), Some(Rejection::Algorithm));
    }
    let capital = json!({"Alg": "RS256", "kid": KID, "typ": "JWT"});
    table.row("Alg for alg", token(&capital, &claims()), Some(Rejection::Algorithm));
}

fn headers(table: &mut Table) {
    let mut both =
        |member: &str, value: Option<Value>, expected| table.header(member, value, expected, expected);
    both("cat", None, None);
    both("cat", Some(json!("cl_I7d4PD111III")), None);
    for cat in ["cl_B7d4PD222AAA", "cl_B7d4PD333AAA", "cl_b7d4pd111aaa", "cl_B7d4PD111AAA ", ""] {
        both("cat", Some(json!(cat)), Some(Rejection::Category));
    }
    for cat in [json!(null), json!(1), json!(["cl_B7d4PD111AAA"])] {
        both("cat", Some(cat), Some(Rejection::Category));
    }
    both("typ", None, None);
    for typ in
        [json!("at+jwt"), json!("jwt"), json!("JWS"), json!("JWT "), json!(""), json!(null), json!(["JWT"])]
    {
        both("typ", Some(typ), Some(Rejection::Type));
    }
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null)] {
        both("crit", Some(crit), Some(Rejection::CriticalHeader));
    }
    for (member, value) in [("cty", json!("JWT")), ("zip", json!("DEF")), ("b64", json!(false))] {
        both(member, Some(value), None);
    }
}

fn key_ids(table: &mut Table) {
    let unknown = Some(Rejection::KeyId);
    table.header("kid", None, None, unknown);
    for kid in ["ins_other", "INS_2ABC", "ins_2ab", "ins_2abcd", "../../dev/null", "x' OR '1'='1"] {
        // A blank is not visible: such a text is no id at all.
        let given = if kid.contains(' ') { unknown } else { None };
        table.header("kid", json!(kid), given, unknown);
    }
    table.header("kid", json!("k".repeat(KeyId::LENGTH_MAX)), None, unknown);
    for kid in [
        json!(""),
        json!("k".repeat(KeyId::LENGTH_MAX + 1)),
        json!("ins_2abc "),
        json!("ins_2abc\0"),
        json!("ins_2\u{430}bc"),
        json!("ins_2abc\u{200b}"),
        json!(null),
        json!(1),
        json!(true),
        json!([KID]),
        json!({"kid": KID}),
    ] {
        table.header("kid", kid, unknown, unknown);
    }
    let mut stranger = |name: &str, header: &Value, keyed| {
        let key = other_pair().signing();
        let token = token_of(&header.to_string(), &claims().to_string(), &key, Algorithm::RS256);
        table.keyed(name, token, Some(Rejection::Signature), Some(keyed));
    };
    stranger("a stranger's key, under our id", &header(), Rejection::Signature);
    let own = with(header(), "kid", Some("ins_stranger".into()));
    stranger("a stranger's key, under its own id", &own, Rejection::KeyId);
    for (member, value) in [
        ("jwk", jwk(other_pair(), KID)),
        ("jku", json!("https://evil.example.com/.well-known/jwks.json")),
        ("x5u", json!("https://evil.example.com/cert.pem")),
        ("x5c", json!([encode("certificate")])),
    ] {
        let name = format!("a stranger's key, brought along as {member}");
        stranger(&name, &with(header(), member, Some(value)), Rejection::Signature);
    }
}

fn tampered(table: &mut Table) {
    let good = token(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    let signature = URL_SAFE_NO_PAD.decode(s).unwrap();
    let bad = Some(Rejection::Signature);
    for (claim, value) in [("sub", json!("user_rich")), ("exp", json!(NOW_S + 61)), ("x", json!(1))] {
        let forged = encode(&with(claims(), claim, Some(value)).to_string());
        table.row(format!("tampered: payload, {claim}"), format!("{h}.{forged}.{s}"), bad);
    }
    let same = encode(&format!(" {}", claims()));
    table.row("tampered: payload, a blank", format!("{h}.{same}.{s}"), bad);
    let headless = encode(&with(header(), "cat", None).to_string());
    table.row("tampered: header, cat", format!("{headless}.{p}.{s}"), bad);
    table.row("tampered: no signature", format!("{h}.{p}."), bad);
    table.row("tampered: a short signature", format!("{h}.{p}.{}", encode("short")), bad);
    table.row("tampered: a zero signature", format!("{h}.{p}.{}", "A".repeat(s.len())), bad);
    table.row("tampered: half a signature", format!("{h}.{p}.{}", &s[..172]), bad);
    let padded = URL_SAFE_NO_PAD.encode([&signature[..], &[0]].concat());
    table.row("tampered: a signature and a zero", format!("{h}.{p}.{padded}"), bad);
    let padded = URL_SAFE_NO_PAD.encode([&[0], &signature[..]].concat());
    table.row("tampered: a zero and a signature", format!("{h}.{p}.{padded}"), bad);
    for at in [0, 1, 127, 254, 255] {
        let mut bytes = signature.clone();
        bytes[at] ^= 1;
        let token = format!("{h}.{p}.{}", URL_SAFE_NO_PAD.encode(bytes));
        table.row(format!("tampered: signature, byte {at}"), token, bad);
    }
    let other = token(&header(), &with(claims(), "sub", Some("user_other".into())));
    let others = other.rsplit('.').next().unwrap();
    table.row("tampered: another token's signature", format!("{h}.{p}.{others}"), bad);
}

fn malformed(table: &mut Table) {
    let good = token(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        h.to_owned(),
        format!("{h}.{p}"),
        format!("{good}."),
        format!("{good}.x"),
        format!("{h}.{p}.{s}.{s}"),
        format!("{h}.{p}.{s}.{s}.{s}"),
        format!(".{p}.{s}"),
        format!("{h}..{s}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}\0"),
        format!("\"{good}\""),
        format!("Bearer {good}"),
        format!("{h}.{p}.{s}="),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}.+/{s}"),
        format!("{h}.{p}.ü"),
        format!("{h}。{p}。{s}"),
        format!("{h}.{p}\u{200b}.{s}"),
        format!("{}.{p}.{s}", encode("not json")),
        format!("{}.{p}.{s}", encode("[]")),
        format!("{}.{p}.{s}", encode("null")),
        format!("{}.{p}.{s}", encode("{}{}")),
        format!("{h}.{}.{s}", encode("\"text\"")),
        format!("{h}.{}.{s}", encode("{\"sub\":")),
        format!("{h}.{}.{s}", encode(&good)),
        format!("{h}.{}.{s}", URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}")),
    ] {
        let name = format!("malformed: {:?}", bad.replace(h, "h").replace(p, "p").replace(s, "s"));
        table.row(name, bad, Some(Rejection::Malformed));
    }
    // Two texts of one signature: its last character has bits that are not used.
    let loose = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'x' });
    assert!(s.len() % 4 == 2, "the last character of a 2,048-bit signature has four such bits");
    table.row("malformed: loose bits at the end", loose, Some(Rejection::Malformed));
    let claims = claims().to_string();
    table.payload("a mark of byte order", format!("\u{feff}{claims}"), Some(Rejection::Malformed));
    table.payload("a comma too many", claims.replacen('}', ",}", 1), Some(Rejection::Malformed));
    table.payload("a comment", format!("{claims}/**/"), Some(Rejection::Malformed));
    table.payload("blanks around it", format!(" \n{claims}\t"), None);
    table.payload(
        "UTF-16",
        claims.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
        Some(Rejection::Malformed),
    );
    table.payload(
        "another encoding",
        claims.replacen("user_2abc", "user_\\ud800", 1),
        Some(Rejection::Malformed),
    );
}

fn oversized_and_nested(table: &mut Table) {
    let padded = |bytes: usize| token(&header(), &with(claims(), "pad", Some("x".repeat(bytes).into())));
    let mut room = (TOKEN_BYTES_MAX - padded(0).len()) * 3 / 4;
    while padded(room).len() > TOKEN_BYTES_MAX {
        room -= 1;
    }
    let (most, over) = (padded(room), padded(room + 1));
    assert!(
        most.len() > TOKEN_BYTES_MAX - 3 && over.len() > TOKEN_BYTES_MAX && over.len() < TOKEN_BYTES_MAX + 3
    );
    table.row("f18: as long as may be", most, None);
    table.row("f18: longer than may be", over, Some(Rejection::TooLarge));
    table.row("f18: stops beyond the bound", ".".repeat(TOKEN_BYTES_MAX + 1), Some(Rejection::TooLarge));
    table.row("f18: stops up to the bound", ".".repeat(TOKEN_BYTES_MAX), Some(Rejection::Malformed));
    table.row("f18: a megabyte", "a".repeat(1_048_576), Some(Rejection::TooLarge));
    let nested = |open: &str, close: &str, depth: usize| {
        let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        claims().to_string().replacen('{', &format!("{{\"deep\":{deep},"), 1)
    };
    // The payload itself is one level, and 128 are one too many.
    table.payload("arrays, as deep as may be", nested("[", "]", 126), None);
    table.payload("arrays, deeper than may be", nested("[", "]", 127), Some(Rejection::Malformed));
    table.payload("arrays, 2,000 deep", nested("[", "]", 2_000), Some(Rejection::Malformed));
    table.payload("objects, as deep as may be", nested("{\"a\":", "}", 126), None);
    table.payload("objects, deeper than may be", nested("{\"a\":", "}", 127), Some(Rejection::Malformed));
    let deep =
        header().to_string().replacen('{', &format!("{{\"a\":{}{},", "[".repeat(500), "]".repeat(500)), 1);
    table.row("header: 500 deep", signed(deep, claims().to_string()), Some(Rejection::Malformed));
}

fn repeated_keys(table: &mut Table) {
    let claims = claims().to_string();
    let twice = Some(Rejection::DuplicateKey);
    for (name, first) in [
        ("sub, another's first", r#""sub":"user_rich","#),
        ("sub, in escapes", r#""\u0073ub":"user_rich","#),
        ("sub, the same twice", r#""sub":"user_2abc","#),
        ("exp", r#""exp":9999999999,"#),
        ("deep in a claim that nobody reads", r#""x":[{"a":1,"a":1}],"#),
        ("an empty key", r#""":1,"":1,"#),
    ] {
        table.payload(&format!("repeated: {name}"), claims.replacen('{', &format!("{{{first}"), 1), twice);
    }
    let last = format!("{},\"sub\":\"user_rich\"}}", claims.trim_end_matches('}'));
    table.payload("repeated: sub, another's last", last, twice);
    for (name, first) in
        [("alg", r#""alg":"none","#), ("alg, in escapes", r#""\u0061lg":"none","#), ("kid", r#""kid":"x","#)]
    {
        let header = header().to_string().replacen('{', &format!("{{{first}"), 1);
        table.row(format!("header repeated: {name}"), signed(header, &claims), twice);
    }
    table.payload("keys that differ in case only", claims.replacen('{', r#"{"SUB":"user_rich","#, 1), None);
    table.payload(
        "the same key on two levels",
        claims.replacen('{', r#"{"x":{"sub":"user_rich"},"#, 1),
        None,
    );
}

fn identities(table: &mut Table) {
    let bad = Some(Rejection::Subject);
    for sub in [
        "",
        "user#1",
        "user 1",
        "user_2abc ",
        "user_2abc\0",
        "user_2abc\u{200b}",
        "us\u{435}r_2abc",
        "\u{202e}user",
        "ｕser_2abc",
    ] {
        table.claim("sub", json!(sub), bad);
    }
    for sub in [json!(7), json!(null), json!({}), json!(["user_2abc"]), json!(true), json!("u".repeat(65))] {
        table.claim("sub", sub, bad);
    }
    table.claim("sub", None, bad);
    table.claim("sub", json!("u".repeat(64)), None);
    for aud in
        [json!("https://api.example.com"), json!([PARTY]), json!([]), json!(""), json!(null), json!(PARTY)]
    {
        table.claim("aud", aud, Some(Rejection::Audience));
    }
    for sts in [
        json!("pending"),
        json!("Active"),
        json!("active "),
        json!(""),
        json!(null),
        json!(1),
        json!(["active"]),
        json!("new status"),
    ] {
        table.claim("sts", sts, Some(Rejection::SessionPending));
    }
    table.claim("sid", json!("s".repeat(64)), None);
    for sid in [
        json!(""),
        json!(1),
        json!(null),
        json!(["sess_1"]),
        json!("sess\n1"),
        json!("sess_\u{e9}"),
        json!("s".repeat(65)),
    ] {
        table.claim("sid", sid, Some(Rejection::SessionId));
    }
}

fn parties_and_issuers(table: &mut Table) {
    table.claim("azp", json!(PARTY_NFC), None);
    for azp in [
        "https://app.example.com/",
        "https://APP.example.com",
        "HTTPS://app.example.com",
        "http://app.example.com",
        "https://app.example.com:443",
        "https://app.example.com.evil.com",
        "https://app.example.co",
        "https://evil.com/https://app.example.com",
        "https://app.example.com ",
        "https://app.example.com\0",
        "https://app%2eexample.com",
        "https://\u{430}pp.example.com",
        "https://app.example.com\u{200b}",
        "https://app\u{ff0e}example.com",
        // The accent as a character of its own.
        "https://cafe\u{301}.example.com",
        "https://xn--caf-dma.example.com",
        "*",
        "",
    ] {
        table.claim("azp", json!(azp), Some(Rejection::AuthorizedParty));
    }
    for azp in [None, Some(json!(null)), Some(json!(1)), Some(json!([PARTY])), Some(json!({"azp": PARTY}))] {
        table.claim("azp", azp, Some(Rejection::AuthorizedParty));
    }
    for iss in [
        "https://clerk.example.com/",
        "https://CLERK.example.com",
        "http://clerk.example.com",
        "https://clerk.example.com:443",
        "https://clerk.evil.com",
        "https://clerk.example.com.evil.com",
        "https://clerk.example.com@evil.com",
        "https://cl\u{435}rk.example.com",
        "https://clerk.example.com\u{200b}",
        "\u{feff}https://clerk.example.com",
        "https://c\u{2113}erk.example.com",
        "https://clerk\u{3002}example.com",
        " https://clerk.example.com",
        "clerk.example.com",
        "",
    ] {
        table.claim("iss", json!(iss), Some(Rejection::Issuer));
    }
    for iss in [None, Some(json!(null)), Some(json!(1)), Some(json!([ISSUER]))] {
        table.claim("iss", iss, Some(Rejection::Issuer));
    }
    // The same text, spelled otherwise; and another key that looks the same.
    let claims = claims().to_string();
    table.payload("the issuer in escapes", claims.replacen("https://c", "https:\\/\\/\\u0063", 1), None);
    table.payload("iss in escapes", claims.replacen("\"iss\"", "\"\\u0069ss\"", 1), None);
    table.payload(
        "a look-alike of iss",
        claims.replacen("\"iss\"", "\"\\u0456ss\"", 1),
        Some(Rejection::Issuer),
    );
    table.payload(
        "a look-alike of sub",
        claims.replacen("\"sub\"", "\"\\u0455ub\"", 1),
        Some(Rejection::Subject),
    );
}

fn times(table: &mut Table) {
    // Five seconds of skew: what ended five seconds ago has ended, what begins in five seconds has begun.
    for (exp, expected) in
        [(NOW_S - 4, None), (NOW_S - 5, Some(Rejection::Expired)), (NOW_S - 6, Some(Rejection::Expired))]
    {
        table.claim("exp", json!(exp), expected);
    }
    for exp in [json!(0), json!(-1), json!(i64::MIN)] {
        table.claim("exp", exp, Some(Rejection::Expired));
    }
    table.claim("exp", json!(i64::MAX), None);
    for (claim, early) in [("nbf", Rejection::NotActiveYet), ("iat", Rejection::IssuedInFuture)] {
        table.claim(claim, json!(NOW_S + 4), None);
        table.claim(claim, json!(NOW_S + 5), None);
        table.claim(claim, json!(NOW_S + 6), Some(early));
        table.claim(claim, json!(i64::MAX), Some(early));
        table.claim(claim, json!(0), None);
        table.claim(claim, json!(-1), None);
        let ahead = token(&header(), &with(claims(), claim, Some(json!(NOW_S + 7))));
        for (now_ms, expected) in [((NOW_S + 2) * 1_000 - 1, Some(early)), ((NOW_S + 2) * 1_000, None)] {
            table.at(now_ms, &format!("claim {claim} seven seconds ahead"), &ahead, expected);
        }
    }
    let good = token(&header(), &claims());
    let end_ms = (NOW_S + 60 + 5) * 1_000;
    for (now_ms, expected) in [
        (end_ms - 1_000, None),
        (end_ms - 1, None),
        (end_ms, Some(Rejection::Expired)),
        (end_ms + 1, Some(Rejection::Expired)),
        (end_ms + 1_000, Some(Rejection::Expired)),
        (0, Some(Rejection::NotActiveYet)),
        (u64::MAX, Some(Rejection::Expired)),
    ] {
        table.at(now_ms, "a good token", &good, expected);
    }
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            json!("1800000060"),
            json!(1.5),
            json!(1e12),
            json!(null),
            json!([1]),
            json!({}),
            json!(true),
            json!(u64::MAX),
        ] {
            table.claim(claim, value, Some(Rejection::Time { claim }));
        }
    }
    table.claim("exp", None, Some(Rejection::Time { claim: "exp" }));
    for (name, exp) in [
        ("a float in exp", "1800000060.0"),
        ("an exponent in exp", "18e8"),
        ("a huge exp", "99999999999999999999"),
    ] {
        let claims = claims().to_string().replacen("1800000060", exp, 1);
        table.payload(name, claims, Some(Rejection::Time { claim: "exp" }));
    }
    let claims = claims().to_string();
    table.payload("an infinite exp", claims.replacen("1800000060", "1e999", 1), Some(Rejection::Malformed));
    table.payload(
        "a leading zero in exp",
        claims.replacen("1800000060", "01800000060", 1),
        Some(Rejection::Malformed),
    );
}

#[test]
fn every_token_of_the_corpus_is_taken_or_refused_for_its_reason() {
    let mut table = Table::default();
    for part in [
        good_tokens,
        algorithms,
        headers,
        key_ids,
        tampered,
        malformed,
        oversized_and_nested,
        repeated_keys,
        identities,
        parties_and_issuers,
        times,
    ] {
        part(&mut table);
    }
    let Table(rows) = table;
    let distinct: HashSet<_> = rows.iter().map(|row| (&row.token, row.now_ms)).collect();
    for (index, row) in rows.iter().enumerate() {
        assert!(rows[..index].iter().all(|other| other.name != row.name), "twice: {}", row.name);
    }
    println!("corpus: {} tokens", distinct.len());
    assert!(distinct.len() >= TOKENS_MIN, "{}", distinct.len());

    let key = VerifyingKey::from_pem(&pair().public).unwrap();
    let id = KeyId::parse(KID).unwrap();
    let document = json!({"keys": [jwk(other_pair(), "ins_1abc"), jwk(pair(), KID)]}).to_string();
    let verifier = |keys| Verifier::new(settings_of(keys)).unwrap();
    let given = verifier(key.clone().into());
    let with_id = verifier(Keys::Given { key, id: Some(id) });
    let mut wrong = Vec::new();
    for Row { name, token, now_ms, given: expected, keyed } in &rows {
        let set = KeySet::parse(document.as_bytes()).unwrap();
        let published = verifier(Keys::Published(PublishedKeys::known(set, Timestamp::from_ms(*now_ms))));
        for (by, verifier, expected) in
            [("given", &given, expected), ("with id", &with_id, keyed), ("published", &published, keyed)]
        {
            let found = verify_by(verifier, token, *now_ms).err();
            if found != expected.map(VerifyError::Refused) {
                wrong.push(format!("{name} ({by}): {found:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
