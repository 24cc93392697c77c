//! Chat templates: the prompt of a conversation, for training and generation.
//!
//! [`ChatTemplate::Instruction`] is byte-identical to the prompt of CoreNet's LoRA recipe
//! (`corenet/data/datasets/language_modeling/commonsense_170k.py` of apple/corenet): the Alpaca
//! prompt, whose lines after the opening sentence begin with 16 spaces, including the empty lines
//! between the blocks. The answer starts directly after the last 16 spaces.
//!
//! The recipe has one instruction with an optional input. This crate extends it to conversations:
//! the system message is the input of the first instruction; every user message is an instruction;
//! further turns follow after the same empty line as between the blocks of the first. There is no
//! EOS between turns: only the last answer of an example ends with it, so conversations of several
//! turns are best trained with [`mask_prompt`](crate::dataset::DatasetOptions::mask_prompt).

use serde::{Deserialize, Serialize};

use super::{
    message::{Message, Role, check_roles},
    prompt_parts::PromptParts,
    tokenizer::Tokenizer,
};
use crate::error::{Error, Result};

/// The prompt format of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatTemplate {
    /// The format of Apple's OpenELM-Instruct checkpoints, the default: CoreNet's `chat_template`
    /// (`projects/openelm/instruction_tuning/openelm-instruct.yaml`) as Hugging Face's
    /// `apply_chat_template` renders it. A message ends with `</s>`.
    #[default]
    #[serde(rename = "openelm-instruct")]
    OpenElmInstruct,
    /// The format of CoreNet's LoRA recipe (commonsense-170k), for models tuned on rows of
    /// `instruction` and `output`.
    Instruction,
    /// No format: the messages are concatenated, for base models, which continue a text.
    Plain,
}

impl ChatTemplate {
    /// `openelm-instruct`, `instruction` or `plain`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenElmInstruct => "openelm-instruct",
            Self::Instruction => "instruction",
            Self::Plain => "plain",
        }
    }

    /// The prompt of `messages`, the last one the user's. It ends where the answer starts.
    ///
    /// # Errors
    /// [`Error::Option`] if the roles are in another order, or a message of the user or the
    /// assistant is empty.
    pub fn prompt(self, messages: &[Message]) -> Result<String> {
        Ok(self.parts(messages)?.text())
    }

    /// The token ids of [`prompt`](Self::prompt), which begin with BOS. The content of a message is
    /// plain text: the spelling of a special token in it, such as `</s>`, never becomes this token.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt), and [`Tokenizer::encode`].
    pub fn tokens(self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        tokenizer.encode_parts(&self.parts(messages)?)
    }

    /// The token ids that the prompts of all further questions after `messages` begin with, BOS
    /// first.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens).
    pub fn tokens_before_question(
        self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>> {
        let after = |question: &str| {
            let mut messages = messages.to_vec();
            messages.push(Message {
                role: Role::User,
                content: question.to_owned(),
            });
            self.tokens(tokenizer, &messages)
        };
        let (mut tokens, other) = (after("a")?, after("1")?);
        let common = tokens.iter().zip(&other).take_while(|(a, b)| a == b);
        let common = common.count();
        tokens.truncate(common);
        Ok(tokens)
    }

    /// Number of tokens of `messages`, BOS included: of the prompt if the last message is the
    /// user's, otherwise of [`tokens_before_question`](Self::tokens_before_question).
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens).
    pub fn token_count(self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<usize> {
        let ends_in_question = messages.last().is_some_and(|last| last.role == Role::User);
        let tokens = if ends_in_question {
            self.tokens(tokenizer, messages)?
        } else {
            self.tokens_before_question(tokenizer, messages)?
        };
        Ok(tokens.len())
    }

    pub(super) fn parts(self, messages: &[Message]) -> Result<PromptParts> {
        let prompt = self.render(messages);
        prompt.map_err(|problem| Error::option("messages", problem))
    }

    /// Like [`prompt`](Self::prompt), in parts, with only the problem as the error.
    pub(crate) fn render(self, messages: &[Message]) -> Result<PromptParts, String> {
        check_roles(messages, Role::Assistant)?;
        let mut prompt = PromptParts::default();
        match self {
            Self::Instruction => push_conversation(&mut prompt, messages),
            Self::Plain => {
                for message in messages {
                    prompt.push_content(&message.content);
                }
            }
            Self::OpenElmInstruct => {
                for Message { role, content } in messages {
                    for part in ["<|", role.name(), "|>\n"] {
                        prompt.push_template(part);
                    }
                    prompt.push_content(content);
                    prompt.push_template("</s>\n");
                }
                prompt.push_template("<|assistant|>\n");
            }
        }
        Ok(prompt)
    }
}

/// The prompt of one instruction, with `input` if it is not empty. It ends where the answer
/// starts.
pub fn instruct_prompt(instruction: &str, input: Option<&str>) -> String {
    let mut prompt = PromptParts::default();
    push_first(&mut prompt, instruction, input);
    prompt.text()
}

/// The prompt of a conversation: an optional system message, then alternating messages of the user
/// and the assistant, the user's last. It ends where the answer starts.
///
/// # Errors
///
/// [`Error::Option`] if the roles are in another order, or a message of the user or the
/// assistant is empty.
pub fn conversation_prompt(messages: &[Message]) -> Result<String> {
    ChatTemplate::Instruction.prompt(messages)
}

/// Appends a conversation whose roles were checked.
fn push_conversation(prompt: &mut PromptParts, messages: &[Message]) {
    let (system, turns) = match messages.split_first() {
        Some((first, rest)) if first.role == Role::System => (Some(first.content.as_str()), rest),
        _ => (None, messages),
    };
    for (index, Message { role, content }) in turns.iter().enumerate() {
        match role {
            Role::Assistant => prompt.push_content(content),
            _ if index == 0 => push_first(prompt, content, system),
            _ => {
                push_separator(prompt);
                push_block(prompt, "Instruction", content);
                push_separator(prompt);
                push_block(prompt, "Response", "");
            }
        }
    }
}

/// Appends the first instruction, with `input` if it is not empty.
fn push_first(prompt: &mut PromptParts, instruction: &str, input: Option<&str>) {
    let input = input.filter(|text| !text.is_empty());
    prompt.push_template(if input.is_some() {
        OPENING_WITH_INPUT
    } else {
        OPENING
    });
    prompt.push_template("\n\n");
    push_block(prompt, "Instruction", instruction);
    if let Some(input) = input {
        push_separator(prompt);
        push_block(prompt, "Input", input);
    }
    push_separator(prompt);
    push_block(prompt, "Response", "");
}

const INDENT: &str = "                ";
/// The trailing spaces are CoreNet's.
const OPENING_WITH_INPUT: &str = "Below is an instruction that describes a task, paired with an \
     input that provides further context. Write a response that appropriately completes the \
     request. ";
const OPENING: &str = "Below is an instruction that describes a task. Write a response that \
     appropriately completes the request.  ";

fn push_block(prompt: &mut PromptParts, title: &str, text: &str) {
    for part in [INDENT, "### ", title, ":\n", INDENT] {
        prompt.push_template(part);
    }
    prompt.push_content(text);
}

/// Ends a block, with a line of spaces before the next.
fn push_separator(prompt: &mut PromptParts) {
    for part in ["\n", INDENT, "\n"] {
        prompt.push_template(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of the recipe; `~` stands for four spaces.
    fn lines(lines: &[&str]) -> String {
        lines.join("\n").replace('~', "    ")
    }

    fn conversation(messages: &[(Role, &str)]) -> Result<String> {
        let messages: Vec<_> = messages
            .iter()
            .map(|&(role, content)| Message {
                role,
                content: content.to_owned(),
            })
            .collect();
        conversation_prompt(&messages)
    }

    #[test]
    fn instruct_prompt_matches_the_recipe() {
        let expected = lines(&[
            "Below is an instruction that describes a task, paired with an input that provides \
             further context. Write a response that appropriately completes the request. ",
            "",
            "~~~~### Instruction:",
            "~~~~Translate.",
            "Into French.",
            "~~~~",
            "~~~~### Input:",
            "~~~~Hello",
            "~~~~",
            "~~~~### Response:",
            "~~~~",
        ]);
        let prompt = instruct_prompt("Translate.\nInto French.", Some("Hello"));
        assert_eq!(prompt, expected);
        let expected = lines(&[
            "Below is an instruction that describes a task. Write a response that appropriately \
             completes the request.  ",
            "",
            "~~~~### Instruction:",
            "~~~~Sing.",
            "~~~~",
            "~~~~### Response:",
            "~~~~",
        ]);
        assert_eq!(instruct_prompt("Sing.", None), expected);
        assert_eq!(instruct_prompt("Sing.", Some("")), expected);
    }

    #[test]
    fn conversation_continues_with_blocks() {
        use Role::{Assistant, System, User};
        let one = conversation(&[(System, "Be brief."), (User, "Sing.")]).unwrap();
        assert_eq!(one, instruct_prompt("Sing.", Some("Be brief.")));
        let empty = conversation(&[(System, ""), (User, "Sing.")]).unwrap();
        assert_eq!(empty, instruct_prompt("Sing.", None));
        let two = conversation(&[(User, "Sing."), (Assistant, "La."), (User, "More.")]).unwrap();
        let expected = lines(&[
            "La.",
            "~~~~",
            "~~~~### Instruction:",
            "~~~~More.",
            "~~~~",
            "~~~~### Response:",
            "~~~~",
        ]);
        assert_eq!(two, instruct_prompt("Sing.", None) + &expected);
    }

    #[test]
    fn rejects_other_orders() {
        use Role::{Assistant, System, User};
        let cases: [(&[(Role, &str)], &str); 7] = [
            (&[], "no message of the user"),
            (&[(System, "a")], "no message of the user"),
            (
                &[(Assistant, "a")],
                "message 1: expected the role `user`, found `assistant`",
            ),
            (
                &[(User, "a"), (User, "b")],
                "message 2: expected the role `assistant`",
            ),
            (
                &[(System, "a"), (User, "b"), (System, "c")],
                "message 3: expected the role `assistant`, found `system`",
            ),
            (&[(User, "a"), (Assistant, "b")], "is not the user's"),
            (&[(User, "")], "message 1: `content` is empty"),
        ];
        for (messages, expected) in cases {
            let message = conversation(messages).unwrap_err().to_string();
            assert!(message.starts_with("messages: "), "{message}");
            assert!(message.contains(expected), "{message}: expected {expected}");
        }
    }

    fn two_turns() -> Vec<Message> {
        [
            (Role::System, "Be brief."),
            (Role::User, "Hello?"),
            (Role::Assistant, "Hi."),
            (Role::User, "Who are you?"),
        ]
        .map(|(role, content)| Message {
            role,
            content: content.into(),
        })
        .to_vec()
    }

    /// Output of Jinja2 3.1 for CoreNet's template, with `trim_blocks` and `lstrip_blocks` as in
    /// transformers.
    #[test]
    fn instruct_template_matches_corenet() {
        let prompt = ChatTemplate::OpenElmInstruct.prompt(&two_turns());
        assert_eq!(
            prompt.unwrap(),
            "<|system|>\nBe brief.</s>\n<|user|>\nHello?</s>\n<|assistant|>\nHi.</s>\n\
             <|user|>\nWho are you?</s>\n<|assistant|>\n"
        );
    }

    #[test]
    fn plain_template_joins_messages() {
        let prompt = ChatTemplate::Plain.prompt(&two_turns()).unwrap();
        assert_eq!(prompt, "Be brief.Hello?Hi.Who are you?");
    }
}
