//! Several processes that train together on this machine: `--ranks N` starts them and ends all when
//! one ends badly. MLX's own wait for one that is gone would have no end.

use std::{
    env, fs,
    io::{self, Read},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
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
    let program = env::current_exe().map_err(|e| Error::Usage(format!("ranks: {e}")))?;
    let hosts = Hosts::new(count)?;
    let interrupt = Interrupt::install()?;
    let mut children = Vec::with_capacity(count);
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
        match command.spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                stop(&mut children);
                return Err(Error::Usage(format!("ranks: rank {rank}: {error}")));
            }
        }
    }
    let failed = watch(&mut children);
    stop(&mut children);
    match failed {
        None => Ok(()),
        Some(_) if interrupt.was_pressed() => Err(Error::Interrupted),
        Some((rank, status)) => {
            let saved = resumable.join("training_state.safetensors").is_file();
            let advice = match saved {
                true => "; --resume goes on from the last save",
                false => "",
            };
            Err(Error::Usage(format!(
                "rank {rank} of {count} ended early ({status}); the others were stopped{advice}"
            )))
        }
    }
}

/// In a process that [`run`] started: ends it when the one that did is gone.
pub(crate) fn end_with_starter() {
    if env::var_os(STARTED).is_none() {
        return;
    }
    thread::spawn(|| {
        let mut nothing = [0];
        // Ends when the other end of the pipe is closed, by whatever ended its owner.
        while matches!(io::stdin().read(&mut nothing), Ok(1..)) {}
        signal_hook::low_level::exit(1);
    });
}

/// The first process that fails, once it does; `None` when all have ended well.
fn watch(children: &mut [Child]) -> Option<(usize, ExitStatus)> {
    loop {
        let mut running = false;
        for (rank, child) in children.iter_mut().enumerate() {
            match child.try_wait() {
                Ok(Some(status)) if !status.success() => return Some((rank, status)),
                Ok(Some(_)) => {}
                _ => running = true,
            }
        }
        if !running {
            return None;
        }
        thread::sleep(TICK);
    }
}

fn stop(children: &mut [Child]) {
    // One that was interrupted may be about to say so and save.
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
        let problem = |error: io::Error| Error::Usage(format!("ranks: {error}"));
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
