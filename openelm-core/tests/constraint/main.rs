//! Structured output: constraints on the tokens of a text.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod masks;
mod refused;
mod schemas;
mod tokenizers;

use openelm_core::{
    Tokenizer,
    constraint::{Constraint, ConstraintKind},
};
use openelm_testing::{Random, repository};

/// `</s>` of the bundled tokenizer.
const EOS: u32 = 2;

fn tales() -> Tokenizer {
    Tokenizer::from_file(repository("examples/tales/tokenizer.json")).unwrap()
}

fn schema(text: &str) -> ConstraintKind {
    ConstraintKind::JsonSchema(text.to_owned())
}

fn regex(text: &str) -> ConstraintKind {
    ConstraintKind::Regex(text.to_owned())
}

fn choice(texts: &[&str]) -> ConstraintKind {
    ConstraintKind::Choice(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// A text of at most `limit` tokens after `prompt`, each drawn from the allowed ones with equal
/// probability, as an untrained model draws. `None` if the text does not end.
fn drawn(
    tokenizer: &Tokenizer,
    kind: &ConstraintKind,
    prompt: &[u32],
    seed: u64,
    limit: usize,
) -> Option<String> {
    let mut random = Random(seed);
    let mut constraint = Constraint::new(tokenizer, kind, prompt, tokenizer.eos_id()).unwrap();
    let mut detokenizer = tokenizer.detokenizer(prompt);
    let mut text = String::new();
    for _ in 0..limit {
        let ids = constraint.mask().unwrap().ids();
        let id = *random.pick(&ids);
        constraint.accept(id).unwrap();
        if id == tokenizer.eos_id() {
            return Some(text + &detokenizer.finish());
        }
        text += &detokenizer.push(id).unwrap();
    }
    None
}
