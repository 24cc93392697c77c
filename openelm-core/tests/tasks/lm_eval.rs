//! Requests, right answers and metrics equal lm-eval's (`parity/tasks.py`).

use openelm_core::evaluate::task::{Gold, Outcome, QuestionOptions, Questions, RequestKind, Tasks};
use openelm_testing::TempDir;
use serde_json::{Value, json};

use crate::{fixture, fixtures, outcome, plan, questions, write_rows};

const TASKS: [&str; 17] = [
    "arc_easy",
    "arc_challenge",
    "boolq",
    "hellaswag",
    "piqa",
    "sciq",
    "winogrande",
    "race",
    "truthfulqa_mc2",
    "crows_pairs_english",
    "openbookqa",
    "social_iqa",
    "mmlu_abstract_algebra",
    "custom_cloze",
    "custom_rolling",
    "custom_choice",
    "custom_samples",
];

#[test]
fn requests_and_metrics_equal_lm_evals() {
    for name in TASKS {
        let fixture = fixture(name);
        let folder = TempDir::new();
        for (split, rows) in fixture["splits"].as_object().unwrap() {
            write_rows(&folder, &format!("{name}/{split}.jsonl"), rows);
        }
        let mut tasks = Tasks::built_in();
        if let Some(definition) = fixture["definition"].as_str() {
            let path = folder.write("task.yaml", definition);
            assert_eq!(tasks.add_file(&path).unwrap(), name);
        }
        for run in fixture["runs"].as_array().unwrap() {
            let shots = run["num_fewshot"].as_u64().unwrap() as usize;
            let plan = tasks.select(&[name], Some(shots)).unwrap();
            let task = &plan.tasks[0];
            assert_eq!(task.num_fewshot(), shots, "{name}");
            assert!(
                task.dataset()
                    .starts_with(fixture["dataset"].as_str().unwrap())
            );
            let options = QuestionOptions {
                limit: Some(run["limit"].as_u64().unwrap() as usize),
                ..QuestionOptions::default()
            };
            let questions = task.questions(&folder, &options).unwrap();
            check(
                &format!("{name}, {shots} examples"),
                &questions,
                run,
                &fixture["version"],
            );
        }
    }
}

fn check(place: &str, questions: &Questions, run: &Value, version: &Value) {
    let expected = run["questions"].as_array().unwrap();
    assert_eq!(questions.len(), expected.len(), "{place}");
    let mut outcomes = Vec::new();
    for (question, expected) in questions.iter().zip(expected) {
        let place = format!("{place}, document {}", question.document);
        let continuations = expected["continuations"].as_array().unwrap();
        assert_eq!(question.requests.len(), continuations.len(), "{place}");
        for (at, request) in question.requests.iter().enumerate() {
            let context = match &expected["context"] {
                Value::Array(contexts) => &contexts[at],
                context => context,
            };
            assert_eq!(Value::from(&*request.context), *context, "{place}");
            assert_eq!(
                Value::from(request.continuation.as_str()),
                continuations[at],
                "{place}"
            );
        }
        match &question.gold {
            Gold::Choices(gold) => assert_eq!(json!(gold), expected["gold"], "{place}"),
            Gold::None => assert_eq!(expected.get("gold"), None, "{place}"),
        }
        let count = question.requests.len();
        outcomes.push(
            (0..count)
                .map(|choice| outcome(question.document, choice))
                .collect(),
        );
    }
    let result = questions.result(&outcomes).unwrap();
    assert_eq!(Value::from(result.version.as_str()), *version, "{place}");
    let metrics = run["metrics"].as_object().unwrap();
    assert_eq!(result.metrics.len(), metrics.len(), "{place}");
    for metric in &result.metrics {
        let name = &metric.metric.name;
        let expected = &metrics[name];
        let place = format!("{place}, {name}");
        near(metric.metric.value, &expected["value"], &place);
        match metric.metric.stderr {
            None => assert!(expected["stderr"].is_null(), "{place}"),
            Some(stderr) => near(stderr, &expected["stderr"], &place),
        }
        let higher = Value::from(metric.metric.higher_is_better);
        assert_eq!(higher, expected["higher_is_better"], "{place}");
        let values = expected["values"].as_array().unwrap();
        assert_eq!(metric.values.len(), values.len(), "{place}");
        for (value, expected) in metric.values.iter().zip(values) {
            near(*value, expected, &place);
        }
    }
}

/// Equal but for the last bits, in which exponential functions differ.
#[track_caller]
fn near(found: f64, expected: &Value, place: &str) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= 1e-14 * expected.abs(),
        "{place}: {found} {expected}"
    );
}

#[test]
fn reads_nested_parquet_columns_as_json() {
    for (name, file) in [
        ("arc_easy", "ai2_arc/ARC-Easy/test-00000-of-00001.parquet"),
        (
            "truthfulqa_mc2",
            "truthfulqa/truthful_qa/multiple_choice/validation-00000-of-00001.parquet",
        ),
    ] {
        let folder = TempDir::new();
        let bytes = std::fs::read(fixtures().join(format!("{name}.parquet"))).unwrap();
        folder.write(file, bytes);
        let found = questions(name, &folder).unwrap();
        let fixture = fixture(name);
        check(name, &found, &fixture["runs"][0], &fixture["version"]);
    }
}

#[test]
fn rolling_texts_are_scored_whole() {
    let fixture = fixture("custom_rolling");
    let folder = TempDir::new();
    write_rows(&folder, "custom/test.jsonl", &fixture["splits"]["test"]);
    let path = folder.write("task.yaml", fixture["definition"].as_str().unwrap());
    let mut tasks = Tasks::built_in();
    tasks.add_file(&path).unwrap();
    let plan = tasks.select(&["custom_rolling"], None).unwrap();
    let questions = plan.tasks[0]
        .questions(&folder, &QuestionOptions::default())
        .unwrap();
    assert_eq!(questions.kind(), RequestKind::Text);
}

#[test]
fn another_seed_draws_other_examples() {
    let fixture = fixture("arc_easy");
    let folder = TempDir::new();
    for (split, rows) in fixture["splits"].as_object().unwrap() {
        write_rows(&folder, &format!("arc_easy/{split}.jsonl"), rows);
    }
    let plan = plan("arc_easy", 2);
    let context = |seed| {
        let options = QuestionOptions {
            limit: Some(1),
            seed,
        };
        let questions = plan.tasks[0].questions(&folder, &options).unwrap();
        questions.iter().next().unwrap().requests[0].context.clone()
    };
    assert_eq!(context(1234), context(1234));
    assert_ne!(context(1234), context(1235));
}

#[test]
fn outcomes_have_the_number_of_requests() {
    let fixture = fixture("piqa");
    let folder = TempDir::new();
    write_rows(
        &folder,
        "piqa/validation.jsonl",
        &fixture["splits"]["validation"],
    );
    let questions = questions("piqa", &folder).unwrap();
    let one = Outcome {
        sum: -1.0,
        is_greedy: false,
        truncated: 0,
    };
    for outcomes in [vec![], vec![vec![one; 2]; 9], vec![vec![one; 3]; 10]] {
        let problem = questions.result(&outcomes).unwrap_err().to_string();
        assert_eq!(
            problem,
            "outcomes: expected one per request of 10 questions"
        );
    }
}

/// lm-eval at dc90fec keeps the end of a question with a blank; version 3.0 keeps its beginning.
#[test]
fn race_v2_keeps_the_end_of_a_blank() {
    let folder = TempDir::new();
    let problem = |question: &str| json!({"question": question, "answer": "B", "options": ["a", "b", "c", "d"]});
    let problems = json!([problem("He is  _  ."), problem("Who?"), problem("Why?")]).to_string();
    let rows = json!([{"article": "Text.", "problems": problems}]);
    for (name, first) in [("race", "He is b"), ("race_v2", " _  .b")] {
        write_rows(&folder, &format!("{name}/high/test.jsonl"), &rows);
        let questions = questions(name, &folder).unwrap();
        let context = &questions.iter().next().unwrap().requests[0].context;
        let expected = format!("Article: Text.\n\n{first}\nQuestion: Who?\nAnswer: b\nWhy?");
        assert_eq!(**context, *expected, "{name}");
    }
}
