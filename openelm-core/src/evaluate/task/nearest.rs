//! The names that are most like a mistyped one.

/// Largest number of names.
const COUNT: usize = 3;
/// Longest name in characters.
const MAX_LENGTH: usize = 100;

/// The names nearest to `name` by edits of characters, at most 3; names that contain it count as
/// near.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let written: Vec<char> = name.to_lowercase().chars().take(MAX_LENGTH).collect();
    let wanted: String = written.iter().collect();
    let limit = written.len() / 3 + 1;
    let mut near: Vec<(usize, &str)> = known
        .filter_map(|known| {
            let distance = distance(&written, known);
            let contains = wanted.len() > 2 && known.contains(&wanted);
            (distance <= limit || contains).then_some((distance, known))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter()
        .take(COUNT)
        .map(|(_, known)| known)
        .collect()
}

/// The number of inserted, removed and replaced characters between two names.
fn distance(written: &[char], known: &str) -> usize {
    let known: Vec<char> = known.chars().take(MAX_LENGTH).collect();
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (at, left) in written.iter().enumerate() {
        let mut diagonal = at;
        let mut before = at + 1;
        let mut next = vec![before];
        for (right, above) in known.iter().zip(row.iter().skip(1)) {
            before = (diagonal + usize::from(left != right))
                .min(before + 1)
                .min(above + 1);
            next.push(before);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mistyped_names() {
        let known = ["arc_easy", "arc_challenge", "hellaswag", "piqa", "mmlu"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("arc-easy"), ["arc_easy"]);
        assert_eq!(near("HellaSwag"), ["hellaswag"]);
        assert_eq!(near("challenge"), ["arc_challenge"]);
        assert_eq!(near("squad"), [""; 0]);
    }
}
