//! Plots of a run's `metrics.jsonl`.

use std::path::Path;

use openelm_core::text::for_each_line;

use openelm_core::output::write_file;

use crate::{
    chart::{Chart, LossCurve, Quantity},
    error::Error,
};

/// Plots the losses in `folder`'s `metrics.jsonl` as `loss.svg` and `loss.png`. Returns `false` if
/// there are none.
pub(crate) fn draw_loss(folder: &Path, title: &str) -> Result<bool, Error> {
    let [train, valid] = points(folder, ["train_loss", "val_loss"])?;
    let curve = LossCurve {
        title: title.into(),
        quantity: Quantity::Loss,
        train,
        valid,
    };
    draw(&curve, folder, "loss")
}

/// Plots the learning rate as `learning_rate.svg` and `learning_rate.png`, like [`draw_loss`].
pub(crate) fn draw_learning_rate(folder: &Path, title: &str) -> Result<bool, Error> {
    let [train] = points(folder, ["learning_rate"])?;
    let curve = LossCurve {
        title: title.into(),
        quantity: Quantity::LearningRate,
        train,
        valid: Vec::new(),
    };
    draw(&curve, folder, "learning_rate")
}

/// The values of `keys` in `folder`'s `metrics.jsonl`, with their iterations.
fn points<const N: usize>(folder: &Path, keys: [&str; N]) -> Result<[Vec<(u64, f64)>; N], Error> {
    let path = folder.join("metrics.jsonl");
    let mut points = [const { Vec::new() }; N];
    let read = for_each_line(&path, |line| {
        let line: Option<serde_json::Value> = serde_json::from_str(line).ok();
        for (key, points) in keys.iter().zip(&mut points) {
            let point = line.as_ref().and_then(|line| {
                Some((line.get("iteration")?.as_u64()?, line.get(key)?.as_f64()?))
            });
            points.extend(point);
        }
    });
    match read {
        Ok(()) => Ok(points),
        Err(error) => Err(problem(&path, error.to_string())),
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
