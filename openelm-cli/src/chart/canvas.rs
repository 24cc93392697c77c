//! SVG and PNG of one drawing.
//!
//! Both formats come from one drawing at [`SCALE`] times the final size. The SVG keeps the finer
//! coordinates in its `viewBox`. The PNG averages each block of pixels into one, which smooths
//! edges. Text is set in Noto Sans, which is embedded in the program.

use plotters::{
    coord::Shift,
    prelude::*,
    style::{RGBColor, register_font},
};

/// Width of a finished chart, in pixels.
pub(super) const WIDTH: u32 = 800;
/// Drawing size over the final size.
pub(super) const SCALE: u32 = 3;

pub(super) const TEXT: RGBColor = RGBColor(40, 40, 40);
pub(super) const FRAME: RGBColor = RGBColor(120, 120, 120);
pub(super) const GRID: RGBColor = RGBColor(228, 228, 228);

pub(super) type Area<B> = DrawingArea<B, Shift>;
pub(super) type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// A chart that can be drawn as SVG and PNG.
pub(crate) trait Chart {
    /// Height of the finished chart, in pixels; its width is [`WIDTH`].
    fn height(&self) -> u32;

    /// Draws on `backend`, whose size is [`SCALE`] times the finished size.
    ///
    /// # Errors
    /// If there is nothing to draw, or the drawing library fails.
    fn draw<B: DrawingBackend>(&self, backend: B, stroke: Stroke) -> Result<(), String>;

    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    fn svg(&self) -> Result<String, String> {
        register()?;
        let (width, height) = (WIDTH * SCALE, self.height() * SCALE);
        let mut text = String::new();
        let backend = SVGBackend::with_string(&mut text, (width, height));
        self.draw(backend, Stroke::Joined)?;
        // The view box keeps the fine coordinates; only the displayed size shrinks.
        Ok(text.replacen(
            &format!("width=\"{width}\" height=\"{height}\""),
            &format!("width=\"{}\" height=\"{}\"", WIDTH, self.height()),
            1,
        ))
    }

    /// The chart as the bytes of a PNG file, RGB.
    ///
    /// # Errors
    /// As [`draw`](Self::draw), and if the encoder fails.
    fn png(&self) -> Result<Vec<u8>, String> {
        register()?;
        let (width, height) = (WIDTH * SCALE, self.height() * SCALE);
        let mut fine = vec![255; (width * height * 3) as usize];
        let backend = BitMapBackend::with_buffer(&mut fine, (width, height));
        self.draw(backend, Stroke::Pieces)?;

        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, WIDTH, self.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer
            .write_image_data(&shrink(&fine, self.height()))
            .map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}

/// Path style of a line.
#[derive(Clone, Copy)]
pub(crate) enum Stroke {
    /// One path.
    Joined,
    /// One path per pair of points. The bitmap backend draws long false spikes at the sharp corners
    /// of a joined path.
    Pieces,
}

/// Registers the font; a second time has no effect.
fn register() -> Result<(), String> {
    register_font("sans-serif", FontStyle::Normal, notosans::REGULAR_TTF)
        .map_err(|_| "the embedded font cannot be read".to_string())
}

/// Converts final pixels to units of the fine drawing.
pub(super) fn px(pixels: i32) -> i32 {
    pixels * SCALE as i32
}

pub(super) fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size * SCALE).into_font().color(&TEXT)
}

/// The title on one line, without characters that XML forbids, cut to `room` final pixels.
pub(super) fn fit<B: DrawingBackend>(
    area: &Area<B>,
    title: &str,
    room: i32,
) -> Result<String, DrawingAreaErrorKind<B::ErrorType>> {
    let room = px(room) as u32;
    let clean = |c: char| {
        if c.is_control() || c > '\u{fffd}' {
            ' '
        } else {
            c
        }
    };
    // Longer titles never fit, and measuring time grows with the length.
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

/// The mean of each block of `SCALE` by `SCALE` pixels of RGB.
///
/// Most rows of a chart equal the row above. Comparing rows is fast in unoptimised builds too;
/// adding up all pixels would take half a second in tests.
fn shrink(fine: &[u8], height: u32) -> Vec<u8> {
    const PIECE: usize = 3 * 20;
    let (width, height) = (3 * WIDTH as usize, height as usize);
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

    #[test]
    fn shrinking_takes_the_mean_of_every_block() {
        const HEIGHT: u32 = 120;
        let (width, scale) = (WIDTH as usize, SCALE as usize);
        let (fine_width, fine_height) = (width * scale, HEIGHT as usize * scale);
        // Blocks that differ from the blocks above them, and blocks that do not.
        let mut fine = vec![255_u8; 3 * fine_width * fine_height];
        for (i, value) in fine.iter_mut().enumerate() {
            let (row, at) = (i / (3 * fine_width), i % (3 * fine_width));
            let row = if at % 500 < 250 { row / 60 } else { row };
            *value = ((row * 9_973 + at * 31) % 251) as u8;
        }
        let coarse = shrink(&fine, HEIGHT);
        assert_eq!(coarse.len(), 3 * width * HEIGHT as usize);
        for (i, value) in coarse.iter().enumerate().step_by(7) {
            let (y, x, channel) = (i / (3 * width), i / 3 % width, i % 3);
            let mut sum = 0;
            for (down, right) in (0..scale * scale).map(|k| (k / scale, k % scale)) {
                let at = (y * scale + down) * fine_width + x * scale + right;
                sum += u32::from(fine[3 * at + channel]);
            }
            assert_eq!(u32::from(*value), sum / (SCALE * SCALE), "{x} {y}");
        }
    }
}
