//! Several generations that advance together.

use super::{generation::Generation, sequence::Sequence, turn::turn};
use crate::model::Model;

/// Prompt tokens of one pass for all sequences: a pass with more would delay the sequences that
/// decode. A chunk of one sequence may be longer.
const PROMPT_TOKENS: usize = 128;

/// Makes a turn of all `generations` that need one for their next event
/// ([`Generation::ready_event`]): one pass through the network for those whose models share weights
/// and active adapters. Each text is that of the generation alone, up to rounding. Generations may
/// join and leave between two calls.
///
/// Prompts are read in order; when a pass has enough tokens of prompts, others wait.
pub fn advance(generations: &mut [&mut Generation<'_>]) {
    let mut parts: Vec<(&Model, &mut Sequence)> = Vec::with_capacity(generations.len());
    let mut prompts = 0;
    for generation in generations {
        let (model, sequence) = generation.parts();
        let tokens = sequence.prompt_tokens_of_turn();
        if !sequence.is_live() || (prompts > 0 && prompts + tokens > PROMPT_TOKENS && tokens > 0) {
            continue;
        }
        prompts += tokens;
        parts.push((model, sequence));
    }
    // The revision is that of the weights and of the active adapters.
    parts.sort_by_key(|(model, _)| model.adapters.revision);
    for group in parts.chunk_by_mut(|(a, _), (b, _)| a.adapters.revision == b.adapters.revision) {
        if let Some(&(model, _)) = group.first() {
            let mut sequences: Vec<_> = group.iter_mut().map(|(_, s)| &mut **s).collect();
            turn(model, &mut sequences);
        }
    }
}
