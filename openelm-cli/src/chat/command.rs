//! Lines of a chat: messages and commands.

use std::path::PathBuf;

use crate::error::Error;

/// The commands, for `/help`.
pub(super) const COMMANDS: &str = "\
/system [TEXT]              set or remove the system message
/reset                      begin a new conversation; the system message stays
/save FILE                  write the messages to a JSON file
/load FILE                  continue the conversation of a JSON file
/adapter [NAME[=STRENGTH]]  list the adapters, or set the strength of one; 0 is off
/help                       list the commands
/exit                       end the chat, as Ctrl-D does
Ctrl-C stops an answer. A message that begins with / is written with //.";

/// A line of the user.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Blank,
    Message(String),
    Command(ChatCommand),
}

/// A command.
#[derive(Debug, PartialEq)]
pub(super) enum ChatCommand {
    System(Option<String>),
    Reset,
    Save(PathBuf),
    Load(PathBuf),
    Adapter(Option<String>),
    Help,
    Exit,
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown command, and a missing or an unexpected argument.
    pub(super) fn parse(line: &str) -> Result<Self, Error> {
        let text = line.trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            return Ok(Self::Blank);
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Ok(Self::Message(text.to_owned()));
        };
        if rest.starts_with('/') {
            return Ok(Self::Message(rest.to_owned()));
        }
        let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let argument = argument.trim();
        let optional = || (!argument.is_empty()).then(|| argument.to_owned());
        let file = || {
            let missing = || Error::Usage(format!("/{name}: expected a file, as in /{name} FILE"));
            optional().map(PathBuf::from).ok_or_else(missing)
        };
        let command = match name {
            "system" => ChatCommand::System(optional()),
            "save" => ChatCommand::Save(file()?),
            "load" => ChatCommand::Load(file()?),
            "adapter" => ChatCommand::Adapter(optional()),
            "reset" | "help" | "exit" if !argument.is_empty() => {
                let problem = format!("/{name}: expected nothing after it, found {argument}");
                return Err(Error::Usage(problem));
            }
            "reset" => ChatCommand::Reset,
            "help" => ChatCommand::Help,
            "exit" => ChatCommand::Exit,
            _ => {
                let problem = format!("/{name}: no such command; /help lists the commands");
                return Err(Error::Usage(problem));
            }
        };
        Ok(Self::Command(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        let command = |command| Line::Command(command);
        for (line, expected) in [
            ("", Line::Blank),
            (" \t\n", Line::Blank),
            (" Hello </s>\r\n", Line::Message(" Hello </s>".into())),
            (
                "//tmp is a folder",
                Line::Message("/tmp is a folder".into()),
            ),
            (
                "/system Be brief. ",
                command(ChatCommand::System(Some("Be brief.".into()))),
            ),
            ("/system", command(ChatCommand::System(None))),
            (
                "/save a b.json",
                command(ChatCommand::Save("a b.json".into())),
            ),
            ("/load\ta.json", command(ChatCommand::Load("a.json".into()))),
            (
                "/adapter tales=0.5",
                command(ChatCommand::Adapter(Some("tales=0.5".into()))),
            ),
            ("/reset", command(ChatCommand::Reset)),
            ("/help", command(ChatCommand::Help)),
            ("/exit", command(ChatCommand::Exit)),
        ] {
            assert_eq!(Line::parse(line).unwrap(), expected, "{line}");
        }
        for (line, expected) in [
            ("/save", "/save: expected a file"),
            ("/load ", "/load: expected a file"),
            ("/reset all", "/reset: expected nothing after it, found all"),
            ("/quit", "/quit: no such command; /help lists"),
            ("/ x", "/: no such command"),
        ] {
            let problem = Line::parse(line).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
