//! The log of the server, on standard error.
//!
//! A thread writes it, so that a reader that is slow or has stopped cannot block a request. Lines
//! that the thread does not get to are dropped, and their number is logged.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

/// Lines that wait to be written.
const MAX_WAITING: usize = 1024;
/// Longest time that the end of the program waits for the lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lowest level of the log.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

/// The log. Its lines are written before it is dropped, if they can be in a second.
pub(crate) struct Log {
    lines: SyncSender<Message>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Sends lines to the thread.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Writes the log to standard error from here on.
    pub(crate) fn start(level: LogLevel) -> io::Result<Self> {
        let level = match level {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        let lines = Lines::to(io::stderr())?;
        let log = Self {
            lines: lines.sender.clone(),
        };
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(lines)
            .with_ansi(false)
            .with_target(false)
            // Its report would panic where standard error is closed.
            .log_internal_errors(false)
            .init();
        Ok(log)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Lines {
    /// Starts the thread that writes to `output`.
    fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let lines = Self {
            sender,
            dropped: Arc::clone(&dropped),
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&receiver, output, &dropped))?;
        Ok(lines)
    }
}

fn write_all(receiver: &Receiver<Message>, mut output: impl Write, dropped: &AtomicU64) {
    for message in receiver {
        match message {
            // Standard error may be closed; the next line may find it open.
            Message::Line(line) => drop(output.write_all(&line)),
            Message::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(output, "{lost} lines of the log were dropped");
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.sender.try_send(Message::Line(line.to_owned())) {
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc::channel};

    use super::*;

    /// Output that is written when the test permits it.
    struct Gated {
        gate: Receiver<()>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            self.text.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_costs_lines_and_no_time() {
        let (open, gate) = channel();
        let text = Arc::new(Mutex::new(Vec::new()));
        let output = Gated {
            gate,
            text: Arc::clone(&text),
        };
        let mut lines = Lines::to(output).unwrap();
        for index in 0..2 * MAX_WAITING {
            let line = format!("line {index}\n");
            lines.write_all(line.as_bytes()).unwrap();
        }
        drop(open);
        let log = Log {
            lines: lines.sender.clone(),
        };
        // A queue that is full takes no request to flush.
        while !matches!(
            lines.sender.try_send(Message::Line(b"end\n".to_vec())),
            Ok(())
        ) {
            thread::yield_now();
        }
        while lines.dropped.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        drop(log);
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        let written: Vec<&str> = text.lines().collect();
        assert_eq!(written[0], "line 0");
        let lost = written
            .iter()
            .find(|line| line.contains("dropped"))
            .unwrap();
        let lost: usize = lost.split(' ').next().unwrap().parse().unwrap();
        let whole = written.iter().filter(|line| line.starts_with("line "));
        assert_eq!(whole.count() + lost, 2 * MAX_WAITING);
        assert!(lost >= MAX_WAITING - 1, "{lost}");
    }
}
