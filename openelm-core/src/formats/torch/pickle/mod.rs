//! Reads the part of Python's pickle format that PyTorch's weight files use, and runs nothing.
//!
//! A pickle is a program for a small stack machine (CPython's `pickletools` documents its
//! opcodes). Here every opcode and every Python name that it may refer to is on a list; the
//! handful of functions that PyTorch calls to rebuild tensors become descriptions of tensors, and
//! nothing is ever looked up or called. Names of torch, numpy and CoreNet beyond those stand as
//! [`Value::Opaque`], for the training state beside the weights. All others are refused by name.
//!
//! Values are small handles into the flat lists of a [`Tree`], so that neither depth nor cycles
//! cost recursion, and every opcode and every copied item is paid from one budget, so that time
//! and memory stay proportional to that whatever the pickle holds.

mod containers;
mod element;
mod globals;
mod input;
mod machine;
mod objects;
mod value;

pub(crate) use machine::{MAX_BYTES, read};
pub(crate) use value::{Storage, Tensor, Tree, Value};
