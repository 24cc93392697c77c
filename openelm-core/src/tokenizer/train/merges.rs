//! Training of byte-pair encoding: repeatedly merges the most frequent pair of pieces. Ties go to
//! the pair with the lower ids, so the result is deterministic.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
};

/// Longest piece, in characters: the default of SentencePiece and LLaMA.
const LONGEST: usize = 16;

type Pair = (u32, u32);

/// Merges the pairs of `words` (ids of `pieces`, and the frequency of the word) until there are
/// `size` pieces or no pair is left, and returns the merges in order.
pub(super) fn learn(
    words: Vec<(Vec<u32>, u64)>,
    pieces: &mut Vec<String>,
    size: usize,
) -> Vec<(String, String)> {
    let mut learner = Learner::new(words);
    let mut ids: HashMap<String, u32> = pieces.iter().cloned().zip(0..).collect();
    let mut lengths: Vec<usize> = pieces.iter().map(|piece| piece.chars().count()).collect();
    let mut merges = Vec::new();
    while pieces.len() < size {
        let Some(pair) = learner.most_frequent() else {
            break;
        };
        let part = |id: u32| Some((pieces.get(id as usize)?, lengths.get(id as usize)?));
        let (Some((left, left_length)), Some((right, right_length))) = (part(pair.0), part(pair.1))
        else {
            continue;
        };
        let length = left_length + right_length;
        if length > LONGEST {
            continue;
        }
        let piece = format!("{left}{right}");
        merges.push((left.clone(), right.clone()));
        // Two different pairs can form the same piece.
        let next = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        let id = *ids.entry(piece.clone()).or_insert(next);
        if id == next {
            pieces.push(piece);
            lengths.push(length);
        }
        learner.merge(pair, id);
    }
    merges
}

struct Learner {
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Words that contain, or contained, a pair.
    places: HashMap<Pair, HashSet<usize>>,
    /// Possibly outdated counts; each is at least the current count.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Learner {
    fn new(words: Vec<(Vec<u32>, u64)>) -> Self {
        let mut learner = Self {
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
            words: Vec::new(),
        };
        for (place, (word, count)) in words.iter().enumerate() {
            for pair in pairs(word) {
                *learner.counts.entry(pair).or_default() += count;
                learner.places.entry(pair).or_default().insert(place);
            }
        }
        learner.words = words;
        let counts = learner.counts.iter();
        learner.queue = counts
            .map(|(&pair, &count)| (count, Reverse(pair)))
            .collect();
        learner
    }

    /// Removes the most frequent pair from the queue.
    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or_default();
            if now == count {
                return Some(pair);
            }
            if now > 0 && now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Replaces every occurrence of `pair` by `id`.
    fn merge(&mut self, pair: Pair, id: u32) {
        let places = self.places.remove(&pair).unwrap_or_default();
        let mut grown = BTreeSet::new();
        for place in places {
            let Some((word, count)) = self.words.get_mut(place) else {
                continue;
            };
            // The counts of other pairs do not change.
            let changes = |piece| piece == pair.0 || piece == pair.1 || piece == id;
            let changes = |other: &Pair| changes(other.0) || changes(other.1);
            for old in pairs(word).filter(changes) {
                if let Some(total) = self.counts.get_mut(&old) {
                    *total -= (*count).min(*total);
                }
            }
            *word = merged(word, pair, id);
            for new in pairs(word).filter(changes) {
                *self.counts.entry(new).or_default() += *count;
                self.places.entry(new).or_default().insert(place);
                if new.0 == id || new.1 == id {
                    grown.insert(new);
                }
            }
        }
        for pair in grown {
            let count = self.counts.get(&pair).copied().unwrap_or_default();
            self.queue.push((count, Reverse(pair)));
        }
    }
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.iter().copied().zip(word.iter().copied().skip(1))
}

fn merged(word: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut made = Vec::with_capacity(word.len());
    let mut rest = word.iter().copied().peekable();
    while let Some(piece) = rest.next() {
        if piece == pair.0 && rest.peek() == Some(&pair.1) {
            rest.next();
            made.push(id);
        } else {
            made.push(piece);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same training with a full count before each merge.
    fn slowly(words: &[(&str, u64)], pieces: &mut Vec<String>, size: usize) -> Vec<String> {
        let mut words: Vec<(Vec<String>, u64)> = words
            .iter()
            .map(|(word, count)| (word.chars().map(String::from).collect(), *count))
            .collect();
        let mut merges = Vec::new();
        let mut done = HashSet::new();
        while pieces.len() < size {
            let mut counts: HashMap<(String, String), u64> = HashMap::new();
            for (word, count) in &words {
                for pair in word.windows(2) {
                    *counts
                        .entry((pair[0].clone(), pair[1].clone()))
                        .or_default() += count;
                }
            }
            let id = |piece: &String| pieces.iter().position(|p| p == piece).unwrap();
            let fits = |pair: &(String, String)| pair.0.len() + pair.1.len() <= LONGEST;
            let best = counts
                .into_iter()
                .filter(|(pair, _)| fits(pair))
                .max_by_key(|(pair, count)| (*count, Reverse((id(&pair.0), id(&pair.1)))));
            let Some((pair, _)) = best else { break };
            let piece = format!("{}{}", pair.0, pair.1);
            for (word, _) in &mut words {
                let mut at = 0;
                while at + 1 < word.len() {
                    if word[at] == pair.0 && word[at + 1] == pair.1 {
                        word.splice(at..at + 2, [piece.clone()]);
                    }
                    at += 1;
                }
            }
            if done.insert(piece.clone()) {
                pieces.push(piece);
            }
            merges.push(format!("{} {}", pair.0, pair.1));
        }
        merges
    }

    #[test]
    fn incremental_counts_match_full_counts() {
        let mut state = 7_u64;
        let mut step = |limit: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % limit
        };
        let alphabet: Vec<char> = "abc".chars().collect();
        for _ in 0..60 {
            let words: BTreeSet<String> = (0..12)
                .map(|_| {
                    (0..2 + step(20))
                        .map(|_| alphabet[step(3) as usize])
                        .collect()
                })
                .collect();
            let words: Vec<(&str, u64)> = words
                .iter()
                .map(|word| (word.as_str(), 1 + step(3)))
                .collect();
            let first: Vec<String> = alphabet.iter().map(char::to_string).collect();
            let ids = |word: &str| word.chars().map(|c| c as u32 - 'a' as u32).collect();
            let mut found_pieces = first.clone();
            let split = words
                .iter()
                .map(|&(word, count)| (ids(word), count))
                .collect();
            let found = learn(split, &mut found_pieces, 40);
            let found: Vec<String> = found.iter().map(|(l, r)| format!("{l} {r}")).collect();
            let mut pieces = first;
            assert_eq!(found, slowly(&words, &mut pieces, 40));
            assert_eq!(found_pieces, pieces);
        }
    }

    #[test]
    fn pieces_have_at_most_16_characters() {
        let mut pieces = vec!["a".to_owned()];
        learn(vec![(vec![0; 400], 3)], &mut pieces, 99);
        assert_eq!(pieces.iter().map(String::len).max(), Some(16));
    }
}
