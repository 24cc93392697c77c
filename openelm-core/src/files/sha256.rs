//! SHA-256 of a file.

use std::{fmt::Write, fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The SHA-256 of the file `path`, in lower-case hexadecimal digits.
///
/// # Errors
/// [`Error::Io`].
pub fn sha256(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
    let mut digits = String::new();
    for byte in hash.finalize() {
        // Writing to a text does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn hashes_a_file() {
        let folder = TempDir::new();
        folder.write("abc", "abc");
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(folder.join("abc")).unwrap(), expected);
        let error = sha256(folder.join("none")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
