//! Parsing of a row with two answers, as [`PreferenceDataset`](super::PreferenceDataset) defines.

use serde_json::Value;

use super::{
    json::{self, Object},
    row::Content,
};
use crate::tokenizer::{ChatTemplate, Message, PromptParts, Role};

/// Reads the prompt and both answers.
pub(crate) fn read(object: &Object, template: ChatTemplate) -> Result<Content, String> {
    let prompt = Prompt::read(object)?;
    let chosen = Answer::read(object, "chosen")?;
    let rejected = Answer::read(object, "rejected")?;
    let context = chosen.context(prompt.as_ref(), template)?;
    if rejected.context(prompt.as_ref(), template)? != context {
        return Err("`chosen` and `rejected` are answers to different prompts".to_owned());
    }
    Ok(Content::Preference {
        prompt: context,
        chosen: chosen.text,
        rejected: rejected.text,
    })
}

enum Prompt {
    Text(String),
    Conversation(Vec<Message>),
}

impl Prompt {
    /// `None` if the row has no `prompt`, for answers with the whole conversation.
    fn read(object: &Object) -> Result<Option<Self>, String> {
        match json::optional(object, "prompt") {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Self::Text(text.clone()))),
            Some(list @ Value::Array(_)) => {
                let messages = json::messages(list, "prompt")?;
                Ok(Some(Self::Conversation(messages)))
            }
            Some(other) => Err(expected_text_or_messages("prompt", other)),
        }
    }
}

struct Answer {
    key: &'static str,
    /// The messages before the answer; `None` if the row has a text.
    before: Option<Vec<Message>>,
    text: String,
}

impl Answer {
    fn read(object: &Object, key: &'static str) -> Result<Self, String> {
        let (before, text) = match json::value(object, key)? {
            Value::String(text) => {
                json::not_empty(text, key)?;
                (None, text.clone())
            }
            list @ Value::Array(_) => {
                let (before, text) = json::with_answer(json::messages(list, key)?, key)?;
                (Some(before), text)
            }
            other => return Err(expected_text_or_messages(key, other)),
        };
        Ok(Self { key, before, text })
    }

    /// The prompt before the answer.
    fn context(
        &self,
        prompt: Option<&Prompt>,
        template: ChatTemplate,
    ) -> Result<PromptParts, String> {
        let in_template = |messages: &[Message], key: &str| {
            let prompt = template.render(messages);
            prompt.map_err(|problem| format!("`{key}`: {problem}"))
        };
        match (&self.before, prompt) {
            (Some(before), _) if !before.is_empty() => in_template(before, self.key),
            (_, Some(Prompt::Conversation(messages))) => in_template(messages, "prompt"),
            (None, Some(Prompt::Text(text))) => Ok(text.clone().into()),
            (Some(_), Some(Prompt::Text(text))) => {
                let question = Message {
                    role: Role::User,
                    content: text.clone(),
                };
                in_template(&[question], "prompt")
            }
            (_, None) => Err("`prompt` is missing".to_owned()),
        }
    }
}

fn expected_text_or_messages(key: &str, found: &Value) -> String {
    format!(
        "`{key}`: expected a string or a list of messages, found {}",
        json::kind(found)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_value(row: Value) -> Result<[String; 3], String> {
        let Value::Object(object) = row else {
            panic!("{row}")
        };
        match read(&object, ChatTemplate::default())? {
            Content::Preference {
                prompt,
                chosen,
                rejected,
            } => Ok([prompt.text(), chosen, rejected]),
            _ => panic!("not a preference"),
        }
    }

    #[test]
    fn reads_all_spellings_of_a_pair() {
        let user = json!({"role": "user", "content": "Sing."});
        let yes = json!({"role": "assistant", "content": "La."});
        let no = json!({"role": "assistant", "content": "No."});
        let in_template = ["<|user|>\nSing.</s>\n<|assistant|>\n", "La.", "No."];
        let plain = json!({"prompt": "Sing.", "chosen": "La.", "rejected": "No."});
        assert_eq!(read_value(plain).unwrap(), ["Sing.", "La.", "No."]);
        for row in [
            json!({"prompt": "Sing.", "chosen": [user, yes], "rejected": [user, no]}),
            json!({"chosen": [user, yes], "rejected": [user, no]}),
            json!({"prompt": [user], "chosen": [yes], "rejected": [no]}),
            json!({"prompt": [user], "chosen": "La.", "rejected": "No."}),
            json!({"prompt": "Sing.", "chosen": [yes], "rejected": [no]}),
        ] {
            assert_eq!(read_value(row).unwrap(), in_template);
        }
    }

    #[test]
    fn rejects_other_rows_by_key() {
        let user = json!({"role": "user", "content": "Sing."});
        let other = json!({"role": "user", "content": "Dance."});
        let yes = json!({"role": "assistant", "content": "La."});
        for (row, expected) in [
            (
                json!({"chosen": "a", "rejected": "b"}),
                "`prompt` is missing",
            ),
            (
                json!({"prompt": "a", "chosen": "b"}),
                "`rejected` is missing",
            ),
            (
                json!({"prompt": "a", "chosen": "", "rejected": "b"}),
                "`chosen` is empty",
            ),
            (
                json!({"prompt": "a", "chosen": [], "rejected": "b"}),
                "`chosen` is empty",
            ),
            (
                json!({"prompt": 1, "chosen": "a", "rejected": "b"}),
                "`prompt`: expected a string or a list of messages, found a number",
            ),
            (
                json!({"chosen": [user, yes], "rejected": [other, yes]}),
                "answers to different prompts",
            ),
            (
                json!({"chosen": [user, yes], "rejected": [yes, user]}),
                "`rejected`: expected the role `assistant` in the last message, found `user`",
            ),
            (
                json!({"chosen": [yes, yes], "rejected": [user, yes]}),
                "`chosen`: message 1: expected the role `user`, found `assistant`",
            ),
        ] {
            let problem = read_value(row).unwrap_err();
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
    }
}
