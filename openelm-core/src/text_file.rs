//! Text as editors and systems save it: UTF-8 or UTF-16, with or without a byte order mark. Every
//! file of text or JSON is read here, up to a limit.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, ErrorKind, Read},
    path::Path,
};

use crate::error::{Error, Result};

/// Largest file of settings in bytes: `adapter_config.json`, a TOML or YAML file and the like.
pub const MAX_SETTINGS: u64 = 16 << 20;
/// Largest prompt or document in bytes.
pub const MAX_TEXT: u64 = 64 << 20;

/// The first bytes of a file of Git LFS in place of the file that it names.
pub(crate) const LFS_POINTER: &[u8; 8] = b"version ";
/// The problem of such a file.
pub(crate) const LFS_PROBLEM: &str =
    "a Git LFS pointer, not the file itself: download the file (git lfs pull)";

/// The byte order mark as a character.
const MARK: char = '\u{FEFF}';
/// Longest line of [`for_each_line`], in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Bytes that are transcoded at once.
const BUFFER: usize = 1 << 16;

/// The text of a file, without a byte order mark.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; the error that `wrong` makes of the problem if it has more
/// than `limit` bytes or is not text.
pub(crate) fn read(path: &Path, limit: u64, wrong: impl FnOnce(String) -> Error) -> Result<String> {
    read_text_file(path, limit).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => wrong(error.to_string()),
        _ => Error::io(path)(error),
    })
}

/// The bytes of a file of at most `limit` bytes.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_bytes(
    path: &Path,
    limit: u64,
    wrong: impl FnOnce(String) -> Error,
) -> Result<Vec<u8>> {
    open(path, limit)
        .and_then(|file| limited(file, limit))
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidData => wrong(error.to_string()),
            _ => Error::io(path)(error),
        })
}

/// The text of a file, as [`read_text`].
///
/// # Errors
/// As [`read_text`], and [`ErrorKind::NotFound`] and others if it cannot be opened.
pub fn read_text_file(path: &Path, limit: u64) -> io::Result<String> {
    read_text(open(path, limit)?, limit)
}

/// The text of `source`, without a byte order mark: UTF-8, or UTF-16 with a mark.
///
/// # Errors
/// [`ErrorKind::InvalidData`] if `source` has more than `limit` bytes or is not text, else the
/// source's error.
pub fn read_text(source: impl Read, limit: u64) -> io::Result<String> {
    decode(limited(source, limit)?).map_err(invalid)
}

/// The text of `bytes`, without a byte order mark: UTF-8, or UTF-16 with a mark.
///
/// # Errors
/// The problem, with the position of the first byte that is not text.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<String, String> {
    match Encoding::of(&bytes)? {
        Encoding::Utf8 => {
            let mut text = String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                format!("not UTF-8 text: byte {at}")
            })?;
            if text.starts_with(MARK) {
                text.drain(..MARK.len_utf8());
            }
            Ok(text)
        }
        Encoding::Utf16(order) => {
            let mut text = String::with_capacity(bytes.len());
            let mut source = Utf16::new(bytes.as_slice(), order);
            source
                .read_to_string(&mut text)
                .map_err(|e| e.to_string())?;
            text.drain(..MARK.len_utf8());
            Ok(text)
        }
    }
}

/// A source of text as a source of UTF-8 without a byte order mark.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for an encoding that is not supported, else the source's error.
pub(crate) fn decoded(mut source: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut start = Vec::new();
    Read::take(&mut source, 4).read_to_end(&mut start)?;
    let encoding = Encoding::of(&start).map_err(invalid)?;
    let mark = match encoding {
        Encoding::Utf8 if start.starts_with(&UTF8_MARK) => UTF8_MARK.len(),
        Encoding::Utf8 => 0,
        Encoding::Utf16(_) => 2,
    };
    start.drain(..mark);
    let source = Cursor::new(start).chain(source);
    Ok(match encoding {
        Encoding::Utf8 => Box::new(source),
        Encoding::Utf16(order) => Box::new(BufReader::with_capacity(
            BUFFER,
            Utf16 {
                position: mark,
                ..Utf16::new(source, order)
            },
        )),
    })
}

/// Passes the lines of a file to `each`, without their ends.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for a line of more than 1 MiB, else the file's error.
pub fn for_each_line(path: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut source = decoded(Box::new(BufReader::new(File::open(path)?)))?;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut rest = Read::take(&mut source, MAX_LINE + 1);
        if rest.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 > MAX_LINE {
            let problem = format!("line {number}: expected at most {MAX_LINE} bytes, found more");
            return Err(invalid(problem));
        }
        each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
    }
    Ok(())
}

/// Opens a file of at most `limit` bytes.
fn open(path: &Path, limit: u64) -> io::Result<File> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if file.metadata()?.is_file() && length > limit {
        return Err(invalid(format!(
            "expected at most {limit} bytes, found {length}"
        )));
    }
    Ok(file)
}

/// The bytes of `source`.
///
/// # Errors
/// [`ErrorKind::InvalidData`] if there are more than `limit`, else the source's error.
fn limited(source: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte over the limit is enough to detect an oversized or endless file.
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(invalid(format!(
            "expected at most {limit} bytes, found more"
        )));
    }
    Ok(bytes)
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem)
}

const UTF8_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

#[derive(Clone, Copy)]
enum Encoding {
    /// With or without a mark.
    Utf8,
    /// With a mark.
    Utf16(Order),
}

#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Encoding {
    /// The encoding by the first bytes.
    fn of(start: &[u8]) -> Result<Self, String> {
        match start {
            [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => {
                Err("UTF-32 text is not supported; expected UTF-8 or UTF-16".into())
            }
            [0xFF, 0xFE, ..] => Ok(Self::Utf16(Order::Little)),
            [0xFE, 0xFF, ..] => Ok(Self::Utf16(Order::Big)),
            _ => Ok(Self::Utf8),
        }
    }
}

/// UTF-16 as UTF-8.
struct Utf16<R> {
    source: R,
    order: Order,
    /// Bytes of `source` that are not transcoded yet.
    waiting: Vec<u8>,
    /// Position in `source` of the first byte of `waiting`.
    position: usize,
    text: Cursor<Vec<u8>>,
}

impl<R: Read> Utf16<R> {
    fn new(source: R, order: Order) -> Self {
        Self {
            source,
            order,
            waiting: Vec::new(),
            position: 0,
            text: Cursor::default(),
        }
    }

    /// Transcodes the next block; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let before = self.waiting.len();
        let mut block = Read::take(&mut self.source, BUFFER as u64);
        block.read_to_end(&mut self.waiting)?;
        let is_last = self.waiting.len() < before + BUFFER;
        let units: Vec<u16> = self
            .waiting
            .chunks_exact(2)
            .filter_map(|pair| <[u8; 2]>::try_from(pair).ok())
            .map(|pair| match self.order {
                Order::Big => u16::from_be_bytes(pair),
                Order::Little => u16::from_le_bytes(pair),
            })
            .collect();
        let mut text = String::with_capacity(units.len() * 2);
        let mut used = 0;
        for decoded in char::decode_utf16(units.iter().copied()) {
            let is_end = used + 1 == units.len();
            match decoded {
                Ok(character) => {
                    text.push(character);
                    used += character.len_utf16();
                }
                // The other half of the pair is in the next block.
                Err(half) if is_end && !is_last && half.unpaired_surrogate() < 0xDC00 => break,
                Err(_) => return Err(self.broken(used * 2)),
            }
        }
        if is_last && used * 2 < self.waiting.len() {
            return Err(self.broken(used * 2));
        }
        self.waiting.drain(..used * 2);
        self.position += used * 2;
        self.text = Cursor::new(text.into_bytes());
        Ok(used > 0)
    }

    fn broken(&self, offset: usize) -> io::Error {
        invalid(format!("not UTF-16 text: byte {}", self.position + offset))
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.text.read(buffer)?;
            if count > 0 || buffer.is_empty() || !self.fill()? {
                return Ok(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::{TempDir, encodings, utf16};

    /// Longer than a block; every block of UTF-16 ends inside a pair.
    fn text() -> String {
        format!("a{}\r\né\n", "🦙".repeat(BUFFER))
    }

    #[test]
    fn all_encodings_give_the_same_text() {
        for text in ["", "Once", "\n", "é 漢 🦙\r\n", &text()] {
            for (name, bytes) in encodings(text) {
                assert!(decode(bytes.clone()).unwrap() == text, "{name}");
                let source = BufReader::with_capacity(3, Cursor::new(bytes));
                let mut found = String::new();
                let mut source = decoded(Box::new(source)).unwrap();
                source.read_to_string(&mut found).unwrap();
                assert!(found == text, "{name}");
            }
        }
    }

    #[test]
    fn only_the_first_mark_is_removed() {
        let bytes = "\u{FEFF}\u{FEFF}a\u{FEFF}".as_bytes().to_vec();
        assert_eq!(decode(bytes).unwrap(), "\u{FEFF}a\u{FEFF}");
    }

    #[test]
    fn rejects_other_encodings_with_the_position() {
        let half = [utf16("a", true), vec![0xD8, 0x3E]].concat();
        let odd = [utf16("ab", false), vec![0]].concat();
        let low = [utf16("", true), vec![0xDC, 0x00, 0, 0x41]].concat();
        for (bytes, expected) in [
            (b"ab\xFF".to_vec(), "not UTF-8 text: byte 2"),
            (half, "not UTF-16 text: byte 4"),
            (odd, "not UTF-16 text: byte 6"),
            (low, "not UTF-16 text: byte 2"),
            (
                b"\xFF\xFE\0\0a\0\0\0".to_vec(),
                "UTF-32 text is not supported",
            ),
            (
                b"\0\0\xFE\xFF\0\0\0a".to_vec(),
                "UTF-32 text is not supported",
            ),
        ] {
            let problem = decode(bytes).unwrap_err();
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
    }

    #[test]
    fn lines_have_a_limit() {
        let scratch = TempDir::new();
        let lines = |bytes: &[u8]| {
            let mut lines = Vec::new();
            let path = scratch.write("a.jsonl", bytes);
            for_each_line(&path, |line| lines.push(line.to_owned())).map(|()| lines)
        };
        assert_eq!(
            lines("\u{FEFF}a\r\n\nb".as_bytes()).unwrap(),
            ["a", "", "b"]
        );
        let long = [b"a\n".to_vec(), vec![b'b'; (1 << 20) + 1]].concat();
        assert_eq!(lines(&long[..long.len() - 1]).unwrap()[1].len(), 1 << 20);
        let problem = lines(&long).unwrap_err().to_string();
        assert_eq!(
            problem,
            "line 2: expected at most 1048576 bytes, found more"
        );
    }

    #[test]
    fn reads_at_most_the_limit() {
        let scratch = TempDir::new();
        let wrong = |problem| Error::data("a", None, problem);
        let path = scratch.write("a.txt", "12345");
        assert_eq!(read(&path, 5, wrong).unwrap(), "12345");
        let problem = read(&path, 4, wrong).unwrap_err().to_string();
        assert_eq!(problem, "a: expected at most 4 bytes, found 5");
        let endless = read_bytes(Path::new("/dev/zero"), 9, wrong);
        assert!(endless.is_err());
        let error = read(&scratch.join("none"), 4, wrong).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
    }
}
