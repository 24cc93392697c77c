//! A group of processes that train one model with MLX's distributed engine (`mlx.launch`, the ring
//! backend). The environment gives each process its rank, `MLX_RANK`, and for the ring
//! `MLX_HOSTFILE`, a JSON list of every rank's addresses.
//!
//! MLX waits without limit for a process that has ended. So a caller passes a function that runs if
//! the other processes do not respond for some time: usually it reports this and exits.

use std::{
    env, fmt,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use mlx_rs::Array;

use crate::{
    error::{Error, Result, mlx_reason},
    mlx::ProcessGroup,
};

/// Interval of the timeout checks.
const TICK: Duration = Duration::from_millis(100);

/// The processes that train together, and the rank of this one. Belongs to the thread that made
/// it.
#[derive(Debug)]
pub struct Group {
    processes: ProcessGroup,
    rank: usize,
    size: usize,
    watch: Watch,
}

impl Group {
    /// Joins the group that the environment describes; `None` without a description or for a group
    /// of one. If the other processes do not respond for `patience`, at the start or later, `lost`
    /// is called on a separate thread: MLX's wait cannot be cancelled, except by exiting.
    ///
    /// # Errors
    /// [`Error::Option`] if the environment is malformed, [`Error::Group`] if the other processes
    /// cannot be reached.
    pub fn from_environment(
        patience: Duration,
        lost: impl Fn() + Send + 'static,
    ) -> Result<Option<Self>> {
        let Ok(rank) = env::var("MLX_RANK") else {
            return Ok(None);
        };
        if rank.parse::<u32>().is_err() {
            return Err(Error::Option {
                option: "MLX_RANK",
                problem: format!("expected a number from 0 on, found {rank:?}"),
            });
        }
        let watch = Watch::start(patience, lost)?;
        let processes = watch.during(ProcessGroup::join).map_err(lost_connection)?;
        let (rank, size) = (processes.rank(), processes.size());
        if size == 1 {
            return Ok(None);
        }
        Ok(Some(Self {
            processes,
            rank,
            size,
            watch,
        }))
    }

    /// The rank of this process, from 0. Rank 0 saves.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes, 2 or more.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The sum of `x` over all processes, which must have one shape and type: bit-identical in each
    /// process. Waits for the other processes.
    ///
    /// # Errors
    /// [`Error::Group`] if another process has ended, [`Error::Mlx`] if `x` cannot be computed.
    pub fn all_sum(&self, x: &Array) -> Result<Array> {
        self.with_others(x, ProcessGroup::all_sum)
    }

    /// The arrays `x` of all processes, which must have one shape and type, in the order of the
    /// ranks: `[n, ...]` to `[size * n, ...]`. Waits for the other processes.
    ///
    /// # Errors
    /// As [`all_sum`](Self::all_sum).
    pub(super) fn all_gather(&self, x: &Array) -> Result<Array> {
        self.with_others(x, ProcessGroup::all_gather)
    }

    fn with_others(
        &self,
        x: &Array,
        operation: fn(&ProcessGroup, &Array) -> Result<Array>,
    ) -> Result<Array> {
        // The timeout must not include this process's own computation.
        x.eval()?;
        let result = self.watch.during(|| {
            let result = operation(&self.processes, x)?;
            result.eval()?;
            Ok(result)
        });
        result.map_err(lost_connection)
    }

    /// Replaces `numbers` by their sums over the processes. Waits for the other processes.
    ///
    /// # Errors
    /// As [`all_sum`](Self::all_sum).
    pub(crate) fn sum_numbers<const N: usize>(&self, numbers: &mut [f32; N]) -> Result<()> {
        let sums = self.all_sum(&Array::from_slice(&numbers[..], &[N as i32]))?;
        let sums = sums.to_vec_exact::<f32>()?;
        *numbers = sums.try_into().map_err(|sums: Vec<f32>| Error::Group {
            problem: format!("expected {N} sums, found {}", sums.len()),
        })?;
        Ok(())
    }

    /// True if `yes` is true in any process. Waits for the other processes.
    ///
    /// # Errors
    /// As [`all_sum`](Self::all_sum).
    pub fn any(&self, yes: bool) -> Result<bool> {
        let mut count = [f32::from(u8::from(yes))];
        self.sum_numbers(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// The counters of rank 0; those of other ranks are ignored.
    ///
    /// # Errors
    /// As [`all_sum`](Self::all_sum).
    pub(super) fn counters_from_first(&self, counters: [u64; 2]) -> Result<[u64; 2]> {
        let bytes = self.from_first(&counters.map(u64::to_le_bytes).concat())?;
        let (chunks, _) = bytes.as_chunks::<8>();
        let counters: Vec<u64> = chunks.iter().copied().map(u64::from_le_bytes).collect();
        counters.try_into().map_err(|_| Error::Group {
            problem: "rank 0 sent no counters".into(),
        })
    }

    /// Returns the `bytes` of rank 0; the bytes of other ranks are ignored.
    ///
    /// # Errors
    /// As [`all_sum`](Self::all_sum).
    pub fn from_first(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.from_rank(0, bytes)
    }

    /// Returns the `bytes` of `rank`; the bytes of other ranks are ignored.
    ///
    /// # Errors
    /// As [`all_sum`](Self::all_sum).
    pub fn from_rank(&self, rank: usize, bytes: &[u8]) -> Result<Vec<u8>> {
        let own = if self.rank == rank { bytes } else { &[] };
        let length = Array::from_slice(&[own.len() as u32], &[1]);
        let length = self.all_sum(&length)?.to_vec_exact::<u32>()?;
        let length = length.first().copied().unwrap_or_default() as usize;
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut padded = own.to_vec();
        padded.resize(length, 0);
        let shared = self.all_sum(&Array::from_slice(&padded, &[length as i32]))?;
        Ok(shared.to_vec_exact::<u8>()?)
    }
}

/// MLX's reason as a problem of the group.
fn lost_connection(error: Error) -> Error {
    let Error::Mlx(exception) = &error else {
        return error;
    };
    Error::Group {
        problem: mlx_reason::reason(exception),
    }
}

/// A thread that calls `lost` if an operation exceeds its time limit.
struct Watch {
    /// Start time of the operation in progress.
    since: Arc<Mutex<Option<Instant>>>,
}

impl Watch {
    fn start(patience: Duration, lost: impl Fn() + Send + 'static) -> Result<Self> {
        let since = Arc::new(Mutex::new(None::<Instant>));
        let watched = Arc::downgrade(&since);
        let look = move || {
            while let Some(since) = watched.upgrade() {
                let begun = since.lock().ok().and_then(|since| *since);
                if begun.is_some_and(|begun| begun.elapsed() > patience) {
                    lost();
                    return;
                }
                drop(since);
                thread::sleep(TICK);
            }
        };
        let thread = thread::Builder::new().name("group watch".into());
        thread.spawn(look).map_err(Error::io("group watch"))?;
        Ok(Self { since })
    }

    fn during<T>(&self, wait: impl FnOnce() -> Result<T>) -> Result<T> {
        self.set(Some(Instant::now()));
        let result = wait();
        self.set(None);
        result
    }

    fn set(&self, value: Option<Instant>) {
        if let Ok(mut since) = self.since.lock() {
            *since = value;
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn reports_timeouts_only() {
        let called = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&called);
        let patience = Duration::from_millis(300);
        let watch = Watch::start(patience, move || lost.store(true, Ordering::SeqCst)).unwrap();
        for _ in 0..5 {
            watch
                .during(|| {
                    thread::sleep(Duration::from_millis(100));
                    Ok(())
                })
                .unwrap();
        }
        assert!(!called.load(Ordering::SeqCst));
        watch
            .during(|| {
                thread::sleep(Duration::from_millis(700));
                Ok(())
            })
            .unwrap();
        assert!(called.load(Ordering::SeqCst));
    }
}
