//! Texts in windows.

use openelm_core::evaluate::{EncodedRequest, WindowOptions};

use crate::models::{assert_close, encoded_scores, expected, load, load_with_context, words};

#[test]
fn each_token_of_a_text_is_scored_once() {
    let model = load();
    let text = words(500);
    let ids = model.tokenizer().encode_prompt(&text).unwrap();
    let options = WindowOptions::default();
    let encoded = EncodedRequest::of_text(&model, &text, &options).unwrap();
    let (found, _) = encoded_scores(&model, &[encoded]);
    assert_eq!(found[0].tokens, ids[1..]);
    assert_close(
        &found[0].token_logprobs,
        &expected(&model, &ids[..1], &ids[1..]).0,
    );
}

#[test]
fn windows_of_a_long_text_have_their_context() {
    let model = load_with_context(48);
    let text = words(100);
    let ids = model.tokenizer().encode_prompt(&text).unwrap();
    assert!(ids.len() > 100);
    let short = "The king said";
    // Options, and for the token at each index, the index of the first token that it sees.
    type Start = fn(usize, usize) -> usize;
    let cases: [(WindowOptions, Start); 3] = [
        (
            WindowOptions::rolling(model.model().config()),
            // The window of the token ends at a multiple of the context, or at the end.
            |index, last| (index.div_ceil(48) * 48).min(last).saturating_sub(48),
        ),
        (
            WindowOptions {
                window: Some(20),
                stride: Some(8),
            },
            |index, last| {
                let end = 20 + index.saturating_sub(20).div_ceil(8) * 8;
                end.min(last).saturating_sub(20)
            },
        ),
        (
            WindowOptions {
                window: Some(20),
                stride: None,
            },
            |index, _| (index - 1) / 20 * 20,
        ),
    ];
    for (options, start) in cases {
        let encode = |text| EncodedRequest::of_text(&model, text, &options).unwrap();
        let (found, order) = encoded_scores(&model, &[encode(&text), encode(short)]);
        assert_eq!(order, [0, 1]);
        assert_eq!(found[0].tokens, ids[1..]);
        let logprobs = (1..ids.len()).map(|index| {
            let context = &ids[start(index, ids.len() - 1)..index];
            expected(&model, context, &ids[index..=index]).0[0]
        });
        assert_close(&found[0].token_logprobs, &logprobs.collect::<Vec<_>>());
    }
}
