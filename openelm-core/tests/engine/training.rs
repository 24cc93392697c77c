//! Requests beside a fine-tuning.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::thread;

use openelm_core::{
    adapter::AdapterOptions,
    engine::{FinetuneHandle, FinetuneRequest, ModelHandle},
    finetune::{DataOptions, FinetuneEnd, FinetuneEvent, FinetuneOptions},
};
use openelm_testing::TempDir;

use super::{load, options, read};

fn start(model: &ModelHandle, folder: &TempDir) -> FinetuneHandle {
    start_or_resume(model, folder, false)
}

fn start_or_resume(model: &ModelHandle, folder: &TempDir, resume: bool) -> FinetuneHandle {
    folder.write(
        "train.jsonl",
        "{\"text\": \"A fox ran to the big park.\"}\n".repeat(40),
    );
    let request = FinetuneRequest {
        data: folder.at("train.jsonl").into(),
        folder: folder.at("run").into(),
        run: FinetuneOptions {
            iters: 10_000,
            batch_size: 4,
            ..FinetuneOptions::default()
        },
        rows: DataOptions::default(),
        adapter: AdapterOptions::default(),
        seed: 1,
        resume,
    };
    model.finetune(request).unwrap()
}

/// Reads events up to a step after the iteration `after`.
fn wait_for_step(run: &FinetuneHandle, after: u64) {
    loop {
        match run.events().next_blocking().unwrap().unwrap() {
            FinetuneEvent::Step { step, .. } if step.iteration > after => return,
            _ => {}
        }
    }
}

/// A short text needs its turns between two batches, and does not wait for a batch per token.
#[test]
fn a_short_text_waits_for_one_batch() {
    let model = load();
    let alone = read(&model.generate("Once", options(3, 4)).unwrap());
    let folder = TempDir::new();
    let run = Arc::new(start(&model, &folder));
    let batches = Arc::new(AtomicUsize::new(0));
    let reader = {
        let (run, batches) = (Arc::clone(&run), Arc::clone(&batches));
        thread::spawn(move || {
            let mut end = None;
            while let Some(event) = run.events().next_blocking().unwrap() {
                match event {
                    FinetuneEvent::Step { .. } => {
                        batches.fetch_add(1, Ordering::SeqCst);
                    }
                    FinetuneEvent::Finished { reason, .. } => end = Some(reason),
                    _ => {}
                }
            }
            end
        })
    };
    while batches.load(Ordering::SeqCst) < 3 {
        thread::yield_now();
    }
    let mut waits = Vec::new();
    for _ in 0..5 {
        let before = batches.load(Ordering::SeqCst);
        assert_eq!(read(&model.generate("Once", options(3, 4)).unwrap()), alone);
        waits.push(batches.load(Ordering::SeqCst) - before);
    }
    // One batch runs when the request arrives; an event of the batch before may be unread.
    waits.sort_unstable();
    assert!(waits[2] <= 2, "{waits:?}");
    let before = batches.load(Ordering::SeqCst);
    let long = read(&model.generate("Once", options(3, 300)).unwrap());
    assert!(long.0.starts_with(&alone.0));
    while batches.load(Ordering::SeqCst) == before {
        thread::yield_now();
    }
    run.cancel();
    assert_eq!(reader.join().unwrap(), Some(FinetuneEnd::Cancelled));
}

#[test]
fn unloading_saves_the_run() {
    let model = load();
    let folder = TempDir::new();
    let run = start(&model, &folder);
    wait_for_step(&run, 0);
    openelm_testing::block_on(model.unload()).unwrap();
    while let Ok(Some(_)) = run.events().next_blocking() {}
    assert!(folder.join("run").join("adapters.safetensors").exists());
}

#[test]
fn a_cancelled_run_is_saved_before_the_next_begins() {
    let model = load();
    let folder = TempDir::new();
    for round in 0..6 {
        let run = start_or_resume(&model, &folder, round > 0);
        wait_for_step(&run, 0);
        match round % 2 {
            0 => drop(run),
            _ => {
                run.cancel();
                run.events().close();
            }
        }
    }
}

/// The reader of a cancelled run has not read its last events.
#[test]
fn an_unread_run_that_was_cancelled_frees_its_folder() {
    let model = load();
    let folder = TempDir::new();
    let first = start(&model, &folder);
    wait_for_step(&first, 0);
    first.cancel();
    let find = || {
        let run = folder.join("run");
        openelm_testing::block_on(model.engine().saved_run(run)).unwrap()
    };
    let saved = find().expect("the run was saved");
    assert!(saved.iteration > 0 && saved.trained_tokens > 0, "{saved:?}");
    assert_eq!((saved.batch_size, saved.grad_accumulation_steps), (4, 1));
    let second = start_or_resume(&model, &folder, true);
    wait_for_step(&second, saved.iteration);
    let mut last = None;
    while let Some(event) = first.events().next_blocking().unwrap() {
        last = Some(event);
    }
    let Some(FinetuneEvent::Finished { reason, .. }) = last else {
        panic!("the last event is {last:?}");
    };
    assert_eq!(reason, FinetuneEnd::Cancelled);
    second.cancel();
    second.events().close();
    let none = openelm_testing::block_on(model.engine().saved_run(folder.join("none")));
    assert_eq!(none.unwrap(), None);
}

#[test]
fn a_larger_batch_needs_more_memory() {
    let model = load();
    let estimate = |change: &dyn Fn(&mut FinetuneOptions)| {
        let mut run = FinetuneOptions {
            max_seq_length: 512,
            ..FinetuneOptions::default()
        };
        change(&mut run);
        let rows = DataOptions::default();
        let estimate = model.finetune_memory(run, rows, AdapterOptions::default());
        openelm_testing::block_on(estimate).unwrap().total()
    };
    let usual = estimate(&|_| ());
    assert!(estimate(&|run| run.batch_size = 8) > usual * 3 / 2);
    assert!(estimate(&|run| run.trainer.grad_checkpoint = true) < usual);
    assert!(estimate(&|run| run.max_seq_length = 64) < usual / 4);
    let largest = estimate(&|run| {
        (run.batch_size, run.max_seq_length) = (usize::MAX, usize::MAX);
    });
    assert_eq!(largest, u64::MAX);
}
