//! Texts under schemas. `parity/constraints.py` validates many more with an independent validator.

use serde_json::Value;

use super::{drawn, schema, tales};

/// A text of each seed that ends, as JSON.
fn values(text: &str) -> Vec<Value> {
    let tokenizer = tales();
    let prompt = tokenizer.encode_prompt("Once").unwrap();
    let texts = (0..40).filter_map(|seed| drawn(&tokenizer, &schema(text), &prompt, seed, 150));
    let values: Vec<Value> = texts
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect();
    assert!(values.len() > 5, "{} texts end", values.len());
    values
}

#[test]
fn objects_have_their_members_in_the_order_of_the_schema() {
    let schema = r#"{"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "kind": {"enum": ["fox", "é"]}},
        "required": ["name", "age"], "additionalProperties": false}"#;
    for value in values(schema) {
        let object = value.as_object().unwrap();
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        assert!(
            keys == ["name", "age"] || keys == ["name", "age", "kind"],
            "{keys:?}"
        );
        assert!(object["name"].as_str().unwrap().chars().count() <= 12);
        assert!((18..=99).contains(&object["age"].as_i64().unwrap()));
        assert!(matches!(
            object.get("kind").and_then(Value::as_str),
            None | Some("fox" | "é")
        ));
    }
}

#[test]
fn arrays_numbers_and_references_stay_in_their_bounds() {
    let schema = r##"{"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/n"},
        "$defs": {"n": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2}}}"##;
    for value in values(schema) {
        let list = value.as_array().unwrap();
        assert!((1..=3).contains(&list.len()));
        for number in list {
            assert!((-1.5..2.0).contains(&number.as_f64().unwrap()), "{number}");
        }
    }
}

#[test]
fn dates_exist() {
    let is_leap = |year: u32| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days = |year: u32, month| match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // Days at the end of February are likely.
    let schema = r#"{"type": "string", "format": "date", "pattern": "-02-2[89]$"}"#;
    for value in values(schema) {
        let parts: Vec<u32> = value
            .as_str()
            .unwrap()
            .split('-')
            .map(|part| part.parse().unwrap())
            .collect();
        assert!(parts[2] <= days(parts[0], parts[1]), "{value}");
    }
}

#[test]
fn times_have_no_leap_second() {
    // The library's own format allows `:60` in every minute.
    let schema = r#"{"type": "string", "format": "time", "pattern": ":[56]0Z$"}"#;
    for value in values(schema) {
        assert!(value.as_str().unwrap().ends_with(":50Z"), "{value}");
    }
}

#[test]
fn white_space_is_at_most_one_space() {
    let tokenizer = tales();
    let prompt = tokenizer.encode_prompt("Once").unwrap();
    let kind = schema(r#"{"type": "array", "items": {"type": "integer"}, "maxItems": 4}"#);
    for seed in 0..40 {
        if let Some(text) = drawn(&tokenizer, &kind, &prompt, seed, 150) {
            assert!(!text.contains("  ") && !text.contains('\n'), "{text:?}");
            assert_eq!(text.trim(), text);
        }
    }
}
