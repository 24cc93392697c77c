//! Ctrl-C. Once a model is loaded, the first one cancels the current work and the second one ends
//! the program.
//!
//! The first one only requests cancellation. An exit in the handler would destroy MLX and its BLAS
//! while another thread computes, and hang. The second one calls POSIX's `_exit`, which runs no
//! destructors.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use openelm_core::CancelHandle;

use crate::error::Error;

/// The state that Ctrl-C changes.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    running: Arc<Mutex<Option<CancelHandle>>>,
    pressed: Arc<AtomicBool>,
}

/// Makes a write beyond the limit of a file's size (`ulimit -f`) fail with an error. Without a
/// handler, the system ends the process and its temporary files stay.
pub(crate) fn ignore_file_size_signal() {
    #[cfg(unix)]
    {
        let flag = Arc::new(AtomicBool::new(false));
        // Without a handler the program still works.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag);
    }
}

impl Interrupt {
    /// Installs the Ctrl-C handler. Call it once the model is loaded, then call
    /// [`cancels`](Self::cancels): from then on only the second Ctrl-C is certain to end the
    /// program.
    pub(crate) fn install() -> Result<Self, Error> {
        let interrupt = Self::default();
        interrupt.listen()?;
        Ok(interrupt)
    }

    /// Installs the handler for an existing value, like [`install`](Self::install).
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

    /// Acts as the first Ctrl-C does.
    pub(crate) fn press(&self) {
        self.pressed.store(true, Ordering::SeqCst);
        if let Ok(running) = self.running.lock()
            && let Some(handle) = &*running
        {
            handle.cancel();
        }
    }

    /// Makes Ctrl-C cancel this generation or conversion; at once, if it was pressed before.
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
