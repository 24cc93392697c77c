//! A file that is uploaded.

use std::{fs::File, io::Read, path::PathBuf};

use super::checksum::Checksum;
use crate::error::Error;

/// Bytes of a file's beginning that the Hub gets to recognise binary files.
const SAMPLE: usize = 512;

/// A file to upload.
pub(super) struct LocalFile {
    /// Path in the repository.
    pub(super) name: String,
    /// Place on this machine; `None` for a model card that is made here.
    pub(super) path: Option<PathBuf>,
    /// Bytes.
    pub(super) size: u64,
    /// The beginning, from which the Hub recognises binary files.
    pub(super) sample: Vec<u8>,
    /// Of a large file, in hexadecimal digits.
    pub(super) sha256: Option<String>,
    /// Contents of the model card.
    pub(super) text: Vec<u8>,
}

impl LocalFile {
    /// The file at `path`.
    ///
    /// # Errors
    /// [`Error::HubCache`] if it cannot be read.
    pub(super) fn open(name: String, path: PathBuf) -> Result<Self, Error> {
        let read = || {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            let mut sample = Vec::new();
            file.take(SAMPLE as u64).read_to_end(&mut sample)?;
            Ok((size, sample))
        };
        let (size, sample) = read().map_err(|error| Error::hub_cache(&path, error))?;
        Ok(Self {
            name,
            path: Some(path),
            size,
            sample,
            sha256: None,
            text: Vec::new(),
        })
    }

    /// A file with the contents `text`.
    pub(super) fn of_text(name: &str, text: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            path: None,
            size: text.len() as u64,
            sample: text.iter().copied().take(SAMPLE).collect(),
            sha256: None,
            text,
        }
    }

    /// Computes the SHA-256.
    ///
    /// # Errors
    /// [`Error::HubCache`] if the file cannot be read.
    pub(super) fn hash(&mut self) -> Result<(), Error> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let hash = || {
            let mut hasher = Checksum::Sha256(String::new()).begin(self.size);
            let read = hasher.read(&mut File::open(path)?)?;
            Ok((hasher.finish(), read))
        };
        let (sha256, size) = hash().map_err(|error| Error::hub_cache(path, error))?;
        self.size = size;
        self.sha256 = Some(sha256);
        Ok(())
    }
}
