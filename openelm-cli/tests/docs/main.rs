//! Checks Markdown files against the repository: commands run, options and defaults equal `openelm
//! help`, settings equal the test files, and Rust examples are doc tests.
//!
//! `sh` blocks are run, `sh no-run` blocks are parsed. A comment `<!-- options: COMMAND -->`
//! precedes a table of the command's options, `<!-- json: generate -->` a table of the fields that
//! `openelm generate` prints as JSON.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod commands;
mod json_fields;
mod markdown;
mod options;

use std::fs;

use markdown::Page;
use openelm_testing::repository;

/// Pages with long runs, which have their own tests.
const LONG: [&str; 3] = [
    "docs/converting.md",
    "docs/fine-tuning.md",
    "docs/pre-training.md",
];

fn commands_work(pages: impl Fn(&str) -> bool) {
    let pages = Page::all().into_iter().filter(|page| pages(&page.name));
    let count: usize = pages.map(|page| commands::check(&page)).sum();
    assert!(count > 5, "{count} commands");
}

#[test]
fn conversions_work() {
    commands_work(|name| name == LONG[0]);
}

#[test]
fn fine_tuning_works() {
    commands_work(|name| name == LONG[1]);
}

#[test]
fn pre_training_works() {
    commands_work(|name| name == LONG[2]);
}

#[test]
fn other_commands_work() {
    commands_work(|name| !LONG.contains(&name));
}

#[test]
fn tables_list_all_options() {
    options::check_tables(&Page::all());
}

#[test]
fn the_table_of_json_fields_is_complete() {
    json_fields::check(&Page::all());
}

#[test]
fn inline_options_exist() {
    options::check_inline(&Page::all());
}

#[test]
fn settings_equal_files() {
    for page in Page::all() {
        for block in page.blocks().filter(|block| block.language == "toml") {
            let place = block.place();
            let (first, settings) = block.text.split_once('\n').unwrap();
            let path = first
                .strip_prefix("# ")
                .unwrap_or_else(|| panic!("{place}: expected '# FILE' as the first line"));
            let file = fs::read_to_string(repository(path)).unwrap();
            assert!(file.ends_with(settings), "{place}: {path} differs");
        }
    }
}

#[test]
fn rust_examples_are_compiled() {
    let library = fs::read_to_string(repository("openelm-core/src/lib.rs")).unwrap();
    for page in Page::all() {
        let rust = |language: &str| language.split(',').any(|word| word == "rust");
        if page.blocks().any(|block| rust(&block.language)) {
            let include = format!("include_str!(\"../../{}\")", page.name);
            let message = "is not a doc test of openelm-core/src/lib.rs";
            assert!(library.contains(&include), "{} {message}", page.name);
        }
    }
}
