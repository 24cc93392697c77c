//! The format of PyTorch since 1.6: a zip archive without compression.
//!
//! The archive has one folder, of any name, with the pickle `data.pkl`, each storage as `data/KEY`,
//! and, since PyTorch 2.1, `byteorder`. The directory at the archive's end is read by the rules of
//! PKWARE's APPNOTE.TXT (4.3.7 local header, 4.3.12 directory, 4.3.14 to 4.3.16 its end, 4.5.3
//! 64-bit sizes). A second entry of the same name, a compressed entry and data before the archive's
//! start are refused. Checksums are not compared: PyTorch can omit them.

use std::collections::HashMap;

use super::bytes::{Span, TorchBytes};
use crate::{
    error::Result,
    formats::torch::pickle::{MAX_BYTES, Storage},
};

/// Longest directory, in bytes: enough for 100,000 storages.
const MAX_DIRECTORY: u64 = 16 << 20;
/// Sizes of the fixed parts of the archive's structures, in bytes.
const LOCAL: u64 = 30;
const ENTRY: usize = 46;
const END: u64 = 22;
const END_64: u64 = 56;
const LOCATOR_64: u64 = 20;
/// A 32-bit field with this value refers to the extra field.
const IN_EXTRA: u32 = u32::MAX;

/// The entries of a PyTorch file.
pub(super) struct Archive {
    /// Name of the folder, with a slash.
    folder: String,
    entries: HashMap<String, Entry>,
    /// Offset of the directory: the end of the entries.
    end: u64,
}

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset of the local header.
    header: u64,
    /// Length in bytes.
    len: u64,
}

/// True if the file starts with a zip entry.
pub(super) fn is_zip(source: &TorchBytes) -> Result<bool> {
    let len = source.len().min(4);
    Ok(source.read(Span { start: 0, len })? == b"PK\x03\x04")
}

impl Archive {
    /// Reads the directory of an archive.
    pub(super) fn open(source: &TorchBytes) -> Result<Self> {
        let (directory, count) = directory(source)?;
        if directory.len > MAX_DIRECTORY {
            return Err(source.malformed(format!(
                "a directory of {} bytes is too long",
                directory.len
            )));
        }
        let bytes = source.read(directory)?;
        let entries = entries(&bytes, count).map_err(|problem| source.malformed(problem))?;
        let mut pickles = entries.keys().filter_map(|name| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.find('/')? == folder.len().saturating_sub(1)).then_some(folder)
        });
        let (Some(folder), None) = (pickles.next(), pickles.next()) else {
            return Err(source.malformed(
                "not a PyTorch file: a zip archive without a folder that contains data.pkl",
            ));
        };
        let archive = Self {
            folder: folder.to_owned(),
            end: directory.start,
            entries,
        };
        archive.check(source)?;
        Ok(archive)
    }

    /// The pickle that describes the tensors.
    pub(super) fn pickle(&self, source: &TorchBytes) -> Result<Vec<u8>> {
        let span = self.entry(source, "data.pkl")?;
        if span.len > MAX_BYTES as u64 {
            return Err(source.malformed(format!("its data.pkl of {} bytes is too long", span.len)));
        }
        source.read(span)
    }

    /// The bytes of a storage.
    pub(super) fn find(&self, source: &TorchBytes, storage: Storage<'_>) -> Result<Span> {
        let span = self.entry(source, &format!("data/{}", storage.key))?;
        let expected = storage.len.checked_mul(storage.element.size() as u64);
        if expected != Some(span.len) || storage.view.is_some() {
            return Err(source.malformed(format!(
                "storage {:?} has {} bytes; the pickle says {} elements",
                storage.key, span.len, storage.len
            )));
        }
        Ok(span)
    }

    fn check(&self, source: &TorchBytes) -> Result<()> {
        if self.has("constants.pkl") {
            return Err(
                source.malformed("a TorchScript program, not weights; save its state dict instead")
            );
        }
        if self.has("byteorder") {
            let span = self.entry(source, "byteorder")?;
            let order = source.read(Span {
                len: span.len.min(8),
                ..span
            })?;
            if order != b"little" {
                return Err(source.malformed(format!(
                    "its byte order is {:?}; only little-endian is read",
                    String::from_utf8_lossy(&order)
                )));
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.entries.contains_key(&format!("{}{name}", self.folder))
    }

    /// The bytes of an entry, after its local header.
    fn entry(&self, source: &TorchBytes, name: &str) -> Result<Span> {
        let name = format!("{}{name}", self.folder);
        let Some(&Entry { header, len }) = self.entries.get(&name) else {
            return Err(source.malformed(format!("`{}` is missing", name.escape_debug())));
        };
        let wrong =
            || source.malformed(format!("`{}`: its header is damaged", name.escape_debug()));
        let named = LOCAL.saturating_add(name.len() as u64);
        if header.checked_add(named).is_none_or(|end| end > self.end) {
            return Err(wrong());
        }
        let local = source.read(Span {
            start: header,
            len: named,
        })?;
        if !local.starts_with(b"PK\x03\x04")
            || u16_at(&local, 8) != Some(0)
            || u16_at(&local, 26).map(usize::from) != Some(name.len())
            || local.get(LOCAL as usize..) != Some(name.as_bytes())
        {
            return Err(wrong());
        }
        let extra = u16_at(&local, 28).map_or(0, u64::from);
        let start = header.saturating_add(named).saturating_add(extra);
        if start.checked_add(len).is_none_or(|end| end > self.end) {
            return Err(source.malformed(format!(
                "`{}` of {len} bytes reaches into the directory",
                name.escape_debug()
            )));
        }
        Ok(Span { start, len })
    }
}

/// The record at the end of an archive.
struct End {
    /// Offset of the record.
    start: u64,
    directory: Span,
    /// Number of the directory's entries.
    count: u64,
    /// True if the archive is split over several files.
    split: bool,
}

/// Finds the directory and its number of entries.
fn directory(source: &TorchBytes) -> Result<(Span, u64)> {
    let (at, record) = last_record(source)?;
    let end = match at.checked_sub(LOCATOR_64) {
        Some(locator) => end_64(source, locator)?,
        None => None,
    };
    let Some(end) = end.or_else(|| end_32(at, &record)) else {
        return Err(source.malformed("the zip archive's end is damaged"));
    };
    let reaches = end.directory.start.checked_add(end.directory.len);
    if end.split || reaches != Some(end.start) {
        return Err(source.malformed(format!(
            "the zip archive's directory of {} bytes at byte {} does not end at the end record at {}",
            end.directory.len, end.directory.start, end.start
        )));
    }
    Ok((end.directory, end.count))
}

/// Finds the last record of the archive; a comment may follow it.
fn last_record(source: &TorchBytes) -> Result<(u64, Vec<u8>)> {
    let len = source.len().min(END.saturating_add(u16::MAX.into()));
    let start = source.len().saturating_sub(len);
    let tail = source.read(Span { start, len })?;
    let is_record = |record: &[u8]| {
        let comment = u16_at(record, 20).map(|len| END.saturating_add(len.into()));
        record.starts_with(b"PK\x05\x06") && comment == Some(record.len() as u64)
    };
    (0..tail.len())
        .rev()
        .filter_map(|at| Some((start.saturating_add(at as u64), tail.get(at..)?)))
        .find(|(_, record)| is_record(record))
        .map(|(at, record)| (at, record.to_vec()))
        .ok_or_else(|| source.malformed("truncated or damaged: the zip archive has no directory"))
}

fn end_32(start: u64, record: &[u8]) -> Option<End> {
    Some(End {
        start,
        split: u32_at(record, 4)? != 0,
        count: u16_at(record, 10)?.into(),
        directory: Span {
            len: u32_at(record, 12)?.into(),
            start: u32_at(record, 16)?.into(),
        },
    })
}

/// The 64-bit record, if there is a pointer to one at `locator`. PyTorch always writes it.
fn end_64(source: &TorchBytes, locator: u64) -> Result<Option<End>> {
    let pointer = source.read(Span {
        start: locator,
        len: LOCATOR_64,
    })?;
    if !pointer.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let damaged = || source.malformed("the zip archive's 64-bit end is damaged");
    let start = u64_at(&pointer, 8).ok_or_else(damaged)?;
    if start.checked_add(END_64) != Some(locator) {
        return Err(damaged());
    }
    let record = source.read(Span { start, len: END_64 })?;
    let end = || {
        Some(End {
            start,
            split: u64_at(&record, 16)? != 0,
            count: u64_at(&record, 32)?,
            directory: Span {
                len: u64_at(&record, 40)?,
                start: u64_at(&record, 48)?,
            },
        })
    };
    if !record.starts_with(b"PK\x06\x06") {
        return Err(damaged());
    }
    end().map(Some).ok_or_else(damaged)
}

/// Reads the directory, which must have exactly `count` entries.
fn entries(mut bytes: &[u8], count: u64) -> Result<HashMap<String, Entry>, String> {
    let mut entries = HashMap::new();
    while !bytes.is_empty() {
        let (name, entry, rest) = entry(bytes)?;
        if entries.insert(name.clone(), entry).is_some() {
            return Err(format!("`{}` occurs twice", name.escape_debug()));
        }
        bytes = rest;
    }
    if entries.len() as u64 != count {
        return Err(format!(
            "the zip archive's directory has {} entries; its end says {count}",
            entries.len()
        ));
    }
    Ok(entries)
}

/// Reads the first entry of the directory; returns its name, the entry, and the remaining bytes.
fn entry(bytes: &[u8]) -> Result<(String, Entry, &[u8]), String> {
    let damaged = || "the zip archive's directory is damaged".to_owned();
    if !bytes.starts_with(b"PK\x01\x02") {
        return Err(damaged());
    }
    let length_at = |at| u16_at(bytes, at).map(usize::from).ok_or_else(damaged);
    let (name, extra, comment) = (length_at(28)?, length_at(30)?, length_at(32)?);
    let after = bytes.get(ENTRY..).ok_or_else(damaged)?;
    let (name, after) = after.split_at_checked(name).ok_or_else(damaged)?;
    let (extra, after) = after.split_at_checked(extra).ok_or_else(damaged)?;
    let rest = after.get(comment..).ok_or_else(damaged)?;
    let name = str::from_utf8(name).map_err(|_| damaged())?.to_owned();

    let (flags, method) = (length_at(8)?, length_at(10)?);
    if flags & 1 != 0 || method != 0 {
        return Err(format!(
            "`{}` is compressed or encrypted; PyTorch stores it uncompressed",
            name.escape_debug()
        ));
    }
    let [packed, len, header] = sizes(bytes, extra).ok_or_else(damaged)?;
    if packed != len {
        return Err(format!(
            "`{}` has {len} bytes, stored as it is in {packed}",
            name.escape_debug()
        ));
    }
    Ok((name, Entry { header, len }, rest))
}

/// Packed size, size and offset of an entry; 64-bit values are in its extra field, in the order
/// size, packed size, offset.
fn sizes(entry: &[u8], extra: &[u8]) -> Option<[u64; 3]> {
    let mut wide = wide_sizes(extra);
    let mut size_at = |at| match u32_at(entry, at)? {
        IN_EXTRA => {
            let (size, rest) = wide.split_at_checked(8)?;
            wide = rest;
            u64_at(size, 0)
        }
        size => Some(size.into()),
    };
    let len = size_at(24)?;
    let packed = size_at(20)?;
    Some([packed, len, size_at(42)?])
}

/// The block of 64-bit sizes in an extra field, empty if there is none.
fn wide_sizes(mut extra: &[u8]) -> &[u8] {
    const WIDE: u16 = 1;
    while let (Some(kind), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let block = extra.get(4..).unwrap_or_default();
        let Some((block, rest)) = block.split_at_checked(len.into()) else {
            break;
        };
        if kind == WIDE {
            return block;
        }
        extra = rest;
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
