//! The table of scores.

use openelm_core::evaluate::task::PairedDifference;

/// A row of the table.
pub(super) struct Row {
    /// Task, group or text.
    pub(super) name: String,
    /// Examples before each question; none for texts.
    pub(super) shots: Option<usize>,
    /// Number of questions, or of documents of texts.
    pub(super) number: Option<usize>,
    pub(super) metric: String,
    pub(super) value: f64,
    pub(super) stderr: Option<f64>,
    /// Value of the other model, and the difference from it.
    pub(super) against: Option<(f64, Option<PairedDifference>)>,
}

/// The rows in columns; with the columns of the other model if a row has one.
pub(super) fn table(rows: &[Row]) -> String {
    let compares = rows.iter().any(|row| row.against.is_some());
    let mut cells = vec![
        vec!["task", "shots", "n", "metric", "value", "stderr"]
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>(),
    ];
    if let Some(head) = cells.first_mut().filter(|_| compares) {
        head.extend(["against", "difference", "95 % interval"].map(String::from));
    }
    let mut last = None;
    for row in rows {
        let is_same = last == Some((&row.name, row.shots));
        let first = |text: String| if is_same { String::new() } else { text };
        let mut line = vec![
            first(row.name.clone()),
            first(row.shots.map_or(String::new(), |shots| shots.to_string())),
            first(
                row.number
                    .map_or(String::new(), |number| number.to_string()),
            ),
            row.metric.clone(),
            number(row.value),
            row.stderr.map_or(String::new(), number),
        ];
        if let Some((value, difference)) = &row.against {
            line.push(number(*value));
            match difference {
                Some(paired) => {
                    line.push(format!("{:+.4}", paired.difference));
                    line.push(format!("{:+.4} to {:+.4}", paired.low, paired.high));
                }
                None => line.push(format!("{:+.4}", row.value - value)),
            }
        }
        cells.push(line);
        last = Some((&row.name, row.shots));
    }
    aligned(&cells)
}

/// Four decimals, or seven significant digits for large numbers.
fn number(value: f64) -> String {
    if value.abs() < 1000.0 {
        format!("{value:.4}")
    } else {
        format!("{value:.1}")
    }
}

/// Columns separated by two spaces; text is aligned left, numbers right.
fn aligned(cells: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let widths = cells.iter().filter_map(|line| line.get(column));
        widths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for line in cells {
        let mut shown = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            let is_text = column == 0 || column == 3;
            let padded = if is_text {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            };
            if column > 0 {
                shown.push_str("  ");
            }
            shown.push_str(&padded);
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |metric: &str, value: f64| Row {
            name: "arc_easy".into(),
            shots: Some(0),
            number: Some(2376),
            metric: metric.into(),
            value,
            stderr: Some(0.0095),
            against: None,
        };
        let perplexity = Row {
            name: "held-out.txt".into(),
            shots: None,
            number: Some(23),
            metric: "perplexity".into(),
            value: 12345.678,
            stderr: None,
            against: None,
        };
        let text = table(&[row("acc", 0.3125), row("acc_norm", 0.3), perplexity]);
        let expected = "\
task          shots     n  metric        value  stderr
arc_easy          0  2376  acc          0.3125  0.0095
                           acc_norm     0.3000  0.0095
held-out.txt           23  perplexity  12345.7
";
        assert_eq!(text, expected);
    }
}
