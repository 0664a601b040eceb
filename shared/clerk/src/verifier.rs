//! The verifier: all checks in their order. Reads no clock, and keeps nothing between two tokens but published keys.

use crate::{
    KeyId, PublishedKeys, Rejection, SessionId, VerifyingKey, claims::Claims, published::NoKey,
    token::Unverified,
};
use domain::{Timestamp, UserId};

/// The keys with which the instance signs session tokens.
#[derive(Clone, Debug)]
pub enum Keys {
    /// This one, known beforehand: verifying uses no network.
    Given {
        /// The key.
        key: VerifyingKey,
        /// Its id. Where there is one, a token must name it; where there is none, what a token names is not looked at.
        id: Option<KeyId>,
    },
    /// Those that Clerk publishes.
    Published(PublishedKeys),
}

impl From<VerifyingKey> for Keys {
    /// This key alone, whatever id a token gives it.
    fn from(key: VerifyingKey) -> Self {
        Self::Given { key, id: None }
    }
}

impl Keys {
    /// The key by which a token is verified that names this id.
    async fn key(&self, named: Option<KeyId>, now: Timestamp) -> Result<VerifyingKey, VerifyError> {
        match self {
            Self::Given { id: Some(id), .. } if named.as_ref() != Some(id) => Err(Rejection::KeyId.into()),
            Self::Given { key, .. } => Ok(key.clone()),
            Self::Published(keys) => {
                let named = named.ok_or(Rejection::KeyId)?;
                keys.key(&named, now).await.map_err(|error| match error {
                    NoKey::Unknown => Rejection::KeyId.into(),
                    NoKey::Unavailable => VerifyError::Unavailable,
                })
            }
        }
    }
}

/// What tokens are checked against.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance's frontend API, as `iss` has it: `https://clerk.example.com`, without a slash at its end.
    pub issuer: String,
    /// The instance's public keys.
    pub keys: Keys,
    /// The origins whose tokens are taken, as `azp` has them: `https://app.example.com`, without a slash at its end.
    /// Compared to the letter.
    pub authorized_parties: Vec<String>,
}

/// Settings under which every token, or every origin, would be treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// No issuer.
    #[error("the issuer is empty")]
    NoIssuer,
    /// No authorized party. Clerk's own backend takes that as "any"; we do not.
    #[error("there is no authorized party")]
    NoAuthorizedParty,
    /// An authorized party that is empty or ends in a slash, which no origin does: it would refuse its own users.
    #[error("an authorized party is empty or ends in a slash")]
    NotAnOrigin,
}

/// Why it cannot be said whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token does not hold.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// The key that it names is not known, and Clerk does not answer: it may well hold.
    #[error("Clerk does not say which keys it signs with")]
    Unavailable,
}

/// Who sends a request, by a token that was valid at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The user.
    pub user: UserId,
    /// The session at Clerk, where the token names one.
    pub session_id: Option<SessionId>,
    /// When the token ends, without the skew.
    pub expires_at: Timestamp,
}

/// Verifies session tokens.
#[derive(Clone, Debug)]
pub struct Verifier {
    settings: Settings,
}

impl Verifier {
    /// A verifier for one instance of Clerk.
    ///
    /// # Errors
    /// When the issuer is empty, or there is no authorized party, or one that is not an origin.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        if settings.issuer.is_empty() {
            return Err(InvalidSettings::NoIssuer);
        }
        if settings.authorized_parties.is_empty() {
            return Err(InvalidSettings::NoAuthorizedParty);
        }
        if settings.authorized_parties.iter().any(|party| party.is_empty() || party.ends_with('/')) {
            return Err(InvalidSettings::NotAnOrigin);
        }
        Ok(Self { settings })
    }

    /// Says whose token this is, as of `now`. The token is the bare JWT, without `Bearer`.
    ///
    /// # Errors
    /// The first check that it fails, in the order of this crate's README; or that it could not be checked.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Session, VerifyError> {
        let token = Unverified::decode(token)?;
        token.check_header()?;
        // Last before the signature, so that only what could be a token makes us ask for keys.
        let key = self.settings.keys.key(token.key_id()?, now).await?;
        Ok(self.session(&Claims(token.signed_by(&key)?), now)?)
    }

    fn session(&self, claims: &Claims, now: Timestamp) -> Result<Session, Rejection> {
        let user = claims.user()?;
        claims.no_audience()?;
        claims.authorized_party(&self.settings.authorized_parties)?;
        claims.issuer(&self.settings.issuer)?;
        let expires_at = claims.expires_at(now)?;
        claims.begun(now)?;
        claims.active()?;
        let session_id = claims.session_id()?;
        Ok(Session { user, session_id, expires_at })
    }
}
