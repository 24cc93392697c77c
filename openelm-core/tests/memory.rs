//! Memory: the estimate from file headers compared with a run, and the limits of MLX's cache. A
//! single test, because MLX counts memory per process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    CancelHandle, Dtype, Error, LanguageModel, LoadOptions,
    generation::GenerateOptions,
    memory::{self, MemoryEstimate},
};
use openelm_testing::tales;

#[test]
fn estimates_and_limits() {
    let folder = tales();
    let stored = MemoryEstimate::of(&folder, &LoadOptions::default(), None).unwrap();
    assert!([2, 4].contains(&(stored.weights / 2_497_344)), "{stored:?}");
    let options = LoadOptions {
        keep_quantized: Some(false),
        ..LoadOptions::default()
    };
    let estimate = MemoryEstimate::of(&folder, &options, None).unwrap();
    // 2,497,344 parameters (half the bytes of the bfloat16 file) in f32; keys and values of 15
    // key-value heads of width 32 in f32, for 512 tokens, plus a sixth for a copy of one layer.
    assert_eq!(estimate.weights, 4 * 2_497_344);
    assert_eq!(estimate.kv_cache, 2 * 15 * 32 * 4 * 512 * 7 / 6);
    let sum = estimate.weights + estimate.kv_cache + estimate.working;
    assert_eq!(estimate.total(), sum);
    let half = LoadOptions {
        dtype: Some(Dtype::Bfloat16),
        ..LoadOptions::default()
    };
    let short = MemoryEstimate::of(&folder, &half, Some(256)).unwrap();
    assert_eq!(short.weights, 2 * 2_497_344);
    assert_eq!(short.kv_cache * 4, estimate.kv_cache);

    memory::set_cache_limit(0).unwrap();
    memory::reset_peak().unwrap();
    let model = LanguageModel::load(&folder, &options).unwrap();
    let loaded = memory::active_bytes().unwrap();
    // MLX rounds up the memory of each array.
    let share = loaded as f64 / estimate.weights as f64;
    assert!((0.99..1.01).contains(&share), "{share}");

    let text = GenerateOptions {
        max_tokens: 1000,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let prompt = "Once upon a time there was a king. ".repeat(40);
    let ended = model.generate(&prompt, text).unwrap().last();
    assert!(ended.unwrap().is_ok());
    let peak = memory::peak_bytes().unwrap() as u64;
    assert!(peak <= estimate.total(), "{peak} bytes, {estimate:?}");
    assert!(peak * 3 > estimate.total(), "{peak} bytes, {estimate:?}");
    assert_eq!(memory::cache_bytes().unwrap(), 0, "the limit is 0");
    drop(model);
    assert_eq!(memory::active_bytes().unwrap(), 0);

    assert_eq!(memory::set_cache_limit(64 << 20).unwrap(), 0);
    let cancel = CancelHandle::default();
    let model = LanguageModel::load_cancellable(&folder, &options, &cancel, |_, _| {});
    drop(model.unwrap());
    assert!(memory::cache_bytes().unwrap() > 0, "freed buffers are kept");
    memory::clear_cache().unwrap();
    assert_eq!(memory::cache_bytes().unwrap(), 0);

    let mut progress = Vec::new();
    let error =
        LanguageModel::load_cancellable(&folder, &LoadOptions::default(), &cancel, |done, _| {
            progress.push(done);
            cancel.cancel();
        });
    assert!(matches!(error.unwrap_err(), Error::Cancelled));
    assert_eq!(progress, [0], "cancelled before the first tensor");
}
