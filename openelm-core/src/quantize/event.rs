//! Progress of a quantisation.

/// An event of a quantisation in progress.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum QuantizeEvent {
    /// The sensitivity of the matrices of layers was measured.
    Sensitivity {
        /// Layers so far.
        done: usize,
        /// All layers.
        total: usize,
    },
    /// The calibration text went through layers of the unquantised model.
    Calibrated {
        /// Layers so far.
        done: usize,
        /// All layers.
        total: usize,
    },
    /// Parts of the network were quantised: embedding, layers, head.
    Quantized {
        /// Parts so far.
        done: usize,
        /// All parts.
        total: usize,
    },
    /// A step of the distillation.
    Distilled {
        /// Steps so far.
        done: u64,
        /// All steps.
        total: u64,
        /// Mean divergence of the batch in nats per token, before the step.
        loss: f64,
    },
    /// The held-out text went through layers for the report.
    Measured {
        /// Layers so far.
        done: usize,
        /// All layers.
        total: usize,
    },
}
