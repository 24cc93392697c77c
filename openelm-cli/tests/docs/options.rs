//! Options in tables and in the text, against `openelm help`.

use std::collections::{BTreeMap, BTreeSet};

use openelm_testing::{command, works};

use crate::markdown::Page;

/// All commands with options.
const COMMANDS: [&str; 21] = [
    "average",
    "bench",
    "cache-prompt",
    "chat",
    "completions",
    "convert",
    "convert-adapter",
    "evaluate",
    "finetune",
    "fuse",
    "generate",
    "info",
    "models",
    "plot",
    "pretrain",
    "pull",
    "push",
    "quantize",
    "score",
    "serve",
    "tokenizer train",
];

/// Options by name, each with its default if there is one.
type Options = BTreeMap<String, Option<String>>;

/// Each `<!-- options: COMMAND -->` stands before a table. Together, the tables of a command list
/// its options, each once, with the default of the help if that is one word.
pub(crate) fn check_tables(pages: &[Page]) {
    let mut tables: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for page in pages {
        let mut command = None;
        for (number, line) in page.prose() {
            let place = format!("{}:{number}", page.name);
            if let Some(name) = line.strip_prefix("<!-- options: ") {
                let name = name.strip_suffix(" -->").unwrap();
                let known = COMMANDS.into_iter().find(|known| *known == name);
                command = Some(known.unwrap_or_else(|| panic!("{place}: no command {name}")));
            } else if line.starts_with("| `-")
                && let Some(name) = command
            {
                let help = help(name);
                let found = tables.entry(name).or_default();
                check_row(&place, line, &help, found);
            } else if line.starts_with('#') {
                command = None;
            }
        }
    }
    for name in COMMANDS {
        let help: BTreeSet<String> = help(name).into_keys().collect();
        let found = tables.remove(name).unwrap_or_default();
        let missing: Vec<&String> = help.difference(&found).collect();
        assert!(missing.is_empty(), "{name}: no table has {missing:?}");
    }
}

fn check_row(place: &str, line: &str, help: &Options, found: &mut BTreeSet<String>) {
    let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
    let spans = code_spans(cells[0]);
    let names = spans.iter().filter_map(|span| span.split(' ').next());
    let names: Vec<&str> = names.filter(|name| name.starts_with("--")).collect();
    let [name] = names[..] else {
        panic!("{place}: expected one option, found {names:?}");
    };
    let Some(default) = help.get(name) else {
        panic!("{place}: {name} does not exist");
    };
    assert!(found.insert(name.to_owned()), "{place}: {name} is repeated");
    if let Some(default) = default
        && !default.contains(' ')
    {
        let listed = cells[1].replace('`', "");
        assert_eq!(&listed, default, "{place}: default of {name}");
    }
}

/// Inline code that begins with `--` or `openelm` names options that exist.
pub(crate) fn check_inline(pages: &[Page]) {
    let all: BTreeSet<String> = COMMANDS
        .into_iter()
        .flat_map(|name| help(name).into_keys())
        .collect();
    for page in pages {
        for (number, line) in page.prose() {
            for span in code_spans(line) {
                let ours = span.starts_with("--") || span.starts_with("openelm ");
                let words = span.split([' ', '=']).filter(|word| word.starts_with("--"));
                for word in words.filter(|_| ours) {
                    let place = format!("{}:{number}", page.name);
                    assert!(all.contains(word), "{place}: {word} does not exist");
                }
            }
        }
    }
}

/// Options of a command, by its help.
fn help(name: &str) -> Options {
    let mut arguments: Vec<&str> = name.split(' ').collect();
    arguments.push("--help");
    let text = works(command(env!("CARGO_BIN_EXE_openelm"), &arguments));
    let (_, text) = text.split_once("Options:\n").unwrap();
    let text = text.split("\nExample").next().unwrap();
    let mut entries: Vec<String> = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if indent <= 6 && line.trim_start().starts_with('-') {
            entries.push(line.trim().to_owned());
        } else if let Some(entry) = entries.last_mut() {
            entry.push(' ');
            entry.push_str(line.trim());
        }
    }
    let mut options = Options::new();
    for entry in entries {
        let mut words = entry.split([' ', ',', '[']);
        let name = words.find(|word| word.starts_with("--")).unwrap();
        let default = entry.split_once("[default: ");
        let default = default.map(|(_, rest)| rest.split(']').next().unwrap().to_owned());
        options.insert(name.to_owned(), default);
    }
    options.remove("--help");
    options
}

/// Inline code of a line.
pub(crate) fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}
