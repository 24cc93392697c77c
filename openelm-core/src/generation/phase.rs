//! The phase of a sequence.

use mlx_rs::Array;

use super::{
    speculation::Round,
    step::{PendingLogits, Step},
};
use crate::error::Result;

/// The phase of a sequence, with its steps in progress on the device.
#[derive(Debug)]
pub(super) enum Phase {
    /// The prompt is read.
    Prefill {
        /// Tokens that were read.
        processed: usize,
    },
    /// Steps without drafts.
    Decode {
        /// The step that is read next.
        step: Step,
        /// The next step, once its pass was made.
        next: Option<Next>,
    },
    /// The last token was read before its pass, which also has the drafts that follow it.
    Read {
        /// Set by the next turn; may be empty.
        drafts: Vec<u32>,
    },
    /// The pass over the last token and drafts was made.
    Verify(Round),
    /// No further turn is needed.
    Done,
}

impl Phase {
    /// Waits for the steps in progress on the device.
    pub(super) fn settle(&self) -> Result<()> {
        match self {
            Self::Decode { step, next } => match next {
                Some(Next::Step(next)) => next.settle(),
                Some(Next::Logits(logits)) => logits.settle(),
                None => step.settle(),
            },
            Self::Verify(round) => round.settle(),
            Self::Prefill { .. } | Self::Read { .. } | Self::Done => Ok(()),
        }
    }

    /// The arrays of the last pass that are evaluated.
    pub(super) fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Decode { step, next: None } => step.arrays().collect(),
            Self::Decode {
                next: Some(next), ..
            } => match next {
                Next::Step(step) => step.arrays().collect(),
                Next::Logits(logits) => vec![logits.as_array()],
            },
            Self::Verify(round) => round.arrays().collect(),
            Self::Prefill { .. } | Self::Read { .. } | Self::Done => Vec::new(),
        }
    }
}

/// The state of the step after another.
#[derive(Debug)]
pub(super) enum Next {
    /// The next step, in progress.
    Step(Step),
    /// The logits of the next step, f32 `[V]`, in progress: its choice needs the token of the step
    /// before on the host.
    Logits(PendingLogits),
}

/// The tokens of a sequence in the next pass through the network.
#[derive(Debug)]
pub(super) struct Pass {
    /// Tokens, u32 `[1, L]`, which may not be evaluated yet.
    pub(super) tokens: Array,
    /// Number of last tokens whose logits are needed.
    pub(super) logits: usize,
}

impl Pass {
    /// Number of tokens, `L`.
    pub(super) fn length(&self) -> usize {
        self.tokens.dim(1) as usize
    }
}
