//! The training-loss curve of a run, or its learning rate, drawn as SVG and as PNG.
//!
//! Both formats come from one drawing made at [`SCALE`] times the final size: the SVG keeps the
//! finer coordinates behind its `viewBox`, and the PNG averages each block of pixels into one,
//! which smooths edges. Text is set in Noto Sans, embedded in the program, so that the PNG needs
//! no font on the system. Colours are Okabe and Ito's, distinct to colour-blind readers.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::{RangedCoordf64, RangedCoordu64};
use plotters::prelude::*;
use plotters::style::{RGBColor, register_font};

/// Width and height of the finished chart, in pixels.
const SIZE: (u32, u32) = (800, 480);
/// How many times finer than [`SIZE`] the chart is drawn.
const SCALE: u32 = 3;
/// The most points drawn of one series.
const MAX_DRAWN: usize = 2000;
/// The half life of the running mean, as a share of the points.
const HALF_LIFE: f64 = 0.02;
/// Iterations past this cannot be told apart on an axis of `f64`.
const MAX_ITERATION: u64 = 1 << 53;
/// The left edge of the plot, of the title and of the legend, in final pixels.
const LEFT: i32 = 80;
/// The room right of the plot, for half of the last label, in final pixels.
const RIGHT: i32 = 36;

const X_LABEL: &str = "iteration";
const RAW: RGBColor = RGBColor(139, 190, 226);
const MEAN: RGBColor = RGBColor(0, 114, 178);
const VALID: RGBColor = RGBColor(213, 94, 0);
const TEXT: RGBColor = RGBColor(40, 40, 40);
const FRAME: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// A training run's points, by iteration.
///
/// The losses are in nats per token. A loss that is not finite in `f32`, the precision that losses
/// are computed in, is left out.
pub(crate) struct LossCurve {
    /// The heading; shortened where it does not fit.
    pub(crate) title: String,
    /// What the points are.
    pub(crate) quantity: Quantity,
    /// The loss of training batches.
    pub(crate) train: Vec<(u64, f64)>,
    /// The loss over the validation set; may be empty.
    pub(crate) valid: Vec<(u64, f64)>,
}

/// What a curve shows.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Quantity {
    /// Losses: single ones, and their running mean.
    Loss,
    /// Learning rates: one smooth line, in the place of training losses.
    LearningRate,
}

impl LossCurve {
    /// The chart as the text of an SVG file, 800 by 480.
    ///
    /// # Errors
    /// When no point has a finite loss, or the drawing library fails.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let (width, height) = (SIZE.0 * SCALE, SIZE.1 * SCALE);
        let mut text = String::new();
        self.draw(
            SVGBackend::with_string(&mut text, (width, height)),
            Stroke::Joined,
        )?;
        // The view box keeps the fine coordinates; only the size it is shown at shrinks.
        Ok(text.replacen(
            &format!("width=\"{width}\" height=\"{height}\""),
            &format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1),
            1,
        ))
    }

    /// The chart as the bytes of a PNG file, 800 by 480, RGB.
    ///
    /// # Errors
    /// When no point has a finite loss, or the drawing library or the encoder fails.
    pub(crate) fn png(&self) -> Result<Vec<u8>, String> {
        let (width, height) = (SIZE.0 * SCALE, SIZE.1 * SCALE);
        let mut fine = vec![255; (width * height * 3) as usize];
        self.draw(
            BitMapBackend::with_buffer(&mut fine, (width, height)),
            Stroke::Pieces,
        )?;

        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer
            .write_image_data(&shrink(&fine))
            .map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    fn draw<B: DrawingBackend>(&self, backend: B, stroke: Stroke) -> Result<(), String> {
        // Registering twice only replaces the font by itself.
        register_font("sans-serif", FontStyle::Normal, notosans::REGULAR_TTF)
            .map_err(|_| "the embedded font cannot be read".to_string())?;
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

/// How a line is handed to the backend.
#[derive(Clone, Copy)]
enum Stroke {
    /// As one path.
    Joined,
    /// As one path for each pair of points. The bitmap backend gives the sharp corners of a joined
    /// path long spikes, which show losses that never were.
    Pieces,
}

type Points<'a> = &'a [(u64, f64)];
type Area<B> = DrawingArea<B, Shift>;
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordu64, RangedCoordf64>>;

fn paint<B: DrawingBackend>(
    root: &Area<B>,
    (title, quantity): (&str, Quantity),
    (train, valid): (Points<'_>, Points<'_>),
    (iterations, losses): (Range<u64>, Range<f64>),
    stroke: Stroke,
) -> Drawn<B> {
    root.fill(&WHITE)?;
    // The legend has a row of its own above the plot, where it cannot hide a curve.
    let (head, body) = root.split_vertically(px(66));
    let title = fit(&head, title)?;
    head.draw_text(&title, &text(19), (px(LEFT), px(14)))?;
    let y_label = match quantity {
        Quantity::Loss => {
            legend(&head, !train.is_empty(), !valid.is_empty())?;
            "loss (nats per token)"
        }
        Quantity::LearningRate => "learning rate",
    };

    let mut chart = ChartBuilder::on(&body)
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

fn line<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
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

fn dots<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    points: &[(u64, f64)],
    colour: RGBColor,
    radius: i32,
) -> Drawn<B> {
    let dot = |&point: &(u64, f64)| Circle::new(point, px(radius), colour.filled());
    chart.draw_series(points.iter().map(dot))?;
    Ok(())
}

/// Final pixels as units of the fine drawing.
fn px(pixels: i32) -> i32 {
    pixels * SCALE as i32
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size * SCALE).into_font().color(&TEXT)
}

/// The title on one line, without what XML forbids, cut to the width of the plot.
fn fit<B: DrawingBackend>(
    area: &Area<B>,
    title: &str,
) -> Result<String, DrawingAreaErrorKind<B::ErrorType>> {
    let room = SIZE.0 * SCALE - px(LEFT + RIGHT) as u32;
    let clean = |c: char| {
        if c.is_control() || c > '\u{fffd}' {
            ' '
        } else {
            c
        }
    };
    // More characters than this never fit, and measuring takes time for each.
    let mut kept: String = title.chars().take(200).map(clean).collect();
    let mut shown = kept.clone();
    if title.chars().nth(200).is_some() {
        shown.push('…');
    }
    while area.estimate_text_size(&shown, &text(19))?.0 > room && kept.pop().is_some() {
        shown = format!("{}…", kept.trim_end());
    }
    Ok(shown)
}

/// The points that can be placed, by rising iteration.
fn drawable(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let can_place =
        |&&(at, loss): &&(u64, f64)| at <= MAX_ITERATION && loss.abs() <= f64::from(f32::MAX);
    let mut points: Vec<_> = points.iter().filter(can_place).copied().collect();
    points.sort_by_key(|&(at, _)| at);
    points
}

/// The extent of the two axes, or `None` without a point. Neither is empty.
fn ranges(train: &[(u64, f64)], valid: &[(u64, f64)]) -> Option<(Range<u64>, Range<f64>)> {
    let points = || train.iter().chain(valid);
    let (first, last) = (points().map(|p| p.0).min()?, points().map(|p| p.0).max()?);
    let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);

    let iterations = if first == last {
        first.saturating_sub(1)..last + 1
    } else if first <= last / 20 {
        0..last
    } else {
        first..last
    };
    let size = low.abs().max(high.abs());
    let span = high - low;
    // Curves that differ only by rounding are drawn as flat.
    let pad = if span > size * 1e-6 {
        span * 0.05
    } else {
        size * 0.05
    }
    .max(1e-6);
    Some((iterations, low - pad..high + pad))
}

/// The exponential mean up to each point, weighted by the points seen so far only, so that the
/// first is not drawn towards zero.
fn running_mean(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let decay = 0.5_f64.powf(1.0 / (points.len() as f64 * HALF_LIFE).max(1.0));
    let (mut sum, mut weight) = (0.0, 0.0);
    let step = |&(at, loss): &(u64, f64)| {
        sum = sum * decay + loss;
        weight = weight * decay + 1.0;
        (at, sum / weight)
    };
    points.iter().map(step).collect()
}

/// At most [`MAX_DRAWN`] of the points: of each stretch the first, the last, the lowest and the
/// highest, so that no spike is lost.
fn thin(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= MAX_DRAWN {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(MAX_DRAWN);
    for stretch in points.chunks(points.len().div_ceil(MAX_DRAWN / 4)) {
        let by_loss = |a: &(usize, &(u64, f64)), b: &(usize, &(u64, f64))| a.1.1.total_cmp(&b.1.1);
        let low = stretch
            .iter()
            .enumerate()
            .min_by(by_loss)
            .map_or(0, |(i, _)| i);
        let high = stretch
            .iter()
            .enumerate()
            .max_by(by_loss)
            .map_or(0, |(i, _)| i);
        let mut picks = [0, low, high, stretch.len() - 1];
        picks.sort_unstable();
        let mut last = None;
        for pick in picks {
            if last.replace(pick) != Some(pick) {
                kept.extend(stretch.get(pick).copied());
            }
        }
    }
    kept
}

/// A label with as many decimals as the steps of an axis over `range` need.
fn loss_label(loss: f64, range: &Range<f64>) -> String {
    if range.start.abs().max(range.end.abs()) >= 1e5 {
        return format!("{loss:.1e}");
    }
    // At most 8 labels are asked for, so the step, 1, 2 or 5 times a power of ten, is over a ninth
    // of the range; a ninth just over 5 thus means a step of 10.
    let ninth = (range.end - range.start) / 9.0;
    let decimals = (-(ninth * 1.99).log10().floor()).clamp(0.0, 7.0) as usize;
    format!("{loss:.decimals$}")
}

/// The mean of each block of `SCALE` by `SCALE` pixels of RGB.
///
/// Most of a chart looks like what lies above it. To compare is quick in an unoptimised build too, as
/// tests run it; there to add up all pixels takes half a second.
fn shrink(fine: &[u8]) -> Vec<u8> {
    const PIECE: usize = 3 * 20;
    let (width, height) = (3 * SIZE.0 as usize, SIZE.1 as usize);
    let scale = SCALE as usize;
    let mut coarse = Vec::with_capacity(width * height);
    for y in 0..height {
        for x in (0..width).step_by(PIECE) {
            let rows = |y: usize| {
                let starts = (0..scale).map(move |i| ((y * scale + i) * width + x) * scale);
                starts.filter_map(|start| fine.get(start..start + PIECE * scale))
            };
            if y > 0 && rows(y).eq(rows(y - 1)) {
                let above = coarse.len() - width;
                coarse.extend_from_within(above..above + PIECE);
                continue;
            }
            let mut sums = [0_u32; PIECE];
            for row in rows(y) {
                for (sums, block) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * scale)) {
                    for (i, value) in block.iter().enumerate() {
                        sums[i % 3] += u32::from(*value);
                    }
                }
            }
            coarse.extend(sums.map(|sum| (sum / (SCALE * SCALE)) as u8));
        }
    }
    coarse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: u64) -> f64 {
        let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / 1.7e7 - 0.5
    }

    fn run(steps: u64) -> LossCurve {
        let loss = |i: u64| 2.4 + 7.0 * (-(i as f64) / (steps as f64 / 12.0)).exp();
        LossCurve {
            title: "OpenELM 270M <test> & more".into(),
            quantity: Quantity::Loss,
            train: (1..=steps).map(|i| (i, loss(i) + 0.5 * noise(i))).collect(),
            valid: (1..=10)
                .map(|k| k * steps / 10)
                .map(|i| (i, loss(i) + 0.1))
                .collect(),
        }
    }

    fn curve(train: &[(u64, f64)], valid: &[(u64, f64)]) -> LossCurve {
        LossCurve {
            title: "run".into(),
            quantity: Quantity::Loss,
            train: train.to_vec(),
            valid: valid.to_vec(),
        }
    }

    fn decode(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        (info.width, info.height, pixels)
    }

    /// How many pixels have exactly the colour.
    fn count(pixels: &[u8], colour: RGBColor) -> usize {
        pixels
            .chunks(3)
            .filter(|p| *p == [colour.0, colour.1, colour.2])
            .count()
    }

    #[test]
    fn svg_holds_the_series_and_their_names() {
        let svg = run(50).svg().unwrap();
        assert!(svg.starts_with("<svg width=\"800\" height=\"480\" viewBox=\"0 0 2400 1440\""));
        assert!(svg.trim_end().ends_with("</svg>"));
        for text in [
            "iteration",
            "loss (nats per token)",
            "training",
            "training, running mean",
            "validation",
            "OpenELM 270M &lt;test&gt; &amp; more",
        ] {
            assert!(
                svg.lines().any(|line| line == text),
                "no text {text:?} in:\n{svg}"
            );
        }
        // Ten points and the one in the legend.
        assert_eq!(svg.matches("<circle").count(), 11);
        // The paths of the legend and of the curves.
        for colour in ["#8BBEE2", "#0072B2", "#D55E00"] {
            let paths = svg
                .lines()
                .filter(|l| l.starts_with("<polyline") && l.contains(colour));
            assert_eq!(paths.count(), 2, "{colour}");
        }
    }

    #[test]
    fn png_is_800_by_480_with_every_series() {
        let (width, height, pixels) = decode(&run(50).png().unwrap());
        assert_eq!((width, height), (800, 480));
        assert!(count(&pixels, MEAN) > 300);
        assert!(count(&pixels, VALID) > 300);
        assert!(count(&pixels, RAW) > 10);
        assert!(count(&pixels, WHITE) > 300_000);
        // Letters are drawn, too: their strokes reach the text colour or come near.
        assert!(
            pixels
                .chunks(3)
                .filter(|p| p.iter().all(|v| *v < 80))
                .count()
                > 100
        );
    }

    #[test]
    fn png_has_no_spike_that_the_losses_do_not() {
        // Noise in the lower half of the axis, which one validation point stretches.
        let train: Vec<_> = (0..50_000)
            .map(|i| (i, noise(i).clamp(-0.5, 0.5) + 0.5))
            .collect();
        let (width, _, pixels) = decode(&curve(&train, &[(0, 2.0)]).png().unwrap());
        let rows = pixels.chunks(width as usize * 3).enumerate();
        let pale = rows.filter(|(_, row)| {
            row.chunks(3)
                .filter(|p| p[2] > p[0].saturating_add(40))
                .count()
                > 5
        });
        let tops: Vec<usize> = pale.map(|(y, _)| y).filter(|y| *y > 70).collect();
        // The plot runs from y 70 (2.1) to 430 (-0.1), so 1.0 is at 250 and 0.0 at 414.
        assert!(*tops.first().unwrap() >= 248, "{tops:?}");
        assert!(*tops.last().unwrap() <= 416, "{tops:?}");
    }

    #[test]
    fn a_missing_series_is_not_in_the_legend() {
        let svg = curve(&[(1, 2.0), (2, 1.0)], &[]).svg().unwrap();
        assert!(!svg.contains("validation"));
        let svg = curve(&[], &[(1, 2.0), (2, 1.0)]).svg().unwrap();
        assert!(svg.contains("validation") && !svg.contains("training"));
    }

    #[test]
    fn unusual_runs_are_drawn() {
        for (name, train) in [
            ("one", vec![(7, 3.25)]),
            ("one at zero", vec![(0, 0.0)]),
            ("last iteration", vec![(MAX_ITERATION, 2.0)]),
            ("equal", vec![(1, 2.0), (2, 2.0), (3, 2.0)]),
            ("equal, zero", vec![(1, 0.0), (2, 0.0)]),
            ("same iteration", vec![(5, 2.0), (5, 3.0)]),
            ("nearly equal", vec![(1, 2.0), (2, 2.0 + f64::EPSILON)]),
            ("tiny", vec![(1, 1e-30), (2, 2e-30)]),
            ("huge", vec![(1, 2.0), (2, 3e38), (3, -3e38)]),
        ] {
            let curve = curve(&train, &[]);
            assert!(curve.svg().unwrap().contains("running mean"), "{name}");
            assert!(count(&decode(&curve.png().unwrap()).2, MEAN) > 30, "{name}");
        }
        let svg = curve(&[(7, 3.25)], &[]).svg().unwrap();
        assert_eq!(
            svg.matches("<circle").count(),
            1,
            "a lone point shows as a dot"
        );
    }

    #[test]
    fn points_that_cannot_be_placed_are_left_out() {
        let bad = [
            (1, f64::NAN),
            (2, f64::INFINITY),
            (3, 1e39),
            (u64::MAX, 1.0),
        ];
        let error = curve(&bad, &bad).svg().unwrap_err();
        assert_eq!(
            error,
            "no finite loss to draw: of 4 training and 4 validation points, none is"
        );
        let error = curve(&[], &[]).png().unwrap_err();
        assert_eq!(
            error,
            "no finite loss to draw: of 0 training and 0 validation points, none is"
        );

        let good = [(1, 3.0), (2, 2.0)];
        let both = [&bad[..2], &good[..], &bad[2..]].concat();
        assert_eq!(curve(&both, &bad).svg(), curve(&good, &[]).svg());
        // The order they are given in does not matter.
        let swapped = [good[1], good[0]];
        assert_eq!(curve(&swapped, &[]).svg(), curve(&good, &[]).svg());
    }

    #[test]
    fn long_titles_are_cut_and_control_characters_dropped() {
        let title = "a long title ".repeat(40);
        let svg = LossCurve { title, ..run(20) }.svg().unwrap();
        let line = svg
            .lines()
            .find(|line| line.starts_with("a long title"))
            .unwrap();
        assert!(
            line.ends_with('…') && (60..130).contains(&line.chars().count()),
            "{line}"
        );
        let svg = LossCurve {
            title: "a\u{0}b\nc".into(),
            ..run(20)
        }
        .svg()
        .unwrap();
        assert!(svg.lines().any(|line| line == "a b c"));
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_spikes() {
        let mut points: Vec<_> = (0..300_000).map(|i| (i, noise(i))).collect();
        points[123_456].1 = 50.0;
        points[234_567].1 = -50.0;
        let kept = thin(&points);
        assert!((1500..=MAX_DRAWN).contains(&kept.len()), "{}", kept.len());
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        assert!(kept.contains(&(123_456, 50.0)) && kept.contains(&(234_567, -50.0)));
        assert_eq!(thin(&points[..2000]), points[..2000]);
        // As many points as leave a last stretch of one.
        assert!(thin(&points[..2001]).len() <= MAX_DRAWN);
    }

    #[test]
    fn running_mean_halves_in_a_fiftieth_of_the_points() {
        // 100 points: a half life of 2 points, so weights 1, 2^-0.5, 2^-1, ...
        let mut points: Vec<_> = (0..100).map(|i| (i, 0.0)).collect();
        points[0].1 = 4.0;
        let mean = running_mean(&points);
        assert_eq!(mean[0], (0, 4.0));
        // 4 * 0.5 / (1 + 0.70710678 + 0.5)
        assert!((mean[2].1 - 0.906_163).abs() < 1e-6, "{:?}", mean[2]);
        assert!(mean[99].1 < 1e-14);
    }

    #[test]
    fn labels_have_the_decimals_of_the_steps() {
        assert_eq!(loss_label(9.0, &(1.9..9.8)), "9");
        assert_eq!(loss_label(2.5, &(2.0..5.6)), "2.5");
        assert_eq!(loss_label(3.25, &(3.0875..3.4125)), "3.25");
        assert_eq!(loss_label(3e38, &(-3e38..3e38)), "3.0e38");
    }
}
