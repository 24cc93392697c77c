//! Masks, accepted tokens and drafts.

use std::collections::BTreeSet;

use openelm_core::constraint::{Constraint, ConstraintKind};

use super::{EOS, choice, drawn, regex, schema, tales};

/// All texts that `kind` allows, by walking over every allowed token.
fn texts(kind: &ConstraintKind, prompt: &str) -> BTreeSet<String> {
    let tokenizer = tales();
    let prompt = match prompt {
        "" => vec![tokenizer.bos_id()],
        prompt => tokenizer.encode_prompt(prompt).unwrap(),
    };
    let start = Constraint::new(&tokenizer, kind, &prompt, EOS).unwrap();
    let mut found = BTreeSet::new();
    let mut open = vec![(start, Vec::new())];
    while let Some((mut state, ids)) = open.pop() {
        for id in state.mask().unwrap().ids() {
            let mut next = state.clone();
            next.accept(id).unwrap();
            let mut ids: Vec<u32> = ids.clone();
            if id == tokenizer.eos_id() {
                let mut detokenizer = tokenizer.detokenizer(&prompt);
                let parts = ids.iter().map(|&id| detokenizer.push(id).unwrap());
                let text: String = parts.collect();
                found.insert(text + &detokenizer.finish());
            } else {
                ids.push(id);
                open.push((next, ids));
            }
        }
    }
    found
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn emitted_texts_are_those_of_the_constraint() {
    for prompt in ["", "Once", "the ", "é"] {
        let texts = |kind| texts(&kind, prompt);
        let words = ["yes", "no", "yes, é", "a\u{1f999}", "<s>", "▁"];
        assert_eq!(texts(choice(&words)), set(&words));
        assert_eq!(
            texts(regex("a?[bc] (?:d|e)")),
            set(&["ab d", "ab e", "ac d", "ac e", "b d", "b e", "c d", "c e",])
        );
        assert_eq!(
            texts(schema(r#"{"enum": ["é", 1, null, [true]]}"#)),
            set(&[
                "\"é\"", "1", "null", "[true]", "[ true]", "[true ]", "[ true ]",
            ])
        );
        let grammar = "start: \"a\" pair | \"b\"\npair: /[xy]/ \"!\"";
        let grammar = ConstraintKind::Grammar(grammar.to_owned());
        assert_eq!(texts(grammar), set(&["ax!", "ay!", "b"]));
    }
}

#[test]
fn a_leading_space_needs_a_prompt_with_text() {
    assert_eq!(texts(&choice(&[" a", "b"]), "Once"), set(&[" a", "b"]));
    assert_eq!(texts(&choice(&[" a", "b"]), ""), set(&["b"]));
    let tokenizer = tales();
    let mut constraint = Constraint::new(&tokenizer, &choice(&[" a"]), &[1], EOS).unwrap();
    let message = constraint.mask().unwrap_err().to_string();
    assert!(
        message.starts_with("choice: the text must begin with a space"),
        "{message}"
    );
}

#[test]
fn eos_is_allowed_where_the_text_is_complete() {
    let tokenizer = tales();
    let eos = tokenizer.eos_id();
    let prompt = tokenizer.encode_prompt("Once").unwrap();
    let id = |piece: &str| tokenizer.piece_id(piece).unwrap();
    let mut state = Constraint::new(&tokenizer, &regex("a+b?"), &prompt, EOS).unwrap();
    assert!(!state.mask().unwrap().allows(eos) && !state.is_complete().unwrap());
    let message = state.accept(eos).unwrap_err().to_string();
    assert_eq!(message, "regex: the token 2 is not allowed here");
    state.accept(id("a")).unwrap();
    assert!(state.mask().unwrap().allows(eos) && state.is_complete().unwrap());
    assert!(!state.must_stop());
    state.accept(id("b")).unwrap();
    assert_eq!(state.mask().unwrap().ids(), [eos]);
    assert!(state.must_stop() && state.is_complete().unwrap());
    assert!(state.accept(id("a")).is_err());
    state.accept(eos).unwrap();
    assert_eq!(state.mask().unwrap().count(), 0);
    assert!(state.accept(eos).is_err());
}

#[test]
fn another_end_token_ends_the_text() {
    let tokenizer = tales();
    let prompt = tokenizer.encode_prompt("Once").unwrap();
    let [a, b] = ["a", "b"].map(|piece| tokenizer.piece_id(piece).unwrap());
    for end in [1, b] {
        let mut state = Constraint::new(&tokenizer, &regex("a[ab]?"), &prompt, end).unwrap();
        assert!(!state.mask().unwrap().allows(end));
        assert_eq!(state.validate_tokens(&[a, end, a]).unwrap(), 2);
        assert_eq!(state.validate_tokens(&[a, EOS]).unwrap(), 1);
        assert_eq!(state.validate_tokens(&[end]).unwrap(), 0);
        state.accept(a).unwrap();
        let mask = state.mask().unwrap();
        assert!(mask.allows(end) && mask.allows(a) && !mask.allows(EOS));
        assert!(state.accept(EOS).is_err());
        state.accept(end).unwrap();
        assert!(state.must_stop());
    }
}

#[test]
fn drafts_are_allowed_up_to_the_first_wrong_token() {
    let tokenizer = tales();
    let (eos, vocab) = (tokenizer.eos_id(), tokenizer.vocab_size() as u32);
    let prompt = tokenizer.encode_prompt("Once").unwrap();
    let [a, b] = ["a", "b"].map(|piece| tokenizer.piece_id(piece).unwrap());
    let mut state = Constraint::new(&tokenizer, &regex("aab?"), &prompt, EOS).unwrap();
    for (ids, valid) in [
        (vec![a, a, b, eos], 4),
        (vec![a, a, eos, a], 3),
        (vec![a, eos], 1),
        (vec![a, b], 1),
        (vec![a, a, b, b], 3),
        (vec![a, vocab], 1),
        (vec![u32::MAX], 0),
        (vec![1], 0),
        (vec![], 0),
    ] {
        assert_eq!(state.validate_tokens(&ids).unwrap(), valid, "{ids:?}");
    }
    // The state did not change, and a refused token leaves it usable.
    assert!(state.accept(b).is_err() && state.accept(vocab).is_err());
    for id in [a, a, b] {
        state.accept(id).unwrap();
    }
    assert_eq!(state.validate_tokens(&[eos, a]).unwrap(), 1);
    assert_eq!(state.validate_tokens(&[a]).unwrap(), 0);
}

#[test]
fn every_allowed_token_can_be_accepted() {
    let tokenizer = tales();
    let prompt = tokenizer.encode_prompt("Once").unwrap();
    let text = r#"{"type": "object", "properties": {"é": {"type": "string"}}}"#;
    let mut state = Constraint::new(&tokenizer, &schema(text), &prompt, EOS).unwrap();
    for piece in ["<0x7B>", "<0x22>", "a"] {
        let mask = state.mask().unwrap();
        for id in 0..tokenizer.vocab_size() as u32 {
            let valid = state.validate_tokens(&[id]).unwrap() == 1;
            assert_eq!(mask.allows(id), valid, "{:?}", tokenizer.piece(id));
        }
        state.accept(tokenizer.piece_id(piece).unwrap()).unwrap();
    }
}

#[test]
fn ids_beyond_the_model_are_not_allowed() {
    let all = tales();
    let last = |tokenizer: &openelm_core::Tokenizer| {
        let mut state = Constraint::new(tokenizer, &regex(".*"), &[1], EOS).unwrap();
        state.mask().unwrap().ids().pop().unwrap() as usize
    };
    let size = all.vocab_size();
    assert!(last(&all) >= size - 10);
    let few = all.with_model_vocab(size - 100).unwrap();
    assert!((size - 110..size - 100).contains(&last(&few)));
}

#[test]
fn equal_seeds_give_equal_texts_in_every_thread() {
    let tokenizer = tales();
    let kind = regex("[a-z]{3,8}( [a-z]{3,8}){2}");
    let expected = drawn(&tokenizer, &kind, &[1], 7, 100).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(drawn(&tokenizer, &kind, &[1], 7, 100).unwrap(), expected);
            });
        }
    });
}
