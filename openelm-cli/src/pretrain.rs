//! `openelm pretrain`: trains a new model from random weights or continues from a model, in one or
//! several processes.

mod architecture;
mod data;
mod groups;
mod reports;
mod settings;
mod start;
mod unused;

use std::{path::PathBuf, time::Duration};

use openelm_core::{
    Config, Tokenizer,
    pretrain::{Pretrain, PretrainOptions},
    train::Group,
};
use serde_json::json;

use crate::{
    corenet_yaml, curves,
    error::Error,
    given::Given,
    hosts,
    interrupt::Interrupt,
    output, ranks,
    settings::{Layered, exponent},
    training::{self, Reports},
};
use settings::Settings;

/// Arguments of `openelm pretrain`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    /// TOML file with settings, named like the long options below (`batch-size = 32`), the
    /// architecture under `[model]` with the names of config.json (`model_dim = 192`), or CoreNet's
    /// .yaml; options on the command line override it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The former form of --config.
    #[arg(value_name = "CONFIG", hide = true, conflicts_with = "config")]
    config_file: Option<PathBuf>,

    /// Resume the run in the output folder from its last checkpoint
    #[arg(long)]
    resume: bool,

    /// Describe the run and measure a few steps, without training
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,

    /// Print each event as a JSON object on one line
    #[arg(long)]
    json: bool,

    /// No progress bar and no reports
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    settings: Layered<Settings>,
}

const EXAMPLES: &str = "Examples:
  openelm pretrain --config small.toml --dry-run
  openelm pretrain --config small.toml --iters 3000 --output small
  openelm pretrain --config small.toml --iters 3000 --output small --resume
  openelm pretrain --start-from small/average --data books.jsonl --iters 1000 \
    --learning-rate 3e-4 --output small-books
  openelm pretrain --config small.toml --processes 2
  mlx.launch --hostfile hosts.json -- openelm pretrain --config small.toml
  openelm generate --model small/model --prompt 'Once upon a time'";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let config = args.config.as_deref().or(args.config_file.as_deref());
    let corenet = corenet_yaml::of_pretraining(config)?;
    let (mut settings, in_file) = args.settings.over_either(config, corenet.as_ref())?;
    if let Some(corenet) = corenet.filter(|_| !args.quiet && !ranks::is_rank()) {
        corenet.show(config);
    }
    let given = args.given.and(in_file);
    unused::check(&settings, &given)?;
    if settings.process_timeout == 0 {
        let problem = "--process-timeout: expected at least 1, found 0";
        return Err(Error::Usage(problem.into()));
    }
    // The processes that this one starts find the files in the cache.
    settings.fetch(args.quiet || ranks::is_rank())?;
    if !args.resume && !args.dry_run {
        settings.check_output(config)?;
    }
    match settings.processes {
        Some(0) => {
            return Err(Error::Usage(
                "--processes: expected at least 1, found 0".into(),
            ));
        }
        Some(count) if count > 1 && !ranks::is_rank() && !args.dry_run => {
            let length = settings.max_seq_length.unwrap_or_default();
            settings.options(length)?.check(count)?;
            return ranks::run(count, &settings.output);
        }
        _ if !ranks::is_rank() && !args.dry_run => hosts::remove_from(&settings.output),
        _ => {}
    }
    let interrupt = Interrupt::default();
    ranks::follow_starter(&interrupt);
    let Some(place) = settings.tokenizer_path() else {
        return Err(Error::Usage(
            "no tokenizer; use --tokenizer PATH|REPO (train one with `openelm tokenizer train`)"
                .into(),
        ));
    };
    let tokenizer = Tokenizer::find(&place, Some(&place))?;
    let config = settings.config(&tokenizer)?;
    let tokenizer = tokenizer.with_model_vocab(config.vocab_size())?;
    unused::check_length(&settings, &given, &config)?;
    let options = settings.options(settings.sequence_length(&config))?;
    let result = if args.dry_run {
        options.check(settings.processes.unwrap_or(1))?;
        dry_run(&args, &settings, config, &tokenizer, options)
    } else {
        train(&args, &settings, config, &tokenizer, options, &interrupt)
    };
    result.map_err(|error| unused::with_given_size(error, &given))
}

fn train(
    args: &Args,
    settings: &Settings,
    config: Config,
    tokenizer: &Tokenizer,
    options: PretrainOptions,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let folder = settings.output.clone();
    let group = join_group(settings)?;
    let rank = group.as_ref().map_or(0, Group::rank);
    let world_size = group.as_ref().map_or(1, Group::size);
    let is_rank_zero = rank == 0;
    let quiet = args.quiet || !is_rank_zero;

    let source = data::source(settings, &config, tokenizer, rank, world_size)?;
    let validation = data::validation(settings, &config, tokenizer)?;
    if !quiet {
        show_run(
            &config,
            &options,
            settings.sequence_length(&config),
            world_size,
        );
        if !args.resume {
            start::show(settings)?;
        }
    }
    let begin = if args.resume {
        Pretrain::resume
    } else {
        Pretrain::new
    };
    let total = options.iters;
    let mut run = begin(config, source, validation, folder.as_path(), options, group)?;
    let cancel = run.cancel_handle();
    if world_size > 1 {
        // A process that ended alone would be an error of the others.
        interrupt.cancels(cancel.clone());
    }
    interrupt.listen()?;
    let reports = Reports {
        folder: &folder,
        quiet,
        json: args.json && is_rank_zero,
        every: settings.steps_per_report,
        total,
        done: run.iteration(),
    };
    training::show_start(args.resume, &reports);
    let ended = training::follow(run.by_ref(), &reports, &cancel, interrupt)?;
    if let Some(data) = run.data_statistics().filter(|_| !quiet) {
        data::show(&data, settings.shard_files && world_size > 1);
    }
    if is_rank_zero {
        let drawn = curves::draw_loss(&folder, "Pre-training")?;
        curves::draw_learning_rate(&folder, "Pre-training")?;
        if drawn && !quiet {
            let model = if folder.join("model").is_dir() {
                "model, "
            } else {
                ""
            };
            output::note(&format!(
                "{model}checkpoints, metrics.jsonl, loss.svg and learning_rate.svg are in {}",
                folder.display()
            ));
        }
    }
    ended.result(&folder, interrupt)
}

/// The process group, if the environment names one.
fn join_group(settings: &Settings) -> Result<Option<Group>, Error> {
    let patience = settings.process_timeout;
    ranks::join_group(Duration::from_secs(patience), move || {
        output::note(&format!(
            "openelm: another process of the group has not answered for {patience} seconds and \
             counts as lost; continue from the last checkpoint with --resume"
        ));
        // MLX waits for the lost process without end, so destructors must not run.
        signal_hook::low_level::exit(1);
    })
}

/// Steps of each size that a dry run measures, including the first.
const MEASURED: u64 = 4;

fn dry_run(
    args: &Args,
    settings: &Settings,
    config: Config,
    tokenizer: &Tokenizer,
    options: PretrainOptions,
) -> Result<(), Error> {
    let length = settings.sequence_length(&config);
    let processes = settings.processes.unwrap_or(1);
    if !args.quiet && !args.json {
        show_run(&config, &options, length, processes);
        start::show(settings)?;
    }
    let source = data::source(settings, &config, tokenizer, 0, 1)?;
    let per_step = (options.batch_size as u64).saturating_mul(length as u64);
    let averages = u64::from(options.trainer.ema_decay.is_some());
    let (iters, is_sharded) = (options.iters, options.fsdp);
    let measured = Pretrain::measure(config, source, options, processes, MEASURED)?;
    let steps = iters.saturating_sub(measured.first_iteration);
    let seconds = measured.seconds_per_step * steps as f64;
    // Weights, gradient, two moments, and the moving average.
    let whole = measured.parameters * 4 * (4 + averages);
    // The measured process has no others, and keeps all of the state.
    let parts = if is_sharded { processes as u64 } else { 1 };
    let state = whole / parts.max(1);
    let peak = measured.peak_bytes.saturating_sub(whole - state);
    let per_second = measured.targets_per_step / measured.seconds_per_step;
    if args.json {
        return output::write_json(&json!({
            "parameters": measured.parameters,
            "steps": steps,
            "processes": processes,
            "tokens_per_step": per_step,
            "tokens": steps.saturating_mul(per_step),
            "state_bytes": state,
            "peak_memory_bytes": peak,
            "seconds_per_step": measured.seconds_per_step,
            "tokens_per_second": per_second,
            "seconds": seconds,
        }));
    }
    let (each, devices) = match processes {
        1 => (String::new(), String::new()),
        count => (
            " in each process".to_owned(),
            format!(" with {count} devices like this one, without their transfers"),
        ),
    };
    output::write(
        format!(
            "memory      {} at most{each}, {} of it weights, gradients and moments\n\
             per step    {:.3} s, {per_second:.0} tokens/s ({} steps measured)\n\
             total       {}{devices}\n",
            output::bytes(peak),
            output::bytes(state),
            measured.seconds_per_step,
            MEASURED - 1,
            duration(seconds),
        )
        .as_bytes(),
    )
}

fn show_run(config: &Config, options: &PretrainOptions, length: usize, processes: usize) {
    let parameters = config.parameter_count();
    let embedding = (config.vocab_size() * config.model_dim()) as u64;
    let per_step = (options.batch_size as u64).saturating_mul(length as u64);
    output::note(&format!(
        "{} parameters, {} of them embeddings; {} layers of width {}",
        output::grouped(parameters),
        output::grouped(embedding),
        config.num_transformer_layers(),
        config.model_dim(),
    ));
    let rows = options
        .micro_batch_size
        .min(options.batch_size / processes.max(1));
    output::note(&format!(
        "{} steps of {} sequences of {length} tokens ({} rows at a time{}): {} tokens per \
         step, {} in total",
        output::grouped(options.iters),
        options.batch_size,
        rows,
        match processes {
            1 => String::new(),
            count => format!(" in each of {count} processes"),
        },
        output::grouped(per_step),
        output::grouped(per_step.saturating_mul(options.iters)),
    ));
    let schedule = &options.trainer.schedule;
    output::note(&format!(
        "peak learning rate {} after {} warm-up steps",
        exponent(schedule.learning_rate),
        output::grouped(schedule.warmup),
    ));
}

/// Seconds as readable text.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
