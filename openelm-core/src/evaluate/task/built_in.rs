//! The built-in definitions, in the folder `tasks/`.

use std::{path::Path, sync::OnceLock};

use serde_json::{Map, Value};

use super::{tasks::Tasks, yaml};
use crate::error::{Error, Result};

/// All built-in tasks and groups.
#[expect(clippy::expect_used, reason = "a test reads all built-in definitions")]
pub(super) fn tasks() -> Tasks {
    static TASKS: OnceLock<Tasks> = OnceLock::new();
    TASKS
        .get_or_init(|| read_all().expect("the built-in definitions are valid"))
        .clone()
}

/// The text of a built-in file.
pub(super) fn source(path: &Path) -> Option<&'static str> {
    let file = FILES.iter().find(|(name, _)| path == Path::new(name));
    file.map(|(_, text)| *text)
}

fn read_all() -> Result<Tasks> {
    let mut tasks = Tasks::default();
    for (name, _) in FILES {
        let keys = yaml::read_built_in(name)?;
        match *name {
            SUBJECTS => add_subjects(&mut tasks, keys)?,
            _ if name.starts_with('_') => {}
            _ => _ = tasks.add(Path::new(name), keys)?,
        }
    }
    Ok(tasks)
}

/// MMLU's subjects by group, which differ in their name only.
const SUBJECTS: &str = "mmlu_subjects.yaml";

fn add_subjects(tasks: &mut Tasks, groups: Map<String, Value>) -> Result<()> {
    let source = Path::new(SUBJECTS);
    let wrong = || Error::config(source, "task", "expected lists of subjects");
    let template = yaml::read_built_in("_mmlu.yaml")?;
    for (group, subjects) in groups {
        for subject in subjects.as_array().ok_or_else(wrong)? {
            let subject = subject.as_str().ok_or_else(wrong)?;
            let words = subject.replace('_', " ");
            let about = "The following are multiple choice questions (with answers) about";
            let mut keys = template.clone();
            let name = format!("mmlu_{subject}");
            keys.insert("task".into(), name.into());
            keys.insert("tag".into(), format!("mmlu_{group}_tasks").into());
            keys.insert("dataset_name".into(), subject.into());
            keys.insert("description".into(), format!("{about} {words}.\n\n").into());
            tasks.add(source, keys)?;
        }
    }
    Ok(())
}

/// Names and texts of the files.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../tasks/", $name)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "_commonsense_170k.yaml",
    "_mmlu.yaml",
    "arc_challenge.yaml",
    "arc_easy.yaml",
    "boolq.yaml",
    "commonsense_170k.yaml",
    "commonsense_170k_arc_challenge.yaml",
    "commonsense_170k_arc_easy.yaml",
    "commonsense_170k_boolq.yaml",
    "commonsense_170k_hellaswag.yaml",
    "commonsense_170k_openbookqa.yaml",
    "commonsense_170k_piqa.yaml",
    "commonsense_170k_social_i_qa.yaml",
    "commonsense_170k_winogrande.yaml",
    "crows_pairs_english.yaml",
    "hellaswag.yaml",
    "llm360.yaml",
    "mmlu.yaml",
    "mmlu_humanities.yaml",
    "mmlu_other.yaml",
    "mmlu_social_sciences.yaml",
    "mmlu_stem.yaml",
    "mmlu_subjects.yaml",
    "openbookqa.yaml",
    "openllm.yaml",
    "piqa.yaml",
    "race.yaml",
    "race_v2.yaml",
    "sciq.yaml",
    "social_iqa.yaml",
    "truthfulqa_mc2.yaml",
    "winogrande.yaml",
    "zero-shot.yaml",
];
