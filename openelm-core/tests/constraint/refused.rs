//! Constraints that are malformed, unsupported or too large: one error, soon.

use std::time::{Duration, Instant};

use openelm_core::{
    Error,
    constraint::{Constraint, ConstraintKind},
};

use super::{EOS, choice, regex, schema, tales};

/// The error of `kind`. The limit is a second; this build is not optimised.
fn problem(kind: &ConstraintKind) -> String {
    let tokenizer = tales();
    // The vocabulary is built once per tokenizer.
    Constraint::new(&tokenizer, &regex("a"), &[1], EOS).unwrap();
    let start = Instant::now();
    let error = Constraint::new(&tokenizer, kind, &[1], EOS).unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(
        matches!(&error, Error::Option { option, .. } if *option == kind.option()),
        "{error:?}"
    );
    error.to_string()
}

#[test]
fn an_unsupported_keyword_is_named_with_its_place() {
    for (text, expected) in [
        (r#"{"not": {}}"#, "#: the keyword `not` is not supported"),
        (
            r#"{"properties": {"a/b": {"items": {"uniqueItems": true}}}}"#,
            "#/properties/a~1b/items: the keyword `uniqueItems` is not supported",
        ),
        (
            r##"{"$ref": "#/$defs/a%20b", "$defs": {"a b": {"if": true}}}"##,
            "#/$defs/a b: the keyword `if` is not supported",
        ),
        (
            r#"{"minimun": 1}"#,
            "#: the keyword `minimun` is not supported",
        ),
        (
            r#"{"x-guidance": {"lenient": true}}"#,
            "#: the keyword `x-guidance` is not supported",
        ),
        (
            r#"{"type": "string", "format": "foo"}"#,
            "unknown format: foo",
        ),
        (r#"{"type": "strin"}"#, "invalid type: strin"),
        (
            r#"{"type": "string", "pattern": "(?=a)b"}"#,
            "the expression `(?=a)b`: look-around, including look-ahead and look-behind, is not \
             supported",
        ),
        (
            r#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#,
            "`oneOf` is supported only if no value is valid under two of its schemas; use `anyOf`",
        ),
    ] {
        assert_eq!(problem(&schema(text)), format!("json_schema: {expected}"));
    }
    // Annotations, extensions, and definitions that are not used.
    let text = r#"{"type": "null", "title": "t", "deprecated": true, "x-order": 1,
        "$defs": {"a": {"not": {}}}}"#;
    Constraint::new(&tales(), &schema(text), &[1], EOS).unwrap();
}

#[test]
fn a_malformed_schema_is_refused() {
    for (text, expected) in [
        ("", "EOF while parsing a value"),
        ("{", "EOF while parsing an object"),
        ("1", "#: expected a schema: an object or a boolean"),
        (r#"{"items": 1}"#, "#/items: expected a schema"),
        (
            r#"{"properties": []}"#,
            "#/properties: expected another type of value",
        ),
        (
            r#"{"multipleOf": 0}"#,
            "#/multipleOf: expected a number above 0",
        ),
        (
            r#"{"const": [9007199254740993]}"#,
            "#/const: expected a number that a double holds exactly, found 9007199254740993",
        ),
        ("false", "unsatisfiable schema"),
        (
            r#"{"type": "integer", "minimum": 5, "maximum": 3}"#,
            "minimum (5) is greater than maximum (3)",
        ),
        (
            r##"{"$ref": "#/$defs/a"}"##,
            "#/$ref: the schema has no `#/$defs/a`",
        ),
        (
            r#"{"$ref": "https://example.com/a"}"#,
            "#/$ref: expected a reference inside the schema, as in `#/$defs/name`, found \
             `https://example.com/a`",
        ),
    ] {
        let message = problem(&schema(text));
        assert!(
            message.starts_with("json_schema: ") && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn a_cycle_of_references_without_a_text_is_refused() {
    let nothing = "json_schema: no token of the vocabulary can continue the text";
    for (text, expected) in [
        (r##"{"$ref": "#"}"##, nothing),
        (
            r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##,
            nothing,
        ),
        (
            r##"{"allOf": [{"$ref": "#"}], "type": "object"}"##,
            "json_schema: circular references with sibling keys are not supported: \
             json-schema:///#",
        ),
    ] {
        assert_eq!(problem(&schema(text)), expected);
    }
}

/// A chain of `n` references.
fn chain(n: usize) -> String {
    let links = (0..n).map(|at| format!("\"d{at}\": {{\"$ref\": \"#/$defs/d{}\"}}, ", at + 1));
    let links: String = links.collect();
    format!("{{\"$ref\": \"#/$defs/d0\", \"$defs\": {{{links} \"d{n}\": {{\"type\": \"null\"}}}}}}")
}

#[test]
fn a_schema_bomb_is_one_error() {
    let nested = "{\"items\":".repeat(5_000) + "{}" + &"}".repeat(5_000);
    let properties = |n: usize| {
        let list: Vec<String> = (0..n).map(|at| format!("\"p{at}\": {{}}")).collect();
        format!("{{\"properties\": {{{}}}}}", list.join(", "))
    };
    let option = r#"{"anyOf": [{"required": ["a"]}, {"required": ["b"]}, {"required": ["c"]}]}"#;
    let product = format!("{{\"allOf\": [{}]}}", [option; 12].join(", "));
    for (text, expected) in [
        (
            nested,
            "expected at most 127 nested arrays and objects, found more",
        ),
        (chain(20_000), "nested at most 4096 deep, found more"),
        (
            properties(501),
            "#/properties: expected at most 500 properties, found 501",
        ),
        (product, "schema too large"),
        (
            format!("\"{}\"", "a".repeat(1 << 20)),
            "expected at most 1048576 bytes",
        ),
    ] {
        let message = problem(&schema(&text));
        assert!(message.contains(expected), "{message}");
    }
    // The deepest chain that is allowed does not overflow the stack.
    Constraint::new(&tales(), &schema(&chain(4_000)), &[1], EOS).unwrap();
    Constraint::new(&tales(), &schema(&properties(500)), &[1], EOS).unwrap();
}

#[test]
fn a_malformed_expression_or_grammar_is_refused() {
    let deep = "(".repeat(50_000) + "a" + &")*".repeat(50_000);
    let grammar = |text: &str| ConstraintKind::Grammar(text.to_owned());
    for (kind, expected) in [
        (regex("(a"), "regex: the expression `(a`: unclosed group"),
        (
            regex(r"(a)\1"),
            r"regex: the expression `(a)\1`: backreferences are not supported",
        ),
        (
            regex(&deep),
            "regex: byte 200: expected at most 200 nested brackets, found more",
        ),
        (
            regex(&"ab".repeat(200_000)),
            "regex: expected at most 262144 bytes, found 400000",
        ),
        (grammar(""), "grammar: no start rule found"),
        (
            grammar("start: foo"),
            "grammar: line 1, column 8: unknown name: \"foo\"",
        ),
        (
            grammar("start: start"),
            "grammar: no token of the vocabulary can continue the text",
        ),
        (
            choice(&[]),
            "choice: expected at least one string, none of them empty",
        ),
        (
            choice(&["a", ""]),
            "choice: expected at least one string, none of them empty",
        ),
    ] {
        assert_eq!(problem(&kind), expected);
    }
    for kind in [
        regex(&("a".to_owned() + &"*".repeat(100_000))),
        regex(&("(".repeat(190) + "a" + &")*".repeat(190))),
        grammar(&("start: \"a\"".to_owned() + &"?".repeat(60_000))),
    ] {
        let message = problem(&kind);
        assert!(message.len() < 400, "{message}");
    }
}

/// Every text is finite, and so is the work for each token.
#[test]
fn an_endless_expression_is_an_error_or_ends_with_the_limit() {
    let tokenizer = tales();
    for text in [
        "a*",
        "(a{1,1000}){1,1000}",
        "(.*a.{0,500}){40}",
        r"\p{L}{1000000}",
    ] {
        let start = Instant::now();
        let mut state = Constraint::new(&tokenizer, &regex(text), &[1], EOS).unwrap();
        for _ in 0..50 {
            let id = match state.mask() {
                Ok(mask) => mask.ids().pop().unwrap(),
                Err(error) => {
                    assert_eq!(error.to_string(), "regex: it is too complex");
                    break;
                }
            };
            state.accept(id).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{text}");
    }
}
