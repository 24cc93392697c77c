//! Continuations after contexts.

use openelm_core::{
    Error, LanguageModel,
    evaluate::{EncodedRequest, ScoreRequest, Scorer},
};

use crate::models::{
    assert_close, encoded_scores, expected, load, load_with_context, request, scores, words,
};

/// The ids of BOS and context, and of the continuation, with the white space between both in the
/// continuation.
fn ids(model: &LanguageModel, request: &ScoreRequest) -> (Vec<u32>, Vec<u32>) {
    let tokenizer = model.tokenizer();
    let whole = format!("{}{}", request.context, request.continuation);
    let context = tokenizer.encode_prompt(request.context.trim_end());
    let (context, whole) = (context.unwrap(), tokenizer.encode_prompt(&whole).unwrap());
    let continuation = whole[context.len()..].to_vec();
    (context, continuation)
}

#[track_caller]
fn check(model: &LanguageModel, requests: &[ScoreRequest]) {
    let (found, _) = scores(model, requests);
    for (request, found) in requests.iter().zip(found) {
        let (context, continuation) = ids(model, request);
        let (logprobs, is_greedy) = expected(model, &context, &continuation);
        assert_eq!(found.tokens, continuation, "{request:?}");
        assert_close(&found.token_logprobs, &logprobs);
        let sum: f64 = found.token_logprobs.iter().map(|&x| f64::from(x)).sum();
        assert_eq!(found.sum, sum);
        assert_eq!(found.is_greedy, is_greedy, "{request:?}");
        assert_eq!(found.truncated, 0);
    }
}

#[test]
fn shared_contexts_equal_each_request_alone() {
    let model = load();
    let long = words(90);
    let fox = "Once upon a time there was a fox";
    let requests = [
        request(fox, " who lived in a forest."),
        request(fox, " who"),
        request(fox, " king"),
        request(fox, " who lived in a castle with his wife."),
        request("Once upon a time there was a king", " who had a daughter."),
        request("", "Once upon a time"),
        request("The queen said: ", "I am the queen."),
        request("The queen said:\n\n", " I am the queen."),
        // One that occurs again, one that is long, and one that continues it.
        request(fox, " and a wolf"),
        request(&long, " and the end"),
        request(&format!("{long} The"), " king"),
        request(&format!("{long} The"), " king was very much afraid of him."),
    ];
    check(&model, &requests);
    let (_, order) = scores(&model, &requests);
    assert_eq!(order, [0, 1, 2, 3, 8, 4, 5, 6, 7, 9, 10, 11]);
}

#[test]
fn a_greedy_text_is_greedy() {
    let model = load();
    let prompt = "Once upon a time";
    let options = openelm_core::generation::GenerateOptions {
        max_tokens: 12,
        ..Default::default()
    };
    let mut generation = model.generate(prompt, options).unwrap();
    generation.by_ref().for_each(|event| _ = event.unwrap());
    let ids = generation.into_cache().tokens().to_vec();
    let start = model.tokenizer().encode_prompt(prompt).unwrap().len();
    let (context, continuation) = ids.split_at(start);
    let mut other = continuation.to_vec();
    other[5] = if other[5] == 9 { 10 } else { 9 };
    let encode = |continuation: &[u32]| {
        EncodedRequest::of_tokens(&model, context.to_vec(), continuation.to_vec()).unwrap()
    };
    let requests = [encode(continuation), encode(&other), encode(&other[..5])];
    let (found, _) = encoded_scores(&model, &requests);
    let greedy: Vec<bool> = found.iter().map(|found| found.is_greedy).collect();
    assert_eq!(greedy, [true, false, true]);
}

#[test]
fn few_shot_questions_share_their_examples() {
    let model = load();
    let examples = words(250);
    let mut requests = Vec::new();
    for question in 0..6 {
        let context = format!(
            "{examples}\nQuestion {question}: {}?",
            words(10 + 5 * question)
        );
        for answer in [
            "yes",
            "no",
            "the king in the dark forest",
            "nobody knows it",
        ] {
            requests.push(request(&context, &format!(" {answer}")));
        }
    }
    check(&model, &requests);
}

#[test]
fn continuations_may_be_longer_than_a_pass() {
    let model = load();
    let long = words(300);
    let requests = [
        request("Once", &format!(" {long}")),
        request("Once", " upon a time"),
        request("Once", &format!(" {long} and more")),
        request(&words(200), &format!(" {}", words(260))),
    ];
    check(&model, &requests);
}

#[test]
fn many_continuations_of_one_context_need_several_passes() {
    let model = load();
    let context = words(60);
    let requests: Vec<_> = (0..40)
        .map(|i| request(&context, &format!(" {i} {}", words(5 + i))))
        .collect();
    check(&model, &requests);
}

#[test]
fn a_context_that_is_too_long_loses_its_first_tokens() {
    let model = load_with_context(32);
    let context = words(40);
    let (ids, _) = ids(&model, &request(&context, " king"));
    let continuation: Vec<u32> = (0..9).map(|i| 300 + i).collect();
    // The last token is predicted and not read.
    for (length, kept) in [(1, 32), (2, 31), (9, 24)] {
        let continuation = &continuation[..length];
        let request = EncodedRequest::of_tokens(&model, ids.clone(), continuation.to_vec());
        let (found, _) = encoded_scores(&model, &[request.unwrap()]);
        assert_eq!(found[0].truncated, ids.len() - kept);
        let (logprobs, _) = expected(&model, &ids[ids.len() - kept..], continuation);
        assert_close(&found[0].token_logprobs, &logprobs);
    }
    let all: Vec<u32> = (0..33).map(|i| 300 + i).collect();
    let fits = EncodedRequest::of_tokens(&model, ids.clone(), all[..32].to_vec()).unwrap();
    let (found, _) = encoded_scores(&model, &[fits]);
    let (logprobs, _) = expected(&model, &ids[ids.len() - 1..], &all[..32]);
    assert_close(&found[0].token_logprobs, &logprobs);
    let error = EncodedRequest::of_tokens(&model, ids, all).unwrap_err();
    let expected = "continuation: expected at most the 32 tokens of the model's context, found 33";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_scores_before_a_cancellation_are_delivered() {
    let model = load();
    let requests: Vec<_> = (0..30)
        .map(|i| request(&format!("{i} {}", words(100)), " king"))
        .collect();
    let mut scorer = Scorer::new(&model).unwrap();
    let cancel = scorer.cancel_handle();
    let mut delivered = Vec::new();
    let result = scorer.log_likelihoods(&requests, |index, _| {
        delivered.push(index);
        if index == 4 {
            cancel.cancel();
        }
        Ok::<_, Error>(())
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    assert!((5..10).contains(&delivered.len()), "{delivered:?}");
    assert!(delivered.iter().copied().eq(0..delivered.len()));
}
