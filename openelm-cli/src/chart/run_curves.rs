//! A plot of a quantity over the iterations of several runs.

use plotters::{prelude::*, style::RGBColor};

use super::{
    canvas::{Area, Chart, Drawn, SCALE, Stroke, TEXT, WIDTH, fit, px, text},
    loss_curve::{HEIGHT, LEFT, RIGHT, axes, dots, line},
    points::{drawable, ranges, running_mean, thin},
};

/// A colour per run, from the Okabe-Ito palette.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
/// Names per row of the legend, and its height in final pixels.
const COLUMNS: usize = 4;
const LEGEND: i32 = 22;

/// Curves of several runs.
pub(crate) struct RunCurves {
    /// Heading; shortened if it does not fit.
    pub(crate) title: String,
    /// Name of the quantity.
    pub(crate) y_label: String,
    /// A curve per run.
    pub(crate) curves: Vec<Curve>,
}

/// The curve of a run, by iteration.
pub(crate) struct Curve {
    /// Name of the run.
    pub(crate) name: String,
    /// Values that are not finite in `f32` are left out.
    pub(crate) points: Vec<(u64, f64)>,
    /// Draw the running mean, over the values in a pale colour.
    pub(crate) is_raw: bool,
}

impl Chart for RunCurves {
    fn height(&self) -> u32 {
        let more = self.curves.len().saturating_sub(1) / COLUMNS;
        HEIGHT + LEGEND as u32 * more as u32
    }

    fn draw<B: DrawingBackend>(&self, backend: B, stroke: Stroke) -> Result<(), String> {
        let root = backend.into_drawing_area();
        self.paint(&root, stroke)
            .and_then(|()| root.present())
            .map_err(|e| format!("cannot draw the runs: {e}"))
    }
}

impl RunCurves {
    fn paint<B: DrawingBackend>(&self, root: &Area<B>, stroke: Stroke) -> Drawn<B> {
        root.fill(&WHITE)?;
        let legend_rows = self.curves.len().div_ceil(COLUMNS) as i32;
        let (head, body) = root.split_vertically(px(44 + LEGEND * legend_rows));
        let title = fit(&head, &self.title, WIDTH as i32 - LEFT - RIGHT)?;
        head.draw_text(&title, &text(19), (px(LEFT), px(14)))?;
        self.legend(&head)?;
        let curves: Vec<_> = self
            .curves
            .iter()
            .map(|curve| drawable(&curve.points))
            .collect();
        let Some((iterations, values)) = ranges(&curves.concat(), &[]) else {
            return Ok(());
        };
        let mut chart = axes(&body, &self.y_label, iterations, values)?;
        for (place, (curve, points)) in self.curves.iter().zip(&curves).enumerate() {
            if curve.is_raw {
                line(&mut chart, &thin(points), pale(colour(place)), 1, stroke)?;
            }
        }
        for (place, (curve, points)) in self.curves.iter().zip(&curves).enumerate() {
            let smooth = if curve.is_raw {
                running_mean(points)
            } else {
                points.clone()
            };
            line(&mut chart, &thin(&smooth), colour(place), 2, stroke)?;
            if let [point] = points.as_slice() {
                dots(&mut chart, &[*point], colour(place), 4)?;
            }
        }
        Ok(())
    }

    fn legend<B: DrawingBackend>(&self, head: &Area<B>) -> Drawn<B> {
        let column = (WIDTH as i32 - LEFT - RIGHT) / self.curves.len().clamp(1, COLUMNS) as i32;
        for (place, curve) in self.curves.iter().enumerate() {
            let (row, place_in_row) = (place / COLUMNS, place % COLUMNS);
            let x = px(LEFT + column * place_in_row as i32);
            let y = px(52 + LEGEND * row as i32);
            let end = x + px(26);
            let style = colour(place).stroke_width(2 * SCALE).filled();
            head.draw(&PathElement::new([(x, y), (end, y)], style))?;
            let name = fit(head, &curve.name, (column - 45) * 4 / 3)?;
            head.draw_text(&name, &text(14), (end + px(7), y - px(5)))?;
        }
        Ok(())
    }
}

fn colour(place: usize) -> RGBColor {
    COLOURS.get(place % COLOURS.len()).copied().unwrap_or(TEXT)
}

fn pale(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let mixed = |part: u8| (255.0 - 0.4 * f64::from(255 - part)) as u8;
    RGBColor(mixed(red), mixed(green), mixed(blue))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves(count: usize) -> RunCurves {
        RunCurves {
            title: "Training <runs>".into(),
            y_label: "loss".into(),
            curves: (0..count)
                .map(|run| Curve {
                    name: format!("run {run}"),
                    points: (1..50)
                        .map(|at| (at, 5.0 / at as f64 + run as f64))
                        .collect(),
                    is_raw: run % 2 == 0,
                })
                .collect(),
        }
    }

    #[test]
    fn every_run_has_a_name_and_a_curve() {
        let svg = curves(6).svg().unwrap();
        for run in 0..6 {
            assert!(
                svg.lines().any(|line| line == format!("run {run}")),
                "{run}"
            );
        }
        // In the legend and in the plot.
        for RGBColor(red, green, blue) in COLOURS {
            let stroke = format!("stroke=\"#{red:02X}{green:02X}{blue:02X}\" stroke-width=\"6\"");
            assert_eq!(svg.matches(&stroke).count(), 2, "{stroke}");
        }
        assert!(svg.starts_with("<svg width=\"800\" height=\"502\""));
        assert!(curves(2).png().unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn one_point_is_a_dot() {
        let mut one = curves(1);
        one.curves[0].points.truncate(1);
        assert_eq!(one.svg().unwrap().matches("<circle").count(), 1);
    }
}
