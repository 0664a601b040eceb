//! Who sends a request, by its Clerk session token, and how the environment says whose tokens count. Owns the way from
//! headers to a user or a refusal; what makes a token good is `clerk`'s.

use crate::{
    config::Env,
    cors::Cors,
    http,
    problem::Problem,
    request::{self, AmbiguousToken},
};
use ::http::HeaderMap;
use clerk::{KeyId, Keys, PublishedKeys, Settings, Verifier, VerifyError, VerifyingKey};
use domain::{Timestamp, UserId};

const ISSUER: &str = "CLERK_ISSUER";
const KEY: &str = "CLERK_JWT_KEY";
const KEY_ID: &str = "CLERK_JWT_KEY_ID";
const KEY_SET_URL: &str = "CLERK_JWKS_URL";
const PARTIES: &str = "CLERK_AUTHORIZED_PARTIES";
/// Where an instance publishes its keys, below its issuer.
const KEY_SET_PATH: &str = "/.well-known/jwks.json";

/// Whose session tokens count, and from which web pages: the parties that a token may be made for are the origins that may
/// call, so that the two cannot differ.
pub fn from_env(env: &mut Env) -> Option<(Verifier, Cors)> {
    let issuer = env.text(ISSUER);
    let keys = keys(env, issuer.as_deref());
    let authorized_parties = env.list(PARTIES)?;
    let cors = Cors::new(&authorized_parties).map_err(|why| env.complain(PARTIES, &why)).ok();
    let settings = Settings { issuer: issuer?, keys: keys?, authorized_parties };
    let verifier = Verifier::new(settings).map_err(|why| env.complain(PARTIES, &why)).ok();
    verifier.zip(cors)
}

/// The key that is given; without one, those that Clerk publishes.
fn keys(env: &mut Env, issuer: Option<&str>) -> Option<Keys> {
    let id = env.parsed_if_set(KEY_ID, KeyId::parse);
    if let Some(key) = env.parsed_if_set(KEY, VerifyingKey::from_pem) {
        return Some(Keys::Given { key, id });
    }
    if id.is_some() {
        env.complain(KEY_ID, &format_args!("it is of no use without {KEY}"));
    }
    let (name, url) = match env.url_if_set(KEY_SET_URL) {
        Some(url) => (KEY_SET_URL, url),
        None => (ISSUER, key_set_url(env, issuer?)?),
    };
    let client = http::client().map_err(|why| env.complain(name, &why)).ok()?;
    let keys = PublishedKeys::at(url, client).map_err(|why| env.complain(name, &why)).ok();
    keys.map(Keys::Published)
}

fn key_set_url(env: &mut Env, issuer: &str) -> Option<reqwest::Url> {
    let url = format!("{}{KEY_SET_PATH}", issuer.trim_end_matches('/'));
    let no_url = format_args!("not a URL, which it has to be where there is neither {KEY} nor {KEY_SET_URL}");
    url.parse().map_err(|_| env.complain(ISSUER, &no_url)).ok()
}

/// The user whose token a request brings.
///
/// # Errors
/// That it brings none, or one that does not hold, or that this cannot be said.
pub async fn authenticate(
    verifier: &Verifier,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<UserId, Problem> {
    let token = request::session_token(headers).map_err(|AmbiguousToken| {
        tracing::info!("more than one session token");
        // As Clerk calls what is not one token.
        Problem::token_refused("token-invalid")
    })?;
    let token = token.ok_or_else(Problem::token_missing)?;
    match verifier.verify(token, now).await {
        Ok(session) => Ok(session.user),
        Err(VerifyError::Refused(rejection)) => {
            // The sentence is for the log only: it can be more exact than what a stranger is told.
            tracing::info!(reason = rejection.reason(), why = %rejection, "session token refused");
            Err(Problem::token_refused(rejection.reason()))
        }
        Err(VerifyError::Unavailable) => {
            tracing::error!("a session token could not be checked");
            Err(Problem::identity_unavailable())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;
    use ::http::{HeaderValue, header};

    const NOW: Timestamp = Timestamp::from_s(1_800_000_000);
    /// A public key whose private half was thrown away.
    const CLERK_JWT_KEY: &str = include_str!("clerk_jwt_key.pem");
    const LEAST: [(&str, &str); 2] =
        [(ISSUER, "https://clerk.example.com"), (PARTIES, "https://app.example.com")];

    /// What the settings come to, or every complaint.
    fn read(more: &[(&str, &str)]) -> Result<String, String> {
        let mut env = Env::for_testing(&[&LEAST, more].concat());
        let found = from_env(&mut env);
        let found = env.finish(|| found).map_err(|error| error.to_string())?;
        Ok(format!("{:?}", found.0))
    }

    #[track_caller]
    fn check_complaint(more: &[(&str, &str)], expected: &str) {
        let error = read(more).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_given_key_needs_no_address_and_without_one_keys_come_from_the_issuer() {
        let given =
            read(&[(KEY, CLERK_JWT_KEY), (KEY_ID, "ins_1"), (KEY_SET_URL, "https://x.test/k")]).unwrap();
        assert!(given.contains("Given") && given.contains("Some(ins_1)"), "{given}");
        assert!(read(&[(KEY, CLERK_JWT_KEY)]).unwrap().contains("id: None"));
        for blank in ["", " "] {
            let published = read(&[(KEY, blank)]).unwrap();
            assert!(published.contains("https://clerk.example.com/.well-known/jwks.json"), "{published}");
        }
        let elsewhere = read(&[(KEY_SET_URL, "https://x.test/k")]).unwrap();
        assert!(elsewhere.contains("\"https://x.test/k\""), "{elsewhere}");
        assert!(read(&[(KEY_SET_URL, "http://127.0.0.1:1/k")]).is_ok());
    }

    #[test]
    fn what_would_let_strangers_in_or_nobody_is_refused_at_start() {
        check_complaint(&[(KEY_ID, "ins_1")], "CLERK_JWT_KEY_ID: it is of no use without CLERK_JWT_KEY");
        check_complaint(&[(KEY, CLERK_JWT_KEY), (KEY_ID, "in s")], "CLERK_JWT_KEY_ID: not a key's id");
        check_complaint(&[(KEY, "sk_live_x")], "CLERK_JWT_KEY: not an RSA public key");
        check_complaint(&[(KEY_SET_URL, "http://clerk.example.com/k")], "CLERK_JWKS_URL: not an https URL");
        check_complaint(&[(KEY_SET_URL, "http://127.0.0.1.evil.test/k")], "CLERK_JWKS_URL: not an https URL");
        check_complaint(&[(ISSUER, "http://clerk.example.com")], "CLERK_ISSUER: not an https URL");
        check_complaint(&[(ISSUER, "clerk.example.com")], "CLERK_ISSUER: not a URL");
        check_complaint(&[(PARTIES, "*")], "CLERK_AUTHORIZED_PARTIES");
    }

    async fn refused(more: &[(&str, &str)], headers: &[(header::HeaderName, &'static str)]) -> Problem {
        let mut env = Env::for_testing(&[&LEAST, more].concat());
        let (verifier, _cors) = from_env(&mut env).unwrap();
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        authenticate(&verifier, &headers.collect(), NOW).await.unwrap_err()
    }

    /// The header of a session token signed by a key that nobody has, and no more of it than what makes it look like one.
    const UNKNOWN_KEY: &str = "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6Imluc194In0.e30.AA";

    #[tokio::test]
    async fn a_refusal_says_clerks_reason_and_no_more() {
        let key = [(KEY, CLERK_JWT_KEY)];
        let missing = refused(&key, &[]).await;
        assert_eq!(missing.code(), Code::Unauthenticated);
        let same_origin = (header::HeaderName::from_static("sec-fetch-site"), "same-origin");
        let two = [(header::AUTHORIZATION, "Bearer a"), (header::AUTHORIZATION, "Bearer b")];
        for (headers, reason) in [
            (&two[..], "token-invalid"),
            (&[(header::AUTHORIZATION, "Bearer a.b.c")], "token-invalid"),
            (&[(header::AUTHORIZATION, UNKNOWN_KEY)], "token-invalid-signature"),
            (&[(header::COOKIE, "__session=a.b.c"), same_origin.clone()], "token-invalid"),
            (&[(header::COOKIE, "__session=a; __session=b"), same_origin], "token-invalid"),
        ] {
            let (head, body) = refused(&key, headers).await.into_response::<String>().into_parts();
            assert_eq!(head.status, 401);
            let expected = Problem::token_refused(reason).into_response::<String>().into_body();
            assert_eq!(body, expected);
        }
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_checked_is_not_called_bad() {
        // Nobody listens on port 1.
        let nowhere = [(KEY_SET_URL, "http://127.0.0.1:1/jwks")];
        let problem = refused(&nowhere, &[(header::AUTHORIZATION, UNKNOWN_KEY)]).await;
        assert_eq!(problem.code(), Code::IdentityUnavailable);
        let (head, _body) = problem.into_response::<String>().into_parts();
        assert_eq!((head.status.as_u16(), &head.headers[header::RETRY_AFTER]), (503, &HeaderValue::from(5)));
    }
}
