//! `openelm score`: log-likelihoods of continuations and texts.

mod rows;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use openelm_core::{
    evaluate::{EncodedRequest, LogLikelihood, Scorer, WindowOptions},
    memory,
    output::{check_inputs, write_file},
};
use serde_json::json;

use crate::{
    adapters::AdapterArgs, bar::bar, copied_keys::line_start, error::Error, interrupt::Interrupt,
    model::ModelArgs, output,
};
use rows::{Request, Row, Rows};

/// Arguments of `openelm score`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    /// File of JSON lines with a `context` and a `continuation` each, or with a `text`; `-` reads
    /// standard input [default: standard input, unless it is a terminal]
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,

    /// File of the results, written when all are complete [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Largest number of tokens of a text that the model reads at once [default: its context]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Number of tokens that each window of a text after the first one scores; the others are
    /// context [default: the window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,

    /// Add the ids and log-probabilities of the scored tokens
    #[arg(long)]
    token_logprobs: bool,

    /// No progress bar and no statistics
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm score --model OpenELM-270M --jsonl questions.jsonl --output scores.jsonl
  echo '{\"context\": \"The sky is\", \"continuation\": \" blue\"}' | openelm score --model OpenELM-270M";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    args.model.fetch(args.quiet)?;
    args.adapters.fetch(args.quiet)?;
    let output = args.output.as_deref();
    let inputs = args.jsonl.as_deref().map(|file| ("--jsonl", file));
    if let Some(path) = output {
        let model = ("--model", &*args.model.model);
        let inputs = inputs.into_iter().chain(args.adapters.inputs());
        check_inputs(path, [model].into_iter().chain(inputs))?;
    }
    let rows = Rows::read(args.jsonl.as_deref())?;
    let mut model = args.model.load(args.quiet)?;
    args.adapters.add_to(&mut model)?;
    let context = model.model().config().max_context_length();
    let windows = WindowOptions {
        window: args.window,
        stride: args.stride.or(args.window).or(Some(context)),
    };
    windows.check(model.model().config())?;
    let started = Instant::now();
    // All rows are checked before the first result.
    let encoded: Result<Vec<_>, _> = rows
        .as_slice()
        .iter()
        .map(|row| {
            let encoded = match &row.request {
                Request::Continuation(request) => EncodedRequest::of_continuation(&model, request),
                Request::Text(text) => EncodedRequest::of_text(&model, text, &windows),
            };
            encoded.map_err(|error| rows.error(row.line, &error))
        })
        .collect();
    let encoded = encoded?;
    let mut scorer = Scorer::new(&model)?;
    let interrupt = Interrupt::cancelling(scorer.cancel_handle())?;
    let bar = bar(args.quiet, "{pos}/{len} {wide_bar} {eta} left");
    bar.set_length(encoded.len() as u64);
    let mut totals = Totals::default();
    // Results come by context; the output has the order of the rows.
    let mut complete = BTreeMap::new();
    let mut next = 0;
    let mut file = String::new();
    let scored = scorer.score(&encoded, |index, result| {
        totals.add(&result);
        complete.insert(index, result);
        while let Some(result) = complete.remove(&next) {
            if let Some(row) = rows.as_slice().get(next) {
                let line = line(row, &result, args.token_logprobs);
                match output {
                    Some(_) => file.push_str(&line),
                    None => output::write(line.as_bytes())?,
                }
            }
            next += 1;
            bar.set_position(next as u64);
        }
        Ok::<_, Error>(())
    });
    bar.finish_and_clear();
    if !args.quiet {
        totals.print(started.elapsed(), interrupt.signal().is_some())?;
    }
    match scored {
        Err(Error::Core(error)) => interrupt.result(Err(error))?,
        other => other?,
    }
    match output {
        Some(path) => Ok(write_file(path, file)?),
        None => Ok(()),
    }
}

/// The line of a result.
fn line(row: &Row, result: &LogLikelihood, token_logprobs: bool) -> String {
    let mut object = json!({
        "logprob": result.sum,
        "is_greedy": result.is_greedy,
        "tokens": result.tokens.len(),
    });
    match &row.request {
        Request::Continuation(_) => object["truncated"] = json!(result.truncated),
        Request::Text(text) => object["bytes"] = json!(text.len()),
    }
    if token_logprobs {
        object["token_ids"] = json!(result.tokens);
        object["token_logprobs"] = json!(result.token_logprobs);
    }
    let added = output::json_line(&object);
    line_start(&row.copied) + added.trim_start_matches('{')
}

/// Sums of all results.
#[derive(Default)]
struct Totals {
    results: usize,
    tokens: usize,
    truncated: usize,
}

impl Totals {
    fn add(&mut self, result: &LogLikelihood) {
        self.results += 1;
        self.tokens += result.tokens.len();
        self.truncated += usize::from(result.truncated > 0);
    }

    fn print(&self, time: Duration, interrupted: bool) -> Result<(), Error> {
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        output::note(&format!(
            "[{} results{}] {} tokens scored; {:.2} results/s; contexts truncated: {}; peak memory: {}",
            self.results,
            if interrupted { ", interrupted" } else { "" },
            self.tokens,
            self.results as f64 / seconds,
            self.truncated,
            output::bytes(memory::peak_resident_bytes()?),
        ));
        Ok(())
    }
}
