//! An HTTP server with OpenAI's interface for OpenELM language models: completions and chat, whole
//! and streamed, log-probabilities of prompts, structured output, adapters by request.
//!
//! A [`Server`] serves one model of an [`Engine`](openelm_core::engine::Engine). Generations of
//! several requests advance together, and requests share the keys and values of their prefixes.
//!
//! ```no_run
//! use openelm_core::{LoadOptions, engine::Engine};
//! use openelm_server::{Listen, Server, ServerOptions, Shutdown};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::open(ServerOptions::default(), &Listen::default())?;
//! let model = Engine::start()?.load_blocking("OpenELM-270M", LoadOptions::default())?;
//! server.run(model, &Shutdown::default())?;
//! # Ok(())
//! # }
//! ```

mod access;
mod admission;
mod api_error;
mod api_keys;
mod app;
mod body;
mod error;
mod fields;
mod generations;
mod listener;
mod metrics;
mod models;
mod options;
mod request;
mod request_record;
mod request_work;
mod response;
mod router;
mod server;
mod shutdown;
mod static_files;
mod token_texts;
mod tokens;
mod unique_json;
mod write_timeout;

pub use api_keys::ApiKeys;
pub use error::{Error, Result};
pub use options::{DEFAULT_HOST, DEFAULT_PORT, Listen, ServerOptions};
pub use server::Server;
pub use shutdown::Shutdown;
