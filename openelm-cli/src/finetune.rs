//! `openelm finetune`: LoRA, DoRA, full fine-tuning and DPO, with a live bar, metrics and a plot.

mod data;
mod reports;
mod settings;

use std::path::PathBuf;

use openelm_core::finetune::{DataSplits, Finetune};
use serde_json::json;

use crate::{
    bar::TrainingBar, curves, error::Error, interrupt::Interrupt, model::ModelArgs, output,
    settings::read,
};
use settings::Settings;

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

const EXAMPLES: &str = "Examples:
  openelm finetune --model OpenELM-270M --data stories --iters 600 --learning-rate 1e-4
  openelm finetune --model OpenELM-270M --data qa --mask-prompt --fine-tune-type dora --rank 16
  openelm finetune --model OpenELM-270M --config lora.toml --resume
  openelm finetune --model OpenELM-270M --data pairs --dpo hinge --learning-rate 2e-5
  openelm generate --model OpenELM-270M --adapter adapters --prompt 'Once upon a time'";

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let settings = match &args.config {
        Some(file) => args.settings.over(read(file)?),
        None => args.settings,
    };
    let Some(data) = settings.data.clone() else {
        return Err(Error::Usage("no data; give --data FOLDER".into()));
    };
    let options = settings.options()?;
    let folder = settings.adapter_path.clone();
    let folder = folder.unwrap_or_else(|| "adapters".into());

    let model = args.model.load(args.quiet)?;
    let interrupt = Interrupt::install()?;
    let data = DataSplits::read(
        &data,
        model.tokenizer(),
        &options,
        &settings.data_options()?,
    )?;
    if !args.quiet {
        data.iter().for_each(data::show_counts);
    }
    let DataSplits { train, valid, test } = data;

    let adapter = settings.adapter(&model, options.trainer.seed)?;
    let begin = match args.resume {
        true => Finetune::resume,
        false => Finetune::new,
    };
    let mut run = begin(
        model.model(),
        adapter,
        train.data,
        valid.map(|split| split.data),
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
    let mut bar = TrainingBar::new(
        args.quiet || args.json,
        every,
        options.iters,
        run.iteration(),
    );
    for event in run.by_ref() {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                bar.end();
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
            output::write_json(&reports::to_json(&event))?;
        }
        reports::show(&mut bar, &event);
    }
    bar.end();
    if let Some(test) = test {
        let loss = run.evaluate(&test.data)?;
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
