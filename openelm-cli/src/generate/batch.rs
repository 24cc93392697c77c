//! Texts of the rows of `--prompts`, several at the same time.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use openelm_core::{
    CancelHandle, LanguageModel,
    chat::ChatTemplate,
    generation::{
        DraftModel, Event, FinishReason, GenerateOptions, Generation, Stats, advance, seed_of_text,
    },
    memory,
};
use serde_json::json;

use super::{
    prompt::PromptKind,
    rows::{Prompt, Row, Rows},
    text_options::TextOptions,
    written::Sink,
};
use crate::{
    bar::bar,
    copied_keys::line_start,
    error::Error,
    interrupt::Interrupt,
    output::{self, without_controls},
};

/// Default of `--batch-size`.
pub(super) const DEFAULT_SIZE: usize = 8;

/// Largest --batch-size: each text has its own keys and values.
const MAX_SIZE: usize = 1024;

/// Refuses a --batch-size out of range.
pub(super) fn check_size(size: usize) -> Result<(), Error> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    let problem = format!("--batch-size: expected 1 to {MAX_SIZE}, found {size}");
    Err(Error::Usage(problem))
}

/// The texts of all rows.
pub(super) struct Batch<'a> {
    pub(super) model: &'a LanguageModel,
    pub(super) template: ChatTemplate,
    pub(super) draft: Option<DraftModel>,
    pub(super) rows: &'a Rows,
    /// Options of the rows that have none of their own.
    pub(super) options: GenerateOptions,
    pub(super) kind: PromptKind,
    /// The options of the texts, which the output must have.
    pub(super) recorded: TextOptions,
    pub(super) size: usize,
    pub(super) quiet: bool,
}

/// Sums of all texts.
#[derive(Default)]
struct Totals {
    texts: usize,
    prompt_tokens: usize,
    generated_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
}

impl Batch<'_> {
    /// Generates the texts that `output` does not have yet, and writes each as soon as all before it
    /// are complete.
    pub(super) fn run(&self, output: Option<&Path>) -> Result<(), Error> {
        // All rows are checked before the first text.
        for row in self.rows.as_slice() {
            self.start(row)?;
        }
        let (mut sink, done) = Sink::open(self.rows, &self.recorded, output)?;
        let cancel = CancelHandle::default();
        let interrupt = Interrupt::cancelling(cancel.clone())?;
        let started = Instant::now();
        let mut totals = Totals::default();
        let result = self.generate(&mut sink, done, &cancel, &mut totals);
        if !self.quiet {
            let speculates = self.options.prompt_lookup > 0 || self.draft.is_some();
            totals.print(started.elapsed(), cancel.is_cancelled(), speculates)?;
        }
        result?;
        interrupt.check()
    }

    fn generate(
        &self,
        sink: &mut Sink,
        done: usize,
        cancel: &CancelHandle,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let bar = bar(self.quiet, "{pos}/{len} {wide_bar} {eta} left");
        bar.set_length(self.rows.len() as u64);
        bar.set_position(done as u64);
        bar.reset_eta();
        let mut waiting = self.rows.as_slice().iter().enumerate().skip(done);
        let mut running: Vec<(usize, &Row, Generation<'_>)> = Vec::new();
        let mut complete = BTreeMap::new();
        let mut next = done;
        // The first row that failed. The rows before it are completed.
        let mut failed: Option<(usize, Error)> = None;
        while !cancel.is_cancelled() {
            while running.len() < self.size
                && failed.is_none()
                && let Some((index, row)) = waiting.next()
            {
                running.push((index, row, self.start(row)?));
            }
            if running.is_empty() {
                break;
            }
            advance(
                &mut running
                    .iter_mut()
                    .map(|(_, _, text)| text)
                    .collect::<Vec<_>>(),
            );
            for (index, row, generation) in &mut running {
                while let Some(event) = generation.ready_event() {
                    match event {
                        Ok(Event::Finished { reason, stats }) => {
                            let line = self.line(row, generation.text(), reason, stats);
                            complete.insert(*index, line);
                            totals.add(&stats);
                        }
                        Ok(_) => {}
                        Err(_) if failed.as_ref().is_some_and(|(first, _)| first < index) => {}
                        Err(error) => {
                            let problem = Error::from(error).message(&command());
                            failed = Some((*index, self.rows.error(row.line, problem)));
                        }
                    }
                }
            }
            let end = failed.as_ref().map_or(usize::MAX, |(first, _)| *first);
            running.retain(|(index, _, text)| *index < end && !text.has_ended());
            while let Some(line) = complete.remove(&next) {
                sink.write(&line)?;
                next += 1;
                bar.set_position(next as u64);
            }
        }
        bar.finish_and_clear();
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The generation of a row.
    fn start(&self, row: &Row) -> Result<Generation<'_>, Error> {
        let wrong = |error: Error| match error {
            // An option of the command line is at fault.
            Error::Core(openelm_core::Error::Option { option, .. })
                if !row.sets(option) && option != "messages" =>
            {
                error
            }
            Error::Core(error) => self.rows.error(row.line, error),
            other => other,
        };
        let tokens = match &row.prompt {
            Prompt::Text(text) => self.kind.encode(self.model, self.template, text),
            Prompt::Messages(messages) => {
                let tokens = self.template.tokens(self.model.tokenizer(), messages);
                tokens.map_err(Error::from)
            }
        };
        let mut options = self.options.clone();
        if let Some(max_tokens) = row.max_tokens {
            options.max_tokens = max_tokens;
        }
        if let Some(stop) = &row.stop {
            options.stop.clone_from(stop);
        }
        options.sampling.seed = row.seed.or_else(|| {
            let seed = options.sampling.seed?;
            Some(seed_of_text(seed, row.index))
        });
        let (model, tokenizer) = (self.model.model(), Some(self.model.tokenizer()));
        let generation =
            tokens.and_then(|tokens| Ok(Generation::new(model, tokenizer, tokens, options)?));
        let generation = generation.and_then(|generation| match &self.draft {
            Some(draft) => Ok(generation.with_draft(draft)?),
            None => Ok(generation),
        });
        generation.map_err(wrong)
    }

    /// The line of the output.
    fn line(&self, row: &Row, text: &str, reason: FinishReason, stats: Stats) -> String {
        let mut added = json!({
            "text": text,
            "finish_reason": reason.as_str(),
            "prompt_tokens": stats.prompt_tokens,
            "generated_tokens": stats.generated_tokens,
        });
        if row.seed.is_none() && self.options.sampling.temperature > 0.0 {
            added["seed"] = json!(stats.seed);
        }
        let added = without_controls(&added.to_string());
        let added = added.strip_prefix('{').unwrap_or(&added);
        format!("{}{added}\n", line_start(&row.copied))
    }
}

/// The command, whose options an error names.
fn command() -> clap::Command {
    <super::Args as clap::Args>::augment_args(clap::Command::new("generate"))
}

impl Row {
    /// True if the row sets the core's `option`.
    fn sets(&self, option: &str) -> bool {
        match option {
            "max_tokens" => self.max_tokens.is_some(),
            "stop" => self.stop.is_some(),
            "seed" => self.seed.is_some(),
            _ => false,
        }
    }
}

impl Totals {
    fn add(&mut self, stats: &Stats) {
        self.texts += 1;
        self.prompt_tokens += stats.prompt_tokens;
        self.generated_tokens += stats.generated_tokens;
        self.drafted_tokens += stats.drafted_tokens;
        self.accepted_tokens += stats.accepted_tokens;
    }

    fn print(&self, time: Duration, interrupted: bool, speculates: bool) -> Result<(), Error> {
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        output::note(&format!(
            "[{} texts{}] prompts: {} tokens; generated: {} tokens, {:.1} tokens/s; {}peak memory: {}",
            self.texts,
            if interrupted { ", interrupted" } else { "" },
            self.prompt_tokens,
            self.generated_tokens,
            self.generated_tokens as f64 / seconds,
            if speculates {
                let (accepted, drafted) = (self.accepted_tokens, self.drafted_tokens);
                format!("accepted drafts: {accepted} of {drafted}; ")
            } else {
                String::new()
            },
            output::bytes(memory::peak_resident_bytes()?),
        ));
        Ok(())
    }
}
