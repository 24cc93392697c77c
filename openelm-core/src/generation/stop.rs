//! Stop strings: the text ends before the first match, independent of token boundaries.

/// Searches a stream of text for stop strings.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text not passed on yet: it may be the start of a stop string.
    held: String,
}

impl StopMatcher {
    /// Empty strings among `stops` are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        let stops = stops
            .iter()
            .filter(|stop| !stop.is_empty())
            .cloned()
            .collect();
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next piece. Returns the text that is now final, and true if a stop string ended
    /// it; text after a stop string is dropped.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(start) = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min()
        {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let certain = self.held.len() - self.possible_start();
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Ends the stream and returns the held text, which is not part of a stop string.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length in bytes of the longest end of `held` that is the start of a stop string.
    fn possible_start(&self) -> usize {
        let begins = |stop: &String| {
            (1..stop.len().min(self.held.len() + 1))
                .rev()
                .find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_string()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = matcher.push(piece);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(matcher.finish());
        (out, false)
    }

    #[test]
    fn finds_stop_strings_across_pieces() {
        assert_eq!(
            run(&["END"], &["one E", "N", "D two"]),
            (vec!["one ".into(), "".into(), "".into()], true)
        );
        assert_eq!(
            run(&["END"], &["one E", "NX"]),
            (vec!["one ".into(), "ENX".into(), "".into()], false)
        );
        assert_eq!(
            run(&["END"], &["EN", "EN", "D"]),
            (vec!["".into(), "EN".into(), "".into()], true)
        );
    }

    #[test]
    fn earliest_stop_string_wins() {
        assert_eq!(
            run(&["world", "lo"], &["hello world"]),
            (vec!["hel".into()], true)
        );
    }

    #[test]
    fn keeps_partial_matches() {
        assert_eq!(
            run(&["\n\n"], &["a\n"]),
            (vec!["a".into(), "\n".into()], false)
        );
        assert_eq!(run(&[""], &["abc"]), (vec!["abc".into(), "".into()], false));
    }

    #[test]
    fn finds_multi_byte_stop_strings() {
        assert_eq!(
            run(&["é→x"], &["aé", "→", "x"]),
            (vec!["a".into(), "".into(), "".into()], true)
        );
        assert_eq!(
            run(&["é→x"], &["aé", "→y"]),
            (vec!["a".into(), "é→y".into(), "".into()], false)
        );
    }

    #[test]
    fn result_does_not_depend_on_the_split() {
        let text = "abcabdabcabcx";
        for stop in ["abcx", "abd", "zz", "cabc", "x"] {
            let expected = &text[..text.find(stop).unwrap_or(text.len())];
            for cut in 0..text.len() {
                for second in cut..text.len() {
                    let pieces = [&text[..cut], &text[cut..second], &text[second..]];
                    let (out, stopped) = run(&[stop], &pieces);
                    assert_eq!(out.concat(), expected);
                    assert_eq!(stopped, text.contains(stop));
                }
            }
        }
    }
}
