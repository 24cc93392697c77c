//! OpenAI's objects for completions and chat answers, whole and in chunks.

use serde::Serialize;

use super::{
    choice::Delta,
    logprobs::{ChatLogprobs, CompletionLogprobs},
    usage::Usage,
};
use crate::{app::App, request::TextRequest};

/// The kind of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Of `/v1/completions`.
    Completion,
    /// Of `/v1/chat/completions`.
    Chat,
}

/// The values that all objects of a response have.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

#[derive(Serialize)]
struct Object<'e, C> {
    id: &'e str,
    object: &'static str,
    created: u64,
    model: &'e str,
    choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct CompletionChoice<'d> {
    index: usize,
    text: &'d str,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct ChatChoice<'d> {
    index: usize,
    message: ChatMessage<'d>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct ChatMessage<'d> {
    role: &'static str,
    content: &'d str,
    refusal: Option<&'d str>,
}

#[derive(Serialize)]
struct ChatChunkChoice<'d> {
    index: usize,
    delta: ChatDelta<'d>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct ChatDelta<'d> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'d str>,
}

const ASSISTANT: &str = "assistant";

impl Shape {
    /// Begin of the ids of responses.
    pub(super) fn id_prefix(self) -> &'static str {
        match self {
            Self::Completion => "cmpl",
            Self::Chat => "chatcmpl",
        }
    }

    /// The whole response with `texts`, by index.
    pub(super) fn whole(
        self,
        envelope: &Envelope,
        app: &App,
        request: &TextRequest,
        texts: &[Delta],
        usage: Usage,
    ) -> String {
        let texts = texts.iter().enumerate();
        let usage = Some(Some(usage));
        match self {
            Self::Completion => {
                let choices = texts.map(|(index, text)| CompletionChoice {
                    index,
                    text: &text.text,
                    logprobs: completion_logprobs(app, request, text),
                    finish_reason: text.finish,
                });
                envelope.json("text_completion", choices.collect(), usage)
            }
            Self::Chat => {
                let choices = texts.map(|(index, text)| ChatChoice {
                    index,
                    message: ChatMessage {
                        role: ASSISTANT,
                        content: &text.text,
                        refusal: None,
                    },
                    logprobs: chat_logprobs(app, request, text),
                    finish_reason: text.finish,
                });
                envelope.json("chat.completion", choices.collect(), usage)
            }
        }
    }

    /// The first chunk of the text `index`, before its additions, if the shape has one.
    pub(super) fn first_chunk(
        self,
        envelope: &Envelope,
        request: &TextRequest,
        index: usize,
    ) -> Option<String> {
        if self == Self::Completion {
            return None;
        }
        let choice = ChatChunkChoice {
            index,
            delta: ChatDelta {
                role: Some(ASSISTANT),
                content: Some(""),
            },
            logprobs: None,
            finish_reason: None,
        };
        let usage = request.include_usage.then_some(None);
        Some(envelope.json("chat.completion.chunk", vec![choice], usage))
    }

    /// The chunk of an addition to the text `index`.
    pub(super) fn chunk(
        self,
        envelope: &Envelope,
        app: &App,
        request: &TextRequest,
        index: usize,
        delta: &Delta,
    ) -> String {
        let usage = request.include_usage.then_some(None);
        let has_tokens = !delta.tokens.is_empty();
        match self {
            Self::Completion => {
                let logprobs = completion_logprobs(app, request, delta);
                let choice = CompletionChoice {
                    index,
                    text: &delta.text,
                    logprobs: logprobs.filter(|_| has_tokens),
                    finish_reason: delta.finish,
                };
                envelope.json("text_completion", vec![choice], usage)
            }
            Self::Chat => {
                let is_last = delta.finish.is_some() && delta.text.is_empty();
                let logprobs = chat_logprobs(app, request, delta);
                let choice = ChatChunkChoice {
                    index,
                    delta: ChatDelta {
                        role: None,
                        content: (!is_last).then_some(&delta.text),
                    },
                    logprobs: logprobs.filter(|_| has_tokens),
                    finish_reason: delta.finish,
                };
                envelope.json("chat.completion.chunk", vec![choice], usage)
            }
        }
    }

    /// The chunk with the usage, which has no choices.
    pub(super) fn usage_chunk(self, envelope: &Envelope, usage: Usage) -> String {
        let object = match self {
            Self::Completion => "text_completion",
            Self::Chat => "chat.completion.chunk",
        };
        envelope.json::<()>(object, Vec::new(), Some(Some(usage)))
    }
}

impl Envelope {
    fn json<C: Serialize>(
        &self,
        object: &'static str,
        choices: Vec<C>,
        usage: Option<Option<Usage>>,
    ) -> String {
        let object = Object {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage,
        };
        // Maps with other keys than strings would fail; there are none.
        serde_json::to_string(&object).unwrap_or_default()
    }
}

fn completion_logprobs(
    app: &App,
    request: &TextRequest,
    delta: &Delta,
) -> Option<CompletionLogprobs> {
    let top = request.logprobs?;
    Some(CompletionLogprobs::new(
        &delta.tokens,
        top,
        &app.token_texts,
    ))
}

fn chat_logprobs(app: &App, request: &TextRequest, delta: &Delta) -> Option<ChatLogprobs> {
    let top = request.logprobs?;
    let end = app.model.info().config.eos_token_id() as u32;
    let end = (!request.options.ignore_eos).then_some(end);
    Some(ChatLogprobs::new(&delta.tokens, top, end, &app.token_texts))
}
