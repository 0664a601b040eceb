//! The test users that the page offers, each in a state that is worth seeing. What puts them there is what would do it in
//! production: Stripe's webhook, and requests of their own.
//!
//! Must never write to the table, nor sign anybody in with a real Clerk.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    clerk,
    clock::CloudClock,
    cloud::{Catalog, CatalogError, StripeApi},
    net,
    stripe::Stripe,
};

/// How long a token is good, in seconds, as Clerk's are: a page that does not refresh them is found out.
const TOKEN_LIFETIME_S: u64 = 60;
/// How often a webhook is sent again that the function did not take.
const DELIVERIES_MAX: u32 = 20;
/// The most users that are set up.
const READY_MAX: usize = 1_000;
/// More requests than the free plan's window admits.
const HASTY_REQUESTS_MAX: u32 = 12;
/// What a person's name, title and state are.
type Person = (&'static str, &'static str, &'static str);
const SUBSCRIBER: Person = ("bob", "Bob", "Pro plan: 500,000 tokens included, then billed by use");
const NEARLY_USED_UP: Person = ("carol", "Carol", "Free plan, nearly used up: the next request is refused");
const HASTY: Person = ("dave", "Dave", "Free plan, too fast: has just used up this minute's requests");
const PEOPLE: [Person; 4] =
    [("alice", "Alice", "Free plan: 20,000 tokens a month"), SUBSCRIBER, NEARLY_USED_UP, HASTY];
/// What uses a free plan up but for a little: what each request asks the provider's stand-in to count, and the bytes of
/// its prompt, which bound what it may be charged.
const USING_UP: [(&str, usize); 3] = [
    ("prompt=exact:17000 tokens=20 delay_ms=0", 17_200),
    ("prompt=exact:400 completion=1000 tokens=20 delay_ms=0", 10),
    ("prompt=exact:450 completion=1000 tokens=20 delay_ms=0", 10),
];

/// The rate windows of every plan, in milliseconds: they begin at whole minutes.
const WINDOW_MS: i64 = 60_000;
/// What has to be left of a window that is used up, in milliseconds, for somebody to see that it is. At the beginning of the
/// next one a request passes.
const SEEN_MS: i64 = 12_000;

/// How long to wait until the window has so much left.
fn until_a_window_has_time(now_ms: i64) -> Duration {
    let left_ms = WINDOW_MS - now_ms.rem_euclid(WINDOW_MS);
    let wait_ms = if left_ms < SEEN_MS { left_ms } else { 0 };
    Duration::from_millis(wait_ms.unsigned_abs())
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    /// The name is none.
    #[error("a user's name is 1 to 40 of a-z, 0-9, _ and -")]
    Name,
    /// More users than anybody looks at.
    #[error("too many test users; start the local cloud again")]
    TooMany,
    /// The real thing stands where a stand-in would have to be.
    #[error("{0} cannot be set up without the stand-ins")]
    NotStandIns(&'static str),
    /// Stripe's stand-in refused.
    #[error("Stripe's stand-in refused a customer or a subscription")]
    Stripe(#[from] CatalogError),
    /// The webhook function did not take what it was told.
    #[error("{0} webhooks were never taken; see the webhook function's log")]
    Webhooks(usize),
    /// The gateway did not answer.
    #[error("a request could not be sent")]
    Request(#[from] reqwest::Error),
}

impl SignInError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Name => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany | Self::NotStandIns(_) => StatusCode::CONFLICT,
            Self::Stripe(_) | Self::Webhooks(_) | Self::Request(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

/// What setting a user up takes.
pub(crate) struct Parts {
    pub(crate) clerk: clerk::Handle,
    pub(crate) clock: CloudClock,
    /// The gateway's, which is the page's: `azp` of the tokens.
    pub(crate) origin: String,
    /// Absent with the real Stripe.
    pub(crate) billing: Option<Billing>,
    /// Whether the provider is the stand-in, which prompts can steer.
    pub(crate) steerable: bool,
}

/// Where a subscription is bought.
pub(crate) struct Billing {
    pub(crate) stripe: Stripe,
    pub(crate) key: String,
    pub(crate) catalog: Catalog,
}

/// The test users. Clones share what was set up.
#[derive(Clone)]
pub(crate) struct Visitors {
    parts: Arc<Parts>,
    http: reqwest::Client,
    /// Who is as described. Its lock makes two pages set one user up once.
    ready: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for Visitors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds keys.
        f.debug_struct("Visitors").field("origin", &self.parts.origin).finish_non_exhaustive()
    }
}

impl Visitors {
    /// Nobody is set up before somebody asks for them.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub(crate) fn new(parts: Parts) -> reqwest::Result<Self> {
        let ready = Arc::new(Mutex::new(BTreeSet::new()));
        Ok(Self { parts: Arc::new(parts), http: net::client()?, ready })
    }

    /// Who is offered.
    pub(super) fn people() -> Value {
        let person = |(name, title, about): &Person| json!({ "name": name, "title": title, "about": about });
        PEOPLE.iter().map(person).collect()
    }

    /// A short-lived token of a user, of whom one that is offered is as described; `bob-2` is another one like `bob`. Any
    /// other name is a free user's.
    ///
    /// # Errors
    /// See [`SignInError`].
    pub(super) async fn sign_in(&self, name: &str, anew: bool) -> Result<Value, SignInError> {
        let token = self.token(name)?;
        let role = name.split('-').next().unwrap_or(name);
        if let Some((person, _, _)) = PEOPLE.iter().find(|(person, _, _)| *person == role) {
            if *person == HASTY.0 && (anew || !self.ready.lock().await.contains(name)) {
                tokio::time::sleep(until_a_window_has_time(self.parts.clock.now_ms())).await;
            }
            let mut ready = self.ready.lock().await;
            // A window goes by, so who was too fast is so again; the others stay as they are.
            if !ready.contains(name) || (anew && *person == HASTY.0) {
                if ready.len() >= READY_MAX {
                    return Err(SignInError::TooMany);
                }
                self.prepare(person, name, &token).await?;
                ready.insert(name.to_owned());
            }
        }
        // What was prepared may have taken some of the first one's time.
        Ok(json!({ "user": name, "token": self.token(name)?, "expiresInS": TOKEN_LIFETIME_S }))
    }

    fn token(&self, name: &str) -> Result<String, SignInError> {
        let user = clerk::user_id(name).ok_or(SignInError::Name)?;
        let now_s = u64::try_from(self.parts.clock.now_ms() / 1_000).unwrap_or_default();
        let claims = clerk::Claims::new(user, now_s).lifetime_s(TOKEN_LIFETIME_S);
        Ok(self.parts.clerk.mint_with(claims.claim("azp", self.parts.origin.as_str())))
    }

    async fn prepare(&self, person: &'static str, name: &str, token: &str) -> Result<(), SignInError> {
        match person {
            person if person == SUBSCRIBER.0 => self.subscribe(person, name).await,
            person if person == NEARLY_USED_UP.0 => {
                for (directive, bytes) in USING_UP {
                    self.generate(person, token, directive, bytes).await?;
                }
                Ok(())
            }
            person if person == HASTY.0 => {
                for _ in 0..HASTY_REQUESTS_MAX {
                    if self.generate(person, token, "tokens=1 delay_ms=0", 1).await?
                        == StatusCode::TOO_MANY_REQUESTS
                    {
                        break;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn subscribe(&self, person: &'static str, name: &str) -> Result<(), SignInError> {
        let billing = self.parts.billing.as_ref().ok_or(SignInError::NotStandIns(person))?;
        let Billing { stripe, key, catalog } = billing;
        let plan = catalog.plans.values().next().ok_or(SignInError::NotStandIns(person))?;
        let user = clerk::user_id(name).ok_or(SignInError::Name)?;
        let api = StripeApi::new(&stripe.base_url(), key)?;
        let (customer, _) = api.created("v1/customers", &[("metadata[user_id]", &user)]).await?;
        let subscription = [
            ("customer", customer.as_str()),
            ("items[0][price]", &plan.base_price_id),
            ("items[1][price]", &plan.metered_price_id),
            ("metadata[user_id]", &user),
        ];
        api.created("v1/subscriptions", &subscription).await?;
        match stripe.deliver_all(DELIVERIES_MAX).await {
            0 => Ok(()),
            waiting => Err(SignInError::Webhooks(waiting)),
        }
    }

    /// One request to its end.
    async fn generate(
        &self,
        person: &'static str,
        token: &str,
        directive: &str,
        bytes: usize,
    ) -> Result<StatusCode, SignInError> {
        if !self.parts.steerable {
            return Err(SignInError::NotStandIns(person));
        }
        let prompt = format!("[[{directive}]] {}", "x".repeat(bytes));
        let body = json!({ "prompt": prompt, "type": "rewrite" });
        let url = format!("{}/v1/generate", self.parts.origin);
        let answer = self.http.post(url).bearer_auth(token).json(&body).send().await?;
        let status = answer.status();
        answer.bytes().await?;
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_used_up_while_there_is_time_to_see_it() {
        for (now_ms, wait_ms) in [(0, 0), (48_000, 0), (48_001, 11_999), (59_999, 1), (120_000, 0)] {
            assert_eq!(until_a_window_has_time(now_ms), Duration::from_millis(wait_ms), "{now_ms}");
        }
    }
}
