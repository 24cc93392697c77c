//! Sizes of the pages of a parquet column, read from their headers before the library unpacks them:
//! a few kilobytes can claim, and fill, gigabytes.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

/// Deepest nesting of a header; the format's has 4 levels.
const MAX_DEPTH: usize = 8;
/// Largest header in bytes.
const MAX_HEADER: u64 = 16 << 20;

/// Checks the pages in `length` bytes of `file` from `start` on.
///
/// # Errors
/// A page that unpacks to more than `limit` bytes, or a malformed header.
pub(crate) fn check(file: &File, start: u64, length: u64, limit: i64) -> Result<(), String> {
    let damaged = || "not a valid parquet file: a page's header is malformed".to_owned();
    let mut source = BufReader::new(file);
    source
        .seek(SeekFrom::Start(start))
        .map_err(|e| e.to_string())?;
    let mut left = length;
    while left > 0 {
        let mut header = Header {
            source: Read::take(&mut source, MAX_HEADER.min(left)),
        };
        let (unpacked, packed) = header.sizes().ok_or_else(damaged)?;
        let size = MAX_HEADER.min(left) - header.source.limit();
        if unpacked > limit {
            return Err(format!(
                "a page of {unpacked} bytes is too large; expected at most {limit}"
            ));
        }
        let packed = u64::try_from(packed).map_err(|_| damaged())?;
        left = left
            .checked_sub(size)
            .and_then(|left| left.checked_sub(packed))
            .ok_or_else(damaged)?;
        let step = i64::try_from(packed).map_err(|_| damaged())?;
        source.seek_relative(step).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A header in Thrift's compact protocol.
struct Header<R> {
    source: R,
}

/// Types of fields in the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I32: u8 = 5;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

impl<R: Read> Header<R> {
    /// Reads the whole header; the sizes of the page, unpacked and packed.
    fn sizes(&mut self) -> Option<(i64, i64)> {
        let (mut unpacked, mut packed) = (None, None);
        let mut field = 0;
        while let Some((kind, step)) = self.field()? {
            field = match step {
                0 => self.integer()?,
                step => i64::from(step).checked_add(field)?,
            };
            match (field, kind) {
                (2, I32) => unpacked = Some(self.integer()?),
                (3, I32) => packed = Some(self.integer()?),
                _ => self.skip(kind, MAX_DEPTH)?,
            }
        }
        Some((unpacked?, packed?))
    }

    /// The type of the next field and its distance from the one before, 0 if it is stated; the
    /// inner `None` at the end of a struct.
    fn field(&mut self) -> Option<Option<(u8, u8)>> {
        let byte = self.byte()?;
        Some((byte != 0).then_some((byte & 0x0F, byte >> 4)))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            TRUE | FALSE => {}
            BYTE => _ = self.byte()?,
            4..=6 => _ = self.integer()?,
            DOUBLE => self.skip_bytes(8)?,
            BINARY => {
                let length = self.number()?;
                self.skip_bytes(length)?;
            }
            LIST | SET => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.number()?,
                    count => u64::from(count),
                };
                for _ in 0..count {
                    // An element of a list of booleans has a byte, other than a field.
                    match byte & 0x0F {
                        TRUE | FALSE => _ = self.byte()?,
                        kind => self.skip(kind, depth)?,
                    }
                }
            }
            STRUCT => {
                while let Some((kind, step)) = self.field()? {
                    if step == 0 {
                        self.integer()?;
                    }
                    self.skip(kind, depth)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn skip_bytes(&mut self, count: u64) -> Option<()> {
        let mut bytes = Read::take(&mut self.source, count);
        let skipped = std::io::copy(&mut bytes, &mut std::io::sink()).ok()?;
        (skipped == count).then_some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    /// A number of seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A number whose lowest bit is the sign.
    fn integer(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        basic::Compression,
        file::reader::{FileReader, SerializedFileReader},
    };

    use super::*;
    use crate::documents::parquet::tests::write;
    use openelm_testing::TempDir;

    #[test]
    fn pages_have_a_limit() {
        let scratch = TempDir::new();
        let path = scratch.join("a.parquet");
        let texts: Vec<String> = (0..2_000)
            .map(|row| format!("{row} ").repeat(100))
            .collect();
        let rows: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
        for compression in [Compression::SNAPPY, Compression::UNCOMPRESSED] {
            write(&path, &rows, 900, compression);
            let file = File::open(&path).unwrap();
            let reader = SerializedFileReader::new(file.try_clone().unwrap()).unwrap();
            for group in reader.metadata().row_groups() {
                let (start, length) = group.column(1).byte_range();
                let check = |limit| check(&file, start, length, limit);
                assert_eq!(check(8 << 20), Ok(()));
                let problem = check(1_000).unwrap_err();
                assert!(
                    problem.ends_with("is too large; expected at most 1000"),
                    "{problem}"
                );
                let other = super::check(&file, start + 1, length, 8 << 20);
                assert!(other.is_err());
            }
        }
    }

    #[test]
    fn damaged_headers_never_panic() {
        let scratch = TempDir::new();
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 56) as u8 & 0x5F
                })
                .collect();
            let path = scratch.write("a", bytes);
            let _ = check(&File::open(&path).unwrap(), 0, 40, 1 << 20);
        }
    }
}
