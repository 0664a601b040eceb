//! The verifier: all checks in their order. Reads no clock and no network, and keeps nothing between two tokens.

use crate::{Rejection, SessionId, VerifyingKey, claims::Claims, token::Unverified};
use domain::{Timestamp, UserId};

/// What tokens are checked against.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance's frontend API, as `iss` has it: `https://clerk.example.com`, without a slash at its end.
    pub issuer: String,
    /// The instance's public key.
    pub key: VerifyingKey,
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
    /// The first check that it fails, in the order of this crate's README.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Session, Rejection> {
        let claims = Claims(Unverified::decode(token)?.verify(&self.settings.key)?);
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
