//! Opcodes that make plain values and fill containers.

use super::{
    input::{Input, text},
    machine::Machine,
    value::Value,
};

impl<'a> Machine<'a> {
    pub(super) fn int(
        &mut self,
        read: impl FnOnce(&mut Input<'a>) -> Result<i64, String>,
    ) -> Result<(), String> {
        let value = read(&mut self.input)?;
        self.push(Value::Int(value));
        Ok(())
    }

    pub(super) fn long(
        &mut self,
        read: impl FnOnce(&mut Input<'a>) -> Result<&'a [u8], String>,
    ) -> Result<(), String> {
        let bytes = read(&mut self.input)?;
        let value = match integer(bytes) {
            Some(value) => Value::Int(value),
            None => Value::Long(bytes),
        };
        self.push(value);
        Ok(())
    }

    pub(super) fn text(
        &mut self,
        read: impl FnOnce(&mut Input<'a>) -> Result<&'a [u8], String>,
    ) -> Result<(), String> {
        let value = text(read(&mut self.input)?)?;
        self.push(Value::Text(value));
        Ok(())
    }

    /// Pushes `value` in place of the bytes that `read` skips.
    pub(super) fn skip(
        &mut self,
        read: impl FnOnce(&mut Input<'a>) -> Result<(), String>,
        value: Value<'a>,
    ) -> Result<(), String> {
        read(&mut self.input)?;
        self.push(value);
        Ok(())
    }

    pub(super) fn tuple(&mut self, count: usize) -> Result<(), String> {
        let items = self.above(count)?;
        self.push_tuple(items);
        Ok(())
    }

    pub(super) fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        let index = self.tree.sequences.len();
        self.tree.sequences.push(items);
        self.push(Value::Tuple(index));
    }

    pub(super) fn push_list(&mut self, items: Vec<Value<'a>>) {
        let index = self.tree.sequences.len();
        self.tree.sequences.push(items);
        self.push(Value::List(index));
    }

    pub(super) fn push_dict(&mut self, entries: Vec<(Value<'a>, Value<'a>)>) {
        let index = self.tree.dicts.len();
        self.tree.dicts.push(entries);
        self.push(Value::Dict(index));
    }

    pub(super) fn push_opaque(&mut self, module: &'a str, name: &'a str) {
        let index = self.tree.opaques.len();
        self.tree.opaques.push((module, name));
        self.push(Value::Opaque(index));
    }

    pub(super) fn append(&mut self, count: usize) -> Result<(), String> {
        let items = self.above(count)?;
        self.extend(items)
    }

    pub(super) fn append_marked(&mut self) -> Result<(), String> {
        let items = self.above_mark()?;
        self.extend(items)
    }

    fn extend(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        match self.top()? {
            Value::Opaque(_) => Ok(()),
            Value::List(index) => {
                if let Some(list) = self.tree.sequences.get_mut(index) {
                    list.extend(items);
                }
                Ok(())
            }
            other => Err(format!(
                "{} cannot be appended to",
                self.tree.describe(other)
            )),
        }
    }

    pub(super) fn set_item(&mut self) -> Result<(), String> {
        let pair = self.above(2)?;
        self.insert(&pair)
    }

    pub(super) fn set_items(&mut self) -> Result<(), String> {
        let pairs = self.above_mark()?;
        self.insert(&pairs)
    }

    /// Inserts `items`: key, value, key, value...
    fn insert(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a dict's key has no value".into());
        };
        match self.top()? {
            Value::Opaque(_) => Ok(()),
            Value::Dict(index) => {
                if let Some(dict) = self.tree.dicts.get_mut(index) {
                    dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                }
                Ok(())
            }
            other => Err(format!("{} has no items to set", self.tree.describe(other))),
        }
    }
}

/// Two's complement, little-endian, of at most eight bytes.
fn integer(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}
