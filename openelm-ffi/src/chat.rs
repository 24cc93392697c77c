//! Conversations with a model. The KV cache is kept between answers.

use std::sync::Arc;

use openelm_core::{
    self as core,
    chat::{Message, Role},
    engine::ChatHandle,
};

use crate::{
    error::Result,
    generation::{GenerationOptions, GenerationStream},
    language_model::LanguageModel,
};

/// Mirrors `openelm_core::chat::ChatTemplate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::chat::ChatTemplate")]
pub enum ChatTemplate {
    OpenElmInstruct,
    Instruction,
    Plain,
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::chat::Role")]
pub enum ChatRole {
    System,
    User,
    Assistant,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::chat::Message")]
pub struct ChatMessage {
    pub role: ChatRole,
    pub content: String,
}

/// A conversation. Dropping the last handle ends it.
#[derive(Debug, uniffi::Object)]
pub struct Chat {
    /// Keeps the model loaded.
    model: Arc<LanguageModel>,
    chat: ChatHandle,
}

/// A new conversation with `model` that begins with `messages`.
///
/// # Errors
/// [`Error::InvalidOption`](crate::Error::InvalidOption) if the order of the messages is invalid.
#[uniffi::export]
pub fn new_chat(
    model: Arc<LanguageModel>,
    template: ChatTemplate,
    messages: Vec<ChatMessage>,
) -> Result<Arc<Chat>> {
    let messages = messages.into_iter().map(Message::from).collect();
    let chat = model.handle().chat(template.into(), messages)?;
    Ok(Arc::new(Chat { model, chat }))
}

#[uniffi::export]
impl Chat {
    /// Answers `prompt`. The text of a cancelled answer stays in the conversation; a failed answer
    /// is removed, with its prompt.
    ///
    /// # Errors
    /// The stream's first event is [`Error::Busy`](crate::Error::Busy) while another answer is
    /// running.
    pub fn respond(
        &self,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Arc<GenerationStream>> {
        GenerationStream::new(self.chat.respond(prompt, options.into())?)
    }

    /// Starts to warm up the model, as [`LanguageModel::warm_up`], and returns. Errors are dropped:
    /// the next answer reports them.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn prewarm(&self) -> Result<()> {
        Ok(self.model.handle().begin_warm_up()?)
    }

    /// Returns true while an answer is running.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded).
    pub async fn is_answering(&self) -> Result<bool> {
        Ok(self.chat.is_responding().await?)
    }

    /// All messages of the conversation.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded).
    pub async fn messages(&self) -> Result<Vec<ChatMessage>> {
        let messages = self.chat.messages().await?;
        Ok(messages.iter().map(ChatMessage::from).collect())
    }
}

impl From<ChatTemplate> for core::chat::ChatTemplate {
    fn from(template: ChatTemplate) -> Self {
        match template {
            ChatTemplate::OpenElmInstruct => Self::OpenElmInstruct,
            ChatTemplate::Instruction => Self::Instruction,
            ChatTemplate::Plain => Self::Plain,
        }
    }
}

impl From<ChatMessage> for Message {
    fn from(message: ChatMessage) -> Self {
        Self {
            role: match message.role {
                ChatRole::System => Role::System,
                ChatRole::User => Role::User,
                ChatRole::Assistant => Role::Assistant,
            },
            content: message.content,
        }
    }
}

impl From<&Message> for ChatMessage {
    fn from(message: &Message) -> Self {
        Self {
            role: match message.role {
                Role::System => ChatRole::System,
                Role::User => ChatRole::User,
                Role::Assistant => ChatRole::Assistant,
            },
            content: message.content.clone(),
        }
    }
}
