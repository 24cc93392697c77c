//! Conversations with a model. The KV cache is kept between answers.

use std::sync::Arc;

use openelm_core::{
    self as core,
    chat::{Message, Role},
};

use crate::{
    error::{Error, Result},
    generation::{GenerationOptions, GenerationStream},
    language_model::LanguageModel,
    worker::{self, ChatSlot},
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

/// A conversation on the worker's thread. Dropping the last handle drops it.
#[derive(Debug, uniffi::Object)]
pub struct Chat {
    /// Keeps the model loaded.
    model: Arc<LanguageModel>,
    id: u64,
}

/// A new conversation with `model` that begins with `messages`.
///
/// # Errors
/// [`Error::InvalidOption`] if the order of the messages is invalid.
#[uniffi::export]
pub fn new_chat(
    model: Arc<LanguageModel>,
    template: ChatTemplate,
    messages: Vec<ChatMessage>,
) -> Result<Arc<Chat>> {
    let messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
    // Checks the messages here, so that this call returns the error. The worker creates the chat
    // that is kept, because its arrays belong to the worker's thread.
    core::chat::Chat::new(template.into(), messages.clone())?;
    let (id, model_id) = (worker::next_id(), model.id());
    worker::submit_always(move |models| {
        if let Ok(chat) = core::chat::Chat::new(template.into(), messages)
            && models.loaded.contains_key(&model_id)
        {
            let slot = ChatSlot {
                model: model_id,
                chat,
                answering: None,
            };
            models.chats.insert(id, slot);
        }
    })?;
    Ok(Arc::new(Chat { model, id }))
}

#[uniffi::export]
impl Chat {
    /// Answers `prompt`. The text of a cancelled answer stays in the conversation; a failed answer
    /// is removed, with its prompt.
    ///
    /// # Errors
    /// The stream's first event is [`Error::Busy`] while another answer is running.
    pub fn respond(
        &self,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Arc<GenerationStream>> {
        GenerationStream::start(self.model.id(), Some(self.id), prompt, options).map(Arc::new)
    }

    /// Starts to warm up the model, as [`LanguageModel::warm_up`], and returns. Errors are dropped:
    /// the next answer reports them.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn prewarm(&self) -> Result<()> {
        let id = self.model.id();
        worker::submit(move |models| {
            let _ = worker::catch_panic(|| Ok(models.model(id)?.warm_up()?));
        })
    }

    /// Returns true while an answer is running.
    ///
    /// # Errors
    /// [`Error::Unloaded`].
    pub async fn is_answering(&self) -> Result<bool> {
        let id = self.id;
        worker::call_always(move |models| {
            let slot = models.chats.get(&id).ok_or_else(Error::unloaded)?;
            Ok(slot.answering.is_some())
        })
        .await
    }

    /// All messages of the conversation.
    ///
    /// # Errors
    /// [`Error::Unloaded`].
    pub async fn messages(&self) -> Result<Vec<ChatMessage>> {
        let id = self.id;
        worker::call_always(move |models| {
            let slot = models.chats.get(&id).ok_or_else(Error::unloaded)?;
            Ok(slot.chat.messages().iter().map(ChatMessage::from).collect())
        })
        .await
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let id = self.id;
        // Fails only if the worker has ended.
        let _ = worker::submit_always(move |models| {
            models.chats.remove(&id);
        });
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
