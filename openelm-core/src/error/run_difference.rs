//! Differences between a run and the saved run to resume.

use std::fmt::{self, Display};

/// An option that differs between a run and the saved run to resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDifference {
    /// Name of the option, in snake case.
    pub option: String,
    /// Value in the saved run.
    pub expected: String,
    /// Value in this run.
    pub found: String,
}

impl Display for RunDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            option,
            expected,
            found,
        } = self;
        write!(f, "{option}: expected {expected}, found {found}")
    }
}
