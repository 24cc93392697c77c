//! Files of conversations: a file of a prompt cache with the messages in its metadata.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    chat::{Chat, ContextOverflow},
    language_model::LanguageModel,
    prompt_cache_file::CacheFile,
};
use crate::{
    error::{Error, Result},
    tokenizer::{ChatTemplate, Message},
};

/// The entry of the metadata with the messages.
pub(super) const CHAT: &str = "0.openelm_chat";

impl Chat {
    /// Writes the conversation of `model` to the file `path`: template, messages, and the keys and
    /// values, so that a loaded conversation continues without reading its messages again. A file
    /// that this function wrote is replaced. The file has the format of a prompt cache.
    ///
    /// # Errors
    /// [`Error::Destination`] if another file is at `path`, [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>, model: &LanguageModel) -> Result<()> {
        let path = path.as_ref();
        let record = Record {
            template: self.template(),
            messages: self.messages().to_vec(),
            drops_oldest_turns: self.overflow() == ContextOverflow::DropOldestTurns,
            dropped: self.dropped_messages(),
        };
        let record = serde_json::to_string(&record)
            .map_err(|error| Error::checkpoint(path, error.to_string()))?;
        self.cache().write(path, model.model(), (CHAT, &record))
    }

    /// Reads a file of [`save`](Self::save). If `model`, its active adapters or its dtype are not
    /// those of the file, only the messages are used, and the next answer reads them again.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], and [`Error::Checkpoint`] if the file is truncated,
    /// malformed, or holds no conversation.
    pub fn load(path: impl AsRef<Path>, model: &LanguageModel) -> Result<Self> {
        let path = path.as_ref();
        let file = CacheFile::read(path, "a conversation")?;
        let malformed = |problem: String| Error::checkpoint(path, problem);
        let Some(record) = file.entry(CHAT) else {
            return Err(malformed("not a file of a conversation".into()));
        };
        let record: Record = serde_json::from_str(record)
            .map_err(|error| malformed(format!("`openelm_chat`: {error}")))?;
        let Record {
            template,
            messages,
            dropped,
            ..
        } = record;
        // Whole turns are left out.
        if dropped > messages.len() || !dropped.is_multiple_of(2) {
            let problem = format!("`openelm_chat`: {dropped} messages cannot be left out");
            return Err(malformed(problem));
        }
        let mut chat =
            Self::new(template, messages).map_err(|error| malformed(error.to_string()))?;
        if record.drops_oldest_turns {
            chat.set_context_overflow(ContextOverflow::DropOldestTurns);
        }
        let cache = file.usable_cache(path, model.model())?;
        chat.restore(cache.unwrap_or_default(), dropped);
        Ok(chat)
    }
}

/// A conversation in the metadata.
#[derive(Serialize, Deserialize)]
struct Record {
    template: ChatTemplate,
    messages: Vec<Message>,
    drops_oldest_turns: bool,
    dropped: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Role;

    #[test]
    fn templates_and_roles_have_their_names() {
        for template in [
            ChatTemplate::OpenElmInstruct,
            ChatTemplate::Instruction,
            ChatTemplate::Plain,
        ] {
            assert_eq!(serde_json::to_value(template).unwrap(), template.name());
        }
        for role in [Role::System, Role::User, Role::Assistant] {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
    }
}
