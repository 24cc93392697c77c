//! The state of the engine's thread: models, conversations and the tasks on them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    compiling::CompilingRequest, event_channel::Monitor, finetune::FinetuneTask,
    generation::GenerationTask,
};
use crate::{
    error::{Error, Result},
    generation::{Chat, Event, LanguageModel, PrefixCache},
    tokenizer::Message,
};

/// State of the thread, by id.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) models: HashMap<u64, Loaded>,
    pub(super) chats: HashMap<u64, ChatSlot>,
    pub(super) generations: Vec<GenerationTask>,
    /// Generations that have not begun.
    pub(super) compiling: Vec<CompilingRequest>,
    pub(super) finetunes: VecDeque<FinetuneTask>,
    /// Models and draft models with the same tokens.
    pub(super) drafts: HashSet<(u64, u64)>,
}

/// A model, and its adapters as its handle shows them.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) model: LanguageModel,
    pub(super) adapters: Arc<Mutex<AdapterNames>>,
    /// Keys and values of texts that ended.
    pub(super) prefixes: PrefixCache,
}

/// The adapters of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct AdapterNames {
    pub(super) all: Vec<String>,
    /// Names and strengths.
    pub(super) active: Vec<(String, f32)>,
}

/// A conversation, with the id of its model.
#[derive(Debug)]
pub(super) struct ChatSlot {
    pub(super) model: u64,
    pub(super) chat: Chat,
    /// Id of the running answer.
    pub(super) answering: Option<u64>,
    pub(super) shown: Arc<ShownChat>,
}

/// The state of a conversation that its handle shows.
#[derive(Debug, Default)]
pub(super) struct ShownChat {
    pub(super) messages: Mutex<Vec<Message>>,
    pub(super) is_responding: AtomicBool,
    pub(super) is_unloaded: AtomicBool,
    /// Messages that the last prompt left out.
    pub(super) dropped: AtomicUsize,
    /// Answers that were requested and have not begun.
    pub(super) requested: Mutex<Vec<RequestedAnswer>>,
}

/// An answer that was requested and has not begun.
#[derive(Debug)]
pub(super) struct RequestedAnswer {
    /// Id of the request.
    pub(super) id: u64,
    pub(super) prompt: String,
    pub(super) stream: Monitor<Event>,
}

impl State {
    /// The model `id`.
    pub(super) fn model(&self, id: u64) -> Result<&LanguageModel> {
        let loaded = self.models.get(&id).ok_or(Error::Unloaded)?;
        Ok(&loaded.model)
    }

    /// Changes the adapters of the model `id`.
    pub(super) fn change_adapters(
        &mut self,
        id: u64,
        change: impl FnOnce(&mut LanguageModel) -> Result<()>,
    ) -> Result<()> {
        let loaded = self.models.get_mut(&id).ok_or(Error::Unloaded)?;
        let result = change(&mut loaded.model);
        let network = loaded.model.model();
        let all = network.adapters().into_iter().map(str::to_owned).collect();
        let active = network.active_adapters().to_vec();
        *lock(&loaded.adapters) = AdapterNames { all, active };
        result
    }

    /// Drops a model and everything that uses it. Returns true if it existed. A fine-tuning whose
    /// unit is running ends after it.
    pub(super) fn unload(&mut self, id: u64) -> bool {
        for mut task in std::mem::take(&mut self.generations) {
            if task.model() == id {
                task.abort(Error::Unloaded);
                task.end(&mut self.models, &mut self.chats);
            } else {
                self.generations.push(task);
            }
        }
        self.unload_compiling(id);
        for mut task in std::mem::take(&mut self.finetunes) {
            if task.model() == id {
                task.abort();
            } else {
                self.finetunes.push_back(task);
            }
        }
        for slot in self.chats.values().filter(|slot| slot.model == id) {
            slot.shown.is_unloaded.store(true, Ordering::SeqCst);
        }
        self.chats.retain(|_, slot| slot.model != id);
        self.drafts
            .retain(|(target, draft)| *target != id && *draft != id);
        self.models.remove(&id).is_some()
    }

    /// Ends the conversation `id`. Its keys and values stay for requests with the same prefix.
    pub(super) fn end_chat(&mut self, id: u64) {
        if let Some(slot) = self.chats.remove(&id)
            && let Some(loaded) = self.models.get_mut(&slot.model)
        {
            loaded.prefixes.insert(slot.chat.into_cache());
        }
    }

    /// Adds the questions of requests of the conversation `id` that were cancelled before they began.
    pub(super) fn skip_cancelled(&mut self, id: u64) {
        let Some(slot) = self.chats.get_mut(&id) else {
            return;
        };
        let requested = lock(&slot.shown.requested);
        let cancelled = requested.iter().filter(|answer| answer.stream.is_closed());
        let cancelled: Vec<_> = cancelled
            .map(|answer| (answer.id, answer.prompt.clone()))
            .collect();
        drop(requested);
        if slot.answering.is_none() {
            for (_, prompt) in &cancelled {
                slot.chat.skip(prompt);
            }
            slot.show();
        }
        // After the questions are shown: without a request, a handle reads the shown messages.
        for (id, _) in cancelled {
            slot.shown.forget_request(id);
        }
    }

    /// Ends the generations whose readers have closed their streams.
    pub(super) fn end_closed(&mut self) {
        self.end_closed_compiling();
        for task in std::mem::take(&mut self.generations) {
            if task.is_closed() {
                task.end(&mut self.models, &mut self.chats);
            } else {
                self.generations.push(task);
            }
        }
    }
}

impl ChatSlot {
    /// Shows the messages, and whether an answer is running.
    pub(super) fn show(&self) {
        *lock(&self.shown.messages) = self.chat.messages().to_vec();
        let dropped = self.chat.dropped_messages();
        self.shown.dropped.store(dropped, Ordering::SeqCst);
        let responding = self.answering.is_some();
        self.shown.is_responding.store(responding, Ordering::SeqCst);
    }
}

impl ShownChat {
    /// True if the answer `id` was requested and neither began nor was skipped.
    pub(super) fn has_request(&self, id: u64) -> bool {
        lock(&self.requested).iter().any(|answer| answer.id == id)
    }

    /// Removes the requested answer `id`.
    pub(super) fn forget_request(&self, id: u64) {
        lock(&self.requested).retain(|answer| answer.id != id);
    }

    /// True while an answer is running, or was requested.
    pub(super) fn is_responding(&self) -> bool {
        !lock(&self.requested).is_empty() || self.is_responding.load(Ordering::SeqCst)
    }
}

/// A new id of a model, a conversation or a generation.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Locks a value that a handle shows. It is replaced as a whole, so a panic does not leave it half
/// written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
