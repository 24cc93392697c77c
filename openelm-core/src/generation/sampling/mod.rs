//! Sampling of the next token.
//!
//! A [`Sampler`] applies its options to the logits of a step in this order:
//!
//! 1. `logit_bias`; `repetition_penalty`; `presence_penalty` and `frequency_penalty`; DRY.
//! 2. Exclusions: banned strings, end tokens before `min_tokens`, the mask of a grammar.
//! 3. Temperature; 0 takes the most likely token here.
//! 4. Filters: top-n-sigma, top-k, typical-p, top-p, min-p, XTC.
//! 5. A draw.
//!
//! The order of the penalties is mlx-lm's, with llama.cpp's DRY after them; the order of the
//! filters is llama.cpp's. As in Hugging Face, the temperature comes before the filters, so they
//! see its probabilities; in mlx-lm and llama.cpp it comes after them. In mlx-lm, top-k is the last
//! filter. With `repetition_penalty`, `temperature`, `top_k`, `top_p` and `min_p` alone this is
//! Hugging Face's order. A token of `forced_prefix` replaces all steps but the grammar's mask.
//!
//! All operations are part of the step's graph. Windows of tokens, DRY and banned strings need the
//! earlier tokens on the host before the next choice; see [`Sampler::reads_history`].

mod additions;
mod banned_strings;
mod choice;
#[cfg(test)]
mod draw_tests;
mod dry;
mod filters;
mod forced_prefix;
mod min_tokens;
mod options;
mod penalties;
mod repetition;
mod sampler;
#[cfg(test)]
mod sampler_tests;
mod sampler_vocabulary;
mod text_end;
mod xtc;

pub use choice::Choice;
pub use options::Sampling;
pub use sampler::Sampler;
pub use sampler_vocabulary::SamplerVocabulary;
