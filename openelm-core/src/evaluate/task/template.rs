//! Templates in Jinja, as lm-eval renders them, with a few filters in place of its functions in
//! Python.
//!
//! | filter | value |
//! |---|---|
//! | `regex_replace(pattern, text)` | as lm-eval's, in the syntax of the crate `regex` |
//! | `trim`, `capitalize` | Python's `str.strip` and `str.capitalize` |
//! | `python_literal` | Python's `ast.literal_eval` |
//! | `llm_adapters_choices` | answers of an instruction of LLM-Adapters, see [`answers`] |

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use minijinja::{
    Environment, Error as JinjaError, ErrorKind, Output, State, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Value, ValueKind},
};
use minijinja_contrib::pycompat;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value as Json};

use super::{
    python_literal, python_repr,
    python_text::{self, capitalize, strip},
};
use crate::caught;

/// Work of a rendering, see [`Environment::set_fuel`]: about 64 MB of text.
const FUEL: u64 = 1_000_000;
/// Largest template in bytes.
const MAX_TEMPLATE: usize = 1 << 20;
/// Largest compiled regular expression in bytes.
const MAX_REGEX: usize = 1 << 20;
/// Largest number of regular expressions that are kept.
const MAX_REGEXES: usize = 64;

/// The templates of a task, by key.
#[derive(Debug)]
pub(super) struct Templates(Environment<'static>);

/// A failed rendering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Columns of the template that the document does not have.
    MissingColumns(Vec<String>),
    /// Another problem, with the line of the template.
    Problem(String),
}

impl Templates {
    /// No templates.
    #[expect(clippy::expect_used, reason = "the delimiters are the default ones")]
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the default delimiters are valid"));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(write);
        environment.set_unknown_method_callback(method);
        let regexes = Mutex::default();
        environment.add_filter(
            "regex_replace",
            move |text: String, pattern: String, replacement: String| {
                regex_replace(&regexes, &text, &pattern, &replacement)
            },
        );
        environment.add_filter("trim", |text: String, removed: Option<String>| {
            strip(&text, removed.as_deref()).to_owned()
        });
        environment.add_filter("capitalize", |text: String| capitalize(&text));
        environment.add_filter("python_literal", |text: String| {
            let literal = python_literal::parse(&text);
            literal.map(|value| to_value(&value)).map_err(invalid)
        });
        environment.add_filter("llm_adapters_choices", |instruction: String| {
            answers(&instruction).map_err(invalid)
        });
        Self(environment)
    }

    /// Compiles the template of `key`.
    ///
    /// # Errors
    /// A mistake of syntax, with its line.
    pub(super) fn add(&mut self, key: &'static str, template: &str) -> Result<(), String> {
        if template.len() > MAX_TEMPLATE {
            return Err(format!(
                "expected at most {MAX_TEMPLATE} bytes, found {}",
                template.len()
            ));
        }
        caught::catch(|| self.0.add_template_owned(key, template.to_owned()))
            .unwrap_or_else(|| Err(invalid("malformed")))
            .map_err(|error| text(&error))
    }

    /// Renders the template of `key` with the columns of `document`.
    pub(super) fn render(&self, key: &str, document: &Document) -> Result<String, Fault> {
        let render = || -> Result<String, JinjaError> {
            self.0.get_template(key)?.render(document.value.clone())
        };
        let rendered = caught::catch(render).unwrap_or_else(|| Err(invalid("malformed")));
        rendered.map_err(|error| {
            if error.kind() == ErrorKind::UndefinedError {
                let missing = self.missing(key, document);
                if !missing.is_empty() {
                    return Fault::MissingColumns(missing);
                }
            }
            Fault::Problem(text(&error))
        })
    }

    /// Columns of the template of `key` that `document` does not have.
    fn missing(&self, key: &str, document: &Document) -> Vec<String> {
        let Ok(template) = self.0.get_template(key) else {
            return Vec::new();
        };
        let names = template.undeclared_variables(false).into_iter();
        let mut missing: Vec<_> = names
            .filter(|name| !document.columns.contains_key(name))
            .filter(|name| self.0.globals().all(|(global, _)| global != name))
            .collect();
        missing.sort_unstable();
        missing
    }
}

/// A document: a row of a data set.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) columns: Map<String, Json>,
    value: Value,
}

impl Document {
    pub(super) fn new(columns: Map<String, Json>) -> Self {
        let pairs = columns.iter();
        let pairs = pairs.map(|(key, value)| (key.clone(), to_value(value)));
        Self {
            value: Value::from_pairs(pairs),
            columns,
        }
    }
}

fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(to_value).collect::<Vec<_>>().into(),
        Json::Object(entries) => {
            let pairs = entries.iter();
            Value::from_pairs(pairs.map(|(key, value)| (key.clone(), to_value(value))))
        }
    }
}

/// Writes a value as Python's `str`.
fn write(out: &mut Output, _: &mut State, value: &Value) -> Result<(), JinjaError> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => match python_repr::text_of(value) {
            Some(text) => out.write_str(&text),
            None => return Err(ErrorKind::UndefinedError.into()),
        },
    };
    written.map_err(|_| ErrorKind::WriteFailure.into())
}

/// Methods of Python that minijinja's values lack.
fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, JinjaError> {
    if let Some(text) = value.as_str() {
        let removed = || match args {
            [] => Ok(None),
            [removed] if removed.is_none() => Ok(None),
            [removed] => removed
                .as_str()
                .map(Some)
                .ok_or_else(|| invalid("expected text")),
            _ => Err(ErrorKind::TooManyArguments.into()),
        };
        match (name, args) {
            ("strip", _) => return Ok(strip(text, removed()?).into()),
            ("lstrip", _) => return Ok(python_text::lstrip(text, removed()?).into()),
            ("rstrip", _) => return Ok(python_text::rstrip(text, removed()?).into()),
            ("capitalize", []) => return Ok(capitalize(text).into()),
            ("index", [part]) => {
                let part = part.as_str().ok_or_else(|| invalid("expected text"))?;
                let at = python_text::index(text, part);
                return at
                    .map(Value::from)
                    .ok_or_else(|| absent(&part.into(), "text"));
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Seq
        && let ("index", [item]) = (name, args)
    {
        let at = value.try_iter()?.position(|other| other == *item);
        return at.map(Value::from).ok_or_else(|| absent(item, "list"));
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn absent(item: &Value, place: &str) -> JinjaError {
    invalid(format!("{item:?} is not in the {place}"))
}

fn regex_replace(
    regexes: &Mutex<HashMap<String, Regex>>,
    text: &str,
    pattern: &str,
    replacement: &str,
) -> Result<String, JinjaError> {
    let mut regexes = regexes.lock().unwrap_or_else(PoisonError::into_inner);
    if !regexes.contains_key(pattern) {
        let regex = RegexBuilder::new(pattern).size_limit(MAX_REGEX).build();
        let regex = regex.map_err(|error| {
            let error = error.to_string();
            invalid(format!(
                "`{pattern}`: {}",
                error.lines().last().unwrap_or_default()
            ))
        })?;
        if regexes.len() >= MAX_REGEXES {
            regexes.clear();
        }
        regexes.insert(pattern.to_owned(), regex);
    }
    let Some(regex) = regexes.get(pattern) else {
        return Err(invalid("the regular expression is missing"));
    };
    let replacement = replacement_of(replacement);
    Ok(regex.replace_all(text, replacement.as_str()).into_owned())
}

/// Python's replacement (`\1`, `\g<name>`) in the syntax of `regex`.
fn replacement_of(text: &str) -> String {
    let mut replacement = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek().copied()) {
            ('$', _) => replacement.push_str("$$"),
            ('\\', Some('n')) => {
                characters.next();
                replacement.push('\n');
            }
            ('\\', Some('t')) => {
                characters.next();
                replacement.push('\t');
            }
            ('\\', Some('g')) => {
                characters.next();
                let name: String = characters.by_ref().take_while(|c| *c != '>').collect();
                replacement.push_str(&format!("${{{}}}", name.trim_start_matches('<')));
            }
            ('\\', Some(digit @ '0'..='9')) => {
                characters.next();
                let mut group = digit.to_string();
                if let Some(second) = characters.next_if(char::is_ascii_digit) {
                    group.push(second);
                }
                replacement.push_str(&format!("${{{group}}}"));
            }
            ('\\', Some('\\')) => {
                characters.next();
                replacement.push('\\');
            }
            _ => replacement.push(character),
        }
    }
    replacement
}

/// The answers of an instruction of LLM-Adapters as CoreNet scores them, by the end of its last
/// line: `the correct answer is true` for `Answer format: true/false`, `the correct answer is
/// ending1` for `Answer format: ending1/ending2/…`.
fn answers(instruction: &str) -> Result<Vec<String>, String> {
    const FORMAT: &str = "Answer format: ";
    let last = instruction.rsplit('\n').next().unwrap_or_default();
    let sentence = |answer: &str| format!("the correct answer is {answer}");
    let Some((_, format)) = last.split_once(FORMAT) else {
        return Err(format!(
            "expected `{FORMAT}` in the last line, found `{last}`"
        ));
    };
    if last.contains("Answer format: true/false") {
        return Ok(vec![sentence("true"), sentence("false")]);
    }
    let count = format.chars().last().and_then(|digit| digit.to_digit(10));
    for word in ["answer", "ending", "option", "solution"] {
        if let Some(count) = count
            && format.ends_with(&format!("{word}{count}"))
        {
            return Ok((1..=count)
                .map(|number| sentence(&format!("{word}{number}")))
                .collect());
        }
    }
    Err(format!(
        "expected true/false or answer1/…, ending1/…, option1/…, solution1/…, found `{format}`"
    ))
}

fn invalid(problem: impl Into<String>) -> JinjaError {
    JinjaError::new(ErrorKind::InvalidOperation, problem.into())
}

/// The problem with its line.
fn text(error: &JinjaError) -> String {
    let line = error
        .line()
        .map_or_else(String::new, |line| format!("line {line}: "));
    match error.detail() {
        Some(detail) => format!("{line}{}: {detail}", error.kind()),
        None => format!("{line}{}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str, document: &Json) -> Result<String, Fault> {
        let mut templates = Templates::new();
        templates
            .add("doc_to_text", template)
            .map_err(Fault::Problem)?;
        let columns = document.as_object().unwrap().clone();
        templates.render("doc_to_text", &Document::new(columns))
    }

    /// Expected texts of Jinja2 with lm-eval's settings.
    #[test]
    fn renders_as_jinja() {
        let document = json!({
            "a": " x\u{1f}", "b": ["c'd", "e"], "n": 7, "f": 1.0, "t": true, "o": null,
            "d": {"text": ["p", "q"], "label": ["1", "2"]}, "s": "a_b",
        });
        for (template, expected) in [
            (
                "{{a}}|{{n}}|{{f}}|{{t}}|{{o}}\n",
                " x\u{1f}|7|1.0|True|None\n",
            ),
            ("{{a.strip()}}{{a.lstrip()}}{{a|trim}}", "xx\u{1f}x"),
            ("{{b}}", "[\"c'd\", 'e']"),
            ("{{d}}", "{'text': ['p', 'q'], 'label': ['1', '2']}"),
            ("{{d.label.index('2')}}{{d.text[-1]}}", "1q"),
            ("{{[a, n]}}", "[' x\\x1f', 7]"),
            ("{{s[s.index('_') + 1:]}}{{s[:1] + 'z'}}", "baz"),
            ("{% set x = 'y' %}{{x + '\\n' + s}}", "y\na_b"),
            ("{{ (n|int) - 8 }}", "-1"),
            (
                "{{ 'a-b' | regex_replace('(.)-(.)', '\\\\2$\\\\1') }}",
                "b$a",
            ),
            ("{{ 'xY Z'.capitalize() }}", "Xy z"),
            ("{% for i in b %}{{loop.index}}{{i}}{% endfor %}", "1c'd2e"),
            ("{{ \"['u', 1]\" | python_literal }}", "['u', 1]"),
            ("{{ 'abc'.split('b')[-1] }}", "c"),
        ] {
            assert_eq!(
                render(template, &document).as_deref(),
                Ok(expected),
                "{template}"
            );
        }
    }

    #[test]
    fn faults_name_columns_and_lines() {
        let document = json!({"a": "x"});
        let missing = |names: &[&str]| {
            Err(Fault::MissingColumns(
                names.iter().map(|name| (*name).to_owned()).collect(),
            ))
        };
        assert_eq!(render("{{a}}{{b}}{{c.d}}", &document), missing(&["b", "c"]));
        for (template, expected) in [
            ("\n{{ a", "line 2: syntax error"),
            ("\n{{ a.b }}", "line 2: "),
            ("{{ a.index('y') }}", "'y' is not in the text"),
            ("{{ a | regex_replace('(', '') }}", "unclosed group"),
            ("{{ a | python_literal }}", "expected a Python literal"),
            (
                "{{ a | llm_adapters_choices }}",
                "expected `Answer format: `",
            ),
            ("{{ a | nosuch }}", "line 1: unknown filter"),
            ("{{ a.nosuch() }}", "line 1: unknown method"),
            (
                "{% for i in range(9999) %}{% for j in range(9999) %}.{% endfor %}{% endfor %}",
                "fuel",
            ),
            ("{{ 'x' * 9999999999 }}", "line 1: "),
        ] {
            match render(template, &document) {
                Err(Fault::Problem(problem)) => {
                    assert!(problem.contains(expected), "{template}: {problem}");
                }
                other => panic!("{template}: {other:?}"),
            }
        }
    }

    #[test]
    fn answers_come_from_the_last_line() {
        let last = |end: &str| answers(&format!("Answer format: option1/option2\n\n{end}"));
        let sentences = |words: &[&str]| -> Vec<String> {
            words
                .iter()
                .map(|word| format!("the correct answer is {word}"))
                .collect()
        };
        assert_eq!(
            last("Answer format: true/false"),
            Ok(sentences(&["true", "false"]))
        );
        let endings = sentences(&["ending1", "ending2", "ending3"]);
        assert_eq!(
            last("x Answer format: ending1/ending2/ending3"),
            Ok(endings)
        );
        assert!(last("Answer format: ending1/ending").is_err());
        assert!(last("").is_err());
    }
}
