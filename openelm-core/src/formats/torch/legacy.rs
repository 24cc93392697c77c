//! The format of PyTorch before 1.6: a sequence of pickles, then the storages.
//!
//! The pickles are a magic number, the version of the format (1001), properties of the writing
//! machine, the saved object and the list of the storages' keys. Then follow, for each key in this
//! order, the storage's length in elements, of 8 bytes, and its elements.

use std::collections::HashMap;

use super::bytes::{Span, TorchBytes};
use crate::{
    error::Result,
    formats::torch::pickle::{MAX_BYTES, Storage, Tree, Value, read},
};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;
/// Size of the length before each storage, in bytes.
const LENGTH: u64 = 8;

/// The location of each storage in a file.
pub(super) struct Legacy<'a>(HashMap<&'a str, Span>);

/// The part of a file that can contain its pickles.
pub(super) fn head(source: &TorchBytes) -> Result<Vec<u8>> {
    source.read(Span {
        start: 0,
        len: source.len().min(MAX_BYTES as u64),
    })
}

impl<'a> Legacy<'a> {
    /// Reads the pickles in `head` and finds the storages after them.
    pub(super) fn open(source: &TorchBytes, head: &'a [u8]) -> Result<(Tree<'a>, Self)> {
        let mut pickles = Pickles { head, at: 0 };
        match pickles.next().map(|tree| tree.root()) {
            Ok(Value::Long(magic)) if *magic == MAGIC => {}
            _ => {
                return Err(source
                    .malformed("not a PyTorch file: neither a zip archive nor its older format"));
            }
        }
        let version = pickles
            .next()
            .map_err(|problem| source.malformed(problem))?;
        if !matches!(version.root(), Value::Int(VERSION)) {
            return Err(source.malformed(format!(
                "expected version {VERSION} of PyTorch's older format"
            )));
        }
        check_machine(
            &pickles
                .next()
                .map_err(|problem| source.malformed(problem))?,
        )
        .map_err(|problem| source.malformed(problem))?;
        let object = pickles
            .next()
            .map_err(|problem| source.malformed(problem))?;
        let keys = pickles
            .next()
            .map_err(|problem| source.malformed(problem))?;
        let Some(keys) = keys.items(keys.root()) else {
            return Err(source.malformed("the list of its storages is not a list"));
        };
        let storages = find(source, pickles.at as u64, &object, keys)?;
        Ok((object, Self(storages)))
    }

    /// The bytes of a storage.
    pub(super) fn find(&self, source: &TorchBytes, storage: Storage<'_>) -> Result<Span> {
        let Some(&root) = self.0.get(storage.key) else {
            return Err(source.malformed(format!(
                "storage {:?} is not in the list of storages",
                storage.key
            )));
        };
        let Some((offset, len)) = storage.view else {
            return Ok(root);
        };
        let size = storage.element.size() as u64;
        let bytes = (offset.checked_mul(size)).zip(len.checked_mul(size));
        match bytes {
            Some((offset, len)) if offset.checked_add(len).is_some_and(|end| end <= root.len) => {
                Ok(Span {
                    start: root.start.saturating_add(offset),
                    len,
                })
            }
            _ => Err(source.malformed(format!(
                "a part of {len} elements at {offset} exceeds storage {:?} of {} bytes",
                storage.key, root.len
            ))),
        }
    }
}

/// Reads one pickle after another.
struct Pickles<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Pickles<'a> {
    fn next(&mut self) -> Result<Tree<'a>, String> {
        let rest = self.head.get(self.at..).unwrap_or_default();
        let (tree, len) =
            read(rest).map_err(|problem| format!("in the pickle at {}: {problem}", self.at))?;
        self.at = self.at.saturating_add(len);
        Ok(tree)
    }
}

fn check_machine(facts: &Tree<'_>) -> Result<(), String> {
    let little = facts
        .entries(facts.root())
        .unwrap_or_default()
        .iter()
        .find(|(key, _)| matches!(key, Value::Text("little_endian")));
    match little {
        Some((_, Value::Bool(true))) => Ok(()),
        Some((_, Value::Bool(false))) => Err("it was written on a big-endian machine".into()),
        _ => Err("its byte order is not stated".into()),
    }
}

/// Locates the storages from byte `start`.
fn find<'a>(
    source: &TorchBytes,
    start: u64,
    object: &Tree<'a>,
    keys: &[Value<'_>],
) -> Result<HashMap<&'a str, Span>> {
    let mut described = HashMap::new();
    for storage in object.storages() {
        let known = described.insert(storage.key, *storage);
        if known.is_some_and(|known| (known.element, known.len) != (storage.element, storage.len)) {
            return Err(source.malformed(format!(
                "storage {:?} is described in two ways",
                storage.key
            )));
        }
    }
    let mut found = HashMap::new();
    let mut at = start;
    for key in keys {
        let storage = match key {
            Value::Text(key) => described.remove(key),
            _ => None,
        };
        let Some(storage) = storage else {
            return Err(source
                .malformed("its list of storages names one that no tensor uses, or one twice"));
        };
        let len = source.read(Span {
            start: at,
            len: LENGTH,
        })?;
        let len = len.try_into().map_or(0, u64::from_le_bytes);
        if len != storage.len {
            return Err(source.malformed(format!(
                "storage {:?} has {len} elements; the pickle says {}",
                storage.key, storage.len
            )));
        }
        let span = Span {
            start: at.saturating_add(LENGTH),
            len: len.saturating_mul(storage.element.size() as u64),
        };
        at = span.start.saturating_add(span.len);
        if at > source.len() {
            return Err(source.malformed(format!(
                "truncated or damaged: storage {:?} of {len} elements ends at byte {at}, the \
                 file has {}",
                storage.key,
                source.len()
            )));
        }
        found.insert(storage.key, span);
    }
    Ok(found)
}
