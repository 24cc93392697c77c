//! Folders of the core use each other in one direction only.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Folders and files of `src`, lowest first. Each may use the ones before it.
const LAYERS: [&str; 28] = [
    "error",
    "cancel",
    "gate",
    "caught",
    "parallel",
    "seed",
    "text_file",
    "files",
    "lookup",
    "hub_cache",
    "json",
    "yaml",
    "mlx",
    "config",
    "weights",
    "formats",
    "model",
    "adapter",
    "documents",
    "tokenizer",
    "constraint",
    "data",
    "generation",
    "evaluate",
    "training",
    "convert",
    "quantize",
    "engine",
];

#[test]
fn uses_point_downward() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for file in &files {
        let path = file.strip_prefix(&src).unwrap();
        let modules = modules(path);
        let Some(own) = modules.first().filter(|own| *own != "lib") else {
            continue;
        };
        found.insert(own.clone());
        let Some(layer) = position(own) else {
            wrong.push(format!("{own}: missing from this test's list"));
            continue;
        };
        for used in uses(&fs::read_to_string(file).unwrap(), &modules) {
            match position(&used) {
                Some(other) if other <= layer => {}
                Some(_) => wrong.push(format!("{}: uses {used}, which is above", path.display())),
                // An item of the crate root, such as `crate::Error` in a doc link.
                None => wrong.push(format!(
                    "{}: uses crate::{used}; name its folder",
                    path.display()
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(found.len(), LAYERS.len(), "{found:?}");
}

#[test]
fn mod_files_hold_no_items() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files.retain(|file| file.ends_with("mod.rs"));
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let words = line.trim_start_matches("pub").trim_start_matches("(crate)");
            let item = [
                "fn ", "struct ", "enum ", "impl ", "const ", "trait ", "static ",
            ];
            let is_item = item.iter().any(|item| words.trim_start().starts_with(item));
            assert!(!is_item, "{}: {line}", file.display());
        }
    }
}

#[test]
fn paths_are_read_out_of_source_text() {
    let text = "\
        use crate::{model::{Model, linear::Linear}, error::Result};\n\
        // use crate::convert::plan;\n\
        use super::super::data::Batch; use std::fs;\n\
        fn f() { crate::tokenizer::find(super::local()) }\n";
    let modules = ["training", "finetune", "order"].map(str::to_owned);
    let found = uses(text, &modules);
    let expected = ["error", "model", "tokenizer", "training"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    let modules = ["model", "rope"].map(str::to_owned);
    let upward = uses("use super::super::convert::convert;", &modules);
    assert_eq!(upward.into_iter().collect::<Vec<_>>(), ["convert"]);
}

fn position(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == name)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
}

/// The module path of a file of `src`, from the crate root.
fn modules(path: &Path) -> Vec<String> {
    let path = path.with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "mod").collect()
}

/// The first modules of all paths that begin with `crate` or leave the module's folder by `super`,
/// without tests and doc examples.
fn uses(text: &str, modules: &[String]) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        heads(&code[start + "crate::".len()..], &mut found);
    }
    for (start, _) in code.match_indices("super::") {
        if code[..start].ends_with("super::") {
            continue;
        }
        let mut rest = &code[start..];
        let mut depth = modules.len();
        while let Some(next) = rest.strip_prefix("super::") {
            depth = depth.saturating_sub(1);
            rest = next;
        }
        match modules.get(..depth).and_then(<[String]>::first) {
            Some(own) => _ = found.insert(own.clone()),
            None => heads(rest, &mut found),
        }
    }
    found.remove("");
    found
}

/// The first names of a path or of a braced list of paths.
fn heads(text: &str, found: &mut BTreeSet<String>) {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let Some(list) = text.strip_prefix('{') else {
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        found.insert(text[..end].to_owned());
        return;
    };
    let mut depth = 0;
    let mut head = String::new();
    let mut is_head = true;
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.insert(std::mem::take(&mut head));
                is_head = true;
            }
            c if depth == 0 && is_head && is_name(c) => head.push(c),
            c if depth == 0 && c == ':' => is_head = false,
            _ => {}
        }
    }
    found.insert(head);
}
