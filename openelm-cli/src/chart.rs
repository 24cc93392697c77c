//! Charts, as SVG and PNG. Colours are from the Okabe-Ito palette, which is safe for colour-blind
//! readers.

mod canvas;
mod comparison;
mod loss_curve;
mod points;
mod run_curves;
mod sizes;

pub(crate) use canvas::Chart;
pub(crate) use comparison::{Comparison, Row};
pub(crate) use loss_curve::{LossCurve, Quantity};
pub(crate) use run_curves::{Curve, RunCurves};
pub(crate) use sizes::{SizePoint, Sizes};
