//! The signing key. It owns the private half, which must never be logged, shown or written anywhere.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts;
use rsa::{RsaPrivateKey, RsaPublicKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::serve::hex;

/// Bits of the modulus, as Clerk's own keys have.
const KEY_BITS: usize = 2_048;
/// Bytes of the public key's digest that make its id.
const KID_BYTES: usize = 13;
/// What PKCS#1 v1.5 puts before a SHA-256 digest (RFC 8017, section 9.2, note 1).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

/// An RSA key that signs RS256.
pub(super) struct Key {
    private: RsaPrivateKey,
    kid: String,
    public_pem: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Key {
    /// The key of this process, made when it is first asked for.
    pub(super) fn of_process() -> io::Result<Arc<Self>> {
        static KEY: OnceLock<Arc<Key>> = OnceLock::new();
        if let Some(key) = KEY.get() {
            return Ok(Arc::clone(key));
        }
        let made = Self::generate()?;
        // Two threads may both have made one; all use the one that was kept.
        Ok(Arc::clone(KEY.get_or_init(|| made)))
    }

    /// A key of its own. Making one takes a good part of a second.
    pub(super) fn generate() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::new(RsaPrivateKey::new(&mut OsRng, KEY_BITS).map_err(io::Error::other)?)?))
    }

    /// The key of a PKCS#8 PEM.
    pub(super) fn from_pem(pem: &str) -> io::Result<Self> {
        let private = RsaPrivateKey::from_pkcs8_pem(pem)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if private.size() * 8 < KEY_BITS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the key has fewer than 2048 bits"));
        }
        Self::new(private)
    }

    fn new(private: RsaPrivateKey) -> io::Result<Self> {
        let public = RsaPublicKey::from(&private);
        let public_pem = public.to_public_key_pem(LineEnding::LF).map_err(io::Error::other)?;
        let digest = Sha256::digest(public_pem.as_bytes());
        let id = hex(digest.iter().take(KID_BYTES));
        let key = Self { private, kid: format!("ins_{id}"), public_pem };
        // A probe: a key that cannot sign is found now, and later signatures cannot fail.
        key.try_sign(b"probe").map_err(io::Error::other)?;
        Ok(key)
    }

    fn try_sign(&self, message: &[u8]) -> rsa::Result<Vec<u8>> {
        let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: Box::new(SHA256_PREFIX) };
        self.private.sign(scheme, &Sha256::digest(message))
    }

    /// RS256 over `message`, in base64url.
    pub(super) fn sign(&self, message: &str) -> String {
        #[expect(
            clippy::expect_used,
            reason = "`new` has signed a probe with this key, and only the key can fail"
        )]
        let signature = self.try_sign(message.as_bytes()).expect("a key that has signed signs");
        URL_SAFE_NO_PAD.encode(signature)
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public half as a JSON web key.
    pub(super) fn jwk(&self) -> Value {
        let part = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
        json!({
            "use": "sig",
            "kty": "RSA",
            "kid": self.kid,
            "alg": "RS256",
            "n": part(self.private.n()),
            "e": part(self.private.e()),
        })
    }
}
