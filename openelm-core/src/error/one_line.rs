//! Text of other sources, made safe and short for one line of a terminal or a dialog.

/// Most characters of a value in quotes or backticks.
const VALUE: usize = 200;
/// Most characters of a word, such as a path.
const WORD: usize = 400;
/// Most bytes of a whole line.
const LINE: usize = 1_900;

/// `text` as one line that is safe to show: line breaks, terminal controls and invisible
/// characters (bidirectional controls, zero-width and format characters) become escapes such as
/// `\u{202e}`. The middle of a quoted value of more than 200 characters, of a word of more than 400,
/// and of a line of more than 1,900 bytes is left out.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE));
    let text = &short_numbers(text);
    let mut rest = text.as_str();
    while let Some(start) = rest.find(['`', '"']) {
        let (before, from_quote) = rest.split_at(start);
        let (quote, inner) = from_quote.split_at(1);
        let Some(end) = inner.find(quote) else {
            break;
        };
        let (value, after) = inner.split_at(end);
        line.push_str(before);
        line.push_str(quote);
        line.push_str(&shortened(value, VALUE));
        line.push_str(quote);
        rest = after.strip_prefix(quote).unwrap_or(after);
    }
    line.push_str(rest);
    let words = line.split_inclusive(' ');
    let line: String = words.map(|word| shortened(word, WORD)).collect();
    shortened_line(&escaped(&shortened_line(&line)))
}

/// `text` with numbers that Rust displays with more than 40 digits in scientific notation: `1e-300`.
fn short_numbers(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for part in text.split_inclusive([' ', '`', ',']) {
        let word = part.trim_end_matches([' ', '`', ',']);
        let is_long = (41..400).contains(&word.len());
        let number = word.parse::<f64>().ok().filter(|_| is_long);
        match number.filter(|number| number.to_string() == word) {
            Some(number) => {
                line.push_str(&format!("{number:e}"));
                line.push_str(part.strip_prefix(word).unwrap_or_default());
            }
            None => line.push_str(part),
        }
    }
    line
}

/// `text` without its middle if it has more than `most` characters.
fn shortened(text: &str, most: usize) -> String {
    // No character has less than one byte.
    if text.len() <= most {
        return text.to_owned();
    }
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let ends = most / 2;
    let head: String = text.chars().take(ends).collect();
    let tail: String = text.chars().skip(count - ends).collect();
    format!("{head}… ({count} characters) …{tail}")
}

/// `line` without its middle if it has more than [`LINE`] bytes.
fn shortened_line(line: &str) -> String {
    let bytes = line.len();
    if bytes <= LINE {
        return line.to_owned();
    }
    let (head, _) = line.split_at(line.floor_char_boundary(LINE / 2));
    let (_, tail) = line.split_at(line.ceil_char_boundary(bytes - LINE / 2));
    format!("{head}… ({bytes} bytes) …{tail}")
}

fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Characters without a glyph that change the order or the look of others: Unicode's format
/// characters without the visible ones, line and paragraph separators, and blank letters.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_line_cannot_show() {
        for (text, expected) in [
            ("plain `text`, für 猫 🐱", "plain `text`, für 猫 🐱"),
            ("a\r\nb\tc", r"a\r\nb\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}1m", r"\u{1b}[2J\u{7f}\u{9b}1m"),
            ("gpj.\u{202e}exe", r"gpj.\u{202e}exe"),
            (
                "\u{2066}\u{200f}\u{61c}\u{2029}",
                r"\u{2066}\u{200f}\u{61c}\u{2029}",
            ),
            ("a\u{200b}b\u{feff}c\u{ad}", r"a\u{200b}b\u{feff}c\u{ad}"),
            ("\u{e0041}\u{3164}", r"\u{e0041}\u{3164}"),
        ] {
            assert_eq!(one_line(text), expected);
            assert_eq!(one_line(expected), expected, "twice");
        }
    }

    #[test]
    fn shortens_numbers() {
        let expected = "found `1e-300`, from -2.5e200 to 0.001, not 1000000000000";
        let (tiny, huge) = (1e-300, -2.5e200);
        let text = format!("found `{tiny}`, from {huge} to 0.001, not {}", 1e12);
        assert_eq!(one_line(&text), expected);
        let name = "1".repeat(60);
        assert_eq!(one_line(&name), name);
    }

    #[test]
    fn shortens_each_quoted_value() {
        let long = "x".repeat(300_000);
        let half = "x".repeat(100);
        let short = format!("{half}… (300000 characters) …{half}");
        for quote in ['`', '"'] {
            let text = format!("a: token {quote}{long}{quote} and {quote}y{quote}: twice");
            let expected = format!("a: token {quote}{short}{quote} and {quote}y{quote}: twice");
            assert_eq!(one_line(&text), expected);
        }
        let whole = format!("`{}`", "é".repeat(200));
        assert_eq!(one_line(&whole), whole);
    }

    #[test]
    fn shortens_each_word() {
        let path = |length: usize| format!("{}é", "x/".repeat(length / 2));
        let (long, fits) = (path(4_000), path(398));
        let ends = (&long[..200], &long[long.len() - 201..]);
        let expected = format!("{fits} {}… (4001 characters) …{}", ends.0, ends.1);
        assert_eq!(one_line(&format!("{fits} {long}")), expected);
        let unknown = format!("unexpected argument '--{}' found", "x".repeat(100_000));
        assert!(one_line(&unknown).len() < 500);
    }

    #[test]
    fn shortens_a_line_without_quotes() {
        let escapes = "\u{1b}".repeat(300_000);
        for long in ["ab ".repeat(100_000), "`🦙 ".repeat(150_001), escapes] {
            let text = format!("invalid value '{long}' for '--seed <N>': expected a number");
            let line = one_line(&text);
            assert!(line.len() < 2_000, "{}", line.len());
            assert!(line.starts_with("invalid value '"), "{line}");
            assert!(
                line.ends_with("for '--seed <N>': expected a number"),
                "{line}"
            );
        }
    }
}
