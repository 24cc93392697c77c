//! Encoding of rows to token ids. A whole row has at least two tokens: BOS and EOS.

use super::example::{Example, PreferencePair};
use crate::{
    error::Result,
    tokenizer::{PromptParts, Tokenizer},
};

/// BOS, the text, EOS.
pub(crate) fn text(tokenizer: &Tokenizer, text: &str) -> Result<Example> {
    let tokens = ended(tokenizer, tokenizer.encode_prompt(text)?);
    Ok(Example {
        tokens,
        first_target: 1,
    })
}

/// BOS, the prompt, the completion, EOS; with `mask_prompt` only the tokens of the completion are
/// targets, otherwise all.
pub(crate) fn completion(
    tokenizer: &Tokenizer,
    prompt: &PromptParts,
    completion: &str,
    mask_prompt: bool,
) -> Result<Example> {
    let context = tokenizer.encode_parts(prompt)?;
    let mut example = answered(tokenizer, &context, completion)?;
    if !mask_prompt {
        example.first_target = 1;
    }
    Ok(example)
}

/// The prompt with each of the answers.
pub(crate) fn pair(
    tokenizer: &Tokenizer,
    prompt: &PromptParts,
    chosen: &str,
    rejected: &str,
) -> Result<PreferencePair> {
    let context = tokenizer.encode_parts(prompt)?;
    Ok(PreferencePair {
        chosen: answered(tokenizer, &context, chosen)?,
        rejected: answered(tokenizer, &context, rejected)?,
    })
}

/// `context`, which has at least BOS, followed by the answer as the target.
fn answered(tokenizer: &Tokenizer, context: &[u32], answer: &str) -> Result<Example> {
    let mut tokens = context.to_vec();
    tokens.extend(tokenizer.encode_continuation(context, answer)?);
    Ok(Example {
        tokens: ended(tokenizer, tokens),
        first_target: context.len(),
    })
}

/// Appends EOS to `tokens`, unless it is already the last token.
fn ended(tokenizer: &Tokenizer, mut tokens: Vec<u32>) -> Vec<u32> {
    if tokens.last() != Some(&tokenizer.eos_id()) {
        tokens.push(tokenizer.eos_id());
    }
    tokens
}
