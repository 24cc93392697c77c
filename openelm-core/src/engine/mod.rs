//! One thread that owns MLX and all models, behind handles that any thread can use.
//!
//! An [`Engine`] starts the thread. Its handles ([`ModelHandle`], [`ChatHandle`]) are `Send` and
//! `Sync`: requests go in, and bounded streams of events come out. Generations of one model advance
//! together; loads, conversions and training are interrupted at each of their units (a tensor, a
//! batch) for the requests of others. What needs no MLX (messages, adapters, whether an answer is
//! running) is answered at once.

mod chat;
mod convert;
mod engine;
mod event_channel;
mod fault_injection;
mod finetune;
mod generation;
mod load;
mod model;
mod share;
mod state;
mod worker;

pub use chat::ChatHandle;
pub use convert::{ConvertHandle, ConvertProgress, ConvertRequest};
pub use engine::{Engine, EngineHooks};
pub use event_channel::EventReceiver;
pub use finetune::{FinetuneHandle, FinetuneRequest};
pub use load::{LoadEvent, LoadHandle};
pub use model::{ModelHandle, ModelInfo};
