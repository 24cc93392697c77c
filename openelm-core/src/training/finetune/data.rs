//! The data of a fine-tuning run: training, validation and test rows as token ids.

use std::path::{Path, PathBuf};

use super::{options::FinetuneOptions, order::Order, training_data::TrainingData};
use crate::{
    data::dataset::{Counts, DataFolder, Dataset, DatasetOptions, LongRows, PreferenceDataset},
    error::{Error, Result},
    tokenizer::{ChatTemplate, Tokenizer},
};

/// Options of reading data, in addition to the run's options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataOptions {
    /// Train on completions only, not on prompts. Default false.
    pub mask_prompt: bool,
    /// Treatment of rows with more than `max_seq_length` tokens. Default [`LongRows::Split`].
    pub long_rows: LongRows,
    /// Template of rows of messages, of preferences and of instructions. Default: as
    /// [`DatasetOptions::chat_template`].
    pub chat_template: Option<ChatTemplate>,
    /// Repair texts, as [`DatasetOptions::clean_text`]. Default false.
    pub clean_text: bool,
    /// Largest number of tokens of a long preference pair's prompt, as
    /// [`DatasetOptions::max_prompt_length`]. Default none.
    pub max_prompt_length: Option<usize>,
    /// Rows are preference pairs. Default false.
    pub preferences: bool,
    /// Also read the test rows. Default false.
    pub test: bool,
}

/// The data of a run, by purpose.
#[derive(Debug, Clone)]
pub struct DataSplits {
    /// Rows to train on.
    pub train: Split,
    /// Rows to validate on during training.
    pub valid: Option<Split>,
    /// Rows to test on after training.
    pub test: Option<Split>,
}

/// The rows of one file.
#[derive(Debug, Clone)]
pub struct Split {
    /// The file.
    pub path: PathBuf,
    /// Number of rows, tokens and targets.
    pub counts: Counts,
    /// The template of conversations and instructions; `None` for other rows and for preferences.
    pub chat_template: Option<ChatTemplate>,
    /// The rows.
    pub data: TrainingData,
}

impl DataSplits {
    /// Reads `path`: a folder for [`DataFolder::open`], or a file of training rows.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if there are no training rows; [`Error::Option`] for an option
    /// out of range; as [`DataFolder::open`], [`Dataset::read`] and [`PreferenceDataset::read`].
    pub fn read(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        run: &FinetuneOptions,
        options: &DataOptions,
    ) -> Result<Self> {
        run.check()?;
        let path = path.as_ref();
        let folder = DataFolder::open(path)?;
        let Some(train) = folder.train else {
            return Err(Error::MissingFile {
                path: path.into(),
                problem: "no training data: train.jsonl, train.json or train.txt".into(),
            });
        };
        if options.mask_prompt && options.preferences {
            let problem = "has no effect on preference pairs, whose prompts never are targets";
            return Err(Error::option("mask_prompt", problem));
        }
        if options.test && folder.test.is_none() {
            let problem = format!(
                "no test data: test.jsonl, test.json or test.txt in {}",
                path.display()
            );
            return Err(Error::option("test", problem));
        }
        let read = |path| Split::read(path, tokenizer, run, options);
        let test = folder.test.filter(|_| options.test);
        Ok(Self {
            train: read(train)?,
            valid: folder.valid.map(read).transpose()?,
            test: test.map(read).transpose()?,
        })
    }

    /// The splits, training rows first.
    pub fn iter(&self) -> impl Iterator<Item = &Split> {
        let rest = [&self.valid, &self.test];
        [&self.train].into_iter().chain(rest.into_iter().flatten())
    }
}

impl Split {
    /// Number of batches per epoch of a run with `options`.
    ///
    /// # Errors
    /// [`Error::Option`] if there are fewer rows than a batch has.
    pub fn batches_per_epoch(&self, options: &FinetuneOptions) -> Result<usize> {
        Ok(Order::new(&self.data, None, options)?.batches_per_epoch())
    }

    fn read(
        path: PathBuf,
        tokenizer: &Tokenizer,
        run: &FinetuneOptions,
        options: &DataOptions,
    ) -> Result<Self> {
        let rows = DatasetOptions {
            max_length: run.max_seq_length,
            mask_prompt: options.mask_prompt,
            long_rows: options.long_rows,
            chat_template: options.chat_template,
            clean_text: options.clean_text,
            max_prompt_length: options.max_prompt_length,
            mlx_lm_compat: run.mlx_lm_compat,
        };
        let mut chat_template = None;
        let (counts, data) = if options.preferences {
            let read = PreferenceDataset::read(&path, tokenizer, &rows)?;
            (read.counts(), TrainingData::Pairs(read.pairs().to_vec()))
        } else {
            let read = Dataset::read(&path, tokenizer, &rows)?;
            let examples = read.examples().to_vec();
            chat_template = read.chat_template();
            (read.counts(), TrainingData::Examples(examples))
        };
        Ok(Self {
            path,
            counts,
            chat_template,
            data,
        })
    }
}
