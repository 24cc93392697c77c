//! Row counts of a run.

use openelm_core::finetune::Split;

use crate::output;

/// Prints the numbers of rows, targets and tokens of `split`.
pub(super) fn show_counts(split: &Split) {
    let counts = split.counts;
    let grouped = |number: usize| output::grouped(number as u64);
    let mut line = format!(
        "{}: {} rows, {} targets of {} tokens",
        split.path.display(),
        grouped(counts.rows),
        grouped(counts.targets),
        grouped(counts.tokens),
    );
    for (count, what) in [
        (counts.split, "too long and split"),
        (counts.dropped, "dropped"),
        (counts.truncated, "truncated"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {} {what}", grouped(count)));
        }
    }
    output::note(&line);
}
