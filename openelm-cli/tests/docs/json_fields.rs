//! The fields of JSON output in a table, against the tool's output.

use std::collections::{BTreeMap, BTreeSet};

use openelm_testing::{TempDir, command, tales, works};
use serde_json::{Map, Value};

use crate::{markdown::Page, options::code_spans};

/// Names of fields by object.
type Fields = BTreeMap<String, BTreeSet<String>>;

/// `<!-- json: generate -->` stands before a table of all fields, by object.
pub(crate) fn check(pages: &[Page]) {
    let mut documented = Fields::new();
    let mut in_table = false;
    for (number, line) in pages.iter().flat_map(Page::prose) {
        if line == "<!-- json: generate -->" {
            in_table = true;
        } else if line.starts_with('#') {
            in_table = false;
        } else if in_table
            && line.starts_with('|')
            && let Some((object, rest)) = line.trim_start_matches("| ").split_once(" | ")
            && let Some((fields, _)) = rest.split_once(" | ")
        {
            let object = object.replace('`', "");
            let known = documented.entry(object).or_default();
            for field in code_spans(fields) {
                assert!(
                    known.insert(field.to_owned()),
                    "{number}: {field} is repeated"
                );
            }
        }
    }
    documented.remove("object");
    assert_eq!(documented, printed());
}

/// The fields that the tool prints.
fn printed() -> Fields {
    let mut fields = Fields::new();
    let prompt = ["-p", "Once upon a time", "--json"];
    for more in [&[][..], &["--logprobs", "2", "--prompt-logprobs"]] {
        for line in generate(&[&prompt[..], more].concat()).lines() {
            let object: Map<String, Value> = serde_json::from_str(line).unwrap();
            let name = object["event"].as_str().unwrap().to_owned();
            add(&mut fields, &name, &object);
        }
    }
    // A field of all events.
    for known in fields.values_mut() {
        known.remove("event");
    }
    fields.insert("each event".into(), ["event".into()].into());
    let folder = TempDir::new();
    let rows = folder.file("rows.jsonl", "{\"prompt\": \"The king\"}");
    let row = generate(&["--prompts", &rows, "--temp", "1"]);
    let mut row: Map<String, Value> = serde_json::from_str(&row).unwrap();
    row.remove("prompt");
    add(&mut fields, "row", &row);
    fields
}

fn add(fields: &mut Fields, name: &str, object: &Map<String, Value>) {
    let known = fields.entry(name.to_owned()).or_default();
    known.extend(object.keys().cloned());
    for (key, value) in object {
        for item in value.as_array().into_iter().flatten() {
            add(fields, key, item.as_object().unwrap());
        }
    }
}

fn generate(args: &[&str]) -> String {
    let model = tales();
    let model = [
        "generate",
        "-q",
        "-n",
        "2",
        "--model",
        model.to_str().unwrap(),
    ];
    let args = [&model[..], args].concat();
    works(command(env!("CARGO_BIN_EXE_openelm"), &args))
}
