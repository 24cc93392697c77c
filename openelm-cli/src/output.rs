//! Output to standard output and standard error. Write failures (a full disk) are errors, not
//! panics.

use std::io::{self, Write};

use crate::error::Error;

/// Writes and flushes, so that streamed text appears at once.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(Error::Output)
}

/// Writes one JSON object on a line.
pub(crate) fn write_json(value: &serde_json::Value) -> Result<(), Error> {
    write(format!("{value}\n").as_bytes())
}

/// Prints one line on standard error. Control characters (line breaks, terminal escapes in file
/// names) are escaped. Write errors are ignored.
pub(crate) fn note(text: &str) {
    let mut line = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A size in bytes with three digits and a decimal unit, as in mlx-lm.
pub(crate) fn bytes(size: u64) -> String {
    let size = size as f64;
    for (unit, name) in [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if size >= unit {
            let value = size / unit;
            let decimals = if value < 10.0 {
                2
            } else {
                usize::from(value < 100.0)
            };
            return format!("{value:.decimals$} {name}");
        }
    }
    format!("{size} bytes")
}

/// An integer with thousands separators.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(16_128), "16.1 kB");
        assert_eq!(bytes(543_054_336), "543 MB");
        assert_eq!(bytes(1_086_108_672), "1.09 GB");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(271_527_168), "271,527,168");
    }
}
