//! API keys: read from a file, compared in constant time.

use std::{fmt, fs, os::unix::fs::PermissionsExt, path::Path};

use openelm_core::text::{MAX_SETTINGS, read_text_file};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::{Error, Result};

/// The keys of which each request must have one, as `Authorization: Bearer KEY`. Only their SHA-256
/// hashes are kept.
#[derive(Clone, Default)]
pub struct ApiKeys {
    hashes: Vec<[u8; 32]>,
    is_open_to_others: bool,
}

impl ApiKeys {
    /// Reads a file with a key on each line. Empty lines, and white space around a key, are ignored.
    ///
    /// # Errors
    /// [`Error::ApiKeys`] if the file cannot be read or has no key, or a key has characters that a
    /// header cannot have. The message has no key.
    pub fn read(path: &Path) -> Result<Self> {
        let error = |problem: String| Error::ApiKeys {
            path: path.to_owned(),
            problem,
        };
        let text = read_text_file(path, MAX_SETTINGS).map_err(|found| error(found.to_string()))?;
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let key = line.trim();
            if key.is_empty() {
                continue;
            }
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let problem = "expected a key of printable ASCII characters without spaces";
                return Err(error(format!("line {number}: {problem}")));
            }
            keys.push(hash(key.as_bytes()));
        }
        if keys.is_empty() {
            return Err(error("expected a key on a line, found none".into()));
        }
        Ok(Self {
            hashes: keys,
            is_open_to_others: is_open_to_others(path),
        })
    }

    /// True if no key is needed.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// True if the file's mode lets other users read the keys.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.is_open_to_others
    }

    /// True if `key` is one of the keys. The time depends on the length of `key` alone.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let found = hash(key);
        let equal = |known: &[u8; 32]| known.as_slice().ct_eq(found.as_slice());
        let any = self
            .hashes
            .iter()
            .fold(Choice::from(0), |any, known| any | equal(known));
        any.into()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.hashes.len())
    }
}

/// True if users outside the file's group can read it. A group is often made for the purpose.
fn is_open_to_others(path: &Path) -> bool {
    let mode = fs::metadata(path).map(|data| data.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o004 != 0)
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn a_line_is_a_key() {
        let folder = TempDir::new();
        folder.write("keys", "first\n\n  second \r\n");
        let keys = ApiKeys::read(&folder.join("keys")).unwrap();
        for (key, is_known) in [
            ("first", true),
            ("second", true),
            ("", false),
            ("firs", false),
            ("first\nsecond", false),
        ] {
            assert_eq!(keys.contains(key.as_bytes()), is_known, "{key:?}");
        }
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }

    #[test]
    fn a_file_that_all_users_can_read_is_noticed() {
        let folder = TempDir::new();
        folder.write("keys", "first\n");
        let path = folder.join("keys");
        for (mode, expected) in [(0o644, true), (0o640, false), (0o600, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(ApiKeys::read(&path).unwrap().is_open_to_others(), expected);
        }
    }

    #[test]
    fn refuses_files_without_a_key_and_shows_none() {
        let folder = TempDir::new();
        for (text, problem) in [
            ("\n \n", "expected a key on a line, found none"),
            (
                "a\nsec ret\n",
                "line 2: expected a key of printable ASCII characters without spaces",
            ),
        ] {
            folder.write("keys", text);
            let path = folder.join("keys");
            let found = ApiKeys::read(&path).unwrap_err().to_string();
            assert_eq!(found, format!("{}: {problem}", path.display()));
        }
        let missing = ApiKeys::read(&folder.join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
