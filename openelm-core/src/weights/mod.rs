//! Safetensors checkpoints: files, headers, and their tensors as MLX arrays.

mod checkpoint;
mod parallel_reader;
pub(crate) mod random;
mod safetensors_header;
pub(crate) mod tensor_file;
mod weights;

pub use checkpoint::{Checkpoint, StoredDtype, StoredTensor, model_folder};
pub(crate) use parallel_reader::Readers;
pub use random::random_weights;
pub(crate) use tensor_file::Tensors;
pub use weights::{ReadOptions, Weights};
