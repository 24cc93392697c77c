//! Windows of a long text: each token is scored once.

use super::encoded_request::Part;
use crate::{
    config::Config,
    error::{Error, Result},
};

/// Windows in which a long text is scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowOptions {
    /// Largest number of tokens that the model reads at once, and that a window scores. `None`, the
    /// default: the model's context.
    pub window: Option<usize>,
    /// Number of tokens that each window after the first one scores. Its other tokens are context,
    /// and the last window is filled with context too: lm-eval's rolling windows, whose stride is
    /// the window. `None`, the default: separate windows, which score all their tokens; each begins
    /// with the last token of the one before.
    pub stride: Option<usize>,
}

impl WindowOptions {
    /// lm-eval's windows for a model: its context, and the last window is filled with context.
    pub fn rolling(config: &Config) -> Self {
        Self {
            window: None,
            stride: Some(config.max_context_length()),
        }
    }

    /// Checks the options for a model with `config`.
    ///
    /// # Errors
    /// [`Error::Option`] for a value out of range.
    pub fn check(&self, config: &Config) -> Result<()> {
        Windows::new(self, config).map(|_| ())
    }
}

/// Windows of checked lengths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    window: usize,
    stride: Option<usize>,
}

impl Windows {
    /// # Errors
    /// [`Error::Option`] for a value out of range.
    pub(super) fn new(options: &WindowOptions, config: &Config) -> Result<Self> {
        let context = config.max_context_length();
        let window = options.window.unwrap_or(context);
        if !(1..=context).contains(&window) {
            let problem = format!("expected 1 to the model's context of {context}, found {window}");
            return Err(Error::option("window", problem));
        }
        let stride = options.stride;
        if let Some(stride) = stride
            && !(1..=window).contains(&stride)
        {
            let problem = format!("expected 1 to the window of {window}, found {stride}");
            return Err(Error::option("stride", problem));
        }
        Ok(Self { window, stride })
    }

    /// The windows of `tokens`, of which the first is not scored.
    pub(super) fn parts(self, tokens: &[u32]) -> impl Iterator<Item = Part> {
        let mut scored = 1;
        std::iter::from_fn(move || {
            let left = tokens.len().saturating_sub(scored);
            if left == 0 {
                return None;
            }
            let step = match self.stride {
                Some(stride) if scored > 1 => stride,
                _ => self.window,
            };
            let end = scored + step.min(left);
            let start = match self.stride {
                // The last token is not read.
                Some(_) => (end - 1).saturating_sub(self.window),
                None => scored - 1,
            };
            let part = Part {
                context: tokens.get(start..scored)?.to_vec(),
                continuation: tokens.get(scored..end)?.to_vec(),
            };
            scored = end;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(count: u32, window: usize, stride: Option<usize>) -> Vec<(Vec<u32>, Vec<u32>)> {
        let tokens: Vec<u32> = (0..=count).collect();
        let parts = Windows { window, stride }.parts(&tokens);
        parts
            .map(|part| (part.context, part.continuation))
            .collect()
    }

    /// The pairs of lm-eval 0.4.13's `get_rolling_token_windows` and `make_disjoint_window` for the
    /// tokens 1 to 10 after 0.
    #[test]
    fn a_stride_gives_the_windows_of_lm_eval() {
        assert_eq!(
            windows(10, 4, Some(4)),
            [
                (vec![0], vec![1, 2, 3, 4]),
                (vec![4], vec![5, 6, 7, 8]),
                (vec![6, 7, 8], vec![9, 10]),
            ]
        );
        assert_eq!(
            windows(10, 5, Some(2)),
            [
                (vec![0], vec![1, 2, 3, 4, 5]),
                (vec![2, 3, 4, 5], vec![6, 7]),
                (vec![4, 5, 6, 7], vec![8, 9]),
                (vec![5, 6, 7, 8, 9], vec![10]),
            ]
        );
        assert_eq!(windows(3, 4, Some(4)), [(vec![0], vec![1, 2, 3])]);
        assert_eq!(windows(0, 4, Some(4)), []);
    }

    #[test]
    fn separate_windows_have_no_context_but_the_last_token() {
        assert_eq!(
            windows(10, 4, None),
            [
                (vec![0], vec![1, 2, 3, 4]),
                (vec![4], vec![5, 6, 7, 8]),
                (vec![8], vec![9, 10]),
            ]
        );
    }
}
