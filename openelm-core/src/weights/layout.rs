//! The weight files of a model folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::safetensors_header::{read_header, read_index};
use crate::{
    error::{Error, Result},
    lookup::{PathKind, path_kind},
};

/// The list of shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The file of a model without shards.
pub(super) const SINGLE: &str = "model.safetensors";

/// The files of a checkpoint, in order of their names.
pub(super) struct Layout {
    pub(super) files: Vec<PathBuf>,
    /// The file of each tensor, if an index states it.
    pub(super) listed: Option<BTreeMap<String, String>>,
}

impl Layout {
    /// Finds the weight files in `folder`, whose index would be `index`.
    pub(super) fn find(folder: &Path, index: &Path) -> Result<Self> {
        let single = folder.join(SINGLE);
        let is_file = |path: &Path| Ok::<_, Error>(path_kind(path)? == Some(PathKind::File));
        if is_file(index)? {
            return match read_index(index).and_then(|listed| {
                check_shards(index, &listed)?;
                Ok(listed)
            }) {
                Ok(listed) => Ok(Self::listed(folder, listed)),
                Err(error) => Self::whole(&single, index).ok_or(error),
            };
        }
        if is_file(&single)? {
            return Ok(Self::of(vec![single]));
        }
        let files = shards(folder)?;
        if files.is_empty() {
            return Err(Error::missing_file(
                folder,
                format!("found neither {SINGLE} nor {INDEX}"),
            ));
        }
        Ok(Self::of(files))
    }

    fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            listed: None,
        }
    }

    fn listed(folder: &Path, listed: BTreeMap<String, String>) -> Self {
        let mut names: Vec<&String> = listed.values().collect();
        names.sort();
        names.dedup();
        Self {
            files: names.into_iter().map(|name| folder.join(name)).collect(),
            listed: Some(listed),
        }
    }

    /// The file `single`, if it has every tensor that the outdated `index` lists.
    fn whole(single: &Path, index: &Path) -> Option<Self> {
        let listed = read_index(index).ok()?;
        let stored: BTreeMap<_, _> = read_header(single).ok()?.into_iter().collect();
        let complete = listed.keys().all(|name| stored.contains_key(name));
        complete.then(|| Self::of(vec![single.to_path_buf()]))
    }
}

/// Checks that the files of the index exist.
fn check_shards(index: &Path, listed: &BTreeMap<String, String>) -> Result<()> {
    for name in listed.values() {
        let shard = index.with_file_name(name);
        if path_kind(&shard)? != Some(PathKind::File) {
            return Err(Error::missing_file(
                shard,
                format!("not found; {} lists it", index.display()),
            ));
        }
    }
    Ok(())
}

/// The files `model*.safetensors` of `folder`, by name.
fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("model") && name.ends_with(".safetensors") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
