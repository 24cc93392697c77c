//! Keys of a row of the input that its row of the output copies, with their values as they are
//! written.

use std::collections::BTreeMap;

use serde_json::{json, value::RawValue};

use crate::output::without_controls;

/// The beginning of a line of the output: the `copied` keys with their values, and a comma.
pub(crate) fn line_start(copied: &[(String, String)]) -> String {
    let copied = copied.iter().map(|(key, value)| {
        let key = without_controls(&json!(key).to_string());
        format!("{key}:{value},")
    });
    format!("{{{}", copied.collect::<String>())
}

/// The values of a JSON object as they are written, without spaces between symbols: a number keeps
/// all its digits.
///
/// # Errors
/// For text that is not a JSON object.
pub(crate) fn written_values(object: &str) -> Result<BTreeMap<String, String>, String> {
    let values: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(object).map_err(|error| error.to_string())?;
    let values = values.into_iter();
    let values = values.map(|(key, value)| (key, without_controls(&without_spaces(value.get()))));
    Ok(values.collect())
}

/// JSON without spaces between symbols.
fn without_spaces(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keeps = |character: &char| {
        let is_quote = *character == '"' && !escaped;
        escaped = in_string && *character == '\\' && !escaped;
        in_string ^= is_quote;
        in_string || !character.is_ascii_whitespace()
    };
    json.chars().filter(keeps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_copied_as_they_are_written() {
        let row = "{ \"b\" :\t[1, 12345678901234567890123 ,\"a \\\" \\\\\"] , \"a\":1.10e2,\"c\":\"\u{7f}é\"}";
        let values = written_values(row).unwrap();
        let values: Vec<_> = values
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let expected = [
            ("a", "1.10e2"),
            ("b", "[1,12345678901234567890123,\"a \\\" \\\\\"]"),
            ("c", "\"\\u007fé\""),
        ];
        assert_eq!(values, expected);
    }
}
