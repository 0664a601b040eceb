//! Why a token is refused. Holds no part of the token, so that a refusal may be logged and answered.

/// The reason for which a session token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// Longer than [`crate::TOKEN_BYTES_MAX`]; nothing of it was read.
    #[error("the token is longer than {} bytes", crate::TOKEN_BYTES_MAX)]
    TooLarge,
    /// Not three parts of unpadded base64url, the first two of them JSON objects.
    #[error("the token is not a JWT")]
    Malformed,
    /// A JSON object in it names a key twice, so two readers may disagree on what it says.
    #[error("the token repeats a JSON key")]
    DuplicateKey,
    /// `cat` says that it is another of Clerk's kinds of token.
    #[error("the token is not a session token")]
    Category,
    /// `typ` is there and not `JWT`.
    #[error("the token's type is not JWT")]
    Type,
    /// `crit` names extensions that a verifier must understand; this one knows none.
    #[error("the token has critical header extensions")]
    CriticalHeader,
    /// `alg` is absent or not of the RS family.
    #[error("the token's algorithm is not RS256")]
    Algorithm,
    /// `alg` is RS384 or RS512: Clerk's family, and not what Clerk signs with.
    #[error("the token's algorithm is not the key's, RS256")]
    AlgorithmNotOfKey,
    /// `kid` is not a key's id, or names a key that is not the instance's; or it is absent where the key is found by it.
    #[error("the token's key is not the instance's")]
    KeyId,
    /// The signature is not the key's over this header and payload.
    #[error("the token's signature is wrong")]
    Signature,
    /// `sub` is absent or not a user id.
    #[error("the token's subject is not a user id")]
    Subject,
    /// `aud` is there: the token was made for another service.
    #[error("the token is for an audience, which a session token is not")]
    Audience,
    /// `azp` is absent or not exactly one of the authorized parties.
    #[error("the token was issued to a party that is not authorized")]
    AuthorizedParty,
    /// `iss` is absent or not exactly the issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// `exp` is absent, or `exp`, `nbf` or `iat` is not a whole number of seconds.
    #[error("the token's {claim} is not a whole number of seconds")]
    Time {
        /// The claim's name.
        claim: &'static str,
    },
    /// `exp` has passed, and the skew too.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is further ahead than the skew.
    #[error("the token is not active yet")]
    NotActiveYet,
    /// `iat` is further ahead than the skew.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// `sts` is not `active`: the user has not finished what Clerk asks of a session, such as choosing an organisation.
    #[error("the session is pending")]
    SessionPending,
    /// `sid` is there and not a plain identifier.
    #[error("the token's session id is not one")]
    SessionId,
}

impl Rejection {
    /// The reason as Clerk's own backend names it, or ours where Clerk has none.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed | Self::DuplicateKey | Self::Category | Self::Type => "token-invalid",
            Self::Algorithm => "token-invalid-algorithm",
            Self::AlgorithmNotOfKey
            | Self::Subject
            | Self::Audience
            | Self::Time { .. }
            | Self::SessionId => "token-verification-failed",
            Self::KeyId => "jwk-kid-mismatch",
            Self::Signature => "token-invalid-signature",
            Self::AuthorizedParty => "token-invalid-authorized-parties",
            Self::Issuer => "token-invalid-issuer",
            Self::Expired => "token-expired",
            Self::NotActiveYet => "token-not-active-yet",
            Self::IssuedInFuture => "token-iat-in-the-future",
            Self::TooLarge => "token-too-large",
            Self::CriticalHeader => "token-critical-header",
            Self::SessionPending => "session-pending",
        }
    }
}
