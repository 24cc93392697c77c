//! Conversations with a model. The KV cache is kept between answers.

use std::sync::Arc;

use openelm_core::{
    self as core,
    chat::{Message, Role},
    engine::ChatHandle,
};

use crate::{
    error::Result,
    generation::GenerationStream,
    generation_options::{GenerationOptions, RequestOptions},
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
    #[allow(dead_code, reason = "a conversation keeps its model")]
    model: Arc<LanguageModel>,
    chat: ChatHandle,
}

/// The template of the model in `folder`, which its files or its name state.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn model_chat_template(folder: String) -> Result<ChatTemplate> {
    Ok(core::chat::ChatTemplate::of_model(folder).into())
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

/// The conversation in a file of [`Chat::save`]. If the model or its adapters have changed, the next
/// answer reads the messages again.
///
/// # Errors
/// [`Error::MissingFile`](crate::Error::MissingFile),
/// [`Error::InvalidCheckpoint`](crate::Error::InvalidCheckpoint) for another file.
#[uniffi::export]
pub async fn load_chat(model: Arc<LanguageModel>, path: String) -> Result<Arc<Chat>> {
    let chat = model.handle().load_chat(path.into()).await?;
    Ok(Arc::new(Chat { model, chat }))
}

/// The number of tokens of `messages`, BOS included: of the prompt if the last one is the user's,
/// otherwise of all that a further prompt begins with.
///
/// # Errors
/// [`Error::InvalidOption`](crate::Error::InvalidOption) if the order of the messages is invalid.
#[uniffi::export]
pub fn token_count(
    model: Arc<LanguageModel>,
    template: ChatTemplate,
    messages: Vec<ChatMessage>,
) -> Result<u64> {
    let messages: Vec<_> = messages.into_iter().map(Message::from).collect();
    let template = core::chat::ChatTemplate::from(template);
    let count = template.token_count(model.handle().tokenizer(), &messages)?;
    Ok(count as u64)
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
        with: RequestOptions,
    ) -> Result<Arc<GenerationStream>> {
        let events = self
            .chat
            .respond_with(prompt, options.into(), with.into())?;
        GenerationStream::new(events)
    }

    /// Starts to warm up the model, as [`LanguageModel::warm_up`], then to read the messages so far
    /// and `prefix`, the beginning of the next prompt, and returns. Errors are dropped: the next
    /// answer reports them.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn prewarm(&self, prefix: String) -> Result<()> {
        Ok(self.chat.prewarm(prefix)?)
    }

    /// Writes the conversation with its keys and values to the file `path`, for [`load_chat`].
    ///
    /// # Errors
    /// [`Error::Destination`](crate::Error::Destination) if another file is there,
    /// [`Error::Busy`](crate::Error::Busy) while an answer is running.
    pub async fn save(&self, path: String) -> Result<()> {
        Ok(self.chat.save(path.into()).await?)
    }

    /// Number of messages after the instructions that the prompt of the last answer left out.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn dropped_messages(&self) -> Result<u64> {
        Ok(self.chat.dropped_messages() as u64)
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

impl From<core::chat::ChatTemplate> for ChatTemplate {
    fn from(template: core::chat::ChatTemplate) -> Self {
        match template {
            core::chat::ChatTemplate::OpenElmInstruct => Self::OpenElmInstruct,
            core::chat::ChatTemplate::Instruction => Self::Instruction,
            core::chat::ChatTemplate::Plain => Self::Plain,
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
