//! MLX's memory on a GPU: the limit of its buffer cache by phase, the times at which the cache is
//! cleared, and on iOS the limit of arrays and cache.
//!
//! MLX keeps freed buffers for arrays of about the same size. Its own limit is nearly all of the
//! GPU's memory. The layers of OpenELM differ in width and prompts in length, so few buffers fit
//! again: as in mlx-lm, the cache is cleared after a prompt, every 256 tokens, after a text and
//! during training. On a CPU nothing is changed.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    Device, memory,
    memory_trace::{self, MemoryAction},
    wired_memory,
};
use crate::error::Result;

/// The kind of work that decides the limit of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Weights are read and cast.
    Load,
    /// A chunk of a prompt is read.
    Prompt,
    /// Tokens are generated.
    Decode,
    /// Training and its validations.
    Training,
}

/// Work on the device: a generation or a training run. While it exists, macOS keeps the memory of
/// the GPU wired; at its end the cache is cleared. Nothing happens on a CPU.
#[derive(Debug)]
pub(crate) struct DeviceWork {
    on_gpu: bool,
}

impl DeviceWork {
    /// Begins the work on this thread's device.
    pub(crate) fn begin() -> Result<Self> {
        let on_gpu = Device::current()? == Device::Gpu;
        if on_gpu {
            limit_memory()?;
            wired_memory::begin();
        }
        Ok(Self { on_gpu })
    }

    /// Sets the limit of the cache for `phase`.
    pub(crate) fn enter(&self, phase: Phase) -> Result<()> {
        if self.on_gpu { enter(phase) } else { Ok(()) }
    }

    /// Clears the cache after the first generated token, when the last chunk of the prompt has been
    /// read, and every 256 tokens.
    pub(crate) fn after_token(&self, generated: usize) -> Result<()> {
        if self.on_gpu && generated % TOKENS == 1 {
            clear()?;
        }
        Ok(())
    }

    /// Clears the cache after a step of training if it has grown too large.
    pub(crate) fn after_step(&self) -> Result<()> {
        if self.on_gpu && memory::cache_bytes()? > training_threshold() {
            clear()?;
        }
        Ok(())
    }
}

impl Drop for DeviceWork {
    fn drop(&mut self) {
        if self.on_gpu {
            let _ = clear();
            wired_memory::end();
        }
    }
}

/// The reading of weights, in a load or a conversion: limits the cache, and clears it at the end,
/// also after an error. Stored tensors that were cast would stay there. Nothing happens on a CPU.
#[derive(Debug)]
pub(crate) struct WeightReading {
    on_gpu: bool,
}

impl WeightReading {
    /// Begins the reading on this thread's device.
    pub(crate) fn begin() -> Result<Self> {
        let on_gpu = Device::current()? == Device::Gpu;
        if on_gpu {
            limit_memory()?;
            enter(Phase::Load)?;
        }
        Ok(Self { on_gpu })
    }
}

impl Drop for WeightReading {
    fn drop(&mut self) {
        if self.on_gpu {
            let _ = clear();
        }
    }
}

/// Keeps the limit of the cache that the user has set, in every phase.
pub(super) fn keep_cache_limit_of_user() {
    CACHE_OF_USER.store(true, Ordering::Relaxed);
}

/// Keeps the limit of arrays and cache that the user has set.
pub(super) fn keep_memory_limit_of_user() {
    MEMORY_OF_USER.store(true, Ordering::Relaxed);
}

/// Generated tokens between two clears, as in mlx-lm.
const TOKENS: usize = 256;

const MIB: usize = 1 << 20;

/// The limit of the cache, in bytes; `None` is MLX's own. A buffer that does not fit returns to the
/// system, and its next use costs an allocation: decoding needs some megabytes, a chunk and a
/// training step all arrays of a layer. On a `phone`, the system ends apps that use much memory.
fn limit(phase: Phase, phone: bool) -> Option<usize> {
    match (phase, phone) {
        (Phase::Load | Phase::Decode, true) => Some(32 * MIB),
        (Phase::Prompt | Phase::Training, true) | (Phase::Load | Phase::Decode, false) => {
            Some(256 * MIB)
        }
        (Phase::Prompt, false) => Some(1024 * MIB),
        (Phase::Training, false) => None,
    }
}

/// Bytes in the cache above which a step of training clears it: a quarter of the GPU's memory, or
/// half of the limit on a phone.
fn training_threshold() -> usize {
    if let Some(bytes) = memory_trace::assumptions().training_threshold {
        return bytes;
    }
    match (
        limit(Phase::Training, is_phone()),
        wired_memory::working_set(),
    ) {
        (Some(limit), _) => limit / 2,
        (None, Some(working_set)) => working_set / 4,
        (None, None) => 1024 * MIB,
    }
}

fn is_phone() -> bool {
    cfg!(target_os = "ios") || memory_trace::assumptions().phone
}

/// The phase whose limit is set, and MLX's own limit.
struct Current {
    phase: Option<Phase>,
    default: Option<usize>,
}

static CURRENT: Mutex<Current> = Mutex::new(Current {
    phase: None,
    default: None,
});

/// The user has set the limit of the cache.
static CACHE_OF_USER: AtomicBool = AtomicBool::new(false);

/// The user has set the limit of arrays and cache.
static MEMORY_OF_USER: AtomicBool = AtomicBool::new(false);

/// Memory that an app needs beside MLX's before iOS ends it, in bytes.
const MARGIN: usize = 64 * MIB;

/// On a phone, limits MLX to the memory that it uses and the system has left: MLX's own limit
/// follows from the GPU, and is above the one at which iOS ends the app. Near the limit MLX frees
/// its cache and waits for work in progress.
fn limit_memory() -> Result<()> {
    if !is_phone() || MEMORY_OF_USER.load(Ordering::Relaxed) {
        return Ok(());
    }
    let Some(left) = memory::available_bytes() else {
        return Ok(());
    };
    let used = memory::active_bytes()?.saturating_add(memory::cache_bytes()?);
    let limit = used.saturating_add((left as usize).saturating_sub(MARGIN));
    mlx_rs::memory::set_memory_limit(limit)?;
    memory_trace::record(MemoryAction::MemoryLimit(limit));
    Ok(())
}

fn enter(phase: Phase) -> Result<()> {
    if CACHE_OF_USER.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if current.phase == Some(phase) {
        return Ok(());
    }
    if let Some(bytes) = limit(phase, is_phone()).or(current.default) {
        let before = mlx_rs::memory::set_cache_limit(bytes)?;
        current.default.get_or_insert(before);
        memory_trace::record(MemoryAction::CacheLimit(bytes));
    }
    current.phase = Some(phase);
    Ok(())
}

fn clear() -> Result<()> {
    memory_trace::record(MemoryAction::ClearCache);
    memory::clear_cache()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_small_for_decoding_and_larger_for_prompts_and_training() {
        let of = |phone| {
            [Phase::Load, Phase::Decode, Phase::Prompt, Phase::Training]
                .map(|phase| limit(phase, phone).map(|bytes| bytes / MIB))
        };
        assert_eq!(of(true), [Some(32), Some(32), Some(256), Some(256)]);
        assert_eq!(of(false), [Some(256), Some(256), Some(1024), None]);
    }

    #[test]
    fn a_cpu_has_no_policy() {
        let _cpu = Device::Cpu.select();
        let trace = memory_trace::MemoryTrace::start(memory_trace::Assumptions {
            phone: true,
            working_set: Some(1 << 30),
            training_threshold: Some(0),
        });
        drop(WeightReading::begin().unwrap());
        let work = DeviceWork::begin().unwrap();
        work.enter(Phase::Training).unwrap();
        work.after_token(1).unwrap();
        work.after_step().unwrap();
        drop(work);
        assert_eq!(trace.actions(), []);
    }
}
