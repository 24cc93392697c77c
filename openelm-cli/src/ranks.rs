//! Several processes that train together on this machine: `--processes N` starts them and ends all when
//! one ends badly. MLX's own wait for one that is gone would have no end.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{error::Error, interrupt::Interrupt, output};

/// Set for a process that was started here: it ends when whoever started it is gone.
const STARTED: &str = "OPENELM_STARTED_BY_RANKS";
/// How often the processes are looked after.
const TICK: Duration = Duration::from_millis(50);

/// Whether this process is one of a group already.
pub(crate) fn is_rank() -> bool {
    env::var_os("MLX_RANK").is_some()
}

/// Runs this program `count` times with the arguments that it was given.
pub(crate) fn run(count: usize, resumable: &Path) -> Result<(), Error> {
    let program = env::current_exe().map_err(|e| Error::Usage(format!("--processes: {e}")))?;
    let hosts = Hosts::new(count)?;
    let interrupt = Interrupt::install()?;
    let mut children = Vec::with_capacity(count);
    let mut told = Vec::with_capacity(count);
    for rank in 0..count {
        let mut command = Command::new(&program);
        command
            .args(env::args_os().skip(1))
            .env("MLX_RANK", rank.to_string())
            .env("MLX_HOSTFILE", &hosts.0)
            .env(STARTED, "1")
            .stdin(Stdio::piped());
        if env::var_os("OPENBLAS_NUM_THREADS").is_none() {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            command.env("OPENBLAS_NUM_THREADS", (cores / count).max(1).to_string());
        }
        // Of what all say alike once is enough: the first's is shown as it comes.
        if rank > 0 {
            command.stdout(Stdio::null()).stderr(Stdio::piped());
        }
        match command.spawn() {
            Ok(mut child) => {
                told.push(child.stderr.take().map(collect));
                children.push(child);
            }
            Err(error) => {
                stop(&mut children);
                return Err(Error::Usage(format!("--processes: rank {rank}: {error}")));
            }
        }
    }
    let failed = watch(&mut children, &interrupt);
    if interrupt.was_pressed() {
        // They end together, the first of them once it has saved.
        for child in &mut children {
            let _ = child.wait();
        }
    }
    stop(&mut children);
    match failed {
        _ if interrupt.was_pressed() => Err(Error::Interrupted),
        None => Ok(()),
        Some((rank, status)) => {
            if let Some(Some(told)) = told.into_iter().nth(rank)
                && let Ok(text) = told.join()
            {
                text.lines().for_each(output::tell);
            }
            let saved = resumable.join("training_state.safetensors").is_file();
            let advice = if saved {
                "; --resume goes on from the last save"
            } else {
                ""
            };
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Err(Error::Rank {
                problem: format!(
                    "rank {rank} of {count} ended early ({status}); the others were stopped{advice}"
                ),
                code: code.unwrap_or(1),
            })
        }
    }
}

/// In a process that [`run`] started: ends it when the one that did is gone, and interrupts it when
/// that one was interrupted.
pub(crate) fn follow_starter(interrupt: &Interrupt) {
    if env::var_os(STARTED).is_none() {
        return;
    }
    let interrupt = interrupt.clone();
    thread::spawn(move || {
        let mut one = [0];
        // Ends when the other end of the pipe is closed, by whatever ended its owner.
        while matches!(io::stdin().read(&mut one), Ok(1..)) {
            interrupt.press();
        }
        signal_hook::low_level::exit(1);
    });
}

/// Reads what a process tells, so that it never waits for a reader.
fn collect(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // Half of it is better than nothing.
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// The process that failed, once one does; `None` when all have ended well. One that was killed
/// takes others along, which notice that it is gone: the cause is the former.
fn watch(children: &mut [Child], interrupt: &Interrupt) -> Option<(usize, ExitStatus)> {
    let mut interrupted = false;
    loop {
        if interrupt.was_pressed() && !interrupted {
            interrupted = true;
            for child in children.iter_mut() {
                if let Some(stdin) = &mut child.stdin {
                    // One that has ended needs not be told.
                    let _ = stdin.write_all(b"!").and_then(|()| stdin.flush());
                }
            }
        }
        let mut running = false;
        let mut failed = false;
        for child in children.iter_mut() {
            match child.try_wait() {
                Ok(Some(status)) => failed |= !status.success(),
                _ => running = true,
            }
        }
        if !failed && !running {
            return None;
        }
        thread::sleep(TICK);
        if failed {
            let ended = children.iter_mut().map(Child::try_wait).enumerate();
            let failed = ended.filter_map(|(rank, status)| Some((rank, status.ok()??)));
            let failed = failed.filter(|(_, status)| !status.success());
            return failed.min_by_key(|(rank, status)| (status.code().is_some(), *rank));
        }
    }
}

fn stop(children: &mut [Child]) {
    // One that noticed may be about to say so.
    for _ in 0..20 {
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if children.iter_mut().all(ended) {
            return;
        }
        thread::sleep(TICK);
    }
    for child in children {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A file with the addresses of the ranks, deleted at the end.
struct Hosts(std::path::PathBuf);

impl Hosts {
    fn new(count: usize) -> Result<Self, Error> {
        let problem = |error: io::Error| Error::Usage(format!("--processes: {error}"));
        // All are open at once, so that all differ.
        let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listeners = listeners.collect::<Result<Vec<_>, _>>().map_err(problem)?;
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().map(|a| vec![a.to_string()]));
        let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(problem)?;
        let name = format!("openelm-ranks-{}.json", std::process::id());
        let hosts = Self(env::temp_dir().join(name));
        fs::write(&hosts.0, serde_json::json!(addresses).to_string()).map_err(problem)?;
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            output::tell(&format!("{}: {error}", self.0.display()));
        }
    }
}
