//! The handle of a conversation.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering},
};

use super::{
    event_channel::{EventReceiver, Monitor},
    generation::RequestOptions,
    model::ModelHandle,
    prompt::Prompt,
    state::{ChatSlot, ShownChat, lock, next_id},
    worker::catch_panic,
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
    /// The conversation in a file of [`ChatHandle::save`].
    ///
    /// # Errors
    /// As [`Chat::load`]; [`Error::Unloaded`].
    pub async fn load_chat(&self, path: PathBuf) -> Result<ChatHandle> {
        let shown = Arc::new(ShownChat::default());
        let (id, model) = (next_id(), self.id());
        let of_slot = Arc::clone(&shown);
        let loaded = self.engine().call(move |state| {
            let slot = ChatSlot {
                model,
                chat: Chat::load(path, state.model(model)?)?,
                answering: None,
                shown: of_slot,
            };
            slot.show();
            state.chats.insert(id, slot);
            Ok(())
        });
        loaded.await?;
        Ok(self.chat_handle(id, shown))
    }

    fn chat_handle(&self, id: u64, shown: Arc<ShownChat>) -> ChatHandle {
        ChatHandle {
            model: self.clone(),
            id,
            shown,
            last: Mutex::default(),
        }
    }

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
        Ok(self.chat_handle(id, shown))
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
        self.respond_with(prompt, options, RequestOptions::default())
    }

    /// Like [`respond`](Self::respond), with adapters or a draft model of this answer, or a treatment
    /// of a full context. Errors of these are the first event.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn respond_with(
        &self,
        prompt: impl Into<String>,
        options: GenerateOptions,
        with: RequestOptions,
    ) -> Result<EventReceiver<Event>> {
        let chat = Some((self.id, Arc::clone(&self.shown)));
        let prompt = Prompt::Text(prompt.into());
        let events = self.model.start(chat, prompt, options, with)?;
        *lock(&self.last) = Some(events.monitor());
        Ok(events)
    }

    /// Starts to warm up the model, then to read the messages so far and `prefix`, the beginning of
    /// the next question, and returns. The answer then begins sooner, and does not wait for the rest.
    /// Errors are dropped: the answer reports them.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn prewarm(&self, prefix: impl Into<String>) -> Result<()> {
        let (id, prefix) = (self.id, prefix.into());
        self.model.engine().submit(move |state| {
            let _ = catch_panic(|| state.prewarm(id, &prefix));
        })
    }

    /// Writes the conversation to a file, as [`Chat::save`].
    ///
    /// # Errors
    /// As [`Chat::save`]; [`Error::Busy`] while an answer is running, [`Error::Unloaded`].
    pub async fn save(&self, path: PathBuf) -> Result<()> {
        self.conclude().await?;
        let id = self.id;
        let saved = self.model.engine().call(move |state| {
            let slot = state.chats.get(&id).ok_or(Error::Unloaded)?;
            if slot.answering.is_some() {
                return Err(Error::Busy);
            }
            slot.chat.save(path, state.model(slot.model)?)
        });
        saved.await
    }

    /// Number of messages after the system message that the prompt of the last answer left out, see
    /// [`ContextOverflow::DropOldestTurns`](crate::chat::ContextOverflow::DropOldestTurns).
    pub fn dropped_messages(&self) -> usize {
        self.shown.dropped.load(Ordering::SeqCst)
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
            let id = self.id;
            let concluded = self.model.engine().call_now(move |state| {
                state.skip_cancelled(id);
                Ok(())
            });
            concluded.await?;
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
