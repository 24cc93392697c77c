//! Conversations: messages, their prompt, and the KV cache shared by the turns.

use super::{
    generation::Generation, language_model::LanguageModel, options::GenerateOptions,
    prompt_cache::PromptCache,
};
use crate::{
    error::{Error, Result},
    tokenizer::{ChatTemplate, Message, Role, check_roles},
};

/// A conversation. Each answer reuses the cached tokens of the turns before.
#[derive(Debug, Default)]
pub struct Chat {
    template: ChatTemplate,
    messages: Vec<Message>,
    /// The message to answer, set by [`start`](Self::start).
    question: Option<Message>,
    cache: PromptCache,
}

impl Chat {
    /// A conversation that begins with `messages`, which may be empty. The first message may be
    /// [`Role::System`]'s; the last must not be the user's.
    ///
    /// # Errors
    /// [`Error::Option`] if the roles are in another order or a message is empty.
    pub fn new(template: ChatTemplate, messages: Vec<Message>) -> Result<Self> {
        check_roles(&messages, Role::User).map_err(|problem| Error::option("messages", problem))?;
        Ok(Self {
            template,
            messages,
            question: None,
            cache: PromptCache::default(),
        })
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Starts the answer to `question`; [`finish`](Self::finish) adds it to the messages. An
    /// unfinished question is withdrawn.
    ///
    /// # Errors
    /// [`Error::Option`] if the question is empty or an option is out of range,
    /// [`Error::PromptTooLong`] if the conversation no longer fits the context.
    pub fn start<'m>(
        &mut self,
        model: &'m LanguageModel,
        question: &str,
        options: GenerateOptions,
    ) -> Result<Generation<'m>> {
        if question.is_empty() {
            return Err(Error::empty_prompt());
        }
        let mut messages = self.messages.clone();
        let question = Message {
            role: Role::User,
            content: question.to_owned(),
        };
        messages.push(question.clone());
        let tokens = self.template.tokens(model.tokenizer(), &messages)?;
        let context = model.model().config().max_context_length();
        if tokens.len() >= context {
            // Before the cache is moved: the conversation can continue with a shorter
            // question.
            return Err(Error::PromptTooLong {
                tokens: tokens.len(),
                context,
            });
        }
        let cache = std::mem::take(&mut self.cache);
        self.question = Some(question);
        let (network, tokenizer) = (model.model(), Some(model.tokenizer()));
        Generation::with_cache(network, tokenizer, tokens, options, cache)
    }

    /// Adds the answer of `generation`, also of a cancelled one. If the answer is empty, the
    /// question is withdrawn.
    pub fn finish(&mut self, generation: Generation<'_>) {
        if let Some(question) = self.question.take()
            && !generation.text().is_empty()
        {
            self.messages.push(question);
            self.messages.push(Message {
                role: Role::Assistant,
                content: generation.text().to_owned(),
            });
        }
        self.cache = generation.into_cache();
    }

    /// Withdraws the question of [`start`](Self::start), whose generation failed.
    pub fn withdraw(&mut self) {
        self.question = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message {
            role,
            content: content.into(),
        }
    }

    fn conversation() -> Vec<Message> {
        vec![
            message(Role::System, "Be brief."),
            message(Role::User, "Hello?"),
            message(Role::Assistant, "Hi."),
            message(Role::User, "Who are you?"),
        ]
    }

    #[test]
    fn rejects_roles_out_of_order() {
        let refused = |messages: Vec<Message>| {
            Chat::new(ChatTemplate::Plain, messages)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(vec![message(Role::User, "Hello?")]),
            "messages: the last message is not the assistant's"
        );
        assert_eq!(
            refused(vec![message(Role::Assistant, "Hi.")]),
            "messages: message 1: expected the role `user`, found `assistant`"
        );
        let twice = message(Role::System, "Be brief.");
        assert_eq!(
            refused(vec![twice.clone(), twice]),
            "messages: message 2: expected the role `user`, found `system`"
        );
        assert!(Chat::new(ChatTemplate::Plain, conversation()[..3].to_vec()).is_ok());
    }
}
