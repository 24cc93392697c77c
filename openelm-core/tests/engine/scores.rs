//! Log-likelihoods beside generations.

use std::thread;

use openelm_core::{
    CancelHandle, Error, LanguageModel, LoadOptions,
    evaluate::{LogLikelihood, PerplexityOptions, ScoreRequest, Scorer},
};
use openelm_testing::{block_on, tales};

use crate::{load, options, read};

fn requests() -> Vec<ScoreRequest> {
    let contexts = ["Once upon a time", "The king said", "", "The old woman"];
    let continuations = [" there was a king", " nothing", " no"];
    let pairs = contexts.iter().flat_map(|context| {
        continuations.iter().map(|continuation| ScoreRequest {
            context: (*context).into(),
            continuation: (*continuation).into(),
        })
    });
    pairs.collect()
}

/// The scores are the scorer's, up to rounding, and a generation beside them has its text.
#[test]
fn scores_advance_beside_generations() {
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let mut expected: Vec<Option<LogLikelihood>> = vec![None; requests().len()];
    let scored = Scorer::new(&model)
        .unwrap()
        .log_likelihoods(&requests(), |index, result| {
            expected[index] = Some(result);
            Ok::<_, Error>(())
        });
    scored.unwrap();
    let handle = load();
    let alone = read(&handle.generate("Once", options(3, 30)).unwrap());
    let events = handle.generate("Once", options(3, 30)).unwrap();
    let reader = thread::spawn(move || read(&events));
    let found = block_on(handle.log_likelihoods(requests(), &CancelHandle::default())).unwrap();
    assert_eq!(reader.join().unwrap(), alone);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let expected = expected.unwrap();
        assert_eq!(found.tokens, expected.tokens);
        assert!((found.sum - expected.sum).abs() < 1e-3, "{found:?}");
    }
}

#[test]
fn a_fault_names_its_request() {
    let handle = load();
    let mut faulty = requests();
    faulty[10].continuation.clear();
    let problem = block_on(handle.log_likelihoods(faulty, &CancelHandle::default())).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "requests: 10: continuation: it is empty"
    );
    block_on(handle.unload()).unwrap();
    let problem =
        block_on(handle.log_likelihoods(requests(), &CancelHandle::default())).unwrap_err();
    assert!(matches!(problem, Error::Unloaded), "{problem}");
}

#[test]
fn cancelled_scores_end() {
    let handle = load();
    let cancel = CancelHandle::default();
    let scored = block_on(handle.log_likelihoods(requests(), &cancel));
    assert_eq!(scored.unwrap().len(), requests().len());
    cancel.cancel();
    let problem = block_on(handle.log_likelihoods(requests(), &cancel)).unwrap_err();
    assert!(matches!(problem, Error::Cancelled), "{problem}");
    let texts = vec!["A fox.".to_owned()];
    let problem = block_on(handle.perplexity(texts, PerplexityOptions::default(), &cancel));
    assert!(matches!(problem, Err(Error::Cancelled)), "{problem:?}");
}
