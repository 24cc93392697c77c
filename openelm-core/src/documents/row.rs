//! The text of a row of JSON; other values of the row are not kept.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Keys that are listed in an error.
const LISTED: usize = 8;

/// The string at `key` of the JSON object `line`; null is absent. Of several keys, separated by
/// commas, the first one that the object has counts.
///
/// # Errors
/// The problem of the row.
pub(super) fn text(line: &str, key: &str) -> Result<String, String> {
    let mut source = serde_json::Deserializer::from_str(line);
    let row = Row(key).deserialize(&mut source);
    let found = row.and_then(|found| source.end().map(|()| found));
    let found = found.map_err(|error| {
        // serde_json counts lines from the start of the row.
        let text = error.to_string();
        let problem = text.split(" at line ").next().unwrap_or_default();
        format!("malformed JSON at column {}: {problem}", error.column())
    })?;
    match found {
        Found::Text(text) => Ok(text),
        Found::Other => Err(format!("{}: expected a string", names(key))),
        Found::NoObject => Err("expected a JSON object".into()),
        Found::Absent(keys) => {
            let found = if keys.is_empty() {
                "no key".to_owned()
            } else {
                keys.join(", ")
            };
            Err(format!("{} is missing; found {found}", names(key)))
        }
    }
}

/// Keys separated by commas, for an error.
pub(super) fn names(keys: &str) -> String {
    let names: Vec<_> = keys.split(',').map(|key| format!("`{key}`")).collect();
    names.join(" or ")
}

/// The value of the key in a row.
enum Found {
    Text(String),
    /// A value that is not a string.
    Other,
    /// The row is not an object.
    NoObject,
    /// No value, or null; the first other keys.
    Absent(Vec<String>),
}

/// The keys, separated by commas.
struct Row<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<Found, A::Error> {
        let mut value = None;
        // The place of the value's key.
        let mut place = usize::MAX;
        let mut keys = Vec::new();
        while let Some(key) = row.next_key::<String>()? {
            let wanted = self.0.split(',').position(|wanted| wanted == key);
            if let Some(at) = wanted.filter(|at| *at <= place) {
                match row.next_value::<Field>()?.0 {
                    Some(found) => (value, place) = (Some(found), at),
                    None if at == place => (value, place) = (None, usize::MAX),
                    None => {}
                }
                continue;
            }
            let other = row.next_value::<Option<IgnoredAny>>()?;
            if other.is_some() && keys.len() < LISTED {
                keys.push(format!("`{key}`"));
            }
        }
        Ok(value.unwrap_or(Found::Absent(keys)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::NoObject)
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::NoObject)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::NoObject)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::NoObject)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::NoObject)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::NoObject)
    }

    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::NoObject)
    }
}

/// The value of the key; `None` for null.
struct Field(Option<Found>);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor).map(Self)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Option<Found>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Found::Text(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(Found::Text(text)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Some(Found::Other))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Some(Found::Other))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Some(Found::Other))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Some(Found::Other))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(Found::Other))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(Found::Other))
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn null_is_absent() {
        let ok = |line: &str| text(line, "text").unwrap();
        assert_eq!(ok(r#"{"a": null, "text": "é\n", "b": [{}]}"#), "é\n");
        assert_eq!(ok(r#"{"text": "a", "text": "b"}"#), "b");
        let first = |line: &str| text(line, "content,text");
        for line in [
            r#"{"content": "a", "text": "b"}"#,
            r#"{"text": "b", "content": "a"}"#,
            r#"{"content": null, "text": "a"}"#,
            r#"{"text": "a", "content": null}"#,
            r#"{"text": "a"}"#,
        ] {
            assert_eq!(first(line).unwrap(), "a", "{line}");
        }
        let expected = "`content` or `text` is missing; found `a`";
        assert_eq!(first(r#"{"a": "b"}"#).unwrap_err(), expected);
        for (line, expected) in [
            (r#"{"text": null}"#, "`text` is missing; found no key"),
            (
                r#"{"text": null, "a": null, "b": 1}"#,
                "`text` is missing; found `b`",
            ),
            (r#"{"text": [null]}"#, "`text`: expected a string"),
            (r#"{"text": {"text": "a"}}"#, "`text`: expected a string"),
            ("null", "expected a JSON object"),
            ("[[1], 2]", "expected a JSON object"),
            ("\"text\"", "expected a JSON object"),
            (
                r#"{"text": "a"} {}"#,
                "malformed JSON at column 15: trailing characters",
            ),
            (r#"{"text": "#, "malformed JSON at column 9: EOF"),
        ] {
            let problem = text(line, "text").unwrap_err();
            assert!(
                problem.starts_with(expected),
                "{problem}: expected {expected}"
            );
        }
    }
}
