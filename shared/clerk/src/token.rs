//! The token before anybody believes it: its three parts, decoded, and the checks of its header.

use crate::{
    KeyId, Rejection, VerifyingKey,
    json::{self, NotAnObject},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes. Clerk's own fit into a cookie (4 KB), and the gateway takes 10,240
/// bytes of headers in all.
pub const TOKEN_BYTES_MAX: usize = 8_192;

/// `cat` of a session token.
const CATEGORY_SESSION: &str = "cl_B7d4PD111AAA";
/// `cat` of a token whose category is not to be looked at.
const CATEGORY_IGNORE: &str = "cl_I7d4PD111III";

/// A token taken apart. Nothing in it is verified yet.
pub(crate) struct Unverified<'t> {
    header: Map<String, Value>,
    payload: Map<String, Value>,
    /// `header.payload` as they were sent: what the signature is over.
    message: &'t str,
    signature: &'t str,
}

impl<'t> Unverified<'t> {
    /// Takes a token apart.
    pub(crate) fn decode(token: &'t str) -> Result<Self, Rejection> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Rejection::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Rejection::Malformed)?;
        // A fourth part would be a full stop inside the payload, which base64url does not have.
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Rejection::Malformed);
        let object = |text: &str| json::object(&part(text)?).map_err(Rejection::from);
        let (header, payload) = (object(header)?, object(payload)?);
        part(signature)?;
        Ok(Self { header, payload, message, signature })
    }

    /// Whether the header is that of a session token, signed as Clerk signs.
    pub(crate) fn check_header(&self) -> Result<(), Rejection> {
        match self.header.get("cat") {
            None => {}
            Some(Value::String(cat)) if cat == CATEGORY_SESSION || cat == CATEGORY_IGNORE => {}
            Some(_) => return Err(Rejection::Category),
        }
        match self.header.get("typ") {
            None => {}
            Some(Value::String(typ)) if typ == "JWT" => {}
            Some(_) => return Err(Rejection::Type),
        }
        if self.header.contains_key("crit") {
            return Err(Rejection::CriticalHeader);
        }
        match self.header.get("alg").and_then(Value::as_str) {
            Some("RS256") => Ok(()),
            Some("RS384" | "RS512") => Err(Rejection::AlgorithmNotOfKey),
            Some(_) | None => Err(Rejection::Algorithm),
        }
    }

    /// `kid`, where there is one: the key that the token says it is signed with.
    pub(crate) fn key_id(&self) -> Result<Option<KeyId>, Rejection> {
        let parse = |kid: &Value| kid.as_str().and_then(|kid| KeyId::parse(kid).ok());
        self.header.get("kid").map(|kid| parse(kid).ok_or(Rejection::KeyId)).transpose()
    }

    /// The claims, if the signature is the key's.
    pub(crate) fn signed_by(self, key: &VerifyingKey) -> Result<Map<String, Value>, Rejection> {
        if key.signed(self.signature, self.message) { Ok(self.payload) } else { Err(Rejection::Signature) }
    }
}

impl From<NotAnObject> for Rejection {
    fn from(why: NotAnObject) -> Self {
        match why {
            NotAnObject::Malformed => Self::Malformed,
            NotAnObject::DuplicateKey => Self::DuplicateKey,
        }
    }
}
