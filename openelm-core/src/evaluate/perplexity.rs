//! Perplexity of documents.

use std::path::PathBuf;

use super::{
    documents::{Documents, no_text},
    encoded_request::EncodedRequest,
    scorer::Scorer,
    standard_error::standard_error,
    windows::WindowOptions,
};
use crate::error::{Error, Result};

/// Tokens of documents that are scored together.
const TOKENS: usize = 4096;

/// Options of [`perplexity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerplexityOptions {
    /// Windows of a document.
    pub windows: WindowOptions,
    /// Score EOS at the end of each document too. Default false.
    pub add_eos: bool,
    /// Key of the text in JSON rows and parquet columns. Default `text`.
    pub text_key: String,
}

impl Default for PerplexityOptions {
    fn default() -> Self {
        Self {
            windows: WindowOptions::default(),
            add_eos: false,
            text_key: "text".to_owned(),
        }
    }
}

/// The perplexity of documents, over all their tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Perplexity {
    /// Number of documents.
    pub documents: usize,
    /// Number of scored tokens; BOS is none of them.
    pub tokens: usize,
    /// Length of the documents in UTF-8, in bytes.
    pub bytes: usize,
    /// Negative log-likelihood of all tokens, in nats.
    pub nats: f64,
    /// Negative log-likelihood and number of tokens of each document.
    of_documents: Vec<(f64, usize)>,
    /// As `of_documents` for each window of the first document.
    of_windows: Vec<(f64, usize)>,
}

impl Perplexity {
    /// Nats per token; NaN without tokens.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// The exponential of the nats per token.
    pub fn perplexity(&self) -> f64 {
        self.nats_per_token().exp()
    }

    /// Bits per byte of text. Its tokens' EOS is counted in the bits and not in the bytes.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }

    /// Standard error of the nats per token, over documents; of a single document over its windows,
    /// and `None` if it has one window.
    pub fn standard_error(&self) -> Option<f64> {
        match &*self.of_documents {
            [_] => standard_error(&self.of_windows),
            documents => standard_error(documents),
        }
    }

    /// Standard error of the perplexity: the standard error of the nats per token times the
    /// perplexity (delta method).
    pub fn perplexity_standard_error(&self) -> Option<f64> {
        let error = self.standard_error()?;
        Some(error * self.perplexity())
    }

    /// Nats per token of this result minus those of `other`, another model's on the same documents,
    /// with the standard error of the difference: over pairs of documents, or of windows of a single
    /// document. `None` if the tokens differ, or for a single pair.
    pub fn difference(&self, other: &Self) -> Option<(f64, f64)> {
        let (first, second) = match &*self.of_documents {
            [_] => (&self.of_windows, &other.of_windows),
            _ => (&self.of_documents, &other.of_documents),
        };
        if first.len() != second.len() {
            return None;
        }
        let pairs: Option<Vec<_>> = first
            .iter()
            .zip(second)
            .map(|(&(nats, tokens), &(others, same))| {
                (tokens == same).then_some((nats - others, tokens))
            })
            .collect();
        let error = standard_error(&pairs?)?;
        Some((self.nats_per_token() - other.nats_per_token(), error))
    }

    /// Scores the next few of `texts`. Special tokens in a text are plain text; a text without tokens
    /// is skipped. Returns false if none was left.
    ///
    /// # Errors
    /// Those of `texts`; [`Error::Option`] if an option is out of range; those of [`Scorer::score`].
    pub(crate) fn score_some<E: From<Error>>(
        &mut self,
        scorer: &mut Scorer<'_>,
        texts: &mut impl Iterator<Item = Result<String>>,
        options: &PerplexityOptions,
    ) -> Result<bool, E> {
        let model = scorer.model();
        let tokenizer = model.tokenizer().literal();
        let (mut bytes, mut requests, mut tokens) = (Vec::new(), Vec::new(), 0);
        while tokens < TOKENS
            && let Some(text) = texts.next().transpose()?
        {
            let mut ids = vec![tokenizer.bos_id()];
            ids.extend(tokenizer.encode(&text)?);
            if options.add_eos {
                ids.push(tokenizer.eos_id());
            }
            if ids.len() > 1 {
                let request = EncodedRequest::in_windows(model, &ids, &options.windows)?;
                tokens += request.tokens();
                requests.push(request);
                bytes.push(text.len());
            }
        }
        let mut results = vec![Vec::new(); requests.len()];
        scorer.score(&requests, |index, result| {
            results[index] = result.token_logprobs;
            Ok::<_, E>(())
        })?;
        for ((bytes, request), logprobs) in bytes.into_iter().zip(&requests).zip(results) {
            self.add(bytes, request, &logprobs);
        }
        Ok(!requests.is_empty())
    }

    fn add(&mut self, bytes: usize, request: &EncodedRequest, logprobs: &[f32]) {
        let nats = |logprobs: &[f32]| -logprobs.iter().map(|&x| f64::from(x)).sum::<f64>();
        if self.documents == 0 {
            let mut rest = logprobs;
            for length in request.windows() {
                let (window, after) = rest.split_at(length.min(rest.len()));
                self.of_windows.push((nats(window), length));
                rest = after;
            }
        }
        let nats = nats(logprobs);
        self.documents += 1;
        self.tokens += logprobs.len();
        self.bytes += bytes;
        self.nats += nats;
        self.of_documents.push((nats, logprobs.len()));
    }
}

/// Scores the documents of `files`: jsonl, txt, gz, zst and parquet files, folders of them and
/// patterns. A text file is one document. Special tokens in a document are plain text; a document
/// without tokens is skipped. `each` receives the result so far after every few documents.
///
/// # Errors
/// The error of the first file or row that cannot be read; [`Error::Option`] if an option is out of
/// range or no document has a token; those of [`Scorer::score`] and of `each`.
pub fn perplexity<E: From<Error>>(
    scorer: &mut Scorer<'_>,
    files: &[PathBuf],
    options: &PerplexityOptions,
    mut each: impl FnMut(&Perplexity) -> Result<(), E>,
) -> Result<Perplexity, E> {
    let mut documents = Documents::open(files, &options.text_key)?;
    let mut found = Perplexity::default();
    while found.score_some::<E>(scorer, &mut documents, options)? {
        each(&found)?;
    }
    if found.tokens == 0 {
        return Err(no_text(files).into());
    }
    Ok(found)
}
