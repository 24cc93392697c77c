//! Generations on the engine's thread, which advance together.

use std::{collections::HashMap, sync::Arc};

use super::{
    event_channel::EventSender,
    fault_injection,
    model::ModelHandle,
    prompt::Prompt,
    state::{ChatSlot, Loaded, ShownChat, State, next_id},
    worker::catch_panic,
};
use crate::{
    error::{Error, Result},
    generation::{
        ContextOverflow, DraftModel, Event, GenerateOptions, Generation, LanguageModel,
        PrefixCache, advance,
    },
};

type Models = HashMap<u64, Loaded>;
type Chats = HashMap<u64, ChatSlot>;

/// A generation and its reader.
#[derive(Debug)]
pub(super) struct GenerationTask {
    /// Id of the model.
    model: u64,
    /// Id of the conversation, if the generation is an answer.
    chat: Option<u64>,
    /// Id of the conversation whose messages the generation reads before an answer.
    prewarms: Option<u64>,
    /// Id of this generation.
    id: u64,
    prompt: Prompt,
    /// `None` once it has ended.
    generation: Option<Generation<'static>>,
    sender: EventSender<Event>,
}

/// A generation that begins.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) model: u64,
    pub(super) chat: Option<(u64, Arc<ShownChat>)>,
    pub(super) prompt: Prompt,
    pub(super) options: GenerateOptions,
    pub(super) with: RequestOptions,
}

/// Options of a request beside those of the generation.
#[derive(Debug, Clone, Default)]
pub struct RequestOptions {
    /// The active adapters of this request by name, and their strengths; `None`, the default, is
    /// those of the model, which stay as they are.
    pub adapters: Option<Vec<(String, f32)>>,
    /// A smaller model of the same engine with the same tokenizer, which drafts tokens, and the
    /// largest number of drafts per pass. It changes the time, not the text. Default none.
    pub draft: Option<(ModelHandle, usize)>,
    /// Treatment of a conversation that does not fit the context. Default: an error.
    pub context_overflow: ContextOverflow,
}

impl Drop for Request {
    /// The answer has begun, or never will.
    fn drop(&mut self) {
        if let Some((_, shown)) = &self.chat {
            shown.forget_request(self.id);
        }
    }
}

impl State {
    /// Begins a generation; its error is the first event.
    pub(super) fn generate(&mut self, request: Request, mut sender: EventSender<Event>) {
        if sender.is_closed() {
            return self.skip(&request);
        }
        match catch_panic(|| self.begin(&request)) {
            Ok(generation) => self.generations.push(GenerationTask {
                model: request.model,
                chat: request.chat.as_ref().map(|(chat, _)| *chat),
                prewarms: None,
                id: request.id,
                prompt: request.prompt.clone(),
                generation: Some(generation),
                sender,
            }),
            Err(error) => sender.send(Err(error)),
        }
    }

    /// Adds the question of a request that was cancelled before it began to its conversation. The
    /// request is forgotten when it is dropped, after the question is shown.
    pub(super) fn skip(&mut self, request: &Request) {
        // Its question may have been added before.
        if let Some((chat, shown)) = &request.chat
            && shown.has_request(request.id)
            && let Some(slot) = self.chats.get_mut(chat)
            && slot.answering.is_none()
        {
            slot.chat.skip(request.prompt.text());
            slot.show();
        }
    }

    fn begin(&mut self, request: &Request) -> Result<Generation<'static>> {
        if let Some((chat, _)) = &request.chat {
            self.end_prewarms(*chat);
        }
        let draft = request.with.draft.as_ref();
        let draft = draft.map(|(draft, most)| self.draft(request.model, draft.id(), *most));
        let draft = draft.transpose()?;
        let loaded = self.models.get_mut(&request.model);
        let Loaded {
            model, prefixes, ..
        } = loaded.ok_or(Error::Unloaded)?;
        let slot = match &request.chat {
            Some((chat, _)) => Some(self.chats.get_mut(chat).ok_or(Error::Unloaded)?),
            None => None,
        };
        let before = model.model().active_adapters().to_vec();
        let active = request.with.adapters.as_ref().unwrap_or(&before);
        let begun = set_adapters(model, active).and_then(|()| match slot {
            Some(slot) => begin_answer(model, slot, request, prefixes, draft.as_ref()),
            None => begin_text(model, request, prefixes, draft.as_ref()),
        });
        // The generation keeps the adapters that it began with.
        set_adapters(model, &before)?;
        begun
    }

    /// The model `draft` as a draft model for `target`. All tokens of both tokenizers are compared
    /// once.
    fn draft(&mut self, target: u64, draft: u64, most: usize) -> Result<DraftModel> {
        let model = self.model(draft)?;
        if self.drafts.contains(&(target, draft)) {
            return DraftModel::of_model(model.model(), most);
        }
        let checked = DraftModel::new(self.model(target)?, model, most)?;
        self.drafts.insert((target, draft));
        Ok(checked)
    }

    /// Begins to read the messages of the conversation `chat` and `prefix`, the beginning of the
    /// next question. Their keys and values are kept for the answer.
    pub(super) fn prewarm(&mut self, chat: u64, prefix: &str) -> Result<()> {
        self.end_prewarms(chat);
        let slot = self.chats.get(&chat).ok_or(Error::Unloaded)?;
        if slot.answering.is_some() {
            return Ok(());
        }
        let loaded = self.models.get_mut(&slot.model).ok_or(Error::Unloaded)?;
        let Loaded {
            model, prefixes, ..
        } = loaded;
        model.warm_up()?;
        let options = GenerateOptions {
            max_tokens: 1,
            ..GenerateOptions::default()
        };
        let tokens = slot.chat.prewarm_tokens(model, prefix, &options)?;
        // BOS alone saves nothing.
        if tokens.len() < 2 {
            return Ok(());
        }
        let generation = model.generate_tokens_with_prefixes(tokens.clone(), options, prefixes)?;
        let (generation, prompt) = (generation.into_owned(), Prompt::Tokens(tokens));
        self.generations.push(GenerationTask {
            model: slot.model,
            chat: None,
            prewarms: Some(chat),
            id: next_id(),
            prompt,
            generation: Some(generation),
            sender: EventSender::without_reader(),
        });
        Ok(())
    }

    /// Ends the reading before an answer of the conversation `chat`, and keeps what was read.
    fn end_prewarms(&mut self, chat: u64) {
        for task in std::mem::take(&mut self.generations) {
            if task.prewarms == Some(chat) {
                task.end(&mut self.models, &mut self.chats);
            } else {
                self.generations.push(task);
            }
        }
    }

    /// Makes a turn of all generations whose readers have room, and ends those whose last event was
    /// sent. Returns true if there was a turn.
    pub(super) fn advance_generations(&mut self) -> bool {
        let worked = self.turn();
        for task in &mut self.generations {
            task.deliver(&mut self.models, &mut self.chats);
        }
        for mut task in std::mem::take(&mut self.generations) {
            if task.has_ended() {
                task.end(&mut self.models, &mut self.chats);
            } else {
                self.generations.push(task);
            }
        }
        worked
    }

    fn turn(&mut self) -> bool {
        let tasks = self.generations.iter_mut();
        let mut ready: Vec<_> = tasks.filter_map(GenerationTask::ready).collect();
        let mut live: Vec<_> = ready
            .iter_mut()
            .filter_map(|task| task.generation.as_mut())
            .collect();
        if live.is_empty() {
            return false;
        }
        let done = catch_panic(|| {
            advance(&mut live);
            Ok(())
        });
        if let Err(Error::Unexpected { problem }) = done {
            for task in ready {
                let problem = problem.clone();
                task.fail(Error::Unexpected { problem });
            }
        }
        true
    }

    /// Waits for the work that generations have left on the device.
    pub(super) fn settle_generations(&mut self) {
        for task in &mut self.generations {
            task.settle();
        }
    }
}

/// Begins the answer of a conversation.
fn begin_answer(
    model: &LanguageModel,
    slot: &mut ChatSlot,
    request: &Request,
    prefixes: &mut PrefixCache,
    draft: Option<&DraftModel>,
) -> Result<Generation<'static>> {
    if slot.answering.is_some() {
        return Err(Error::Busy);
    }
    let (chat, options) = (&mut slot.chat, request.options.clone());
    chat.set_context_overflow(request.with.context_overflow);
    let generation = chat.start_with_prefixes(model, request.prompt.text(), options, prefixes)?;
    let generation = match draft {
        Some(draft) => generation
            .with_draft(draft)
            .inspect_err(|_| chat.withdraw())?,
        None => generation,
    };
    slot.answering = Some(request.id);
    slot.show();
    Ok(generation.into_owned())
}

/// Begins a generation that is no answer of a conversation.
fn begin_text(
    model: &LanguageModel,
    request: &Request,
    prefixes: &mut PrefixCache,
    draft: Option<&DraftModel>,
) -> Result<Generation<'static>> {
    let options = request.options.clone();
    let generation = match &request.prompt {
        Prompt::Text(text) => model.generate_with_prefixes(text, options, prefixes)?,
        Prompt::Tokens(tokens) => {
            model.generate_tokens_with_prefixes(tokens.clone(), options, prefixes)?
        }
    };
    let generation = match draft {
        Some(draft) => generation.with_draft(draft)?,
        None => generation,
    };
    Ok(generation.into_owned())
}

fn set_adapters(model: &mut LanguageModel, active: &[(String, f32)]) -> Result<()> {
    if model.model().active_adapters() == active {
        return Ok(());
    }
    let active: Vec<_> = active.iter().map(|(name, s)| (name.as_str(), *s)).collect();
    model.model_mut().set_adapters(&active)
}

impl GenerationTask {
    pub(super) fn model(&self) -> u64 {
        self.model
    }

    /// True once the reader has closed the stream.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Itself, if its reader has room for the next event.
    fn ready(&mut self) -> Option<&mut Self> {
        if !self.sender.flush() || self.generation.is_none() {
            return None;
        }
        if let Err(error) = catch_panic(|| fault_injection::inject(self.prompt.text())) {
            self.fail(error);
            return None;
        }
        Some(self)
    }

    /// Sends the events that are ready. Before the last one the answer is added to the
    /// conversation, so that the next prompt can follow it.
    fn deliver(&mut self, models: &mut Models, chats: &mut Chats) {
        while let Some(event) = self.generation.as_mut().and_then(Generation::ready_event) {
            match event {
                Ok(event) => {
                    if matches!(event, Event::Finished { .. }) {
                        self.conclude(models, chats);
                    }
                    self.sender.send(Ok(event));
                }
                Err(error) => self.fail(error),
            }
        }
    }

    /// True once all events were sent.
    fn has_ended(&mut self) -> bool {
        self.generation.is_none() && self.sender.flush()
    }

    /// Waits for the step in progress.
    fn settle(&mut self) {
        if let Some(generation) = &self.generation
            && let Err(error) = generation.settle()
        {
            self.fail(error);
        }
    }

    /// Ends with an error after the events already sent.
    fn fail(&mut self, error: Error) {
        self.generation = None;
        self.sender.send(Err(error));
    }

    /// Ends with an error at once, replacing an unread event.
    pub(super) fn abort(&mut self, error: Error) {
        self.generation = None;
        self.sender.replace(Err(error));
    }

    /// Adds the answer to its conversation, or the keys and values of another text to those of its
    /// model.
    fn conclude(&mut self, models: &mut Models, chats: &mut Chats) {
        let Some(generation) = self.generation.take() else {
            return;
        };
        if let Some(slot) = self.chat.and_then(|chat| chats.get_mut(&chat)) {
            slot.answering = None;
            slot.chat.finish(generation);
            slot.show();
        } else if let Some(loaded) = models.get_mut(&self.model) {
            loaded.prefixes.insert(generation.into_cache());
        }
    }

    /// Releases the conversation, to which the text of a cancelled answer is added; a failed answer
    /// is removed with its prompt.
    pub(super) fn end(mut self, models: &mut Models, chats: &mut Chats) {
        self.conclude(models, chats);
        if let Some(slot) = self.chat.and_then(|chat| chats.get_mut(&chat))
            && slot.answering == Some(self.id)
        {
            slot.chat.withdraw();
            slot.answering = None;
            slot.show();
        }
    }
}
