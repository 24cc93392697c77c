//! A plot of the scores of models by task, with error bars.

use plotters::{prelude::*, style::RGBColor};

use super::canvas::{Area, Chart, Drawn, FRAME, GRID, SCALE, Stroke, TEXT, WIDTH, fit, px, text};

/// Height of the title and the legend, of a row, and of the axis, in final pixels.
const HEAD: u32 = 66;
const ROW: u32 = 40;
const AXIS: u32 = 54;
/// Left edge of the plot, and margin right of it, in final pixels.
const LEFT: i32 = 230;
const RIGHT: i32 = 36;
/// Width of the column of differences, in final pixels.
const DIFFERENCES: i32 = 120;
/// Distance of the axis' ends from the frame, in final pixels: a dot at an end is inside.
const INSET: i32 = 6;

/// A colour per model, from the Okabe-Ito palette.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// Scores of models by task.
pub(crate) struct Comparison {
    /// Heading; shortened if it does not fit.
    pub(crate) title: String,
    /// Names of the models.
    pub(crate) models: Vec<String>,
    /// A row per task and metric.
    pub(crate) rows: Vec<Row>,
}

/// Scores of a task.
pub(crate) struct Row {
    /// Task, metric and shots.
    pub(crate) label: String,
    /// Per model: score and half of its 95 % confidence interval, of 1.
    pub(crate) scores: Vec<(f64, f64)>,
    /// The score of random answers, of 1; `None` if there is none.
    pub(crate) chance: Option<f64>,
    /// The second model's score minus the first one's, and half of its 95 % confidence interval, of
    /// 1.
    pub(crate) difference: Option<(f64, f64)>,
}

impl Chart for Comparison {
    fn height(&self) -> u32 {
        HEAD + AXIS + ROW * self.rows.len().max(1) as u32
    }

    fn draw<B: DrawingBackend>(&self, backend: B, _: Stroke) -> Result<(), String> {
        let finite = |(score, half): &(f64, f64)| score.is_finite() && half.is_finite();
        if !self.rows.iter().flat_map(|row| &row.scores).any(finite) {
            return Err("no finite score to draw".into());
        }
        let root = backend.into_drawing_area();
        self.paint(&root)
            .and_then(|()| root.present())
            .map_err(|e| format!("cannot draw the comparison: {e}"))
    }
}

impl Comparison {
    /// The range of the axis in percent: all bars and a margin, in steps of 5.
    fn range(&self) -> (f64, f64) {
        let bars = self.rows.iter().flat_map(|row| {
            let bars = row
                .scores
                .iter()
                .flat_map(|(score, half)| [score - half, score + half]);
            bars.chain(row.chance)
        });
        let bars = bars.filter(|end| end.is_finite());
        let (low, high) = bars.fold((1.0_f64, 0.0_f64), |(low, high), end| {
            (low.min(end), high.max(end))
        });
        let low = ((low * 20.0 - 0.5).floor() * 5.0).clamp(0.0, 95.0);
        let high = ((high * 20.0 + 0.5).ceil() * 5.0).clamp(low + 5.0, 100.0_f64.max(low + 5.0));
        (low, high)
    }

    fn paint<B: DrawingBackend>(&self, root: &Area<B>) -> Drawn<B> {
        root.fill(&WHITE)?;
        let title = fit(root, &self.title, WIDTH as i32 - 16 - RIGHT)?;
        root.draw_text(&title, &text(19), (px(16), px(14)))?;
        self.legend(root)?;

        let has_differences = self.rows.iter().any(|row| row.difference.is_some());
        let column = if has_differences { DIFFERENCES } else { 0 };
        let (left, right) = (px(LEFT), px(WIDTH as i32 - RIGHT - column));
        let (top, bottom) = (px(HEAD as i32), px((self.height() - AXIS) as i32));
        let (low, high) = self.range();
        let x = |percent: f64| {
            let share = ((percent - low) / (high - low)).clamp(0.0, 1.0);
            left + px(INSET) + (share * f64::from(right - left - px(2 * INSET))) as i32
        };
        let step = [1.0, 5.0, 10.0, 20.0];
        let step = step.into_iter().find(|step| (high - low) / step <= 8.0);
        let step = step.unwrap_or(20.0);
        let mut tick = (low / step).ceil() * step;
        while tick <= high {
            let path = vec![(x(tick), top), (x(tick), bottom)];
            root.draw(&PathElement::new(path, GRID.stroke_width(SCALE)))?;
            let label = format!("{tick:.0}");
            let (width, _) = root.estimate_text_size(&label, &text(14))?;
            let at = (x(tick) - width as i32 / 2, bottom + px(6));
            root.draw_text(&label, &text(14), at)?;
            tick += step;
        }
        let axis = "score (%), bars: 95 % confidence";
        let (width, _) = root.estimate_text_size(axis, &text(15))?;
        let at = ((left + right - width as i32) / 2, bottom + px(26));
        root.draw_text(axis, &text(15), at)?;
        let frame = vec![(left, top), (left, bottom), (right, bottom)];
        root.draw(&PathElement::new(frame, FRAME.stroke_width(SCALE)))?;

        if has_differences {
            let head = "difference";
            let (width, height) = root.estimate_text_size(head, &text(14))?;
            let at = (
                px(WIDTH as i32 - 16) - width as i32,
                top - height as i32 - px(4),
            );
            root.draw_text(head, &text(14), at)?;
        }
        for (index, row) in self.rows.iter().enumerate() {
            let middle = top + px((ROW * index as u32 + ROW / 2) as i32);
            let label = fit(root, &row.label, LEFT - 16 - 12)?;
            let (width, height) = root.estimate_text_size(&label, &text(14))?;
            let at = (left - px(10) - width as i32, middle - height as i32 / 2);
            root.draw_text(&label, &text(14), at)?;
            if let Some((difference, half)) = row.difference {
                let label = format!("{:+.1} \u{b1} {:.1}", difference * 100.0, half * 100.0);
                let (width, height) = root.estimate_text_size(&label, &text(14))?;
                let at = (
                    px(WIDTH as i32 - 16) - width as i32,
                    middle - height as i32 / 2,
                );
                root.draw_text(&label, &text(14), at)?;
            }
            if let Some(chance) = row.chance {
                let at = x(chance * 100.0);
                let ends = vec![(at, middle - px(13)), (at, middle + px(13))];
                root.draw(&PathElement::new(ends, FRAME.stroke_width(SCALE)))?;
            }
            let count = row.scores.len() as i32;
            for (place, (score, half)) in row.scores.iter().enumerate() {
                if !score.is_finite() || !half.is_finite() {
                    continue;
                }
                let y = middle + px(9) * (2 * place as i32 - count + 1) / 2;
                let style = colour(place).stroke_width(2 * SCALE);
                let ends = [score - half, score + half].map(|end| x(end * 100.0));
                let bar = vec![(ends[0], y), (ends[1], y)];
                root.draw(&PathElement::new(bar, style))?;
                let centre = (x(score * 100.0), y);
                root.draw(&Circle::new(centre, px(4), colour(place).filled()))?;
            }
        }
        Ok(())
    }

    fn legend<B: DrawingBackend>(&self, root: &Area<B>) -> Drawn<B> {
        let (mut x, y) = (px(16), px(48));
        let room = (WIDTH as i32 - 16 - RIGHT - 90) / self.models.len().max(1) as i32 - 30;
        for (place, model) in self.models.iter().enumerate() {
            let dot = Circle::new((x + px(5), y), px(4), colour(place).filled());
            root.draw(&dot)?;
            let name = fit(root, model, room)?;
            root.draw_text(&name, &text(14), (x + px(14), y - px(5)))?;
            let (width, _) = root.estimate_text_size(&name, &text(14))?;
            x += px(14) + width as i32 + px(16);
        }
        if self.rows.iter().any(|row| row.chance.is_some()) {
            let ends = vec![(x + px(3), y - px(7)), (x + px(3), y + px(7))];
            root.draw(&PathElement::new(ends, FRAME.stroke_width(SCALE)))?;
            root.draw_text("chance", &text(14), (x + px(10), y - px(5)))?;
        }
        Ok(())
    }
}

fn colour(place: usize) -> RGBColor {
    COLOURS.get(place % COLOURS.len()).copied().unwrap_or(TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        let row = |label: &str, scores: &[(f64, f64)]| Row {
            label: label.into(),
            scores: scores.to_vec(),
            chance: Some(0.25),
            difference: None,
        };
        Comparison {
            title: "Scores <by> task".into(),
            models: vec!["base".into(), "fine-tuned".into()],
            rows: vec![
                row("arc_easy, acc_norm", &[(0.312, 0.02), (0.355, 0.02)]),
                row("arc_challenge, acc_norm", &[(0.25, 0.025), (0.261, 0.025)]),
                row("piqa, acc", &[(0.52, 0.023), (0.545, 0.023)]),
            ],
        }
    }

    #[test]
    fn svg_has_a_dot_per_model_and_task() {
        let svg = comparison().svg().unwrap();
        // Two per row, and two in the legend.
        assert_eq!(svg.matches("<circle").count(), 8);
        for text in [
            "arc_easy, acc_norm",
            "base",
            "fine-tuned",
            "chance",
            "Scores &lt;by&gt; task",
        ] {
            assert!(svg.lines().any(|line| line == text), "{text}: {svg}");
        }
        assert!(
            svg.starts_with("<svg width=\"800\" height=\"240\""),
            "{}",
            &svg[..80]
        );
    }

    #[test]
    fn differences_have_a_column() {
        let mut comparison = comparison();
        comparison.rows[0].difference = Some((0.043, 0.0127));
        let svg = comparison.svg().unwrap();
        for text in ["difference", "+4.3 \u{b1} 1.3"] {
            assert!(svg.lines().any(|line| line == text), "{text}: {svg}");
        }
    }

    #[test]
    fn the_axis_holds_all_bars() {
        let (low, high) = comparison().range();
        assert_eq!((low, high), (20.0, 60.0));
        let mut one = comparison();
        one.rows.truncate(1);
        one.rows[0].scores = vec![(1.0, 0.0), (1.0, 0.0)];
        one.rows[0].chance = None;
        assert_eq!(one.range(), (95.0, 100.0));
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let mut empty = comparison();
        empty.rows.clear();
        let error = empty.svg().unwrap_err();
        assert_eq!(error, "no finite score to draw");
        let mut broken = comparison();
        broken.rows[0].scores[0] = (f64::NAN, 0.0);
        broken.png().unwrap();
    }
}
