//! Opcodes that name, call and modify Python objects, with the results of the supported names.

use super::{
    globals::{Function, Global, lookup},
    machine::Machine,
    value::{Storage, Tensor, Value},
};

/// Largest number of dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Longest key of a storage, in bytes; PyTorch numbers them.
const MAX_KEY: usize = 64;

impl<'a> Machine<'a> {
    pub(super) fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), String> {
        match lookup(module, name) {
            Global::Known(function) => self.push(Value::Function(function)),
            Global::Inert => self.push_opaque(module, name),
            Global::Refused => {
                return Err(format!(
                    "the pickle refers to `{}.{}`, which weight files do not need; no code was run",
                    module.escape_debug(),
                    name.escape_debug()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn stack_global(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Text(module), Value::Text(name)) = (module, name) else {
            return Err("a module and a name are not strings".into());
        };
        self.global(module, name)
    }

    /// Calls the function of REDUCE and NEWOBJ on the arguments on top of it.
    pub(super) fn call(&mut self) -> Result<(), String> {
        let (arguments, called) = (self.pop()?, self.pop()?);
        if let Value::Opaque(_) = called {
            self.push(called);
            return Ok(());
        }
        let (Value::Function(function), Value::Tuple(index)) = (called, arguments) else {
            return Err(format!(
                "{} is called with {}",
                self.tree.describe(called),
                self.tree.describe(arguments)
            ));
        };
        match function {
            Function::OrderedDict => {
                let entries = self.ordered_dict(index)?;
                self.push_dict(entries);
            }
            Function::RebuildTensor => {
                let tensor = self.rebuilt(index)?;
                let index = self.tree.tensors.len();
                self.tree.tensors.push(tensor);
                self.push(Value::Tensor(index));
            }
            Function::RebuildParameter => match self.sequence(index)? {
                [tensor @ Value::Tensor(_), ..] => self.push(*tensor),
                _ => return Err("a parameter is not made from a tensor".into()),
            },
            Function::Size => match self.sequence(index)? {
                [size @ (Value::Tuple(_) | Value::List(_))] => self.push(*size),
                _ => return Err("a torch.Size is not made from a tuple".into()),
            },
            Function::Storage(_) => return Err("a storage class is called".into()),
        }
        Ok(())
    }

    fn sequence(&self, index: usize) -> Result<&[Value<'a>], String> {
        let sequence = self.tree.sequences.get(index);
        sequence
            .map(Vec::as_slice)
            .ok_or_else(|| format!("there is no sequence {index}"))
    }

    /// Python 3 makes an empty dict and sets its items; Python 2 passes a list of pairs.
    fn ordered_dict(&mut self, arguments: usize) -> Result<Vec<(Value<'a>, Value<'a>)>, String> {
        let pairs = match *self.sequence(arguments)? {
            [] => return Ok(Vec::new()),
            [Value::List(pairs)] => pairs,
            _ => return Err("an OrderedDict is not made from a list of pairs".into()),
        };
        self.spend(self.sequence(pairs)?.len())?;
        self.sequence(pairs)?
            .iter()
            .map(|&pair| match self.tree.items(pair) {
                Some(&[key, value]) => Ok((key, value)),
                _ => Err("an OrderedDict is not made from a list of pairs".into()),
            })
            .collect()
    }

    /// Storage, offset, shape, strides; then, ignored: the gradient flag, hooks and metadata.
    fn rebuilt(&self, arguments: usize) -> Result<Tensor, String> {
        let [storage, offset, shape, strides, rest @ ..] = self.sequence(arguments)? else {
            return Err("a tensor is made from fewer than 4 arguments".into());
        };
        if rest.len() > 3 {
            return Err("a tensor is made from more than 7 arguments".into());
        }
        let Value::Storage(storage) = *storage else {
            return Err("a tensor is not made from a storage".into());
        };
        let tensor = Tensor {
            storage,
            offset: natural(*offset).ok_or("a tensor's offset is not a natural number")?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        };
        if tensor.shape.len() != tensor.strides.len() {
            return Err(format!(
                "a tensor has {} sizes and {} strides",
                tensor.shape.len(),
                tensor.strides.len()
            ));
        }
        Ok(tensor)
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, String> {
        let items = self
            .tree
            .items(value)
            .ok_or("a tensor's sizes or strides are not a tuple")?;
        if items.len() > MAX_DIMS {
            return Err(format!("a tensor has more than {MAX_DIMS} dimensions"));
        }
        items
            .iter()
            .map(|&item| natural(item)?.try_into().ok())
            .collect::<Option<_>>()
            .ok_or_else(|| "a tensor's sizes or strides are not natural numbers".into())
    }

    /// Attributes of an object are ignored (`_metadata` of a state dict).
    pub(super) fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) | Value::Opaque(_) => Ok(()),
            other => Err(format!(
                "attributes are set on {}",
                self.tree.describe(other)
            )),
        }
    }

    /// PyTorch writes a storage as `('storage', class, key, device, length)`, in the older format
    /// followed by None or `(key, offset, length)` of a part.
    pub(super) fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = match self.tree.items(id) {
            Some(
                &[
                    Value::Text("storage"),
                    class,
                    key,
                    Value::Text(_),
                    len,
                    ref view @ ..,
                ],
            ) => self.storage(class, key, len, view),
            _ => None,
        };
        let storage = storage.ok_or("a persistent id is not that of a storage")?;
        let index = self.tree.storages.len();
        self.tree.storages.push(storage);
        self.push(Value::Storage(index));
        Ok(())
    }

    fn storage(
        &self,
        class: Value<'a>,
        key: Value<'a>,
        len: Value<'a>,
        view: &[Value<'a>],
    ) -> Option<Storage<'a>> {
        let Value::Function(Function::Storage(element)) = class else {
            return None;
        };
        let key = match key {
            Value::Text(key) if key.len() <= MAX_KEY => key,
            _ => return None,
        };
        let view = match *view {
            [] | [Value::None] => None,
            [view] => match *self.tree.items(view)? {
                [Value::Text(_), offset, len] => Some((natural(offset)?, natural(len)?)),
                _ => return None,
            },
            _ => return None,
        };
        Some(Storage {
            element,
            key,
            len: natural(len)?,
            view,
        })
    }
}

fn natural(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Int(value) => value.try_into().ok(),
        _ => None,
    }
}
