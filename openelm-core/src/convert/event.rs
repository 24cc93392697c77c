//! Progress of a conversion.

/// The progress of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertEvent<'a> {
    /// A tensor was written.
    Written {
        /// Name in the checkpoint.
        name: &'a str,
        /// Bytes written so far.
        done: u64,
        /// Total bytes to write.
        total: u64,
    },
    /// The result is being compared with the source.
    Verifying {
        /// Tensors compared so far.
        done: u64,
        /// Total number of tensors.
        total: u64,
    },
}
