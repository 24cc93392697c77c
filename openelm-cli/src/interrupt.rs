//! Ctrl-C: ends the text under way. Until a model is loaded the system ends the program itself.
//!
//! The handler only asks for the end. Were it to exit, MLX and the BLAS under it would be torn
//! down beside a thread that still computes with them, and hang.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use openelm_core::CancelHandle;

use crate::error::Error;

/// What Ctrl-C acts on.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    generation: Arc<Mutex<Option<CancelHandle>>>,
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over from the system. To be called once the model is loaded, and followed by
    /// [`cancels`](Self::cancels): from then on nothing else reacts to it.
    pub(crate) fn install() -> Result<Self, Error> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            handler.pressed.store(true, Ordering::SeqCst);
            if let Ok(generation) = handler.generation.lock()
                && let Some(handle) = &*generation
            {
                handle.cancel();
            }
        })?;
        Ok(interrupt)
    }

    /// From now on Ctrl-C cancels this generation; at once, if it was pressed before.
    pub(crate) fn cancels(&self, handle: CancelHandle) {
        if let Ok(mut generation) = self.generation.lock() {
            if self.was_pressed() {
                handle.cancel();
            }
            *generation = Some(handle);
        }
    }

    pub(crate) fn was_pressed(&self) -> bool {
        self.pressed.load(Ordering::SeqCst)
    }
}
