//! Perplexity of texts, and the divergence of two models on them.

use std::path::PathBuf;

use openelm_core::{
    CancelHandle, LanguageModel,
    evaluate::{
        Divergence, Perplexity, PerplexityOptions, Scorer, divergence, perplexity,
        task::PairedDifference,
    },
};
use serde_json::{Value, json};

use super::table::Row;
use crate::{bar::bar, error::Error, output};

/// Texts to score, and the options of their windows.
pub(super) struct Texts {
    pub(super) files: Vec<PathBuf>,
    pub(super) options: PerplexityOptions,
    pub(super) quiet: bool,
}

impl Texts {
    /// The perplexity of a model.
    pub(super) fn perplexity(&self, scorer: &mut Scorer<'_>) -> Result<Perplexity, Error> {
        let bar = bar(self.quiet, "{spinner} {msg}");
        let found = perplexity(scorer, &self.files, &self.options, |found| {
            bar.set_message(format!(
                "{} documents, {} tokens, perplexity {:.3}",
                found.documents,
                output::grouped(found.tokens as u64),
                found.perplexity()
            ));
            bar.tick();
            Ok::<_, Error>(())
        });
        bar.finish_and_clear();
        found
    }

    /// The divergence of `model` from `reference`.
    pub(super) fn divergence(
        &self,
        reference: &LanguageModel,
        model: &LanguageModel,
        cancel: &CancelHandle,
    ) -> Result<Divergence, Error> {
        let bar = bar(self.quiet, "{spinner} {msg}");
        let each = |found: &Divergence| {
            bar.set_message(format!(
                "{} tokens, divergence {:.5} nats per token",
                output::grouped(found.tokens as u64),
                found.kl_per_token()
            ));
            bar.tick();
            Ok::<_, Error>(())
        };
        let (files, options) = (&self.files, &self.options);
        let found = divergence(reference, model, files, options, cancel, each);
        bar.finish_and_clear();
        found
    }

    /// Name of the texts in the table.
    fn name(&self) -> String {
        match self.files.as_slice() {
            [file] => super::file_name(file),
            files => format!("{} texts", files.len()),
        }
    }

    /// The rows of the table.
    pub(super) fn rows(
        &self,
        found: &Perplexity,
        against: Option<&Perplexity>,
        divergence: Option<&Divergence>,
    ) -> Vec<Row> {
        // Bits per byte are nats per token times a constant of the text.
        let difference = |factor: f64| {
            let (difference, stderr) = found.difference(against?)?;
            let (difference, stderr) = (difference * factor, stderr * factor);
            let documents = found.documents;
            Some(PairedDifference::with_stderr(difference, stderr, documents))
        };
        let row = |metric: &str, value: f64, stderr: Option<f64>, against| Row {
            name: self.name(),
            shots: None,
            number: Some(found.documents),
            metric: metric.into(),
            value,
            stderr,
            against,
        };
        let other = |value: fn(&Perplexity) -> f64, factor: Option<f64>| {
            Some((value(against?), factor.and_then(difference)))
        };
        let bits = found.bits_per_byte() / found.nats_per_token();
        let mut rows = vec![
            row(
                "nats_per_token",
                found.nats_per_token(),
                found.standard_error(),
                other(Perplexity::nats_per_token, Some(1.0)),
            ),
            row(
                "perplexity",
                found.perplexity(),
                found.perplexity_standard_error(),
                other(Perplexity::perplexity, None),
            ),
            row(
                "bits_per_byte",
                found.bits_per_byte(),
                None,
                other(Perplexity::bits_per_byte, Some(bits)),
            ),
        ];
        if let Some(divergence) = divergence {
            let (kl, error) = (divergence.kl_per_token(), divergence.standard_error());
            rows.push(row("kl_divergence", kl, error, None));
            rows.push(row(
                "same_top_token",
                divergence.top1_agreement(),
                None,
                None,
            ));
        }
        rows
    }

    /// The member `perplexity` of results.json.
    pub(super) fn json(&self, found: &Perplexity, divergence: Option<&Divergence>) -> Value {
        let mut json = json!({
            "files": self.files,
            "documents": found.documents,
            "tokens": found.tokens,
            "bytes": found.bytes,
            "nats_per_token": found.nats_per_token(),
            "nats_per_token_stderr": found.standard_error(),
            "perplexity": found.perplexity(),
            "perplexity_stderr": found.perplexity_standard_error(),
            "bits_per_byte": found.bits_per_byte(),
            "window": self.options.windows.window,
            "stride": self.options.windows.stride,
        });
        if let (Some(divergence), Some(object)) = (divergence, json.as_object_mut()) {
            object.insert("kl_divergence".into(), json!(divergence.kl_per_token()));
            let error = divergence.standard_error();
            object.insert("kl_divergence_stderr".into(), json!(error));
            object.insert("same_top_token".into(), json!(divergence.top1_agreement()));
        }
        json
    }
}
