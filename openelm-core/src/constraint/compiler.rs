//! Compiles constraints for one tokenizer, and keeps the last ones.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use llguidance::{
    Matcher, ParserFactory, api::ParserLimits, earley::SlicedBiasComputer,
    toktrie::InferenceCapabilities,
};

use super::{grammar, kind::ConstraintKind, vocabulary::Vocabulary};
use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// Number of compiled constraints that are kept, the least recently used is dropped first.
const KEPT: usize = 16;
/// Stack of the thread that compiles: the library's recursion follows the nesting and the
/// references of a schema, which `json_schema.rs` limits.
const STACK_BYTES: usize = 128 << 20;
/// Lexer states of one text, one to two kilobytes each.
const MAX_LEXER_STATES: usize = 50_000;

/// A matcher at the start of a text, or the problem.
type Compiled = std::result::Result<Matcher, String>;

/// The compiled constraints of one tokenizer.
pub(super) struct ConstraintCompiler {
    vocabulary: Arc<Vocabulary>,
    factory: ParserFactory,
    /// The last used first; empty while a thread compiles it.
    compiled: Mutex<VecDeque<(ConstraintKind, Arc<OnceLock<Compiled>>)>>,
}

impl ConstraintCompiler {
    /// The compiler of `tokenizer`, which its clones share.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text of a token depends on its neighbours.
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Arc<Self>> {
        tokenizer.companion(|| Self::new(tokenizer))
    }

    /// The compiler of `tokenizer` if [`of`](Self::of) has made it.
    pub(super) fn made_of(tokenizer: &Tokenizer) -> Option<Arc<Self>> {
        tokenizer.made_companion()
    }

    fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let vocabulary = Vocabulary::new(tokenizer)?;
        let slices = SlicedBiasComputer::general_slices();
        let caps = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(vocabulary.env(), caps, &slices).map_err(|error| {
            Error::tokenizer(tokenizer.path(), grammar::problem(&error.to_string()))
        })?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: MAX_LEXER_STATES,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            vocabulary: Arc::new(vocabulary),
            factory,
            compiled: Mutex::default(),
        })
    }

    pub(super) fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// A matcher at the start of a text. If another thread compiles `kind`, waits for it.
    ///
    /// # Errors
    /// [`Error::Option`] with the option of `kind`.
    pub(super) fn matcher(&self, kind: &ConstraintKind) -> Result<Matcher> {
        let entry = self.entry(kind);
        match entry.get_or_init(|| self.compile(kind)) {
            // With its own lexer: states that a text adds end with it.
            Ok(matcher) => Ok(matcher.deep_clone()),
            Err(problem) => Err(Error::option(kind.option(), problem.as_str())),
        }
    }

    /// True if [`matcher`](Self::matcher) has a result for `kind`.
    pub(super) fn is_compiled(&self, kind: &ConstraintKind) -> bool {
        let compiled = self.compiled();
        let entry = compiled.iter().find(|(other, _)| other == kind);
        entry.is_some_and(|(_, entry)| entry.get().is_some())
    }

    /// The place of the result for `kind`, which is then the last used.
    fn entry(&self, kind: &ConstraintKind) -> Arc<OnceLock<Compiled>> {
        let mut compiled = self.compiled();
        let at = compiled.iter().position(|(other, _)| other == kind);
        let found = at.and_then(|at| compiled.remove(at));
        let (kind, entry) = found.unwrap_or_else(|| (kind.clone(), Arc::default()));
        compiled.push_front((kind, Arc::clone(&entry)));
        compiled.truncate(KEPT);
        entry
    }

    fn compiled(&self) -> MutexGuard<'_, VecDeque<(ConstraintKind, Arc<OnceLock<Compiled>>)>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, kind: &ConstraintKind) -> Compiled {
        let grammar = grammar::of(kind)?;
        let compile = || {
            let problem = |error: String| grammar::problem(&error);
            let matcher = Matcher::new(self.factory.create_parser(grammar));
            if let Some(error) = matcher.get_error() {
                return Err(problem(error));
            }
            // The first mask shows a constraint that allows no text.
            let mask = matcher.deep_clone().compute_mask_or_eos();
            match mask {
                Ok(_) => Ok(matcher),
                Err(error) => Err(problem(error.to_string())),
            }
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let done = thread.spawn_scoped(scope, compile).map_err(|error| {
                // A later call may have a thread.
                self.compiled().retain(|(other, _)| other != kind);
                format!("no thread to compile it: {error}")
            })?;
            let failed = |_| Err("the library failed to compile it".to_owned());
            done.join().unwrap_or_else(failed)
        })
    }
}

impl fmt::Debug for ConstraintCompiler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConstraintCompiler")
            .field("vocabulary", &self.vocabulary)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_is_compiled_once_and_the_last_ones_are_kept() {
        let tokenizer = Tokenizer::find(&openelm_testing::tales(), None).unwrap();
        let compiler = ConstraintCompiler::of(&tokenizer).unwrap();
        let kind = |number: usize| ConstraintKind::Choice(vec![number.to_string()]);
        compiler.matcher(&kind(0)).unwrap();
        assert!(compiler.is_compiled(&kind(0)));
        // The same result, whose clone the second call returns.
        let first = compiler.entry(&kind(0));
        compiler.matcher(&kind(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &compiler.entry(&kind(0))));
        for number in 1..=KEPT {
            compiler.matcher(&kind(number)).unwrap();
        }
        assert!(!compiler.is_compiled(&kind(0)));
        assert!(compiler.is_compiled(&kind(1)));
    }
}
