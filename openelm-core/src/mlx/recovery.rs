//! Recovery from failed work on the device.
//!
//! On a GPU, the error of a failed command buffer is reported twice: by the arrays that wait for it,
//! and by the next operation of the stream, which may belong to another request.

use super::{compiler_failed, runtime};
use crate::error::{ErrorKind, Result};

/// Runs `work` on the device. If MLX fails, its remaining report is dropped, so that the next work
/// of this thread does not fail with it. After a failure of a compiler the next work does without
/// it.
pub(crate) fn recovering<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = faults::report().and_then(|()| work());
    if let Err(error) = &result
        && error.kind() == ErrorKind::Device
    {
        compiler_failed(error);
        // The first call reports the error; the second one waits for what is left.
        if runtime::synchronize().is_err() {
            let _ = runtime::synchronize();
        }
    }
    result
}

#[cfg(not(any(test, feature = "inject-faults")))]
pub(super) mod faults {
    use crate::error::Result;

    /// No failure is injected.
    #[allow(clippy::unnecessary_wraps, reason = "same signature as in tests")]
    pub(crate) fn report() -> Result<()> {
        Ok(())
    }
}

/// Failures of the device that tests inject.
#[cfg(any(test, feature = "inject-faults"))]
pub(crate) mod faults {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicU64, Ordering},
        thread,
        time::Duration,
    };

    use crate::error::Result;

    /// Milliseconds.
    static DELAY: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static PENDING: Cell<usize> = const { Cell::new(0) };
    }

    /// Makes the next `reports` operations of this thread fail, as a failed command buffer does.
    #[cfg_attr(
        not(feature = "inject-faults"),
        allow(unreachable_pub, reason = "only the feature exports it")
    )]
    pub fn inject(reports: usize) {
        PENDING.set(reports);
    }

    /// Makes each operation of every thread take `time` longer, as on a slow device.
    #[cfg_attr(
        not(feature = "inject-faults"),
        allow(dead_code, unreachable_pub, reason = "only the feature exports it")
    )]
    pub fn delay(time: Duration) {
        DELAY.store(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Takes the delay, and fails if a failure is pending.
    pub(crate) fn report() -> Result<()> {
        thread::sleep(Duration::from_millis(DELAY.load(Ordering::SeqCst)));
        match PENDING.get() {
            0 => Ok(()),
            pending => {
                PENDING.set(pending - 1);
                Err(mlx_rs::error::Exception::custom("[METAL] command buffer failed").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn failed_work_leaves_nothing_to_the_next() {
        // The error is reported to the work, and left for one or two further operations.
        for left in [0, 1, 2] {
            let failed: Result<()> = recovering(|| {
                faults::inject(1 + left);
                faults::report()
            });
            assert!(matches!(failed, Err(Error::Mlx(_))), "{left} left");
            assert_eq!(recovering(|| Ok(7)).unwrap(), 7, "{left} left");
        }
    }

    #[test]
    fn other_errors_do_not_wait_for_the_device() {
        faults::inject(0);
        let cancelled: Result<()> = recovering(|| {
            faults::inject(1);
            Err(Error::Cancelled)
        });
        assert!(matches!(cancelled, Err(Error::Cancelled)));
        assert!(
            faults::report().is_err(),
            "the pending failure was consumed"
        );
    }
}
