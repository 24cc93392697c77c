//! Scores of a model on the questions of tasks.

use std::path::Path;

use openelm_core::{
    Error as CoreError,
    evaluate::{
        EncodedRequest, Scorer, WindowOptions,
        task::{Outcome, Plan, Question, Questions, RequestKind, TaskResult},
    },
};

use super::samples::{Samples, wrong};
use crate::{bar::bar, error::Error, output::note};

/// Questions whose tokens are held at once.
const BLOCK: usize = 256;

/// A planned task with its questions.
pub(super) struct TaskQuestions {
    /// Name of the task, with its shots if the plan has it twice.
    pub(super) key: String,
    pub(super) questions: Questions,
}

/// The keys of a plan's tasks.
pub(super) fn keys(plan: &Plan) -> Vec<String> {
    let count = |name: &str| plan.tasks.iter().filter(|task| task.name() == name).count();
    let key = |task: &openelm_core::evaluate::task::PlannedTask| match count(task.name()) {
        1 => task.name().to_owned(),
        _ => format!("{}_{}shot", task.name(), task.num_fewshot()),
    };
    plan.tasks.iter().map(key).collect()
}

/// Scores all questions with a model. Rows of questions that `folder` has are not computed again.
///
/// # Errors
/// As [`Samples::open`], and the errors of the scoring.
pub(super) fn evaluate(
    scorer: &mut Scorer<'_>,
    tasks_questions: &[TaskQuestions],
    folder: Option<&Path>,
    quiet: bool,
) -> Result<Vec<TaskResult>, Error> {
    let total: usize = tasks_questions
        .iter()
        .map(|task_questions| task_questions.questions.len())
        .sum();
    let bar = bar(quiet, "{pos}/{len} questions {wide_bar} {msg}, {eta} left");
    bar.set_length(total as u64);
    let results = tasks_questions.iter().map(|task_questions| {
        bar.set_message(task_questions.key.clone());
        let mut samples = Samples::open(folder, &task_questions.key, &task_questions.questions)?;
        let before = bar.position() + samples.outcomes.len() as u64;
        bar.set_position(before);
        bar.reset_eta();
        if !samples.outcomes.is_empty() && !quiet {
            let (done, total) = (samples.outcomes.len(), task_questions.questions.len());
            let key = &task_questions.key;
            bar.suspend(|| {
                note(&format!(
                    "{key}: {done} of {total} questions have a row already"
                ))
            });
        }
        answer(scorer, &task_questions.questions, &mut samples, &mut || {
            bar.inc(1)
        })?;
        let result = task_questions.questions.result(&samples.outcomes)?;
        samples.finish(&task_questions.questions, &result)?;
        if result.truncated > 0 {
            let (name, truncated, requests) =
                (&task_questions.key, result.truncated, result.requests);
            bar.suspend(|| {
                note(&format!(
                    "{name}: {truncated} of {requests} contexts are too long for the model and \
                     lose their beginning"
                ));
            });
        }
        Ok(result)
    });
    let results = results.collect();
    bar.finish_and_clear();
    results
}

/// Scores the questions that `samples` does not have, in blocks: the tokens of one are held.
fn answer(
    scorer: &mut Scorer<'_>,
    questions: &Questions,
    samples: &mut Samples,
    next: &mut dyn FnMut(),
) -> Result<(), Error> {
    let left: Vec<_> = questions.iter().skip(samples.outcomes.len()).collect();
    for block in left.chunks(BLOCK) {
        answer_block(scorer, questions, block, samples, next)?;
    }
    Ok(())
}

fn answer_block(
    scorer: &mut Scorer<'_>,
    questions: &Questions,
    left: &[&Question],
    samples: &mut Samples,
    next: &mut dyn FnMut(),
) -> Result<(), Error> {
    let end = samples.outcomes.len() + left.len();
    let model = scorer.model();
    let mut encoded = Vec::new();
    // The question of each request, and the number of its requests without a result.
    let mut places = Vec::new();
    let cancel = scorer.cancel_handle();
    for (index, question) in left.iter().enumerate() {
        if cancel.is_cancelled() {
            return Err(CoreError::Cancelled.into());
        }
        for (choice, request) in question.requests.iter().enumerate() {
            let request = match questions.kind() {
                RequestKind::Continuations => EncodedRequest::of_continuation(model, request),
                RequestKind::Text => EncodedRequest::of_text(
                    model,
                    &request.continuation,
                    &WindowOptions::rolling(model.model().config()),
                ),
            };
            encoded.push(request.map_err(|error| {
                let (document, request) = (question.document + 1, choice + 1);
                let place = format!("document {document}: request {request}");
                wrong(questions.path(), format!("{place}: {error}"))
            })?);
            places.push((index, choice));
        }
    }
    let mut outcomes: Vec<Vec<Option<Outcome>>> = left
        .iter()
        .map(|question| vec![None; question.requests.len()])
        .collect();
    let mut written = 0;
    scorer.score(&encoded, |index, result| -> Result<(), Error> {
        let place = places.get(index).copied().unwrap_or_default();
        if let Some(outcome) = outcomes
            .get_mut(place.0)
            .and_then(|row| row.get_mut(place.1))
        {
            *outcome = Some(Outcome::from(&result));
        }
        // Rows are in the order of the questions.
        while let (Some(question), Some(row)) = (left.get(written), outcomes.get(written)) {
            let Some(row) = row.iter().copied().collect::<Option<Vec<_>>>() else {
                break;
            };
            samples.push(question, row)?;
            written += 1;
            next();
        }
        Ok(())
    })?;
    if samples.outcomes.len() < end {
        return Err(CoreError::Cancelled.into());
    }
    Ok(())
}
