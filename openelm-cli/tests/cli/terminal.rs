//! Output to a terminal: text of a hostile vocabulary.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::ffi::OsStrExt,
    process::Command,
};

use openelm_testing::{TempDir, works, write_tales};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::tool::openelm;

/// The bundled model with other spellings of the tokens that it generates first.
fn hostile(spellings: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new();
    write_tales(&folder, &[]);
    let path = folder.join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (spelling, other) in spellings {
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        let id = vocab.remove(*spelling).unwrap();
        vocab.insert((*other).to_owned(), id);
        let merges = file["model"]["merges"].as_array_mut().unwrap();
        merges.retain(|merge| {
            let parts: Vec<&str> = match merge {
                Value::String(text) => text.split(' ').collect(),
                other => other
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(Value::as_str)
                    .collect(),
            };
            parts.concat() != *spelling && !parts.contains(spelling)
        });
    }
    fs::write(&path, file.to_string()).unwrap();
    folder
}

/// The bytes that `command` writes to a terminal on standard output.
fn on_a_terminal(mut command: Command) -> Vec<u8> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let path = OsStr::from_bytes(name.as_bytes());
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut child = command.stdout(terminal).spawn().unwrap();
    // Its copy of the terminal would keep the terminal open.
    drop(command);
    let mut bytes = Vec::new();
    let mut block = [0; 4096];
    let mut source = File::from(controller);
    // A closed terminal is an error on Linux and an end on macOS.
    while let Ok(count @ 1..) = source.read(&mut block) {
        bytes.extend(&block[..count]);
    }
    assert!(child.wait().unwrap().success());
    bytes
}

#[test]
fn a_terminal_gets_the_vocabulary_without_commands() {
    let model = hostile(&[
        ("▁there", "▁\u{1b}]0;title\u{7}\u{9b}2J"),
        ("▁lived", "\u{202e}\r\u{8}"),
    ]);
    let args = ["-p", "Once upon a time", "-n", "2", "-q"];
    let command = || {
        let mut command = openelm(&["generate", "--model", model.as_str()]);
        command.args(args);
        command
    };
    let exact = " \u{1b}]0;title\u{7}\u{9b}2J\u{202e}\r\u{8}\n";
    assert_eq!(works(command()), exact);
    let shown = String::from_utf8(on_a_terminal(command())).unwrap();
    // The terminal adds a carriage return to a line break.
    let expected = " \\u{1b}]0;title\\u{7}\\u{9b}2J\\u{202e}\\r\\u{8}\r\n";
    assert_eq!(shown, expected);
}
