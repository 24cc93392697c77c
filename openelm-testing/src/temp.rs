//! Temporary folders and files, removed on drop.

use std::{
    collections::BTreeMap,
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

/// An empty temporary folder; dereferences to a [`Path`].
#[derive(Debug)]
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Creates a folder with a unique name.
    #[allow(clippy::new_without_default, reason = "it creates a folder")]
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("openelm-")
                .tempdir_in(parent)
                .unwrap(),
        )
    }

    /// Writes a file and its parent folders, and returns its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a file and returns its path as a command-line argument.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        self.write(name, bytes);
        self.at(name)
    }

    /// The path of `name` as a command-line argument.
    pub fn at(&self, name: &str) -> String {
        self.join(name).to_str().unwrap().to_owned()
    }

    /// The folder's path as a command-line argument.
    pub fn as_str(&self) -> &str {
        self.to_str().unwrap()
    }

    /// The sorted names of the folder's entries, including hidden ones.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The files in the subfolder `name`, and their bytes.
    pub fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.join(name)).unwrap();
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }
}

impl Deref for TempDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        self
    }
}

/// A file in its own temporary folder; dereferences to a [`Path`].
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    _folder: TempDir,
}

impl TempFile {
    /// Writes `bytes` to a file called `name`.
    pub fn new(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        Self::within(TempDir::new(), name, bytes)
    }

    /// Like [`new`](Self::new), on a memory file system if there is one, for tests with thousands
    /// of files.
    pub fn in_memory(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            Self::within(TempDir::within(memory), name, bytes)
        } else {
            Self::new(name, bytes)
        }
    }

    fn within(folder: TempDir, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = folder.write(name, bytes);
        Self {
            path,
            _folder: folder,
        }
    }
}

impl Deref for TempFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for TempFile {
    fn as_ref(&self) -> &Path {
        self
    }
}
