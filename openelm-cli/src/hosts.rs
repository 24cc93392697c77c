//! The addresses of the processes of one machine, in a file that MLX's ring backend reads.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    io::{self, Read},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use crate::error::Error;

/// Ports that systems do not assign to outgoing connections: Linux takes those from 32768, macOS
/// from 49152.
const PORTS: std::ops::Range<u64> = 20_000..30_000;

/// The file, in the folder of the run. It is removed as soon as all processes have read it.
const FILE: &str = "ranks.json";
/// Most bytes of a file that is read to find its owner.
const MAX_SIZE: u64 = 16_384;

/// The file, and the folders that were created for it. Dropping it removes the file, and the
/// folders that are still empty.
pub(crate) struct Hosts {
    path: PathBuf,
    /// Folders that did not exist, the innermost first.
    created: Vec<PathBuf>,
    /// A number that only the processes with this file have.
    pub(crate) group: u64,
}

impl Hosts {
    /// Chooses free ports for `count` processes and writes the file into `folder`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there are not enough ports, [`Error::Core`] if the file cannot be
    /// written, or another program's file has its name.
    pub(crate) fn new(count: usize, folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        if path.symlink_metadata().is_ok() && !is_own(&path) {
            let problem = "a file of another program: choose another folder".into();
            return Err(openelm_core::Error::Destination { path, problem }.into());
        }
        let addresses = addresses(count)?;
        let ancestors = folder.ancestors().take_while(|path| !path.exists());
        let hosts = Self {
            path,
            created: ancestors.map(Path::to_path_buf).collect(),
            group: random(),
        };
        fs::create_dir_all(folder).map_err(problem(folder))?;
        let text = serde_json::json!(addresses).to_string();
        fs::write(&hosts.path, text).map_err(problem(&hosts.path))?;
        Ok(hosts)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        remove(&self.path);
        for folder in &self.created {
            // Fails for a folder with files.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Removes the file of a killed run from `folder`.
pub(crate) fn remove_from(folder: &Path) {
    let path = folder.join(FILE);
    if is_own(&path) {
        remove(&path);
    }
}

/// True for a file that a value of [`Hosts`] wrote, or began to write.
fn is_own(path: &Path) -> bool {
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut text = String::new();
    let file = fs::File::open(path);
    let read = file.and_then(|file| file.take(MAX_SIZE).read_to_string(&mut text));
    let start = r#"[["127.0.0.1:"#;
    read.is_ok() && (text.starts_with(start) || start.starts_with(&text))
}

/// Removes the file `path`, if it exists.
pub(crate) fn remove(path: &Path) {
    // Usually another process has removed it; a file that stays harms nothing.
    let _ = fs::remove_file(path);
}

/// The addresses of each process: ports that are free now, in a random part of [`PORTS`].
fn addresses(count: usize) -> Result<Vec<[String; 1]>, Error> {
    let (start, size) = (random(), PORTS.end - PORTS.start);
    let ports = (0..size).map(|i| PORTS.start + (start % size + i) % size);
    // All listeners are open at the same time, so that their ports differ.
    let listeners = ports.filter_map(|port| {
        let port = u16::try_from(port).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
    });
    let listeners: Vec<TcpListener> = listeners.take(count).collect();
    if listeners.len() < count {
        let found = listeners.len();
        return Err(Error::Usage(format!(
            "--processes: {count} processes need {count} free ports from {} to {}, found {found}",
            PORTS.start,
            PORTS.end - 1
        )));
    }
    let addresses = listeners.iter().map(|listener| {
        let address = listener.local_addr();
        address.map(|address| [address.to_string()])
    });
    let addresses = addresses.collect::<io::Result<Vec<_>>>();
    addresses.map_err(|error| Error::Usage(format!("--processes: {error}")))
}

/// A random number: `std` seeds its hash maps with one.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn problem(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| openelm_core::Error::Io { path, source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn leaves_nothing_but_files_of_others() {
        let scratch = TempDir::new();
        let folder = scratch.join("out/run");
        let hosts = Hosts::new(3, &folder).unwrap();
        let text = fs::read_to_string(folder.join("ranks.json")).unwrap();
        let addresses: Vec<Vec<String>> = serde_json::from_str(&text).unwrap();
        assert_eq!(addresses.concat().len(), 3);
        drop(hosts);
        assert!(scratch.names().is_empty());

        let hosts = Hosts::new(2, &folder).unwrap();
        fs::write(folder.join("run.lock"), "").unwrap();
        drop(hosts);
        assert!(folder.join("run.lock").is_file());
        assert!(!folder.join("ranks.json").exists());
        fs::write(folder.join("ranks.json"), "").unwrap();
        remove_from(&folder);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn file_of_another_program_stays() {
        for text in ["mine", "[]", r#"[["10.0.0.1:5000"]]"#, "{}"] {
            let scratch = TempDir::new();
            let path = scratch.write("ranks.json", text);
            let error = Hosts::new(2, &scratch).err().unwrap().to_string();
            assert!(error.contains("ranks.json"), "{error}");
            remove_from(&scratch);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn groups_have_ports_and_numbers_of_their_own() {
        let scratch = TempDir::new();
        let [first, second] = ["a", "b"].map(|name| Hosts::new(2, &scratch.join(name)).unwrap());
        assert_ne!(first.group, second.group);
        let read = |hosts: &Hosts| fs::read_to_string(hosts.path()).unwrap();
        assert_ne!(read(&first), read(&second));
    }

    #[test]
    fn reports_a_file_in_place_of_the_folder() {
        let scratch = TempDir::new();
        scratch.write("run", "");
        let error = Hosts::new(2, &scratch.join("run")).err().unwrap();
        let Error::Core(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.path(), Some(&*scratch.join("run")));
        assert_eq!(scratch.names(), ["run"]);
    }
}
