//! The stack machine that interprets a pickle.

use std::collections::HashMap;

use super::{
    input::Input,
    value::{Tree, Value},
};

/// Longest pickle, in bytes. The pickle of OpenELM-3B with its optimizer's state has less than
/// 1 MiB.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// Limit of opcodes and copied items per pickle. A tensor takes about 50: this allows 20,000
/// tensors, and keeps the values under 200 MiB.
const MAX_STEPS: usize = 1 << 20;

/// Reads the pickle at the start of `bytes`; returns it and its length in bytes.
///
/// # Errors
/// One line with the problem and its byte offset.
pub(crate) fn read(bytes: &[u8]) -> Result<(Tree<'_>, usize), String> {
    let mut machine = Machine {
        input: Input::new(bytes),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        tree: Tree::new(),
        steps: MAX_STEPS,
    };
    let at = |position| move |problem| format!("at byte {position} of the pickle: {problem}");
    machine.start().map_err(at(0))?;
    loop {
        let position = machine.input.position();
        if machine.step().map_err(at(position))? {
            return Ok((machine.tree, machine.input.position()));
        }
    }
}

pub(super) struct Machine<'a> {
    pub(super) input: Input<'a>,
    stack: Vec<Value<'a>>,
    /// Stack heights of the open marks: a later opcode takes all values above.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    pub(super) tree: Tree<'a>,
    /// Number of steps left.
    steps: usize,
}

impl<'a> Machine<'a> {
    /// PyTorch writes protocol 2, and up to 5 on request.
    fn start(&mut self) -> Result<(), String> {
        match (self.input.u8()?, self.input.u8()?) {
            (0x80, 2..=5) => Ok(()),
            (0x80, other) => Err(format!("expected protocol 2 to 5, found {other}")),
            _ => Err("not a pickle of protocol 2 to 5".into()),
        }
    }

    /// Executes one opcode; returns true if it was the last.
    fn step(&mut self) -> Result<bool, String> {
        self.spend(1)?;
        let opcode = self.input.u8()?;
        match opcode {
            b'.' => return self.stop().map(|()| true), // STOP
            b'(' => self.marks.push(self.stack.len()), // MARK
            0x95 => drop(self.input.u64()?),           // FRAME
            // Constants: NONE, NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => self.int(|input| input.i32().map(i64::from))?,
            b'K' => self.int(|input| input.u8().map(i64::from))?,
            b'M' => self.int(|input| input.u16().map(i64::from))?,
            0x8a => self.long(Input::short_block)?,
            0x8b => self.long(Input::block)?,
            b'G' => self.skip(|input| input.u64().map(drop), Value::Float)?,
            // Strings: SHORT_BINSTRING, BINSTRING, SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            b'U' | 0x8c => self.text(Input::short_block)?,
            b'T' | b'X' => self.text(Input::block)?,
            0x8d => self.text(Input::long_block)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.skip(|input| input.short_block().map(drop), Value::Bytes)?,
            b'B' => self.skip(|input| input.block().map(drop), Value::Bytes)?,
            0x8e | 0x96 => self.skip(|input| input.long_block().map(drop), Value::Bytes)?,
            // Tuples: EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.tuple(0)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.above_mark()?;
                self.push_tuple(items);
            }
            b']' => self.push_list(Vec::new()), // EMPTY_LIST
            b'a' => self.append(1)?,            // APPEND
            b'e' => self.append_marked()?,      // APPENDS
            b'}' => self.push_dict(Vec::new()), // EMPTY_DICT
            b's' => self.set_item()?,           // SETITEM
            b'u' => self.set_items()?,          // SETITEMS
            0x8f => self.push_opaque("builtins", "set"), // EMPTY_SET
            0x90 => self.append_marked()?,      // ADDITEMS
            0x91 => {
                self.above_mark()?; // FROZENSET
                self.push_opaque("builtins", "frozenset");
            }
            // The memo: BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => self.put(|input, _| input.u8().map(u32::from))?,
            b'r' => self.put(|input, _| input.u32())?,
            0x94 => self.put(|_, len| u32::try_from(len).map_err(|_| "too many".into()))?,
            b'h' => self.get(|input| input.u8().map(u32::from))?,
            b'j' => self.get(Input::u32)?,
            // Objects: GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(module, name)?;
            }
            0x93 => self.stack_global()?,
            b'R' => self.call()?,
            0x81 => self.call()?,
            0x92 => {
                self.pop()?;
                self.call()?;
            }
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            _ => return Err(format!("opcode 0x{opcode:02x} is not used in weight files")),
        }
        Ok(false)
    }

    pub(super) fn spend(&mut self, steps: usize) -> Result<(), String> {
        self.steps = self
            .steps
            .checked_sub(steps)
            .ok_or_else(|| format!("more than {MAX_STEPS} steps; weight files take far fewer"))?;
        Ok(())
    }

    fn stop(&mut self) -> Result<(), String> {
        self.tree.root = self.pop()?;
        if self.stack.is_empty() && self.marks.is_empty() {
            return Ok(());
        }
        Err("the pickle ends with values left over".into())
    }

    pub(super) fn push(&mut self, value: Value<'a>) {
        self.stack.push(value);
    }

    pub(super) fn pop(&mut self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    pub(super) fn top(&self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&value) if self.stack.len() > floor => Ok(value),
            _ => Err("the stack is empty".into()),
        }
    }

    /// Takes `count` values from the stack, in the order of their pushes.
    pub(super) fn above(&mut self, count: usize) -> Result<Vec<Value<'a>>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(at) if at >= floor => Ok(self.stack.drain(at..).collect()),
            _ => Err("the stack is empty".into()),
        }
    }

    pub(super) fn above_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or("no mark was set")?;
        // `pop` never goes below a mark, so the stack is at least that high.
        Ok(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    fn put(
        &mut self,
        key: impl FnOnce(&mut Input<'a>, usize) -> Result<u32, String>,
    ) -> Result<(), String> {
        let key = key(&mut self.input, self.memo.len())?;
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn get(
        &mut self,
        key: impl FnOnce(&mut Input<'a>) -> Result<u32, String>,
    ) -> Result<(), String> {
        let key = key(&mut self.input)?;
        let value = *self
            .memo
            .get(&key)
            .ok_or_else(|| format!("memo {key} was never set"))?;
        self.push(value);
        Ok(())
    }
}
