//! Lines with the results of Python's ftfy, and whole texts.

use std::{env, fs};

use super::*;

/// Compares with rows of a text and ftfy's result.
fn compare(rows: &str) -> usize {
    let mut count = 0;
    for row in rows.lines() {
        let [text, expected]: [String; 2] = serde_json::from_str(row).unwrap();
        assert_eq!(fix_text(&text), expected, "{text:?}");
        count += 1;
    }
    count
}

/// `parity/clean_text.py` writes the rows.
#[test]
fn lines_are_repaired_as_by_ftfy() {
    assert_eq!(compare(include_str!("fixture.jsonl")), 300);
}

#[test]
#[ignore = "needs lines from Python: parity/clean_text.py"]
fn many_lines_are_repaired_as_by_ftfy() {
    let path = env::var_os("OPENELM_ODD_LINES").expect("the file of parity/clean_text.py");
    let count = compare(&fs::read_to_string(path).unwrap());
    println!("{count} lines without a difference");
}

/// Expected: `ftfy.fix_text` 6.2.3.
#[test]
fn entities_are_decoded_up_to_the_first_tag() {
    for (text, expected) in [
        ("a &amp; b\n<p>\nc &amp; d", "a & b\n<p>\nc &amp; d"),
        ("&lt;p&gt; &amp;amp;", "<p> &"),
        (
            "&#59; &#x80; &#0; &#xD800; &#1114112; &#x3;.",
            "&#59; € \u{FFFD} \u{FFFD} \u{FFFD} .",
        ),
        ("&EACUTE; &eacute &notin; &NOTIN;", "É &eacute ∉ ∉"),
    ] {
        assert_eq!(fix_text(text), expected);
    }
}

#[test]
fn unchanged_text_is_borrowed() {
    for text in [
        "",
        "plain\n",
        "naïve Ελλάδα\n日本語",
        "a < b &amp; c",
        "1 & 2",
    ] {
        assert!(matches!(fix_text(text), Cow::Borrowed(_)), "{text}");
    }
    let changed = "first\nsecond “line”\nthird";
    assert_eq!(fix_text(changed), "first\nsecond \"line\"\nthird");
}

#[test]
fn time_grows_with_the_length_alone() {
    // Each sequence follows a character that could be a part of a longer one.
    let text = "\u{A1}".to_owned() + &"Ã¡".repeat(200_000) + " ”“ x";
    fix_text(&text);
    let nested = "&".to_owned() + &"amp;".repeat(PASSES + 7) + " x";
    assert_eq!(fix_text(&nested), "&".to_owned() + &"amp;".repeat(7) + " x");
}

#[test]
fn long_lines_are_repaired_in_parts() {
    // Two parts of a million characters: the mojibake across their border stays, as in ftfy.
    let text = "a".repeat(SEGMENT - 1) + "Ã©" + &"é".repeat(2 * SEGMENT);
    assert_eq!(fix_text(&text).chars().count(), text.chars().count());
    let text = "a".repeat(SEGMENT + 5) + "Ã© b";
    assert_eq!(fix_text(&text), "a".repeat(SEGMENT + 5) + "é b");
}
