//! Sizes in Linux' files of statistics, such as `/proc/meminfo`.

use std::path::Path;

/// The size in bytes after `key`, which the file gives in kB.
pub(super) fn bytes(file: impl AsRef<Path>, key: &str) -> Option<u64> {
    Some(number(file, key)?.saturating_mul(1024))
}

/// The number after `key`.
pub(super) fn number(file: impl AsRef<Path>, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut words = text.lines().map(str::split_whitespace);
    let mut line = words.find(|words| words.clone().next() == Some(key))?;
    line.nth(1)?.parse().ok()
}
