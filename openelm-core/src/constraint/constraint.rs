//! The state of a constraint on one text.

use std::{fmt, sync::Arc};

use llguidance::Matcher;

use super::{
    compiler::ConstraintCompiler, grammar, kind::ConstraintKind, mask::TokenMask,
    vocabulary::Vocabulary,
};
use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// A constraint on one text: the tokens that may follow the tokens so far.
///
/// The constraint is on the text that the [`Detokenizer`](crate::tokenizer::Detokenizer) emits
/// after the prompt. The end-of-sequence token is allowed only where the text is complete. A copy
/// continues on its own, for drafts of a speculation.
#[derive(Clone)]
pub struct Constraint {
    option: &'static str,
    vocabulary: Arc<Vocabulary>,
    matcher: Matcher,
    /// The token that ends the text.
    eos: u32,
    /// True while the detokenizer would drop the space of the next token's text.
    drops_space: bool,
    /// True after EOS.
    ended: bool,
}

impl Constraint {
    /// The constraint `kind` on the text after `prompt`, which the token `eos` ends. Compiling takes
    /// milliseconds to seconds; the last 16 constraints stay compiled with the tokenizer and its
    /// clones.
    ///
    /// # Errors
    /// [`Error::Option`] with the option of `kind` if it is malformed, unsupported, too complex or
    /// allows no text; [`Error::Tokenizer`] if the text of the tokenizer's tokens depends on their
    /// neighbours.
    pub fn new(
        tokenizer: &Tokenizer,
        kind: &ConstraintKind,
        prompt: &[u32],
        eos: u32,
    ) -> Result<Self> {
        let compiler = ConstraintCompiler::of(tokenizer)?;
        let matcher = compiler.matcher(kind)?;
        let vocabulary = Arc::clone(compiler.vocabulary());
        let drops_space = vocabulary.drops_space(&tokenizer.detokenizer(prompt));
        Ok(Self {
            option: kind.option(),
            vocabulary,
            matcher,
            eos,
            drops_space,
            ended: false,
        })
    }

    /// Compiles `kind` for `tokenizer`, so that a [`new`](Self::new) that follows takes little time.
    /// Its errors are those of `new`. Needs no MLX.
    pub(crate) fn compile(tokenizer: &Tokenizer, kind: &ConstraintKind) {
        if let Ok(compiler) = ConstraintCompiler::of(tokenizer) {
            let _ = compiler.matcher(kind);
        }
    }

    /// True if [`new`](Self::new) does not compile `kind` for `tokenizer`.
    pub(crate) fn is_compiled(tokenizer: &Tokenizer, kind: &ConstraintKind) -> bool {
        let compiler = ConstraintCompiler::made_of(tokenizer);
        compiler.is_some_and(|compiler| compiler.is_compiled(kind))
    }

    /// Name of the option: `json_schema`, `regex`, `grammar` or `choice`.
    pub fn option(&self) -> &'static str {
        self.option
    }

    /// The tokens that are allowed next: only EOS if the text is complete and cannot go on, none
    /// after EOS.
    ///
    /// # Errors
    /// [`Error::Option`] if no token of the vocabulary is allowed, or the state is too complex.
    pub fn mask(&mut self) -> Result<TokenMask> {
        if self.ended {
            return Ok(TokenMask::empty(self.vocabulary.len()));
        }
        let set = self.matcher.compute_mask_or_eos();
        let mut mask = TokenMask::new(set.map_err(|error| self.error(&error.to_string()))?);
        let end = self.vocabulary.eos();
        if end != self.eos {
            let is_complete = mask.allows(end);
            mask.remove([end, self.eos]);
            mask.add(is_complete.then_some(self.eos));
        }
        if self.drops_space {
            mask.remove(self.vocabulary.spaced().iter().copied());
            if mask.is_empty() {
                let problem = "the text must begin with a space, which this tokenizer drops at \
                               the start of a text; a prompt with text is needed";
                return Err(Error::option(self.option, problem));
            }
        }
        if mask.is_empty() {
            return Err(self.error("NoExtension"));
        }
        Ok(mask)
    }

    /// Appends the token `id` to the text.
    ///
    /// # Errors
    /// [`Error::Option`] if the token is not allowed; the state does not change then.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        if self.validate_tokens(&[id])? == 0 {
            return Err(Error::option(
                self.option,
                format!("the token {id} is not allowed here"),
            ));
        }
        if id == self.eos {
            self.ended = true;
            return Ok(());
        }
        let consumed = self.matcher.consume_token(id);
        consumed.map_err(|error| self.error(&error.to_string()))?;
        if self.vocabulary.has_text(id) {
            self.drops_space = false;
        }
        Ok(())
    }

    /// Number of the first `ids` that may follow the text, up to EOS. The state does not change.
    ///
    /// # Errors
    /// [`Error::Option`] if the state is too complex.
    pub fn validate_tokens(&mut self, ids: &[u32]) -> Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let (end, known) = (self.vocabulary.eos(), self.vocabulary.len());
        let mut own = Vec::with_capacity(ids.len());
        for &id in ids {
            if id == self.eos {
                own.push(end);
                break;
            }
            if id == end || id as usize >= known {
                break;
            }
            own.push(id);
        }
        let ids = own.as_slice();
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(usize::from(ids.first() == Some(&end)));
        }
        if self.drops_space {
            let with_text = ids.iter().find(|id| self.vocabulary.has_text(**id));
            let spaced = |id| self.vocabulary.spaced().binary_search(id).is_ok();
            if with_text.is_some_and(spaced) {
                return Ok(ids.iter().take_while(|id| !spaced(*id)).count());
            }
        }
        let valid = self.matcher.validate_tokens(ids);
        valid.map_err(|error| self.error(&error.to_string()))
    }

    /// True if the text may end here.
    ///
    /// # Errors
    /// [`Error::Option`] if the state is too complex.
    pub fn is_complete(&mut self) -> Result<bool> {
        if self.must_stop() {
            return Ok(true);
        }
        let accepting = self.matcher.is_accepting();
        accepting.map_err(|error| self.error(&error.to_string()))
    }

    /// True if the text is complete and no token but EOS may follow.
    pub fn must_stop(&self) -> bool {
        self.ended || (self.matcher.is_stopped() && !self.matcher.is_error())
    }

    /// The token that ends the text.
    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    /// The bytes of the token `id` in the vocabulary's trie.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.env().tok_trie().token(id)
    }

    fn error(&self, message: &str) -> Error {
        Error::option(self.option, grammar::problem(message))
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Constraint")
            .field("option", &self.option)
            .field("must_stop", &self.must_stop())
            .finish_non_exhaustive()
    }
}
