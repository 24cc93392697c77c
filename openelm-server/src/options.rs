//! Options of the server, with their defaults and ranges.

use std::{path::PathBuf, time::Duration};

use openelm_core::{chat::ChatTemplate, generation::GenerateOptions};

use crate::{
    api_keys::ApiKeys,
    error::{Error, Result},
};

/// Options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Name of the model in requests and responses. Default `openelm`.
    pub served_model_name: String,
    /// Prompt format of chat requests. Default OpenELM-Instruct's.
    pub chat_template: ChatTemplate,
    /// Options of a generation whose request does not have them. The defaults are the core's.
    pub generate: GenerateOptions,
    /// Strengths of the adapters that requests may select, by the names under which the model has
    /// them. Default none.
    pub adapters: Vec<(String, f32)>,
    /// Largest number of texts that are generated at the same time. Default 32.
    pub decode_concurrency: usize,
    /// Largest number of requests that wait for their turn. Default 64.
    pub max_queue: usize,
    /// Largest number of open connections; further ones wait in the system's queue. Default 512.
    pub max_connections: usize,
    /// Longest time of a request, from its head to the last byte of its response. Default ten
    /// minutes.
    pub request_timeout: Duration,
    /// Longest time to receive the head or the body of a request, and longest time without progress
    /// while a response is sent. Default 30 seconds.
    pub io_timeout: Duration,
    /// Longest time that running requests have after the shutdown began. Default 30 seconds.
    pub drain_timeout: Duration,
    /// Longest body of a request, in bytes. Default 4 MiB.
    pub max_body_bytes: usize,
    /// Origins of other web pages that may use the server, such as `https://example.org`; `*` is any.
    /// Default none.
    pub allowed_origins: Vec<String>,
    /// Keys that requests must have. Default none: no key is needed.
    pub api_keys: ApiKeys,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            served_model_name: "openelm".into(),
            chat_template: ChatTemplate::default(),
            generate: GenerateOptions::default(),
            adapters: Vec::new(),
            decode_concurrency: 32,
            max_queue: 64,
            max_connections: 512,
            request_timeout: Duration::from_secs(600),
            io_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            max_body_bytes: 4 << 20,
            allowed_origins: Vec::new(),
            api_keys: ApiKeys::default(),
        }
    }
}

impl ServerOptions {
    /// Checks every value's range.
    ///
    /// # Errors
    /// [`Error::Option`] names the first value out of range.
    pub fn check(&self) -> Result<()> {
        for (option, value) in [
            ("decode_concurrency", self.decode_concurrency),
            ("max_connections", self.max_connections),
            ("max_body_bytes", self.max_body_bytes),
        ] {
            if !(1..=MOST).contains(&value) {
                let problem = format!("expected 1 to {MOST}, found {value}");
                return Err(Error::Option { option, problem });
            }
        }
        if self.max_queue > MOST {
            return Err(Error::Option {
                option: "max_queue",
                problem: format!("expected at most {MOST}, found {}", self.max_queue),
            });
        }
        for (option, time, least) in [
            ("request_timeout", self.request_timeout, 1),
            ("io_timeout", self.io_timeout, 1),
            ("drain_timeout", self.drain_timeout, 0),
        ] {
            // Parts of a second are for tests.
            let found = time.as_secs();
            if found > LONGEST || (least > 0 && time.is_zero()) {
                let problem = format!("expected {least} to {LONGEST} seconds, found {found}");
                return Err(Error::Option { option, problem });
            }
        }
        self.check_names()?;
        for origin in &self.allowed_origins {
            check_origin(origin)?;
        }
        Ok(())
    }
}

/// Longest time in seconds: a year. Clocks cannot add any number.
const LONGEST: u64 = 31_536_000;
/// Largest count: semaphores hold no more on a system of 32 bits.
const MOST: usize = 1 << 28;

impl ServerOptions {
    /// Refuses a name without text, and one that stands for two.
    fn check_names(&self) -> Result<()> {
        let error = |option, problem: &str| Error::Option {
            option,
            problem: problem.to_owned(),
        };
        if self.served_model_name.is_empty() {
            return Err(error("served_model_name", "it is empty"));
        }
        let mut known = vec![&self.served_model_name];
        for (name, _) in &self.adapters {
            if name.is_empty() {
                return Err(error("adapters", "a name is empty"));
            }
            if known.contains(&name) {
                let problem = format!("expected names that differ, found {name:?} twice");
                return Err(error("adapters", &problem));
            }
            known.push(name);
        }
        Ok(())
    }
}

/// Refuses a text that no browser sends as `Origin`.
fn check_origin(origin: &str) -> Result<()> {
    let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
        let is_scheme = matches!(scheme, "http" | "https");
        is_scheme && !host.is_empty() && !host.contains(['/', ' ', '*'])
    });
    if is_origin || origin == "*" {
        return Ok(());
    }
    Err(Error::Option {
        option: "allowed_origins",
        problem: format!(
            "expected `*`, or an origin such as https://example.org, found {origin:?}"
        ),
    })
}

/// Host of a server whose host is not given: only programs of this machine reach it.
pub const DEFAULT_HOST: &str = "127.0.0.1";
/// Port of a server whose port is not given, as mlx-lm's.
pub const DEFAULT_PORT: u16 = 8080;

/// Address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP port of a host's addresses; port 0 is any free one.
    Tcp {
        /// Name or address of the host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket, which only this user can open.
    Unix(PathBuf),
}

impl Default for Listen {
    /// [`DEFAULT_PORT`] of [`DEFAULT_HOST`].
    fn default() -> Self {
        Self::Tcp {
            host: DEFAULT_HOST.into(),
            port: DEFAULT_PORT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_values_out_of_range() {
        let problem = |change: fn(&mut ServerOptions)| {
            let mut options = ServerOptions::default();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        ServerOptions::default().check().unwrap();
        assert_eq!(
            problem(|o| o.decode_concurrency = 0),
            "decode_concurrency: expected 1 to 268435456, found 0"
        );
        assert_eq!(
            problem(|o| o.max_queue = usize::MAX),
            format!(
                "max_queue: expected at most 268435456, found {}",
                usize::MAX
            )
        );
        assert_eq!(
            problem(|o| o.io_timeout = Duration::ZERO),
            "io_timeout: expected 1 to 31536000 seconds, found 0"
        );
        for origin in [
            "example.org",
            "https://",
            "https://a/b",
            "file://x y",
            "null",
        ] {
            let found = check_origin(origin).unwrap_err().to_string();
            assert!(found.starts_with("allowed_origins: "), "{found}");
        }
        for origin in ["*", "https://example.org", "http://localhost:3000"] {
            check_origin(origin).unwrap();
        }
    }
}
