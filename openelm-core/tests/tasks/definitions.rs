//! Definitions of a user.

use openelm_core::evaluate::task::{QuestionOptions, Tasks};
use openelm_testing::TempDir;

const TASK: &str = "\
task: own
dataset_path: own
output_type: multiple_choice
test_split: test
doc_to_text: \"{{q}}\"
doc_to_target: answer
doc_to_choice: [a, b]
";

fn add(text: &str) -> Result<Tasks, String> {
    let scratch = TempDir::new();
    let path = scratch.write("own.yaml", text);
    let mut tasks = Tasks::built_in();
    match tasks.add_file(&path) {
        Ok(_) => Ok(tasks),
        Err(error) => {
            let problem = error.to_string();
            let problem = problem
                .split_once("own.yaml: ")
                .map(|(_, problem)| problem.to_owned());
            Err(problem.unwrap_or_else(|| error.to_string()))
        }
    }
}

#[test]
fn faults_name_key_and_line() {
    for (change, expected) in [
        (("", ""), None),
        (
            (
                "",
                "process_docs: null\nmetadata: [x]\ntraining_split: null\n",
            ),
            None,
        ),
        (
            ("", "doc_to_txt: x\n"),
            Some("`doc_to_txt`: unknown key; expected one of task, "),
        ),
        (
            ("", "metric_list: [{metric: bleu}]\n"),
            Some(
                "`metric_list.metric`: expected one of acc, acc_norm, acc_bytes, exact_match, found `bleu`",
            ),
        ),
        (
            ("", "metric_list: [{metric: acc, aggregation: median}]\n"),
            Some("`metric_list.aggregation`: expected mean, found \"median\""),
        ),
        (
            ("", "metric_list: [{metric: acc, ignore_case: true}]\n"),
            Some("`metric_list.ignore_case`: unknown key"),
        ),
        (
            ("", "metric_list: [{}]\n"),
            Some("`metric_list.metric`: missing"),
        ),
        (
            ("", "metric_list: []\n"),
            Some("`metric_list`: expected at least one metric"),
        ),
        (
            ("{{q}}", "{{q"),
            Some("`doc_to_text`: line 1: syntax error"),
        ),
        (
            ("{{q}}", "\\n\\n{{q + }}"),
            Some("`doc_to_text`: line 3: syntax error"),
        ),
        (
            ("{{q}}", "{% include 'x' %}"),
            Some("`doc_to_text`: line 1: "),
        ),
        (
            ("answer", "!function utils.target"),
            Some(
                "`doc_to_target`: line 6: functions in Python (`!function`) are not supported; expected a template",
            ),
        ),
        (
            ("multiple_choice", "generate_until"),
            Some("`output_type`: expected multiple_choice, "),
        ),
        (
            ("output_type: multiple_choice\n", ""),
            Some("found generate_until, the default"),
        ),
        (
            ("[a, b]", "[1, 2]"),
            Some("`doc_to_choice`: expected choices of text, found 1"),
        ),
        (
            ("[a, b]", "3"),
            Some("`doc_to_choice`: expected a column, a template or a list, found 3"),
        ),
        (
            ("doc_to_choice: [a, b]\n", ""),
            Some("`doc_to_choice`: missing"),
        ),
        (
            ("doc_to_target: answer\n", ""),
            Some("`doc_to_target`: missing"),
        ),
        (
            ("test_split: test\n", ""),
            Some("`test_split`: missing, and `validation_split` too"),
        ),
        (
            ("test_split: test", "test_split: [test]"),
            Some("`test_split`: expected text, found [\"test\"]"),
        ),
        (
            ("", "num_fewshot: -1\n"),
            Some("`num_fewshot`: expected a number from 0 on, found -1"),
        ),
        (
            ("", "fewshot_config: {sampler: balanced}\n"),
            Some("`fewshot_config.sampler`: expected `default` or `first_n`, found `balanced`"),
        ),
        (
            ("", "fewshot_config: {samples: [1]}\n"),
            Some("expected a list of documents, found 1"),
        ),
        (
            ("", "fewshot_config: {doc_to_text: '{{'}\n"),
            Some("`fewshot_config.doc_to_text`: line 1: "),
        ),
        (
            ("", "process_results: mine\n"),
            Some("`process_results`: expected truthfulqa_mc2 or crows_pairs"),
        ),
        (("", "repeats: 2\n"), Some("`repeats`: expected 1, found 2")),
        (("", "include: none.yaml\n"), None),
        (
            ("", "include: own.yaml\n"),
            Some("`include`: the file includes itself"),
        ),
        (
            ("", "include: {a: 1}\n"),
            Some("`include`: expected the name of a file"),
        ),
        (
            ("", "task: own\n"),
            Some("`task`: line 8: duplicate mapping key: task"),
        ),
        (
            ("task: own", "- a"),
            Some("`dataset_path`: line 2: while parsing a block collection"),
        ),
        (
            ("task: own", "task: [own]"),
            Some("`task`: expected text, found [\"own\"]"),
        ),
        (("task: own\n", ""), Some("`task`: missing")),
    ] {
        let (old, new) = change;
        let text = match old {
            "" => format!("{TASK}{new}"),
            old => TASK.replacen(old, new, 1),
        };
        match (add(&text), expected) {
            (Ok(_), None) => {}
            (Err(problem), Some(expected)) => {
                assert!(problem.contains(expected), "{problem}: expected {expected}");
                assert!(!problem.contains('\n'), "{problem}");
            }
            // A file that does not exist.
            (Err(_), None) if new.contains("none.yaml") => {}
            (found, _) => panic!("{text}: {:?}", found.map(|_| ())),
        }
    }
}

#[test]
fn a_missing_include_names_its_file() {
    let scratch = TempDir::new();
    let path = scratch.write("own.yaml", format!("include: none.yaml\n{TASK}"));
    let problem = Tasks::built_in().add_file(&path).unwrap_err().to_string();
    assert!(problem.contains("none.yaml: "), "{problem}");
}

#[test]
fn keys_of_a_file_replace_keys_of_its_includes() {
    let scratch = TempDir::new();
    scratch.write("base/_base", TASK);
    let path = scratch.write(
        "own.yaml",
        "include: base/_base\ntask: other\ntag: [x, y]\n",
    );
    let mut tasks = Tasks::built_in();
    assert_eq!(tasks.add_file(&path).unwrap(), "other");
    assert_eq!(tasks.select(&["y"], None).unwrap().tasks[0].name(), "other");
    assert!(tasks.select(&["own"], None).is_err());
}

#[test]
fn a_file_replaces_a_built_in_task() {
    let scratch = TempDir::new();
    let path = scratch.write("mmlu.yaml", TASK.replace("task: own", "task: mmlu"));
    let mut tasks = Tasks::built_in();
    tasks.add_file(&path).unwrap();
    let plan = tasks.select(&["mmlu"], None).unwrap();
    assert_eq!((plan.tasks.len(), plan.groups.len()), (1, 0));
}

#[test]
fn labels_that_are_no_choice_count_as_wrong() {
    let scratch = TempDir::new();
    scratch.write("own/test.jsonl", "{\"q\": \"x\", \"answer\": \"c\"}\n");
    let path = scratch.write("own.yaml", TASK);
    let mut tasks = Tasks::built_in();
    tasks.add_file(&path).unwrap();
    let ask = |tasks: &Tasks| {
        let plan = tasks.select(&["own"], None).unwrap();
        plan.tasks[0].questions(&scratch, &QuestionOptions::default())
    };
    assert_eq!(ask(&tasks).unwrap().len(), 1);
    // A word that is neither a choice nor a column is a mistake.
    let path = scratch.write("own.yaml", TASK.replace("answer", "anser"));
    tasks.add_file(&path).unwrap();
    let problem = ask(&tasks).unwrap_err().to_string();
    let expected = "document 1: `anser` is missing; found the columns `q`, `answer`";
    assert!(problem.ends_with(expected), "{problem}");
}

#[test]
fn hostile_files_end_with_an_error() {
    let bomb: String = (0..40)
        .map(|at| format!("a{at}: &a{at} [*a{0}, *a{0}, *a{0}]\n", at - 1))
        .collect();
    for text in [
        bomb.replacen("[*a-1, *a-1, *a-1]", "[x]", 1),
        "[".repeat(100_000),
        "a: ".repeat(100_000),
        "x".repeat((1 << 20) + 1),
        "\0".to_owned(),
        String::new(),
    ] {
        assert!(add(&text).is_err());
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(add(&TASK.replace("{{q}}", &deep)).is_err());
}

#[test]
fn mutated_definitions_never_panic() {
    let files = openelm_testing::repository("openelm-core/src/evaluate/tasks");
    let scratch = TempDir::new();
    let mut random = openelm_testing::Random(1);
    for name in [
        "race",
        "hellaswag",
        "winogrande",
        "zero-shot",
        "mmlu_subjects",
    ] {
        let text = std::fs::read(files.join(format!("{name}.yaml"))).unwrap();
        for _ in 0..100 {
            let mut changed = text.clone();
            for _ in 0..3 {
                let at = random.below(changed.len());
                match random.below(3) {
                    0 => changed[at] = *random.pick(b"{}[]%|\"'&*!:-\n #"),
                    1 => _ = changed.remove(at),
                    _ => changed.truncate(at + 1),
                }
            }
            let path = scratch.write("own.yaml", changed);
            let _ = Tasks::built_in().add_file(&path);
        }
    }
}
