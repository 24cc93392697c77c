//! The tokens of a text whose sections, the texts between added tokens, begin with a space or not.

use tokenizers::{
    AddedVocabulary, Model, NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString,
    PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::Sequence,
    pre_tokenizers::{self, metaspace::PrependScheme},
};

use super::spec::Coder;

/// The spaces that a tokenizer writes before its sections: the texts between added tokens.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Prefix {
    /// Before every section.
    All,
    /// Before every section of a text that follows an added token.
    AfterToken,
    /// Before every section except the first, which continues another part.
    Later,
    /// Before no section: the text continues another text.
    None,
}

/// The tokens of `text`, which is the beginning of a longer text if `is_start`.
pub(super) fn tokenized(
    coder: &Coder,
    text: &str,
    prefix: Prefix,
    is_start: bool,
) -> tokenizers::Result<PreTokenizedString> {
    let added: &AddedVocabulary = coder.get_added_vocabulary();
    let mut splits = if prefix == Prefix::None {
        let mut splits = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        if let Some(normalizer) = coder.get_normalizer().and_then(without_prepend) {
            splits.normalize(|piece| normalizer.normalize(piece))?;
        }
        splits
    } else {
        let normalizer = coder.get_normalizer().map(|full| Sections {
            full,
            bare: without_prepend(full),
            prefix,
        });
        added.extract_and_normalize(normalizer.as_ref(), text)
    };
    match coder.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::Metaspace(metaspace)) => {
            let (mark, scheme) = (metaspace.get_replacement(), metaspace.get_prepend_scheme());
            let mark_text = mark.to_string();
            splits.split(|_, mut piece| {
                let is_first = piece.offsets_original().0 == 0;
                let prepends = prefix.is_before(is_first)
                    && match scheme {
                        PrependScheme::Always => true,
                        PrependScheme::First => {
                            is_first && is_start && prefix != Prefix::AfterToken
                        }
                        PrependScheme::Never => false,
                    };
                piece.replace(' ', &mark_text)?;
                if prepends && !piece.get().starts_with(mark) {
                    piece.prepend(&mark_text);
                }
                if metaspace.get_split() {
                    piece.split(mark, SplitDelimiterBehavior::MergedWithNext)
                } else {
                    Ok(vec![piece])
                }
            })?;
        }
        Some(other) if prefix == Prefix::None => without_space(other).pre_tokenize(&mut splits)?,
        Some(other) if prefix == Prefix::AfterToken => {
            without_first_space(other).pre_tokenize(&mut splits)?;
        }
        Some(other) => other.pre_tokenize(&mut splits)?,
        None => {}
    }
    splits.tokenize(|piece| coder.get_model().tokenize(piece.get()))?;
    Ok(splits)
}

impl Prefix {
    /// True if there is a space before a section.
    fn is_before(self, is_first: bool) -> bool {
        match self {
            Self::All | Self::AfterToken => true,
            Self::Later => !is_first,
            Self::None => false,
        }
    }
}

/// A normalizer that prepends to some sections of a text.
struct Sections<'a> {
    full: &'a NormalizerWrapper,
    /// Without the steps that prepend.
    bare: Option<NormalizerWrapper>,
    prefix: Prefix,
}

impl Normalizer for Sections<'_> {
    fn normalize(&self, section: &mut NormalizedString) -> tokenizers::Result<()> {
        let is_first = section.offsets_original().0 == 0;
        match &self.bare {
            _ if self.prefix.is_before(is_first) => self.full.normalize(section),
            Some(bare) => bare.normalize(section),
            None => Ok(()),
        }
    }
}

/// `normalizer` without the steps that prepend to the text.
fn without_prepend(normalizer: &NormalizerWrapper) -> Option<NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Prepend(_) => None,
        NormalizerWrapper::Sequence(steps) => {
            let steps = steps.as_ref().iter().filter_map(without_prepend);
            Some(Sequence::new(steps.collect()).into())
        }
        other => Some(other.clone()),
    }
}

/// `pre_tokenizer` without the space that only the start of a whole text has.
fn without_first_space(pre_tokenizer: &PreTokenizerWrapper) -> PreTokenizerWrapper {
    match pre_tokenizer {
        PreTokenizerWrapper::Metaspace(metaspace)
            if metaspace.get_prepend_scheme() == PrependScheme::First =>
        {
            let mut metaspace = metaspace.clone();
            metaspace.set_prepend_scheme(PrependScheme::Never);
            metaspace.into()
        }
        PreTokenizerWrapper::Sequence(steps) => {
            let steps = steps.as_ref().iter().map(without_first_space);
            pre_tokenizers::sequence::Sequence::new(steps.collect()).into()
        }
        other => other.clone(),
    }
}

/// `pre_tokenizer` without a space before the text. Steps after the first one keep their space:
/// they add it to every word, as in T5.
fn without_space(pre_tokenizer: &PreTokenizerWrapper) -> PreTokenizerWrapper {
    match pre_tokenizer {
        PreTokenizerWrapper::Metaspace(metaspace) => {
            let mut metaspace = metaspace.clone();
            metaspace.set_prepend_scheme(PrependScheme::Never);
            metaspace.into()
        }
        PreTokenizerWrapper::ByteLevel(byte_level) => byte_level.add_prefix_space(false).into(),
        PreTokenizerWrapper::Sequence(steps) => {
            let steps = steps.as_ref().iter().enumerate();
            let steps = steps.map(|(index, step)| match step {
                PreTokenizerWrapper::Metaspace(_) if index > 0 => step.clone(),
                other => without_space(other),
            });
            pre_tokenizers::sequence::Sequence::new(steps.collect()).into()
        }
        other => other.clone(),
    }
}
