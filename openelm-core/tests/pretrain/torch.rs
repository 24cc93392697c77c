//! `torch.save` files of nested values, generated here: one storage per tensor, in a zip archive.

use openelm_testing::zip;

use crate::opcodes::{int, rebuilt, storage, text};

/// A value of Python.
#[derive(Clone, Debug)]
pub(crate) enum Python {
    None,
    Int(i32),
    Text(String),
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    /// A tensor of f32: shape and values.
    Tensor(Vec<i32>, Vec<f32>),
}

impl Python {
    /// A dict with names as keys.
    pub(crate) fn dict<const N: usize>(entries: [(&str, Self); N]) -> Self {
        let entries = entries.into_iter();
        Self::Dict(entries.map(|(name, value)| (name.into(), value)).collect())
    }

    /// The value of `key` in a dict.
    pub(crate) fn at(&mut self, key: impl Into<Self>) -> &mut Self {
        let key = format!("{:?}", key.into());
        let Self::Dict(entries) = self else {
            panic!("{self:?} is no dict");
        };
        let mut entries = entries.iter_mut();
        let found = entries.find(|(name, _)| format!("{name:?}") == key);
        &mut found.unwrap().1
    }
}

impl From<&str> for Python {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i32> for Python {
    fn from(number: i32) -> Self {
        Self::Int(number)
    }
}

/// The file that `torch.save` writes for `value`.
pub(crate) fn saved(value: &Python) -> Vec<u8> {
    let mut storages = Vec::new();
    let body = pickled(value, &mut storages);
    let pickle = [b"\x80\x02", &body[..], b"."].concat();
    let mut entries = vec![("archive/data.pkl".to_owned(), pickle)];
    for (key, data) in storages.into_iter().enumerate() {
        entries.push((format!("archive/data/{key}"), data));
    }
    zip(&entries)
}

fn pickled(value: &Python, storages: &mut Vec<Vec<u8>>) -> Vec<u8> {
    match value {
        Python::None => b"N".to_vec(),
        Python::Int(number) => int(*number),
        Python::Text(value) => text(value),
        Python::List(items) => {
            let items: Vec<u8> = items
                .iter()
                .flat_map(|item| pickled(item, storages))
                .collect();
            [b"](", &items[..], b"e"].concat()
        }
        Python::Dict(entries) => {
            let mut bytes = b"}(".to_vec();
            for (key, value) in entries {
                bytes.extend(pickled(key, storages));
                bytes.extend(pickled(value, storages));
            }
            bytes.push(b'u');
            bytes
        }
        Python::Tensor(shape, values) => {
            let mut strides = vec![1; shape.len()];
            for i in (1..shape.len()).rev() {
                strides[i - 1] = strides[i] * shape[i];
            }
            let count = int(values.len() as i32);
            let storage = storage("FloatStorage", &storages.len().to_string(), &count);
            storages.push(
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            );
            rebuilt(&storage, &int(0), shape, &strides)
        }
    }
}
