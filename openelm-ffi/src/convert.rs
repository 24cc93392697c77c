//! Conversions between formats.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use openelm_core::{
    self as core,
    convert::{self as conversion, FileType, Format, Quantize, TokenizerChoice},
    engine::{ConvertHandle, ConvertProgress, ConvertRequest},
    quantization::{Quantization, QuantizationMode},
};

use crate::{engine::engine, error::Result};

/// Output format. GGUF types: `f32`, `f16`, `bf16`, `q8_0`, `q4_0`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::convert::Format")]
pub enum ConvertFormat {
    Mlx,
    HuggingFace,
    Gguf { file_type: String },
    CoreNet,
    CoreNetMlx,
}

/// Quantisation options, as `openelm convert`'s `--q-mode`, `--q-bits`, `--q-group-size`,
/// `--q-recipe`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::convert::Quantize")]
pub struct QuantizeOptions {
    pub mode: String,
    pub bits: Option<u32>,
    pub group_size: Option<u32>,
    pub recipe: Option<String>,
}

/// Options of a conversion. Mirrors `openelm_core::convert::ConvertOptions`.
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

/// The core's defaults.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn default_convert_options() -> Result<ConvertOptions> {
    let options = conversion::ConvertOptions::default();
    Ok(ConvertOptions {
        format: match options.format {
            Format::Mlx => ConvertFormat::Mlx,
            Format::HuggingFace => ConvertFormat::HuggingFace,
            Format::Gguf(file_type) => ConvertFormat::Gguf {
                file_type: file_type.to_string(),
            },
            Format::CoreNet => ConvertFormat::CoreNet,
            Format::CoreNetMlx => ConvertFormat::CoreNetMlx,
        },
        dtype: options.dtype.map(|dtype| dtype.to_string()),
        // The core's default is `None` for these two.
        quantize: None,
        adapter: None,
        tokenizer: match options.tokenizer {
            TokenizerChoice::OfSource | TokenizerChoice::Without => None,
            TokenizerChoice::Path(path) => Some(path.to_string_lossy().into_owned()),
        },
        dequantize: options.dequantize,
        force: options.force,
        verify: options.verify,
    })
}

/// Progress of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::convert::ConvertEvent")]
pub enum ConvertEvent {
    Written { name: String, done: u64, total: u64 },
    Verifying { done: u64, total: u64 },
}

/// Result of a conversion. Mirrors `openelm_core::convert::ConvertReport`.
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

/// A running conversion. Dropping it cancels it and leaves the destination unchanged.
#[derive(Debug, uniffi::Object)]
pub struct ConvertRun {
    run: ConvertHandle,
    report: Mutex<Option<ConvertReport>>,
}

/// Starts converting the model `source`, a folder or file, to `target`, a new folder or GGUF file.
///
/// # Errors
/// [`Error::InvalidOption`](crate::Error::InvalidOption) for an unknown name.
#[uniffi::export]
pub fn convert(source: String, target: String, options: ConvertOptions) -> Result<Arc<ConvertRun>> {
    let request = ConvertRequest {
        source: source.into(),
        target: target.into(),
        adapter: options.adapter.clone().map(PathBuf::from),
        options: core_options(options)?,
    };
    Ok(Arc::new(ConvertRun {
        run: engine()?.convert(request)?,
        report: Mutex::new(None),
    }))
}

#[uniffi::export]
impl ConvertRun {
    /// The latest progress; unread older progress is dropped. `None` once the conversion is
    /// complete.
    ///
    /// # Errors
    /// Errors of the conversion. The destination is then unchanged.
    pub async fn next(&self) -> Result<Option<ConvertEvent>> {
        Ok(match self.run.events().next().await? {
            Some(ConvertProgress::Written { name, done, total }) => {
                Some(ConvertEvent::Written { name, done, total })
            }
            Some(ConvertProgress::Verifying { done, total }) => {
                Some(ConvertEvent::Verifying { done, total })
            }
            Some(ConvertProgress::Done(report)) => {
                let report = ConvertReport::from(*report);
                *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                None
            }
            None => None,
        })
    }

    /// The report, once, after `next` returned `None`.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled) if the conversion did not complete.
    pub fn report(&self) -> Result<ConvertReport> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.take().ok_or_else(|| core::Error::Cancelled.into())
    }

    /// Cancels the conversion before its next tensor.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.run.cancel();
        Ok(())
    }
}

impl From<conversion::ConvertReport> for ConvertReport {
    fn from(report: conversion::ConvertReport) -> Self {
        let verification = report.verification.as_ref();
        Self {
            target: report.target.to_string_lossy().into_owned(),
            parameters: report.parameters,
            source_bytes: report.source_bytes,
            bytes: report.bytes,
            bits_per_weight: report.bits_per_weight,
            tensors: report.tensors as u64,
            seconds: report.seconds,
            mean_kl: verification.map(|found| found.mean_kl),
            top1_agreement: verification.map(|found| found.top1_agreement),
        }
    }
}

/// The core's options without the adapter; see [`ConvertRequest::adapter`].
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
            ConvertFormat::CoreNet => Format::CoreNet,
            ConvertFormat::CoreNetMlx => Format::CoreNetMlx,
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
