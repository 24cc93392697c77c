//! The weight files of a model folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::safetensors_header::{read_header, read_index};
use crate::{
    error::{Error, Result},
    lookup::first_file,
};

/// The files of a checkpoint, in order of their names.
pub(super) struct Layout {
    pub(super) files: Vec<PathBuf>,
    /// The file of each tensor, if an index states it.
    pub(super) listed: Option<BTreeMap<String, String>>,
}

impl Layout {
    /// Finds the weight files in `folder`, whose index would be `index`.
    pub(super) fn find(folder: &Path, index: &Path) -> Result<Self> {
        let single = folder.join("model.safetensors");
        if index.is_file() {
            return match read_index(index).and_then(|listed| {
                check_shards(index, &listed)?;
                Ok(listed)
            }) {
                Ok(listed) => Ok(Self::listed(folder, listed)),
                Err(error) => Self::whole(&single, index).ok_or(error),
            };
        }
        if single.is_file() {
            return Ok(Self::of(vec![single]));
        }
        let files = shards(folder)?;
        if files.is_empty() {
            // A file that cannot be examined is not missing.
            let _ = first_file(
                folder,
                &["model.safetensors", "model.safetensors.index.json"],
            )?;
            return Err(Error::missing_file(
                folder,
                "found neither model.safetensors nor model.safetensors.index.json",
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
    let missing = listed.values().find_map(|name| {
        let shard = index.with_file_name(name);
        (!shard.is_file()).then_some(shard)
    });
    match missing {
        None => Ok(()),
        Some(shard) => Err(Error::missing_file(
            shard,
            format!("not found; {} lists it", index.display()),
        )),
    }
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
