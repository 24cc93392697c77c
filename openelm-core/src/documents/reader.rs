//! The documents of one file, read as a stream: at most one document, or one page of a parquet
//! file, is in memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{
    files::{ENDINGS, FileFormat, Format, Packing},
    parquet::Column,
    row,
};
use crate::{
    error::{Error, Result},
    text_file::{self, MAX_TEXT},
};

const BUFFER: usize = 1 << 18;

/// The next item of a file.
#[derive(Debug)]
pub(crate) enum Found {
    /// A document, or a block of words of a text file.
    Document {
        text: String,
        /// True if it continues the previous document.
        continues: bool,
    },
    /// An unreadable row; the next one may be readable.
    BadRow(Error),
    /// The rest of the file cannot be read.
    BadFile(Error),
    End,
}

/// An open file.
pub(crate) struct DocumentReader {
    path: PathBuf,
    rows: Rows,
}

enum Rows {
    Lines {
        reader: Box<dyn BufRead + Send>,
        key: String,
        /// Number of the last line, from 1.
        number: usize,
    },
    Words {
        reader: Box<dyn BufRead + Send>,
        words: usize,
        begun: bool,
    },
    Column(Box<Column>),
}

impl DocumentReader {
    /// Opens a file and skips its first `skip` rows, which were read before. Rows of a text file
    /// are blocks of `words` words.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be opened; [`Error::Data`] if it is malformed.
    pub(crate) fn open(path: &Path, key: &str, words: usize, skip: u64) -> Result<Self> {
        Self::open_as(path, None, key, words, skip)
    }

    /// Like [`open`](Self::open); a format that is given replaces the extension's.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) fn open_as(
        path: &Path,
        format: Option<FileFormat>,
        key: &str,
        words: usize,
        skip: u64,
    ) -> Result<Self> {
        let format = Format::of(path, format)
            .ok_or_else(|| Error::data(path, None, format!("expected an ending of {ENDINGS}")))?;
        let file = File::open(path).map_err(Error::io(path))?;
        let rows = match format {
            Format::JsonLines(packing) => Rows::Lines {
                reader: unpack(file, packing).map_err(|e| damaged(path, &e))?,
                key: key.to_owned(),
                number: 0,
            },
            Format::Text(packing) => Rows::Words {
                reader: unpack(file, packing).map_err(|e| damaged(path, &e))?,
                words,
                begun: false,
            },
            Format::Parquet => {
                let column = Column::open(file, key, skip);
                Rows::Column(Box::new(
                    column.map_err(|problem| Error::data(path, None, problem))?,
                ))
            }
        };
        let mut source = Self {
            path: path.to_owned(),
            rows,
        };
        if format != Format::Parquet {
            for _ in 0..skip {
                source.skip()?;
            }
        }
        Ok(source)
    }

    /// The next document.
    pub(crate) fn next(&mut self) -> Found {
        let path = &self.path;
        match &mut self.rows {
            Rows::Lines {
                reader,
                key,
                number,
            } => match line(reader, number) {
                Ok(None) => Found::End,
                Ok(Some(bytes)) => match parse(&bytes, key) {
                    Ok(text) => Found::Document {
                        text,
                        continues: false,
                    },
                    Err(problem) => Found::BadRow(Error::data(path, Some(*number), problem)),
                },
                Err(problem) => Found::BadFile(damaged(path, &problem)),
            },
            Rows::Words {
                reader,
                words,
                begun,
            } => match block(reader, *words) {
                Ok(None) => Found::End,
                Ok(Some(bytes)) => {
                    let continues = std::mem::replace(begun, true);
                    match String::from_utf8(bytes) {
                        Ok(text) => Found::Document { text, continues },
                        Err(_) => Found::BadFile(Error::data(path, None, "not UTF-8 text")),
                    }
                }
                Err(problem) => Found::BadFile(damaged(path, &problem)),
            },
            Rows::Column(column) => match column.next() {
                Ok(None) => Found::End,
                Ok(Some(Ok(text))) => Found::Document {
                    text,
                    continues: false,
                },
                Ok(Some(Err(problem))) => Found::BadRow(Error::data(path, None, problem)),
                Err(problem) => Found::BadFile(Error::data(path, None, problem)),
            },
        }
    }

    fn skip(&mut self) -> Result<()> {
        let skipped = match &mut self.rows {
            Rows::Lines { reader, number, .. } => line(reader, number).map(|line| line.is_some()),
            Rows::Words {
                reader,
                words,
                begun,
            } => {
                *begun = true;
                block(reader, *words).map(|block| block.is_some())
            }
            Rows::Column(_) => Ok(true),
        };
        match skipped {
            Ok(true) => Ok(()),
            Ok(false) => {
                let problem = "it has fewer documents than when the state was saved";
                Err(Error::data(&self.path, None, problem))
            }
            Err(problem) => Err(damaged(&self.path, &problem)),
        }
    }
}

fn damaged(path: &Path, problem: &io::Error) -> Error {
    let problem = match problem.kind() {
        ErrorKind::UnexpectedEof => "the archive is cut off".to_owned(),
        _ => format!("cannot be read further: {problem}"),
    };
    Error::data(path, None, problem)
}

fn unpack(file: File, packing: Packing) -> io::Result<Box<dyn BufRead + Send>> {
    text_file::decoded(match packing {
        Packing::None => Box::new(BufReader::with_capacity(BUFFER, file)),
        Packing::Gzip => {
            let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
        Packing::Zstd => {
            let decoder = zstd::Decoder::new(file)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
    })
}

/// The next line that is not blank; `number` is set to its number.
fn line(reader: &mut impl BufRead, number: &mut usize) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut bytes = Vec::new();
        if Read::take(&mut *reader, MAX_TEXT + 1).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        *number = number.saturating_add(1);
        if bytes.len() as u64 > MAX_TEXT {
            let problem = format!("line {number}: expected at most {MAX_TEXT} bytes, found more");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        if !bytes.trim_ascii().is_empty() {
            return Ok(Some(bytes));
        }
    }
}

/// The text up to the `words`-th space, without this space.
fn block(reader: &mut impl BufRead, words: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    for _ in 0..words {
        let room = (MAX_TEXT + 1).saturating_sub(bytes.len() as u64);
        if Read::take(&mut *reader, room).read_until(b' ', &mut bytes)? == 0 {
            break;
        }
        if bytes.len() as u64 > MAX_TEXT {
            let problem =
                format!("{words} words: expected at most {MAX_TEXT} bytes with spaces, found more");
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b' ') && !reader.fill_buf()?.is_empty() {
        bytes.pop();
    }
    Ok(Some(bytes))
}

fn parse(line: &[u8], key: &str) -> Result<String, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8 text".to_owned())?;
    row::text(line.trim_start_matches('\u{FEFF}'), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::{TempDir, encodings, gzip};

    fn read(path: &Path, words: usize, skip: u64) -> Vec<String> {
        let mut source = match DocumentReader::open(path, "text", words, skip) {
            Ok(source) => source,
            Err(error) => return vec![format!("! {error}")],
        };
        let mut found = Vec::new();
        loop {
            match source.next() {
                Found::Document { text, continues } => {
                    found.push(if continues { format!("+{text}") } else { text });
                }
                Found::BadRow(error) => found.push(format!("? {error}")),
                Found::BadFile(error) => {
                    found.push(format!("! {error}"));
                    return found;
                }
                Found::End => return found,
            }
        }
    }

    const ROWS: &[u8] = b"\xEF\xBB\xBF{\"text\": \"one\"}\n\n{\"id\": 3, \"text\": \"t\\u00e9\\n\"}\r\n{\"text\": \"\"}";

    #[test]
    fn reads_the_same_lines_from_any_compression() {
        let scratch = TempDir::new();
        let (first, second) = ROWS.split_at(25);
        // Two members, two frames: the output of parallel compressors.
        let zipped = [gzip(first), gzip(second)].concat();
        let frames = [first, second].map(|part| zstd::encode_all(part, 3).unwrap());
        for (name, bytes) in [
            ("a.jsonl", ROWS.to_vec()),
            ("a.json.gz", zipped.clone()),
            ("a.jsonl.gz", zipped),
            ("a.jsonl.zst", frames.concat()),
            ("00.zst", frames.concat()),
        ] {
            let path = scratch.write(name, bytes);
            assert_eq!(read(&path, 9, 0), ["one", "té\n", ""], "{name}");
            assert_eq!(read(&path, 9, 2), [""], "{name}");
            assert_eq!(read(&path, 9, 3), [""; 0], "{name}");
            assert!(
                read(&path, 9, 4)[0].contains("fewer documents than"),
                "{name}"
            );
        }
    }

    #[test]
    fn every_encoding_and_line_end_gives_the_same_documents() {
        let scratch = TempDir::new();
        for (name, text) in [
            ("a.jsonl", "{\"text\": \"é\"}\r\n\r\n{\"text\": \"🦙\"}\r\n"),
            ("a.jsonl", "{\"text\": \"é\"}\n{\"text\": \"🦙\"}"),
            ("a.txt", "é 🦙"),
        ] {
            for (encoding, bytes) in encodings(text) {
                let packed = zstd::encode_all(bytes.as_slice(), 3).unwrap();
                for (ending, bytes) in
                    [("", bytes.clone()), (".gz", gzip(&bytes)), (".zst", packed)]
                {
                    let path = scratch.write(&format!("{name}{ending}"), bytes);
                    let expected = if name == "a.txt" {
                        ["é", "+🦙"]
                    } else {
                        ["é", "🦙"]
                    };
                    assert_eq!(read(&path, 1, 0), expected, "{name}{ending} in {encoding}");
                }
            }
        }
    }

    #[test]
    fn documents_have_a_limit() {
        let scratch = TempDir::new();
        let size = usize::try_from(MAX_TEXT).unwrap();
        let fits = [
            b"{\"text\": \"".to_vec(),
            vec![b'a'; size - 13],
            b"\"}\n".to_vec(),
        ]
        .concat();
        let long = vec![b'a'; size + 1];
        for (name, bytes, expected) in [
            ("a.jsonl.zst", &fits, None),
            (
                "b.jsonl.zst",
                &long,
                Some("line 1: expected at most 67108864 bytes, found more"),
            ),
            (
                "c.txt.zst",
                &long,
                Some("9 words: expected at most 67108864 bytes with spaces"),
            ),
        ] {
            let path = scratch.write(name, zstd::encode_all(bytes.as_slice(), 1).unwrap());
            let found = read(&path, 9, 0);
            match expected {
                None => assert_eq!(found[0].len(), size - 13),
                Some(expected) => assert!(found[0].contains(expected), "{}", found[0]),
            }
        }
    }

    #[test]
    fn splits_text_files_into_blocks_of_words() {
        let scratch = TempDir::new();
        let path = scratch.write("a.txt", "a b\nc  d e ");
        assert_eq!(read(&path, 2, 0), ["a b\nc", "+ d", "+e "]);
        assert_eq!(read(&path, 2, 1), ["+ d", "+e "]);
        assert_eq!(read(&path, 99, 0), ["a b\nc  d e "]);
        let path = scratch.write("a.txt.gz", gzip(b"x y z"));
        assert_eq!(read(&path, 1, 0), ["x", "+y", "+z"]);
    }

    #[test]
    fn reports_bad_rows_and_continues() {
        let scratch = TempDir::new();
        let rows =
            "{\"text\": 1}\n\n{\"content\": \"a\", \"b\": 1}\n[]\n{\"text\n{\"text\": \"ok\"}";
        let path = scratch.write(
            "a.jsonl",
            [rows.as_bytes(), b"\n{\"text\": \"\xFF\"}"].concat(),
        );
        let found = read(&path, 9, 0);
        for (found, expected) in found.iter().zip([
            "a.jsonl:1: `text`: expected a string",
            "a.jsonl:3: `text` is missing; found `content`, `b`",
            "a.jsonl:4: expected a JSON object",
            "a.jsonl:5: malformed JSON at column",
            "ok",
            "a.jsonl:7: not UTF-8 text",
        ]) {
            assert!(found.contains(expected), "{found}: expected {expected}");
        }
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn rejects_truncated_and_damaged_archives() {
        let scratch = TempDir::new();
        let text: String = (0..2_000)
            .map(|i| format!("{{\"text\": \"row {i}\"}}\n"))
            .collect();
        for (ending, packed) in [
            ("gz", gzip(text.as_bytes())),
            ("zst", zstd::encode_all(text.as_bytes(), 3).unwrap()),
        ] {
            let name = format!("a.jsonl.{ending}");
            let path = scratch.write(&name, &packed[..packed.len() / 2]);
            let found = read(&path, 9, 0);
            let last = found.last().unwrap();
            assert!(last.starts_with("! ") && last.contains(&name), "{last}");
            assert!(last.contains("the archive is cut off"), "{last}");
            let path = scratch.write(&name, b"no archive at all");
            let found = read(&path, 9, 0);
            assert!(found[0].contains("cannot be read further"), "{found:?}");
        }
    }
}
