//! Speculation: several tokens of a text by one pass through the network.
//!
//! A drafter proposes tokens, the drafts. One pass gives the logits after each of them, and the
//! sampler chooses a token at each position. The longest prefix of drafts that equal the choices is
//! accepted, with the choice that follows it. So the text is the sampler's, and drafts change only
//! the time.

mod draft_length;
mod draft_model;
mod drafter;
mod prompt_lookup;
mod round;
mod speculation;

pub use draft_model::{DEFAULT_DRAFT_TOKENS, DraftModel};
pub(super) use round::Round;
pub(super) use speculation::Speculation;
