//! The engine of this process.

use std::sync::OnceLock;

use openelm_core::engine::{Engine, EngineHooks};

use crate::{
    error::{Error, Result},
    exit_guard,
};

/// The engine, which is started by the first call.
pub(crate) fn engine() -> Result<&'static Engine> {
    let engine = STARTED.get_or_init(|| {
        let hooks = EngineHooks {
            after_unit: exit_guard::after_unit,
            give_up: exit_guard::is_exiting,
        };
        Engine::start_with(hooks).ok()
    });
    engine.as_ref().ok_or_else(Error::unusable)
}

/// Makes a running engine examine its work again.
pub(crate) fn wake() {
    if let Some(Some(engine)) = STARTED.get() {
        engine.wake();
        engine.recheck();
    }
}

static STARTED: OnceLock<Option<Engine>> = OnceLock::new();
