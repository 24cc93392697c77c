//! The kind of a prompt: text to continue, plain text, or a message of a chat.

use std::path::Path;

use openelm_core::{
    LanguageModel,
    chat::{ChatTemplate, Message, Role},
    weights::model_folder,
};

use serde_json::{Value, json};

use super::rows::{Prompt, Row};
use crate::{choices::Template, error::Error, given::Given};

/// Options of the prompt's kind.
#[derive(clap::Args)]
pub(crate) struct PromptKind {
    /// Answer the prompt as the user's message, in the model's chat template
    #[arg(long)]
    chat: bool,

    /// With --chat, the system message: instructions for the conversation
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        requires = "chat"
    )]
    system: Option<String>,

    /// Chat template [default: by the model's name and files, else plain]
    #[arg(long, value_name = "NAME")]
    chat_template: Option<Template>,

    /// Read the spelling of a special token in the prompt, such as `</s>`, as text
    #[arg(long)]
    no_special_tokens: bool,
}

impl PromptKind {
    /// Refuses options without effect.
    pub(crate) fn check(&self, given: &Given) -> Result<(), Error> {
        let rows = given.has("prompts");
        let reason = "with --chat: a message never has special tokens";
        given.check(&[
            (self.chat, &["no-special-tokens"], reason),
            (!self.chat && !rows, &["chat-template"], "without --chat"),
            (
                given.has("prompt-cache-file"),
                &["chat"],
                "with --prompt-cache-file: the prompt is text after that of the file",
            ),
        ])
    }

    /// Refuses options without effect on `rows`.
    pub(super) fn check_rows(&self, given: &Given, rows: &[Row]) -> Result<(), Error> {
        let has_text = rows.iter().any(|row| matches!(row.prompt, Prompt::Text(_)));
        let has_messages = rows
            .iter()
            .any(|row| matches!(row.prompt, Prompt::Messages(_)));
        given.check(&[
            (
                !has_text,
                &["chat", "system", "no-special-tokens"],
                "on rows with `messages`",
            ),
            (
                !self.chat && !has_messages,
                &["chat-template"],
                "without --chat and `messages`",
            ),
        ])
    }

    /// The options of this kind.
    pub(super) fn record(&self, set: &mut impl FnMut(&str, Value)) {
        let Self {
            chat,
            system,
            chat_template,
            no_special_tokens,
        } = self;
        set("chat", json!(chat));
        set("system", json!(system));
        let template = chat_template.map(|template| template.to_string());
        set("chat_template", json!(template));
        set("no_special_tokens", json!(no_special_tokens));
    }

    /// The chat template for the model at `path`.
    pub(crate) fn template(&self, path: &Path) -> Result<ChatTemplate, Error> {
        template(self.chat_template, path)
    }

    /// The tokens of `text` after those of a prompt cache.
    pub(super) fn encode_after(
        &self,
        model: &LanguageModel,
        text: &str,
    ) -> Result<Vec<u32>, Error> {
        let tokenizer = model.tokenizer();
        Ok(if self.no_special_tokens {
            // Without BOS.
            tokenizer.encode_plain_prompt(text)?.split_off(1)
        } else {
            tokenizer.encode(text)?
        })
    }

    /// The tokens of a prompt.
    pub(crate) fn encode(
        &self,
        model: &LanguageModel,
        template: ChatTemplate,
        prompt: &str,
    ) -> Result<Vec<u32>, Error> {
        let tokenizer = model.tokenizer();
        Ok(if self.chat {
            let message = |role, content: &str| Message {
                role,
                content: content.to_owned(),
            };
            let system = self.system.as_deref();
            let system = system.map(|text| message(Role::System, text));
            let user = message(Role::User, prompt);
            let messages: Vec<_> = system.into_iter().chain([user]).collect();
            template.tokens(tokenizer, &messages)?
        } else if self.no_special_tokens {
            tokenizer.encode_plain_prompt(prompt)?
        } else {
            tokenizer.encode_prompt(prompt)?
        })
    }
}

/// The `chosen` template, or that of the model at `path`.
pub(crate) fn template(chosen: Option<Template>, path: &Path) -> Result<ChatTemplate, Error> {
    Ok(match chosen {
        Some(chosen) => chosen.into(),
        None => ChatTemplate::of_model(model_folder(path)?),
    })
}
