//! Requests that join and are cancelled at random.

use std::time::{Duration, Instant};

use openelm_core::{
    engine::{EventReceiver, ModelHandle},
    generation::{Event, FinishReason},
    memory,
};

use super::{load, options};

/// A request in progress.
struct Request {
    events: EventReceiver<Event>,
    started: Instant,
    tokens: usize,
    wanted: usize,
    /// Cancelled after this many tokens.
    cancel_after: Option<usize>,
}

/// Counts of ended requests, and the longest wait for an event.
#[derive(Debug, Default)]
struct Seen {
    finished: usize,
    cancelled: usize,
    longest_wait: Duration,
}

/// A pseudo-random number below `limit`.
fn random(state: &mut u64, limit: u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) % limit) as usize
}

fn begin(model: &ModelHandle, state: &mut u64) -> Request {
    let prompt = ["Once upon a time", "Lily", "The dog ran to the"][random(state, 3)];
    let wanted = 1 + random(state, 40);
    let cancelled = random(state, 3) == 0;
    Request {
        events: model
            .generate(prompt, options(wanted as u64, wanted))
            .unwrap(),
        started: Instant::now(),
        tokens: 0,
        wanted,
        cancel_after: cancelled.then(|| random(state, wanted as u64)),
    }
}

/// Runs `total` requests, `at_once` at the same time.
fn run(model: &ModelHandle, total: usize, at_once: usize) -> Seen {
    let (mut state, mut seen, mut begun) = (7, Seen::default(), 0);
    let mut requests: Vec<Request> = Vec::new();
    while begun < total || !requests.is_empty() {
        while begun < total && requests.len() < at_once {
            requests.push(begin(model, &mut state));
            begun += 1;
        }
        let index = random(&mut state, requests.len() as u64);
        let request = &mut requests[index];
        if request
            .cancel_after
            .is_some_and(|after| request.tokens >= after)
        {
            drop(requests.swap_remove(index));
            seen.cancelled += 1;
            continue;
        }
        let waited = Instant::now();
        match request.events.next_blocking().unwrap() {
            Some(Event::Prefill {
                processed, total, ..
            }) => assert_eq!(processed, total),
            Some(Event::Token(_)) => request.tokens += 1,
            Some(Event::Finished { reason, stats }) => {
                assert_eq!(reason, FinishReason::Length);
                assert_eq!(
                    (request.tokens, stats.generated_tokens),
                    (request.wanted, request.wanted)
                );
                assert!(request.events.next_blocking().unwrap().is_none());
                seen.finished += 1;
                requests.swap_remove(index);
                continue;
            }
            None => panic!(
                "the stream ended after {} of {} tokens",
                request.tokens, request.wanted
            ),
        }
        let waited = waited.elapsed().min(request.started.elapsed());
        seen.longest_wait = seen.longest_wait.max(waited);
    }
    seen
}

#[test]
fn requests_lose_no_event() {
    let seen = run(&load(), 60, 9);
    assert_eq!(seen.finished + seen.cancelled, 60);
    assert!(seen.cancelled > 5, "{seen:?}");
}

/// More than 1,000 requests in ten minutes.
#[test]
#[ignore = "takes ten minutes"]
fn ten_minutes_of_requests_keep_the_memory_flat() {
    let (model, started) = (load(), Instant::now());
    run(&model, 500, 17);
    let before = (resident(), memory::active_bytes().unwrap());
    let (mut ended, mut longest_wait) = (0, Duration::ZERO);
    while started.elapsed() < Duration::from_secs(600) {
        let seen = run(&model, 500, 17);
        assert_eq!(seen.finished + seen.cancelled, 500);
        ended += 500;
        longest_wait = longest_wait.max(seen.longest_wait);
        let after = memory::active_bytes().unwrap();
        assert!(after <= before.1 + (1 << 20), "{before:?}, then {after}");
    }
    let after = resident();
    println!("{ended} requests; longest wait {longest_wait:?}; bytes {before:?}, then {after}");
    assert!(ended >= 1000);
    assert!(after <= before.0 + (64 << 20), "{before:?}, then {after}");
}

/// Resident bytes of this process, where the system shows them.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_whitespace().nth(1);
    pages.map_or(0, |pages| pages.parse::<usize>().unwrap() * 4096)
}
