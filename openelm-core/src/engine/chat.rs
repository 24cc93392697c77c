//! The handle of a conversation.

use std::sync::{Arc, Mutex, atomic::Ordering};

use super::{
    event_channel::{EventReceiver, Monitor},
    model::ModelHandle,
    prompt::Prompt,
    state::{ChatSlot, ShownChat, lock, next_id},
};
use crate::{
    error::{Error, Result},
    generation::{Chat, Event, GenerateOptions},
    tokenizer::{ChatTemplate, Message},
};

/// A conversation on the engine's thread. Dropping it ends the conversation.
#[derive(Debug)]
pub struct ChatHandle {
    /// Keeps the model loaded.
    model: ModelHandle,
    id: u64,
    shown: Arc<ShownChat>,
    /// The stream of the last answer.
    last: Mutex<Option<Monitor<Event>>>,
}

impl ModelHandle {
    /// A new conversation that begins with `messages`.
    ///
    /// # Errors
    /// As [`Chat::new`]; [`Error::Unusable`].
    pub fn chat(&self, template: ChatTemplate, messages: Vec<Message>) -> Result<ChatHandle> {
        // Checks the messages here, so that this call returns the error. The thread makes the chat
        // that is kept, because its arrays belong to the thread.
        Chat::new(template, messages.clone())?;
        let shown = Arc::new(ShownChat::default());
        lock(&shown.messages).clone_from(&messages);
        let (id, model) = (next_id(), self.id());
        let of_slot = Arc::clone(&shown);
        self.engine()
            .submit_now(move |state| match Chat::new(template, messages) {
                Ok(chat) if state.models.contains_key(&model) => {
                    let slot = ChatSlot {
                        model,
                        chat,
                        answering: None,
                        shown: of_slot,
                    };
                    state.chats.insert(id, slot);
                }
                _ => of_slot.is_unloaded.store(true, Ordering::SeqCst),
            })?;
        Ok(ChatHandle {
            model: self.clone(),
            id,
            shown,
            last: Mutex::default(),
        })
    }
}

impl ChatHandle {
    /// Answers `prompt`. The text of a cancelled answer stays in the conversation; a failed answer
    /// is removed, with its prompt. The first event is [`Error::Busy`] while another answer is
    /// running.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn respond(
        &self,
        prompt: impl Into<String>,
        options: GenerateOptions,
    ) -> Result<EventReceiver<Event>> {
        let chat = Some((self.id, Arc::clone(&self.shown)));
        let prompt = Prompt::Text(prompt.into());
        let events = self.model.start(chat, prompt, options, None)?;
        *lock(&self.last) = Some(events.monitor());
        Ok(events)
    }

    /// True while an answer is running. Waits for the engine only if an answer was just cancelled.
    ///
    /// # Errors
    /// [`Error::Unloaded`].
    pub async fn is_responding(&self) -> Result<bool> {
        self.conclude().await?;
        Ok(self.shown.is_responding())
    }

    /// All messages of the conversation. Waits for the engine only if an answer was just cancelled,
    /// whose text is added.
    ///
    /// # Errors
    /// [`Error::Unloaded`].
    pub async fn messages(&self) -> Result<Vec<Message>> {
        self.conclude().await?;
        Ok(lock(&self.shown.messages).clone())
    }

    /// Waits until the engine has ended an answer whose stream was closed.
    async fn conclude(&self) -> Result<()> {
        let closed = lock(&self.last).as_ref().is_some_and(Monitor::is_closed);
        if closed && self.shown.is_responding() {
            self.model.engine().call_now(|_| Ok(())).await?;
        }
        self.check_loaded()
    }

    fn check_loaded(&self) -> Result<()> {
        self.model.check_loaded()?;
        if self.shown.is_unloaded.load(Ordering::SeqCst) {
            return Err(Error::Unloaded);
        }
        Ok(())
    }
}

impl Drop for ChatHandle {
    fn drop(&mut self) {
        let id = self.id;
        // Fails only if the thread has ended.
        let _ = self
            .model
            .engine()
            .submit_now(move |state| state.end_chat(id));
    }
}
