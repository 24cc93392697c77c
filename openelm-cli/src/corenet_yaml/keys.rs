//! The keys of a YAML file, which are taken one by one.

use std::collections::BTreeMap;

use openelm_core::text::parse_yaml;
use serde_json::{Map, Value};

/// The values of a YAML file by their dotted keys (`scheduler.cosine.max_lr`). Lists are values; keys
/// without a value are absent.
#[derive(Debug)]
pub(super) struct Keys(BTreeMap<String, Value>);

impl Keys {
    /// Reads a YAML text. Keys of the first level that begin with `_` only define anchors.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let Value::Object(file) = parse_yaml(text)? else {
            return Err("expected keys with values".into());
        };
        let mut keys = BTreeMap::new();
        for (key, value) in file {
            if !key.starts_with('_') {
                flatten(key, value, &mut keys);
            }
        }
        Ok(Self(keys))
    }

    /// The members of an object.
    pub(super) fn of(members: Map<String, Value>) -> Self {
        Self(members.into_iter().collect())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// A number, if the key is there.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        let number = |value: &Value| match value {
            Value::Number(number) => number.as_f64(),
            // `1.e-8` is a number in YAML 1.1.
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        self.typed(key, "a number", number)
    }

    /// A natural number, if the key is there.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<u64>, String> {
        self.typed(key, "a natural number", Value::as_u64)
    }

    /// A text, if the key is there.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        self.typed(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// True or false, if the key is there.
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A number that must be there.
    pub(super) fn required_number(&mut self, key: &str) -> Result<f64, String> {
        self.number(key)?.ok_or_else(|| missing(key, "a number"))
    }

    /// A natural number that must be there.
    pub(super) fn required_count(&mut self, key: &str) -> Result<u64, String> {
        self.count(key)?
            .ok_or_else(|| missing(key, "a natural number"))
    }

    /// Refuses another value of `key` than `expected`, if the key is there.
    pub(super) fn only(&mut self, key: &str, expected: impl Into<Value>) -> Result<(), String> {
        let expected = expected.into();
        match self.take(key) {
            Some(found) if found != expected => {
                Err(format!("{key}: expected {expected}, found {found}"))
            }
            _ => Ok(()),
        }
    }

    /// The keys that are left, all of which must be in `no_effect`: a key, or a section with a dot at
    /// its end.
    pub(super) fn finish(self, no_effect: &[&str]) -> Result<Vec<String>, String> {
        let keys: Vec<String> = self.0.into_keys().collect();
        let is_known = |key: &String| {
            no_effect
                .iter()
                .any(|known| key == known || known.ends_with('.') && key.starts_with(known))
        };
        match keys.iter().find(|key| !is_known(key)) {
            Some(unknown) => Err(format!("{unknown}: unknown key")),
            None => Ok(keys),
        }
    }

    fn typed<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(format!("{key}: expected {kind}, found {value}")),
        }
    }
}

fn missing(key: &str, kind: &str) -> String {
    format!("{key}: expected {kind}, found none")
}

fn flatten(key: String, value: Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                flatten(format!("{key}.{name}"), value, keys);
            }
        }
        Value::Null => {}
        value => _ = keys.insert(key, value),
    }
}
