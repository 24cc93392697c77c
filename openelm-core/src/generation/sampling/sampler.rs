//! The state of one text's choices.

use std::collections::BTreeMap;

use mlx_rs::{
    Array,
    ops::{self, indexing},
    random::{self, RandomState},
};

use super::{
    additions::Additions,
    banned_strings::BannedStrings,
    choice::Choice,
    dry::Dry,
    filters::{Candidates, filter, mask},
    forced_prefix::ForcedPrefix,
    min_tokens::MinTokens,
    options::Sampling,
    penalties::Penalties,
    repetition::Repetition,
    sampler_vocabulary::SamplerVocabulary,
    xtc::Xtc,
};
use crate::error::{Error, Result};

/// The state of one text's choices. A clone makes the same choices as the original.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    vocab_size: usize,
    seed: u64,
    random: RandomState,
    /// Number of choices so far.
    chosen: usize,
    /// Prompt and accepted tokens, if the sampler reads them.
    history: Vec<u32>,
    bias: Option<Additions>,
    repetition: Option<Repetition>,
    penalties: Option<Penalties>,
    dry: Option<Dry>,
    banned: Option<BannedStrings>,
    min_tokens: Option<MinTokens>,
    forced: Option<ForcedPrefix>,
    xtc: Option<Xtc>,
}

impl Sampler {
    /// A sampler after `prompt`.
    ///
    /// # Errors
    /// [`Error::Option`] for a value out of range, an id that is not in the vocabulary, and an
    /// option that needs a tokenizer if there is none.
    pub fn new(
        sampling: &Sampling,
        vocabulary: &SamplerVocabulary<'_>,
        prompt: &[u32],
    ) -> Result<Self> {
        sampling.check()?;
        let seed = sampling.seed.unwrap_or_else(fresh_seed);
        let mut sampler = Self {
            vocab_size: vocabulary.size,
            seed,
            random: RandomState::with_seed(seed)?,
            chosen: 0,
            history: Vec::new(),
            bias: Additions::of_bias(&sampling.logit_bias, vocabulary)?,
            repetition: Repetition::new(sampling, vocabulary, prompt),
            penalties: Penalties::new(sampling),
            dry: Dry::new(sampling, vocabulary)?,
            banned: BannedStrings::new(sampling, vocabulary)?,
            min_tokens: MinTokens::new(sampling, vocabulary),
            forced: ForcedPrefix::new(sampling, vocabulary, prompt)?,
            xtc: Xtc::new(sampling, vocabulary),
            sampling: sampling.clone(),
        };
        if sampler.reads_history() {
            for &id in prompt {
                sampler.remember(id);
            }
        }
        Ok(sampler)
    }

    /// The seed of the draws.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// True if a choice depends on earlier tokens on the host: [`accept`](Self::accept) each token
    /// before the next choice then. Otherwise a choice can be made before the last is read.
    pub fn reads_history(&self) -> bool {
        let repetition = self.repetition.as_ref();
        repetition.is_some_and(Repetition::reads_history)
            || self.penalties.is_some()
            || self.dry.is_some()
            || self.banned.is_some()
    }

    /// Appends a token to the text. No effect unless the sampler
    /// [reads the history](Self::reads_history).
    pub fn accept(&mut self, id: u32) {
        if self.reads_history() {
            self.remember(id);
            if let Some(banned) = &mut self.banned {
                banned.accept(id);
            }
        }
    }

    /// The next token, u32 `[1]`, from f32 logits `[V]` and the tokens that a grammar allows, bool
    /// `[V]`.
    ///
    /// # Errors
    /// Failures of MLX.
    pub fn choose(&mut self, logits: &Array, allowed: Option<&Array>) -> Result<Array> {
        Ok(self.choice(logits, allowed)?.token)
    }

    /// Like [`choose`](Self::choose), with the logits that the token was chosen by.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn choice(&mut self, logits: &Array, allowed: Option<&Array>) -> Result<Choice> {
        let forced = self.forced.as_ref().and_then(|f| f.token(self.chosen));
        let (mut adjusted, mut excludes) = match forced {
            Some(id) => (self.only(logits, id)?, true),
            None => self.adjust(logits)?,
        };
        self.chosen += 1;
        if let Some(allowed) = allowed {
            adjusted = mask(&adjusted, allowed)?;
            excludes = true;
        }
        let largest = if excludes {
            Some(adjusted.max_axis(0, true)?)
        } else {
            None
        };
        let (token, candidates) = if forced.is_some() || self.sampling.is_greedy() {
            let token = indexing::argmax_axis(&adjusted, 0, true)?;
            let (logits, ids) = (adjusted, None);
            (token, Candidates { logits, ids })
        } else {
            self.draw(&adjusted)?
        };
        if let Some(repetition) = &mut self.repetition {
            repetition.mark(&token)?;
        }
        Ok(Choice {
            token,
            largest,
            candidates,
            vocab_size: self.vocab_size,
        })
    }

    /// True if the options exclude tokens.
    pub(crate) fn excludes(&self) -> bool {
        self.banned.is_some()
            || self.bias.is_some()
            || self.min_tokens.is_some()
            || self.forced.is_some()
    }

    /// The error of a step in which no token is allowed.
    pub fn nothing_allowed(&self) -> Error {
        let option = if self.banned.is_some() {
            "banned_strings"
        } else if self.bias.is_some() {
            "logit_bias"
        } else if self.min_tokens.is_some() {
            "min_tokens"
        } else {
            "forced_prefix"
        };
        let problem = "no token is left to generate after the exclusions of the options";
        Error::option(option, problem)
    }

    fn remember(&mut self, id: u32) {
        self.history.push(id);
        if let Some(dry) = &mut self.dry {
            dry.accept(id);
        }
    }

    /// The logits with all tokens but `id` excluded.
    fn only(&self, logits: &Array, id: u32) -> Result<Array> {
        let mut only = vec![false; self.vocab_size];
        if let Some(entry) = only.get_mut(id as usize) {
            *entry = true;
        }
        mask(logits, &Array::from_slice(&only, &[self.vocab_size as i32]))
    }

    /// The logits after bias, penalties and exclusions; true if tokens may be excluded.
    fn adjust(&self, logits: &Array) -> Result<(Array, bool)> {
        let mut logits = logits.clone();
        let mut excludes = false;
        if let Some(bias) = &self.bias {
            logits = bias.add_to(&logits)?;
            excludes = true;
        }
        if let Some(repetition) = &self.repetition {
            logits = repetition.apply(&logits, &self.history)?;
        }
        if let Some(subtracted) = Additions::new(&self.subtracted()) {
            logits = subtracted.add_to(&logits)?;
        }
        if let Some(banned) = &self.banned {
            logits = mask(&logits, &banned.allowed()?)?;
            excludes = true;
        }
        let min_tokens = self.min_tokens.as_ref();
        if let Some(allowed) = min_tokens.and_then(|min| min.allowed(self.chosen)) {
            logits = mask(&logits, allowed)?;
            excludes = true;
        }
        Ok((logits, excludes))
    }

    /// The values of the penalties that are subtracted, negative, by id.
    pub(super) fn subtracted(&self) -> BTreeMap<u32, f32> {
        let mut by_id = BTreeMap::new();
        if let Some(penalties) = &self.penalties {
            penalties.subtract(&self.history, &mut by_id);
        }
        if let Some(dry) = &self.dry {
            dry.subtract(&self.history, &mut by_id);
        }
        // A prompt may have ids without a piece, which have no logit.
        by_id.retain(|id, _| (*id as usize) < self.vocab_size);
        by_id
    }

    fn draw(&mut self, logits: &Array) -> Result<(Array, Candidates)> {
        let scaled = logits.divide(Array::from_f32(self.sampling.temperature))?;
        let key = self.random.next_key()?;
        let xtc = match &self.xtc {
            Some(xtc) => Some((xtc, self.random.next_key()?)),
            None => None,
        };
        let candidates = filter(&scaled, &self.sampling, xtc)?;
        let mut noise = gumbel(self.vocab_size, &key)?;
        if let Some(ids) = &candidates.ids {
            noise = noise.take(ids)?;
        }
        let rank = indexing::argmax_axis(candidates.logits.add(noise)?, 0, true)?;
        let token = match &candidates.ids {
            Some(ids) => ids.take(rank)?,
            None => rank,
        };
        Ok((token, candidates))
    }
}

/// Noise of the standard Gumbel distribution, f32 `[V]`, `-ln(-ln(1 - u))` of a uniform `u`: the
/// largest sum of logit and noise is a draw from the softmax (Gumbel, 1954). Each id has its own
/// noise, so that the rounding of logits, which differs between batch sizes, changes a draw only
/// if two sums are equal but for this rounding.
fn gumbel(vocab_size: usize, key: &Array) -> Result<Array> {
    let uniform = random::uniform::<f32, f32>(0.0, 1.0, &[vocab_size as i32], key)?;
    // A zero would choose a token whatever its logit: half of the smallest step instead.
    let positive = ops::maximum(uniform, Array::from_f32(0.5_f32.powi(33)))?;
    let exponential = ops::log1p(positive.negative()?)?.negative()?;
    Ok(exponential.log()?.negative()?)
}

/// A seed that differs from run to run.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState as HashState};
    // Short enough to type, and exact in a JSON number.
    HashState::new().hash_one(()) >> 32
}
