//! The contract of every endpoint: which parameters it has, how they nest, how long they may be.
//!
//! Owns the table of endpoints (`parameters.txt`, made from the types that Stripe publishes for this API version), the
//! limits of lengths, and the account of who was called how often. It reads no stored object: what a value means is the
//! endpoint's own affair. A parameter that Stripe does not have is refused here; one that Stripe has and no handler reads
//! is the 501 of a stand-in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::error::ApiError;
use super::form::{Node, Params};

/// Every endpoint, one a line: its method, its path, its parameters.
///
/// `name` is a text, `name[]` a list, `name{}` a free hash, `name(...)` a hash; `!` marks what is required and `~` what
/// may be a text as well.
const TABLE: &str = include_str!("parameters.txt");
/// Every type of event, one a line; those that begin with `v1.` or `v2.` are thin.
const EVENTS: &str = include_str!("events.txt");

/// Longest texts, in characters, by the first part of the endpoint's path and the parameter's name. What is not here can
/// have 5,000.
const MAX_CHARS: &[(&str, &str, usize)] = &[
    ("/v1/customers", "name", 256),
    ("/v1/customers", "email", 512),
    ("/v1/customers", "phone", 20),
    ("/v1/products", "unit_label", 12),
    ("/v1/products", "statement_descriptor", 22),
    ("/v1/prices", "lookup_key", 200),
    ("/v1/billing/meters", "display_name", 250),
    ("/v1/billing/meters", "event_name", 100),
    ("/v1/billing/meter_events", "event_name", 100),
    ("/v1/subscriptions", "description", 500),
    ("/v1/checkout/sessions", "client_reference_id", 200),
    ("/v1/checkout/sessions", "customer_email", 800),
    ("/v1/checkout/sessions", "subscription_data[description]", 500),
    ("/v1/billing_portal/configurations", "business_profile[headline]", 60),
    ("/v1/billing_portal/configurations", "name", 64),
];

/// What may follow a parameter's name.
#[derive(Debug)]
enum Shape {
    Text,
    Free,
    Hash(BTreeMap<&'static str, Field>),
    List(Box<Shape>),
}

/// One parameter.
#[derive(Debug)]
struct Field {
    required: bool,
    /// A text will do too: one that unsets a hash or a list, or a number in place of a range.
    or_text: bool,
    shape: Shape,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Such as `POST /v1/customers/:id`.
    pub(super) name: &'static str,
    method: &'static str,
    path: &'static str,
    fields: BTreeMap<&'static str, Field>,
}

static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| TABLE.lines().filter_map(endpoint_of).collect());

fn endpoint_of(line: &'static str) -> Option<Endpoint> {
    let (method, rest) = line.split_once(' ')?;
    let (path, mut fields) = rest.split_once(' ').unwrap_or((rest, ""));
    let name = line.get(..method.len() + 1 + path.len())?;
    Some(Endpoint { name, method, path, fields: fields_of(&mut fields) })
}

/// Reads fields up to the end or the closing bracket, which it takes.
fn fields_of(text: &mut &'static str) -> BTreeMap<&'static str, Field> {
    let mut fields = BTreeMap::new();
    loop {
        *text = text.trim_start();
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        *text = rest;
        if name.is_empty() {
            *text = text.strip_prefix(')').unwrap_or(text);
            return fields;
        }
        let required = take(text, "!");
        let or_text = take(text, "~");
        fields.insert(name, Field { required, or_text, shape: shape_of(text) });
    }
}

fn shape_of(text: &mut &'static str) -> Shape {
    if take(text, "[]") {
        Shape::List(Box::new(shape_of(text)))
    } else if take(text, "{}") {
        Shape::Free
    } else if take(text, "(") {
        Shape::Hash(fields_of(text))
    } else {
        Shape::Text
    }
}

fn take(text: &mut &'static str, prefix: &str) -> bool {
    let rest = text.strip_prefix(prefix);
    *text = rest.unwrap_or(text);
    rest.is_some()
}

/// The endpoint of a request; `None`: Stripe may have it, the stand-in does not.
pub(super) fn endpoint(method: &str, path: &str) -> Option<&'static Endpoint> {
    let matches = |endpoint: &&Endpoint| {
        let (mut wanted, mut given) = (endpoint.path.split('/'), path.split('/'));
        endpoint.method == method
            && loop {
                match (wanted.next(), given.next()) {
                    (None, None) => break true,
                    (Some(":id"), Some(id)) if !id.is_empty() => {}
                    (Some(wanted), Some(given)) if wanted == given => {}
                    _ => break false,
                }
            }
    };
    // A name that is spelled out wins over an id: `/v1/invoices/search` is no invoice.
    ENDPOINTS.iter().filter(matches).min_by_key(|endpoint| endpoint.path.matches(":id").count())
}

/// Whether Stripe has this type of event, and whether it is thin.
pub(super) fn event_kind(kind: &str) -> Option<bool> {
    let known = EVENTS.lines().any(|known| known == kind);
    known.then(|| kind.starts_with("v1.") || kind.starts_with("v2."))
}

impl Endpoint {
    /// Refuses parameters that the endpoint does not have, that nest otherwise, that are too long or are missing.
    pub(super) fn check(&self, params: &Params) -> Result<(), ApiError> {
        check_hash("", params.nodes(), &self.fields)?;
        let limits = MAX_CHARS.iter().filter(|(path, _, _)| {
            self.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        for (_, name, max) in limits {
            if params.leaf_at(name).is_some_and(|text| text.chars().count() > *max) {
                let message = format!("Invalid string: {name} must be at most {max} characters");
                return Err(ApiError::too_long(name, message));
            }
        }
        Ok(())
    }
}

fn full_name(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}[{name}]") }
}

fn check_hash(
    prefix: &str,
    nodes: &BTreeMap<String, Node>,
    fields: &BTreeMap<&'static str, Field>,
) -> Result<(), ApiError> {
    for (name, node) in nodes {
        let full = full_name(prefix, name);
        let field = fields.get(name.as_str()).ok_or_else(|| ApiError::unknown_parameter(&full))?;
        if !(field.or_text && is_other_form(node, &field.shape)) {
            check_node(&full, node, &field.shape)?;
        }
    }
    let missing = fields.iter().find(|(name, field)| field.required && !nodes.contains_key(**name));
    missing.map_or(Ok(()), |(name, _)| Err(ApiError::missing(&full_name(prefix, name))))
}

/// Whether a text stands for a hash or a list: an empty one unsets it, and a time may stand for a range of times.
fn is_other_form(node: &Node, shape: &Shape) -> bool {
    let is_range = matches!(shape, Shape::Hash(fields) if fields.contains_key("gte"));
    matches!(node, Node::Leaf(text) if text.is_empty() || is_range)
}

fn check_node(name: &str, node: &Node, shape: &Shape) -> Result<(), ApiError> {
    match (node, shape) {
        (Node::Leaf(_), Shape::Text) => Ok(()),
        (Node::Branch(_), Shape::Text) => {
            Err(ApiError::invalid(name, format!("Invalid string: {name} must not be a hash or an array")))
        }
        (Node::Leaf(_), Shape::List(_)) => Err(ApiError::invalid(name, "Invalid array")),
        (Node::Leaf(_), Shape::Hash(_) | Shape::Free) => Err(ApiError::invalid(name, "Invalid object")),
        (Node::Branch(nodes), Shape::Hash(fields)) => check_hash(name, nodes, fields),
        (Node::Branch(nodes), Shape::Free) => {
            let nested = nodes.iter().find(|(_, node)| matches!(node, Node::Branch(_)));
            nested.map_or(Ok(()), |(key, _)| {
                let name = full_name(name, key);
                Err(ApiError::invalid(
                    &name,
                    format!("Invalid string: {name} must not be a hash or an array"),
                ))
            })
        }
        (Node::Branch(nodes), Shape::List(shape)) => nodes.iter().try_for_each(|(index, node)| {
            let full = full_name(name, index);
            if index.parse::<usize>().is_err() {
                return Err(ApiError::invalid(name, "Invalid array"));
            }
            check_node(&full, node, shape)
        }),
    }
}

/// How an endpoint was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCalls {
    /// Requests that came to the endpoint with a valid key.
    pub calls: u64,
    /// Those of them that were answered 4xx or 5xx.
    pub refused: u64,
}

/// Which endpoints were called, and how often: by method and path, such as `POST /v1/customers/:id`. What the stand-in
/// does not have at all is counted under `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrictnessReport {
    /// The endpoints that were called.
    pub endpoints: BTreeMap<&'static str, EndpointCalls>,
}

impl StrictnessReport {
    pub(super) fn note(&mut self, endpoint: Option<&'static Endpoint>, refused: bool) {
        let calls = self.endpoints.entry(endpoint.map_or("unknown", |endpoint| endpoint.name)).or_default();
        calls.calls = calls.calls.saturating_add(1);
        calls.refused = calls.refused.saturating_add(u64::from(refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoint_name: &str, form: &str) -> Result<(), String> {
        let (method, path) = endpoint_name.split_once(' ').unwrap();
        let params = Params::parse(&[form]).unwrap();
        let refused = endpoint(method, path).unwrap().check(&params);
        refused.map_err(|error| error.body()["error"]["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn every_line_of_the_table_is_an_endpoint_with_its_own_name() {
        let lines = TABLE.lines().count();
        assert_eq!(ENDPOINTS.len(), lines);
        let names: std::collections::BTreeSet<_> = ENDPOINTS.iter().map(|endpoint| endpoint.name).collect();
        assert_eq!(names.len(), lines);
        assert_eq!(endpoint("GET", "/v1/invoices/search").unwrap().name, "GET /v1/invoices/search");
        assert_eq!(endpoint("GET", "/v1/invoices/in_1").unwrap().name, "GET /v1/invoices/:id");
        assert!(endpoint("GET", "/v1/invoices/").is_none() && endpoint("PUT", "/v1/invoices").is_none());
    }

    #[test]
    fn what_nests_otherwise_than_in_the_table_is_refused() {
        let subscribe = "POST /v1/subscriptions";
        assert_eq!(check(subscribe, "customer=c&items[0][price]=p&items[0][metadata][k]=v"), Ok(()));
        assert_eq!(
            check(subscribe, "items[0][pric]=p").unwrap_err(),
            "Received unknown parameter: items[0][pric]"
        );
        assert_eq!(check(subscribe, "items[price]=p").unwrap_err(), "Invalid array");
        assert_eq!(check(subscribe, "items=p").unwrap_err(), "Invalid array");
        assert_eq!(check(subscribe, "items[0]=p").unwrap_err(), "Invalid object");
        assert!(check(subscribe, "customer[id]=c").unwrap_err().starts_with("Invalid string: customer"));
        assert!(check(subscribe, "metadata[a][b]=c").unwrap_err().starts_with("Invalid string: metadata[a]"));
        assert_eq!(check(subscribe, "metadata="), Ok(()));
        assert_eq!(check(subscribe, "metadata=x").unwrap_err(), "Invalid object");
        assert_eq!(check("GET /v1/events", "created=1"), Ok(()));
    }

    #[test]
    fn what_is_required_must_be_there_and_what_is_too_long_is_refused() {
        assert_eq!(check("POST /v1/products", "active=true").unwrap_err(), "Missing required param: name.");
        let nested = "features[invoice_history][x]=1";
        assert!(check("POST /v1/billing_portal/configurations", nested).is_err());
        let missing = check(
            "POST /v1/billing_portal/configurations",
            "features[subscription_cancel][mode]=immediately",
        );
        assert_eq!(missing.unwrap_err(), "Missing required param: features[subscription_cancel][enabled].");
        let key = "k".repeat(201);
        assert!(check("POST /v1/prices/price_1", &format!("lookup_key={key}")).is_err());
        assert_eq!(check("POST /v1/prices/price_1", &format!("lookup_key={}", &key[1..])), Ok(()));
    }

    #[test]
    fn events_are_known_and_thin_or_not() {
        assert_eq!(event_kind("invoice.created"), Some(false));
        assert_eq!(event_kind("v1.billing.meter.error_report_triggered"), Some(true));
        assert_eq!(event_kind("invoice.made_up"), None);
    }
}
