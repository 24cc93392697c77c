//! `quantize.svg` and `quantize.png` in the result's folder: divergence by size.

use std::path::Path;

use openelm_core::{output::write_file, quantize::QuantizeReport};

use crate::{
    chart::{Chart, SizePoint, Sizes},
    error::Error,
};

/// Draws the divergences of the roundings and of the result by size.
pub(super) fn draw(folder: &Path, report: &QuantizeReport) -> Result<(), Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let points = report.points.iter().map(|point| SizePoint {
        series: match point.method {
            "round" => "rounded".to_owned(),
            method => method.to_owned(),
        },
        bits: point.bits_per_weight,
        kl: point.quality.kl,
    });
    let mut points: Vec<_> = points.collect();
    if let Some(last) = points.last_mut() {
        last.series = report.method.to_owned();
    }
    let chart = Sizes {
        title: format!("{name}: divergence from the unquantised model by size"),
        points,
    };
    let svg = chart.svg().map(String::into_bytes);
    for (kind, picture) in [("svg", svg), ("png", chart.png())] {
        let path = folder.join("quantize").with_extension(kind);
        let picture = picture.map_err(|problem| Error::Settings {
            place: path.display().to_string(),
            problem,
        })?;
        write_file(&path, picture)?;
    }
    Ok(())
}
