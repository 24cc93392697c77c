//! The keys of a `config.json`, taken one by one with their types and ranges.
//!
//! Each error names its key; serde's messages do not.

use std::{fmt, ops::RangeInclusive, path::Path};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    layer_wise::{self, outside},
    scaling::Multipliers,
};
use crate::{
    error::{Error, Result},
    text_file,
};

/// Largest `config.json` in bytes; Apple's files have about 2 KiB.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// The keys that have not been taken yet.
pub(crate) struct Keys<'a> {
    pub(crate) map: Map<String, Value>,
    pub(crate) path: &'a Path,
}

impl<'a> Keys<'a> {
    /// Reads a JSON object; errors name `path`.
    pub(crate) fn parse(bytes: &[u8], path: &'a Path) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            let problem = format!("expected at most {MAX_BYTES} bytes, found more");
            return Err(Error::config(path, WHOLE, problem));
        }
        let refused =
            |problem| Error::config(path, WHOLE, format!("expected a JSON object: {problem}"));
        let text = text_file::decode(bytes.to_vec()).map_err(refused)?;
        let Entries(entries) =
            serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        let mut map = Map::new();
        for (key, value) in entries {
            if map.contains_key(&key) {
                return Err(Error::config(path, shorten(&key), "the key occurs twice"));
            }
            map.insert(key, value);
        }
        Ok(Self { map, path })
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Replaces a list of one value by the value.
    pub(crate) fn unwrap_single(&mut self, key: &str) {
        if let Some(Value::Array(list)) = self.map.get(key)
            && let [only] = list.as_slice()
        {
            let only = only.clone();
            self.map.insert(key.into(), only);
        }
    }

    /// Takes a value; null is absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// The error of an absent key.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> Error {
        Error::config(self.path, key, format!("missing, expected {expected}"))
    }

    /// Takes a string out of `known`, `default` if the key is absent.
    pub(crate) fn word(&mut self, key: &str, known: &[&str], default: Option<&str>) -> Result<()> {
        let expected = format!("\"{}\"", known.join("\" or \""));
        match self.take(key) {
            None if default.is_some() => Ok(()),
            None => Err(self.missing(key, &expected)),
            Some(Value::String(word)) if known.contains(&word.as_str()) => Ok(()),
            Some(other) => Err(self.unexpected(key, &expected, &other)),
        }
    }

    /// Takes a boolean, `default` if the key is absent.
    pub(crate) fn flag(&mut self, key: &str, default: Option<bool>) -> Result<bool> {
        match (self.take(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, "true or false")),
            (Some(Value::Bool(flag)), _) => Ok(flag),
            (Some(other), _) => Err(self.unexpected(key, "true or false", &other)),
        }
    }

    /// Takes an integer within `range`, `default` if the key is absent.
    pub(crate) fn integer(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
        default: Option<usize>,
    ) -> Result<usize> {
        match (self.take(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => {
                let expected = format!("an integer from {} to {}", range.start(), range.end());
                Err(self.missing(key, &expected))
            }
            (Some(value), _) => {
                integer_in(&value, &range).map_err(|p| Error::config(self.path, key, p))
            }
        }
    }

    /// Takes an integer within `range`, `None` if the key is absent or null.
    pub(crate) fn optional_integer(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => integer_in(&value, &range)
                .map(Some)
                .map_err(|problem| Error::config(self.path, key, problem)),
        }
    }

    /// Takes a number within `range`, `default` if the key is absent.
    pub(crate) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
        default: f64,
    ) -> Result<f64> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => match value.as_f64().filter(|number| range.contains(number)) {
                Some(number) => Ok(number),
                None => Err(Error::config(
                    self.path,
                    key,
                    outside("a number", &range, show(&value)),
                )),
            },
        }
    }

    /// Takes a number or a list of numbers; a list of two holds the ends of a range.
    pub(crate) fn multipliers(&mut self, key: &str) -> Result<Option<Multipliers>> {
        const EXPECTED: &str = "a number or a list of numbers";
        let list = match self.take(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(value) => {
                let number = value.as_f64();
                let number = number.ok_or_else(|| self.unexpected(key, EXPECTED, &value))?;
                return Ok(Some(Multipliers::Uniform(number)));
            }
        };
        let mut numbers = Vec::with_capacity(list.len());
        for (i, value) in list.iter().enumerate() {
            let number = value.as_f64().ok_or_else(|| {
                let problem = format!("entry {i}: expected a number, found {}", show(value));
                Error::config(self.path, key, problem)
            })?;
            numbers.push(number);
        }
        Ok(Some(match numbers[..] {
            [first, last] => Multipliers::Range(first, last),
            _ => Multipliers::PerLayer(numbers),
        }))
    }

    /// Takes a list of heads, one entry per layer; `None` if the key is absent or null.
    pub(crate) fn heads(&mut self, key: &str, layers: usize) -> Result<Option<Vec<usize>>> {
        let list = match self.take(key) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.len() == layers => list,
            Some(other) => {
                let expected = format!("a list of {layers} (num_transformer_layers)");
                return Err(self.unexpected(key, &expected, &other));
            }
        };
        let mut heads = Vec::with_capacity(layers);
        for (i, value) in list.iter().enumerate() {
            let count = integer_in(value, &layer_wise::HEADS).map_err(|problem| {
                Error::config(self.path, key, format!("layer {i}: {problem}"))
            })?;
            heads.push(count);
        }
        Ok(Some(heads))
    }

    /// The error of an unexpected value.
    pub(crate) fn unexpected(&self, key: &str, expected: &str, found: &Value) -> Error {
        Error::config(
            self.path,
            key,
            format!("expected {expected}, found {}", show(found)),
        )
    }
}

/// The key in errors that concern the whole file.
const WHOLE: &str = "(file)";

fn integer_in(value: &Value, range: &RangeInclusive<usize>) -> Result<usize, String> {
    value
        .as_u64()
        .and_then(|integer| usize::try_from(integer).ok())
        .filter(|integer| range.contains(integer))
        .ok_or_else(|| outside("an integer", range, show(value)))
}

/// A value for an error message, at most one line.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) => format!("{:?}", shorten(text)),
        other => other.to_string(),
    }
}

/// The beginning of a text from a file, for an error message.
pub(crate) fn shorten(text: &str) -> String {
    match text
        .char_indices()
        .nth(60)
        .and_then(|(end, _)| text.get(..end))
    {
        None => text.into(),
        Some(start) => format!("{start}..."),
    }
}

/// The entries of an object in their order, with duplicate keys.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_files_that_are_not_objects() {
        let problem = |bytes: &[u8]| match Keys::parse(bytes, Path::new("c")) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{bytes:?} was read"),
        };
        assert_eq!(
            problem(br#"{"a": 1, "b": 2, "a": 1}"#),
            "c: `a`: the key occurs twice"
        );
        assert!(problem(b"").starts_with("c: `(file)`: expected a JSON object: EOF"));
        assert!(problem(b"[]").starts_with("c: `(file)`: expected a JSON object: invalid type"));
        assert!(problem(b"{} {}").starts_with("c: `(file)`: expected a JSON object: trailing"));
        assert!(
            problem(b"{\"a\": \"\xff\"}")
                .contains("expected a JSON object: not UTF-8 text: byte 7")
        );
        assert!(problem(&b"[".repeat(100_000)).starts_with("c: `(file)`"));
        assert!(problem(br#"{"a": 1e999}"#).contains("number out of range"));
        let spaces = [b"{}".to_vec(), vec![b' '; MAX_BYTES]].concat();
        assert_eq!(
            problem(&spaces),
            "c: `(file)`: expected at most 1048576 bytes, found more"
        );
        assert!(Keys::parse(&spaces[..MAX_BYTES], Path::new("c")).is_ok());
    }
}
