//! Files of `/save` and `/load`: a JSON object with `messages`, as in a row for fine-tuning.

use std::{io, path::Path};

use openelm_core::{
    chat::Message,
    dataset::{messages_from_json, object_from_json},
    output::write_file,
    text::{MAX_TEXT, read_text_file},
};
use serde_json::json;

use crate::error::Error;

/// Writes `messages`. An existing file is replaced only if it is a file of this function.
///
/// # Errors
/// For another file in place, and if it cannot be written.
pub(super) fn save(path: &Path, messages: &[Message]) -> Result<(), Error> {
    match read(path) {
        Ok(found) => {
            let is_own = parse(&found).is_ok_and(|messages| text(&messages) == found);
            if !is_own {
                return Err(wrong(path, "not a file of /save; choose another file"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(wrong(path, error)),
    }
    Ok(write_file(path, text(messages))?)
}

/// Reads the messages of a file.
///
/// # Errors
/// If it cannot be read, or is not a JSON object with `messages`.
pub(super) fn load(path: &Path) -> Result<Vec<Message>, Error> {
    let text = read(path).map_err(|error| wrong(path, error))?;
    parse(&text).map_err(|problem| wrong(path, problem))
}

/// The text of a file. Anything else, such as a pipe, which may have no end, is refused: Ctrl-C would
/// not end the wait.
fn read(path: &Path) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("expected a file"));
    }
    read_text_file(path, MAX_TEXT)
}

/// The error of a file.
pub(super) fn wrong(path: &Path, problem: impl ToString) -> Error {
    Error::Prompt {
        place: path.display().to_string(),
        problem: problem.to_string(),
    }
}

fn parse(text: &str) -> Result<Vec<Message>, String> {
    let object = object_from_json(text)?;
    let list = object.get("messages").ok_or("`messages` is missing")?;
    messages_from_json(list, "messages")
}

fn text(messages: &[Message]) -> String {
    let list = messages
        .iter()
        .map(|message| json!({ "role": message.role.name(), "content": message.content }));
    let list: Vec<_> = list.collect();
    // One line, so that files can be joined to JSON lines.
    format!("{}\n", json!({ "messages": list }))
}

#[cfg(test)]
mod tests {
    use openelm_core::chat::Role;
    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn only_saved_conversations_are_replaced() {
        let folder = TempDir::new();
        let message = |role, content: &str| Message {
            role,
            content: content.into(),
        };
        let messages = [
            message(Role::System, ""),
            message(Role::User, "a\n</s>"),
            message(Role::Assistant, "é"),
        ];
        let path = folder.join("chat.json");
        for count in [0, 3, 1] {
            save(&path, &messages[..count]).unwrap();
            assert_eq!(load(&path).unwrap(), messages[..count]);
        }
        for other in ["notes", "", "{\"messages\": []}", "{\"messages\":[]}\n\n"] {
            let path = folder.write("other.json", other);
            let error = save(&path, &messages).unwrap_err().to_string();
            assert!(
                error.ends_with("not a file of /save; choose another file"),
                "{error}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
        assert!(save(&folder, &messages).is_err());
        #[cfg(unix)]
        for problem in [
            load("/dev/null".as_ref()).unwrap_err(),
            save("/dev/zero".as_ref(), &messages).unwrap_err(),
        ] {
            assert!(
                problem.to_string().ends_with("expected a file"),
                "{problem}"
            );
        }
    }
}
