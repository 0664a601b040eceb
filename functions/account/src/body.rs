//! What a body says, read strictly: JSON of a bounded size with no field that the route does not know. A refusal names the field
//! and what to do and repeats nothing of the request.

use domain::Tokens;
use edge::{
    cors::Cors,
    problem::{Code, Problem},
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};

/// The longest body that is read, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 4 * 1024;
/// The longest address that a browser is sent back to, in bytes.
const URL_BYTES_MAX: usize = 1_024;

/// The fields of a body, of which a route takes what it knows.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body that may have the fields `known`; `example` is one that has what it needs.
    ///
    /// # Errors
    /// What is wrong with it, in the order: content type, size, JSON, unknown fields.
    pub(crate) fn read(
        headers: &HeaderMap,
        body: &[u8],
        known: &[&'static str],
        example: &'static str,
    ) -> Result<Self, Problem> {
        if !is_json(headers) {
            let detail = "Send the request with the header `content-type: application/json`.";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        if body.len() > BODY_BYTES_MAX {
            let detail = format!("The body has {} bytes; at most {BODY_BYTES_MAX} are read.", body.len());
            let most = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
            return Err(Problem::new(Code::TooLarge, detail).limit(most));
        }
        let fields: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|_| Problem::new(Code::InvalidJson, format!("Send a JSON object such as {example}.")))?;
        if fields.keys().any(|name| !known.contains(&name.as_str())) {
            let detail = format!("Send no other fields than `{}`.", known.join("`, `"));
            return Err(invalid("body", detail));
        }
        Ok(Self(fields))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// That it is missing, or no text.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, Problem> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(invalid(name, format!("`{name}` must be a string."))),
            None => Err(invalid(name, format!("`{name}` is missing."))),
        }
    }

    /// An address that must be there, of a page that a browser may be sent to.
    ///
    /// # Errors
    /// That it is missing, too long, or not on a page that may call this API.
    pub(crate) fn address(&mut self, name: &'static str, pages: &Cors) -> Result<String, Problem> {
        let url = self.text(name)?;
        if url.len() > URL_BYTES_MAX {
            return Err(invalid(name, format!("`{name}` must have at most {URL_BYTES_MAX} bytes.")));
        }
        if !pages.lists(&url) {
            let detail = format!("`{name}` must be the address of a page that may call this API.");
            return Err(invalid(name, detail));
        }
        Ok(url)
    }

    /// A number of tokens that must be there, or null.
    ///
    /// # Errors
    /// That it is missing, or neither.
    pub(crate) fn tokens(&mut self, name: &'static str) -> Result<Option<Tokens>, Problem> {
        let value = self.0.remove(name).ok_or_else(|| invalid(name, format!("`{name}` is missing.")))?;
        if value.is_null() {
            return Ok(None);
        }
        let tokens = value.as_u64().and_then(|number| Tokens::new(number).ok());
        let most = Tokens::MAX;
        let wrong = || invalid(name, format!("`{name}` must be a whole number from 0 to {most}, or null."));
        tokens.map(Some).ok_or_else(wrong)
    }

    /// Whether a flag is set; one that is not there is not.
    ///
    /// # Errors
    /// That it is neither true nor false.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(invalid(name, format!("`{name}` must be true or false, or absent."))),
        }
    }
}

pub(crate) fn invalid(field: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidField, detail).field(field)
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    headers.get(header::CONTENT_TYPE).is_some_and(essence)
}
