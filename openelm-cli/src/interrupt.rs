//! Ctrl-C: the first ends what is under way, a second one the program. Until a model is loaded the
//! system ends the program itself.
//!
//! The first only asks for the end. Were the handler to exit, MLX and the BLAS under it would be
//! torn down beside a thread that still computes with them, and hang. The second leaves without
//! any tearing down (POSIX's `_exit`), which is as safe as being killed.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use openelm_core::CancelHandle;

use crate::error::Error;

/// What Ctrl-C acts on.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    running: Arc<Mutex<Option<CancelHandle>>>,
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over from the system. To be called once the model is loaded, and followed by
    /// [`cancels`](Self::cancels): from then on only the second one is sure to end the program.
    pub(crate) fn install() -> Result<Self, Error> {
        let interrupt = Self::default();
        interrupt.listen()?;
        Ok(interrupt)
    }

    /// As [`install`](Self::install), for one that was made before.
    pub(crate) fn listen(&self) -> Result<(), Error> {
        let handler = self.clone();
        ctrlc::set_handler(move || {
            if handler.was_pressed() {
                signal_hook::low_level::exit(Error::Interrupted.exit_code().into());
            }
            handler.press();
        })?;
        Ok(())
    }

    /// Does what the first Ctrl-C does.
    pub(crate) fn press(&self) {
        self.pressed.store(true, Ordering::SeqCst);
        if let Ok(running) = self.running.lock()
            && let Some(handle) = &*running
        {
            handle.cancel();
        }
    }

    /// From now on Ctrl-C cancels this generation or conversion; at once, if it was pressed before.
    pub(crate) fn cancels(&self, handle: CancelHandle) {
        if let Ok(mut running) = self.running.lock() {
            if self.was_pressed() {
                handle.cancel();
            }
            *running = Some(handle);
        }
    }

    pub(crate) fn was_pressed(&self) -> bool {
        self.pressed.load(Ordering::SeqCst)
    }
}
