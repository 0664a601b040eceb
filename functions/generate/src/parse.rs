//! The request's body: what is asked for, within bounds. A refusal names the field and the limit and repeats nothing of
//! the body. Unknown fields are let through: the AI SDK's hooks add some of their own.

use crate::{config::Menu, prompts::Kind};
use domain::{ModelId, ModelPrice};
use edge::problem::{Code, Problem};
use http::{HeaderMap, header};
use serde_json::{Map, Value};

/// The longest body that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest prompt, in UTF-8 bytes.
pub const PROMPT_BYTES_MAX: usize = 32_768;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What kind of text.
    pub kind: Kind,
    /// By which model, at which price.
    pub model: ModelPrice,
    /// From what. Never logged.
    pub prompt: Prompt,
}

/// The user's text: not blank, at most [`PROMPT_BYTES_MAX`]. Prints its length only.
#[derive(Clone)]
pub struct Prompt(String);

impl Prompt {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prompt({} bytes)", self.0.len())
    }
}

/// Reads a request.
///
/// # Errors
/// What is wrong with it, in the order: content type, size, JSON, prompt, type, model.
pub fn parse(headers: &HeaderMap, body: &[u8], menu: &Menu) -> Result<Wish, Problem> {
    if !is_json(headers) {
        let detail = "Send the request with the header `content-type: application/json`.";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    if body.len() > BODY_BYTES_MAX {
        let detail = format!("The body has {} bytes; at most {BODY_BYTES_MAX} are read.", body.len());
        return Err(Problem::new(Code::TooLarge, detail).limit(in_u64(BODY_BYTES_MAX)));
    }
    let mut fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
        let detail = "Send a JSON object such as {\"prompt\": \"...\", \"type\": \"rewrite\"}.";
        Problem::new(Code::InvalidJson, detail)
    })?;
    let prompt = prompt(fields.remove("prompt"))?;
    let kind = kind(fields.remove("type").as_ref())?;
    let model = model(fields.remove("model").as_ref(), menu)?;
    Ok(Wish { kind, model, prompt })
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = |value: &http::HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    headers.get(header::CONTENT_TYPE).is_some_and(essence)
}

fn prompt(value: Option<Value>) -> Result<Prompt, Problem> {
    let Some(Value::String(text)) = value else {
        return Err(invalid("prompt", "`prompt` must be a string."));
    };
    if text.trim().is_empty() {
        return Err(invalid("prompt", "`prompt` must not be blank."));
    }
    if text.len() > PROMPT_BYTES_MAX {
        let detail = format!(
            "`prompt` has {} bytes in UTF-8; at most {PROMPT_BYTES_MAX} are allowed. Shorten it or send it in parts.",
            text.len()
        );
        let problem = Problem::new(Code::PromptTooLong, detail);
        return Err(problem.field("prompt").limit(in_u64(PROMPT_BYTES_MAX)));
    }
    Ok(Prompt(text))
}

fn kind(value: Option<&Value>) -> Result<Kind, Problem> {
    value.and_then(Value::as_str).and_then(Kind::parse).ok_or_else(|| {
        let allowed = Kind::ALL.map(Kind::as_str).join("`, `");
        invalid("type", format!("`type` must be one of `{allowed}`."))
    })
}

fn model(value: Option<&Value>, menu: &Menu) -> Result<ModelPrice, Problem> {
    let name = match value {
        None | Some(Value::Null) => return Ok(menu.default.clone()),
        Some(Value::String(name)) => name,
        Some(_) => return Err(invalid("model", "`model` must be a string, or absent.")),
    };
    let price = ModelId::parse(name).ok().and_then(|id| menu.prices.get(&id));
    price.cloned().ok_or_else(|| {
        let on_offer: Vec<_> = menu.prices.iter().map(|price| price.model.as_str()).collect();
        let detail = format!("`model` must be one of `{}`, or absent.", on_offer.join("`, `"));
        Problem::new(Code::UnknownModel, detail).field("model")
    })
}

fn invalid(field: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidField, detail).field(field)
}

fn in_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::menu;
    use http::HeaderValue;
    use serde_json::json;

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    fn read(body: &str) -> Result<Wish, Problem> {
        parse(&headers("application/json"), body.as_bytes(), &menu())
    }

    #[track_caller]
    fn check(body: &str, status: u16, code: &str, field: Option<&str>, limit: Option<u64>) {
        let problem = read(body).unwrap_err();
        let (head, text) = problem.into_response::<String>().into_parts();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(head.status, status, "{text}");
        assert_eq!(answer["code"], json!(code), "{text}");
        assert_eq!(answer.get("field"), field.map(|field| json!(field)).as_ref(), "{text}");
        assert_eq!(answer.get("limit"), limit.map(|limit| json!(limit)).as_ref(), "{text}");
        assert!(!text.contains("hunter2"), "the body was repeated: {text}");
    }

    #[test]
    fn bad_input_is_refused_by_field_and_limit() {
        check("hunter2", 422, "invalid_json", None, None);
        check("", 422, "invalid_json", None, None);
        check("[\"hunter2\"]", 422, "invalid_json", None, None);
        check("\"hunter2\"", 422, "invalid_json", None, None);
        check(r#"{"prompt":"hunter2","type":"rewrite""#, 422, "invalid_json", None, None);
        check("{}", 422, "invalid_field", Some("prompt"), None);
        check(r#"{"type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
        check(r#"{"prompt":7,"type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
        check(r#"{"prompt":null,"type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
        check(r#"{"prompt":"","type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
        check(r#"{"prompt":" \n\t\u2003","type":"rewrite"}"#, 422, "invalid_field", Some("prompt"), None);
        check(r#"{"prompt":"hunter2"}"#, 422, "invalid_field", Some("type"), None);
        check(r#"{"prompt":"x","type":"hunter2"}"#, 422, "invalid_field", Some("type"), None);
        check(r#"{"prompt":"x","type":"Rewrite"}"#, 422, "invalid_field", Some("type"), None);
        check(r#"{"prompt":"x","type":["rewrite"]}"#, 422, "invalid_field", Some("type"), None);
        check(
            r#"{"prompt":"x","type":"rewrite","model":"hunter2"}"#,
            422,
            "unknown_model",
            Some("model"),
            None,
        );
        check(r#"{"prompt":"x","type":"rewrite","model":""}"#, 422, "unknown_model", Some("model"), None);
        check(r#"{"prompt":"x","type":"rewrite","model":7}"#, 422, "invalid_field", Some("model"), None);
    }

    #[test]
    fn a_prompt_is_bounded_in_bytes_and_a_body_too() {
        let with = |prompt: &str| json!({"prompt": prompt, "type": "rewrite"}).to_string();
        assert!(read(&with(&"ü".repeat(16_384))).is_ok());
        check(&with(&"ü".repeat(16_385)), 413, "prompt_too_long", Some("prompt"), Some(32_768));
        check(&with(&"x".repeat(65_536)), 413, "too_large", None, Some(65_536));
    }

    #[test]
    fn an_unknown_type_is_told_which_there_are() {
        let text = read(r#"{"prompt":"x","type":"poem"}"#).unwrap_err().into_response::<String>().into_body();
        for kind in Kind::ALL {
            assert!(text.contains(kind.as_str()), "{text}");
        }
    }

    #[test]
    fn what_the_hooks_add_is_let_through() {
        let wish =
            read(r#"{"id":"x","prompt":"Hi","type":"social_post","model":"gpt-4o-mini","k":{}}"#).unwrap();
        assert_eq!(wish.kind, Kind::SocialPost);
        assert_eq!(wish.model.model.as_str(), "gpt-4o-mini");
        assert_eq!(wish.prompt.as_str(), "Hi");
        assert!(!format!("{wish:?}").contains("Hi"));
        assert_eq!(read(r#"{"prompt":"Hi","type":"rewrite"}"#).unwrap().model, menu().default);
    }

    #[test]
    fn only_json_is_read() {
        let body = br#"{"prompt":"Hi","type":"rewrite"}"#;
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(parse(&headers(good), body, &menu()).is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", ""] {
            assert_eq!(
                parse(&headers(bad), body, &menu()).unwrap_err().code(),
                Code::UnsupportedMediaType,
                "{bad}"
            );
        }
        assert!(parse(&HeaderMap::new(), body, &menu()).is_err());
    }
}
