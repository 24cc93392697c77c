//! Checks of a JSON schema before the library compiles it: every keyword has an effect, and the
//! recursion over it is limited.

use std::collections::HashSet;

use serde_json::{Map, Number, Value, json};

use crate::json;

/// Deepest nesting, summed over the schema and the targets of its references: the library's
/// recursion follows both.
const MAX_DEPTH: usize = 4_096;
/// Most properties of an object, and of all objects: the time of the library grows with the square
/// of the former.
const MAX_PROPERTIES: usize = 500;
const MAX_ALL_PROPERTIES: usize = 4_000;
/// Limits of formats, for the library allows 29 February in every year, and a leap second in every
/// minute.
const FORMATS: [(&str, &[&str]); 3] = [
    ("date", &[LEAP_DAYS]),
    ("date-time", &[LEAP_DAYS, "[Tt][0-9]{2}:[0-9]{2}:[0-5]"]),
    ("time", &["^[0-9]{2}:[0-9]{2}:[0-5]"]),
];
const LEAP_DAYS: &str = concat!(
    "^(?:[0-9]{4}-(?:0[13-9]|1[0-2]|02-(?:[01][0-9]|2[0-8]))",
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
);
/// The characters between two symbols of JSON; the library allows it at most once. Its default,
/// any white space, lets a model write line breaks to the end of its limit.
const SPACE: &str = " ";

/// Keywords with a value that is not a schema.
const PLAIN: [&str; 16] = [
    "type",
    "const",
    "enum",
    "required",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
];
/// Keywords without an effect on validity.
const ANNOTATIONS: [&str; 16] = [
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "id",
    "readOnly",
    "title",
    "writeOnly",
];

/// Reads the schema in `text` for the library.
///
/// # Errors
/// The place and the problem: text that is not JSON, a keyword that is not supported, a reference
/// outside the schema or to nothing, a number that is not exact, or too deep a nesting.
pub(super) fn prepare(text: &str) -> Result<Value, String> {
    json::check_depth(text.as_bytes())?;
    let mut schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut check = Check {
        root: &schema,
        targets: Vec::new(),
        seen: HashSet::new(),
        depth: 0,
        properties: 0,
        deprecated: Vec::new(),
        dates: Vec::new(),
    };
    check.target("");
    while let Some(target) = check.targets.pop() {
        let depth = check.schema(&target)?;
        check.depth += depth;
        if check.depth > MAX_DEPTH {
            return Err(format!(
                "expected schemas and references nested at most {MAX_DEPTH} deep, found more"
            ));
        }
    }
    let Check {
        deprecated, dates, ..
    } = check;
    for place in deprecated {
        let object = schema.pointer_mut(&place).and_then(Value::as_object_mut);
        object.and_then(|object| object.remove("deprecated"));
    }
    for (place, patterns) in dates {
        let object = schema.pointer_mut(&place).and_then(Value::as_object_mut);
        let all = object.map(|object| object.entry("allOf").or_insert_with(|| json!([])));
        if let Some(all) = all.and_then(Value::as_array_mut) {
            all.extend(patterns.iter().map(|pattern| json!({ "pattern": pattern })));
        }
    }
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Some(object) = schema.as_object_mut() {
        let options = json!({ "whitespace_pattern": SPACE });
        object.insert("x-guidance".to_owned(), options);
    }
    Ok(schema)
}

struct Check<'a> {
    root: &'a Value,
    /// JSON pointers of the root and of targets of references, which are not checked yet.
    targets: Vec<String>,
    seen: HashSet<String>,
    depth: usize,
    properties: usize,
    /// Schemas of dates and times, and patterns for them.
    dates: Vec<(String, &'static [&'static str])>,
    /// Schemas with the annotation that the library refuses.
    deprecated: Vec<String>,
}

impl Check<'_> {
    fn target(&mut self, pointer: &str) {
        if self.seen.insert(pointer.to_owned()) {
            self.targets.push(pointer.to_owned());
        }
    }

    /// Checks the schema at `place`, a JSON pointer. Returns its depth.
    fn schema(&mut self, place: &str) -> Result<usize, String> {
        let root = self.root;
        let schema = match root.pointer(place) {
            Some(Value::Object(schema)) => schema,
            Some(Value::Bool(_)) => return Ok(1),
            _ => {
                return Err(format!(
                    "#{place}: expected a schema: an object or a boolean"
                ));
            }
        };
        let mut depth = 0;
        for (keyword, value) in schema {
            let here = format!("{place}/{}", escaped(keyword));
            match (keyword.as_str(), value) {
                ("properties" | "patternProperties", Value::Object(schemas)) => {
                    depth = depth.max(self.members(&here, schemas)?);
                }
                ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(schemas)) => {
                    for at in 0..schemas.len() {
                        depth = depth.max(self.schema(&format!("{here}/{at}"))?);
                    }
                }
                ("items" | "additionalItems" | "additionalProperties", _) => {
                    depth = depth.max(self.schema(&here)?);
                }
                ("$ref", Value::String(target)) => self.reference(&here, target)?,
                ("multipleOf", Value::Number(number)) if number.as_f64() > Some(0.0) => {}
                ("multipleOf", _) => return Err(format!("#{here}: expected a number above 0")),
                ("deprecated", _) => self.deprecated.push(place.to_owned()),
                ("format", Value::String(format)) => {
                    let limited = FORMATS.iter().find(|(name, _)| name == format);
                    let limited = limited.map(|(_, patterns)| (place.to_owned(), *patterns));
                    self.dates.extend(limited);
                }
                (keyword, value) if PLAIN.contains(&keyword) => exact(&here, value)?,
                (keyword, _) if ANNOTATIONS.contains(&keyword) => {}
                // Extensions of other programs; this one is the library's own.
                (keyword, _) if keyword.starts_with("x-") && keyword != "x-guidance" => {}
                (
                    "properties" | "patternProperties" | "anyOf" | "oneOf" | "allOf"
                    | "prefixItems" | "$ref",
                    _,
                ) => return Err(format!("#{here}: expected another type of value")),
                (keyword, _) => {
                    return Err(format!(
                        "#{place}: the keyword `{keyword}` is not supported"
                    ));
                }
            }
        }
        Ok(depth + 1)
    }

    fn members(&mut self, place: &str, schemas: &Map<String, Value>) -> Result<usize, String> {
        let found = schemas.len();
        self.properties += found;
        if found > MAX_PROPERTIES {
            return Err(format!(
                "#{place}: expected at most {MAX_PROPERTIES} properties, found {found}"
            ));
        }
        if self.properties > MAX_ALL_PROPERTIES {
            return Err(format!(
                "#{place}: expected at most {MAX_ALL_PROPERTIES} properties in total, found more"
            ));
        }
        let mut depth = 0;
        for name in schemas.keys() {
            depth = depth.max(self.schema(&format!("{place}/{}", escaped(name)))?);
        }
        Ok(depth)
    }

    fn reference(&mut self, here: &str, target: &str) -> Result<(), String> {
        let pointer = target.strip_prefix('#').and_then(decoded);
        let pointer = pointer.filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let Some(pointer) = pointer else {
            return Err(format!(
                "#{here}: expected a reference inside the schema, as in `#/$defs/name`, \
                 found `{target}`"
            ));
        };
        if self.root.pointer(&pointer).is_none() {
            return Err(format!("#{here}: the schema has no `{target}`"));
        }
        self.target(&pointer);
        Ok(())
    }
}

/// Refuses numbers that a double does not hold exactly: the library would change them.
fn exact(place: &str, value: &Value) -> Result<(), String> {
    let is_exact = |number: &Number| {
        let integer = number.as_i64().map(i128::from);
        let integer = integer.or_else(|| number.as_u64().map(i128::from));
        integer.is_none_or(|integer| integer as f64 as i128 == integer)
    };
    match value {
        Value::Number(number) if !is_exact(number) => Err(format!(
            "#{place}: expected a number that a double holds exactly, found {number}"
        )),
        Value::Array(list) => list.iter().try_for_each(|value| exact(place, value)),
        Value::Object(map) => map.values().try_for_each(|value| exact(place, value)),
        _ => Ok(()),
    }
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A URI fragment without percent-encoding.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut parts = fragment.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        bytes.push(byte);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
