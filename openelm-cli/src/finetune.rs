//! `openelm finetune`: LoRA, DoRA, full fine-tuning and DPO, with a progress bar, metrics and a
//! plot.

mod data;
mod reports;
mod settings;
mod unused;

use std::path::PathBuf;

use openelm_core::{
    finetune::{DataSplits, Finetune},
    output::check_inputs,
};
use serde_json::json;

use crate::{
    corenet_yaml, curves,
    error::Error,
    generate::prompt,
    given::Given,
    interrupt::Interrupt,
    model::ModelArgs,
    output,
    settings::Layered,
    training::{self, Reports},
};
use settings::Settings;

/// Arguments of `openelm finetune`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    model: ModelArgs,

    /// TOML file with settings, named like the long options below (`batch-size = 4`), or the .yaml of
    /// CoreNet or the Alignment Handbook; options on the command line override it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Resume the run in the adapter folder from its last checkpoint
    #[arg(long)]
    resume: bool,

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
  openelm finetune --model OpenELM-270M --data stories --iters 600 --learning-rate 1e-4
  openelm finetune --model OpenELM-270M --data qa --mask-prompt --fine-tune-type dora --rank 16
  openelm finetune --model OpenELM-270M --config lora.toml --resume
  openelm finetune --model OpenELM-270M --data pairs --dpo hinge --learning-rate 2e-5
  openelm generate --model OpenELM-270M --adapter adapters --prompt 'Once upon a time'";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    let config = args.config.as_deref();
    let corenet = corenet_yaml::of_finetuning(config)?;
    let (mut settings, in_file) = args.settings.over_either(config, corenet.as_ref())?;
    if let Some(corenet) = corenet.as_ref().filter(|_| !args.quiet) {
        corenet.show(config);
    }
    let given = args.given.and(in_file);
    settings.check()?;
    unused::check(&settings, &given)?;
    if settings.data.is_none() {
        return Err(Error::Usage("no data; use --data PATH|REPO".into()));
    }
    // Reading does not depend on the number of batches.
    let options = settings.options(1);
    args.model.fetch(args.quiet)?;
    settings.fetch(args.quiet)?;
    let data = settings.data.clone().unwrap_or_default();
    let folder = settings.adapter_path.clone();
    if !args.resume {
        let start = settings.start_from.as_deref();
        let inputs = [
            ("--model", Some(args.model.model.as_path())),
            ("--tokenizer", args.model.tokenizer.as_deref()),
            ("--data", Some(data.as_path())),
            ("--start-from", start),
            ("--config", args.config.as_deref()),
        ];
        let given = inputs
            .into_iter()
            .filter_map(|(name, path)| Some((name, path?)));
        check_inputs(&folder, given)?;
    }

    let model = args.model.load_for_training(args.quiet)?;
    if let Some(corenet) = &corenet {
        corenet.check_model(args.config.as_deref(), model.model().config())?;
    }
    let data = DataSplits::read(&data, model.tokenizer(), &options, &settings.data_options())?;
    unused::check_data(&settings, &given, &data, model.model().config())?;
    if !args.quiet {
        data.iter().for_each(data::show_counts);
    }
    let DataSplits { train, valid, test } = data;
    let tuned = train.chat_template;
    let options = settings.options(train.batches_per_epoch(&options)? as u64);

    let adapter = settings.adapter(&model)?;
    let begin = if args.resume {
        Finetune::resume
    } else {
        Finetune::new
    };
    let iters = options.iters;
    let valid = valid.map(|split| split.data);
    let begun = begin(model.model(), adapter, train.data, valid, &folder, options);
    let mut run = begun.map_err(|error| settings.of_start(error))?;
    let cancel = run.cancel_handle();
    let interrupt = Interrupt::default();
    interrupt.listen()?;
    if !args.quiet {
        show_run(&run, model.model().config().parameter_count());
    }
    let reports = Reports {
        folder: &folder,
        quiet: args.quiet,
        json: args.json,
        every: settings.steps_per_report,
        total: iters,
        done: run.iteration(),
    };
    training::show_start(args.resume, &reports);
    let mut ended = training::follow(run.by_ref(), &reports, &cancel, &interrupt)?;
    if let Some(test) = test.filter(|_| ended.is_complete()) {
        // The run is saved, and this cannot be cancelled.
        interrupt.cancels_nothing();
        let loss = run.evaluate(&test.data)?;
        interrupt.cancels(cancel);
        ended.report(show_test_loss(loss, args.json), &interrupt);
    }
    if curves::draw_loss(&folder, "Fine-tuning")? && !args.quiet {
        output::note(&format!(
            "adapter, metrics.jsonl, loss.svg and loss.png are in {}",
            folder.display()
        ));
        let default = prompt::template(None, &args.model.model)?;
        if let Some(tuned) = tuned.filter(|tuned| *tuned != default) {
            output::note(&format!(
                "the rows use the template {tuned}; with this model, openelm chat needs \
                 --chat-template {tuned} (its default is {})",
                default.name(),
                tuned = tuned.name(),
            ));
        }
    }
    ended.result(&folder, &interrupt)
}

fn show_run(run: &Finetune, parameters: u64) {
    let trained = run.parameter_count();
    output::note(&format!(
        "training {} of {} parameters ({:.3} %); {} batches per epoch",
        output::grouped(trained),
        output::grouped(parameters),
        100.0 * trained as f64 / parameters as f64,
        run.batches_per_epoch(),
    ));
}

fn show_test_loss(loss: f64, json: bool) -> Result<(), Error> {
    let perplexity = loss.exp();
    if json {
        return output::write_json(
            &json!({ "event": "test", "loss": loss, "perplexity": perplexity }),
        );
    }
    output::note(&format!("test loss {loss:.4}, perplexity {perplexity:.3}"));
    Ok(())
}
