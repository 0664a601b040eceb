//! JSON that says each thing once. Owns the refusal of repeated keys, which `serde_json::Value` would settle silently
//! in favour of the last one, and another reader of the same token in favour of the first.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{cell::Cell, fmt};

/// Why bytes are not an object of unique keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAnObject {
    /// Not JSON, or JSON of another kind.
    Malformed,
    /// A key is there twice, at some depth.
    DuplicateKey,
}

/// One JSON object and nothing else. Depth is bounded by `serde_json`'s own recursion limit, 128; size by the caller.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, NotAnObject> {
    let repeated = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Unique { repeated: &repeated }.read(&mut reader);
    match value.and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(map)) => Ok(map),
        Err(_) if repeated.get() => Err(NotAnObject::DuplicateKey),
        Ok(_) | Err(_) => Err(NotAnObject::Malformed),
    }
}

/// Reads a value; raises the flag and fails on a repeated key. The flag, because a deserializer's error is opaque.
#[derive(Clone, Copy)]
struct Unique<'f> {
    repeated: &'f Cell<bool>,
}

impl Unique<'_> {
    fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.read(from)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        // A key's escapes are resolved here: `"sub"` and `"\u0073ub"` are the same key.
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self)?;
            if map.insert(key, value).is_some() {
                self.repeated.set(true);
                return Err(A::Error::custom("repeated key"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<NotAnObject>) {
        assert_eq!(object(text.as_bytes()).err(), expected, "{text}");
    }

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":1,"b":-2,"c":1.5,"d":null,"e":[true,{"f":"\u00fc"}],"g":{}}"#;
        let read = Value::Object(object(text.as_bytes()).unwrap());
        assert_eq!(read, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_repeated_key_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"o":{"a":1,"a":2}}"#,
            r#"{"o":[{"a":1,"a":2}]}"#,
            r#"{"$serde_json::private::Number":1,"$serde_json::private::Number":2}"#,
        ] {
            check(text, Some(NotAnObject::DuplicateKey));
        }
        check(r#"{"o":{"a":1},"p":{"a":2}}"#, None);
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(200), "1}".repeat(200));
        for text in ["", "null", "[]", "1", "\"a\"", "{", "{}{}", "{} x", "{\"a\":1,}", "\u{feff}{}", &deep] {
            check(text, Some(NotAnObject::Malformed));
        }
        check(" {} ", None);
        assert_eq!(object(b"{\"a\":\"\xff\"}").err(), Some(NotAnObject::Malformed));
    }
}
