//! The keys of a definition, each read once and checked.

use std::path::Path;

use serde_json::{Map, Value};

use super::yaml::fault;
use crate::error::{Error, Result};

/// Keys of a mapping in the file `path`, below the key `prefix`.
pub(super) struct Keys<'a> {
    path: &'a Path,
    prefix: String,
    map: Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The keys of `map`.
    pub(super) fn new(path: &'a Path, prefix: &str, map: Map<String, Value>) -> Self {
        let prefix = prefix.to_owned();
        Self { path, prefix, map }
    }

    /// The value of `key`; `None` if it is absent or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Reads `keys` without using them.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.shift_remove(*key);
        }
    }

    /// Text.
    ///
    /// # Errors
    /// [`Error::Config`] for another value.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, "text", &other)),
        }
    }

    /// A number from 0 on.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub(super) fn count(&mut self, key: &str) -> Result<Option<usize>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
                Some(count) => Ok(Some(count)),
                None => Err(self.wrong(key, "a number from 0 on", &value)),
            },
        }
    }

    /// True or false.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(key, "true or false", &other)),
        }
    }

    /// A list; a single value is a list of one.
    pub(super) fn list(&mut self, key: &str) -> Option<Vec<Value>> {
        self.take(key).map(|value| match value {
            Value::Array(values) => values,
            value => vec![value],
        })
    }

    /// The keys of the mapping `value`, an item of `key`.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a mapping.
    pub(super) fn nested(&self, key: &str, value: Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self::new(self.path, &self.place(key), map)),
            other => Err(self.wrong(key, "a mapping of keys", &other)),
        }
    }

    /// Checks that each key with a value has been read.
    ///
    /// # Errors
    /// [`Error::Config`] for the first unknown key.
    pub(super) fn finish(self, known: &str) -> Result<()> {
        let mut rest = self.map.iter().filter(|(_, value)| !value.is_null());
        match rest.next() {
            None => Ok(()),
            Some((key, _)) => Err(self.fault(key, format!("unknown key; expected one of {known}"))),
        }
    }

    /// A problem of `key`.
    pub(super) fn fault(&self, key: &str, problem: impl Into<String>) -> Error {
        fault(self.path, &self.place(key), problem.into())
    }

    /// A value of `key` other than expected.
    pub(super) fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.fault(key, format!("expected {expected}, found {found}"))
    }

    /// A missing key.
    pub(super) fn missing(&self, key: &str) -> Error {
        self.fault(key, "missing")
    }

    fn place(&self, key: &str) -> String {
        match self.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}.{key}"),
        }
    }
}
