//! Form-encoded parameters with bracket nesting, read strictly.
//!
//! Owns the syntax and the basic types of parameters. A handler takes out what it knows, and [`Params::finish`] refuses
//! whatever is left: a parameter that nobody read is an unknown parameter. It never looks at stored objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::ApiError;

/// Largest number of parameters of one request.
const MAX_PARAMETERS: usize = 1_000;
/// Deepest nesting of one parameter's name, in brackets.
const MAX_DEPTH: usize = 6;
/// Longest value of a text, in characters.
const MAX_TEXT_CHARS: usize = 5_000;
/// Most keys of one object's metadata.
const MAX_METADATA_KEYS: usize = 50;
/// Longest metadata key, in characters.
const MAX_METADATA_KEY_CHARS: usize = 40;
/// Longest metadata value, in characters.
const MAX_METADATA_VALUE_CHARS: usize = 500;

/// Largest page of a list.
pub(super) const MAX_PAGE: usize = 100;
/// Page of a list that names no limit.
const DEFAULT_PAGE: usize = 10;

/// A parsed value. Lists are maps whose keys are their indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Leaf(String),
    Branch(BTreeMap<String, Node>),
}

/// The parameters of one request, or of one nested hash of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    prefix: String,
    nodes: BTreeMap<String, Node>,
}

/// Metadata of an object; an empty value removes its key.
pub(super) type Metadata = BTreeMap<String, String>;

/// Which page of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) cursor: Cursor,
}

/// Where the page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Newest,
    After(String),
    Before(String),
}

/// Which times a list is to hold, in Unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    from_s: Option<i64>,
    until_s: Option<i64>,
}

impl Range {
    /// Reads `name[gt]`, `name[gte]`, `name[lt]` and `name[lte]`.
    pub(super) fn of(params: &mut Params, name: &str) -> Result<Self, ApiError> {
        let Some(mut range) = params.hash(name)? else { return Ok(Self::default()) };
        let after_s = range.integer("gt")?.map(|at_s| at_s.saturating_add(1));
        let to_s = range.integer("lte")?.map(|at_s| at_s.saturating_add(1));
        let from_s = range.integer("gte")?.max(after_s);
        let until_s = [range.integer("lt")?, to_s].into_iter().flatten().min();
        range.finish()?;
        Ok(Self { from_s, until_s })
    }

    pub(super) fn contains(self, at_s: i64) -> bool {
        self.from_s.is_none_or(|from_s| at_s >= from_s) && self.until_s.is_none_or(|until_s| at_s < until_s)
    }
}

impl Params {
    /// Parses one or more `application/x-www-form-urlencoded` texts (query, then body) into one set of parameters.
    pub(super) fn parse(texts: &[&str]) -> Result<Self, ApiError> {
        let mut params = Self::default();
        let mut count = 0;
        for text in texts {
            let pairs: Vec<(String, String)> = serde_urlencoded::from_str(text)
                .map_err(|_| ApiError::invalid_request("The request's parameters could not be decoded."))?;
            for (name, value) in pairs {
                count += 1;
                if count > MAX_PARAMETERS {
                    return Err(ApiError::invalid_request("The request has too many parameters."));
                }
                insert(&mut params.nodes, &name, value)?;
            }
        }
        Ok(params)
    }

    /// Reads a JSON object as parameters, as the endpoints under `/v2` take them: lists become indices, numbers and
    /// booleans their texts, and `null` the empty text that unsets.
    pub(super) fn from_json(body: &str) -> Result<Self, ApiError> {
        let refused = || ApiError::invalid_request("The request's body is not a JSON object.");
        let value: Value = serde_json::from_str(body).map_err(|_| refused())?;
        let Value::Object(_) = value else { return Err(refused()) };
        match node(value) {
            Node::Branch(nodes) => Ok(Self { prefix: String::new(), nodes }),
            Node::Leaf(_) => Err(refused()),
        }
    }

    /// Parameters that the stand-in itself gives.
    pub(super) fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut params = Self::default();
        for (name, value) in pairs {
            // Only a name without a shape can fail, and these are written here.
            let inserted = insert(&mut params.nodes, name, value.to_owned());
            debug_assert!(inserted.is_ok(), "{name}");
        }
        params
    }

    /// What the table of endpoints looks at.
    pub(super) fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// The text of a parameter by its full name, such as `a[b]`.
    pub(super) fn leaf_at(&self, name: &str) -> Option<&str> {
        let path = segments(name)?;
        let (first, rest) = path.split_first()?;
        let mut node = self.nodes.get(*first)?;
        for segment in rest {
            let Node::Branch(nodes) = node else { return None };
            node = nodes.get(*segment)?;
        }
        match node {
            Node::Leaf(text) => Some(text),
            Node::Branch(_) => None,
        }
    }

    /// Whether a parameter of this hash was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    fn full_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}[{name}]", self.prefix) }
    }

    /// The name by which an error calls a parameter of this hash.
    pub(super) fn name(&self, name: &str) -> String {
        self.full_name(name)
    }

    fn leaf(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.nodes.remove(name) {
            None => Ok(None),
            Some(Node::Leaf(text)) => Ok(Some(text)),
            Some(Node::Branch(_)) => {
                let name = self.full_name(name);
                Err(ApiError::invalid(
                    &name,
                    format!("Invalid string: {name} must not be a hash or an array"),
                ))
            }
        }
    }

    /// A text that may be empty, which unsets it.
    pub(super) fn text_or_unset(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(text) = self.leaf(name)? else { return Ok(None) };
        if text.chars().count() > MAX_TEXT_CHARS {
            let name = self.full_name(name);
            let message = format!("Invalid string: {name} must be at most {MAX_TEXT_CHARS} characters");
            return Err(ApiError::invalid(&name, message));
        }
        Ok(Some(text))
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let text = self.text_or_unset(name)?;
        if text.as_deref() == Some("") {
            return Err(ApiError::empty(&self.full_name(name)));
        }
        Ok(text)
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<String, ApiError> {
        let text = self.text(name)?;
        text.ok_or_else(|| ApiError::missing(&self.full_name(name)))
    }

    /// An integer.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.parse().map_err(|_| ApiError::not_an_integer(&self.full_name(name), &text))?;
        Ok(Some(number))
    }

    /// An integer that is zero or more.
    pub(super) fn natural(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        let number = u64::try_from(number).map_err(|_| {
            ApiError::invalid(&self.full_name(name), "This value must be greater than or equal to 0.")
        })?;
        Ok(Some(number))
    }

    /// An integer that must be there.
    pub(super) fn required_integer(&mut self, name: &str) -> Result<i64, ApiError> {
        let number = self.integer(name)?;
        number.ok_or_else(|| ApiError::missing(&self.full_name(name)))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(ApiError::invalid(&self.full_name(name), format!("Invalid boolean: {other}"))),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*value));
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let name = self.full_name(name);
        Err(ApiError::invalid(&name, format!("Invalid {name}: must be one of {}", words.join(", "))))
    }

    /// One of a few words, which must be there.
    pub(super) fn required_choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<T, ApiError> {
        let choice = self.choice(name, choices)?;
        choice.ok_or_else(|| ApiError::missing(&self.full_name(name)))
    }

    /// A nested hash.
    pub(super) fn hash(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let prefix = self.full_name(name);
        match self.nodes.remove(name) {
            None => Ok(None),
            Some(Node::Branch(nodes)) => Ok(Some(Self { prefix, nodes })),
            Some(Node::Leaf(_)) => Err(ApiError::invalid(&prefix, "Invalid object")),
        }
    }

    /// A nested hash that must be there.
    pub(super) fn required_hash(&mut self, name: &str) -> Result<Self, ApiError> {
        let hash = self.hash(name)?;
        hash.ok_or_else(|| ApiError::missing(&self.full_name(name)))
    }

    /// Takes out the empty text that unsets a hash, if that is what was given.
    pub(super) fn take_unset(&mut self, name: &str) -> bool {
        let unset = self.nodes.get(name) == Some(&Node::Leaf(String::new()));
        unset && self.nodes.remove(name).is_some()
    }

    /// A list of hashes, in the order of their indices.
    pub(super) fn hashes(&mut self, name: &str) -> Result<Vec<Self>, ApiError> {
        let Some(mut list) = self.hash(name)? else { return Ok(Vec::new()) };
        list.indices()?.iter().map(|index| list.required_hash(index)).collect()
    }

    /// A list of texts, in the order of their indices.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let Some(mut list) = self.hash(name)? else { return Ok(Vec::new()) };
        list.indices()?.iter().map(|index| list.required(index)).collect()
    }

    /// A list of texts that an empty text empties.
    pub(super) fn texts_or_unset(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        if self.nodes.get(name) == Some(&Node::Leaf(String::new())) {
            self.nodes.remove(name);
            return Ok(Vec::new());
        }
        self.texts(name)
    }

    fn indices(&self) -> Result<Vec<String>, ApiError> {
        let mut indices = Vec::new();
        for key in self.nodes.keys() {
            let index: usize = key.parse().map_err(|_| ApiError::invalid(&self.prefix, "Invalid array"))?;
            indices.push((index, key.clone()));
        }
        indices.sort_unstable();
        Ok(indices.into_iter().map(|(_, key)| key).collect())
    }

    /// A free hash of texts.
    pub(super) fn free_hash(&mut self, name: &str) -> Result<Option<Metadata>, ApiError> {
        let Some(mut hash) = self.hash(name)? else { return Ok(None) };
        let keys: Vec<String> = hash.nodes.keys().cloned().collect();
        let mut entries = Metadata::new();
        for key in keys {
            let value = hash.text_or_unset(&key)?;
            entries.extend(value.map(|value| (key, value)));
        }
        Ok(Some(entries))
    }

    /// The changes of an object's metadata.
    pub(super) fn metadata(&mut self) -> Result<Metadata, ApiError> {
        let name = self.full_name("metadata");
        if self.nodes.get("metadata") == Some(&Node::Leaf(String::new())) {
            return Err(ApiError::not_modelled(&name));
        }
        let metadata = self.free_hash("metadata")?.unwrap_or_default();
        if metadata.len() > MAX_METADATA_KEYS {
            return Err(ApiError::invalid(
                &name,
                format!("Metadata can have at most {MAX_METADATA_KEYS} keys."),
            ));
        }
        for (key, value) in &metadata {
            if key.chars().count() > MAX_METADATA_KEY_CHARS
                || value.chars().count() > MAX_METADATA_VALUE_CHARS
            {
                let message = format!(
                    "Metadata keys can have up to {MAX_METADATA_KEY_CHARS} characters, and values up to \
                     {MAX_METADATA_VALUE_CHARS} characters."
                );
                return Err(ApiError::invalid(&format!("{name}[{key}]"), message));
            }
        }
        Ok(metadata)
    }

    /// What the answer should hold as an object instead of as an id.
    pub(super) fn expand(&mut self, allowed: &[&str]) -> Result<BTreeSet<String>, ApiError> {
        let mut expand = BTreeSet::new();
        for field in self.texts("expand")? {
            if !allowed.contains(&field.as_str()) {
                return Err(ApiError::invalid(
                    "expand",
                    format!("This property cannot be expanded ({field})."),
                ));
            }
            expand.insert(field);
        }
        Ok(expand)
    }

    /// Which page of a list is asked for.
    pub(super) fn page(&mut self) -> Result<Page, ApiError> {
        let limit = match self.integer("limit")? {
            None => DEFAULT_PAGE,
            Some(limit) => {
                usize::try_from(limit).ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(
                    || ApiError::invalid("limit", format!("This value must be between 1 and {MAX_PAGE}.")),
                )?
            }
        };
        let cursor = match (self.text("starting_after")?, self.text("ending_before")?) {
            (None, None) => Cursor::Newest,
            (Some(id), None) => Cursor::After(id),
            (None, Some(id)) => Cursor::Before(id),
            (Some(_), Some(_)) => {
                let message = "You can only specify one of these parameters: starting_after, ending_before.";
                return Err(ApiError::exclusive("starting_after", message));
            }
        };
        Ok(Page { limit, cursor })
    }

    /// Refuses parameters that Stripe has and this stand-in does not.
    pub(super) fn refuse_unmodelled(&self, names: &[&str]) -> Result<(), ApiError> {
        match names.iter().find(|name| self.nodes.contains_key(**name)) {
            Some(name) => Err(ApiError::not_modelled(&self.full_name(name))),
            None => Ok(()),
        }
    }

    /// Refuses whatever was not read.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.nodes.keys().next() {
            Some(name) => Err(ApiError::unknown_parameter(&self.full_name(name))),
            None => Ok(()),
        }
    }
}

/// The depth is bounded by the parser of the JSON.
fn node(value: Value) -> Node {
    match value {
        Value::Null => Node::Leaf(String::new()),
        Value::Bool(truth) => Node::Leaf(truth.to_string()),
        Value::Number(number) => Node::Leaf(number.to_string()),
        Value::String(text) => Node::Leaf(text),
        Value::Array(items) => Node::Branch(
            items.into_iter().enumerate().map(|(index, item)| (index.to_string(), node(item))).collect(),
        ),
        Value::Object(fields) => {
            Node::Branch(fields.into_iter().map(|(name, field)| (name, node(field))).collect())
        }
    }
}

/// Splits `a[b][c]` into its names; `None` when the brackets do not match.
fn segments(name: &str) -> Option<Vec<&str>> {
    let (root, mut rest) = match name.find('[') {
        None => (name, ""),
        Some(at) => name.split_at(at),
    };
    if root.is_empty() || root.contains(']') {
        return None;
    }
    let mut segments = vec![root];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[')?;
        let (segment, after) = inner.split_once(']')?;
        if segment.contains('[') || segments.len() >= MAX_DEPTH {
            return None;
        }
        segments.push(segment);
        rest = after;
    }
    Some(segments)
}

fn insert(nodes: &mut BTreeMap<String, Node>, name: &str, value: String) -> Result<(), ApiError> {
    let segments = segments(name).ok_or_else(|| ApiError::unknown_parameter(name))?;
    let Some((last, path)) = segments.split_last() else { return Err(ApiError::unknown_parameter(name)) };
    let mut level = nodes;
    for segment in path {
        let key = key_of(level, segment);
        match level.entry(key).or_insert_with(|| Node::Branch(BTreeMap::new())) {
            Node::Branch(next) => level = next,
            Node::Leaf(_) => return Err(ApiError::invalid(name, "Invalid object")),
        }
    }
    let key = key_of(level, last);
    if level.insert(key, Node::Leaf(value)).is_some() {
        return Err(ApiError::invalid(name, format!("The parameter {name} was given more than once.")));
    }
    Ok(())
}

/// `[]` appends: its key is the next index.
fn key_of(level: &BTreeMap<String, Node>, segment: &str) -> String {
    if segment.is_empty() { level.len().to_string() } else { segment.to_owned() }
}
