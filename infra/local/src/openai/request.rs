//! What OpenAI accepts as a chat completion request. It owns the parameter table and the exact refusals; it must
//! never let an unknown or mistyped parameter through, nor accept one whose effect the stand-in cannot show.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::behaviour::{PromptCount, Size};

/// A model of the provider.
#[derive(Debug)]
pub(super) struct Model {
    /// The name it is asked for by.
    pub(super) id: &'static str,
    /// The name it answers with.
    pub(super) snapshot: &'static str,
    /// Seconds since the Unix epoch.
    pub(super) created_s: u64,
    /// Whether it thinks before it writes, and so takes `max_completion_tokens` and `reasoning_effort` only.
    reasons: bool,
    /// Tokens of prompt and completion together.
    context_tokens: u64,
    /// Tokens of one completion.
    pub(super) output_tokens_max: u64,
}

/// The models that exist here.
pub(super) const MODELS: &[Model] = &[
    Model {
        id: "gpt-4o-mini",
        snapshot: "gpt-4o-mini-2024-07-18",
        created_s: 1_721_172_741,
        reasons: false,
        context_tokens: 128_000,
        output_tokens_max: 16_384,
    },
    Model {
        id: "gpt-6-luna",
        snapshot: "gpt-6-luna",
        created_s: 1_788_000_000,
        reasons: true,
        context_tokens: 400_000,
        output_tokens_max: 128_000,
    },
    Model {
        id: "gpt-5.4-nano",
        snapshot: "gpt-5.4-nano",
        created_s: 1_773_000_000,
        reasons: true,
        context_tokens: 400_000,
        output_tokens_max: 128_000,
    },
];

/// Why a request is refused: OpenAI's error object and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) kind: &'static str,
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
}

impl Refusal {
    /// A 400 `invalid_request_error` that names no parameter.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            kind: "invalid_request_error",
            param: None,
            code: None,
        }
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The body that goes with the status.
    pub(super) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

fn unknown(param: &str) -> Refusal {
    Refusal::invalid(format!("Unknown parameter: '{param}'.")).param(param).code("unknown_parameter")
}

fn missing(param: &str) -> Refusal {
    Refusal::invalid(format!("Missing required parameter: '{param}'."))
        .param(param)
        .code("missing_required_parameter")
}

fn wrong_type(param: &str, expected: &str, got: &Value) -> Refusal {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Refusal::invalid(format!("Invalid type for '{param}': expected {expected}, but got {got} instead."))
        .param(param)
        .code("invalid_type")
}

fn invalid_value(param: &str, got: &str, supported: &[&str]) -> Refusal {
    Refusal::invalid(format!("Invalid value: '{got}'. Supported values are: {}.", listed(supported)))
        .param(param)
        .code("invalid_value")
}

fn unsupported_value(param: &str, got: &Value, supported: &str) -> Refusal {
    let got = got.as_str().map_or_else(|| got.to_string(), |text| format!("'{text}'"));
    Refusal::invalid(format!(
        "Unsupported value: '{param}' does not support {got} with this model. {supported}"
    ))
    .param(param)
    .code("unsupported_value")
}

fn not_here(param: &str) -> Refusal {
    Refusal::invalid(format!("The local stand-in cannot show the effect of '{param}'."))
        .param(param)
        .code("unsupported_by_stand_in")
}

/// `'a', 'b', and 'c'`.
fn listed(values: &[&str]) -> String {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        let joint = match index {
            0 => "",
            _ if index + 1 == values.len() => ", and ",
            _ => ", ",
        };
        text.push_str(joint);
        text.push('\'');
        text.push_str(value);
        text.push('\'');
    }
    text
}

/// What a parameter's value must look like.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    /// At least this.
    Integer(i64),
    /// Between these, in hundredths.
    Decimal(i32, i32),
    Flag,
    Object,
    Array,
    OneOf(&'static [&'static str]),
    /// Known to the API, with an effect that the stand-in does not have: refused unless null.
    NotHere,
}

use Shape::{Array, Decimal, Flag, Integer, NotHere, Object, OneOf, Text};

const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh"];
const EFFORTS_OF_MODEL: &[&str] = &["none", "low", "medium", "high", "xhigh"];

/// Every parameter of the endpoint.
const PARAMETERS: &[(&str, Shape)] = &[
    ("messages", Array),
    ("model", Text),
    ("audio", NotHere),
    ("frequency_penalty", Decimal(-200, 200)),
    ("function_call", NotHere),
    ("functions", NotHere),
    ("logit_bias", NotHere),
    ("logprobs", Flag),
    ("max_completion_tokens", Integer(1)),
    ("max_tokens", Integer(1)),
    ("metadata", Object),
    ("modalities", NotHere),
    ("n", Integer(1)),
    ("parallel_tool_calls", NotHere),
    ("prediction", NotHere),
    ("presence_penalty", Decimal(-200, 200)),
    ("prompt_cache_key", Text),
    ("prompt_cache_retention", OneOf(&["in-memory", "24h"])),
    ("reasoning_effort", OneOf(EFFORTS)),
    ("response_format", NotHere),
    ("safety_identifier", Text),
    ("seed", Integer(i64::MIN)),
    ("service_tier", OneOf(&["auto", "default", "flex", "scale", "priority"])),
    ("stop", NotHere),
    ("store", Flag),
    ("stream", Flag),
    ("stream_options", Object),
    ("temperature", Decimal(0, 200)),
    ("tool_choice", NotHere),
    ("tools", NotHere),
    ("top_logprobs", NotHere),
    ("top_p", Decimal(0, 100)),
    ("user", Text),
    ("verbosity", OneOf(&["low", "medium", "high"])),
    ("web_search_options", NotHere),
];

impl Shape {
    fn check(self, param: &str, value: &Value) -> Result<(), Refusal> {
        let fits = match self {
            Text => value.is_string(),
            Integer(min) => return integer(param, value, min),
            Decimal(min, max) => return decimal(param, value, min, max),
            Flag => value.is_boolean(),
            Object => value.is_object(),
            Array => value.is_array(),
            OneOf(supported) => match value.as_str() {
                Some(text) if supported.contains(&text) => true,
                Some(text) => return Err(invalid_value(param, text, supported)),
                None => false,
            },
            NotHere => return Err(not_here(param)),
        };
        if fits { Ok(()) } else { Err(wrong_type(param, self.name(), value)) }
    }

    fn name(self) -> &'static str {
        match self {
            Text | OneOf(_) => "a string",
            Integer(_) => "an integer",
            Decimal(..) => "a decimal",
            Flag => "a boolean",
            Object => "an object",
            Array => "an array of objects",
            NotHere => "nothing",
        }
    }
}

fn integer(param: &str, value: &Value, min: i64) -> Result<(), Refusal> {
    if value.as_u64().is_some_and(|number| i64::try_from(number).is_err()) {
        return Err(Refusal::invalid(format!(
            "Invalid '{param}': integer above maximum value. Expected a value <= {}, but got {value} instead.",
            i64::MAX
        ))
        .param(param)
        .code("integer_above_max_value"));
    }
    match value.as_i64() {
        None => Err(wrong_type(param, "an integer", value)),
        Some(number) if number < min => Err(Refusal::invalid(format!(
            "Invalid '{param}': integer below minimum value. Expected a value >= {min}, but got {number} instead."
        ))
        .param(param)
        .code("integer_below_min_value")),
        Some(_) => Ok(()),
    }
}

fn decimal(param: &str, value: &Value, min: i32, max: i32) -> Result<(), Refusal> {
    let Some(number) = value.as_f64() else {
        return Err(wrong_type(param, "a decimal", value));
    };
    let (min, max) = (f64::from(min) / 100.0, f64::from(max) / 100.0);
    let (side, relation, bound, code) = if number < min {
        ("below minimum", ">=", min, "decimal_below_min_value")
    } else if number > max {
        ("above maximum", "<=", max, "decimal_above_max_value")
    } else {
        return Ok(());
    };
    Err(Refusal::invalid(format!(
        "Invalid '{param}': decimal {side} value. Expected a value {relation} {bound}, but got {number:?} instead."
    ))
    .param(param)
    .code(code))
}

/// An accepted request.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) model: &'static Model,
    /// Each message's text, in order.
    pub(super) texts: Vec<String>,
    /// The place of the last user message in `texts`.
    pub(super) last_user: Option<usize>,
    /// The output limit that was asked for, in tokens.
    pub(super) limit: Option<u64>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) obfuscate: bool,
    /// Tokens that the model spends on thinking, before its limit cuts them.
    pub(super) reasoning_tokens: u64,
    /// Bytes of the request's body.
    pub(super) body_bytes: u64,
}

impl Chat {
    /// The output limit in force, in tokens.
    pub(super) fn limit_in_force(&self) -> u64 {
        self.limit.unwrap_or(self.model.output_tokens_max)
    }

    /// Bytes of all messages' text.
    pub(super) fn text_bytes(&self) -> u64 {
        self.texts.iter().map(|text| size(text.len())).sum()
    }

    /// What prompt tokens are counted from.
    pub(super) fn size(&self) -> Size {
        Size {
            text_bytes: self.text_bytes(),
            messages: size(self.texts.len()),
            body_bytes: self.body_bytes,
            limit: self.limit_in_force(),
        }
    }

    /// Refuses a prompt that the model cannot read, whatever will be reported for it.
    pub(super) fn check_context(&self) -> Result<(), Refusal> {
        let max = self.model.context_tokens;
        let prompt_tokens = PromptCount::Quarter.count(&self.size());
        if prompt_tokens <= max {
            return Ok(());
        }
        Err(Refusal::invalid(format!(
            "This model's maximum context length is {max} tokens. However, your messages resulted in \
             {prompt_tokens} tokens. Please reduce the length of the messages."
        ))
        .param("messages")
        .code("context_length_exceeded"))
    }
}

/// A length as a count of the wire.
pub(super) fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Reads a request as OpenAI does.
pub(super) fn parse(body: &[u8]) -> Result<Chat, Refusal> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(Refusal::invalid(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP \
             library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        ));
    };
    let Some(name) = fields.get("model").filter(|name| !name.is_null()) else {
        return Err(Refusal::invalid("you must provide a model parameter"));
    };
    for (key, value) in &fields {
        let Some((_, shape)) = PARAMETERS.iter().find(|(known, _)| known == key) else {
            return Err(unknown(key));
        };
        // Every optional parameter may be null, which means absent.
        if !value.is_null() {
            shape.check(key, value)?;
        }
    }
    let name = name.as_str().unwrap_or_default();
    let Some(model) = MODELS.iter().find(|model| model.id == name || model.snapshot == name) else {
        return Err(no_such_model(name));
    };
    let reasoning_tokens = check_for_model(model, &fields)?;
    let limit = limit(model, &fields)?;
    let stream = fields.get("stream").and_then(Value::as_bool).unwrap_or(false);
    let (include_usage, obfuscate) = stream_options(stream, present(&fields, "stream_options"))?;
    let (texts, last_user) = messages(present(&fields, "messages"))?;
    let body_bytes = size(body.len());
    Ok(Chat {
        model,
        texts,
        last_user,
        limit,
        stream,
        include_usage,
        obfuscate,
        reasoning_tokens,
        body_bytes,
    })
}

/// What a name gets that is no model's, or not any more.
pub(super) fn no_such_model(name: &str) -> Refusal {
    Refusal::invalid(format!("The model `{name}` does not exist or you do not have access to it."))
        .status(StatusCode::NOT_FOUND)
        .code("model_not_found")
}

fn present<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

/// Checks what depends on the model. Returns how many tokens it thinks.
fn check_for_model(model: &Model, fields: &Map<String, Value>) -> Result<u64, Refusal> {
    if present(fields, "n").is_some_and(|n| n.as_u64() != Some(1)) {
        return Err(not_here("n"));
    }
    if present(fields, "logprobs").is_some_and(|wanted| wanted == &Value::Bool(true)) {
        return Err(not_here("logprobs"));
    }
    if !model.reasons {
        return match present(fields, "reasoning_effort") {
            Some(_) => Err(Refusal::invalid("Unrecognized request argument supplied: reasoning_effort")),
            None => Ok(0),
        };
    }
    let effort = present(fields, "reasoning_effort").and_then(Value::as_str).unwrap_or("medium");
    if !EFFORTS_OF_MODEL.contains(&effort) {
        let supported = format!("Supported values are: {}.", listed(EFFORTS_OF_MODEL));
        return Err(unsupported_value("reasoning_effort", &json!(effort), &supported));
    }
    for param in ["max_tokens", "presence_penalty", "frequency_penalty"] {
        if present(fields, param).is_some() {
            let instead = if param == "max_tokens" { " Use 'max_completion_tokens' instead." } else { "" };
            return Err(Refusal::invalid(format!(
                "Unsupported parameter: '{param}' is not supported with this model.{instead}"
            ))
            .param(param)
            .code("unsupported_parameter"));
        }
    }
    // Sampling parameters are free only while the model does not think.
    for param in ["temperature", "top_p"] {
        if let Some(value) = present(fields, param)
            && effort != "none"
            && value.as_f64() != Some(1.0)
        {
            return Err(unsupported_value(param, value, "Only the default (1) value is supported."));
        }
    }
    Ok(match effort {
        "none" => 0,
        "low" => 64,
        "medium" => 256,
        "high" => 1_024,
        _ => 4_096,
    })
}

fn limit(model: &Model, fields: &Map<String, Value>) -> Result<Option<u64>, Refusal> {
    let (param, value) = match (present(fields, "max_tokens"), present(fields, "max_completion_tokens")) {
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid(
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            )
            .param("max_tokens")
            .code("invalid_parameter_combination"));
        }
        (Some(value), None) => ("max_tokens", value),
        (None, Some(value)) => ("max_completion_tokens", value),
        (None, None) => return Ok(None),
    };
    let max = model.output_tokens_max;
    match value.as_u64() {
        Some(limit) if limit <= max => Ok(Some(limit)),
        _ => Err(Refusal::invalid(format!(
            "{param} is too large: {value}. This model supports at most {max} completion tokens, whereas you \
             provided {value}."
        ))
        .param(param)
        .code("invalid_value")),
    }
}

/// Whether usage is wanted, and whether chunks are padded.
fn stream_options(stream: bool, options: Option<&Value>) -> Result<(bool, bool), Refusal> {
    let Some(options) = options.and_then(Value::as_object) else {
        return Ok((false, true));
    };
    if !stream {
        return Err(Refusal::invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        )
        .param("stream_options"));
    }
    for (key, value) in options {
        let param = format!("stream_options.{key}");
        if !["include_usage", "include_obfuscation"].contains(&key.as_str()) {
            return Err(unknown(&param));
        }
        Flag.check(&param, value)?;
    }
    let flag = |key, absent| options.get(key).and_then(Value::as_bool).unwrap_or(absent);
    Ok((flag("include_usage", false), flag("include_obfuscation", true)))
}

const ROLES: &[&str] = &["system", "assistant", "user", "function", "tool", "developer"];
const PARTS: &[&str] = &["text", "image_url", "input_audio", "refusal", "audio", "file"];

fn messages(value: Option<&Value>) -> Result<(Vec<String>, Option<usize>), Refusal> {
    let Some(list) = value.and_then(Value::as_array) else {
        return Err(missing("messages"));
    };
    if list.is_empty() {
        return Err(Refusal::invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        )
        .param("messages")
        .code("empty_array"));
    }
    let mut texts = Vec::with_capacity(list.len());
    let mut last_user = None;
    for (index, value) in list.iter().enumerate() {
        let at = format!("messages[{index}]");
        let Value::Object(message) = value else {
            return Err(wrong_type(&at, "an object", value));
        };
        let role = role(&at, message)?;
        texts.push(content(&at, index, message)?);
        if role == "user" {
            last_user = Some(index);
        }
    }
    Ok((texts, last_user))
}

fn role<'a>(at: &str, message: &'a Map<String, Value>) -> Result<&'a str, Refusal> {
    let param = format!("{at}.role");
    let role = match message.get("role") {
        None => return Err(missing(&param)),
        Some(Value::String(role)) => role.as_str(),
        Some(other) => return Err(wrong_type(&param, "a string", other)),
    };
    if !ROLES.contains(&role) {
        return Err(invalid_value(&param, role, ROLES));
    }
    for (key, value) in message {
        let param = format!("{at}.{key}");
        match key.as_str() {
            "role" | "content" => {}
            "name" => Text.check(&param, value)?,
            "tool_calls" | "function_call" | "audio" | "refusal" if role == "assistant" => {
                return Err(not_here(&param));
            }
            "tool_call_id" if role == "tool" => return Err(not_here(&param)),
            _ => return Err(unknown(&param)),
        }
    }
    match role {
        "tool" => Err(missing(&format!("{at}.tool_call_id"))),
        "function" => Err(not_here(&param)),
        role => Ok(role),
    }
}

/// A message's text, its parts joined.
fn content(at: &str, index: usize, message: &Map<String, Value>) -> Result<String, Refusal> {
    let param = format!("{at}.content");
    match message.get("content") {
        None => Err(missing(&param)),
        // The vendor spells this one parameter differently.
        Some(Value::Null) => Err(Refusal::invalid("Invalid value for 'content': expected a string, got null.")
            .param(format!("messages.[{index}].content"))),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) if parts.is_empty() => Err(Refusal::invalid(format!(
            "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
        ))
        .param(param)
        .code("empty_array")),
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().map(|(place, value)| part(&format!("{param}[{place}]"), value)).collect()
        }
        Some(other) => Err(wrong_type(&param, "one of an array of objects or string", other)),
    }
}

fn part(at: &str, value: &Value) -> Result<String, Refusal> {
    let Value::Object(part) = value else {
        return Err(wrong_type(at, "an object", value));
    };
    let param = format!("{at}.type");
    match part.get("type") {
        None => return Err(missing(&param)),
        Some(Value::String(kind)) if kind == "text" => {}
        Some(Value::String(kind)) if PARTS.contains(&kind.as_str()) => return Err(not_here(&param)),
        Some(Value::String(kind)) => return Err(invalid_value(&param, kind, PARTS)),
        Some(other) => return Err(wrong_type(&param, "a string", other)),
    }
    if let Some(key) = part.keys().find(|key| !["type", "text"].contains(&key.as_str())) {
        return Err(unknown(&format!("{at}.{key}")));
    }
    let param = format!("{at}.text");
    match part.get("text") {
        None => Err(missing(&param)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong_type(&param, "a string", other)),
    }
}
