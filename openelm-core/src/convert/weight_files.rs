//! The weight files of a model folder in progress: one file, or shards with an index.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use mlx_rs::Array;
use serde_json::json;

use crate::{
    error::{Error, Result},
    files::write_synced,
    weights::{NewTensor, SafetensorsWriter},
};

/// The weight files of a model folder in progress.
pub(super) struct WeightFiles {
    files: Vec<SafetensorsWriter>,
    /// Index of the file of every tensor.
    places: HashMap<String, usize>,
}

impl WeightFiles {
    /// Creates the files for `parts` in `folder`, in shards of at most `max_shard_bytes` unless a
    /// tensor is larger, and the index.
    pub(super) fn create(
        folder: &Path,
        parts: &[&NewTensor],
        max_shard_bytes: u64,
        format: &str,
        parameters: u64,
    ) -> Result<Self> {
        let shards = shards(parts, max_shard_bytes);
        let mut files = Vec::with_capacity(shards.len());
        let mut places = HashMap::new();
        let mut weight_map = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            let name = match shards.len() {
                1 => "model.safetensors".to_owned(),
                count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            for part in shard {
                weight_map.insert(part.name.clone(), name.clone());
                places.insert(part.name.clone(), i);
            }
            let path = folder.join(name);
            let metadata = ("format", format);
            files.push(SafetensorsWriter::create(&path, &path, shard, metadata)?);
        }
        let total: u64 = parts.iter().map(|part| part.bytes()).sum();
        let index = json!({
            "metadata": { "total_size": total, "total_parameters": parameters },
            "weight_map": weight_map,
        });
        let path = folder.join("model.safetensors.index.json");
        write_synced(&path, format!("{index:#}\n"))?;
        Ok(Self { files, places })
    }

    /// Writes the tensor `part` and evaluates it if needed.
    pub(super) fn write(&mut self, part: &NewTensor, array: &Array) -> Result<()> {
        let place = self.places.get(&part.name);
        let file = place.and_then(|&place| self.files.get_mut(place));
        let Some(file) = file else {
            return Err(Error::UnexpectedTensor {
                path: "plan".into(),
                name: part.name.clone(),
            });
        };
        file.write(part, array)
    }

    /// Flushes all files to the disk.
    pub(super) fn finish(self) -> Result<()> {
        self.files
            .into_iter()
            .try_for_each(SafetensorsWriter::finish)
    }
}

/// Fills shards in order, like mlx-lm's `make_shards`; a larger tensor gets its own shard.
fn shards<'p>(parts: &[&'p NewTensor], max_bytes: u64) -> Vec<Vec<&'p NewTensor>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for part in parts {
        if size > 0 && size + part.bytes() > max_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += part.bytes();
        if let Some(shard) = shards.last_mut() {
            shard.push(*part);
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mlx::Dtype, weights::StoredDtype};

    fn part(name: &str, dtype: StoredDtype, shape: &[usize]) -> NewTensor {
        NewTensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn shards_are_filled_in_order() {
        let float = StoredDtype::Float(Dtype::Float32);
        let parts: Vec<NewTensor> = [3, 2, 9, 1, 1]
            .iter()
            .enumerate()
            .map(|(i, &n)| part(&i.to_string(), float, &[n]))
            .collect();
        let parts: Vec<&NewTensor> = parts.iter().collect();
        let names = |max| {
            let shards = shards(&parts, max).into_iter();
            let join =
                |shard: Vec<&NewTensor>| shard.iter().map(|part| part.name.as_str()).collect();
            shards.map(join).collect::<Vec<String>>()
        };
        assert_eq!(names(20), ["01", "2", "34"]);
        assert_eq!(names(1 << 20), ["01234"]);
    }
}
