//! JSON of other programs, in which null is an absent value.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 127;

/// Parses `text`. Keys whose value is null are absent, at any depth.
///
/// # Errors
/// The position of what is not JSON or of a key that occurs twice; a key with a value of another
/// type.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let Present(value) = serde_json::from_str(text)?;
    serde_json::from_value(value)
}

/// Checks the depth of JSON before a library reads it.
///
/// # Errors
/// Arrays and objects nested more than 127 deep, which is serde_json's limit.
pub(crate) fn check_depth(text: &[u8]) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "byte {at}: expected at most {MAX_DEPTH} nested arrays and objects, found more"
            ));
        }
    }
    Ok(())
}

/// Removes the keys whose value is null, at any depth.
pub(crate) fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().filter(|(_, value)| !value.is_null());
            let entries = entries.map(|(key, value)| (key, without_null(value)));
            Value::Object(entries.collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_null).collect()),
        other => other,
    }
}

/// The value of a field, its default if it is null: for `#[serde(deserialize_with)]`, where a file
/// is too large for [`parse`].
///
/// # Errors
/// The deserializer's.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A value without keys that are null.
struct Present(Value);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PresentVisitor).map(Self)
    }
}

struct PresentVisitor;

impl<'de> Visitor<'de> for PresentVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Present(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((key, Present(value))) = map.next_entry::<String, Present>()? {
            if values.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` occurs twice")));
            }
            if !value.is_null() {
                values.insert(key, value);
            }
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Settings {
        rank: Option<u32>,
        #[serde(default)]
        dropout: f32,
        #[serde(default)]
        pattern: Map<String, Value>,
    }

    #[test]
    fn null_is_absent_at_any_depth() {
        let absent: Settings = parse("{}").unwrap();
        let null = r#"{"rank": null, "dropout": null, "pattern": null, "other": null}"#;
        assert_eq!(parse::<Settings>(null).unwrap(), absent);
        let text = r#"{"a": null, "b": [null, {"c": null, "d": -1.5}], "e": "x", "f": true}"#;
        let expected = json!({"b": [null, {"d": -1.5}], "e": "x", "f": true});
        assert_eq!(parse::<Value>(text).unwrap(), expected);
        assert_eq!(without_null(serde_json::from_str(text).unwrap()), expected);
    }

    #[test]
    fn depth_has_serde_jsons_limit() {
        let nested = |depth: usize| {
            let text = r#"{"a\"[": ["#.to_owned() + &"[".repeat(depth - 2);
            format!("{text}\"[[\"{}, []]}}", "]".repeat(depth - 2))
        };
        for depth in [2, 126, 127] {
            assert_eq!(check_depth(nested(depth).as_bytes()), Ok(()), "{depth}");
            assert!(parse::<Value>(&nested(depth)).is_ok(), "{depth}");
        }
        for depth in [128, 100_000] {
            let problem = check_depth(nested(depth).as_bytes()).unwrap_err();
            assert!(problem.contains("at most 127 nested"), "{problem}");
            assert!(parse::<Value>(&nested(depth)).is_err(), "{depth}");
        }
    }

    #[test]
    fn rejects_what_is_not_one_value() {
        for (text, expected) in [
            ("", "EOF"),
            ("{} {}", "trailing"),
            (r#"{"rank": 1, "rank": 2}"#, "the key `rank` occurs twice"),
            (r#"{"rank": null, "dropout": "x"}"#, "invalid type"),
            (r#"{"dropout": 1e999}"#, "out of range"),
        ] {
            let problem = parse::<Settings>(text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
        assert!(parse::<Value>(&"[".repeat(100_000)).is_err());
    }
}
