//! Methods of Python's `str`, where Rust's or minijinja's differ.

/// True for a character that Python's `str.isspace` accepts.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// `str.strip`, of white space or of the characters of `removed`.
pub(super) fn strip<'a>(text: &'a str, removed: Option<&str>) -> &'a str {
    lstrip(rstrip(text, removed), removed)
}

/// `str.lstrip`.
pub(super) fn lstrip<'a>(text: &'a str, removed: Option<&str>) -> &'a str {
    text.trim_start_matches(|character| is_removed(character, removed))
}

/// `str.rstrip`.
pub(super) fn rstrip<'a>(text: &'a str, removed: Option<&str>) -> &'a str {
    text.trim_end_matches(|character| is_removed(character, removed))
}

fn is_removed(character: char, removed: Option<&str>) -> bool {
    match removed {
        None => is_space(character),
        Some(removed) => removed.contains(character),
    }
}

/// `str.index`: the position of `part` in characters.
pub(super) fn index(text: &str, part: &str) -> Option<usize> {
    let at = text.find(part)?;
    Some(text.get(..at)?.chars().count())
}

/// `str.capitalize`: the first character in title case, the others in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    // The whole text, since a final sigma depends on the characters before it.
    let lower = text.to_lowercase();
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    let mut capitalized = title(first);
    capitalized.push_str(lower.get(skipped..).unwrap_or_default());
    capitalized
}

/// A character in title case.
fn title(character: char) -> String {
    let code = u32::from(character);
    let single = match character {
        // Digraphs: capital, title, small.
        'Ǆ'..='ǆ' => 'ǅ',
        'Ǉ'..='ǉ' => 'ǈ',
        'Ǌ'..='ǌ' => 'ǋ',
        'Ǳ'..='ǳ' => 'ǲ',
        // Georgian has capitals only for whole words.
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => character,
        // Greek with a small iota.
        '\u{1f80}'..='\u{1faf}' => char::from_u32(code | 8).unwrap_or(character),
        '\u{1fb3}' | '\u{1fbc}' => '\u{1fbc}',
        '\u{1fc3}' | '\u{1fcc}' => '\u{1fcc}',
        '\u{1ff3}' | '\u{1ffc}' => '\u{1ffc}',
        'ŉ' => return "ʼN".to_owned(),
        _ => {
            let mut upper = character.to_uppercase();
            let mut title: String = upper.next().into_iter().collect();
            for rest in upper {
                match rest {
                    'Ι' => title.push('\u{345}'),
                    _ => title.extend(rest.to_lowercase()),
                }
            }
            return title;
        }
    };
    single.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitalizes_as_python() {
        for (text, expected) in [
            ("", ""),
            ("the Man", "The man"),
            ("ßA", "Ssa"),
            ("ﬃX", "Ffix"),
            ("ǆA", "ǅa"),
            ("ŉA", "ʼNa"),
            ("აB", "აb"),
            ("ᾳA", "ᾼa"),
            ("\u{1fb4}A", "\u{386}\u{345}a"),
            ("\u{390}A", "\u{399}\u{308}\u{301}a"),
            ("ΑΣ", "Ας"),
            ("\u{130}X", "\u{130}x"),
            ("1ABC", "1abc"),
            (" A", " a"),
        ] {
            assert_eq!(capitalize(text), expected, "{text}");
        }
    }

    #[test]
    fn strips_as_python() {
        assert_eq!(strip("\u{1f}\u{a0} a \u{85}\u{1c}", None), "a");
        assert_eq!(strip("xyax", Some("xy")), "a");
        assert_eq!(lstrip(" a ", None), "a ");
        assert_eq!(index("é_b", "_"), Some(1));
        assert_eq!(index("é_b", "x"), None);
    }
}
