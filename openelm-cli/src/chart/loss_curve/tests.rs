use super::*;
use crate::chart::points::{MAX_ITERATION, tests::noise};

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

/// The number of pixels of exactly this colour.
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
    // Ten points and one in the legend.
    assert_eq!(svg.matches("<circle").count(), 11);
    // Paths of the legend and of the curves.
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
    // Text is drawn too: its strokes reach or approach the text colour.
    assert!(
        pixels
            .chunks(3)
            .filter(|p| p.iter().all(|v| *v < 80))
            .count()
            > 100
    );
}

#[test]
fn png_has_no_spurious_spikes() {
    // Noise in the lower half of the axis, which one validation point extends.
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
fn non_finite_points_are_left_out() {
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
    // The order of the points does not matter.
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
fn labels_have_the_decimals_of_the_steps() {
    assert_eq!(loss_label(9.0, &(1.9..9.8)), "9");
    assert_eq!(loss_label(2.5, &(2.0..5.6)), "2.5");
    assert_eq!(loss_label(3.25, &(3.0875..3.4125)), "3.25");
    assert_eq!(loss_label(3e38, &(-3e38..3e38)), "3.0e38");
}
