//! Groups: selection and averages.

use openelm_core::evaluate::task::{
    MetricResult, MetricValue, PairedDifference, QuestionOptions, TaskResult, Tasks,
};
use openelm_testing::TempDir;
use serde_json::Value;

use crate::{fixture, write_rows};

fn result(
    name: &str,
    metric: &str,
    value: f64,
    stderr: Option<f64>,
    documents: usize,
) -> TaskResult {
    TaskResult {
        name: name.into(),
        version: String::new(),
        num_fewshot: 0,
        documents,
        requests: 0,
        truncated: 0,
        metrics: vec![MetricValue {
            metric: MetricResult {
                name: metric.into(),
                value,
                stderr,
                higher_is_better: true,
            },
            values: Vec::new(),
        }],
    }
}

#[test]
fn subjects_and_averages_of_mmlu_equal_lm_evals() {
    let fixture = fixture("mmlu");
    let folder = TempDir::new();
    for (split, rows) in fixture["splits"].as_object().unwrap() {
        write_rows(&folder, &format!("mmlu/{split}.jsonl"), rows);
    }
    let subjects = fixture["subjects"].as_object().unwrap();
    let plan = Tasks::built_in().select(&["mmlu"], None).unwrap();
    assert_eq!((plan.tasks.len(), subjects.len()), (57, 57));
    let mut results = Vec::new();
    for task in &plan.tasks {
        let subject = &subjects[task.name()];
        let dataset = format!("cais/mmlu ({})", subject["dataset_name"].as_str().unwrap());
        assert_eq!(task.dataset(), dataset);
        let options = QuestionOptions {
            limit: Some(1),
            ..QuestionOptions::default()
        };
        let questions = task.questions(&folder, &options).unwrap();
        let context = &questions.iter().next().unwrap().requests[0].context;
        assert_eq!(Value::from(&**context), subject["context"]);
        let made_up = &fixture["results"][task.name()];
        let number = |at: usize| made_up[at].as_f64().unwrap();
        let size = made_up[2].as_u64().unwrap() as usize;
        results.push(result(task.name(), "acc", number(0), Some(number(1)), size));
    }
    let groups = plan.group_results(&results).unwrap();
    let expected = fixture["groups"].as_object().unwrap();
    assert_eq!((groups.len(), expected.len()), (5, 5));
    for (group, planned) in groups.iter().zip(&plan.groups) {
        let expected = &expected[&group.name];
        let mut names: Vec<_> = planned
            .tasks
            .iter()
            .map(|&at| plan.tasks[at].name())
            .collect();
        names.sort_unstable();
        assert_eq!(serde_json::json!(names), expected["tasks"]);
        assert_eq!(Value::from(group.documents), expected["documents"]);
        let near = |found: f64, key: &str| (found - expected[key].as_f64().unwrap()).abs() < 1e-14;
        assert!(near(group.metrics[0].value, "acc"), "{group:?}");
        assert!(
            near(group.metrics[0].stderr.unwrap(), "stderr"),
            "{group:?}"
        );
    }
}

/// Zero-shot figures of OpenELM-270M and the averages that Apple reports for them.
#[test]
fn the_papers_averages_are_reproduced() {
    let tasks = Tasks::built_in();
    for (group, values, average) in [
        (
            "zero-shot",
            vec![
                ("arc_challenge", 0, "acc_norm", 26.45),
                ("arc_easy", 0, "acc_norm", 45.08),
                ("boolq", 0, "acc", 53.98),
                ("hellaswag", 0, "acc_norm", 46.71),
                ("piqa", 0, "acc_norm", 69.75),
                ("sciq", 0, "acc", 84.70),
                ("winogrande", 0, "acc", 53.91),
            ],
            54.37,
        ),
        (
            "openllm",
            vec![
                ("arc_challenge", 25, "acc_norm", 27.65),
                ("hellaswag", 10, "acc_norm", 47.15),
                ("mmlu", 5, "acc", 25.72),
                ("truthfulqa_mc2", 0, "acc", 39.24),
                ("winogrande", 5, "acc", 53.83),
            ],
            38.72,
        ),
        (
            "llm360",
            vec![
                ("arc_challenge", 25, "acc_norm", 27.65),
                ("crows_pairs_english", 25, "pct_stereotype", 66.79),
                ("hellaswag", 10, "acc_norm", 47.15),
                ("mmlu", 5, "acc", 25.72),
                ("piqa", 0, "acc_norm", 69.75),
                ("race_v2", 0, "acc", 30.91),
                ("truthfulqa_mc2", 0, "acc", 39.24),
                ("winogrande", 5, "acc", 53.83),
            ],
            45.13,
        ),
    ] {
        let plan = tasks.select(&[group], None).unwrap();
        let results: Vec<_> = plan
            .tasks
            .iter()
            .map(|task| {
                let name = match task.name() {
                    name if name.starts_with("mmlu_") => "mmlu",
                    name => name,
                };
                let (_, shots, metric, value) =
                    values.iter().find(|value| value.0 == name).unwrap();
                assert_eq!(task.num_fewshot(), *shots, "{group}: {name}");
                result(task.name(), metric, *value, Some(1.0), 10)
            })
            .collect();
        let groups = plan.group_results(&results).unwrap();
        let found = groups.last().unwrap();
        assert_eq!((found.name.as_str(), found.metrics.len()), (group, 1));
        assert_eq!(found.metrics[0].name, "average");
        assert!(
            (found.metrics[0].value - average).abs() < 0.0051,
            "{found:?}"
        );
    }
}

#[test]
fn selects_tasks_groups_and_tags_once() {
    let tasks = Tasks::built_in();
    let names = |selected: &[&str], shots| {
        let plan = tasks.select(selected, shots).unwrap();
        let tasks = plan.tasks.iter();
        tasks
            .map(|task| format!("{}:{}", task.name(), task.num_fewshot()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&["piqa", "piqa"], None), ["piqa:0"]);
    assert_eq!(
        names(&["ai2_arc"], Some(3)),
        ["arc_challenge:3", "arc_easy:3"]
    );
    // Fixed at 0 by the definition or the group.
    assert_eq!(names(&["truthfulqa_mc2"], Some(3)), ["truthfulqa_mc2:0"]);
    assert!(names(&["zero-shot"], Some(3)).contains(&"piqa:0".to_owned()));
    assert_eq!(names(&["zero-shot", "openllm"], None).len(), 7 + 60 + 1);
    assert_eq!(names(&["commonsense_170k"], None).len(), 8);
    let info = tasks.list();
    let counted = |is: fn(&Option<usize>) -> bool| info.iter().filter(|i| is(&i.tasks)).count();
    assert_eq!(counted(Option::is_none), 13 + 57 + 8);
    assert_eq!(counted(Option::is_some), 4 + 5);
}

#[test]
fn unknown_names_have_the_nearest_ones() {
    let tasks = Tasks::built_in();
    let problem = |name: &str| tasks.select(&[name], None).unwrap_err().to_string();
    assert_eq!(
        problem("arc-easy"),
        "tasks: expected the name of a task, found `arc-easy`; the nearest are `arc_easy`"
    );
    assert!(problem("hellaswagg").ends_with("the nearest are `hellaswag`"));
    assert_eq!(
        problem("qqqqqqqqqq"),
        "tasks: expected the name of a task, found `qqqqqqqqqq`"
    );
    assert!(tasks.select(&[""; 0], None).is_err());
}

#[test]
fn groups_of_files_average_their_tasks() {
    let scratch = TempDir::new();
    let mut tasks = Tasks::built_in();
    let group = "group: own\nnum_fewshot: 2\ntask:\n  - piqa\n  - {task: boolq, num_fewshot: 1}\n\
        aggregate_metric_list:\n  metric: acc\n  weight_by_size: false\n";
    let path = scratch.write("own.yaml", group);
    assert_eq!(tasks.add_file(&path).unwrap(), "own");
    let plan = tasks.select(&["own"], None).unwrap();
    let shots: Vec<_> = plan.tasks.iter().map(|task| task.num_fewshot()).collect();
    assert_eq!(shots, [2, 1]);
    let results = [
        result("piqa", "acc", 0.5, Some(0.3), 90),
        result("boolq", "acc", 0.25, Some(0.4), 10),
    ];
    let groups = plan.group_results(&results).unwrap();
    assert_eq!(groups[0].documents, 100);
    assert_eq!(groups[0].metrics[0].value, 0.375);
    assert_eq!(groups[0].metrics[0].stderr, Some(0.25));
    assert!(plan.group_results(&results[..1]).is_err());
    // A group in a group, under its own name.
    let group = "group: own\ntask:\n  - {group: inner, num_fewshot: 4, task: [piqa, {task: boolq, \
        task_alias: b}]}\n  - {group: mmlu_stem, task: [none]}\n";
    let path = scratch.write("own.yaml", group);
    tasks.add_file(&path).unwrap();
    let plan = tasks.select(&["own"], None).unwrap();
    let names: Vec<_> = plan
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(names, ["own::inner", "mmlu_stem", "own"]);
    assert_eq!(plan.groups[0].tasks, [0, 1]);
    assert_eq!((plan.tasks[0].num_fewshot(), plan.tasks.len()), (4, 2 + 19));
    for (text, expected) in [
        ("group: own\ntask: [own]\n", "at most 16 nested groups"),
        ("group: own\ntask: [nosuch]\n", "found `nosuch`"),
        (
            "group: own\ntask: [{metric: acc}]\n",
            "`task.task`: missing",
        ),
        ("group: own\ntask: piqa\nother: 1\n", "`other`: unknown key"),
        (
            "group: own\ntask: [piqa]\naggregate_metric_list: [{metric: average}]\n",
            "`piqa`: expected its `metric` for the average",
        ),
    ] {
        let path = scratch.write("own.yaml", text);
        let added = tasks
            .add_file(&path)
            .and_then(|_| tasks.select(&["own"], None));
        let problem = added.unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}: expected {expected}");
    }
}

/// Numbers of NumPy: mean, standard deviation with `ddof=1` over the root of the count.
#[test]
fn paired_differences_have_an_interval() {
    let first = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0];
    let second = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0];
    let found = PairedDifference::new(&first, &second).unwrap();
    assert!((found.difference - 1.0 / 6.0).abs() < 1e-15);
    assert!(
        (found.stderr - 0.307_318_148_576_429_9).abs() < 1e-15,
        "{found:?}"
    );
    assert!(
        (found.low - (found.difference - 0.602_332_503_3)).abs() < 1e-9,
        "{found:?}"
    );
    assert!((found.high - (found.difference + 0.602_332_503_3)).abs() < 1e-9);
    assert_eq!(found.documents, 6);
    for (first, second) in [(&first[..1], &second[..1]), (&first[..3], &second[..2])] {
        assert!(PairedDifference::new(first, second).is_err());
    }
}
