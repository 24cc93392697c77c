//! Entry points: plan and conversion.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    event::ConvertEvent,
    options::{ConvertOptions, TokenizerChoice},
    plan::Plan,
    report::ConvertReport,
    staging::Staging,
    target::Kind,
    tokenizer_files::TokenizerFiles,
    verify,
    write::{Replacement, Task, write},
};
use crate::{
    cancel::CancelHandle,
    convert::source::SourceModel,
    error::{Error, Result},
    files::{check_inputs, write_synced},
    mlx::{cache_policy::WeightReading, recovery::recovering},
};

/// Plans the output of [`convert`], from the headers only.
///
/// # Errors
/// As [`convert`], for errors of the source and the options.
pub fn plan(source: impl AsRef<Path>, options: &ConvertOptions) -> Result<Plan> {
    options.check()?;
    let source = SourceModel::open(source.as_ref(), options)?;
    TokenizerFiles::find(&source, options)?;
    Plan::new(&source, options)
}

/// Converts the model at `source`, a folder or file, to `target`, a new folder or file.
/// `progress` is called for every tensor; `cancel` ends the conversion from any thread.
///
/// # Errors
/// [`Error::Destination`] if the target exists, is inside the source, contains an input or cannot be
/// replaced;
/// [`Error::Verification`] if the result differs from the source; [`Error::Cancelled`];
/// [`Error::Option`] for options that contradict each other or do not fit the model; and the
/// errors of the source's readers. After an error the target is unchanged.
pub fn convert(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &ConvertOptions,
    cancel: &CancelHandle,
    progress: impl FnMut(ConvertEvent<'_>),
) -> Result<ConvertReport> {
    Conversion::open(source, options)?.write(target, cancel, progress)
}

/// A conversion in two calls: one that only reads, and one that writes and can be cancelled.
pub struct Conversion<'o> {
    path: PathBuf,
    options: &'o ConvertOptions,
    source: SourceModel,
    tokenizer: TokenizerFiles,
    plan: Plan,
    started: Instant,
    replacement: Option<&'o Replacement<'o>>,
    files: Vec<(&'static str, String)>,
}

impl<'o> Conversion<'o> {
    /// Opens and checks the model at `source`, as [`convert`] does. Nothing is written.
    ///
    /// # Errors
    /// As [`convert`], for errors of the source and the options.
    pub fn open(source: impl AsRef<Path>, options: &'o ConvertOptions) -> Result<Self> {
        let started = Instant::now();
        options.check()?;
        let path = source.as_ref().to_path_buf();
        let source = SourceModel::open(&path, options)?;
        let tokenizer = TokenizerFiles::find(&source, options)?;
        let plan = Plan::new(&source, options)?;
        Ok(Self {
            path,
            options,
            source,
            tokenizer,
            plan,
            started,
            replacement: None,
            files: Vec::new(),
        })
    }

    /// Writes the tensors that `replacement` returns for their names in the result in place of the
    /// source's, without a verification.
    pub(crate) fn with_tensors(mut self, replacement: &'o Replacement<'o>) -> Self {
        self.replacement = Some(replacement);
        self
    }

    /// Adds a file to the folder.
    pub(crate) fn with_file(mut self, name: &'static str, text: String) -> Self {
        self.files.push((name, text));
        self
    }

    /// Writes the result to `target`, as [`convert`] does.
    ///
    /// # Errors
    /// As [`convert`], for errors of the target.
    pub fn write(
        self,
        target: impl AsRef<Path>,
        cancel: &CancelHandle,
        progress: impl FnMut(ConvertEvent<'_>),
    ) -> Result<ConvertReport> {
        recovering(|| self.write_to(target.as_ref(), cancel, progress))
    }

    fn write_to(
        self,
        target: &Path,
        cancel: &CancelHandle,
        mut progress: impl FnMut(ConvertEvent<'_>),
    ) -> Result<ConvertReport> {
        let Self {
            path: source_path,
            options,
            mut source,
            tokenizer,
            plan,
            started,
            replacement,
            files,
        } = self;
        let _reading = WeightReading::begin()?;
        let source_path = source_path.as_path();
        let is_file = options.format.is_file();
        check_inputs(target, inputs(options))?;
        let staging = Staging::begin(source_path, target, Kind::of(options.format), options.force)?;
        let mut task = Task {
            cancel,
            progress: &mut progress,
            done: 0,
            total: plan.bytes(),
            replacement,
        };
        let written = write(&mut source, &plan, &tokenizer, options, &staging, &mut task);
        written.map_err(|error| staging.of_target(error))?;
        let mut report = ConvertReport {
            source: source_path.to_path_buf(),
            source_format: plan.source_format,
            target: target.to_path_buf(),
            format: options.format.name(),
            parameters: plan.config.parameter_count(),
            source_bytes: plan.source_bytes,
            bytes: plan.bytes(),
            bits_per_weight: plan.bits_per_weight(),
            tensors: plan.tensors.len(),
            seconds: started.elapsed().as_secs_f64(),
            verification: None,
        };
        drop(source);
        if options.verify {
            let verification = verify::verify(
                source_path,
                &staging,
                &tokenizer,
                options,
                cancel,
                &mut progress,
            );
            report.verification = Some(verification.map_err(|error| staging.of_target(error))?);
        }
        // A file has no folder for the report.
        if !is_file {
            let path = staging.written().join("convert-report.json");
            let json = serde_json::to_value(&report);
            let json = json.map_err(|error| Error::io(&path)(error.into()))?;
            let written = write_synced(&path, format!("{json:#}\n"));
            written.map_err(|error| staging.of_target(error))?;
        }
        for (name, text) in files {
            let written = write_synced(&staging.written().join(name), text);
            written.map_err(|error| staging.of_target(error))?;
        }
        cancel.check()?;
        staging.keep()?;
        Ok(report)
    }
}

impl fmt::Debug for Conversion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversion")
            .field("source", &self.path)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// The inputs in addition to the source.
fn inputs(options: &ConvertOptions) -> impl Iterator<Item = (&str, &Path)> {
    let adapter = options.adapter.as_ref();
    let adapter = adapter.and_then(|adapter| adapter.origin.as_deref());
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::Path(path) => Some(path.as_path()),
        TokenizerChoice::OfSource | TokenizerChoice::Without => None,
    };
    let adapter = adapter.map(|path| ("adapter", path));
    let averaged = options.average_with.iter();
    averaged
        .map(|path| ("checkpoint", path.as_path()))
        .chain(adapter)
        .chain(tokenizer.map(|path| ("tokenizer", path)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use openelm_testing::{TempDir, tales};

    use super::*;
    use crate::mlx::recovery::faults;

    #[test]
    fn conversion_after_a_failed_one_writes_the_same_model() {
        let folder = TempDir::new();
        let options = ConvertOptions::default();
        let converted = |target: &str| {
            let cancel = CancelHandle::default();
            convert(tales(), folder.join(target), &options, &cancel, |_| ())
        };
        let weights =
            |target: &str| fs::read(folder.join(target).join("model.safetensors")).unwrap();
        converted("first").unwrap();
        for reports in [1, 2, 3] {
            faults::inject(reports);
            let failed = converted("second");
            assert!(matches!(failed, Err(Error::Mlx(_))), "{failed:?}");
            assert_eq!(folder.names(), ["first"]);
            converted("second").unwrap();
            assert!(weights("first") == weights("second"), "{reports}");
            fs::remove_dir_all(folder.join("second")).unwrap();
        }
    }
}
