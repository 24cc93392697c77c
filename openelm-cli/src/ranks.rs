//! Several training processes on this machine: `--processes N` starts them, and stops all of them
//! if one fails, because MLX waits for a lost process without end.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{error::Error, interrupt::Interrupt, output};

/// Set for processes started here: they end when the starting process ends.
const STARTED: &str = "OPENELM_STARTED_BY_RANKS";
/// Interval at which the processes are checked.
const TICK: Duration = Duration::from_millis(50);

/// Returns whether this process is already part of a group.
pub(crate) fn is_rank() -> bool {
    env::var_os("MLX_RANK").is_some()
}

/// Runs this program `count` times with its own arguments.
pub(crate) fn run(count: usize, resumable: &Path) -> Result<(), Error> {
    let program = env::current_exe().map_err(|e| Error::Usage(format!("--processes: {e}")))?;
    let hosts = Hosts::new(count)?;
    let interrupt = Interrupt::install()?;
    let mut children = Vec::with_capacity(count);
    let mut outputs = Vec::with_capacity(count);
    for rank in 0..count {
        let mut command = Command::new(&program);
        command
            .args(env::args_os().skip(1))
            .env("MLX_RANK", rank.to_string())
            .env("MLX_HOSTFILE", &hosts.path)
            .env(STARTED, "1")
            .stdin(Stdio::piped());
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
                outputs.push(child.stderr.take().map(collect));
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
        // All ranks end together, once rank 0 has saved. `Child::wait` would close its standard
        // input, which ends it at once.
        while !all_ended(&mut children) {
            thread::sleep(TICK);
        }
    }
    stop(&mut children);
    match failed {
        _ if interrupt.was_pressed() => Err(Error::Interrupted),
        None => Ok(()),
        Some((rank, status)) => {
            if let Some(Some(output)) = outputs.into_iter().nth(rank)
                && let Ok(text) = output.join()
            {
                text.lines().for_each(output::note);
            }
            let saved = resumable.join("training_state.safetensors").is_file();
            let advice = if saved {
                "; continue from the last checkpoint with --resume"
            } else {
                ""
            };
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Err(Error::Rank {
                problem: format!(
                    "rank {rank} of {count} ended early ({status}); the other ranks were \
                     stopped{advice}"
                ),
                code: code.unwrap_or(1),
            })
        }
    }
}

/// In a process that [`run`] started: ends it when the starting process ends, and interrupts it
/// when the starting process is interrupted.
pub(crate) fn follow_starter(interrupt: &Interrupt) {
    if env::var_os(STARTED).is_none() {
        return;
    }
    let interrupt = interrupt.clone();
    thread::spawn(move || {
        let mut one = [0];
        // Ends when the other end of the pipe closes, however its owner ended.
        while matches!(io::stdin().read(&mut one), Ok(1..)) {
            interrupt.press();
        }
        signal_hook::low_level::exit(1);
    });
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

/// Waits for the processes. Returns the first one that failed; `None` if all succeeded. A killed
/// process comes before the processes that fail because of it.
fn watch(children: &mut [Child], interrupt: &Interrupt) -> Option<(usize, ExitStatus)> {
    let mut interrupted = false;
    loop {
        if interrupt.was_pressed() && !interrupted {
            interrupted = true;
            for child in children.iter_mut() {
                if let Some(stdin) = &mut child.stdin {
                    // Fails for a process that has ended.
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

fn all_ended(children: &mut [Child]) -> bool {
    let mut children = children.iter_mut();
    children.all(|child| matches!(child.try_wait(), Ok(Some(_))))
}

fn stop(children: &mut [Child]) {
    // Leave time for a process's last message.
    for _ in 0..20 {
        if all_ended(children) {
            return;
        }
        thread::sleep(TICK);
    }
    for child in children {
        // Fails for a process that has ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A file with the addresses of the ranks, deleted on drop. It is locked, so that the files of
/// killed processes are recognised.
struct Hosts {
    path: PathBuf,
    _file: File,
}

/// Start of the file's name.
const HOSTS: &str = "openelm-ranks-";
/// Age of a file that its process has locked.
const STARTED_BEFORE: Duration = Duration::from_secs(60);

impl Hosts {
    fn new(count: usize) -> Result<Self, Error> {
        let problem = |error: io::Error| Error::Usage(format!("--processes: {error}"));
        // All listeners are open at the same time, so that their ports differ.
        let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listeners = listeners.collect::<Result<Vec<_>, _>>().map_err(problem)?;
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().map(|a| vec![a.to_string()]));
        let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(problem)?;
        remove_left_hosts(&env::temp_dir());
        let path = env::temp_dir().join(format!("{HOSTS}{}.json", std::process::id()));
        // A link or file of that name is not written to.
        let _ = fs::remove_file(&path);
        let mut file = File::create_new(&path).map_err(problem)?;
        let _ = file.try_lock();
        file.write_all(serde_json::json!(addresses).to_string().as_bytes())
            .map_err(problem)?;
        Ok(Self { path, _file: file })
    }
}

/// Removes the files of killed processes from `folder`.
fn remove_left_hosts(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix(HOSTS));
        let id = name.and_then(|name| name.strip_suffix(".json"));
        let is_hosts = id.is_some_and(|id| id.parse::<u32>().is_ok());
        let changed = entry.metadata().and_then(|found| found.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if is_hosts
            && age.is_some_and(|age| age > STARTED_BEFORE)
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            // Another user's file stays.
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            output::note(&format!("{}: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openelm_testing::TempDir;

    #[test]
    fn hosts_of_killed_processes_are_removed() {
        let folder = TempDir::new();
        let old = std::time::SystemTime::now() - 2 * STARTED_BEFORE;
        for name in ["1", "2", "3", "x"] {
            let path = folder.write(&format!("{HOSTS}{name}.json"), "[]");
            if name != "3" {
                let file = File::options().write(true).open(path).unwrap();
                file.set_modified(old).unwrap();
            }
        }
        let held = File::open(folder.join("openelm-ranks-2.json")).unwrap();
        held.try_lock().unwrap();
        remove_left_hosts(&folder);
        let kept = ["2", "3", "x"].map(|name| format!("{HOSTS}{name}.json"));
        assert_eq!(folder.names(), kept);
    }
}
