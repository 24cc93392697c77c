//! Writing files: atomic writes, replaced folders, the write lock, inputs inside an output.

mod atomic;
mod created_folders;
mod inputs;
mod paths;
mod replace_folder;
mod sha256;
mod write_lock;

pub use atomic::write_file;
pub(crate) use atomic::{copy_synced, remove, remove_folder, write_beside, write_synced};
pub(crate) use created_folders::CreatedFolders;
pub use inputs::{check_inputs, check_outside_data};
pub(crate) use paths::{
    check_replaceable, parent, partial_path, real, remove_leftovers, resolve, work_path,
};
pub(crate) use replace_folder::{
    finish_replacement, has_journal, new_folder, replace_folder, write_folder_beside,
};
pub use sha256::sha256;
pub(crate) use write_lock::{Activity, LOCK_FILE, WriteLock, is_run_lock};
