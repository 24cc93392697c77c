//! The hash of a file, which is its ETag on the Hub.

use std::io::{self, Read};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A hash that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of the bytes, of a large file (LFS).
    Sha256(String),
    /// SHA-1 of git's blob with the bytes, of a small file.
    GitBlob(String),
}

impl Checksum {
    /// The hash that the ETag `etag` states; `None` if it is no hash.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        let is_hex = etag.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        match etag.len() {
            64 if is_hex => Some(Self::Sha256(etag.to_owned())),
            40 if is_hex => Some(Self::GitBlob(etag.to_owned())),
            _ => None,
        }
    }

    /// Begins the hash of a file of `size` bytes.
    pub(super) fn begin(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher(Context::new(&SHA256)),
            Self::GitBlob(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Hasher(context)
            }
        }
    }

    /// The hash in hexadecimal digits.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::GitBlob(text) => text,
        }
    }
}

/// The hash of the bytes so far.
#[derive(Clone)]
pub(super) struct Hasher(Context);

impl Hasher {
    /// Adds bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds everything that `reader` has.
    ///
    /// # Errors
    /// The reader's.
    pub(super) fn read(&mut self, reader: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 17];
        let mut total = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    self.update(buffer.get(..count).unwrap_or_default());
                    total += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The hash in hexadecimal digits.
    pub(super) fn finish(self) -> String {
        let digest = self.0.finish();
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_git_and_lfs_do() {
        // `printf 'hello\n' | git hash-object --stdin` and `sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let lfs = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for etag in [git, lfs] {
            let mut hasher = Checksum::of_etag(etag).unwrap().begin(6);
            assert_eq!(hasher.read(&mut &b"hello\n"[..]).unwrap(), 6);
            assert_eq!(hasher.finish(), etag);
        }
        for etag in ["", "abc", &lfs.to_uppercase(), &lfs[1..]] {
            assert_eq!(Checksum::of_etag(etag), None);
        }
    }
}
