//! `openelm plot`: the losses or learning rates of several training runs in one picture.

mod run_log;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use openelm_core::output::write_file;

use crate::{
    chart::{Chart, Curve, RunCurves},
    error::Error,
    output,
};
use run_log::RunLog;

/// Arguments of `openelm plot`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Runs: output folders of pretrain or finetune, their metrics.jsonl, or logs of CoreNet
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Picture to write, as .svg and .png; the name may have one of these endings
    #[arg(long, short, value_name = "FILE", default_value = "plot")]
    output: PathBuf,

    /// Quantity to draw
    #[arg(long, value_name = "NAME", default_value_t = Quantity::Loss)]
    quantity: Quantity,

    /// Names of the runs, separated by commas [default: the names of their folders]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    names: Option<Vec<String>>,

    /// Heading
    #[arg(long, value_name = "TEXT", default_value = "Training runs")]
    title: String,

    /// Replace the files at --output
    #[arg(long)]
    force: bool,

    /// No report
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm plot small large --output losses
  openelm plot OpenELM-270M training_logs.txt --names 'openelm,CoreNet'";

/// A quantity of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Quantity {
    /// Cross-entropy
    Loss,
    /// Cross-entropy and z-loss
    TotalLoss,
    /// z-loss
    ZLoss,
    /// Learning rate
    LearningRate,
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    if let Some(names) = &args.names
        && names.len() != args.runs.len()
    {
        let (expected, found) = (args.runs.len(), names.len());
        let problem = format!("--names: expected {expected}, one per run, found {found}");
        return Err(Error::Usage(problem));
    }
    let pictures = ["svg", "png"].map(|ending| args.output.with_extension(ending));
    let ending = args.output.extension().unwrap_or_default();
    let is_picture = ["", "svg", "png"].iter().any(|known| ending == *known);
    if args.output.file_name().is_none() || !is_picture {
        let found = args.output.display();
        let problem =
            format!("--output: expected a file with the ending .svg or .png, found {found}");
        return Err(Error::Usage(problem));
    }
    let existing = pictures.iter().find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = existing.filter(|_| !args.force) {
        return Err(problem(path, "exists; --force replaces it".into()));
    }
    let logs = args.runs.iter().map(|run| RunLog::read(run));
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    // CoreNet's figures are means since the start of the program.
    let averaged = args.quantity != Quantity::LearningRate && logs.iter().any(RunLog::is_corenet);
    let mut curves = Vec::with_capacity(logs.len());
    for (place, (log, path)) in logs.iter().zip(&args.runs).enumerate() {
        let points = log.points(args.quantity, averaged);
        if points.is_empty() {
            return Err(problem(path, format!("has no {}", args.quantity)));
        }
        let given = args.names.as_ref().and_then(|names| names.get(place));
        curves.push(Curve {
            name: given.cloned().unwrap_or_else(|| name(path)),
            points,
            is_raw: !averaged && args.quantity != Quantity::LearningRate,
        });
    }
    let y_label = match args.quantity {
        Quantity::Loss => "cross-entropy (nats per token)",
        Quantity::TotalLoss => "cross-entropy + z-loss (nats per token)",
        Quantity::ZLoss => "z-loss",
        Quantity::LearningRate => "learning rate",
    };
    let chart = RunCurves {
        title: args.title,
        y_label: if averaged {
            format!("{y_label}, mean since the start")
        } else {
            y_label.to_owned()
        },
        curves,
    };
    let [svg, png] = &pictures;
    let drawn = |result: Result<Vec<u8>, String>, path: &Path| {
        let picture = result.map_err(|error| problem(path, error))?;
        write_file(path, picture).map_err(Error::from)
    };
    drawn(chart.svg().map(String::into_bytes), svg)?;
    drawn(chart.png(), png)?;
    if !args.quiet {
        output::note(&format!("wrote {} and {}", svg.display(), png.display()));
    }
    Ok(())
}

/// The name of a run: its folder, or the file if it has no name that says more.
fn name(path: &Path) -> String {
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let stem = stem.unwrap_or_else(|| path.display().to_string());
    let is_general = ["metrics", "training_logs", "logs"].contains(&stem.as_str());
    let folder = path.parent().and_then(Path::file_name);
    match folder.filter(|_| is_general) {
        Some(folder) => folder.to_string_lossy().into_owned(),
        None => stem,
    }
}

fn problem(path: &Path, problem: String) -> Error {
    Error::Settings {
        place: path.display().to_string(),
        problem,
    }
}
