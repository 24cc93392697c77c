//! Panics of libraries that malformed files cause, turned into errors without a report.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::Once,
};

thread_local! {
    /// True while a panic of this thread is caught here.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` of a library; `None` if it panics. The panic hook does not report that panic.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(without_caught(panic::take_hook()))));
    let outer = CAUGHT.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    CAUGHT.set(outer);
    done
}

/// A panic hook that passes to `report` the panics that are not caught here.
fn without_caught(
    report: impl Fn(&PanicHookInfo<'_>) + Sync + Send,
) -> impl Fn(&PanicHookInfo<'_>) + Sync + Send {
    move |panic| {
        if !CAUGHT.get() {
            report(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn only_other_panics_are_reported() {
        let reports = Arc::new(AtomicUsize::new(0));
        let count = || reports.load(Ordering::Relaxed);
        let own = std::thread::current().id();
        // The hook of this process is set before it is replaced.
        assert_eq!(catch(|| 7), Some(7));
        let before = panic::take_hook();
        let counted = Arc::clone(&reports);
        panic::set_hook(Box::new(without_caught(move |panic| {
            if std::thread::current().id() == own {
                counted.fetch_add(1, Ordering::Relaxed);
            } else {
                before(panic);
            }
        })));
        let nested = catch(|| {
            assert_eq!(catch(|| panic!("inner")), None::<()>);
            panic!("outer");
        });
        assert_eq!(nested, None::<()>);
        assert_eq!(count(), 0);
        assert!(catch_unwind(|| panic!("another")).is_err());
        assert_eq!(count(), 1);
    }
}
