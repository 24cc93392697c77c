//! Generations whose constraint is compiled on a thread of its own, so that others continue.

use super::{event_channel::EventSender, generation::Request, model::ModelHandle, state::State};
use crate::{
    constraint::{Constraint, ConstraintKind},
    error::{Error, Result},
    generation::Event,
};

/// A generation that has not begun.
#[derive(Debug)]
pub(super) struct CompilingRequest {
    request: Request,
    sender: EventSender<Event>,
}

impl ModelHandle {
    /// Begins the generation of `request`, once its constraint is compiled if it has one.
    pub(super) fn begin(&self, request: Request, sender: EventSender<Event>) -> Result<()> {
        let constraint = request.options.constraint.clone();
        let is_new = |kind: &ConstraintKind| !Constraint::is_compiled(self.tokenizer(), kind);
        let Some(kind) = constraint.filter(is_new) else {
            return self
                .engine()
                .submit(move |state| state.generate(request, sender));
        };
        let id = request.id;
        self.engine()
            .submit(move |state| state.wait_for_constraint(request, sender))?;
        let tokenizer = self.tokenizer().clone();
        self.engine().submit_after(
            // A panic is repeated, and reported, when the generation begins.
            move || Constraint::compile(&tokenizer, &kind),
            move |state| state.begin_compiled(id),
        )
    }
}

impl State {
    /// Keeps a request until its constraint is compiled. Its conversation is answering from now on.
    fn wait_for_constraint(&mut self, request: Request, mut sender: EventSender<Event>) {
        if sender.is_closed() {
            return self.skip(&request);
        }
        if let Err(error) = self.reserve(&request) {
            sender.send(Err(error));
            return;
        }
        self.compiling.push(CompilingRequest { request, sender });
    }

    /// Begins the generation `id`, unless it was cancelled or its model was unloaded.
    fn begin_compiled(&mut self, id: u64) {
        let mut found = self.compiling.iter();
        let found = found.position(|waiting| waiting.request.id == id);
        if let Some(at) = found {
            let CompilingRequest { request, sender } = self.compiling.remove(at);
            self.release(&request);
            self.generate(request, sender);
        }
    }

    /// Makes the conversation of `request` answer it.
    fn reserve(&mut self, request: &Request) -> Result<()> {
        self.model(request.model)?;
        let Some((chat, _)) = &request.chat else {
            return Ok(());
        };
        let slot = self.chats.get_mut(chat).ok_or(Error::Unloaded)?;
        if slot.answering.is_some() {
            return Err(Error::Busy);
        }
        slot.answering = Some(request.id);
        slot.show();
        Ok(())
    }

    fn release(&mut self, request: &Request) {
        if let Some((chat, _)) = &request.chat
            && let Some(slot) = self.chats.get_mut(chat)
            && slot.answering == Some(request.id)
        {
            slot.answering = None;
            slot.show();
        }
    }

    /// Drops the requests whose readers have closed their streams.
    pub(super) fn end_closed_compiling(&mut self) {
        for waiting in std::mem::take(&mut self.compiling) {
            if waiting.sender.is_closed() {
                self.release(&waiting.request);
                self.skip(&waiting.request);
            } else {
                self.compiling.push(waiting);
            }
        }
    }

    /// Ends the requests of the model `id`, which is unloaded.
    pub(super) fn unload_compiling(&mut self, id: u64) {
        for mut waiting in std::mem::take(&mut self.compiling) {
            if waiting.request.model == id {
                self.release(&waiting.request);
                waiting.sender.send(Err(Error::Unloaded));
            } else {
                self.compiling.push(waiting);
            }
        }
    }
}
