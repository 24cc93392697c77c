//! The progress of a download: a bar on a terminal, otherwise a line at the start and the end.

use std::time::Instant;

use indicatif::ProgressBar;

use crate::{bar::bar, output};

/// The progress of the files of one repository, for several threads.
pub(super) struct Progress {
    bar: ProgressBar,
    work: Work,
    quiet: bool,
    started: Instant,
}

/// The direction of the bytes.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Download,
    Upload,
}

impl Work {
    fn verb(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

impl Progress {
    /// Begins with `total` bytes in `files` files of `name`.
    pub(super) fn begin(work: Work, name: &str, files: usize, total: u64, quiet: bool) -> Self {
        let template = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, \
                        {decimal_bytes_per_sec}, {eta} left";
        let bar = bar(quiet, template);
        bar.set_message(name.to_owned());
        bar.set_length(total);
        if !quiet && bar.is_hidden() {
            let files = count(files);
            output::note(&format!(
                "{}ing {name}: {files}, {}",
                work.verb(),
                output::bytes(total)
            ));
        }
        Self {
            bar,
            work,
            quiet,
            started: Instant::now(),
        }
    }

    /// Adds bytes that were downloaded.
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Adds bytes of an earlier download, which do not count for the speed.
    pub(super) fn resume(&self, bytes: u64) {
        if bytes > 0 {
            self.bar.inc(bytes);
            self.bar.reset_eta();
        }
    }

    /// Removes bytes that are downloaded again.
    pub(super) fn remove(&self, bytes: u64) {
        self.bar
            .set_position(self.bar.position().saturating_sub(bytes));
    }

    /// Prints a line above the bar.
    pub(super) fn note(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::note(line));
        }
    }

    /// Removes the bar after a failure.
    pub(super) fn fail(&self) {
        self.bar.finish_and_clear();
    }

    /// Removes the bar and prints that `name` is complete.
    pub(super) fn end(&self, name: &str, total: u64) {
        self.bar.finish_and_clear();
        if !self.quiet {
            let seconds = self.started.elapsed().as_secs_f64();
            output::note(&format!(
                "{}ed {name}: {} in {seconds:.1} s",
                self.work.verb(),
                output::bytes(total)
            ));
        }
    }
}

/// A number of files.
pub(super) fn count(files: usize) -> String {
    match files {
        1 => "1 file".into(),
        files => format!("{files} files"),
    }
}
