//! The settings in a `tokenizer.model` that affect encoding and decoding: `TrainerSpec` and
//! `NormalizerSpec` of `sentencepiece_model.proto`.

use tokenizers::normalizers::{
    NormalizerWrapper, Prepend, Replace, Sequence, replace::ReplacePattern,
};

use super::protobuf::Fields;

/// The trainer's settings.
pub(super) struct Trainer<'a> {
    model_type: u64,
    whitespace_suffix: bool,
    byte_fallback: bool,
    pub(super) bos: &'a str,
    pub(super) eos: &'a str,
}

/// The normalizer's settings.
pub(super) struct Normalizer<'a> {
    name: &'a str,
    pub(super) has_charsmap: bool,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl Default for Trainer<'_> {
    /// The defaults of `sentencepiece_model.proto`.
    fn default() -> Self {
        Self {
            model_type: 1,
            whitespace_suffix: false,
            byte_fallback: false,
            bos: "<s>",
            eos: "</s>",
        }
    }
}

impl<'a> Trainer<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut trainer = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                3 => trainer.model_type = value.varint()?,
                24 => trainer.whitespace_suffix = value.varint()? != 0,
                35 => trainer.byte_fallback = value.varint()? != 0,
                46 => trainer.bos = value.text()?,
                47 => trainer.eos = value.text()?,
                _ => {}
            }
        }
        Ok(trainer)
    }

    /// Refuses settings that LLaMA's models do not have.
    pub(super) fn check(&self) -> Result<(), String> {
        let kind = match self.model_type {
            2 => "BPE",
            1 => "unigram",
            3 => "word",
            4 => "character",
            _ => "unknown",
        };
        if kind != "BPE" {
            return Err(format!(
                "a SentencePiece model of the {kind} kind is not supported; \
                                expected BPE with byte fallback, as LLaMA's"
            ));
        }
        if !self.byte_fallback {
            return Err("a SentencePiece BPE model without byte fallback is not supported".into());
        }
        if self.whitespace_suffix {
            return Err("`treat_whitespace_as_suffix` is not supported".into());
        }
        Ok(())
    }
}

impl<'a> Normalizer<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let mut normalizer = Self {
            name: "",
            has_charsmap: false,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => normalizer.name = value.text()?,
                2 => normalizer.has_charsmap = !value.bytes()?.is_empty(),
                3 => normalizer.add_dummy_prefix = value.varint()? != 0,
                4 => normalizer.remove_extra_whitespaces = value.varint()? != 0,
                5 => normalizer.escape_whitespaces = value.varint()? != 0,
                _ => {}
            }
        }
        Ok(normalizer)
    }

    /// Refuses settings that LLaMA's models do not have.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.has_charsmap {
            return Err(format!(
                "the normalizer `{}` is not supported; expected `identity`",
                self.name
            ));
        }
        if !self.escape_whitespaces {
            return Err("`escape_whitespaces` = false is not supported".into());
        }
        Ok(())
    }

    /// True if decoding drops the leading space of a text.
    pub(super) fn drops_first_space(&self) -> bool {
        self.add_dummy_prefix || self.remove_extra_whitespaces
    }

    /// The settings as steps of the tokenizers library.
    pub(super) fn build(&self) -> Result<NormalizerWrapper, String> {
        let regex = |pattern: &str| ReplacePattern::Regex(pattern.to_owned());
        let mut steps: Vec<NormalizerWrapper> = Vec::new();
        if self.remove_extra_whitespaces {
            steps.push(replace(regex(" {2,}"), " ")?);
            steps.push(replace(regex(r"\A | \z"), "")?);
        }
        if self.add_dummy_prefix {
            steps.push(Prepend::new("▁".to_owned()).into());
        }
        steps.push(replace(" ".into(), "▁")?);
        Ok(Sequence::new(steps).into())
    }
}

fn replace(pattern: ReplacePattern, content: &str) -> Result<NormalizerWrapper, String> {
    Ok(Replace::new(pattern, content)
        .map_err(|error| error.to_string())?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_extra_spaces_if_configured() {
        use tokenizers::{NormalizedString, Normalizer as _};
        let normalizer = Normalizer::parse(&[]).unwrap().build().unwrap();
        for (text, expected) in [
            ("  the   cat ", "▁the▁cat"),
            ("a", "▁a"),
            ("   ", ""),
            ("", ""),
        ] {
            let mut text = NormalizedString::from(text);
            normalizer.normalize(&mut text).unwrap();
            assert_eq!(text.get(), expected);
        }
    }

    #[test]
    fn rejects_other_kinds_of_model() {
        let names = [
            (1, "unigram"),
            (3, "word"),
            (4, "character"),
            (9, "unknown"),
        ];
        for (model_type, name) in names {
            let trainer = Trainer {
                model_type,
                byte_fallback: true,
                ..Trainer::default()
            };
            let problem = trainer.check().unwrap_err();
            assert!(problem.contains(&format!("the {name} kind")), "{problem}");
        }
        let trainer = Trainer {
            model_type: 2,
            byte_fallback: true,
            ..Trainer::default()
        };
        assert_eq!(trainer.check(), Ok(()));
        let problem = Trainer {
            whitespace_suffix: true,
            ..trainer
        }
        .check()
        .unwrap_err();
        assert!(
            problem.contains("`treat_whitespace_as_suffix`"),
            "{problem}"
        );
    }
}
