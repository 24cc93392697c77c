//! Plots of a run's `metrics.jsonl`.

use std::{fs, path::Path};

use openelm_core::output::write_file;

use crate::{
    chart::{LossCurve, Quantity},
    error::Error,
};

/// Plots the losses in `folder`'s `metrics.jsonl` as `loss.svg` and `loss.png`. Returns `false` if
/// there are none.
pub(crate) fn draw_loss(folder: &Path, title: &str) -> Result<bool, Error> {
    let metrics = Metrics::read(folder)?;
    let curve = LossCurve {
        title: title.into(),
        quantity: Quantity::Loss,
        train: metrics.points("train_loss"),
        valid: metrics.points("val_loss"),
    };
    draw(&curve, folder, "loss")
}

/// Plots the learning rate as `learning_rate.svg` and `learning_rate.png`, like [`draw_loss`].
pub(crate) fn draw_learning_rate(folder: &Path, title: &str) -> Result<bool, Error> {
    let curve = LossCurve {
        title: title.into(),
        quantity: Quantity::LearningRate,
        train: Metrics::read(folder)?.points("learning_rate"),
        valid: Vec::new(),
    };
    draw(&curve, folder, "learning_rate")
}

struct Metrics(Vec<serde_json::Value>);

impl Metrics {
    fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("metrics.jsonl");
        let text = fs::read_to_string(&path).map_err(|error| problem(&path, error.to_string()))?;
        let lines = text.lines();
        let lines = lines.filter_map(|line| serde_json::from_str(line).ok());
        Ok(Self(lines.collect()))
    }

    fn points(&self, key: &str) -> Vec<(u64, f64)> {
        let points = self.0.iter();
        let points = points
            .filter_map(|line| Some((line.get("iteration")?.as_u64()?, line.get(key)?.as_f64()?)));
        points.collect()
    }
}

fn draw(curve: &LossCurve, folder: &Path, name: &str) -> Result<bool, Error> {
    if curve.train.is_empty() {
        return Ok(false);
    }
    let svg = curve.svg().map(String::into_bytes);
    for (kind, picture) in [("svg", svg), ("png", curve.png())] {
        let path = folder.join(name).with_extension(kind);
        let picture = picture.map_err(|error| problem(&path, error))?;
        write_file(&path, picture)?;
    }
    Ok(true)
}

fn problem(path: &Path, problem: String) -> Error {
    Error::Settings {
        place: path.display().to_string(),
        problem,
    }
}
