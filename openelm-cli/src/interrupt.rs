//! Signals that end a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP.
//!
//! As long as nothing can be cancelled, a signal ends the program at once. From
//! [`cancelling`](Interrupt::cancelling) on, the first signal cancels the current work, which saves
//! its progress, and the second one ends the program.
//!
//! The first one only requests cancellation. An exit in the handler would destroy MLX and its BLAS
//! while another thread computes, and hang. The second one calls POSIX's `_exit`, which runs no
//! destructors.

use std::{
    fmt,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use openelm_core::CancelHandle;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::error::Error;

/// A signal that ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal was closed.
    Hangup,
    /// Ctrl-C.
    Interrupt,
    /// The usual signal of `kill` and of service managers.
    Terminate,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Hangup, Self::Interrupt, Self::Terminate];

    /// The signal of a number; `None` for other signals.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|signal| signal.number() == number)
    }

    /// The signal of an exit code.
    pub(crate) fn from_exit_code(code: i32) -> Option<Self> {
        Self::from_number(code - 128)
    }

    /// The number, which is the same on all systems.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Hangup => SIGHUP,
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
        }
    }

    /// The exit code, as shells report it.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "interrupted by SIGHUP",
            Self::Interrupt => "interrupted",
            Self::Terminate => "interrupted by SIGTERM",
        })
    }
}

/// The state that signals change.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: Option<CancelHandle>,
    received: Option<Signal>,
    /// The system sent a signal to this process.
    is_signalled: bool,
    /// Ctrl-C cancels work and never ends the program.
    only_cancels: bool,
    /// Called with the first signal, in place of the cancellation of work.
    on_first: Option<Box<dyn Fn() + Send>>,
    /// Called before a signal ends the program.
    before_exit: Option<Box<dyn Fn() + Send>>,
}

/// Makes a write beyond the limit of a file's size (`ulimit -f`) fail with an error. Without a
/// handler, the system ends the process and its temporary files stay.
pub(crate) fn ignore_file_size_signal() {
    #[cfg(unix)]
    {
        let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
        // Without a handler the program still works.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag);
    }
}

impl Interrupt {
    /// Handles signals from here on; the first one cancels `handle`. SIGHUP stays ignored if it was
    /// ignored at the start, as `nohup` does.
    ///
    /// # Errors
    /// [`Error::Interrupt`] if the system refuses the handlers.
    pub(crate) fn cancelling(handle: CancelHandle) -> Result<Self, Error> {
        let interrupt = Self::default();
        interrupt.cancels(handle);
        interrupt.listen()?;
        Ok(interrupt)
    }

    /// Installs the handlers for an existing value.
    ///
    /// # Errors
    /// As [`cancelling`](Self::cancelling).
    pub(crate) fn listen(&self) -> Result<(), Error> {
        let handled = Signal::ALL.map(Signal::number);
        let kept = if hangup_is_ignored() { 1 } else { 0 };
        let mut signals =
            Signals::new(handled.get(kept..).unwrap_or_default()).map_err(Error::Interrupt)?;
        let interrupt = self.clone();
        let handle = move || {
            for signal in signals.forever().filter_map(Signal::from_number) {
                if interrupt.is_second(signal) {
                    interrupt.state().exit(signal);
                }
                interrupt.receive(signal);
            }
        };
        let thread = thread::Builder::new().name("signals".into());
        thread.spawn(handle).map_err(Error::Interrupt)?;
        Ok(())
    }

    /// Acts as the first signal does: cancels the current work, or ends the program if there is
    /// none.
    pub(crate) fn receive(&self, signal: Signal) {
        let mut state = self.state();
        if state.only_cancels && signal == Signal::Interrupt && state.running.is_none() {
            return;
        }
        state.received.get_or_insert(signal);
        if let Some(work) = &state.on_first {
            return work();
        }
        match &state.running {
            Some(handle) => handle.cancel(),
            None => state.exit(signal),
        }
    }

    /// True if the system sent a signal before this one, which ends the program then. A signal that
    /// [`receive`](Self::receive) takes from the process that started this one may come before the
    /// system's own, and is the same signal.
    fn is_second(&self, signal: Signal) -> bool {
        let mut state = self.state();
        let is_second = std::mem::replace(&mut state.is_signalled, true);
        is_second && !(signal == Signal::Interrupt && state.only_cancels)
    }

    /// Makes Ctrl-C cancel work only: without work, and a second time, it has no effect.
    pub(crate) fn only_cancel(&self) {
        self.state().only_cancels = true;
    }

    /// Makes the first signal call `work`.
    pub(crate) fn on_first(&self, work: impl Fn() + Send + 'static) {
        self.state().on_first = Some(Box::new(work));
    }

    /// Calls `work` before a signal ends the program: with `_exit`, nothing is dropped.
    pub(crate) fn before_exit(&self, work: impl Fn() + Send + 'static) {
        self.state().before_exit = Some(Box::new(work));
    }

    /// Makes signals cancel this work; at once, if one was received before.
    pub(crate) fn cancels(&self, handle: CancelHandle) {
        let mut state = self.state();
        if state.received.is_some() {
            handle.cancel();
        }
        state.running = Some(handle);
    }

    /// Nothing is left to cancel: the next signal ends the program.
    pub(crate) fn cancels_nothing(&self) {
        self.state().running = None;
    }

    /// Forgets Ctrl-C, which has stopped the current work and not the command; true if it was the
    /// signal. Nothing is left to cancel.
    pub(crate) fn take_interrupt(&self) -> bool {
        let mut state = self.state();
        state.running = None;
        let stopped = state.received == Some(Signal::Interrupt);
        if stopped {
            state.received = None;
            state.is_signalled = false;
        }
        stopped
    }

    /// The first signal; `None` if there was none.
    pub(crate) fn signal(&self) -> Option<Signal> {
        self.state().received
    }

    /// The result of a command that a signal may have ended.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a signal.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.signal().map_or(Ok(()), |signal| Err(signal.into()))
    }

    /// The result of work that a signal may have cancelled.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if it was, and the errors of the work.
    pub(crate) fn result<T>(&self, result: openelm_core::Result<T>) -> Result<T, Error> {
        if matches!(result, Err(openelm_core::Error::Cancelled)) {
            self.check()?;
        }
        Ok(result?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn exit(&self, signal: Signal) -> ! {
        if let Some(work) = &self.before_exit {
            work();
        }
        signal_hook::low_level::exit(signal.exit_code().into())
    }
}

/// True if this process ignores SIGHUP. A child process inherits it: a shell that sends the signal
/// to itself then survives. (`std` has no function that reads it.)
fn hangup_is_ignored() -> bool {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -HUP $$"]).stdin(Stdio::null());
    let status = shell.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_exit_codes_of_shells() {
        for (number, code) in [(1, 129), (2, 130), (15, 143)] {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!((signal.number(), signal.exit_code()), (number, code));
            assert_eq!(Signal::from_exit_code(code.into()), Some(signal));
        }
        assert_eq!(Signal::from_exit_code(1), None);
    }

    #[test]
    fn a_forwarded_signal_is_not_the_first_of_two() {
        let interrupt = Interrupt::default();
        interrupt.cancels(CancelHandle::default());
        interrupt.receive(Signal::Terminate);
        assert!(!interrupt.is_second(Signal::Terminate));
        interrupt.receive(Signal::Terminate);
        assert!(interrupt.is_second(Signal::Terminate));
    }

    #[test]
    fn a_conversation_survives_ctrl_c() {
        let interrupt = Interrupt::default();
        interrupt.only_cancel();
        interrupt.receive(Signal::Interrupt);
        assert_eq!(interrupt.signal(), None);
        let work = CancelHandle::default();
        interrupt.cancels(work.clone());
        assert!(!work.is_cancelled());
        interrupt.receive(Signal::Interrupt);
        assert!(work.is_cancelled() && interrupt.take_interrupt());
    }

    #[test]
    fn later_work_is_cancelled_too() {
        let interrupt = Interrupt::default();
        let (first, second) = (CancelHandle::default(), CancelHandle::default());
        interrupt.cancels(first.clone());
        interrupt.receive(Signal::Terminate);
        interrupt.receive(Signal::Interrupt);
        interrupt.cancels(second.clone());
        assert!(first.is_cancelled() && second.is_cancelled());
        assert_eq!(interrupt.signal(), Some(Signal::Terminate));
    }
}
