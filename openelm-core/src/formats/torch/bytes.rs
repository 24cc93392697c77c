//! Bounds-checked reads from a file.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// A file and its length at opening.
#[derive(Debug)]
pub(super) struct TorchBytes {
    path: PathBuf,
    len: u64,
}

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl TorchBytes {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self {
            path: path.to_path_buf(),
            len,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// An error of the file.
    pub(super) fn malformed(&self, problem: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, problem)
    }

    /// Reads `span`, after a check that it is inside the file.
    pub(super) fn read(&self, span: Span) -> Result<Vec<u8>> {
        let end = span.start.checked_add(span.len);
        if end.is_none_or(|end| end > self.len) {
            return Err(self.malformed(format!(
                "truncated or damaged: expected {} bytes from byte {}, the file has {}",
                span.len, span.start, self.len
            )));
        }
        let mut bytes = self.buffer(usize::try_from(span.len).unwrap_or(usize::MAX))?;
        // Opened again: two threads must not share a cursor.
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(span.start))
            .map_err(Error::io(&self.path))?;
        file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    /// A buffer of zeros, or an error if there is not enough memory.
    pub(super) fn buffer(&self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| self.malformed(format!("not enough memory for {len} bytes")))?;
        bytes.resize(len, 0);
        Ok(bytes)
    }
}
