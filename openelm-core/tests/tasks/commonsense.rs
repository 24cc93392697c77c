//! The tasks of CommonSense-170k, as CoreNet's `corenet-eval-llmadapters` asks them.

use openelm_core::evaluate::task::{Gold, QuestionOptions, Tasks};
use openelm_testing::TempDir;
use serde_json::json;

use crate::{outcome, write_rows};

const INSTRUCTION: &str = "Please choose the correct ending to complete the given sentence: It's\n\n\
    Ending1: a Ending2: b Ending3: c\n\nAnswer format: ending1/ending2/ending3";

/// CoreNet's template: the text after the instruction.
const END: &str = "
                
                ### Response:
                ";

#[test]
fn questions_have_corenets_prompt() {
    let folder = TempDir::new();
    let boolq = "Is it?\n\nAnswer format: true/false";
    let rows = json!([
        {"instruction": INSTRUCTION, "input": "", "output": "the correct answer is ending2",
         "answer": "ending2"},
        {"instruction": boolq, "input": "", "output": "the correct answer is false",
         "answer": "false"},
        {"instruction": boolq, "input": "", "output": "", "answer": "maybe"},
    ]);
    let bytes = rows.to_string();
    folder.write("LLM-Adapters/dataset/hellaswag/test.json", bytes);
    let plan = Tasks::built_in()
        .select(&["commonsense_170k_hellaswag"], Some(5))
        .unwrap();
    assert_eq!(plan.tasks[0].num_fewshot(), 0);
    let questions = plan.tasks[0]
        .questions(&folder, &QuestionOptions::default())
        .unwrap();
    let found: Vec<_> = questions.iter().collect();
    let start = "Below is an instruction that describes a task. Write a response that appropriately \
        completes the request.  \n\n                ### Instruction:\n                ";
    assert_eq!(
        *found[0].requests[0].context,
        *format!("{start}{INSTRUCTION}{END}")
    );
    let continuations: Vec<_> = found[0]
        .requests
        .iter()
        .map(|request| request.continuation.as_str())
        .collect();
    assert_eq!(
        continuations,
        [
            "the correct answer is ending1",
            "the correct answer is ending2",
            "the correct answer is ending3",
        ]
    );
    assert_eq!(
        found[1].requests[0].continuation,
        "the correct answer is true"
    );
    let gold: Vec<_> = found.iter().map(|question| question.gold.clone()).collect();
    assert_eq!(gold, [vec![1], vec![1], vec![]].map(Gold::Choices));
    let outcomes: Vec<_> = found
        .iter()
        .map(|question| {
            (0..question.requests.len())
                .map(|choice| outcome(0, choice))
                .collect()
        })
        .collect();
    // The first choice is the most likely one.
    assert_eq!(
        questions
            .result(&outcomes)
            .unwrap()
            .metric("acc")
            .unwrap()
            .value,
        0.0
    );
}

#[test]
fn rejects_other_answer_formats() {
    let folder = TempDir::new();
    let rows = json!([{"instruction": "What?\nAnswer format: x", "input": "", "answer": "x"}]);
    write_rows(&folder, "commonsense_170k_piqa/test.jsonl", &rows);
    let problem = crate::questions("commonsense_170k_piqa", &folder)
        .unwrap_err()
        .to_string();
    assert!(
        problem.contains("`doc_to_choice`: document 1 of "),
        "{problem}"
    );
    assert!(problem.ends_with("solution1/…, found `x`"), "{problem}");
}
