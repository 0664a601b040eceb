//! `PutEvents` as it is on the wire (AWS JSON 1.1): its head, its body, its limits and its refusals. Pure: it decides
//! what is wrong with a request and keeps nothing.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Number, Value, json};

/// Entries of one request.
const ENTRIES_MAX: usize = 10;
/// Bytes of a source's name.
const SOURCE_BYTES_MAX: usize = 256;
/// Bytes of a detail type.
const DETAIL_TYPE_BYTES_MAX: usize = 128;
/// What a given time adds to an entry's size, as the vendor counts it.
const TIME_BYTES: usize = 14;
/// Hex digits of a version 4 signature.
const SIGNATURE_LENGTH: usize = 64;

/// A request that is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) message: String,
}

impl Refusal {
    /// A 400.
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind, message: message.into() }
    }

    /// The body that goes with the status.
    pub(super) fn body(&self) -> Value {
        json!({"__type": self.kind, "message": self.message})
    }
}

/// An entry that is refused while its neighbours are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryRefusal {
    pub(super) code: &'static str,
    pub(super) message: &'static str,
}

/// An entry as it was sent.
#[derive(Debug, Default)]
pub(super) struct Entry {
    source: Option<String>,
    detail_type: Option<String>,
    detail: Option<String>,
    bus: Option<String>,
    pub(super) resources: Vec<String>,
    pub(super) time_s: Option<Number>,
    trace_header: Option<String>,
}

/// An entry that can be taken.
pub(super) struct Good {
    pub(super) source: String,
    pub(super) detail_type: String,
    pub(super) detail: Map<String, Value>,
    pub(super) bus: String,
}

/// Checks everything about the head but the signature's value.
pub(super) fn check_head(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("x-amz-target") {
        Some("AWSEvents.PutEvents") => {}
        target => {
            return Err(Refusal::new(
                "UnknownOperationException",
                format!(
                    "The stand-in knows AWSEvents.PutEvents, not {}.",
                    target.unwrap_or("a missing target")
                ),
            ));
        }
    }
    if text(CONTENT_TYPE.as_str()) != Some("application/x-amz-json-1.1") {
        return Err(Refusal::new(
            "SerializationException",
            "Content-Type must be application/x-amz-json-1.1.",
        ));
    }
    let Some(authorization) = text(AUTHORIZATION.as_str()) else {
        return Err(Refusal::new("MissingAuthenticationTokenException", "Missing Authentication Token"));
    };
    let Some(date) = text("x-amz-date") else {
        return Err(Refusal::new(
            "IncompleteSignatureException",
            "Authorization header requires 'X-Amz-Date'.",
        ));
    };
    check_authorization(authorization, date)
}

/// `AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/events/aws4_request, SignedHeaders=<list>, Signature=<hex>`.
fn check_authorization(authorization: &str, date: &str) -> Result<(), Refusal> {
    let incomplete = |what: &str| {
        Err(Refusal::new("IncompleteSignatureException", format!("Authorization header requires {what}.")))
    };
    let invalid = |message: String| Err(Refusal::new("InvalidSignatureException", message));
    let Some(fields) = authorization.strip_prefix("AWS4-HMAC-SHA256 ") else {
        return incomplete("the algorithm AWS4-HMAC-SHA256");
    };
    let field = |name: &str| {
        fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let scope: Vec<&str> = field("Credential").split('/').collect();
    let &[key, day, region, service, terminator] = scope.as_slice() else {
        return incomplete("'Credential' with five parts");
    };
    if key.is_empty() || region.is_empty() {
        return incomplete("'Credential' with a key and a region");
    }
    if service != "events" {
        return invalid("Credential should be scoped to correct service: 'events'.".to_owned());
    }
    if terminator != "aws4_request" {
        return invalid("Credential should be scoped with a valid terminator: 'aws4_request'.".to_owned());
    }
    if day.len() != 8 || !date.starts_with(day) {
        return invalid(format!(
            "Date in Credential scope does not match the request's: '{day}' != '{date}'."
        ));
    }
    let signed: Vec<&str> = field("SignedHeaders").split(';').collect();
    if let Some(name) = ["host", "x-amz-date", "x-amz-target"].iter().find(|name| !signed.contains(name)) {
        return invalid(format!("'{name}' must be a signed header."));
    }
    let signature = field("Signature");
    if signature.len() != SIGNATURE_LENGTH || !signature.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return incomplete("'Signature' of 64 hex digits");
    }
    Ok(())
}

/// Reads the entries of a body.
pub(super) fn entries(body: &[u8], bytes_max: usize) -> Result<Vec<Entry>, Refusal> {
    let wrong = |message: String| Refusal::new("SerializationException", message);
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return Err(wrong("The body is not a JSON object.".to_owned()));
    };
    if let Some(name) = fields.keys().find(|name| *name != "Entries") {
        return Err(wrong(format!("Unknown member '{name}'.")));
    }
    let list = match fields.get("Entries") {
        Some(Value::Array(list)) => list,
        Some(Value::Null) | None => {
            return Err(constraint("null", "Member must not be null"));
        }
        Some(_) => return Err(wrong("'Entries' is not a list.".to_owned())),
    };
    if list.is_empty() {
        return Err(constraint("[]", "Member must have length greater than or equal to 1"));
    }
    if list.len() > ENTRIES_MAX {
        return Err(constraint("[...]", "Member must have length less than or equal to 10"));
    }
    let entries = list.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    if entries.iter().map(Entry::bytes).sum::<usize>() > bytes_max {
        return Err(Refusal::new(
            "ValidationException",
            "Total size of the entries in the request is over the limit.",
        ));
    }
    Ok(entries)
}

fn constraint(value: &str, rule: &str) -> Refusal {
    Refusal::new(
        "ValidationException",
        format!(
            "1 validation error detected: Value '{value}' at 'entries' failed to satisfy constraint: {rule}"
        ),
    )
}

fn entry(value: &Value) -> Result<Entry, Refusal> {
    let wrong = |message: String| Refusal::new("SerializationException", message);
    let Value::Object(fields) = value else {
        return Err(wrong("An entry is not an object.".to_owned()));
    };
    let mut entry = Entry::default();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let target = match name.as_str() {
            "Source" => &mut entry.source,
            "DetailType" => &mut entry.detail_type,
            "Detail" => &mut entry.detail,
            "EventBusName" => &mut entry.bus,
            "TraceHeader" => &mut entry.trace_header,
            "Time" => {
                let Value::Number(time) = value else {
                    return Err(wrong("'Time' is not a number of seconds since the Unix epoch.".to_owned()));
                };
                entry.time_s = Some(time.clone());
                continue;
            }
            "Resources" => {
                entry.resources = serde_json::from_value(value.clone())
                    .map_err(|_| wrong("'Resources' is not a list of strings.".to_owned()))?;
                continue;
            }
            _ => return Err(wrong(format!("Unknown member '{name}' of an entry."))),
        };
        let Value::String(text) = value else {
            return Err(wrong(format!("'{name}' is not a string.")));
        };
        *target = Some(text.clone());
    }
    Ok(entry)
}

impl Entry {
    /// The size that counts against the request's limit: the time, the texts and the resources.
    fn bytes(&self) -> usize {
        let texts = [&self.source, &self.detail_type, &self.detail];
        let time = if self.time_s.is_some() { TIME_BYTES } else { 0 };
        let texts: usize = texts.iter().filter_map(|text| text.as_ref().map(String::len)).sum();
        time + texts + self.resources.iter().map(String::len).sum::<usize>()
    }

    /// Checks what the vendor checks entry by entry.
    pub(super) fn check(&self, buses: &[String]) -> Result<Good, EntryRefusal> {
        let argument = |message| EntryRefusal { code: "InvalidArgument", message };
        let given = |field: &Option<String>, message| {
            field.clone().filter(|text| !text.is_empty()).ok_or_else(|| argument(message))
        };
        let source =
            given(&self.source, "Parameter Source is not valid. Reason: Source is a required argument.")?;
        let detail_type = given(
            &self.detail_type,
            "Parameter DetailType is not valid. Reason: DetailType is a required argument.",
        )?;
        let detail =
            given(&self.detail, "Parameter Detail is not valid. Reason: Detail is a required argument.")?;
        if source.len() > SOURCE_BYTES_MAX {
            return Err(argument("Parameter Source is not valid. Reason: Source is longer than 256 bytes."));
        }
        if detail_type.len() > DETAIL_TYPE_BYTES_MAX {
            return Err(argument(
                "Parameter DetailType is not valid. Reason: DetailType is longer than 128 bytes.",
            ));
        }
        if source.starts_with("aws.") {
            return Err(EntryRefusal {
                code: "NotAuthorizedForSourceException",
                message: "Not authorized for the source.",
            });
        }
        let Ok(Value::Object(detail)) = serde_json::from_str(&detail) else {
            return Err(EntryRefusal { code: "MalformedDetail", message: "Detail is malformed." });
        };
        let name = self.bus.as_deref().unwrap_or("default");
        let name = match name.split_once(":event-bus/") {
            Some((arn, name)) if arn.starts_with("arn:aws") => name,
            _ => name,
        };
        let bus = buses.iter().find(|bus| *bus == name).ok_or_else(|| {
            argument("Parameter EventBusName is not valid. Reason: the event bus does not exist.")
        })?;
        Ok(Good { source, detail_type, detail, bus: bus.clone() })
    }
}
