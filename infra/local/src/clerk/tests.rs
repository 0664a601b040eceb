//! Clerk's stand-in: its tokens are checked here by another library than the one that makes them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;
use serde_json::{Map, Value, json};

use super::*;
use crate::serve::testing::{client, listener, within};

const NOW_S: u64 = 1_800_000_000;

async fn clerk() -> Handle {
    start(listener().await, Options { clock: Arc::new(|| NOW_S), ..Options::default() }).await.unwrap()
}

async fn get(handle: &Handle, path: &str) -> (u16, String) {
    let response = client().get(format!("{}{path}", handle.base_url())).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn part(token: &str, index: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The claims, if the signature is `key`'s. Times are not checked: the clock is made up.
fn verify(token: &str, key: &DecodingKey) -> Result<Map<String, Value>, jsonwebtoken::errors::Error> {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation).map(|data| data.claims)
}

#[tokio::test]
async fn a_token_is_a_version_2_session_token() {
    let clerk = clerk().await;
    let token = clerk.mint("user_2x", NOW_S);
    assert_eq!(
        part(&token, 0),
        json!({"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": clerk.key_id(), "typ": "JWT"})
    );
    assert_eq!(
        part(&token, 1),
        json!({
            "azp": "http://localhost:3000", "exp": NOW_S + 60, "fea": "u:generate", "fva": [0, -1], "iat": NOW_S,
            "iss": clerk.base_url(), "nbf": NOW_S - 10, "pla": "u:free", "sid": "sess_2x", "sts": "active",
            "sub": "user_2x", "v": 2,
        })
    );
    assert_eq!(clerk.issuer(), clerk.base_url());
    assert_eq!(clerk.authorized_party(), "http://localhost:3000");
}

#[tokio::test]
async fn both_forms_of_the_public_key_verify_and_a_changed_token_does_not() {
    let clerk = clerk().await;
    let token = clerk.mint("user_2x", NOW_S);
    let pem = DecodingKey::from_rsa_pem(clerk.public_key_pem().as_bytes()).unwrap();
    assert_eq!(verify(&token, &pem).unwrap()["sub"], "user_2x");

    let (status, body) = get(&clerk, "/.well-known/jwks.json").await;
    assert_eq!(status, 200);
    let set: Value = serde_json::from_str(&body).unwrap();
    let key = &set["keys"][0];
    assert_eq!(
        (&key["kty"], &key["use"], &key["alg"], key["kid"].as_str().unwrap()),
        (&json!("RSA"), &json!("sig"), &json!("RS256"), &*clerk.key_id())
    );
    let jwk =
        DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap()).unwrap();
    assert_eq!(verify(&token, &jwk).unwrap()["sub"], "user_2x");

    let other = clerk.mint("user_other", NOW_S);
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[1] = other.split('.').nth(1).unwrap();
    assert!(verify(&parts.join("."), &pem).is_err());
}

#[tokio::test]
async fn claims_and_headers_can_be_wrong_in_any_way() {
    let clerk = clerk().await;
    let claims = Claims::new("user_2x", NOW_S)
        .lifetime_s(5)
        .plan("pro")
        .claim("sts", "pending")
        .claim("exp", "soon")
        .without("azp")
        .header("kid", "ins_unknown")
        .header("alg", "none")
        .header("typ", Value::Null);
    let token = clerk.mint_with(claims);
    assert_eq!(part(&token, 0), json!({"alg": "none", "cat": "cl_B7d4PD111AAA", "kid": "ins_unknown"}));
    let claims = part(&token, 1);
    assert_eq!(
        (&claims["sts"], &claims["exp"], &claims["pla"]),
        (&json!("pending"), &json!("soon"), &json!("u:pro"))
    );
    assert_eq!(claims.get("azp"), None);
    let token = clerk.mint_with(Claims::new("user_2x", NOW_S).lifetime_s(5));
    assert_eq!(part(&token, 1)["exp"], NOW_S + 5);
}

#[tokio::test]
async fn named_users_get_tokens_over_http() {
    let clerk = clerk().await;
    let (status, token) = get(&clerk, "/mint?user=alice").await;
    assert_eq!(status, 200);
    assert_eq!(token, clerk.mint("user_local_alice", NOW_S));
    assert_eq!(part(&token, 1)["sid"], "sess_local_alice");
    let (_, token) = get(&clerk, "/mint?user=bob-2&lifetime_s=3600&plan=pro").await;
    assert_eq!(part(&token, 1)["sub"], "user_local_bob-2");
    assert_eq!(part(&token, 1)["exp"], NOW_S + 3_600);
    assert_eq!(part(&token, 1)["pla"], "u:pro");
}

#[tokio::test]
async fn malformed_requests_for_a_token_are_refused() {
    let clerk = clerk().await;
    for (path, status, code) in [
        ("/mint", 422, "form_param_missing"),
        ("/mint?user=", 422, "form_param_format_invalid"),
        ("/mint?user=Alice", 422, "form_param_format_invalid"),
        ("/mint?user=a%20b", 422, "form_param_format_invalid"),
        ("/mint?user=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 422, "form_param_format_invalid"),
        ("/mint?user=alice&colour=red", 422, "form_param_unknown"),
        ("/mint?user=alice&lifetime_s=0", 422, "form_param_value_invalid"),
        ("/mint?user=alice&lifetime_s=86401", 422, "form_param_value_invalid"),
        ("/mint?user=alice&lifetime_s=-1", 422, "form_param_value_invalid"),
        ("/v1/jwks", 404, "resource_not_found"),
    ] {
        let (found, body) = get(&clerk, path).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, body["errors"][0]["code"].as_str().unwrap()), (status, code), "{path}");
    }
    let posted = client().post(format!("{}/mint?user=alice", clerk.base_url())).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn fetches_of_the_key_set_are_counted() {
    let clerk = clerk().await;
    assert_eq!(clerk.jwks_fetches(), 0);
    for _ in 0..3 {
        get(&clerk, "/.well-known/jwks.json").await;
    }
    get(&clerk, "/mint?user=alice").await;
    assert_eq!(clerk.jwks_fetches(), 3);
}

fn kids(set: &str) -> Vec<String> {
    let set: Value = serde_json::from_str(set).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_new_key_signs_and_old_ones_are_published_until_they_are_taken_back() {
    let clerk = clerk().await;
    let (old, old_token) = (clerk.key_id(), clerk.mint("user_2x", NOW_S));
    clerk.rotate_key().await.unwrap();
    assert_ne!(clerk.key_id(), old);
    assert_eq!(part(&clerk.mint("user_2x", NOW_S), 0)["kid"], clerk.key_id());
    let key = DecodingKey::from_rsa_pem(clerk.public_key_pem().as_bytes()).unwrap();
    assert!(verify(&clerk.mint("user_2x", NOW_S), &key).is_ok());
    assert!(verify(&old_token, &key).is_err());
    let (_, set) = get(&clerk, "/.well-known/jwks.json").await;
    assert_eq!(kids(&set), [clerk.key_id(), old]);
    clerk.take_old_keys_back();
    let (_, set) = get(&clerk, "/.well-known/jwks.json").await;
    assert_eq!(kids(&set), [clerk.key_id()]);
}

#[tokio::test]
async fn a_key_set_can_be_late_refused_cut_off_or_never_come_and_is_counted() {
    let clerk = clerk().await;
    clerk.set_key_set(KeySet::Late(Duration::from_millis(1)));
    assert_eq!(get(&clerk, "/.well-known/jwks.json").await.0, 200);
    clerk.set_key_set(KeySet::Refused(StatusCode::SERVICE_UNAVAILABLE));
    let (status, body) = get(&clerk, "/.well-known/jwks.json").await;
    assert_eq!((status, body.contains("internal_clerk_error")), (503, true));
    let url = format!("{}/.well-known/jwks.json", clerk.base_url());
    clerk.set_key_set(KeySet::HungUp);
    assert!(client().get(&url).send().await.is_err());
    clerk.set_key_set(KeySet::Silent);
    let counted = async {
        while clerk.jwks_fetches() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = client().get(&url).send() => panic!("it was answered: {answer:?}"),
        () = within(counted) => {}
    }
    clerk.set_key_set(KeySet::Served);
    assert_eq!(get(&clerk, "/.well-known/jwks.json").await.0, 200);
    assert_eq!(clerk.jwks_fetches(), 5);
}

#[tokio::test]
async fn one_process_has_one_key_unless_one_is_given() {
    let (one, other) = (clerk().await, clerk().await);
    assert_eq!(one.public_key_pem(), other.public_key_pem());
    let private = rsa::RsaPrivateKey::new(&mut OsRng, 2_048).unwrap();
    let pem = private.to_pkcs8_pem(LineEnding::LF).unwrap();
    let with = |pem: &str| Options {
        key_pem: Some(pem.to_owned()),
        issuer: Some("https://local.clerk.example".to_owned()),
        ..Options::default()
    };
    let own = start(listener().await, with(&pem)).await.unwrap();
    assert_ne!(own.public_key_pem(), one.public_key_pem());
    assert_ne!(own.key_id(), one.key_id());
    let token = own.mint("user_2x", NOW_S);
    assert_eq!(part(&token, 1)["iss"], "https://local.clerk.example");
    let key = DecodingKey::from_rsa_pem(own.public_key_pem().as_bytes()).unwrap();
    assert!(verify(&token, &key).is_ok());
    assert!(verify(&one.mint("user_2x", NOW_S), &key).is_err(), "another key's token");

    let small = rsa::RsaPrivateKey::new(&mut OsRng, 1_024).unwrap().to_pkcs8_pem(LineEnding::LF).unwrap();
    assert!(start(listener().await, with(&small)).await.is_err());
    assert!(start(listener().await, with("no key")).await.is_err());
}

#[test]
fn nothing_shows_the_private_key() {
    let key = Key::of_process().unwrap();
    assert_eq!(format!("{key:?}"), format!("Key {{ kid: {:?}, .. }}", key.kid()));
    let options = Options { key_pem: Some("SECRET".to_owned()), ..Options::default() };
    assert!(!format!("{options:?}").contains("SECRET"));
}
