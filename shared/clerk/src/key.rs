//! One public key of the instance, and its id. Owns their parsing and the use of the key; never prints the key.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use std::{fmt, sync::Arc};

/// The smallest modulus accepted, in bits, as RFC 7518 section 3.3 requires of RS256.
const MODULUS_BITS_MIN: u64 = 2_048;
/// The largest modulus accepted, in bits: the cryptographic library's own bound.
const MODULUS_BITS_MAX: u64 = 4_096;
/// The longest public exponent accepted, in bits. All but a few keys have 65,537; the library takes up to 33 bits.
const EXPONENT_BITS_MAX: u64 = 32;
const BITS_PER_BYTE: u64 = 8;

/// The longest PEM accepted, in bytes. A 4,096-bit public key takes 800.
const PEM_BYTES_MAX: usize = 4_096;

/// A text that is not a public key for RS256. Says nothing of the text: somebody may have pasted a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not the public half of an RSA key of at most 4,096 bits.
    #[error("not an RSA public key of at most 4096 bits")]
    NotAnRsaPublicKey,
    /// An RSA key too short to be safe.
    #[error("an RSA key of less than 2048 bits")]
    TooShort,
}

/// The RSA public key with which Clerk's instance signs session tokens ("JWKS public key" in its dashboard).
#[derive(Clone)]
pub struct VerifyingKey(Arc<DecodingKey>);

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
        let (modulus, exponent) = key
            .try_get_as_bytes()
            .and_then(utils.rsa_pub_components_from_public_key)
            .map_err(|_| InvalidKey::NotAnRsaPublicKey)?;
        check_components(&modulus, &exponent)?;
        Ok(Self(Arc::new(key)))
    }

    /// The key of this modulus and public exponent, each big-endian.
    ///
    /// # Errors
    /// When they are not those of an RSA key of 2,048 to 4,096 bits.
    pub(crate) fn from_components(modulus: &[u8], exponent: &[u8]) -> Result<Self, InvalidKey> {
        check_components(modulus, exponent)?;
        Ok(Self(Arc::new(DecodingKey::from_rsa_raw_components(modulus, exponent))))
    }

    /// Whether `signature`, in base64url, is this key's RS256 signature of `message`. The algorithm is fixed here: what
    /// the token says of itself is never asked.
    pub(crate) fn signed(&self, signature: &str, message: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.0, Algorithm::RS256).unwrap_or(false)
    }
}

/// What the library would find out only at a signature, and then refuse every token for.
fn check_components(modulus: &[u8], exponent: &[u8]) -> Result<(), InvalidKey> {
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let modulus_bits = bits(modulus);
    if modulus_bits < MODULUS_BITS_MIN {
        return Err(InvalidKey::TooShort);
    }
    // An exponent of one bit is 1, with which every text would be its own signature.
    let exponent_fits = (2..=EXPONENT_BITS_MAX).contains(&bits(exponent));
    if modulus_bits > MODULUS_BITS_MAX || !exponent_fits || !odd(modulus) || !odd(exponent) {
        return Err(InvalidKey::NotAnRsaPublicKey);
    }
    Ok(())
}

/// The length of a big-endian number in bits, its leading zeros not counted.
fn bits(number: &[u8]) -> u64 {
    let mut significant = number.iter().skip_while(|byte| **byte == 0);
    let Some(first) = significant.next() else { return 0 };
    let rest = significant.fold(0_u64, |bits, _| bits.saturating_add(BITS_PER_BYTE));
    rest.saturating_add(u64::from(u8::BITS - first.leading_zeros()))
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(redacted)")
    }
}

/// A key's id, `kid`: 1 to 128 visible ASCII characters. Clerk's are `ins_` and letters. It is public.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Box<str>);

/// A text that is not a key's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key's id, which is 1 to {} visible ASCII characters", KeyId::LENGTH_MAX)]
pub struct InvalidKeyId;

impl KeyId {
    /// The longest accepted length, in bytes. Bounds what a stranger's token can make us remember.
    pub const LENGTH_MAX: usize = 128;

    /// Reads an id.
    ///
    /// # Errors
    /// When it is empty, too long, or has anything but visible ASCII characters in it.
    pub fn parse(text: &str) -> Result<Self, InvalidKeyId> {
        let fits = !text.is_empty() && text.len() <= Self::LENGTH_MAX;
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits && visible { Ok(Self(text.into())) } else { Err(InvalidKeyId) }
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
