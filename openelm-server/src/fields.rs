//! The fields of a JSON body. Each is taken once; the rest is refused by name.

use serde_json::{Map, Value};

use crate::{api_error::ApiError, unique_json};

/// The fields of an object that were not taken yet. A field of `null` is absent.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// Begin of the fields' names in errors, such as `messages[0].`.
    place: String,
}

impl Fields {
    /// The fields of a body.
    ///
    /// # Errors
    /// If it is not a JSON object, or has a key twice.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        let value = unique_json::parse(body)
            .map_err(|error| ApiError::body(format!("expected JSON: {error}")))?;
        match value {
            Value::Object(map) => Ok(Self {
                map,
                place: String::new(),
            }),
            other => Err(ApiError::body(format!(
                "expected a JSON object, found {}",
                kind(&other)
            ))),
        }
    }

    /// The fields of the object `value`, which is the field `name`.
    pub(crate) fn of_value(name: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self {
                map,
                place: format!("{name}."),
            }),
            other => Err(ApiError::field(name, expected("an object", &other))),
        }
    }

    /// The name of a field in errors.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// A field of any type.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    /// A field with an object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let full = self.name(name);
        let value = self.value(name);
        value.map(|value| Self::of_value(&full, value)).transpose()
    }

    /// A field with a string.
    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.read(name, "a string", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    /// A field with `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", |value| value.as_bool().ok_or(value))
    }

    /// A field with a number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        self.read(name, "a number", |value| {
            value.as_f64().map(|number| number as f32).ok_or(value)
        })
    }

    /// A field with an integer of at least 0.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<usize>, ApiError> {
        self.read(name, "an integer of at least 0", |value| {
            let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
            number.ok_or(value)
        })
    }

    /// A field with an integer. A negative one is read as two's complement.
    pub(crate) fn seed(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        self.read(name, "an integer", |value| {
            let signed = value.as_i64().map(i64::cast_unsigned);
            value.as_u64().or(signed).ok_or(value)
        })
    }

    /// A field with a string or a list of strings.
    pub(crate) fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        self.read(name, "a string or a list of strings", |value| {
            let list = match &value {
                Value::String(text) => Some(vec![text.clone()]),
                Value::Array(list) => {
                    let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
                    texts.collect()
                }
                _ => None,
            };
            list.ok_or(value)
        })
    }

    /// Takes a field that changes nothing with one of `values`, and refuses others.
    pub(crate) fn without_effect(&mut self, name: &str, values: &[Value]) -> Result<(), ApiError> {
        match self.value(name) {
            Some(value) if !values.contains(&value) => {
                Err(ApiError::field(self.name(name), NOT_SUPPORTED))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the first field that was not taken.
    ///
    /// # Errors
    /// Its name.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        let mut rest = self.map.iter().filter(|(_, value)| !value.is_null());
        match rest.next() {
            Some((name, _)) => Err(ApiError::field(self.name(name), NOT_SUPPORTED)),
            None => Ok(()),
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        range: &str,
        read: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match read(value) {
            Ok(read) => Ok(Some(read)),
            Err(other) => Err(ApiError::field(self.name(name), expected(range, &other))),
        }
    }
}

const NOT_SUPPORTED: &str = "the field is not supported";

/// The problem of a `value` in place of a `range`.
pub(crate) fn expected(range: &str, value: &Value) -> String {
    format!("expected {range}, found {}", kind(value))
}

/// A value in an error: a number itself, of others the type.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Fields {
        Fields::of_body(value.to_string().as_bytes()).unwrap()
    }

    fn problem<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        let json: Value = serde_json::from_str(&result.unwrap_err().to_json()).unwrap();
        json["error"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn reads_each_type() {
        let all = json!({
            "a": 1.5, "b": 3, "c": "x", "d": ["x", "y"], "e": false, "f": null, "g": -1,
            "h": {"i": "k"}
        });
        let mut all = fields(&all);
        assert_eq!(all.number("a").unwrap(), Some(1.5));
        assert_eq!(all.count("b").unwrap(), Some(3));
        assert_eq!(all.string("c").unwrap().unwrap(), "x");
        assert_eq!(all.strings("d").unwrap().unwrap(), ["x", "y"]);
        assert_eq!(all.boolean("e").unwrap(), Some(false));
        assert_eq!(all.seed("g").unwrap(), Some(u64::MAX));
        let mut inner = all.object("h").unwrap().unwrap();
        assert_eq!(
            problem(inner.count("i")),
            "h.i: expected an integer of at least 0, found a string"
        );
        assert_eq!(all.string("f").unwrap(), None);
        all.finish().unwrap();
    }

    #[test]
    fn refuses_other_types_and_the_rest() {
        let all = json!({"a": "1", "b": -1, "c": 1, "d": [1], "e": [], "x": {}});
        let mut all = fields(&all);
        assert_eq!(
            problem(all.number("a")),
            "a: expected a number, found a string"
        );
        assert_eq!(
            problem(all.count("b")),
            "b: expected an integer of at least 0, found -1"
        );
        assert_eq!(
            problem(all.boolean("c")),
            "c: expected true or false, found 1"
        );
        let expected = "d: expected a string or a list of strings, found a list";
        assert_eq!(problem(all.strings("d")), expected);
        all.without_effect("e", &[json!([])]).unwrap();
        assert_eq!(problem(all.finish()), "x: the field is not supported");
        let error = Fields::of_body(b"[1]");
        let expected = "the body of the request: expected a JSON object, found a list";
        assert_eq!(problem(error), expected);
        problem(Fields::of_body(b"{\"a\":"));
        problem(Fields::of_body(&b"[".repeat(100_000)));
    }
}
