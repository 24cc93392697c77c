//! Requests that cannot be scored.

use openelm_core::{
    Error,
    evaluate::{EncodedRequest, Scorer, WindowOptions},
};
use openelm_testing::{TempDir, write_tales};

use crate::models::{load, request};

#[test]
fn a_request_without_tokens_is_named() {
    let model = load();
    let mut scorer = Scorer::new(&model).unwrap();
    let requests = [request("The", " king"), request("The king", "")];
    let result = scorer.log_likelihoods(&requests, |_, _| -> Result<(), Error> {
        panic!("nothing may be scored before all requests are encoded")
    });
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "requests: 1: continuation: it is empty");
    let text = EncodedRequest::of_text(&model, "", &WindowOptions::default());
    assert_eq!(text.unwrap_err().to_string(), "text: it is empty");
    let none = EncodedRequest::of_tokens(&model, vec![1], Vec::new()).unwrap_err();
    assert_eq!(none.to_string(), "continuation: it has no tokens");
    let none = EncodedRequest::of_tokens(&model, vec![1], vec![4096]).unwrap_err();
    assert!(
        none.to_string().starts_with("continuation: token 4096"),
        "{none}"
    );
}

#[test]
fn windows_out_of_range_are_refused() {
    let model = load();
    for (window, stride, expected) in [
        (
            Some(0),
            None,
            "window: expected 1 to the model's context of 512, found 0",
        ),
        (
            Some(4096),
            None,
            "window: expected 1 to the model's context of 512, found 4096",
        ),
        (
            Some(8),
            Some(0),
            "stride: expected 1 to the window of 8, found 0",
        ),
        (
            Some(8),
            Some(9),
            "stride: expected 1 to the window of 8, found 9",
        ),
    ] {
        let options = WindowOptions { window, stride };
        let error = EncodedRequest::of_text(&model, "The king", &options).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let folder = TempDir::new();
    write_tales(
        &folder,
        &[("transformer.layers.1.ffn_norm.weight", 3, f32::NAN)],
    );
    let model = openelm_core::LanguageModel::load(&folder, &Default::default()).unwrap();
    let mut scorer = Scorer::new(&model).unwrap();
    let requests = [request("The", " king")];
    let error = scorer.log_likelihoods(&requests, |_, _| Ok::<_, Error>(()));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("transformer.layers.1.ffn_norm.weight"),
        "{error}"
    );
}
