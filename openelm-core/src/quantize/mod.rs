//! Learned quantisation: GPTQ, AWQ, distilled scales (DWQ) and mixed widths, with a report of the
//! differences from the unquantised model.
//!
//! The model is read layer by layer, so that one of any size fits in memory next to the hidden
//! states of the text; only the distillation holds the quantised model. The progress is kept in a
//! hidden folder beside the target until the result is complete.
//!
//! ```no_run
//! use openelm_core::{CancelHandle, quantize::{QuantizeOptions, quantize}};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let options = QuantizeOptions {
//!     data: vec!["stories.jsonl".into()],
//!     ..QuantizeOptions::default()
//! };
//! let cancel = CancelHandle::default();
//! let report = quantize("OpenELM-270M", "OpenELM-270M-dwq", &options, &cancel, |_| {})?;
//! println!("{:.4} nats per token", report.quantized.kl);
//! # Ok(())
//! # }
//! ```

mod affine_grid;
mod awq;
mod bit_allocation;
mod distillation;
mod event;
mod gptq;
mod hessian;
mod layers;
mod measure;
mod model_reader;
mod options;
mod packed_codes;
mod passes;
mod quality;
mod quantize;
mod report;
mod state;
mod texts;
mod trained_matrix;
mod widths;

pub use event::QuantizeEvent;
pub use options::{Method, QuantizeOptions, Widths};
pub use quality::Quality;
pub use quantize::quantize;
pub use report::{MatrixReport, PartReport, QuantizeReport, SizePoint};
pub use widths::Sensitivity;
