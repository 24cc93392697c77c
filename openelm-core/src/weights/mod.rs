//! Safetensors checkpoints: files, headers, and their tensors as MLX arrays.

mod allocation;
mod checkpoint;
pub(crate) mod derived;
mod layout;
mod mean;
mod model_files;
mod model_folder;
mod parallel_reader;
pub(crate) mod random;
mod safetensors_header;
mod safetensors_writer;
mod stored_tensor;
pub(crate) mod tensor_file;
mod weights;

pub(crate) use allocation::Allocation;
pub use checkpoint::Checkpoint;
pub(crate) use mean::mean;
pub(crate) use model_files::is_model_file;
pub use model_folder::model_folder;
pub(crate) use parallel_reader::Readers;
pub use random::random_weights;
pub(crate) use safetensors_writer::{NewTensor, SafetensorsWriter};
pub use stored_tensor::{StoredDtype, StoredTensor};
pub(crate) use tensor_file::{PendingTensor, Tensors};
pub use weights::{ReadOptions, Weights};
