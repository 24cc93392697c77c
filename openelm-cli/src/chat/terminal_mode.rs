//! The mode of the terminal, which the line editor changes while it waits for a line.

use crate::interrupt::Interrupt;

/// Restores the present mode of the terminal before a signal ends the program.
#[cfg(unix)]
pub(super) fn restore_before_exit(interrupt: &Interrupt) {
    use std::io::{self, Write};

    use rustix::{
        process::getpgrp,
        termios::{OptionalActions, tcgetattr, tcgetpgrp, tcsetattr},
    };

    /// Ends the line editor's mode of pasted text, and its line.
    const END: &[u8] = b"\x1b[?2004l\n";

    let Ok(mode) = tcgetattr(io::stdin()) else {
        return;
    };
    interrupt.before_exit(move || {
        let terminal = io::stdin();
        // The system would stop a process in the background.
        let in_background = tcgetpgrp(&terminal).is_ok_and(|group| group != getpgrp());
        let is_changed = tcgetattr(&terminal).is_ok_and(|now| now.local_modes != mode.local_modes);
        if !in_background && is_changed && tcsetattr(&terminal, OptionalActions::Now, &mode).is_ok()
        {
            let _ = io::stdout()
                .write_all(END)
                .and_then(|()| io::stdout().flush());
        }
    });
}

/// Only Unix has these modes and signals.
#[cfg(not(unix))]
pub(super) fn restore_before_exit(_interrupt: &Interrupt) {}
