//! The cache and the wired memory of the GPU's code, run on MLX's CPU backend. A single test, because
//! both are of the process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    CancelHandle, Device, LanguageModel, LoadOptions,
    adapter::{Adapter, AdapterOptions},
    convert::{ConvertOptions, convert},
    dataset::Example,
    finetune::{Finetune, FinetuneEvent, FinetuneOptions, TrainingData},
    generation::{Event, GenerateOptions},
    internal::{
        Assumptions,
        MemoryAction::{CacheLimit, ClearCache, MemoryLimit, WiredLimit},
        MemoryTrace, assume_available,
    },
    memory,
};
use openelm_testing::{TempDir, tales};

const MIB: usize = 1 << 20;
const WORKING_SET: usize = 1 << 33;

#[test]
fn cache_and_wired_memory_follow_the_phases() {
    let default = mlx_rs::memory::set_cache_limit(0).unwrap();
    mlx_rs::memory::set_cache_limit(default).unwrap();
    let _gpu = Device::Gpu.select();
    let assumed = Assumptions {
        phone: false,
        working_set: Some(WORKING_SET),
        training_threshold: Some(0),
    };
    let trace = MemoryTrace::start(assumed);
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    assert_eq!(trace.actions(), [CacheLimit(256 * MIB), ClearCache]);

    generates(&model, &trace);
    ends_early(&model, &trace);
    trains(&model, &trace, default);

    converts(&trace);
    drop(trace);
    limits_a_phone(&model);
    let trace = MemoryTrace::start(assumed);

    // The limit of the user holds for all work.
    memory::set_cache_limit(MIB).unwrap();
    let generation = model.generate("Once", options(2)).unwrap();
    generation.for_each(|event| drop(event.unwrap()));
    let wired = [
        WiredLimit(WORKING_SET),
        ClearCache,
        ClearCache,
        WiredLimit(0),
    ];
    assert_eq!(trace.actions(), wired);
    assert_eq!(memory::set_cache_limit(0).unwrap(), MIB);
}

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        prefill_chunk: Some(8),
        ignore_eos: true,
        ..GenerateOptions::default()
    }
}

/// The cache is cleared after the prompt, every 256 tokens and at the end.
fn generates(model: &LanguageModel, trace: &MemoryTrace) {
    let prompt = "Once upon a time there was a king who had a daughter.";
    let generation = model.generate(prompt, options(300)).unwrap();
    assert_eq!(trace.actions(), []);
    let (mut chunks, mut tokens) = (0, 0);
    for event in generation {
        let actions = trace.actions();
        match event.unwrap() {
            Event::Prefill { .. } => {
                let begun = [WiredLimit(WORKING_SET), CacheLimit(1024 * MIB)];
                let expected = if chunks == 0 { &begun[..] } else { &[] };
                assert_eq!(actions, expected);
                chunks += 1;
            }
            Event::Token(_) => {
                tokens += 1;
                let expected = match tokens {
                    1 => &[CacheLimit(256 * MIB), ClearCache][..],
                    257 => &[ClearCache],
                    // The last token leaves no step in progress.
                    300 => &[ClearCache, WiredLimit(0)],
                    _ => &[],
                };
                assert_eq!(actions, expected, "token {tokens}");
            }
            Event::Finished { .. } => assert_eq!(actions, []),
        }
    }
    assert!(chunks > 1, "{chunks}");
    assert_eq!(tokens, 300);
}

/// A dropped generation ends its work, and memory is wired until the last of two has ended.
fn ends_early(model: &LanguageModel, trace: &MemoryTrace) {
    let begin = || {
        let mut generation = model.generate("Once upon a time", options(20)).unwrap();
        for _ in 0..4 {
            generation.next().unwrap().unwrap();
        }
        generation
    };
    let (first, second) = (begin(), begin());
    let wired = |actions: &[_]| {
        actions
            .iter()
            .filter(|a| matches!(a, WiredLimit(_)))
            .count()
    };
    assert_eq!(wired(&trace.actions()), 1);
    drop(first);
    assert_eq!(trace.actions(), [ClearCache]);
    drop(second);
    assert_eq!(trace.actions(), [ClearCache, WiredLimit(0)]);
}

/// A conversion limits the cache as a load does.
fn converts(trace: &MemoryTrace) {
    let folder = TempDir::new();
    let (target, options) = (folder.join("converted"), ConvertOptions::default());
    let cancel = CancelHandle::default();
    convert(tales(), target, &options, &cancel, |_| {}).unwrap();
    let actions = trace.actions();
    assert_eq!(actions.first(), Some(&CacheLimit(256 * MIB)));
    assert_eq!(actions.last(), Some(&ClearCache));
}

/// On a phone the limits are lower, no memory is wired, and MLX may use what the system has left.
fn limits_a_phone(model: &LanguageModel) {
    let trace = MemoryTrace::start(Assumptions {
        phone: true,
        ..Assumptions::default()
    });
    let _available = assume_available(Some(500 << 20));
    let mut generation = model.generate("Once upon a time", options(2)).unwrap();
    let used = memory::active_bytes().unwrap() + memory::cache_bytes().unwrap();
    assert!(generation.all(|event| event.is_ok()));
    let expected = [
        MemoryLimit(used + 436 * MIB),
        CacheLimit(256 * MIB),
        CacheLimit(32 * MIB),
        ClearCache,
        ClearCache,
    ];
    assert_eq!(trace.actions(), expected);
}

/// Training has the limit of MLX, and clears the cache after a step that leaves more than the threshold.
fn trains(model: &LanguageModel, trace: &MemoryTrace, default: usize) {
    let row = |i: u32| Example {
        tokens: (1..12 + i).collect(),
        first_target: 1,
    };
    let rows = TrainingData::Examples((0..4).map(row).collect());
    let adapter = Adapter::new(model.model(), &AdapterOptions::default(), 0).unwrap();
    let folder = TempDir::new();
    let options = FinetuneOptions {
        batch_size: 2,
        iters: 2,
        ..FinetuneOptions::default()
    };
    trace.actions();
    let mut run = Finetune::new(model.model(), adapter, rows, None, &folder, options).unwrap();
    assert_eq!(trace.actions(), []);
    let step = |event: Option<openelm_core::Result<FinetuneEvent>>| {
        assert!(
            matches!(event, Some(Ok(FinetuneEvent::Step { .. }))),
            "{event:?}"
        );
    };
    step(run.next());
    let begun = [WiredLimit(WORKING_SET), CacheLimit(default), ClearCache];
    assert_eq!(trace.actions(), begun);
    step(run.next());
    // The last step also saves and ends the run.
    assert_eq!(trace.actions(), [ClearCache, WiredLimit(0)]);
    assert!(run.all(|event| event.is_ok()));
    assert_eq!(trace.actions(), []);
}
