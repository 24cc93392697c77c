//! Conversations with a model, whose cache is kept from one answer to the next.

use std::sync::Arc;

use openelm_core::{
    self as core,
    chat::{Chat, Message, Role},
};

use crate::{
    engine::Engine,
    error::{EngineError, Result},
    generation::{GenerationOptions, GenerationStream},
    worker::{self, ChatSlot},
};

/// As `openelm_core::chat::ChatTemplate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::chat::ChatTemplate")]
pub enum ChatTemplate {
    OpenElmInstruct,
    Instruction,
    Plain,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core's Role")]
pub enum ChatRole {
    System,
    User,
    Assistant,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core's Message")]
pub struct ChatMessage {
    pub role: ChatRole,
    pub content: String,
}

/// A conversation on the worker's thread. Dropping it forgets it.
#[derive(Debug, uniffi::Object)]
pub struct Session {
    /// Keeps the model loaded.
    engine: Arc<Engine>,
    number: u64,
}

#[uniffi::export]
impl Session {
    /// A conversation with `engine`'s model that begins with `messages`.
    ///
    /// # Errors
    /// [`EngineError::Option`] if the messages come in no possible order.
    #[uniffi::constructor]
    pub fn new(
        engine: Arc<Engine>,
        template: ChatTemplate,
        messages: Vec<ChatMessage>,
    ) -> Result<Arc<Self>> {
        let messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
        // What is wrong with the messages is said here and now.
        Chat::new(template.into(), messages.clone())?;
        let (number, model) = (worker::number(), engine.number());
        worker::submit_always(move |models| {
            if let Ok(chat) = Chat::new(template.into(), messages)
                && models.loaded.contains_key(&model)
            {
                let slot = ChatSlot {
                    model,
                    chat,
                    answering: None,
                };
                models.chats.insert(number, slot);
            }
        })?;
        Ok(Arc::new(Self { engine, number }))
    }

    /// Answers `prompt`. An answer that is cancelled is kept as far as it came; one that fails is
    /// not, and its question is withdrawn.
    ///
    /// # Errors
    /// The stream's first event is [`EngineError::Busy`] while another answer is under way.
    pub fn respond(
        &self,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Arc<GenerationStream>> {
        let model = self.engine.number();
        GenerationStream::start(model, Some(self.number), prompt, options).map(Arc::new)
    }

    /// Whether an answer is under way.
    ///
    /// # Errors
    /// [`EngineError::Unloaded`].
    pub async fn is_answering(&self) -> Result<bool> {
        let number = self.number;
        worker::call_always(move |models| {
            let slot = models.chats.get(&number);
            Ok(slot.ok_or_else(EngineError::unloaded)?.answering.is_some())
        })
        .await
    }

    /// What was said so far.
    ///
    /// # Errors
    /// [`EngineError::Unloaded`].
    pub async fn messages(&self) -> Result<Vec<ChatMessage>> {
        let number = self.number;
        worker::call_always(move |models| {
            let slot = models
                .chats
                .get(&number)
                .ok_or_else(EngineError::unloaded)?;
            Ok(slot.chat.messages().iter().map(ChatMessage::from).collect())
        })
        .await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let number = self.number;
        let _ = worker::submit_always(move |models| {
            models.chats.remove(&number);
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
