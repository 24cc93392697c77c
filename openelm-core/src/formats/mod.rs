//! File formats of other programs, as containers without OpenELM in them: GGUF and PyTorch.

pub(crate) mod gguf;
pub(crate) mod torch;
