//! Several training processes on this machine: `--processes N` starts them, and stops all of them
//! if one fails, because MLX waits for a lost process without end.

use std::{
    env,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use openelm_core::{CancelHandle, Error as CoreError, train::Group};

use crate::{
    error::Error,
    hosts::{self, Hosts},
    interrupt::{Interrupt, Signal},
    output,
};

/// Set for processes started here: the number of their group.
const STARTED: &str = "OPENELM_STARTED_BY_RANKS";
/// Set for processes that are started again, with other ports, if they cannot connect.
const RETRIED: &str = "OPENELM_RETRIED_BY_RANKS";
/// Exit code of such a process that cannot connect: a temporary failure (`sysexits.h`).
const NO_GROUP: i32 = 75;
/// Exit code of a process that has lost the others: another one has the cause.
pub(crate) const LOST_GROUP: u8 = 76;
/// Attempts to connect the processes.
const ATTEMPTS: usize = 5;
/// Largest number of processes on one machine.
const MOST: usize = 256;
/// Interval at which the processes are checked.
const TICK: Duration = Duration::from_millis(50);

/// Returns whether this process is already part of a group.
pub(crate) fn is_rank() -> bool {
    env::var_os("MLX_RANK").is_some()
}

/// Returns whether [`run`] started this process.
pub(crate) fn is_started() -> bool {
    env::var_os(STARTED).is_some()
}

/// Runs this program `count` times with its own arguments, to train in `folder`.
pub(crate) fn run(count: usize, folder: &Path) -> Result<(), Error> {
    if count > MOST {
        let problem = format!("--processes: expected at most {MOST}, found {count}");
        return Err(Error::Usage(problem));
    }
    let interrupt = Interrupt::cancelling(CancelHandle::default())?;
    for left in (0..ATTEMPTS).rev() {
        let hosts = Hosts::new(count, folder)?;
        let ranks = Ranks::start(count, &hosts, left > 0)?;
        match ranks.wait(&interrupt) {
            Ended::NotConnected => {}
            Ended::Complete => return Ok(()),
            Ended::Interrupted(signal) => return Err(signal.into()),
            Ended::Failed { rank, status, text } => {
                text.lines().for_each(output::note);
                return Err(failed((rank, count), status, folder));
            }
        }
    }
    Err(Error::Usage(format!(
        "--processes: the {count} processes could not connect"
    )))
}

fn failed((rank, count): (usize, usize), status: ExitStatus, folder: &Path) -> Error {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    // A resumed run would have the same error as a process that printed one.
    let is_lost = code.is_none_or(|code| code == LOST_GROUP);
    let advice = if is_lost && folder.join("training_state.safetensors").is_file() {
        "; continue from the last checkpoint with --resume"
    } else {
        ""
    };
    let code = code.map(|code| if code == LOST_GROUP { 1 } else { code });
    Error::Rank {
        problem: format!(
            "rank {rank} of {count} ended early ({status}); the other ranks were stopped{advice}"
        ),
        code: code.unwrap_or(1),
    }
}

/// In a process that [`run`] started: ends it when the starting process ends, and forwards the
/// signals of the starting process.
pub(crate) fn follow_starter(interrupt: &Interrupt) {
    if !is_started() {
        return;
    }
    let interrupt = interrupt.clone();
    thread::spawn(move || {
        let mut number = [0];
        // Ends when the other end of the pipe closes, however its owner ended.
        while matches!(io::stdin().read(&mut number), Ok(1..)) {
            if let Some(signal) = Signal::from_number(number[0].into()) {
                interrupt.receive(signal);
            }
        }
        signal_hook::low_level::exit(1);
    });
}

/// The process group, if the environment names one. `lost` is called on a separate thread if the
/// other processes do not respond for `patience`. A process that [`run`] starts again if it cannot
/// connect, or if it has connected to another group, ends here.
pub(crate) fn join_group(
    patience: Duration,
    lost: impl Fn() + Send + 'static,
) -> Result<Option<Group>, Error> {
    let group = Group::from_environment(patience, lost).and_then(|group| {
        let Some(group) = group else {
            return Ok(None);
        };
        let own = env::var(STARTED).unwrap_or_default();
        if group.from_first(own.as_bytes())? != own.as_bytes() {
            return Err(CoreError::Group {
                problem: "its ports are in use by another group".into(),
            });
        }
        // All processes have read the file.
        if let Some(path) = env::var_os("MLX_HOSTFILE").filter(|_| is_started()) {
            hosts::remove(Path::new(&path));
        }
        Ok(Some(group))
    });
    if matches!(group, Err(CoreError::Group { .. })) && env::var_os(RETRIED).is_some() {
        signal_hook::low_level::exit(NO_GROUP);
    }
    Ok(group?)
}

/// The started processes.
struct Ranks {
    children: Vec<Child>,
    /// Standard error of all but rank 0.
    outputs: Vec<Option<JoinHandle<String>>>,
    /// The signal that was forwarded to the processes.
    forwarded: Option<Signal>,
}

/// The end of all processes.
enum Ended {
    Complete,
    Interrupted(Signal),
    /// They could not connect, and can be started again.
    NotConnected,
    /// The process that failed first, and its messages.
    Failed {
        rank: usize,
        status: ExitStatus,
        text: String,
    },
}

impl Ranks {
    fn start(count: usize, hosts: &Hosts, is_retried: bool) -> Result<Self, Error> {
        let program = env::current_exe().map_err(|e| Error::Usage(format!("--processes: {e}")))?;
        let mut ranks = Self {
            children: Vec::with_capacity(count),
            outputs: Vec::with_capacity(count),
            forwarded: None,
        };
        for rank in 0..count {
            let mut command = Command::new(&program);
            command
                .args(env::args_os().skip(1))
                .env("MLX_RANK", rank.to_string())
                .env("MLX_HOSTFILE", hosts.path())
                .env(STARTED, format!("{:016x}", hosts.group))
                .stdin(Stdio::piped());
            if is_retried {
                command.env(RETRIED, "1");
            }
            if env::var_os("OPENBLAS_NUM_THREADS").is_none() {
                let cores = thread::available_parallelism().map_or(1, usize::from);
                command.env("OPENBLAS_NUM_THREADS", (cores / count).max(1).to_string());
            }
            // All ranks print the same lines: only rank 0's output is shown live.
            if rank > 0 {
                command.stdout(Stdio::null()).stderr(Stdio::piped());
            }
            match command.spawn() {
                Ok(mut child) => {
                    ranks.outputs.push(child.stderr.take().map(collect));
                    ranks.children.push(child);
                }
                Err(error) => {
                    ranks.stop();
                    return Err(Error::Usage(format!("--processes: rank {rank}: {error}")));
                }
            }
        }
        Ok(ranks)
    }

    /// Waits for the end of all processes. If one fails, the others are stopped; if one is
    /// interrupted, so are the others, and they end together once rank 0 has saved.
    fn wait(mut self, interrupt: &Interrupt) -> Ended {
        loop {
            if let Some(signal) = interrupt.signal() {
                self.forward(signal);
            }
            let statuses = self.statuses();
            let ended = statuses.iter().flatten();
            if let Some(signal) = ended.clone().find_map(|status| signal_of(*status)) {
                self.forward(signal);
            }
            if ended.clone().any(|status| is_failure(*status)) {
                // Another process may have failed first, and this one because of it.
                thread::sleep(TICK);
                let statuses = self.statuses();
                self.stop();
                return self.failure(&statuses);
            }
            if statuses.iter().all(Option::is_some) {
                let signals = || ended.clone().filter_map(|status| signal_of(*status));
                // A process that another one ended reports Ctrl-C.
                let own = signals().find(|signal| *signal != Signal::Interrupt);
                let signal = interrupt.signal().or(own).or_else(|| signals().next());
                return signal.map_or(Ended::Complete, Ended::Interrupted);
            }
            thread::sleep(TICK);
        }
    }

    fn statuses(&mut self) -> Vec<Option<ExitStatus>> {
        let children = self.children.iter_mut();
        // `Child::wait` would close its standard input, which ends it at once.
        children
            .map(|child| child.try_wait().ok().flatten())
            .collect()
    }

    /// Sends the first signal to all processes.
    fn forward(&mut self, signal: Signal) {
        if self.forwarded.is_some() {
            return;
        }
        self.forwarded = Some(signal);
        let number = u8::try_from(signal.number()).unwrap_or_default();
        let inputs = self.children.iter_mut().map(|child| &mut child.stdin);
        for stdin in inputs.flatten() {
            // Fails for a process that has ended.
            let _ = stdin.write_all(&[number]).and_then(|()| stdin.flush());
        }
    }

    /// The first failure of `statuses`: a killed process comes before the processes that fail
    /// because of it.
    fn failure(&mut self, statuses: &[Option<ExitStatus>]) -> Ended {
        let ended = statuses.iter().enumerate();
        let ended = ended.filter_map(|(rank, status)| Some((rank, (*status)?)));
        let failures = ended.filter(|(_, status)| is_failure(*status));
        let order = |(rank, status): &(usize, ExitStatus)| {
            (
                status.code().is_some(),
                status.code() == Some(NO_GROUP),
                status.code() == Some(LOST_GROUP.into()),
                *rank,
            )
        };
        let Some((rank, status)) = failures.min_by_key(order) else {
            return Ended::Complete;
        };
        if status.code() == Some(NO_GROUP) {
            return match self.forwarded {
                Some(signal) => Ended::Interrupted(signal),
                None => Ended::NotConnected,
            };
        }
        let output = self.outputs.get_mut(rank).and_then(Option::take);
        let text = output.and_then(|output| output.join().ok());
        Ended::Failed {
            rank,
            status,
            text: text.unwrap_or_default(),
        }
    }

    fn stop(&mut self) {
        // Leave time for a process's last message.
        for _ in 0..20 {
            if self.statuses().iter().all(Option::is_some) {
                return;
            }
            thread::sleep(TICK);
        }
        for child in &mut self.children {
            // Fails for a process that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// True for a failure, which an interrupted process is not.
fn is_failure(status: ExitStatus) -> bool {
    !status.success() && signal_of(status).is_none()
}

/// The signal that interrupted a process, before or after it handled signals.
fn signal_of(status: ExitStatus) -> Option<Signal> {
    let code = status.code().and_then(Signal::from_exit_code);
    code.or_else(|| Signal::from_number(status.signal()?))
}

/// Reads a process's standard error, so that the pipe never fills.
fn collect(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // Partial output is kept if reading fails.
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}
