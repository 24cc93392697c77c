//! File formats of other programs, GGUF and PyTorch, as containers independent of OpenELM.

pub(crate) mod gguf;
pub(crate) mod torch;
