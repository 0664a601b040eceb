//! The instance's public key. Owns its parsing and the use of it; never prints it.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use std::fmt;

/// The smallest modulus accepted, in bytes: 2,048 bits, as RFC 7518 section 3.3 requires of RS256. The largest is the
/// cryptographic library's, 4,096 bits.
const MODULUS_BYTES_MIN: usize = 256;

/// The longest PEM accepted, in bytes. A 4,096-bit public key takes 800.
const PEM_BYTES_MAX: usize = 4_096;

/// A text that is not a public key for RS256. Says nothing of the text: somebody may have pasted a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not a PEM `PUBLIC KEY` or `RSA PUBLIC KEY` that holds an RSA key of at most 4,096 bits.
    #[error("not the PEM of an RSA public key of at most 4096 bits")]
    NotAnRsaPublicKey,
    /// An RSA key too short to be safe.
    #[error("an RSA key of less than 2048 bits")]
    TooShort,
}

/// The RSA public key with which Clerk's instance signs session tokens ("JWKS public key" in its dashboard).
#[derive(Clone)]
pub struct VerifyingKey(DecodingKey);

impl VerifyingKey {
    /// Reads a PEM public key. A line break may be written as `\n`, backslash and letter, because deployment tools take
    /// parameters of one line only.
    ///
    /// # Errors
    /// When it is not the PEM of an RSA public key of 2,048 to 4,096 bits.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(InvalidKey::NotAnRsaPublicKey);
        }
        let pem = pem.trim().replace("\\n", "\n");
        let key = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| InvalidKey::NotAnRsaPublicKey)?;
        // The library reads the key itself only at the first signature: a bad one would refuse every token instead of
        // failing here, at start.
        let utils = &crypto::rust_crypto::DEFAULT_PROVIDER.key_utils;
        let (modulus, _exponent) = key
            .try_get_as_bytes()
            .and_then(utils.rsa_pub_components_from_public_key)
            .map_err(|_| InvalidKey::NotAnRsaPublicKey)?;
        if modulus.len() < MODULUS_BYTES_MIN {
            return Err(InvalidKey::TooShort);
        }
        Ok(Self(key))
    }

    /// Whether `signature`, in base64url, is this key's RS256 signature of `message`. The algorithm is fixed here: what
    /// the token says of itself is never asked.
    pub(crate) fn signed(&self, signature: &str, message: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.0, Algorithm::RS256).unwrap_or(false)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(redacted)")
    }
}
