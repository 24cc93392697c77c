//! A hash of a bounded part of the files of a corpus, to recognise them in a later run.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    data::Fingerprint,
    error::{Error, Result},
};

/// Bytes read from all files together, if there are few.
const TOTAL: u64 = 64 << 20;
/// Bytes read at one place, and at least from each file.
const BLOCK: u64 = 64 << 10;

/// A hash of the contents: of all bytes of small files, and of blocks at equal distances of large
/// ones, with the first and the last. Pipes are not read.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn hash(files: &[&Path]) -> Result<u64> {
    let share = (TOTAL / files.len().max(1) as u64).max(BLOCK);
    let mut hash = Fingerprint::new();
    for path in files {
        add(&mut hash, path, share).map_err(Error::io(path))?;
    }
    Ok(hash.value())
}

fn add(hash: &mut Fingerprint, path: &Path, share: u64) -> std::io::Result<()> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Ok(());
    }
    let size = found.len();
    let blocks = if size <= share { 1 } else { share / BLOCK };
    let length = if size <= share { size } else { BLOCK };
    let mut file = File::open(path)?;
    let mut block = Vec::new();
    for i in 0..blocks {
        let start = (size - length).saturating_mul(i) / (blocks - 1).max(1);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(length).read_to_end(&mut block)?;
        hash.bytes(&block);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn every_byte_of_a_small_file_counts() {
        let scratch = TempDir::new();
        let path = scratch.write("a.txt", "The fox had 3 apples.");
        let value = || hash(&[&*path]).unwrap();
        let expected = value();
        for text in [
            "The fox had 4 apples.",
            "the fox had 3 apples.",
            "The fox had 3 apples!",
        ] {
            fs::write(&path, text).unwrap();
            assert_ne!(value(), expected, "{text}");
        }
        fs::write(&path, "The fox had 3 apples.").unwrap();
        assert_eq!(value(), expected);
    }

    #[test]
    fn large_files_are_sampled_from_start_to_end() {
        let scratch = TempDir::new();
        let mut bytes = vec![b'a'; 10 * BLOCK as usize];
        let path = scratch.write("a.txt", &bytes);
        let value = |share: u64| {
            let mut hash = Fingerprint::new();
            add(&mut hash, &path, share).unwrap();
            hash.value()
        };
        let expected = value(3 * BLOCK);
        for (place, is_read) in [
            (0, true),
            (BLOCK as usize - 1, true),
            (2 * BLOCK as usize, false),
            (5 * BLOCK as usize, true),
            (bytes.len() - 1, true),
        ] {
            bytes[place] = b'b';
            fs::write(&path, &bytes).unwrap();
            assert_eq!(value(3 * BLOCK) != expected, is_read, "{place}");
            bytes[place] = b'a';
        }
    }
}
