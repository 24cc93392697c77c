//! `openelm finetune`: LoRA, DoRA, full fine-tuning and DPO, with a live bar, metrics and a plot.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openelm_core::{
    Adapter, LanguageModel, LoraOptions,
    adapter::{Keys, Targets},
    dataset::{Counts, DataFolder, Dataset, DatasetOptions, LongRows, PreferenceDataset},
    finetune::{Finetune, FinetuneEnd, FinetuneEvent, FinetuneOptions, TrainingData},
    train::{Optimizer, OptimizerKind, PreferenceLoss, Schedule, ScheduleKind, TrainerOptions},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    curves,
    error::Error,
    interrupt::Interrupt,
    model::ModelArgs,
    output,
    settings::{self, one_of},
};

/// Arguments of `openelm finetune`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Settings in a TOML file, by the long names of the options below (`batch-size = 4`); options
    /// given here count for more
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Go on with the run in the adapter folder from its last save
    #[arg(long)]
    resume: bool,

    /// Print one JSON object a line for each event
    #[arg(long)]
    json: bool,

    /// No bar and no reports
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    settings: Settings,
}

/// What a TOML file can hold as well.
#[derive(clap::Args, Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    /// Folder with train.jsonl, and valid.jsonl and test.jsonl if there are; or one file
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// Folder for the adapter, its metrics and the state to resume from [default: adapters]
    #[arg(long, value_name = "FOLDER")]
    adapter_path: Option<PathBuf>,

    /// Adapter to begin with, in place of a new one
    #[arg(long, value_name = "FOLDER")]
    start_from: Option<PathBuf>,

    /// What to train: lora, dora or full [default: lora]
    #[arg(long, value_name = "TYPE")]
    fine_tune_type: Option<String>,

    /// Width of the low-rank matrices [default: 8]
    #[arg(long, value_name = "N")]
    rank: Option<usize>,

    /// What the adapter's output is multiplied by [default: 20]
    #[arg(long, value_name = "X", conflicts_with = "alpha")]
    scale: Option<f32>,

    /// The scale in PEFT's and CoreNet's words: alpha / rank
    #[arg(long, value_name = "X")]
    alpha: Option<f32>,

    /// With --alpha: alpha / sqrt(rank), as rsLoRA has it
    #[arg(long, requires = "alpha")]
    rslora: bool,

    /// Share of the adapter's input that is dropped in training [default: 0]
    #[arg(long, value_name = "P")]
    dropout: Option<f32>,

    /// How many layers to train, from the last one back; -1 is all [default: 16, or all if there
    /// are fewer]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    num_layers: Option<i64>,

    /// Matrices to train, by their names' ends, separated by commas: qkv_proj,out_proj,proj_1,
    /// proj_2,token_embeddings [default: every projection]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    keys: Option<Vec<String>>,

    /// Matrices to train, by a regular expression for their whole names
    #[arg(long, value_name = "REGEX", conflicts_with = "keys")]
    keys_regex: Option<String>,

    /// Where the embedding is adapted: adapt the head that shares it, too, as mlx-lm does
    #[arg(long)]
    tied_head: bool,

    /// Iterations (batches) to train for [default: 1000]
    #[arg(long, value_name = "N")]
    iters: Option<u64>,

    /// Rows in a batch [default: 4]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,

    /// The most tokens in a row [default: 2048]
    #[arg(long, value_name = "N")]
    max_seq_length: Option<usize>,

    /// Longer rows: split them, or drop them; both are counted [default: split]
    #[arg(long, value_name = "HOW")]
    long_rows: Option<String>,

    /// Learn completions only, not prompts
    #[arg(long)]
    mask_prompt: bool,

    /// adam, adamw, sgd, lion or adafactor [default: adam]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,

    /// Learning rate [default: 1e-5]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,

    /// Course of the learning rate: constant, linear or cosine [default: constant]
    #[arg(long, value_name = "NAME")]
    lr_schedule: Option<String>,

    /// The learning rate at the end of a linear or cosine course [default: 0]
    #[arg(long, value_name = "X")]
    lr_end: Option<f64>,

    /// Updates in which the learning rate grows from 0 [default: 0]
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,

    /// Weight decay [default: 0]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f32>,

    /// Adam: correct the moments' start at zero, as PyTorch does
    #[arg(long)]
    bias_correction: bool,

    /// Batches whose gradients make one update [default: 1]
    #[arg(long, value_name = "N")]
    grad_accumulation_steps: Option<usize>,

    /// Longest gradient; longer ones are scaled down [default: no limit]
    #[arg(long, value_name = "X")]
    clip_norm: Option<f32>,

    /// Work out layers again for their gradients: less memory, more time
    #[arg(long)]
    grad_checkpoint: bool,

    /// Iterations between validations [default: 200]
    #[arg(long, value_name = "N")]
    steps_per_eval: Option<u64>,

    /// Batches of a validation; -1 is all [default: 25]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    val_batches: Option<i64>,

    /// Iterations between reports [default: 10]
    #[arg(long, value_name = "N")]
    steps_per_report: Option<u64>,

    /// Iterations between saves [default: 100]
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,

    /// End after this many validations in a row without a better one
    #[arg(long, value_name = "N")]
    patience: Option<u32>,

    /// Learn preferences from prompt, chosen and rejected: sigmoid (DPO) or hinge
    #[arg(long, value_name = "LOSS")]
    dpo: Option<String>,

    /// With --dpo: how strongly the model is held to where it began [default: 0.01]
    #[arg(long, value_name = "X")]
    beta: Option<f32>,

    /// Seed of the adapter's start, the order of rows and dropout [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Batches, masks and their order as mlx_lm.lora has them, to compare with it
    #[arg(long)]
    mlx_lm_compat: bool,

    /// Measure the loss on the test data at the end
    #[arg(long)]
    test: bool,
}

const EXAMPLES: &str = "Examples:
  openelm finetune --model OpenELM-270M --data stories --iters 600 --learning-rate 1e-4
  openelm finetune --model OpenELM-270M --data qa --mask-prompt --fine-tune-type dora --rank 16
  openelm finetune --model OpenELM-270M --config lora.toml --resume
  openelm finetune --model OpenELM-270M --data pairs --dpo hinge --learning-rate 2e-5
  openelm generate --model OpenELM-270M --adapter adapters --prompt 'Once upon a time'";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let settings = match &args.config {
        Some(file) => args.settings.over(settings::read(file)?),
        None => args.settings,
    };
    let Some(data) = settings.data.clone() else {
        return Err(Error::Usage("no data; give --data FOLDER".into()));
    };
    let options = settings.options()?;
    let folder = settings.adapter_path.clone();
    let folder = folder.unwrap_or_else(|| "adapters".into());

    let data = DataFolder::open(&data)?;
    let model = args.model.load(args.quiet)?;
    let interrupt = Interrupt::install()?;
    let read = |file: &Path| read_data(file, &model, &settings, &options, args.quiet);
    let Some(train) = &data.train else {
        return Err(Error::Usage(
            "no training data: train.jsonl or train.txt".into(),
        ));
    };
    let train = read(train)?;
    let valid = data.valid.as_deref().map(read).transpose()?;
    let test = data.test.as_deref().filter(|_| settings.test);
    let test = test.map(read).transpose()?;

    let adapter = settings.adapter(&model, options.trainer.seed)?;
    let begin = match args.resume {
        true => Finetune::resume,
        false => Finetune::new,
    };
    let mut run = begin(
        model.model(),
        adapter,
        train,
        valid,
        &folder,
        options.clone(),
    )?;
    interrupt.cancels(run.cancel_handle());
    if !args.quiet {
        let whole = model.model().config().parameter_count();
        let trained = run.parameter_count();
        output::tell(&format!(
            "training {} of {} parameters ({:.3} %); {} batches see every row once",
            output::grouped(trained),
            output::grouped(whole),
            100.0 * trained as f64 / whole as f64,
            run.batches_per_epoch(),
        ));
    }
    let every = settings.steps_per_report.unwrap_or(10).max(1);
    let mut reports = Reports::new(
        args.quiet || args.json,
        every,
        options.iters,
        run.iteration(),
    );
    for event in run.by_ref() {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                reports.end();
                let saved = folder.join("training_state.safetensors").is_file();
                if saved && !args.quiet {
                    output::tell(&format!(
                        "the last save in {} is whole; --resume goes on from it",
                        folder.display()
                    ));
                }
                return Err(error.into());
            }
        };
        if args.json {
            output::write_json(&to_json(&event))?;
        }
        reports.take(&event);
    }
    reports.end();
    if let Some(test) = test {
        let loss = run.evaluate(&test)?;
        let line = json!({ "event": "test", "loss": loss, "perplexity": loss.exp() });
        match args.json {
            true => output::write_json(&line)?,
            false => output::tell(&format!(
                "test loss {loss:.4}, perplexity {:.3}",
                loss.exp()
            )),
        }
    }
    if curves::draw_loss(&folder, "Fine-tuning")? && !args.quiet {
        output::tell(&format!(
            "adapter, metrics.jsonl, loss.svg and loss.png are in {}",
            folder.display()
        ));
    }
    match interrupt.was_pressed() {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

impl Settings {
    /// These, and where they say nothing, `file`.
    fn over(self, file: Self) -> Self {
        macro_rules! merge {
            (options: $($option:ident)*; switches: $($switch:ident)*) => {
                Self {
                    $($option: self.$option.or(file.$option),)*
                    $($switch: self.$switch || file.$switch,)*
                }
            };
        }
        merge! {
            options: data adapter_path start_from fine_tune_type rank scale alpha dropout num_layers
                keys keys_regex iters batch_size max_seq_length long_rows optimizer learning_rate
                lr_schedule lr_end warmup weight_decay grad_accumulation_steps clip_norm
                steps_per_eval val_batches steps_per_report save_every patience dpo beta seed;
            switches: rslora tied_head mask_prompt bias_correction grad_checkpoint mlx_lm_compat test
        }
    }

    fn options(&self) -> Result<FinetuneOptions, Error> {
        let defaults = FinetuneOptions::default();
        let kind = one_of(
            "optimizer",
            self.optimizer.as_deref().unwrap_or("adam"),
            &[
                ("adam", OptimizerKind::Adam),
                ("adamw", OptimizerKind::AdamW),
                ("sgd", OptimizerKind::Sgd),
                ("lion", OptimizerKind::Lion),
                ("adafactor", OptimizerKind::Adafactor),
            ],
        )?;
        let iters = self.iters.unwrap_or(defaults.iters);
        let accumulated = self.grad_accumulation_steps.unwrap_or(1);
        let warmup = self.warmup.unwrap_or(0);
        let steps = (iters / accumulated.max(1) as u64)
            .saturating_sub(warmup)
            .max(1);
        let end = self.lr_end.unwrap_or(0.0);
        let course = one_of(
            "lr-schedule",
            self.lr_schedule.as_deref().unwrap_or("constant"),
            &[
                ("constant", ScheduleKind::Constant),
                ("linear", ScheduleKind::Linear { end, steps }),
                ("cosine", ScheduleKind::Cosine { end, steps }),
            ],
        )?;
        let preference = one_of(
            "dpo",
            self.dpo.as_deref().unwrap_or("sigmoid"),
            &[
                ("sigmoid", PreferenceLoss::Sigmoid),
                ("hinge", PreferenceLoss::Hinge),
            ],
        )?;
        Ok(FinetuneOptions {
            trainer: TrainerOptions {
                optimizer: Optimizer {
                    weight_decay: self.weight_decay.unwrap_or(0.0),
                    bias_correction: self.bias_correction,
                    decay_vectors: self.mlx_lm_compat,
                    ..Optimizer::new(kind)
                },
                schedule: Schedule {
                    kind: course,
                    learning_rate: self.learning_rate.unwrap_or(1e-5),
                    warmup,
                    warmup_init: 0.0,
                },
                grad_accumulation_steps: accumulated,
                clip_norm: self.clip_norm,
                grad_checkpoint: self.grad_checkpoint,
                seed: self.seed.unwrap_or(0),
                ..TrainerOptions::default()
            },
            iters,
            batch_size: self.batch_size.unwrap_or(defaults.batch_size),
            max_seq_length: self.max_seq_length.unwrap_or(defaults.max_seq_length),
            steps_per_eval: self.steps_per_eval.unwrap_or(defaults.steps_per_eval),
            val_batches: match self.val_batches {
                None => defaults.val_batches,
                Some(count) => usize::try_from(count).ok(),
            },
            save_every: self.save_every.unwrap_or(defaults.save_every),
            patience: self.patience,
            preference: (preference, self.beta.unwrap_or(0.01)),
            mlx_lm_compat: self.mlx_lm_compat,
        })
    }

    /// What is trained, new or as it was left elsewhere.
    fn adapter(&self, model: &LanguageModel, seed: u64) -> Result<Adapter, Error> {
        if let Some(folder) = &self.start_from {
            return Ok(Adapter::load(folder)?);
        }
        let model = model.model();
        let layers = model.config().num_transformer_layers();
        let targets = Targets {
            num_layers: match self.num_layers {
                None => (layers > 16).then_some(16),
                Some(-1) => None,
                Some(count) => Some(usize::try_from(count).unwrap_or(0)),
            },
            keys: match (&self.keys, &self.keys_regex) {
                (Some(names), _) => Keys::Names(names.clone()),
                (None, Some(pattern)) => Keys::Regex(pattern.clone()),
                (None, None) => Keys::Linear,
            },
        };
        let kind = self.fine_tune_type.as_deref().unwrap_or("lora");
        let kinds = [("lora", Some(false)), ("dora", Some(true)), ("full", None)];
        let Some(dora) = one_of("fine-tune-type", kind, &kinds)? else {
            return Ok(Adapter::full(model, &targets)?);
        };
        let defaults = LoraOptions::default();
        let rank = self.rank.unwrap_or(defaults.rank);
        let scale = match self.alpha {
            Some(alpha) => LoraOptions::scale_of(alpha, rank, self.rslora),
            None => self.scale.unwrap_or(defaults.scale),
        };
        let options = LoraOptions {
            rank,
            scale,
            dropout: self.dropout.unwrap_or(defaults.dropout),
            dora,
            tied_head: self.tied_head,
        };
        Ok(Adapter::lora(model, &targets, &options, seed)?)
    }
}

fn read_data(
    file: &Path,
    model: &LanguageModel,
    settings: &Settings,
    options: &FinetuneOptions,
    quiet: bool,
) -> Result<TrainingData, Error> {
    let long_rows = [("split", LongRows::Split), ("drop", LongRows::Drop)];
    let long_rows = one_of(
        "long-rows",
        settings.long_rows.as_deref().unwrap_or("split"),
        &long_rows,
    )?;
    let how = DatasetOptions {
        max_length: options.max_seq_length,
        mask_prompt: settings.mask_prompt,
        long_rows,
        mlx_lm_compat: options.mlx_lm_compat,
    };
    let (data, counts) = if settings.dpo.is_some() {
        let read = PreferenceDataset::read(file, model.tokenizer(), &how)?;
        (TrainingData::Pairs(read.pairs().to_vec()), read.counts())
    } else {
        let read = Dataset::read(file, model.tokenizer(), &how)?;
        (
            TrainingData::Examples(read.examples().to_vec()),
            read.counts(),
        )
    };
    if !quiet {
        tell_counts(file, counts);
    }
    Ok(data)
}

fn tell_counts(file: &Path, counts: Counts) {
    let grouped = |number: usize| output::grouped(number as u64);
    let mut line = format!(
        "{}: {} rows, {} targets of {} tokens",
        file.display(),
        grouped(counts.rows),
        grouped(counts.targets),
        grouped(counts.tokens),
    );
    for (count, what) in [
        (counts.split, "too long and split"),
        (counts.dropped, "dropped"),
        (counts.truncated, "to be cut"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {} {what}", grouped(count)));
        }
    }
    output::tell(&line);
}

/// The live bar, or lines where there is no terminal.
struct Reports {
    bar: ProgressBar,
    quiet: bool,
    every: u64,
    iters: u64,
    losses: Vec<f32>,
    /// Targets and seconds since the last report.
    speed: (f64, f64),
    validated: Option<f64>,
}

impl Reports {
    fn new(quiet: bool, every: u64, iters: u64, done: u64) -> Self {
        let shown = !quiet && io::stderr().is_terminal();
        let target = match shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(iters), target);
        let style = "{pos}/{len} {wide_bar} {msg}, {eta} left";
        let bar = match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.set_position(done);
        bar.reset_eta();
        Self {
            bar,
            quiet,
            every,
            iters,
            losses: Vec::new(),
            speed: (0.0, 0.0),
            validated: None,
        }
    }

    fn tell(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::tell(line));
        }
    }

    fn take(&mut self, event: &FinetuneEvent) {
        match event {
            FinetuneEvent::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => {
                self.losses.push(step.loss);
                let targets = step.targets as f64;
                self.speed.0 += targets;
                self.speed.1 += targets / tokens_per_second;
                let loss = self.losses.iter().sum::<f32>() / self.losses.len() as f32;
                let per_second = self.speed.0 / self.speed.1;
                let memory = output::bytes(*peak_bytes);
                self.bar.set_position(step.iteration);
                let validated = self.validated.map(|loss| format!(" (valid {loss:.3})"));
                self.bar.set_message(format!(
                    "loss {loss:.3}{}, {per_second:.0} tokens/s, {memory}",
                    validated.unwrap_or_default()
                ));
                if step.iteration.is_multiple_of(self.every) || step.iteration == self.iters {
                    self.tell(&format!(
                        "iter {}: train loss {loss:.4}, learning rate {:.3e}, {per_second:.1} \
                         tokens/s, {} trained tokens, peak memory {memory}",
                        step.iteration,
                        step.learning_rate,
                        output::grouped(*trained_tokens),
                    ));
                    self.losses.clear();
                    self.speed = (0.0, 0.0);
                }
            }
            FinetuneEvent::Validation {
                iteration,
                loss,
                perplexity,
                best,
            } => {
                self.validated = Some(*loss);
                let best = if *best { ", the best so far" } else { "" };
                self.tell(&format!(
                    "iter {iteration}: validation loss {loss:.4}, perplexity {perplexity:.3}{best}"
                ));
            }
            FinetuneEvent::Finished {
                iteration, reason, ..
            } => match reason {
                FinetuneEnd::Patience => self.tell(&format!(
                    "ended after iteration {iteration}: validation gets no better"
                )),
                FinetuneEnd::Cancelled => self.tell(&format!(
                    "interrupted after iteration {iteration}, saved; --resume goes on"
                )),
                FinetuneEnd::Iterations => {}
            },
            _ => {}
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn to_json(event: &FinetuneEvent) -> serde_json::Value {
    match event {
        FinetuneEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => json!({
            "event": "step",
            "iteration": step.iteration,
            "train_loss": step.loss,
            "targets": step.targets,
            "learning_rate": step.learning_rate,
            "tokens_per_second": tokens_per_second,
            "trained_tokens": trained_tokens,
            "peak_memory_bytes": peak_bytes,
        }),
        FinetuneEvent::Validation {
            iteration,
            loss,
            perplexity,
            best,
        } => json!({
            "event": "validation",
            "iteration": iteration,
            "val_loss": loss,
            "perplexity": perplexity,
            "best": best,
        }),
        FinetuneEvent::Saved { iteration } => json!({ "event": "saved", "iteration": iteration }),
        FinetuneEvent::Finished {
            iteration,
            reason,
            best,
        } => json!({
            "event": "finished",
            "iteration": iteration,
            "reason": match reason {
                FinetuneEnd::Iterations => "iterations",
                FinetuneEnd::Patience => "patience",
                FinetuneEnd::Cancelled => "cancelled",
            },
            "best_iteration": best.map(|(iteration, _)| iteration),
            "best_val_loss": best.map(|(_, loss)| loss),
        }),
        _ => json!({ "event": "other" }),
    }
}
