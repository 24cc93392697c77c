//! The report as text.

use std::{collections::BTreeSet, fmt::Write};

use openelm_core::{
    one_line,
    quantize::{PartReport, Quality, QuantizeReport},
};

use crate::output;

/// The report for people.
pub(super) fn table(report: &QuantizeReport) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<12}{value}");
    };
    line(
        "written",
        format!(
            "{}, {} in {:.1} s, {:.3} bits per weight",
            one_line(&report.target.display().to_string()),
            output::bytes(report.bytes),
            report.seconds,
            report.bits_per_weight,
        ),
    );
    line(
        "text",
        format!(
            "calibration {} tokens, held out {}",
            output::grouped(report.calibration_tokens as u64),
            output::grouped(report.valid_tokens as u64),
        ),
    );
    let _ = writeln!(
        text,
        "\n{:<24}{:>10}{:>12}{:>8}",
        "on held-out text", "KL", "perplexity", "top-1"
    );
    let mut row = |name: &str, quality: &Quality| {
        let agreement = quality.top1_agreement * 100.0;
        let _ = writeln!(
            text,
            "{name:<24}{:>10.5}{:>12.3}{agreement:>7.1}%",
            quality.kl, quality.perplexity
        );
    };
    row(
        "unquantised",
        &Quality {
            kl: 0.0,
            perplexity: report.unquantized_perplexity,
            top1_agreement: 1.0,
        },
    );
    row("rounded", &report.rounded);
    row(report.method, &report.quantized);
    let _ = writeln!(
        text,
        "\n{:<24}{:>6}{:>12}{:>12}",
        "part by itself", "bits", "KL rounded", "KL"
    );
    for part in &report.parts {
        let name = part.name.trim_start_matches("transformer.");
        let bits = bits(part);
        let _ = writeln!(
            text,
            "{name:<24}{bits:>6}{:>12.5}{:>12.5}",
            part.rounded_kl, part.kl
        );
    }
    text
}

/// The widths of a part's matrices.
fn bits(part: &PartReport) -> String {
    let widths: BTreeSet<usize> = part.matrices.iter().map(|matrix| matrix.bits).collect();
    match (widths.first(), widths.last()) {
        (Some(low), Some(high)) if low != high => format!("{low}-{high}"),
        (Some(one), _) => one.to_string(),
        _ => "none".into(),
    }
}
