//! Whose account a command works on: the key, and whether that is meant.

use crate::cli::Global;
use crate::console::Exit;
use edge::config::{Env, InvalidConfig};
use stripe::{InvalidSettings, Secret, Settings, Stripe};

/// An account at Stripe that a command may work on.
#[derive(Clone, Debug)]
pub struct Account {
    /// The client.
    pub stripe: Stripe,
    /// Whether real money moves there.
    pub live: bool,
}

/// Why a command may not work on an account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The environment lacks the key.
    #[error(transparent)]
    Environment(#[from] InvalidConfig),
    /// No request can be made with these settings.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// A live key without `--live`.
    #[error("STRIPE_SECRET_KEY is a live key: say --live if the live account is meant")]
    LiveKey,
    /// A test key with `--live`.
    #[error("STRIPE_SECRET_KEY is a test key, and --live was said: set the live key, or leave --live out")]
    TestKey,
    /// Neither.
    #[error(
        "STRIPE_SECRET_KEY does not begin with sk_live_, rk_live_, sk_test_ or rk_test_, so that nobody knows whether it is live"
    )]
    UnknownKey,
}

impl AccountError {
    /// How a command ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Environment(_) | Self::Settings(_) => Exit::Failed,
            Self::LiveKey | Self::TestKey | Self::UnknownKey => Exit::Refused,
        }
    }
}

impl Account {
    /// The account of the key in the environment, if it is the one that is meant.
    ///
    /// # Errors
    /// When there is no key, it does not go with `--live`, or no client can be made of it.
    pub fn from_env(mut env: Env, global: &Global) -> Result<Self, AccountError> {
        let key = env.secret("STRIPE_SECRET_KEY");
        let base_url = env.url_if_set("STRIPE_BASE_URL").map(String::from);
        let (key, base_url) = env.finish(|| Some((key?, base_url)))?;
        let live = is_live(key.expose(), global.live)?;
        let base_url = global.stripe_base_url.clone().or(base_url);
        let stripe = Stripe::new(Settings { base_url, secret_key: Secret::new(key.expose()) })?;
        Ok(Self { stripe, live })
    }
}

/// Whether a key is live, if that is what was said.
fn is_live(key: &str, said: bool) -> Result<bool, AccountError> {
    let is = |mode: &str| ["sk", "rk"].iter().any(|kind| key.starts_with(&format!("{kind}_{mode}_")));
    match (is("live"), is("test"), said) {
        (true, _, true) => Ok(true),
        (true, _, false) => Err(AccountError::LiveKey),
        (_, true, false) => Ok(false),
        (_, true, true) => Err(AccountError::TestKey),
        (false, false, _) => Err(AccountError::UnknownKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, live: bool, expected: Result<bool, Exit>) {
        let env = Env::for_testing(&[("STRIPE_SECRET_KEY", key)]);
        let global = Global { live, ..Global::default() };
        let account = Account::from_env(env, &global);
        let shown = format!("{account:?}");
        assert_eq!(account.map(|account| account.live).map_err(|error| error.exit()), expected, "{key}");
        assert!(key.is_empty() || !shown.contains(key), "{shown}");
    }

    #[test]
    fn nothing_live_is_touched_by_mistake() {
        check("sk_test_hush", false, Ok(false));
        check("rk_test_hush", false, Ok(false));
        check("sk_live_hush", true, Ok(true));
        check("rk_live_hush", true, Ok(true));
        check("sk_live_hush", false, Err(Exit::Refused));
        check("sk_test_hush", true, Err(Exit::Refused));
        check("pk_live_hush", true, Err(Exit::Refused));
        check("hush", false, Err(Exit::Refused));
        check("", false, Err(Exit::Failed));
    }
}
