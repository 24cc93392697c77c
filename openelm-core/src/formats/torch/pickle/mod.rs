//! Parser of the part of Python's pickle format that PyTorch's weight files use. It never executes
//! code.
//!
//! A pickle is a program for a small stack machine (CPython's `pickletools` documents its opcodes).
//! This parser supports a fixed list of opcodes and of Python names; the functions that PyTorch
//! calls to rebuild tensors become descriptions of tensors, and nothing is looked up or called.
//! Other names of torch, numpy and CoreNet become [`Value::Opaque`], for the training state in the
//! file. All other names are refused with an error.
//!
//! Values are small handles into the flat lists of a [`Tree`], so that neither depth nor cycles
//! cause recursion; every opcode and every copied item counts against one budget, which bounds time
//! and memory for any pickle.

mod containers;
mod element;
mod globals;
mod input;
mod machine;
mod objects;
mod value;

pub(crate) use machine::{MAX_BYTES, read};
pub(crate) use value::{Storage, Tensor, Tree, Value};
