//! Writes safetensors files tensor by tensor: one file, or shards with an index.
//!
//! The header comes first in the format, so it is computed from the plan; then each tensor's bytes
//! are written at the header's offset. Within a file larger types come first, which aligns every
//! tensor to its type.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use mlx_rs::{Array, Dtype as MlxDtype};
use serde_json::{Map, Value, json};

use super::plan::Part;
use crate::error::{Error, Result};

/// The weight files of a model folder being written.
pub(super) struct SafetensorsWriter {
    files: Vec<(PathBuf, File)>,
    /// Per name: index of the file, offset in it, size.
    places: HashMap<String, (usize, u64, u64)>,
}

impl SafetensorsWriter {
    /// Creates the files for `parts` in `folder`, in shards of at most `max_shard_bytes` unless a
    /// tensor is larger, and the index.
    pub(super) fn create(
        folder: &Path,
        parts: &[&Part],
        max_shard_bytes: u64,
        format: &str,
        parameters: u64,
    ) -> Result<Self> {
        let shards = shards(parts, max_shard_bytes);
        let mut writer = Self {
            files: Vec::new(),
            places: HashMap::new(),
        };
        let mut weight_map = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            let name = match shards.len() {
                1 => "model.safetensors".to_owned(),
                count => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            for part in shard {
                weight_map.insert(part.name.clone(), name.clone());
            }
            writer.add(folder.join(name), shard, format)?;
        }
        let total: u64 = parts.iter().map(|part| part.bytes()).sum();
        let index = json!({
            "metadata": { "total_size": total, "total_parameters": parameters },
            "weight_map": weight_map,
        });
        let path = folder.join("model.safetensors.index.json");
        fs::write(&path, format!("{index:#}\n")).map_err(Error::io(&path))?;
        Ok(writer)
    }

    fn add(&mut self, path: PathBuf, shard: &[&Part], format: &str) -> Result<()> {
        let mut ordered = shard.to_vec();
        ordered.sort_by(|a, b| {
            let size = |part: &Part| std::cmp::Reverse(part.dtype.size());
            (size(a), &a.name).cmp(&(size(b), &b.name))
        });
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ "format": format }));
        let mut end = 0;
        let mut places = Vec::with_capacity(ordered.len());
        for part in ordered {
            let start = end;
            end += part.bytes();
            let entry = json!({
                "dtype": part.dtype.name(),
                "shape": part.shape,
                "data_offsets": [start, end],
            });
            header.insert(part.name.clone(), entry);
            places.push((part.name.clone(), start, part.bytes()));
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let data = 8 + header.len() as u64;

        let mut file = File::create(&path).map_err(Error::io(&path))?;
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .map_err(Error::io(&path))?;
        let index = self.files.len();
        let places = places.into_iter();
        self.places
            .extend(places.map(|(name, start, bytes)| (name, (index, data + start, bytes))));
        self.files.push((path, file));
        Ok(())
    }

    /// Writes the tensor `part` and evaluates it if needed.
    pub(super) fn write(&mut self, part: &Part, array: &Array) -> Result<()> {
        let found = self.places.get(&part.name);
        let Some((&(_, position, bytes), (path, file))) =
            found.and_then(|place| Some((place, self.files.get_mut(place.0)?)))
        else {
            return Err(Error::UnexpectedTensor {
                path: "plan".into(),
                name: part.name.clone(),
            });
        };
        if array.dtype() != part.dtype.mlx() || array.nbytes() as u64 != bytes {
            return Err(Error::TensorShape {
                path: path.clone(),
                name: part.name.clone(),
                expected: part.shape.clone(),
                found: array.shape().iter().map(|&n| n as usize).collect(),
            });
        }
        let array = array.contiguous()?.view_dtype(MlxDtype::Uint8)?;
        let slice = array.try_as_slice::<u8>().map_err(|error| {
            Error::checkpoint(&path, format!("tensor `{}`: {error}", part.name))
        })?;
        file.seek(SeekFrom::Start(position))
            .and_then(|_| file.write_all(slice))
            .map_err(Error::io(path.as_path()))
    }

    /// Flushes all files to the disk.
    pub(super) fn finish(self) -> Result<()> {
        for (path, file) in self.files {
            file.sync_data().map_err(Error::io(path))?;
        }
        Ok(())
    }
}

/// Fills shards in order, like mlx-lm's `make_shards`; a larger tensor gets its own shard.
fn shards<'p>(parts: &[&'p Part], max_bytes: u64) -> Vec<Vec<&'p Part>> {
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
    use openelm_testing::TempDir;

    fn part(name: &str, dtype: StoredDtype, shape: &[usize]) -> Part {
        Part {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn shards_are_filled_in_order() {
        let float = StoredDtype::Float(Dtype::Float32);
        let parts: Vec<Part> = [3, 2, 9, 1, 1]
            .iter()
            .enumerate()
            .map(|(i, &n)| part(&i.to_string(), float, &[n]))
            .collect();
        let parts: Vec<&Part> = parts.iter().collect();
        let names = |max| {
            let shards = shards(&parts, max).into_iter();
            let join = |shard: Vec<&Part>| shard.iter().map(|part| part.name.as_str()).collect();
            shards.map(join).collect::<Vec<String>>()
        };
        assert_eq!(names(20), ["01", "2", "34"]);
        assert_eq!(names(1 << 20), ["01234"]);
    }

    #[test]
    fn tensors_are_aligned_and_read_back() {
        let folder = TempDir::new();
        let parts = [
            part("bytes", StoredDtype::Uint8, &[3]),
            part("words", StoredDtype::Uint32, &[2, 1]),
            part("halves", StoredDtype::Float(Dtype::Bfloat16), &[3]),
        ];
        let all: Vec<&Part> = parts.iter().collect();
        let mut writer = SafetensorsWriter::create(&folder, &all, 1 << 30, "mlx", 8).unwrap();
        let halves = Array::from_slice(&[1.0f32, -2.0, 0.5], &[3]);
        let halves = halves.as_dtype(MlxDtype::Bfloat16).unwrap();
        writer.write(&parts[2], &halves).unwrap();
        writer
            .write(&parts[0], &Array::from_slice(&[7u8, 8, 9], &[3]))
            .unwrap();
        writer
            .write(&parts[1], &Array::from_slice(&[1u32, 2], &[2, 1]))
            .unwrap();
        let wrong = writer.write(&parts[1], &halves).unwrap_err().to_string();
        assert!(wrong.contains("`words`"), "{wrong}");
        writer.finish().unwrap();

        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("bytes").unwrap().data(), [7, 8, 9]);
        assert_eq!(
            file.tensor("words").unwrap().data(),
            [1, 0, 0, 0, 2, 0, 0, 0]
        );
        assert_eq!(
            file.tensor("halves").unwrap().data(),
            [0x80, 0x3f, 0, 0xc0, 0, 0x3f]
        );
        let start = file.tensor("words").unwrap().data().as_ptr() as usize;
        assert_eq!((start - bytes.as_ptr() as usize) % 4, 0);
        let index = fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["metadata"]["total_size"], 17);
    }
}
