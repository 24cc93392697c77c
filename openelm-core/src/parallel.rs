//! Parallel map of one function over many rows, on all cores.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::error::Result;

/// The results in the order of `items`, or the error of the first item in this order that fails.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    function: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    map_on(threads.min(items.len()), items, function)
}

fn map_on<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    function: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    // Items start in order, so all items before a failed one have started, and finish.
    let failed = AtomicBool::new(false);
    let finished = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        let mut mine = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = function(item);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            mine.push((index, result));
        }
        let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.append(&mut mine);
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut finished = finished
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    finished.sort_unstable_by_key(|(index, _)| *index);
    finished.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<u32> = (0..1_000).collect();
        for threads in [0, 1, 2, 7] {
            let doubled = map_on(threads, &items, |item| Ok(item * 2)).unwrap();
            assert_eq!(
                doubled,
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
        assert!(map(&[], |item: &u32| Ok(*item)).unwrap().is_empty());
    }

    #[test]
    fn reports_the_first_failing_item() {
        let items: Vec<usize> = (0..1_000).collect();
        for _ in 0..20 {
            let error = map_on(4, &items, |&item| {
                if item < 300 || item % 7 > 0 {
                    return Ok(item);
                }
                Err(Error::Data {
                    path: "a".into(),
                    line: Some(item),
                    problem: "bad".to_owned(),
                })
            });
            assert_eq!(error.unwrap_err().to_string(), "a:301: bad");
        }
    }
}
