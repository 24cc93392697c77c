//! Ctrl-C: the first ends the text under way, the second the program.

use std::{
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
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
    /// Takes Ctrl-C over from the system. While nothing is registered it ends the program.
    pub(crate) fn install() -> Result<Self, Error> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            let again = handler.pressed.swap(true, Ordering::SeqCst);
            match handler
                .generation
                .lock()
                .ok()
                .and_then(|handle| handle.clone())
            {
                Some(handle) if !again => handle.cancel(),
                _ => {
                    eprintln!("openelm: interrupted");
                    process::exit(130);
                }
            }
        })?;
        Ok(interrupt)
    }

    /// From now on the first Ctrl-C cancels this generation.
    pub(crate) fn cancels(&self, handle: CancelHandle) {
        if let Ok(mut generation) = self.generation.lock() {
            *generation = Some(handle);
        }
    }

    pub(crate) fn was_pressed(&self) -> bool {
        self.pressed.load(Ordering::SeqCst)
    }
}
