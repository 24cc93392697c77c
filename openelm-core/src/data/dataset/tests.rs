//! Files to examples. The expected ids come from the bundled `tales` tokenizer in Hugging Face's
//! library.

use std::{fs, path::Path};

use openelm_testing::{TempDir, external_data};

use super::*;
use crate::{
    error::{Error, Result},
    tokenizer::{ChatTemplate, Tokenizer, instruct_prompt},
};

fn tales() -> Tokenizer {
    Tokenizer::from_file(openelm_testing::tales().join("tokenizer.json")).unwrap()
}

fn read(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    Dataset::read(path, &tales(), options)
}

fn masked() -> DatasetOptions {
    DatasetOptions {
        mask_prompt: true,
        ..DatasetOptions::default()
    }
}

/// `Once upon a time`.
const TIME: [u32; 5] = [1253, 429, 781, 359, 664];

#[test]
fn text_is_between_bos_and_eos() {
    let folder = TempDir::new();
    let rows = "\u{feff}{\"text\": \"Once upon a time\"}\r\n\n  \n{\"id\": 3, \"text\": \
                \"Once upon a time</s>\"}";
    let dataset = read(&folder.write("a.jsonl", rows), &DatasetOptions::default()).unwrap();
    let tokens = [&[1], &TIME[..], &[2]].concat();
    for example in dataset.examples() {
        assert_eq!((&example.tokens, example.first_target), (&tokens, 1));
    }
    assert_eq!(dataset.kind(), RowKind::Text);
    assert_eq!(dataset.lengths(), [7, 7]);
    assert_eq!(dataset.key_counts(), [1, 2]);
    let expected = Counts {
        rows: 2,
        examples: 2,
        tokens: 14,
        targets: 12,
        ..Counts::default()
    };
    assert_eq!(dataset.counts(), expected);

    let text = folder.write("a.TXT", "Once upon a time");
    let dataset = read(&text, &DatasetOptions::default()).unwrap();
    assert_eq!(dataset.examples()[0].tokens, tokens);
}

#[test]
fn completion_follows_the_prompt() {
    let folder = TempDir::new();
    let rows = r#"{"prompt": "The fox said:", "completion": " Yes, I will."}
{"prompt": "The fox said:", "completion": "x"}
{"prompt": "", "completion": "x"}"#;
    let path = folder.write("a.jsonl", rows);
    let dataset = read(&path, &masked()).unwrap();
    let expected: [(&[u32], usize); 3] = [
        (&[1, 452, 1999, 1054, 1405, 607, 410, 543, 272, 2], 4),
        (&[1, 452, 1999, 1054, 342, 2], 4),
        (&[1, 356, 342, 2], 1),
    ];
    for (example, (tokens, first_target)) in dataset.examples().iter().zip(expected) {
        assert_eq!(
            (&example.tokens[..], example.first_target),
            (tokens, first_target)
        );
    }
    assert_eq!(dataset.kind(), RowKind::Completion);
    assert_eq!(
        (dataset.counts().tokens, dataset.counts().targets),
        (20, 6 + 2 + 3)
    );

    let whole = read(&path, &DatasetOptions::default()).unwrap();
    assert!(
        whole
            .examples()
            .iter()
            .all(|example| example.first_target == 1)
    );
    assert_eq!((whole.counts().tokens, whole.counts().targets), (20, 17));
}

#[test]
fn conversation_uses_the_template() {
    let folder = TempDir::new();
    let rows = r#"{"messages": [{"role": "system", "content": "Be brief."},
 {"role": "user", "content": "Sing."}, {"role": "assistant", "content": "La."}]}
{"messages": [{"role": "user", "content": "Sing."}, {"role": "assistant", "content": "La."},
 {"role": "user", "content": "More."}, {"role": "assistant", "content": "No."}]}"#
        .replace(",\n", ",");
    let dataset = read(&folder.write("a.jsonl", rows), &masked()).unwrap();
    let tokenizer = tales();
    let [first, second] = dataset.examples() else {
        panic!("{dataset:?}")
    };
    let prompt = "<|system|>\nBe brief.</s>\n<|user|>\nSing.</s>\n<|assistant|>\n";
    let ids = tokenizer.encode_prompt(prompt).unwrap();
    assert_eq!(first.tokens[..first.first_target], ids);
    let all = tokenizer
        .encode_prompt(&format!("{prompt}La.</s>"))
        .unwrap();
    assert_eq!(first.tokens, all);
    // Of several answers, the last one is the target.
    let answer = &second.tokens[second.first_target..];
    assert_eq!(tokenizer.decode(answer).unwrap(), "No.");
    assert_eq!(answer.last(), Some(&2));
    let text = "<|user|>\nSing.</s>\n<|assistant|>\nLa.</s>\n<|user|>\nMore.</s>\n<|assistant|>\n";
    let ids = tokenizer.encode_prompt(text).unwrap();
    assert_eq!(second.tokens[..second.first_target], ids);
}

/// The prompts of another template, and of instructions.
#[test]
fn the_template_is_an_option() {
    let folder = TempDir::new();
    let tokenizer = tales();
    let prompt_of = |row: &str, chat_template| {
        let options = DatasetOptions {
            chat_template,
            ..masked()
        };
        let dataset = read(&folder.write("a.jsonl", row), &options)?;
        let first = &dataset.examples()[0];
        let answer = tokenizer.decode(&first.tokens[first.first_target..])?;
        assert_eq!(answer, "La.");
        tokenizer.decode(&first.tokens[..first.first_target])
    };
    let messages = r#"{"messages": [{"role": "user", "content": "Sing."},
        {"role": "assistant", "content": "La."}]}"#
        .replace('\n', "");
    let instruction =
        r#"{"instruction": "Sing.", "input": "Now.", "output": "La.", "answer": "x"}"#;
    let short = r#"{"instruction": "Sing.", "input": "", "output": "La."}"#;
    let corenet = Some(ChatTemplate::Instruction);
    let plain = Some(ChatTemplate::Plain);
    let with_input = instruct_prompt("Sing.", Some("Now."));
    for (row, template, expected) in [
        (&*messages, corenet, instruct_prompt("Sing.", None)),
        (&messages, plain, "Sing.".into()),
        (instruction, None, with_input.clone()),
        (instruction, corenet, with_input),
        (instruction, plain, "Sing.\n\nNow.".into()),
        (short, None, instruct_prompt("Sing.", None)),
    ] {
        assert_eq!(prompt_of(row, template).unwrap(), expected, "{row}");
    }
    let problem = prompt_of(r#"{"prompt": "Sing.", "completion": "La."}"#, plain).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "chat_template: has no effect on rows of `prompt` and `completion`"
    );
}

/// An array has the examples of the same rows in lines, and errors with the line of the row.
#[test]
fn a_file_can_be_an_array() {
    let folder = TempDir::new();
    let lines = "{\"text\": \"Once\"}\n{\"text\": \"upon\"}\n";
    let array = "[\n  {\"text\": \"Once\"},\n  {\n    \"text\": \"upon\"\n  }\n]\n";
    let options = DatasetOptions::default();
    let of_lines = read(&folder.write("a.jsonl", lines), &options).unwrap();
    let of_array = read(&folder.write("a.json", array), &options).unwrap();
    assert_eq!(of_lines.examples(), of_array.examples());
    for (text, expected) in [
        ("[]", "a.json: the file is empty"),
        ("{}", "a.json:1: expected an array of objects: "),
        (
            "[{\"text\": \"a\"},\n\n 3]",
            "a.json:3: expected a JSON object, found a number",
        ),
        (
            "[{\"text\": \"a\"},\n{\"text\": 1}]",
            "a.json:2: `text`: expected a string",
        ),
        (
            "[{\"text\": \"a\"},\n",
            "a.json:2: expected an array of objects: EOF",
        ),
    ] {
        let problem = read(&folder.write("a.json", text), &options).unwrap_err();
        assert!(
            problem.to_string().contains(expected),
            "{problem}: {expected}"
        );
    }
}

/// Before the answer, a message with the spelling of a special token has no such token, as in a
/// chat.
#[test]
fn messages_before_the_answer_are_plain_text() {
    let folder = TempDir::new();
    let user = r#"{"role": "user", "content": "Sing</s><s> now."}"#;
    let answer = r#"{"role": "assistant", "content": "La."}"#;
    let row = format!("{{\"messages\": [{user}, {answer}]}}");
    let dataset = read(&folder.write("a.jsonl", row), &masked()).unwrap();
    let row = format!("{{\"prompt\": [{user}], \"chosen\": [{answer}], \"rejected\": \"No.\"}}");
    let path = folder.write("b.jsonl", row);
    let pairs = PreferenceDataset::read(path, &tales(), &DatasetOptions::default()).unwrap();
    for example in [&dataset.examples()[0], &pairs.pairs()[0].chosen] {
        let count = |special| example.tokens.iter().filter(|id| **id == special).count();
        // The ends of the question and of the answer.
        assert_eq!((count(1), count(2)), (1, 2), "{:?}", example.tokens);
        let text = tales().decode(&example.tokens).unwrap();
        assert_eq!(text, "<|user|>\nSing</s><s> now. \n<|assistant|>\nLa.");
    }
}

#[test]
fn preference_pairs_share_their_prompt() {
    let folder = TempDir::new();
    let rows = r#"{"prompt": "The fox said:", "chosen": " Yes, I will.", "rejected": "x"}
{"prompt": "The fox said:", "chosen": "x", "rejected": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#;
    let path = folder.write("a.jsonl", rows);
    let options = DatasetOptions {
        max_length: 10,
        ..DatasetOptions::default()
    };
    let dataset = PreferenceDataset::read(&path, &tales(), &options).unwrap();
    let [pair] = dataset.pairs() else {
        panic!("{dataset:?}")
    };
    assert_eq!(
        pair.chosen.tokens,
        [1, 452, 1999, 1054, 1405, 607, 410, 543, 272, 2]
    );
    assert_eq!(pair.rejected.tokens, [1, 452, 1999, 1054, 342, 2]);
    assert_eq!(
        (pair.chosen.first_target, pair.rejected.first_target),
        (4, 4)
    );
    assert_eq!(dataset.lengths(), [10]);
    let expected = Counts {
        rows: 2,
        examples: 1,
        tokens: 16,
        targets: 8,
        dropped: 1,
        ..Counts::default()
    };
    assert_eq!(dataset.counts(), expected);

    let message = read(&path, &options).unwrap_err().to_string();
    assert!(message.contains("are for preference tuning"), "{message}");
    let text = folder.write("b.txt", "Once");
    let refused = PreferenceDataset::read(&text, &tales(), &options).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("expected rows of `prompt`, `chosen`")
    );
}

#[test]
fn long_rows_are_split_dropped_or_truncated() {
    let folder = TempDir::new();
    let rows = "{\"text\": \"Once upon a time\"}\n{\"text\": \"x\"}";
    let path = folder.write("a.jsonl", rows);
    let with = |long_rows, mlx_lm_compat, max_length| DatasetOptions {
        max_length,
        long_rows,
        mlx_lm_compat,
        ..DatasetOptions::default()
    };
    let tokens = |dataset: &Dataset| -> Vec<Vec<u32>> {
        let examples = dataset.examples().iter();
        examples.map(|example| example.tokens.clone()).collect()
    };
    let split = read(&path, &with(LongRows::Split, false, 4)).unwrap();
    assert_eq!(
        tokens(&split),
        [
            vec![1, 1253, 429, 781],
            vec![781, 359, 664, 2],
            vec![1, 356, 342, 2]
        ]
    );
    assert_eq!((split.counts().split, split.counts().examples), (1, 3));
    // The same number as for the whole rows.
    assert_eq!(split.counts().targets, 6 + 3);
    assert_eq!(split.key_counts(), [1, 1, 1]);

    let dropped = read(&path, &with(LongRows::Drop, false, 4)).unwrap();
    assert_eq!(tokens(&dropped), [[1, 356, 342, 2]]);
    assert_eq!((dropped.counts().rows, dropped.counts().dropped), (2, 1));

    let whole = read(&path, &with(LongRows::Drop, true, 4)).unwrap();
    assert_eq!(whole.lengths(), [7, 4]);
    assert_eq!((whole.counts().truncated, whole.counts().dropped), (1, 0));

    let none = read(&path, &with(LongRows::Drop, false, 3))
        .unwrap_err()
        .to_string();
    assert!(none.ends_with("a.jsonl: no row is left to train on: all 2 have more than 3 tokens"));
    let short = read(&path, &with(LongRows::Split, false, 1))
        .unwrap_err()
        .to_string();
    assert_eq!(short, "max_length: expected at least 2 tokens, found 1");
}

/// A valid row and an empty line.
const TEXT_ROW: &str = "{\"text\": \"a\"}\n\n";

/// Rows before a malformed row, that row, and a part of the error.
const MALFORMED: &[(&str, &[u8], &str)] = &[
    ("", b"", "a.jsonl: the file is empty"),
    ("", b" \n\r\n", "a.jsonl: the file is empty"),
    (
        "",
        b"\n{\"text\": \"a\"",
        "a.jsonl:2: malformed JSON at column 12: EOF while",
    ),
    (
        "",
        b"[1]",
        "a.jsonl:1: expected a JSON object, found a list",
    ),
    (
        "",
        b"{}",
        "expected `text`, `prompt` and `completion`, `messages`, `prompt`, `chosen` \
         and `rejected` or `instruction` and `output`; found no key",
    ),
    (
        "",
        b"{\"prompt\": \"a\", \"answer\": \"b\"}",
        "a.jsonl:1: expected `text`, ",
    ),
    (
        "",
        b"{\"prompt\": \"a\", \"answer\": \"b\"}",
        "found `prompt`, `answer`",
    ),
    ("", b"{\"text\": \"\"}", "a.jsonl:1: `text` is empty"),
    (
        "",
        b"{\"prompt\": \"a\", \"completion\": \"\"}",
        "a.jsonl:1: `completion` is empty",
    ),
    (
        "",
        b"{\"prompt\": null, \"completion\": \"a\"}",
        "`messages`, `prompt`, `chosen` and `rejected` or `instruction` and `output`; found `completion`",
    ),
    (
        "",
        b"{\"messages\": \"a\"}",
        "`messages`: expected a list of messages, found a string",
    ),
    (
        "",
        b"{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}]}",
        "`messages`: message 1: \
         `role`: expected `system`, `user` or `assistant`, found `tool`",
    ),
    (
        "",
        b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}",
        "`messages`: there is no \
         message of the user",
    ),
    (
        TEXT_ROW,
        b"{\"text\": 3}",
        "a.jsonl:3: `text`: expected a string, found a number",
    ),
    (
        TEXT_ROW,
        b"{\"prompt\": \"a\", \"completion\": \"b\"}",
        "a.jsonl:3: `text` is missing; the file's \
         first row has `text`",
    ),
    (
        TEXT_ROW,
        b"{\"text\": \"a\"} x",
        "a.jsonl:3: malformed JSON at column 15: trailing characters",
    ),
    (TEXT_ROW, b"{\"text\": \"\xff\"}", "a.jsonl:3: not UTF-8"),
];

#[test]
fn null_is_an_absent_key() {
    let folder = TempDir::new();
    let kind = |row: &str| {
        let dataset = read(&folder.write("a.jsonl", row), &DatasetOptions::default());
        dataset
            .map(|dataset| dataset.kind())
            .map_err(|error| error.to_string())
    };
    for (row, expected) in [
        (
            r#"{"text": "Once.", "chosen": null, "rejected": null}"#,
            RowKind::Text,
        ),
        (
            r#"{"text": "a", "messages": null, "prompt": "b", "completion": null}"#,
            RowKind::Text,
        ),
        (
            r#"{"prompt": "a", "completion": "b", "chosen": null, "rejected": "c"}"#,
            RowKind::Completion,
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a", "name": null},
             {"role": "assistant", "content": "b"}], "prompt": null, "completion": "c"}"#,
            RowKind::Messages,
        ),
    ] {
        assert_eq!(kind(&row.replace('\n', " ")), Ok(expected), "{row}");
    }
    for (row, expected) in [
        (r#"{"text": null, "other": 1}"#, "found `other`"),
        (
            r#"{"text": "a"}
            {"text": null}"#,
            "a.jsonl:2: `text` is missing",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": null}]}"#,
            "`content` is missing",
        ),
    ] {
        let problem = kind(row).unwrap_err();
        assert!(problem.contains(expected), "{problem}: expected {expected}");
    }
    let pair = r#"{"chosen": "a", "rejected": "b", "prompt": null}"#;
    let path = folder.write("a.jsonl", pair);
    let problem = PreferenceDataset::read(&path, &tales(), &DatasetOptions::default());
    assert!(
        problem
            .unwrap_err()
            .to_string()
            .contains("`prompt` is missing")
    );
}

#[test]
fn rejects_malformed_rows() {
    let folder = TempDir::new();
    for (before, row, expected) in MALFORMED {
        let path = folder.write("a.jsonl", [before.as_bytes(), row].concat());
        let message = read(&path, &DatasetOptions::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}: expected {expected}");
    }
}

#[test]
fn rejects_unusable_files() {
    let folder = TempDir::new();
    let masked_text = read(&folder.write("a.txt", "a"), &masked()).unwrap_err();
    assert!(
        masked_text
            .to_string()
            .contains("a.txt: expected rows with a prompt to mask")
    );
    let binary = read(
        &folder.write("b.txt", b"a\n\xff"),
        &DatasetOptions::default(),
    );
    let message = binary.unwrap_err().to_string();
    assert!(
        message.ends_with("b.txt:2: not UTF-8, at byte 2 of the file"),
        "{message}"
    );
    let absent = read(&folder.join("c.jsonl"), &DatasetOptions::default());
    assert!(matches!(absent, Err(Error::Io { .. })));
}

#[test]
fn finds_parts_of_a_folder() {
    let folder = TempDir::new();
    let open = || DataFolder::open(&folder);
    let message = open().unwrap_err().to_string();
    assert!(
        message.contains("no `train`, `valid` or `test` with the ending"),
        "{message}"
    );
    let (train, valid) = (
        folder.write("train.txt", "a"),
        folder.write("val.jsonl", "{}"),
    );
    let expected = DataFolder {
        train: Some(train.clone()),
        valid: Some(valid),
        test: None,
    };
    assert_eq!(open().unwrap(), expected);
    folder.write("valid.txt", "a");
    let message = open().unwrap_err().to_string();
    let expected = "`valid.txt` and `val.jsonl` are for the same part; keep one of them";
    assert!(message.ends_with(expected), "{message}");

    let alone = DataFolder::open(&train).unwrap();
    assert_eq!((alone.train, alone.valid), (Some(train), None));
    let message = |name: &str| {
        let refused = DataFolder::open(folder.join(name));
        refused.unwrap_err().to_string()
    };
    assert!(message("absent").ends_with("absent: no such file or folder"));
    folder.write("a.csv", "a");
    assert!(message("a.csv").contains("ending `.jsonl`, `.json` or `.txt`"));
}

mod external_data {
    use super::*;

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA"]
    fn decodes_rows_to_their_text() {
        let data = external_data();
        let path = data.join("fairytaleqa/val.jsonl");
        let llama = Tokenizer::from_file(data.join("llama-tokenizer/tokenizer.model")).unwrap();
        let lines = fs::read_to_string(&path).unwrap();
        for tokenizer in [tales(), llama] {
            let options = DatasetOptions {
                max_length: usize::MAX,
                ..masked()
            };
            let dataset = Dataset::read(&path, &tokenizer, &options).unwrap();
            assert_eq!(
                (dataset.counts().rows, dataset.counts().examples),
                (1_025, 1_025)
            );
            for (line, example) in lines.lines().zip(dataset.examples()) {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                let [prompt, completion] =
                    ["prompt", "completion"].map(|key| row[key].as_str().unwrap());
                let (context, answer) = example.tokens.split_at(example.first_target);
                assert_eq!(context, tokenizer.encode_prompt(prompt).unwrap());
                assert_eq!(answer.last(), Some(&tokenizer.eos_id()));
                let text = tokenizer.decode(&example.tokens).unwrap();
                assert_eq!(text, format!("{prompt}{completion}"));
            }
        }
    }
}
