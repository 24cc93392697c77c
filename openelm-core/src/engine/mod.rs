//! One thread that owns MLX and all models, behind handles that any thread can use.
//!
//! An [`Engine`] starts the thread. Its handles ([`ModelHandle`], [`ChatHandle`]) are `Send` and
//! `Sync`: requests go in, and bounded streams of events come out. Generations of one model advance
//! together; loads, conversions and training are interrupted at each of their units (a tensor, a
//! batch) for the requests of others. Messages, adapters and the state of an answer need no MLX and
//! are returned at once.
//!
//! ```no_run
//! use openelm_core::{LoadOptions, engine::Engine, generation::{Event, GenerateOptions}};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let engine = Engine::start()?;
//! let model = engine.load_blocking("OpenELM-270M", LoadOptions::default())?;
//! let texts = ["Once upon a time", "The capital of France is"].map(|prompt| {
//!     let model = model.clone();
//!     std::thread::spawn(move || -> openelm_core::Result<String> {
//!         let events = model.generate(prompt, GenerateOptions::default())?;
//!         let mut text = String::new();
//!         while let Some(event) = events.next_blocking()? {
//!             if let Event::Token(token) = event {
//!                 text += &token.text;
//!             }
//!         }
//!         Ok(text)
//!     })
//! });
//! # drop(texts);
//! # Ok(())
//! # }
//! ```

mod chat;
mod compiling;
mod convert;
mod engine;
mod event_channel;
mod fault_injection;
mod finetune;
mod generation;
mod load;
mod model;
mod prompt;
mod score;
mod share;
mod state;
mod worker;

pub use chat::ChatHandle;
pub use convert::{ConvertHandle, ConvertProgress, ConvertRequest};
pub use engine::{Engine, EngineHooks};
pub use event_channel::EventReceiver;
pub use finetune::{FinetuneHandle, FinetuneRequest};
pub use generation::RequestOptions;
pub use load::{LoadEvent, LoadHandle};
pub use model::{ModelHandle, ModelInfo};
pub use prompt::Prompt;
