//! A plot of a run's training loss or learning rate.

use std::ops::Range;

use plotters::{
    coord::types::{RangedCoordf64, RangedCoordu64},
    prelude::*,
    style::RGBColor,
};

use super::{
    canvas::{Area, Chart, Drawn, FRAME, GRID, SCALE, Stroke, WIDTH, fit, px, text},
    points::{drawable, ranges, running_mean, thin},
};

/// Height of the chart, in pixels.
pub(super) const HEIGHT: u32 = 480;
/// Left edge of the plot, the title and the legend, in final pixels.
pub(super) const LEFT: i32 = 80;
/// Margin right of the plot, for half of the last label, in final pixels.
pub(super) const RIGHT: i32 = 36;

const X_LABEL: &str = "iteration";
const RAW: RGBColor = RGBColor(139, 190, 226);
const MEAN: RGBColor = RGBColor(0, 114, 178);
const VALID: RGBColor = RGBColor(213, 94, 0);

/// Points of a training run, by iteration.
///
/// Losses are in nats per token. Losses that are not finite in `f32`, the dtype of the loss, are
/// left out.
pub(crate) struct LossCurve {
    /// Heading; shortened if it does not fit.
    pub(crate) title: String,
    /// Quantity of the points.
    pub(crate) quantity: Quantity,
    /// Losses of training batches.
    pub(crate) train: Vec<(u64, f64)>,
    /// Losses on the validation set; may be empty.
    pub(crate) valid: Vec<(u64, f64)>,
}

/// The quantity that a curve shows.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Quantity {
    /// Losses: points, with their running mean.
    Loss,
    /// Learning rates: one line without a running mean.
    LearningRate,
}

impl Chart for LossCurve {
    fn height(&self) -> u32 {
        HEIGHT
    }

    fn draw<B: DrawingBackend>(&self, backend: B, stroke: Stroke) -> Result<(), String> {
        let train = drawable(&self.train);
        let valid = drawable(&self.valid);
        let (iterations, losses) = ranges(&train, &valid).ok_or_else(|| {
            let (train, valid) = (self.train.len(), self.valid.len());
            format!(
                "no finite loss to draw: of {train} training and {valid} validation points, none is"
            )
        })?;

        let root = backend.into_drawing_area();
        paint(
            &root,
            (&self.title, self.quantity),
            (&train, &valid),
            (iterations, losses),
            stroke,
        )
        .and_then(|()| root.present())
        .map_err(|e| format!("cannot draw the loss curve: {e}"))
    }
}

type Points<'a> = &'a [(u64, f64)];
pub(super) type Plot<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordu64, RangedCoordf64>>;

fn paint<B: DrawingBackend>(
    root: &Area<B>,
    (title, quantity): (&str, Quantity),
    (train, valid): (Points<'_>, Points<'_>),
    (iterations, losses): (Range<u64>, Range<f64>),
    stroke: Stroke,
) -> Drawn<B> {
    root.fill(&WHITE)?;
    // The legend has its own row above the plot, so that it does not cover a curve.
    let (head, body) = root.split_vertically(px(66));
    let title = fit(&head, title, WIDTH as i32 - LEFT - RIGHT)?;
    head.draw_text(&title, &text(19), (px(LEFT), px(14)))?;
    let y_label = match quantity {
        Quantity::Loss => {
            legend(&head, !train.is_empty(), !valid.is_empty())?;
            "loss (nats per token)"
        }
        Quantity::LearningRate => "learning rate",
    };

    let mut chart = axes(&body, y_label, iterations, losses)?;
    let smooth = match quantity {
        Quantity::Loss => {
            line(&mut chart, &thin(train), RAW, 1, stroke)?;
            running_mean(train)
        }
        Quantity::LearningRate => train.to_vec(),
    };
    line(&mut chart, &thin(&smooth), MEAN, 2, stroke)?;
    if let [point] = train {
        dots(&mut chart, &[*point], MEAN, 4)?;
    }
    let valid = thin(valid);
    line(&mut chart, &valid, VALID, 2, stroke)?;
    dots(
        &mut chart,
        &valid,
        VALID,
        if valid.len() > 80 { 2 } else { 4 },
    )
}

/// The plot below the head, with its axes.
pub(super) fn axes<'a, B: DrawingBackend>(
    body: &'a Area<B>,
    y_label: &str,
    iterations: Range<u64>,
    losses: Range<f64>,
) -> Result<Plot<'a, B>, DrawingAreaErrorKind<B::ErrorType>> {
    let mut chart = ChartBuilder::on(body)
        .margin_right(px(RIGHT))
        .margin_bottom(px(6))
        .margin_left(px(12))
        .margin_top(px(4))
        .x_label_area_size(px(44))
        .y_label_area_size(px(LEFT - 12))
        .build_cartesian_2d(iterations, losses.clone())?;
    chart
        .configure_mesh()
        .x_labels(9)
        .y_labels(8)
        .set_all_tick_mark_size(px(4))
        .x_desc(X_LABEL)
        .y_desc(y_label)
        .axis_style(FRAME.stroke_width(SCALE))
        .bold_line_style(GRID.stroke_width(SCALE))
        .light_line_style(TRANSPARENT)
        .label_style(text(14))
        .axis_desc_style(text(15))
        .y_label_formatter(&|loss| loss_label(*loss, &losses))
        .draw()?;
    Ok(chart)
}

fn legend<B: DrawingBackend>(head: &Area<B>, train: bool, valid: bool) -> Drawn<B> {
    let entries = [
        ("training", RAW, 1, train),
        ("training, running mean", MEAN, 2, train),
        ("validation", VALID, 2, valid),
    ];
    let (mut x, y) = (px(LEFT), px(52));
    for (name, colour, width, shown) in entries {
        if !shown {
            continue;
        }
        let end = x + px(26);
        let style = colour.stroke_width(width * SCALE).filled();
        head.draw(&PathElement::new([(x, y), (end, y)], style))?;
        if name == "validation" {
            head.draw(&Circle::new(((x + end) / 2, y), px(4), colour.filled()))?;
        }
        let (name_width, _) = head.estimate_text_size(name, &text(14))?;
        head.draw_text(name, &text(14), (end + px(7), y - px(5)))?;
        x = end + px(7) + i32::try_from(name_width).unwrap_or(0) + px(24);
    }
    Ok(())
}

pub(super) fn line<B: DrawingBackend>(
    chart: &mut Plot<'_, B>,
    points: &[(u64, f64)],
    colour: RGBColor,
    width: u32,
    stroke: Stroke,
) -> Drawn<B> {
    let style = colour.stroke_width(width * SCALE);
    match stroke {
        Stroke::Joined => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
        Stroke::Pieces => {
            let piece = |ends: &[(u64, f64)]| PathElement::new(ends.to_vec(), style);
            chart.draw_series(points.windows(2).map(piece))?
        }
    };
    Ok(())
}

pub(super) fn dots<B: DrawingBackend>(
    chart: &mut Plot<'_, B>,
    points: &[(u64, f64)],
    colour: RGBColor,
    radius: i32,
) -> Drawn<B> {
    let dot = |&point: &(u64, f64)| Circle::new(point, px(radius), colour.filled());
    chart.draw_series(points.iter().map(dot))?;
    Ok(())
}

/// An axis label with the number of decimals that the steps over `range` need.
fn loss_label(loss: f64, range: &Range<f64>) -> String {
    if range.start.abs().max(range.end.abs()) >= 1e5 {
        return format!("{loss:.1e}");
    }
    // An axis has at most 8 labels, so its step (1, 2 or 5 times a power of ten) is more than a
    // ninth of the range. If a ninth is just over 5, the step is 10.
    let ninth = (range.end - range.start) / 9.0;
    let decimals = (-(ninth * 1.99).log10().floor()).clamp(0.0, 7.0) as usize;
    format!("{loss:.decimals$}")
}

#[cfg(test)]
mod tests;
