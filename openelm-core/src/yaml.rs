//! YAML of other programs, as JSON's values.

use serde_json::Value;

use crate::caught;

/// The cause of a failure, and its line, from 1.
pub(crate) struct YamlError {
    pub(crate) line: Option<usize>,
    pub(crate) problem: String,
}

/// Parses `text`: anchors are expanded, and only `true` and `false` are booleans.
///
/// # Errors
/// The first problem in one line.
pub(crate) fn parse(text: &str) -> Result<Value, YamlError> {
    let options = serde_saphyr::options! {
        reject_unsupported_tags: true,
        // `yes` and `no` are choices of answers.
        strict_booleans: true,
        with_snippet: false,
    };
    let value = caught::catch(|| serde_saphyr::from_str_with_options(text, options));
    let value = value.ok_or_else(|| YamlError {
        line: None,
        problem: "malformed".into(),
    })?;
    value.map_err(|error| {
        let line = error.location().map(|location| location.line());
        let problem = error.without_snippet().to_string();
        // Advice on options of the library, and the place again.
        let text = problem.lines().next().unwrap_or_default();
        let text = text.split(", set ").next().unwrap_or_default();
        let text = text.split(" at line ").next().unwrap_or_default();
        YamlError {
            line: line.and_then(|line| usize::try_from(line).ok()),
            problem: text.to_owned(),
        }
    })
}

/// Parses YAML as values of JSON: anchors are expanded, and only `true` and `false` are booleans.
///
/// # Errors
/// The first problem, with its line.
pub fn parse_yaml(text: &str) -> Result<Value, String> {
    parse(text).map_err(|error| match error.line {
        Some(line) => format!("line {line}: {}", error.problem),
        None => error.problem,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn anchors_are_expanded_and_errors_have_lines() {
        let text = "a: &a 32128\nb: {c: *a, d: [1.5, yes]}\n";
        let expected = json!({ "a": 32128, "b": { "c": 32128, "d": [1.5, "yes"] } });
        assert_eq!(parse_yaml(text).unwrap(), expected);
        let problem = parse_yaml("a: 1\nb: [\n").unwrap_err();
        assert!(
            problem.starts_with("line ") && !problem.contains('\n'),
            "{problem}"
        );
        assert!(parse_yaml("a: 1\na: 2\n").is_err());
    }
}
