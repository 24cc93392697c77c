//! One merge in a `tokenizer.json`.

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor},
};

/// A merge: `"▁t he"`, or `["▁t", "he"]` in files of newer versions.
pub(super) struct Merge {
    pub(super) left: String,
    pub(super) right: String,
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a merge of two pieces")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
        match text.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok(Merge {
                left: left.to_owned(),
                right: right.to_owned(),
            }),
            _ => Err(E::custom(format!("merge `{text}`: expected two pieces"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> Result<Merge, A::Error> {
        let too_few = || A::Error::custom("a merge has fewer than two pieces");
        let left = pieces.next_element()?.ok_or_else(too_few)?;
        let right = pieces.next_element()?.ok_or_else(too_few)?;
        if pieces.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("a merge has more than two pieces"));
        }
        Ok(Merge { left, right })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings_only() {
        for text in [r#""▁t he""#, r#"["▁t", "he"]"#] {
            let merge: Merge = serde_json::from_str(text).unwrap();
            assert_eq!((merge.left.as_str(), merge.right.as_str()), ("▁t", "he"));
        }
        for (text, expected) in [
            (r#""in""#, "merge `in`: expected two pieces"),
            (r#""i n n""#, "merge `i n n`: expected two pieces"),
            (r#"["i"]"#, "fewer than two"),
            (r#"["i", "n", "n"]"#, "more than two"),
            ("1", "expected a merge of two pieces"),
        ] {
            let problem = serde_json::from_str::<Merge>(text)
                .err()
                .unwrap()
                .to_string();
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
    }
}
