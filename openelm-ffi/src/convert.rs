//! Conversions between formats. One takes the worker for itself until it ends.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use openelm_core::{
    self as core, CancelHandle,
    adapter::Adapter,
    convert as conversion,
    convert::{FileType, Format, Quantize, TokenizerChoice},
    internal::Turn,
    quantization::{Quantization, QuantizationMode},
};

use crate::{
    error::Result,
    load::rest,
    outbox::{self, Inbox},
    worker,
};

/// What a conversion writes. GGUF types: `f32`, `f16`, `bf16`, `q8_0`, `q4_0`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::convert::Format")]
pub enum ConvertFormat {
    Mlx,
    HuggingFace,
    Gguf { file_type: String },
}

/// How to quantise: as `openelm convert`'s `--q-mode`, `--q-bits`, `--q-group-size`, `--q-recipe`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::convert::Quantize")]
pub struct QuantizeOptions {
    pub mode: String,
    pub bits: Option<u32>,
    pub group_size: Option<u32>,
    pub recipe: Option<String>,
}

/// Options of a conversion; those of `openelm_core::convert::ConvertOptions`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::convert::ConvertOptions")]
pub struct ConvertOptions {
    pub format: ConvertFormat,
    pub dtype: Option<String>,
    pub quantize: Option<QuantizeOptions>,
    pub dequantize: bool,
    pub adapter: Option<String>,
    pub tokenizer: Option<String>,
    pub force: bool,
    pub verify: bool,
}

/// How far a conversion has come.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::convert::ConvertEvent")]
pub enum ConvertEvent {
    Written { name: String, done: u64, total: u64 },
    Verifying { done: u64, total: u64 },
}

/// What a conversion did; the most of `openelm_core::convert::ConvertReport`.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::convert::ConvertReport")]
pub struct ConvertReport {
    pub target: String,
    pub parameters: u64,
    pub source_bytes: u64,
    pub bytes: u64,
    pub bits_per_weight: f64,
    pub tensors: u64,
    pub seconds: f64,
    pub mean_kl: Option<f64>,
    pub top1_agreement: Option<f64>,
}

/// A conversion under way. Dropping it ends it, and leaves the target as it was.
#[derive(Debug, uniffi::Object)]
pub struct ConvertRun {
    events: Inbox<Message>,
    cancel: CancelHandle,
    report: Mutex<Option<ConvertReport>>,
}

#[derive(Debug)]
enum Message {
    Progress(ConvertEvent),
    Done(ConvertReport),
}

/// Begins to convert the model `source`, a folder or file, to `target`, a new folder or GGUF file.
///
/// # Errors
/// [`EngineError::Option`](crate::EngineError::Option) or
/// [`EngineError::Dtype`](crate::EngineError::Dtype) for a name that there is not.
#[uniffi::export]
pub fn convert(source: String, target: String, options: ConvertOptions) -> Result<Arc<ConvertRun>> {
    let adapter = options.adapter.clone();
    let options = core_options(options)?;
    let (out, events) = outbox::channel();
    let cancel = CancelHandle::default();
    let called_off = cancel.clone();
    worker::submit(move |_models, turn| {
        let done = worker::guard(|| {
            run(
                &source,
                &target,
                options,
                adapter,
                &called_off,
                turn,
                |event| {
                    out.replace(Ok(Message::Progress(event)));
                },
            )
        });
        out.replace(done.map(Message::Done));
    })?;
    Ok(Arc::new(ConvertRun {
        events,
        cancel,
        report: Mutex::new(None),
    }))
}

#[uniffi::export]
impl ConvertRun {
    /// How far it has come; earlier news that nobody read is left out. `None` when it is done.
    ///
    /// # Errors
    /// What went wrong; the target is then as it was.
    pub async fn next(&self) -> Result<Option<ConvertEvent>> {
        match self.events.next().await? {
            Some(Message::Progress(event)) => Ok(Some(event)),
            Some(Message::Done(report)) => {
                *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// What it did, after `next` said `None`; once.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`](crate::EngineError::Cancelled) if it was ended before.
    pub fn report(&self) -> Result<ConvertReport> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.take().ok_or_else(|| core::Error::Cancelled.into())
    }

    /// Ends it before the next tensor.
    ///
    /// # Errors
    /// None but a panic.
    pub fn cancel(&self) -> Result<()> {
        self.cancel.cancel();
        worker::gate().poke();
        self.events.close();
        Ok(())
    }
}

impl Drop for ConvertRun {
    fn drop(&mut self) {
        self.cancel.cancel();
        worker::gate().poke();
    }
}

fn run(
    source: &str,
    target: &str,
    mut options: conversion::ConvertOptions,
    adapter: Option<String>,
    cancel: &CancelHandle,
    turn: Turn<'static>,
    mut tell: impl FnMut(ConvertEvent),
) -> Result<ConvertReport> {
    options.adapter = adapter.map(Adapter::load).transpose()?;
    let mut turn = Some(turn);
    let progress = |event: conversion::ConvertEvent<'_>| {
        tell(match event {
            conversion::ConvertEvent::Written { name, done, total } => ConvertEvent::Written {
                name: name.to_owned(),
                done,
                total,
            },
            conversion::ConvertEvent::Verifying { done, total } => {
                ConvertEvent::Verifying { done, total }
            }
        });
        rest(&mut turn, cancel);
    };
    let report = conversion::convert(source, target, &options, cancel, progress)?;
    let verification = report.verification.as_ref();
    Ok(ConvertReport {
        target: report.target.to_string_lossy().into_owned(),
        parameters: report.parameters,
        source_bytes: report.source_bytes,
        bytes: report.bytes,
        bits_per_weight: report.bits_per_weight,
        tensors: report.tensors as u64,
        seconds: report.seconds,
        mean_kl: verification.map(|found| found.mean_kl),
        top1_agreement: verification.map(|found| found.top1_agreement),
    })
}

/// All but the adapter, which belongs to the worker's thread.
fn core_options(options: ConvertOptions) -> Result<conversion::ConvertOptions> {
    let quantize = options.quantize.map(|options| -> Result<Quantize> {
        let mode: QuantizationMode = options.mode.parse()?;
        let bits = options.bits.map(|bits| bits as usize);
        let group_size = options.group_size.map(|size| size as usize);
        let recipe = options.recipe.map(|name| name.parse());
        Ok(Quantize {
            recipe: recipe.transpose()?,
            ..Quantize::uniform(Quantization::new(mode, bits, group_size)?)
        })
    });
    Ok(conversion::ConvertOptions {
        format: match options.format {
            ConvertFormat::Mlx => Format::Mlx,
            ConvertFormat::HuggingFace => Format::HuggingFace,
            ConvertFormat::Gguf { file_type } => Format::Gguf(file_type.parse::<FileType>()?),
        },
        dtype: options.dtype.map(|name| name.parse()).transpose()?,
        quantize: quantize.transpose()?,
        dequantize: options.dequantize,
        tokenizer: match options.tokenizer {
            Some(path) => TokenizerChoice::Path(PathBuf::from(path)),
            None => TokenizerChoice::OfSource,
        },
        force: options.force,
        verify: options.verify,
        ..conversion::ConvertOptions::default()
    })
}
