//! The values of a pickle: handles into flat lists.

use super::{element::Element, globals::Function};

/// One value. Values with an index refer to their [`Tree`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: two's complement, little-endian.
    Long(&'a [u8]),
    Float,
    Text(&'a str),
    Bytes,
    List(usize),
    Tuple(usize),
    Dict(usize),
    /// A name that the machine implements.
    Function(Function),
    /// A name without meaning here, or an object made with it.
    Opaque(usize),
    Storage(usize),
    Tensor(usize),
}

/// A pickle's contents.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(super) root: Value<'a>,
    pub(super) sequences: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) opaques: Vec<(&'a str, &'a str)>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor>,
}

/// The buffer of one or more tensors, as the pickle describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage<'a> {
    pub(crate) element: Element,
    /// Name in the file.
    pub(crate) key: &'a str,
    /// Length in elements.
    pub(crate) len: u64,
    /// The part of the storage, offset and length in elements (files of PyTorch before 0.4).
    pub(crate) view: Option<(u64, u64)>,
}

/// A tensor, as the pickle describes it, not checked against its storage.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// Index of the [`Storage`].
    pub(super) storage: usize,
    /// Offset of the first element in the storage, in elements.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    /// Strides in elements, as many as `shape` has dimensions.
    pub(crate) strides: Vec<usize>,
}

impl<'a> Tree<'a> {
    pub(super) fn new() -> Self {
        Self {
            root: Value::None,
            sequences: Vec::new(),
            dicts: Vec::new(),
            opaques: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// The pickled value.
    pub(crate) fn root(&self) -> Value<'a> {
        self.root
    }

    /// The items of a list or tuple.
    pub(crate) fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::List(index) | Value::Tuple(index) => Some(self.sequences.get(index)?),
            _ => None,
        }
    }

    /// The entries of a dict, in the order in which they were set; a key can occur twice.
    pub(crate) fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(index) => Some(self.dicts.get(index)?),
            _ => None,
        }
    }

    /// A tensor and its storage.
    pub(crate) fn tensor(&self, value: Value<'a>) -> Option<(&Tensor, Storage<'a>)> {
        let Value::Tensor(index) = value else {
            return None;
        };
        let tensor = self.tensors.get(index)?;
        Some((tensor, *self.storages.get(tensor.storage)?))
    }

    /// Every storage, once per reference.
    pub(crate) fn storages(&self) -> &[Storage<'a>] {
        &self.storages
    }

    /// The kind of a value, for an error message.
    pub(crate) fn describe(&self, value: Value<'a>) -> String {
        let kind = match value {
            Value::None => "None",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Float => "a float",
            Value::Text(_) => "a string",
            Value::Bytes => "bytes",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Function(_) => "a function or class",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::Opaque(index) => {
                return match self.opaques.get(index) {
                    Some((module, name)) => {
                        format!("`{}.{}`", module.escape_debug(), name.escape_debug())
                    }
                    None => "an object".into(),
                };
            }
        };
        kind.into()
    }
}
