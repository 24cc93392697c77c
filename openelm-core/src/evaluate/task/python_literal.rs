//! Python's literals, as `ast.literal_eval` reads them: lm-eval passes lists through templates as
//! text.

use serde_json::{Map, Value as Json};

/// Deepest nesting of a literal.
const MAX_DEPTH: usize = 64;

/// The value of a literal: text, numbers, booleans, `None`, lists, tuples (as lists) and
/// dictionaries with keys of text.
///
/// # Errors
/// The position in characters of the first character that is not expected.
pub(super) fn parse(text: &str) -> Result<Json, String> {
    let mut parser = Parser {
        characters: text.chars().collect(),
        at: 0,
    };
    let value = parser.value(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.fault("expected the end")),
    }
}

struct Parser {
    characters: Vec<char>,
    at: usize,
}

impl Parser {
    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > MAX_DEPTH {
            return Err(self.fault(&format!("expected at most {MAX_DEPTH} nested lists")));
        }
        self.skip_space();
        match self.peek() {
            Some('[') => self.list(']', depth),
            Some('(') => self.tuple(depth),
            Some('{') => self.dictionary(depth),
            Some('\'' | '"') => self.texts(),
            Some('-' | '+' | '.' | '0'..='9') => self.number(),
            Some(character) if character.is_alphabetic() => self.word(),
            _ => Err(self.fault("expected a Python literal")),
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Result<Json, String> {
        Ok(Json::Array(self.items(end, depth)?.0))
    }

    /// A tuple as a list, or a value in parentheses.
    fn tuple(&mut self, depth: usize) -> Result<Json, String> {
        let (mut items, commas) = self.items(')', depth)?;
        match (items.len(), commas) {
            (1, 0) => Ok(items.remove(0)),
            _ => Ok(Json::Array(items)),
        }
    }

    /// Values up to `end`, and the number of commas.
    fn items(&mut self, end: char, depth: usize) -> Result<(Vec<Json>, usize), String> {
        self.at += 1;
        let (mut items, mut commas) = (Vec::new(), 0);
        loop {
            self.skip_space();
            if self.take(end) {
                return Ok((items, commas));
            }
            if items.len() != commas {
                return Err(self.fault(&format!("expected `,` or `{end}`")));
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(',') {
                commas += 1;
            }
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut entries = Map::new();
        loop {
            self.skip_space();
            if self.take('}') {
                return Ok(Json::Object(entries));
            }
            let Json::String(key) = self.value(depth + 1)? else {
                return Err(self.fault("expected a key of text"));
            };
            self.skip_space();
            if !self.take(':') {
                return Err(self.fault("expected `:`"));
            }
            let value = self.value(depth + 1)?;
            entries.insert(key, value);
            self.skip_space();
            if !self.take(',') && self.peek() != Some('}') {
                return Err(self.fault("expected `,` or `}`"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        while let Some(character) = self.peek() {
            let after_exponent = matches!(
                self.at
                    .checked_sub(1)
                    .and_then(|at| self.characters.get(at)),
                Some('e' | 'E')
            );
            let is_sign = matches!(character, '+' | '-') && (self.at == start || after_exponent);
            if !(is_sign || character.is_ascii_alphanumeric() || matches!(character, '.' | '_')) {
                break;
            }
            self.at += 1;
        }
        let written: String = self
            .characters
            .get(start..self.at)
            .into_iter()
            .flatten()
            .collect();
        let digits = written.replace('_', "");
        let unsigned = digits.trim_start_matches(['+', '-']);
        let is_padded = unsigned.len() > 1
            && unsigned.starts_with('0')
            && unsigned.bytes().all(|byte| byte.is_ascii_digit())
            && unsigned.bytes().any(|byte| byte != b'0');
        let number = match digits.parse::<i64>() {
            Ok(number) if !is_padded => Some(Json::from(number)),
            Ok(_) => None,
            Err(_)
                if unsigned
                    .bytes()
                    .any(|byte| byte.is_ascii_alphabetic() && byte != b'e' && byte != b'E') =>
            {
                None
            }
            Err(_) => digits.parse::<f64>().ok().map(Json::from),
        };
        number.ok_or_else(|| {
            self.at = start;
            self.fault("expected a number")
        })
    }

    fn word(&mut self) -> Result<Json, String> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        let word: String = self
            .characters
            .get(start..self.at)
            .into_iter()
            .flatten()
            .collect();
        match (word.as_str(), self.peek()) {
            ("True", _) => Ok(Json::Bool(true)),
            ("False", _) => Ok(Json::Bool(false)),
            ("None", _) => Ok(Json::Null),
            ("u" | "U" | "r" | "R", Some('\'' | '"')) => {
                self.at = start;
                self.texts()
            }
            _ => {
                self.at = start;
                Err(self.fault("expected a Python literal"))
            }
        }
    }

    /// Texts side by side are one text.
    fn texts(&mut self) -> Result<Json, String> {
        let mut text = String::new();
        loop {
            let is_raw = match (self.peek(), self.ahead(1)) {
                (Some('r' | 'R'), Some('\'' | '"')) => {
                    self.at += 1;
                    true
                }
                (Some('u' | 'U'), Some('\'' | '"')) => {
                    self.at += 1;
                    false
                }
                (Some('\'' | '"'), _) => false,
                _ => return Ok(Json::String(text)),
            };
            self.text(is_raw, &mut text)?;
            self.skip_space();
        }
    }

    fn text(&mut self, is_raw: bool, text: &mut String) -> Result<(), String> {
        let start = self.at;
        let Some(quote) = self.next() else {
            return Err(self.fault("expected a quotation mark"));
        };
        let is_long = self.peek() == Some(quote) && self.ahead(1) == Some(quote);
        if is_long {
            self.at += 2;
        }
        loop {
            match self.next() {
                Some(end) if end == quote => {
                    if !is_long {
                        return Ok(());
                    }
                    if self.peek() == Some(quote) && self.ahead(1) == Some(quote) {
                        self.at += 2;
                        return Ok(());
                    }
                    text.push(quote);
                }
                Some('\\') if is_raw => {
                    text.push('\\');
                    text.extend(self.next());
                }
                Some('\\') => self.escape(text)?,
                Some('\n') if !is_long => break,
                Some(character) => text.push(character),
                None => break,
            }
        }
        self.at = start;
        Err(self.fault("expected a text with an end"))
    }

    fn escape(&mut self, text: &mut String) -> Result<(), String> {
        let simple = match self.next() {
            Some('\n') => return Ok(()),
            Some(character @ ('\\' | '\'' | '"')) => character,
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some('x') => self.code(2)?,
            Some('u') => self.code(4)?,
            Some('U') => self.code(8)?,
            Some('N') => return Err(self.fault("a named character is not supported")),
            Some(octal @ '0'..='7') => {
                let mut code = octal.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                char::from_u32(code).ok_or_else(|| self.fault("expected a character"))?
            }
            Some(other) => {
                text.push('\\');
                other
            }
            None => return Err(self.fault("expected a text with an end")),
        };
        text.push(simple);
        Ok(())
    }

    /// The character with a code of `digits` hexadecimal digits.
    fn code(&mut self, digits: usize) -> Result<char, String> {
        let mut code = 0_u32;
        for _ in 0..digits {
            let digit = self.next().and_then(|character| character.to_digit(16));
            let Some(digit) = digit else {
                return Err(self.fault(&format!("expected {digits} hexadecimal digits")));
            };
            code = code.wrapping_mul(16) | digit;
        }
        char::from_u32(code).ok_or_else(|| self.fault("expected the code of a character"))
    }

    fn skip_space(&mut self) {
        while self
            .peek()
            .is_some_and(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}'))
        {
            self.at += 1;
        }
    }

    fn take(&mut self, character: char) -> bool {
        let is_next = self.peek() == Some(character);
        self.at += usize::from(is_next);
        is_next
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn peek(&self) -> Option<char> {
        self.ahead(0)
    }

    fn ahead(&self, distance: usize) -> Option<char> {
        self.characters.get(self.at + distance).copied()
    }

    fn fault(&self, problem: &str) -> String {
        let found = match self.peek() {
            Some(character) => format!("`{character}`"),
            None => "the end".to_owned(),
        };
        format!("character {}: {problem}, found {found}", self.at + 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_python_literals() {
        for (text, expected) in [
            (r#"['a', "b'c", 'd\'e']"#, json!(["a", "b'c", "d'e"])),
            (r"'\x41\u00e9\U0001F999\101\n\q\\'", json!("Aé🦙A\n\\q\\")),
            ("r'\\n'", json!("\\n")),
            ("'a' \"b\"", json!("ab")),
            ("'''a'\n''b'''", json!("a'\n''b")),
            ("(1, 2.5, -3,)", json!([1, 2.5, -3])),
            ("(7)", json!(7)),
            ("(7,)", json!([7])),
            ("[]", json!([])),
            ("[1,]", json!([1])),
            ("1_000", json!(1000)),
            ("1e3", json!(1000.0)),
            ("00", json!(0)),
            ("{'a': True, 'b': None}\n", json!({"a": true, "b": null})),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn rejects_other_text() {
        for (text, expected) in [
            ("", "character 1: expected a Python literal, found the end"),
            (
                "choices",
                "character 1: expected a Python literal, found `c`",
            ),
            ("['a' 1]", "character 6: expected `,` or `]`, found `1`"),
            ("['a", "character 2: expected a text with an end, found `'`"),
            ("[1] x", "character 5: expected the end, found `x`"),
            ("007", "character 1: expected a number, found `0`"),
            ("{1: 2}", "character 3: expected a key of text, found `:`"),
            (
                r"'\ud800'",
                "character 8: expected the code of a character, found `'`",
            ),
            (
                "[1,,2]",
                "character 4: expected a Python literal, found `,`",
            ),
            ("nan", "expected a Python literal"),
            ("inf", "expected a Python literal"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("nested"));
    }
}
