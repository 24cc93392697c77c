//! Errors of answers: the Hub's status and its headers `X-Error-Code` and `X-Error-Message`.

use std::time::Duration;

use super::client::{Answer, Client, Failure, Retry};
use crate::error::Error;

/// Page where tokens are made.
pub(super) const TOKENS: &str = "https://huggingface.co/settings/tokens";

/// The failure of an answer with a status from 400. `subject` is a repository, or a repository and
/// a file (`owner/name: file`).
pub(super) fn failure(client: &Client, answer: Answer, subject: &str) -> Failure {
    let code = answer.header("X-Error-Code").unwrap_or_default();
    let message = answer.header("X-Error-Message").unwrap_or_default();
    let never = |error| Failure {
        error,
        retry: Retry::Never,
    };
    let (id, _) = subject.split_once([':', '@']).unwrap_or((subject, ""));
    let page = format!("{}/{id}", client.endpoint());
    if answer.status == 416 {
        return Failure {
            error: Error::hub_network(subject, "the range of the file does not exist (416)"),
            retry: Retry::WithoutRange,
        };
    }
    if !answer.is_of_hub && answer.status < 429 {
        // The signed address has expired, or the host does not have the file: the Hub gives a new
        // address.
        let problem = format!("status {} of the host with the file", answer.status);
        return Failure {
            error: Error::hub_network(subject, &problem),
            retry: Retry::Wait,
        };
    }
    match (answer.status, code) {
        (401 | 403, "GatedRepo") => never(Error::hub_access(subject, &gated(client, &page))),
        (401, _) if message.contains("Invalid credentials") => {
            let problem = format!("the Hub refuses the token; make a new one at {TOKENS}");
            never(Error::hub_access(subject, &problem))
        }
        (404, "RevisionNotFound") => never(Error::hub_not_found(subject, "no such revision")),
        (404, "EntryNotFound") => never(Error::hub_not_found(subject, "no such file")),
        (401 | 404, _) => {
            let advice = if client.has_token() {
                "or the token has no access to it"
            } else {
                "or it is private: HF_TOKEN sets a token"
            };
            let problem = format!("no such repository at {}, {advice}", client.endpoint());
            never(Error::hub_not_found(subject, &problem))
        }
        (403, _) => {
            let detail = if message.is_empty() { "403" } else { message };
            let problem = format!("the Hub refuses access: {detail}; see {page}");
            never(Error::hub_access(subject, &problem))
        }
        (429, _) => {
            let wait = answer.header("Retry-After").and_then(seconds);
            let advice = if client.has_token() {
                "wait some minutes"
            } else {
                "wait some minutes, or set HF_TOKEN: a token has a higher limit"
            };
            Failure {
                error: Error::hub_network(subject, &format!("too many requests (429); {advice}")),
                retry: wait.map_or(Retry::Wait, Retry::After),
            }
        }
        (408 | 500.., _) => Failure {
            error: Error::hub_network(subject, &format!("status {} of the Hub", answer.status)),
            retry: Retry::Wait,
        },
        (status, _) => {
            let detail = if message.is_empty() {
                "no reason given"
            } else {
                message
            };
            let problem = format!("status {status} of the Hub: {detail}");
            never(Error::hub_content(subject, &problem))
        }
    }
}

/// The header `Retry-After` in seconds; a date is not read.
fn seconds(text: &str) -> Option<Duration> {
    Some(Duration::from_secs(text.trim().parse().ok()?))
}

fn gated(client: &Client, page: &str) -> String {
    if client.has_token() {
        return format!(
            "gated, and the token's account has no access; accept the licence at {page}"
        );
    }
    format!("gated; accept the licence at {page}, make a token at {TOKENS}, and set HF_TOKEN to it")
}
