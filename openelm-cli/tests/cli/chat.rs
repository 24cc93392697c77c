//! `openelm chat`: lines on standard input, and a terminal.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::tool::{openelm, parse, tales};
use openelm_testing::{Outcome, TempDir, wait_for};

fn chat(args: &[&str]) -> Command {
    long_chat(&[&["-n", "5"], args].concat())
}

fn long_chat(args: &[&str]) -> Command {
    let mut command = openelm(&["chat", "--model", &tales(), "-q"]);
    command.args(args);
    command
}

/// The outcome with `lines` on standard input.
fn with_input(mut command: Command, lines: &str) -> Outcome {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The command may end before it reads all lines.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn answers(args: &[&str], lines: &str) -> String {
    let outcome = with_input(chat(args), lines);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

#[test]
fn lines_are_answered_and_commands_followed() {
    let folder = TempDir::new();
    let file = folder.at("chat.json");
    let hello = answers(&[], "Hello\n");
    assert_eq!(hello, answers(&[], "\u{feff}Hello\r\n\n"));
    let lines = format!("Hello\n//x </s>\n/save {file}\n/exit\nnever answered\n");
    answers(&["--system", "Be brief."], &lines);
    let saved = parse(&fs::read_to_string(&file).unwrap());
    let messages = saved["messages"].as_array().unwrap();
    let roles: Vec<_> = messages
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages[0]["content"], "Be brief.");
    assert_eq!(messages[3]["content"], "/x </s>");
    // /reset keeps the system message, /system without a text removes it.
    let lines = format!("/load {file}\n/reset\n/save {file}\n/system\n/save {file}\nHello\n");
    assert_eq!(answers(&[], &lines), hello);
    let saved = parse(&fs::read_to_string(&file).unwrap());
    assert_eq!(saved["messages"].as_array().unwrap().len(), 0);
}

#[test]
fn a_seed_repeats_a_conversation() {
    let args = ["--temp", "1", "--seed", "4"];
    let found = answers(&args, "Hello\n/reset\nHello\n");
    assert_eq!(answers(&args, "Hello\n/reset\nHello\n"), found);
    let lines: Vec<_> = found.lines().collect();
    let first = answers(&args, "Hello\n");
    assert!(found.starts_with(&first));
    assert_ne!(lines.concat(), first.trim_end().repeat(2));
}

#[test]
fn an_error_in_a_pipe_ends_the_chat() {
    let long = "word ".repeat(600);
    for (lines, code, part) in [
        ("/nope\nHello\n", 2, "/nope: no such command"),
        ("/load nowhere.json\nHello\n", 1, "nowhere.json: "),
        (
            "/adapter nowhere\nHello\n",
            1,
            "nowhere: no such file or folder",
        ),
        (
            &long,
            1,
            "the prompt has 602 tokens; the model's context holds 512",
        ),
    ] {
        let outcome = with_input(chat(&[]), lines);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

#[test]
fn options_are_checked_before_the_first_message() {
    for (args, part) in [
        (
            ["--extra-eos-token", "nothing"],
            "--extra-eos-token: expected a token",
        ),
        (
            ["--extra-eos-token", "2048"],
            "--extra-eos-token: expected ids below 2048",
        ),
        (["--logit-bias", "2048+1"], "--logit-bias: "),
        (
            ["--prefill-chunk", "0"],
            "--prefill-chunk: expected at least 1",
        ),
    ] {
        // No line is read.
        let outcome = with_input(chat(&args), "");
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

#[cfg(unix)]
mod terminal {
    use std::{ffi::OsStr, fs::File, io::Read, os::unix::ffi::OsStrExt, thread};

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::tcgetattr,
    };

    use super::*;

    /// A chat at a terminal.
    struct Terminal {
        controller: File,
        child: std::process::Child,
        shown: String,
    }

    impl Terminal {
        fn new(kind: &str, mut command: Command) -> Self {
            let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
            grantpt(&controller).unwrap();
            unlockpt(&controller).unwrap();
            let name = ptsname(&controller, Vec::new()).unwrap();
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true);
            let terminal = options.open(OsStr::from_bytes(name.as_bytes())).unwrap();
            command.env("TERM", kind);
            command.stdin(terminal.try_clone().unwrap());
            command.stderr(terminal.try_clone().unwrap());
            let child = command.stdout(terminal).spawn().unwrap();
            Self {
                controller: File::from(controller),
                child,
                shown: String::new(),
            }
        }

        /// Reads until `text` is shown, and returns the output since the last call.
        fn until(&mut self, text: &str) -> String {
            let mut block = [0; 4096];
            loop {
                if let Some(at) = self.shown.find(text) {
                    return self.shown.drain(..at + text.len()).collect();
                }
                let count = self.controller.read(&mut block).unwrap();
                let bytes = String::from_utf8_lossy(&block[..count]).into_owned();
                self.shown.push_str(&bytes);
            }
        }

        fn send(&mut self, text: &str) {
            self.controller.write_all(text.as_bytes()).unwrap();
        }

        fn interrupt(&self) {
            self.signal("-INT");
        }

        fn signal(&self, name: &str) {
            let id = self.child.id().to_string();
            let kill = Command::new("kill").args([name, &id]).status().unwrap();
            assert!(kill.success());
        }

        /// Opens the terminal again.
        fn open(&self) -> File {
            let name = ptsname(&self.controller, Vec::new()).unwrap();
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true);
            options.open(OsStr::from_bytes(name.as_bytes())).unwrap()
        }

        /// Ends with Ctrl-D.
        fn end(mut self) {
            self.send("\u{4}");
            let mut rest = Vec::new();
            let mut controller = self.controller;
            let reader = thread::spawn(move || controller.read_to_end(&mut rest).is_ok());
            assert_eq!(self.child.wait().unwrap().code(), Some(0));
            let _ = reader.join();
        }
    }

    #[test]
    fn ctrl_c_stops_an_answer_and_keeps_the_conversation() {
        let folder = TempDir::new();
        let file = folder.at("chat.json");
        let mut terminal = Terminal::new("xterm", long_chat(&["-n", "400"]));
        terminal.until("\u{1b}[2C");
        // Without an answer it has no effect.
        terminal.interrupt();
        terminal.send("Once upon a time\r");
        terminal.until("there lived");
        for _ in 0..3 {
            terminal.interrupt();
        }
        terminal.until("> ");
        terminal.send("/nope\r");
        terminal.until("no such command");
        terminal.send(&format!("/save {file}\r"));
        wait_for(file.as_ref());
        terminal.until("> ");
        terminal.end();
        let saved = parse(&fs::read_to_string(&file).unwrap());
        let messages = saved["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0]["content"], "Once upon a time");
        let answer = messages[1]["content"].as_str().unwrap();
        assert!(answer.starts_with(" there lived"), "{answer}");
    }

    #[test]
    fn a_signal_at_the_prompt_restores_the_terminal() {
        for (name, code) in [("-TERM", 143), ("-HUP", 129)] {
            let mut terminal = Terminal::new("xterm", chat(&[]));
            let device = terminal.open();
            let before = tcgetattr(&device).unwrap().local_modes;
            terminal.until("\u{1b}[2C");
            assert_ne!(tcgetattr(&device).unwrap().local_modes, before);
            terminal.signal(name);
            assert_eq!(terminal.child.wait().unwrap().code(), Some(code));
            assert_eq!(tcgetattr(&device).unwrap().local_modes, before);
            // Pasted text is no longer marked.
            terminal.until("\u{1b}[?2004l");
        }
    }

    #[test]
    fn a_paste_of_several_lines_is_one_message() {
        let folder = TempDir::new();
        let file = folder.at("chat.json");
        let mut terminal = Terminal::new("xterm", chat(&[]));
        terminal.until("> ");
        terminal.send("\u{1b}[200~one\ntwo\u{1b}[201~");
        terminal.until("two");
        terminal.send("\r");
        terminal.until("> ");
        terminal.send(&format!("/save {file}\r"));
        terminal.until(&file);
        terminal.until("> ");
        terminal.end();
        let saved = parse(&fs::read_to_string(&file).unwrap());
        assert_eq!(saved["messages"][0]["content"], "one\ntwo");
    }

    #[test]
    fn a_terminal_without_colours_works() {
        let mut terminal = Terminal::new("dumb", chat(&[]));
        terminal.until("> ");
        terminal.interrupt();
        terminal.send("/nope\n");
        let shown = terminal.until("no such command");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        terminal.until("> ");
        terminal.end();
    }
}
