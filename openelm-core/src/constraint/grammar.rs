//! The library's grammar of a constraint.

use llguidance::api::TopLevelGrammar;

use super::{json_schema, kind::ConstraintKind};

/// Longest schema in bytes.
const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Longest regular expression or list of choices in bytes: larger ones take more than a second.
const MAX_BYTES: usize = 1 << 18;
/// Longest grammar in bytes: the time grows with the square of its alternatives.
const MAX_GRAMMAR_BYTES: usize = 1 << 16;
/// Deepest nesting of brackets in a grammar.
const MAX_NESTING: usize = 200;

/// The grammar of `kind`, or the problem.
pub(super) fn of(kind: &ConstraintKind) -> Result<TopLevelGrammar, String> {
    let limit = match kind {
        ConstraintKind::JsonSchema(_) => MAX_SCHEMA_BYTES,
        ConstraintKind::Grammar(_) => MAX_GRAMMAR_BYTES,
        ConstraintKind::Regex(_) | ConstraintKind::Choice(_) => MAX_BYTES,
    };
    let bytes = kind.bytes();
    if bytes > limit {
        return Err(format!("expected at most {limit} bytes, found {bytes}"));
    }
    match kind {
        ConstraintKind::JsonSchema(text) => {
            json_schema::prepare(text).map(TopLevelGrammar::from_json_schema)
        }
        ConstraintKind::Regex(text) => {
            check_nesting(text)?;
            Ok(TopLevelGrammar::from_regex(text))
        }
        ConstraintKind::Grammar(text) => {
            check_nesting(text)?;
            Ok(TopLevelGrammar::from_lark(text.clone()))
        }
        ConstraintKind::Choice(choices) => {
            if choices.is_empty() || choices.iter().any(String::is_empty) {
                return Err("expected at least one string, none of them empty".into());
            }
            let choices: Vec<String> = choices.iter().map(|text| regex::escape(text)).collect();
            Ok(TopLevelGrammar::from_regex(&choices.join("|")))
        }
    }
}

/// The library's message as part of an error, without its options, which callers cannot set, and
/// without its excerpts.
pub(super) fn problem(message: &str) -> String {
    let has = |part: &str| message.contains(part);
    if has("coerce_one_of") {
        return "`oneOf` is supported only if no value is valid under two of its schemas; use \
                `anyOf`"
            .to_owned();
    }
    if has("NoExtension") {
        return "no token of the vocabulary can continue the text".to_owned();
    }
    if ["TooComplex", "lexer error", "Current row has", "fuel"]
        .iter()
        .any(|part| has(part))
    {
        return "it is too complex".to_owned();
    }
    if has("panic: ") {
        return "it is too large".to_owned();
    }
    if let Some((_, report)) = message.split_once("regex parse error:") {
        return regex_problem(report);
    }
    let message = message.split("\n<").next().unwrap_or_default();
    // An excerpt of a grammar follows in lines with a margin.
    let message = message.split("\n   1 |").next().unwrap_or_default().trim();
    let message = message.strip_prefix("at ").unwrap_or(message);
    let (place, message) = match message.split_once("): ") {
        Some((place, rest)) => (grammar_place(place), rest),
        None => (None, message),
    };
    let mut letters = message.chars();
    let lower = letters.next().map(char::to_lowercase).into_iter().flatten();
    let message: String = lower.chain(letters).collect();
    place.unwrap_or_default() + &message
}

/// `line 2, column 5: ` of `2(5`.
fn grammar_place(place: &str) -> Option<String> {
    let (line, column) = place.split_once('(')?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.parse().ok()?);
    Some(format!("line {line}, column {column}: "))
}

/// The expression and the problem of a report of the crate `regex-syntax`: the expression and a
/// marker below it, then `error: ` and the problem.
fn regex_problem(report: &str) -> String {
    let mut lines = report
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let expression: String = lines.next().unwrap_or_default().chars().take(60).collect();
    let problem = lines.find_map(|line| line.strip_prefix("error: "));
    let problem = problem.unwrap_or("it is malformed");
    format!("the expression `{expression}`: {problem}")
}

/// Limits the recursion of the library's parsers.
fn check_nesting(text: &str) -> Result<(), String> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(format!(
                "byte {at}: expected at most {MAX_NESTING} nested brackets, found more"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_library_become_one_line() {
        for (message, expected) in [
            ("Unknown format: foo\n<non-verbose/>", "unknown format: foo"),
            (
                "at 1(8): unknown name: \"foo\"\n   1 | start: foo\n              ^",
                "line 1, column 8: unknown name: \"foo\"",
            ),
            (
                "2(5): Expected value (at \"~\" ('~'))\n   1 | a",
                "line 2, column 5: expected value (at \"~\" ('~'))",
            ),
            (
                "at 1(8): invalid regex \"(a\" (in regex): regex parse error:\n    (a\n    ^\n\
                 error: unclosed group\n   1 | start: /(a/",
                "the expression `(a`: unclosed group",
            ),
            ("panic: assertion failed\n<backtrace>", "it is too large"),
            (
                "lexer error: too many expressions constructed",
                "it is too complex",
            ),
        ] {
            assert_eq!(problem(message), expected);
        }
    }
}
