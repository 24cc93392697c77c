//! `openelm convert`, and what lies in a folder.

use std::{collections::BTreeMap, fs, process::Command};

use crate::tool::{Folder, openelm, run};

impl Folder {
    /// The path of something in it.
    pub(crate) fn at(&self, name: &str) -> String {
        self.join(name).to_str().unwrap().to_owned()
    }

    /// Names of what lies in it, hidden things too.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&**self).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// What the files of a folder in it hold.
    pub(crate) fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.join(name)).unwrap();
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        };
        entries.map(read).collect()
    }
}

pub(crate) fn convert(args: &[&str]) -> Command {
    openelm(&[&["convert"], args].concat())
}

/// Runs a command that has to work without a word on stderr and returns its stdout.
#[track_caller]
pub(crate) fn works(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}
