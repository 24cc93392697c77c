//! `openelm evaluate`: scores on tasks, perplexity of texts, and the difference between two models.

mod candidate;
mod compare;
mod picture;
mod results;
mod samples;
mod table;
mod tasks;
mod texts;

use std::{
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use openelm_core::{
    CancelHandle,
    evaluate::{
        Divergence, Perplexity, PerplexityOptions, WindowOptions, check_documents,
        check_vocabularies,
        task::{GroupResult, Plan, PlannedTask, QuestionOptions, TaskResult, Tasks},
    },
    output::{check_inputs, write_file},
};
use serde_json::{Map, Value, json};

use crate::{
    adapters::{AdapterArgs, fetch_adapters},
    error::Error,
    given::Given,
    hub::{self, Files},
    interrupt::Interrupt,
    model::ModelArgs,
    output,
    paths::Paths,
};
use candidate::Candidate;
use table::{Row, table};
use tasks::{TaskQuestions, keys};
use texts::Texts;

/// Arguments of `openelm evaluate`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    /// Tasks, groups of tasks (zero-shot, openllm, llm360, mmlu, commonsense_170k) or tags,
    /// separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1..)]
    tasks: Vec<String>,

    /// Task of your own: a YAML file in lm-eval's format; may be repeated
    #[arg(long, value_name = "FILE")]
    task: Vec<PathBuf>,

    /// Folder of the tasks' data sets, such as a cache of the Hugging Face Hub [default: they are
    /// downloaded into the Hub's cache]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// Examples before each question [default: the task's or group's number]
    #[arg(long, visible_alias = "num-fewshot", value_name = "N")]
    num_shots: Option<usize>,

    /// Number of documents per task, the first ones [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Seed for the choice of examples
    #[arg(long, default_value_t = QuestionOptions::default().seed, value_name = "N")]
    seed: u64,

    /// Texts whose perplexity is measured: jsonl, txt, gz, zst or parquet files, folders of them, or
    /// data sets of the Hub
    #[arg(long, value_name = "FILES", value_parser = Paths::parser(), num_args = 1..)]
    perplexity: Vec<Paths>,

    /// For --perplexity: tokens of a text that the model reads at once [default: its context]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// For --perplexity: tokens that each window after the first one scores; its other tokens are
    /// context [default: all]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,

    /// For --perplexity: key of the text in rows and columns
    #[arg(long, value_name = "KEY", default_value_t = PerplexityOptions::default().text_key)]
    text_key: String,

    /// Model to compare with, a folder or repository: differences with 95 % confidence intervals
    #[arg(long, value_name = "PATH|REPO")]
    against: Option<PathBuf>,

    /// Adapter of the model of --against, or PATH=STRENGTH; may be repeated
    #[arg(long, value_name = "PATH|REPO", requires = "against")]
    against_adapter: Vec<String>,

    /// Folder for results.json, a file of samples per task, and a picture of the scores; the same
    /// command continues an interrupted evaluation
    #[arg(long, short, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,

    /// Print results.json in place of the table
    #[arg(long)]
    json: bool,

    /// Print no progress bar
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm evaluate --model OpenELM-270M --adapter adapters --against OpenELM-270M --perplexity test.jsonl
  openelm evaluate --model OpenELM-270M --tasks zero-shot --data datasets
  openelm evaluate --model OpenELM-270M --tasks arc_easy --num-shots 5 --limit 100 --data datasets
  openelm evaluate --model OpenELM-270M-4bit --against OpenELM-270M --tasks piqa --data datasets";

/// The scores of a model.
struct Scores {
    /// Name of the model for people.
    name: String,
    tasks: Vec<TaskResult>,
    groups: Vec<GroupResult>,
    perplexity: Option<Perplexity>,
    /// Members of results.json that describe the model.
    about: Map<String, Value>,
}

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    let interrupt = Interrupt::default();
    interrupt.listen()?;
    let quiet = args.quiet;
    args.model.fetch(quiet)?;
    args.adapters.fetch(quiet)?;
    if let Some(against) = &mut args.against {
        *against = hub::local(against, &Files::Model, quiet)?;
    }
    fetch_adapters(&mut args.against_adapter, quiet)?;
    let session = Session::new(&args, &interrupt)?;
    let started = Instant::now();
    let folder = args.output_dir.as_deref();
    if let Some(folder) = folder {
        let inputs = [
            Some(&args.model.model),
            args.against.as_ref(),
            args.data.as_ref(),
        ];
        let names = ["--model", "--against", "--data"];
        let inputs = names.into_iter().zip(inputs);
        check_inputs(
            folder,
            inputs.filter_map(|(name, path)| Some((name, path?.as_path()))),
        )?;
    }
    let candidate = Candidate {
        folder: &args.model.model,
        is_other: false,
        adapters: args.adapters.given(),
        output: folder.map(Path::to_owned),
    };
    let other = args.against.as_deref().map(|other| Candidate {
        folder: other,
        is_other: true,
        adapters: &args.against_adapter,
        output: folder.map(|folder| folder.join("against")),
    });
    // Faults of the other model are found before the first score. The divergence needs both models
    // in memory, scores of tasks only one.
    let mut loaded = None;
    if let Some(other) = &other {
        loaded = Some(other.load(&session)?).filter(|_| session.texts.is_some());
    }
    let model = candidate.load(&session)?;
    if let Some(other) = &loaded {
        check_vocabularies(other, &model)?;
    }
    let scores = candidate.scores(&session, &model)?;
    let (mut against, mut divergence) = (None, None);
    if let Some(candidate) = &other {
        let kept = session.texts.is_some().then_some(model);
        let other = match loaded {
            Some(other) => other,
            None => candidate.load(&session)?,
        };
        against = Some(candidate.scores(&session, &other)?);
        if let (Some(texts), Some(model)) = (&session.texts, &kept) {
            let cancel = CancelHandle::default();
            interrupt.cancels(cancel.clone());
            let found = texts.divergence(&other, model, &cancel);
            divergence = Some(session.result(found)?);
        }
    }

    let mut rows = compare::rows(&session.plan, &scores, against.as_ref())?;
    if let (Some(texts), Some(found)) = (&session.texts, &scores.perplexity) {
        let other = against.as_ref().and_then(|other| other.perplexity.as_ref());
        rows.extend(texts.rows(found, other, divergence.as_ref()));
    }
    let seconds = started.elapsed().as_secs_f64();
    let json = session.report(
        &scores,
        against.as_ref(),
        &rows,
        divergence.as_ref(),
        seconds,
    );
    if let Some(folder) = folder {
        let path = folder.join("results.json");
        write_file(&path, format!("{json:#}\n").into_bytes())?;
        picture::draw(folder, &session, &scores, against.as_ref())?;
    }
    let shown = if args.json {
        output::write_json(&json)
    } else {
        output::write(table(&rows).as_bytes())
    };
    shown.map_err(|error| {
        error.unreported(|| match folder {
            Some(folder) => format!("the results are in {}", folder.display()),
            None => "the results are lost".into(),
        })
    })
}

/// The tasks and texts of a command, for one model or two.
struct Session<'a> {
    args: &'a Args,
    plan: Plan,
    tasks_questions: Vec<TaskQuestions>,
    texts: Option<Texts>,
    interrupt: &'a Interrupt,
}

impl<'a> Session<'a> {
    fn new(args: &'a Args, interrupt: &'a Interrupt) -> Result<Self, Error> {
        let mut tasks = Tasks::built_in();
        let mut names = args.tasks.clone();
        for file in &args.task {
            names.push(tasks.add_file(file)?);
        }
        let without_tasks = ["data", "num-shots", "limit", "seed"];
        args.given.check(&[
            (names.is_empty(), &without_tasks[..], "without --tasks"),
            (
                args.perplexity.is_empty(),
                &["window", "stride", "text-key"][..],
                "without --perplexity",
            ),
        ])?;
        if names.is_empty() && args.perplexity.is_empty() {
            let problem = "--tasks: expected tasks, or the texts of --perplexity, found none";
            return Err(Error::Usage(problem.into()));
        }
        if args.limit == Some(0) {
            return Err(Error::Usage("--limit: expected at least 1, found 0".into()));
        }
        let plan = if names.is_empty() {
            Plan::default()
        } else {
            tasks.select(&names, args.num_shots)?
        };
        let mut tasks_questions = Vec::new();
        if !names.is_empty() {
            let data = &match &args.data {
                Some(data) => data.clone(),
                None => {
                    let sets = plan.tasks.iter().map(PlannedTask::dataset);
                    hub::task_data(sets, args.quiet)?
                }
            };
            let options = QuestionOptions {
                limit: args.limit,
                seed: args.seed,
            };
            for (task, key) in plan.tasks.iter().zip(keys(&plan)) {
                if task.examples_can_repeat_question() && !args.quiet {
                    output::note(&format!(
                        "{key}: a question can be among its own examples, as in lm-eval; \
                         `fewshot_split` in the definition excludes it"
                    ));
                }
                let questions = task.questions(data, &options)?;
                tasks_questions.push(TaskQuestions { key, questions });
            }
        }
        let files = hub::local_all(Paths::all(&args.perplexity), &Files::Dataset, args.quiet)?;
        if !files.is_empty() {
            check_documents(&files, &args.text_key)?;
        }
        let options = PerplexityOptions {
            windows: WindowOptions {
                window: args.window,
                stride: args.stride,
            },
            text_key: args.text_key.clone(),
            ..PerplexityOptions::default()
        };
        let quiet = args.quiet;
        let texts = (!files.is_empty()).then_some(Texts {
            files,
            options,
            quiet,
        });
        Ok(Self {
            args,
            plan,
            tasks_questions,
            texts,
            interrupt,
        })
    }

    /// The result of work that a signal may have cancelled.
    fn result<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match result {
            Err(Error::Core(error)) => self.interrupt.result(Err(error)),
            result => result,
        }
    }

    /// The object of results.json.
    fn report(
        &self,
        scores: &Scores,
        against: Option<&Scores>,
        rows: &[Row],
        divergence: Option<&Divergence>,
        seconds: f64,
    ) -> Value {
        let mut json = results::tasks_json(&self.plan, &scores.tasks, &scores.groups);
        if let (Some(texts), Some(found)) = (&self.texts, &scores.perplexity) {
            json.insert("perplexity".into(), texts.json(found, divergence));
        }
        let mut config = scores.about.clone();
        config.insert("limit".into(), json!(self.args.limit));
        config.insert("fewshot_seed".into(), json!(self.args.seed));
        json.insert("config".into(), config.into());
        if let Some(against) = against {
            json.insert("comparison".into(), compare::comparison_json(against, rows));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let date = now.map_or(0.0, |now| now.as_secs_f64());
        json.insert("date".into(), json!(date));
        json.insert("model_source".into(), json!("openelm"));
        json.insert("model_name".into(), json!(scores.name));
        json.insert("openelm_version".into(), json!(env!("CARGO_PKG_VERSION")));
        json.insert("total_evaluation_time_seconds".into(), json!(seconds));
        json.into()
    }
}

fn file_name(path: &Path) -> String {
    let name = || {
        path.file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
    };
    hub::name_of_snapshot(path).unwrap_or_else(|| name().into_owned())
}
