//! A plot of divergence by size, with a logarithmic axis of the divergence.

use plotters::{prelude::*, style::RGBColor};

use super::canvas::{Area, Chart, Drawn, FRAME, GRID, SCALE, Stroke, TEXT, WIDTH, fit, px, text};

/// Height of the chart, and its margins, in final pixels.
const HEIGHT: u32 = 420;
const LEFT: i32 = 90;
const RIGHT: i32 = 36;
const TOP: i32 = 74;
const BOTTOM: i32 = 58;
/// A colour per series, from the Okabe-Ito palette.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];
/// Smallest divergence that is drawn.
const SMALLEST: f64 = 1e-7;

/// Divergences by size.
pub(crate) struct Sizes {
    /// Heading; shortened if it does not fit.
    pub(crate) title: String,
    /// The points of a series are joined in their order.
    pub(crate) points: Vec<SizePoint>,
}

/// A model.
pub(crate) struct SizePoint {
    /// Name of the series.
    pub(crate) series: String,
    /// Bits per weight.
    pub(crate) bits: f64,
    /// Divergence in nats per token.
    pub(crate) kl: f64,
}

impl Chart for Sizes {
    fn height(&self) -> u32 {
        HEIGHT
    }

    fn draw<B: DrawingBackend>(&self, backend: B, _: Stroke) -> Result<(), String> {
        if !self.points.iter().any(|point| point.kl.is_finite()) {
            return Err("no finite divergence to draw".into());
        }
        let root = backend.into_drawing_area();
        self.paint(&root)
            .and_then(|()| root.present())
            .map_err(|e| format!("cannot draw the sizes: {e}"))
    }
}

impl Sizes {
    /// The names of the series, in their order.
    fn series(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for point in &self.points {
            if !names.contains(&point.series.as_str()) {
                names.push(&point.series);
            }
        }
        names
    }

    /// The powers of ten around all divergences.
    fn powers(&self) -> (i32, i32) {
        let kls = self.points.iter().map(|point| point.kl);
        let kls = kls
            .filter(|kl| kl.is_finite())
            .map(|kl| kl.max(SMALLEST).log10());
        let (low, high) = kls.fold((f64::MAX, f64::MIN), |(low, high), kl| {
            (low.min(kl), high.max(kl))
        });
        let low = low.floor() as i32;
        (low, (high.ceil() as i32).max(low + 1))
    }

    fn paint<B: DrawingBackend>(&self, root: &Area<B>) -> Drawn<B> {
        root.fill(&WHITE)?;
        let title = fit(root, &self.title, WIDTH as i32 - 16 - RIGHT)?;
        root.draw_text(&title, &text(19), (px(16), px(14)))?;
        let (left, right) = (px(LEFT), px(WIDTH as i32 - RIGHT));
        let (top, bottom) = (px(TOP), px(HEIGHT as i32 - BOTTOM));
        let most = self
            .points
            .iter()
            .map(|point| point.bits)
            .fold(0.0, f64::max);
        let least = self
            .points
            .iter()
            .map(|point| point.bits)
            .fold(most, f64::min);
        let (first, last) = ((least - 0.25).floor(), (most + 0.25).ceil());
        let x = |bits: f64| {
            let share = ((bits - first) / (last - first)).clamp(0.0, 1.0);
            left + (share * f64::from(right - left)) as i32
        };
        let (low, high) = self.powers();
        let y = |kl: f64| {
            let power = kl.max(SMALLEST).log10();
            let share = (power - f64::from(low)) / f64::from(high - low);
            bottom - (share.clamp(0.0, 1.0) * f64::from(bottom - top)) as i32
        };
        for power in low..=high {
            let at = y(10.0_f64.powi(power));
            root.draw(&PathElement::new(
                vec![(left, at), (right, at)],
                GRID.stroke_width(SCALE),
            ))?;
            let label = match power {
                -3..=3 => format!("{}", 10.0_f64.powi(power)),
                _ => format!("1e{power}"),
            };
            let (width, height) = root.estimate_text_size(&label, &text(14))?;
            let place = (left - px(8) - width as i32, at - height as i32 / 2);
            root.draw_text(&label, &text(14), place)?;
        }
        for bits in first as i32..=last as i32 {
            let at = x(f64::from(bits));
            root.draw(&PathElement::new(
                vec![(at, top), (at, bottom)],
                GRID.stroke_width(SCALE),
            ))?;
            let label = bits.to_string();
            let (width, _) = root.estimate_text_size(&label, &text(14))?;
            root.draw_text(&label, &text(14), (at - width as i32 / 2, bottom + px(6)))?;
        }
        let axis = "bits per weight, scales included";
        let (width, _) = root.estimate_text_size(axis, &text(15))?;
        let place = ((left + right - width as i32) / 2, bottom + px(28));
        root.draw_text(axis, &text(15), place)?;
        root.draw_text("KL (nats per token)", &text(14), (px(16), top - px(24)))?;
        let frame = vec![(left, top), (left, bottom), (right, bottom)];
        root.draw(&PathElement::new(frame, FRAME.stroke_width(SCALE)))?;
        let mut legend = px(LEFT + 150);
        for (place, name) in self.series().into_iter().enumerate() {
            let colour = COLOURS.get(place % COLOURS.len()).copied().unwrap_or(TEXT);
            let own = self.points.iter().filter(|point| point.series == name);
            let own = own.filter(|point| point.kl.is_finite());
            let own: Vec<_> = own.map(|point| (x(point.bits), y(point.kl))).collect();
            root.draw(&PathElement::new(
                own.clone(),
                colour.stroke_width(2 * SCALE),
            ))?;
            for at in own {
                root.draw(&Circle::new(at, px(5), colour.filled()))?;
            }
            let dot = Circle::new((legend, top - px(18)), px(5), colour.filled());
            root.draw(&dot)?;
            root.draw_text(name, &text(14), (legend + px(10), top - px(24)))?;
            let (width, _) = root.estimate_text_size(name, &text(14))?;
            legend += px(30) + width as i32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        let point = |series: &str, bits: f64, kl: f64| SizePoint {
            series: series.into(),
            bits,
            kl,
        };
        Sizes {
            title: "Sizes <of> a model".into(),
            points: vec![
                point("rounded", 2.5, 3.0),
                point("rounded", 4.5, 0.03),
                point("dwq", 4.5, 0.009),
            ],
        }
    }

    #[test]
    fn svg_has_a_dot_per_model() {
        let svg = sizes().svg().unwrap();
        // Three models, and two series in the legend.
        assert_eq!(svg.matches("<circle").count(), 5);
        for text in ["rounded", "dwq", "0.01", "10", "Sizes &lt;of&gt; a model"] {
            assert!(svg.lines().any(|line| line == text), "{text}: {svg}");
        }
        assert!(sizes().png().unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let mut empty = sizes();
        empty.points.clear();
        assert_eq!(empty.svg().unwrap_err(), "no finite divergence to draw");
    }
}
