//! Messages of a conversation and the order of their roles.

use serde::{Deserialize, Serialize};

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Background for the conversation; the first message only.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Author of the message.
    pub role: Role,
    /// Text of the message.
    pub content: String,
}

impl Role {
    /// `system`, `user` or `assistant`.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Checks that `messages` are an optional system message, then alternating messages of the user and
/// the assistant, none of these empty, and that a message of `next` may follow.
pub(crate) fn check_roles(messages: &[Message], next: Role) -> Result<(), String> {
    let mut expected = Role::User;
    for (number, Message { role, content }) in (1..).zip(messages) {
        if number == 1 && *role == Role::System {
            continue;
        }
        if *role != expected {
            return Err(format!(
                "message {number}: expected the role `{}`, found `{}`",
                expected.name(),
                role.name()
            ));
        }
        // An answer is empty if it was stopped at once.
        if content.is_empty() && *role != Role::Assistant {
            return Err(format!("message {number}: `content` is empty"));
        }
        expected = match expected {
            Role::User => Role::Assistant,
            _ => Role::User,
        };
    }
    if expected == next {
        return Ok(());
    }
    let problem = if next == Role::User {
        "the last message is not the assistant's"
    } else if messages.iter().any(|message| message.role == Role::User) {
        "the last message before the answer is not the user's"
    } else {
        "there is no message of the user"
    };
    Err(problem.to_owned())
}
