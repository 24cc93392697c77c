//! `torch.save` files, generated here: CoreNet's names, one storage per tensor.

use std::{fs, path::Path};

use openelm_core::adapter::Adapter;
use openelm_testing::{TempDir, zip};
use safetensors::{Dtype as Stored, SafeTensors};

use crate::{
    models::{Tensor, Tensors, read},
    opcodes::{LEGACY_HEAD, long, rebuilt, storage, text},
};

/// Tensors with CoreNet's names, the embedding padded with zeros to `rows` rows.
pub(crate) fn corenet(tensors: &Tensors, rows: usize) -> Tensors {
    let renamed = tensors.iter().map(|(name, tensor)| {
        let mut tensor = tensor.clone();
        if let (true, [count, width]) = (name.contains("embeddings"), tensor.shape.as_slice()) {
            let size = tensor.bytes.len() / count / width;
            tensor.bytes.resize(rows * width * size, 0x3c);
            tensor.shape[0] = rows;
        }
        let name = match name.strip_prefix("transformer.") {
            Some(rest) => rest.to_owned(),
            None => name.replace("lm_head", "classifier"),
        };
        (name, tensor)
    });
    renamed.collect()
}

/// A zip archive in the format of PyTorch 1.6 and later. Several state dicts form a training
/// checkpoint, by their names in it.
pub(crate) fn zip_file(dicts: &[(&str, &Tensors)]) -> Vec<u8> {
    let (pickle, storages) = pickle(dicts);
    let mut entries = vec![("model/data.pkl".to_owned(), pickle)];
    for (key, data) in storages.into_iter().enumerate() {
        entries.push((format!("model/data/{key}"), data));
    }
    zip(&entries)
}

/// A file in the format before PyTorch 1.6.
pub(crate) fn legacy_file(dicts: &[(&str, &Tensors)]) -> Vec<u8> {
    let (pickle, storages) = pickle(dicts);
    let mut bytes = [LEGACY_HEAD, &pickle, b"\x80\x02]("].concat();
    for key in 0..storages.len() {
        bytes.extend(text(&key.to_string()));
    }
    bytes.extend(b"e.");
    let sizes = dicts.iter().flat_map(|(_, tensors)| tensors.values());
    for (tensor, data) in sizes.zip(storages) {
        let elements: usize = tensor.shape.iter().product();
        bytes.extend((elements as u64).to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

#[test]
fn peft_adapter_in_a_torch_file_is_read() {
    let lora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft/lora");
    let folder = TempDir::new();
    let bytes = fs::read(lora.join("adapter_model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = stored.tensors().into_iter().map(|(name, view)| {
        let tensor = Tensor {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        (name, tensor)
    });
    let file = zip_file(&[("", &tensors.collect())]);
    folder.write("adapter/adapter_model.bin", file);
    let settings = fs::read(lora.join("adapter_config.json")).unwrap();
    folder.write("adapter/adapter_config.json", settings);
    let saved = |from: &Path, name: &str| {
        let adapter = Adapter::load(from).unwrap();
        adapter.save_peft(folder.join(name), "base").unwrap();
        read(&folder.join(name))
    };
    assert_eq!(saved(&folder.join("adapter"), "a"), saved(&lora, "b"));
}

fn pickle(dicts: &[(&str, &Tensors)]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut storages = Vec::new();
    let mut dict = |tensors: &Tensors| {
        let mut bytes = b"}(".to_vec();
        for (name, tensor) in tensors {
            let class = match tensor.dtype {
                Stored::F32 => "FloatStorage",
                Stored::F16 => "HalfStorage",
                _ => "BFloat16Storage",
            };
            let shape: Vec<i32> = tensor.shape.iter().map(|&n| n as i32).collect();
            let mut strides = vec![1; shape.len()];
            for i in (1..shape.len()).rev() {
                strides[i - 1] = strides[i] * shape[i];
            }
            let elements = shape.iter().map(|&n| n as u64).product();
            let storage = storage(class, &storages.len().to_string(), &long(elements));
            storages.push(tensor.bytes.clone());
            bytes.extend(text(name));
            bytes.extend(rebuilt(&storage, &long(0), &shape, &strides));
        }
        bytes.push(b'u');
        bytes
    };
    let body = match dicts {
        [("", tensors)] => dict(tensors),
        _ => {
            let mut bytes = b"}(".to_vec();
            for (name, tensors) in dicts {
                bytes.extend(text(name));
                bytes.extend(dict(tensors));
            }
            bytes.extend([&text("epoch")[..], &long(3), b"u"].concat());
            bytes
        }
    };
    ([b"\x80\x02", &body[..], b"."].concat(), storages)
}
