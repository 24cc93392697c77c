//! Files of data sets.

use openelm_core::evaluate::task::QuestionOptions;
use openelm_testing::TempDir;
use serde_json::{Value, json};

use crate::{fixtures, plan, questions, write_rows};

fn piqa() -> Value {
    json!([{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}])
}

#[test]
fn finds_files_in_the_layouts_of_the_hub() {
    let row = piqa()[0].to_string();
    for file in [
        "piqa/validation.jsonl",
        "piqa/data/validation-00000-of-00001.jsonl",
        "baber/piqa/valid.jsonl",
        "piqa/piqa.validation.json",
        "piqa/validation/0000.jsonl",
        "piqa/dev.jsonl",
    ] {
        let folder = TempDir::new();
        folder.write("piqa/train.jsonl", "{}\n");
        folder.write(file, &row);
        assert_eq!(questions("piqa", &folder).unwrap().len(), 1, "{file}");
    }
    let folder = TempDir::new();
    folder.write("datasets--baber--piqa/refs/main", "a1\n");
    folder.write(
        "datasets--baber--piqa/snapshots/a1/data/validation.jsonl",
        &row,
    );
    assert_eq!(questions("piqa", &folder).unwrap().len(), 1);
    folder.write("datasets--baber--piqa/refs/main", "../../..");
    assert!(questions("piqa", &folder).is_err());
    for file in [
        "winogrande/winogrande_xl/validation.jsonl",
        "winogrande/data/winogrande_xl/validation-0.jsonl",
        "allenai/winogrande/winogrande_xl/validation.jsonl",
        "winogrande/validation.jsonl",
    ] {
        let folder = TempDir::new();
        let rows = json!([{"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"}]);
        write_rows(&folder, file, &rows);
        assert_eq!(questions("winogrande", &folder).unwrap().len(), 1, "{file}");
    }
}

#[test]
fn shards_are_read_in_order_up_to_the_limit() {
    let folder = TempDir::new();
    for shard in 0..3 {
        let rows = json!([
            {"goal": shard.to_string(), "sol1": "a", "sol2": "b", "label": 1},
            {"goal": "second", "sol1": "a", "sol2": "b", "label": 0},
        ]);
        write_rows(
            &folder,
            &format!("piqa/validation-{shard}-of-3.jsonl"),
            &rows,
        );
    }
    folder.write("piqa/validation-3-of-3.jsonl", "never read");
    let options = QuestionOptions {
        limit: Some(5),
        ..QuestionOptions::default()
    };
    let found = plan("piqa", 0).tasks[0]
        .questions(&folder, &options)
        .unwrap();
    let contexts: Vec<_> = found
        .iter()
        .map(|question| question.requests[0].context.as_ref())
        .collect();
    let expected = ["0", "second", "1", "second", "2"];
    assert_eq!(
        contexts,
        expected.map(|goal| format!("Question: {goal}\nAnswer:"))
    );
    let none = QuestionOptions {
        limit: Some(0),
        ..options
    };
    let problem = plan("piqa", 0).tasks[0]
        .questions(&folder, &none)
        .unwrap_err();
    assert_eq!(problem.to_string(), "limit: expected at least 1, found 0");
}

#[test]
fn missing_data_names_an_expected_file_what_is_there_and_the_hub() {
    let folder = TempDir::new();
    let problem = || questions("arc_easy", &folder).unwrap_err().to_string();
    let expected = |found: &str| {
        format!(
            "{}: the task `arc_easy` has no files of its split `test`; expected \
             `ai2_arc/ARC-Easy/test.jsonl` or `ai2_arc/ARC-Easy/test-00000-of-00001.parquet`, for \
             example; {found}; data set on the Hugging Face Hub: allenai/ai2_arc (ARC-Easy)",
            folder.as_str()
        )
    };
    assert_eq!(problem(), expected("the folder has no files"));
    for name in 0..7 {
        folder.write(&format!("{name}.txt"), "");
    }
    let found = "the folder has `0.txt`, `1.txt`, `2.txt`, `3.txt`, `4.txt` and 2 more";
    assert_eq!(problem(), expected(found));
    folder.write("arc_easy/train.jsonl", "{}\n");
    assert_eq!(problem(), expected("`arc_easy` has `train.jsonl`"));
    // Examples need their split too.
    write_rows(&folder, "piqa/validation.jsonl", &piqa());
    let few = plan("piqa", 1).tasks[0].questions(&folder, &QuestionOptions::default());
    let problem = few.unwrap_err().to_string();
    assert!(
        problem.contains("no files of its split `train`"),
        "{problem}"
    );
}

#[test]
fn malformed_documents_name_file_row_and_column() {
    for (name, rows, expected) in [
        (
            "piqa",
            r#"{"goal": "g", "sol1": "a", "label": 1}"#,
            "validation.jsonl: document 1: `sol2` is missing; found the columns `goal`, `sol1`, `label`",
        ),
        (
            "piqa",
            "{\"goal\"",
            "validation.jsonl:1: column 7: not a JSON object: EOF while parsing an object",
        ),
        (
            "piqa",
            "\n\n3",
            "validation.jsonl:3: column 1: not a JSON object: ",
        ),
        (
            "piqa",
            "[1]",
            "validation.jsonl:1: column 2: not an array of objects: ",
        ),
        ("piqa", "[{}, [", "not an array of objects: "),
        (
            "piqa",
            "",
            "validation.jsonl: expected at least one document, found none",
        ),
        ("piqa", "[]", "expected at least one document, found none"),
        (
            "piqa",
            r#"{"goal": "g", "sol1": "a", "sol2": "b"}"#,
            "document 1: `label` is missing; found the columns `goal`, `sol1`, `sol2`",
        ),
        (
            "piqa",
            r#"{"goal": "g", "sol1": "a", "sol2": "b", "label": 1.5}"#,
            "piqa.yaml: `doc_to_target`: document 1 of ",
        ),
        (
            "piqa",
            r#"{"goal": "g", "sol1": "a", "sol2": 1, "label": 1}"#,
            "expected a list of texts, found 1",
        ),
        (
            "winogrande",
            r#"{"sentence": "none", "option1": "a", "option2": "b", "answer": "1"}"#,
            "'_' is not in the text",
        ),
        (
            "winogrande",
            r#"{"sentence": "a _", "option1": "a", "option2": "b", "answer": ""}"#,
            "winogrande.yaml: `doc_to_text`: document 1 of ",
        ),
        (
            "truthfulqa_mc2",
            r#"{"question": "q", "mc2_targets": {"choices": ["a", "b"], "labels": [1]}}"#,
            "`process_results`: document 1 of ",
        ),
        (
            "truthfulqa_mc2",
            r#"{"question": "q", "mc2_targets": {"choices": [], "labels": []}}"#,
            "expected at least one choice",
        ),
    ] {
        let folder = TempDir::new();
        folder.write(&format!("{name}/validation.jsonl"), rows);
        let problem = questions(name, &folder).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}: expected {expected}");
        assert!(!problem.contains('\n'));
    }
    let folder = TempDir::new();
    for problems in ["[{'question'", "{}", "[]", "[{'question': 'q'}]"] {
        let row = json!([{"article": "a", "problems": problems}]);
        write_rows(&folder, "race/test.jsonl", &row);
        let problem = questions("race", &folder).unwrap_err().to_string();
        assert!(
            problem.contains("race.yaml: `doc_to_t") && problem.contains("`: document 1 of "),
            "{problem}"
        );
    }
}

#[test]
fn examples_need_enough_documents() {
    let folder = TempDir::new();
    let row = &piqa()[0];
    write_rows(&folder, "piqa/validation.jsonl", &piqa());
    write_rows(&folder, "piqa/train.jsonl", &json!([row, row, row]));
    let found = plan("piqa", 2).tasks[0].questions(&folder, &QuestionOptions::default());
    // The evaluated document is no example for itself, as in lm-eval.
    let problem = found.unwrap_err().to_string();
    assert!(
        problem.starts_with("num_fewshot: 2 examples need 2 documents; found 3 in "),
        "{problem}"
    );
}

#[test]
fn corrupt_parquet_files_are_one_error() {
    let bytes = std::fs::read(fixtures().join("arc_easy.parquet")).unwrap();
    let path = "arc_easy/test.parquet";
    for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
        let folder = TempDir::new();
        folder.write(path, &bytes[..length]);
        let problem = questions("arc_easy", &folder).unwrap_err().to_string();
        assert!(
            problem.contains("test.parquet: not a valid parquet file"),
            "{problem}"
        );
    }
    // Any corruption gives an error or questions, never a panic.
    let folder = TempDir::new();
    let mut random = openelm_testing::Random(1);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        for _ in 0..3 {
            let at = random.below(damaged.len());
            damaged[at] ^= 1 << random.below(8);
        }
        folder.write(path, damaged);
        let _ = questions("arc_easy", &folder);
    }
}
