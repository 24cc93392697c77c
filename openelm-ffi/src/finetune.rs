//! Fine-tuning of a loaded model.

use std::sync::Arc;

use openelm_core::{
    adapter::AdapterOptions,
    engine::{FinetuneHandle, FinetuneRequest},
    finetune::{self as core_finetune, DataOptions},
};

use crate::{
    engine::engine, error::Result, finetune_options::FinetuneOptions, language_model::LanguageModel,
};

/// An event of a [`FinetuneRun`].
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::finetune::FinetuneEvent")]
pub enum FinetuneEvent {
    Step {
        iteration: u64,
        loss: f32,
        targets: u64,
        learning_rate: f32,
        tokens_per_second: f64,
        trained_tokens: u64,
        peak_bytes: u64,
    },
    Validation {
        iteration: u64,
        loss: f64,
        best: bool,
    },
    Saved {
        iteration: u64,
    },
    Finished {
        iteration: u64,
        reason: FinetuneEnd,
        best_iteration: Option<u64>,
        best_loss: Option<f64>,
    },
}

/// The reason why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::finetune::FinetuneEnd")]
pub enum FinetuneEnd {
    Iterations,
    Patience,
    Cancelled,
}

/// A running fine-tuning. Dropping it saves and ends it.
#[derive(Debug, uniffi::Object)]
pub struct FinetuneRun {
    run: FinetuneHandle,
}

/// Mirrors `openelm_core::finetune::SavedRun`.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::finetune::SavedRun")]
pub struct SavedRun {
    pub iteration: u64,
    pub trained_tokens: u64,
    pub batch_size: u64,
    pub grad_accumulation_steps: u64,
    pub best_iteration: Option<u64>,
    pub best_loss: Option<f64>,
}

/// The fine-tuning run in `folder` that can be resumed, once the runs that were cancelled are saved;
/// `None` if there is none.
///
/// # Errors
/// [`Error::InvalidCheckpoint`](crate::Error::InvalidCheckpoint) if its state is malformed.
#[uniffi::export]
pub async fn saved_run(folder: String) -> Result<Option<SavedRun>> {
    let found = engine()?.saved_run(folder.into()).await?;
    Ok(found.map(|run| SavedRun {
        iteration: run.iteration,
        trained_tokens: run.trained_tokens,
        batch_size: run.batch_size as u64,
        grad_accumulation_steps: run.grad_accumulation_steps as u64,
        best_iteration: run.best.map(|best| best.iteration),
        best_loss: run.best.map(|best| best.loss),
    }))
}

/// Starts training a new adapter for `model`, without the model's active adapters, on the rows in
/// `data`, a folder or a file, and saves it in `folder`. With `resume` the run in `folder`
/// continues from its last checkpoint.
///
/// # Errors
/// Errors of data and options are the first event.
#[uniffi::export]
pub fn finetune(
    model: Arc<LanguageModel>,
    data: String,
    folder: String,
    options: FinetuneOptions,
    resume: bool,
) -> Result<Arc<FinetuneRun>> {
    let request = FinetuneRequest {
        data: data.into(),
        folder: folder.into(),
        run: core_finetune::FinetuneOptions::from(&options),
        rows: DataOptions::from(&options),
        adapter: AdapterOptions::from(&options),
        seed: options.seed,
        resume,
    };
    let run = model.handle().finetune(request)?;
    Ok(Arc::new(FinetuneRun { run }))
}

#[uniffi::export]
impl FinetuneRun {
    /// The next event; `None` after the last one.
    ///
    /// # Errors
    /// Errors of the run; no event follows.
    pub async fn next(&self) -> Result<Option<FinetuneEvent>> {
        while let Some(event) = self.run.events().next().await? {
            if let Some(event) = event_from(event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Ends the run before its next step. The run is saved and reported in its last events.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.run.cancel();
        Ok(())
    }
}

/// The event for Swift; `None` for an event unknown to this crate.
fn event_from(event: core_finetune::FinetuneEvent) -> Option<FinetuneEvent> {
    Some(match event {
        core_finetune::FinetuneEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => FinetuneEvent::Step {
            iteration: step.iteration,
            loss: step.loss,
            targets: step.targets as u64,
            learning_rate: step.learning_rate,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        },
        core_finetune::FinetuneEvent::Validation {
            iteration,
            loss,
            best,
            ..
        } => FinetuneEvent::Validation {
            iteration,
            loss,
            best,
        },
        core_finetune::FinetuneEvent::Saved { iteration } => FinetuneEvent::Saved { iteration },
        core_finetune::FinetuneEvent::Finished {
            iteration,
            reason,
            best,
        } => FinetuneEvent::Finished {
            iteration,
            reason: match reason {
                core_finetune::FinetuneEnd::Iterations => FinetuneEnd::Iterations,
                core_finetune::FinetuneEnd::Patience => FinetuneEnd::Patience,
                core_finetune::FinetuneEnd::Cancelled => FinetuneEnd::Cancelled,
            },
            best_iteration: best.map(|best| best.iteration),
            best_loss: best.map(|best| best.loss),
        },
        _ => return None,
    })
}
