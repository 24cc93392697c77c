//! Conversations: messages, their prompt, and the KV cache shared by the turns.

use super::{
    generation::Generation, language_model::LanguageModel, options::GenerateOptions,
    prefix_cache::PrefixCache, prompt_cache::PromptCache,
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
    overflow: ContextOverflow,
    /// Number of messages after the instructions that the last prompt left out.
    dropped: usize,
}

/// The treatment of a conversation that does not fit the model's context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContextOverflow {
    /// [`Error::PromptTooLong`], the default.
    #[default]
    Error,
    /// The prompt leaves out the oldest questions with their answers, and keeps the system message,
    /// until it leaves room for `max_tokens`, or for a quarter of the context if that is less.
    /// [`Chat::dropped_messages`] is their number. The messages of the conversation stay.
    DropOldestTurns,
}

impl Chat {
    /// A conversation that begins with `messages`, which may be empty. The first message may be
    /// [`Role::System`]'s; the last must not be the user's. Answers may be empty.
    ///
    /// # Errors
    /// [`Error::Option`] if the roles are in another order or another message is empty.
    pub fn new(template: ChatTemplate, messages: Vec<Message>) -> Result<Self> {
        check_roles(&messages, Role::User).map_err(|problem| Error::option("messages", problem))?;
        Ok(Self {
            template,
            messages,
            question: None,
            cache: PromptCache::default(),
            overflow: ContextOverflow::default(),
            dropped: 0,
        })
    }

    /// Chooses the treatment of a conversation that does not fit the context, from the next
    /// [`start`](Self::start).
    pub fn set_context_overflow(&mut self, overflow: ContextOverflow) {
        self.overflow = overflow;
    }

    /// The template.
    pub fn template(&self) -> ChatTemplate {
        self.template
    }

    /// The tokens to read before a question that begins with `prefix` is sent, so that its answer
    /// begins sooner; an empty prefix gives those of the messages so far.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn prewarm_tokens(
        &self,
        model: &LanguageModel,
        prefix: &str,
        options: &GenerateOptions,
    ) -> Result<Vec<u32>> {
        if !prefix.is_empty() {
            return Ok(self.prompt(model, &user(prefix), options)?.0);
        }
        let kept = self.kept(self.dropped);
        self.template
            .tokens_before_question(model.tokenizer(), &kept)
    }

    /// Number of messages after the system message that the prompt of the last
    /// [`start`](Self::start) left out: 0 unless [`ContextOverflow::DropOldestTurns`] is chosen.
    pub fn dropped_messages(&self) -> usize {
        self.dropped
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
        self.start_with_prefixes(model, question, options, &mut PrefixCache::new(0))
    }

    /// Like [`start`](Self::start). If the conversation has no keys and values for the prompt, as
    /// for the first question, those of the longest prefix in `prefixes` are used.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_prefixes<'m>(
        &mut self,
        model: &'m LanguageModel,
        question: &str,
        options: GenerateOptions,
        prefixes: &mut PrefixCache,
    ) -> Result<Generation<'m>> {
        if question.is_empty() {
            return Err(Error::empty_prompt());
        }
        let question = user(question);
        // Before the cache is moved: after an error the conversation can continue with a shorter
        // question.
        let (tokens, dropped) = self.prompt(model, &question, &options)?;
        self.dropped = dropped;
        let (network, tokenizer) = (model.model(), Some(model.tokenizer()));
        let mut cache = std::mem::take(&mut self.cache);
        // BOS is part of every prompt.
        if cache.reusable(network, &tokens) <= 1 {
            cache = prefixes.take(network, &tokens, &options.kv_cache);
        }
        self.question = Some(question);
        Generation::with_cache(network, tokenizer, tokens, options, cache)
    }

    /// The tokens of the prompt for `question`, and the number of messages that it leaves out.
    fn prompt(
        &self,
        model: &LanguageModel,
        question: &Message,
        options: &GenerateOptions,
    ) -> Result<(Vec<u32>, usize)> {
        let turns = self.messages.len() - self.instructions();
        let drops = self.overflow == ContextOverflow::DropOldestTurns;
        // Turns that were left out stay out, so that the prompts have a common prefix.
        let mut dropped = if drops { self.dropped.min(turns) } else { 0 };
        loop {
            let mut messages = self.kept(dropped);
            messages.push(question.clone());
            let tokens = self.template.tokens(model.tokenizer(), &messages)?;
            let Some(context) = options.context(model.model().config()) else {
                return Ok((tokens, dropped));
            };
            let room = options.max_tokens.min(context / 4);
            if drops && tokens.len() + room > context && dropped < turns {
                dropped += 2;
            } else if tokens.len() >= context {
                let tokens = tokens.len();
                return Err(Error::PromptTooLong { tokens, context });
            } else {
                return Ok((tokens, dropped));
            }
        }
    }

    /// Number of system messages: 0 or 1.
    fn instructions(&self) -> usize {
        let first = self.messages.first();
        usize::from(first.is_some_and(|message| message.role == Role::System))
    }

    /// The messages without the first `dropped` after the system message.
    fn kept(&self, dropped: usize) -> Vec<Message> {
        let (instructions, turns) = self.messages.split_at(self.instructions());
        [instructions, turns.get(dropped..).unwrap_or_default()].concat()
    }

    /// Adds the question and the answer of `generation`, also of a cancelled one, whose text may be
    /// empty.
    pub fn finish(&mut self, generation: Generation<'_>) {
        if let Some(question) = self.question.take() {
            self.add(question, generation.text());
        }
        self.cache = generation.into_cache();
    }

    /// Adds `question` with an empty answer: it was cancelled before it began. Has no effect while
    /// another question is answered, or if `question` is empty.
    pub fn skip(&mut self, question: &str) {
        if self.question.is_none() && !question.is_empty() {
            self.add(user(question), "");
        }
    }

    fn add(&mut self, question: Message, answer: &str) {
        self.messages.push(question);
        self.messages.push(Message {
            role: Role::Assistant,
            content: answer.to_owned(),
        });
    }

    /// The keys and values of the conversation, which ends.
    pub fn into_cache(self) -> PromptCache {
        self.cache
    }

    pub(super) fn cache(&self) -> &PromptCache {
        &self.cache
    }

    pub(super) fn overflow(&self) -> ContextOverflow {
        self.overflow
    }

    /// Continues with `cache`; the last prompt left out `dropped` messages.
    pub(super) fn restore(&mut self, cache: PromptCache, dropped: usize) {
        (self.cache, self.dropped) = (cache, dropped);
    }

    /// Withdraws the question of [`start`](Self::start), whose generation failed.
    pub fn withdraw(&mut self) {
        self.question = None;
    }
}

/// A message of the user.
fn user(content: &str) -> Message {
    Message {
        role: Role::User,
        content: content.to_owned(),
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

    #[test]
    fn a_cancelled_question_stays() {
        let mut chat = Chat::new(ChatTemplate::Plain, Vec::new()).unwrap();
        chat.skip("");
        chat.skip("Hello?");
        let expected = [message(Role::User, "Hello?"), message(Role::Assistant, "")];
        assert_eq!(chat.messages(), expected);
        // A conversation with these messages continues.
        let again = Chat::new(ChatTemplate::Plain, chat.messages().to_vec()).unwrap();
        assert_eq!(again.messages(), expected);
    }
}
