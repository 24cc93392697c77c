//! Divergence of two models.

use mlx_rs::Array;
use openelm_core::{
    CancelHandle, Error, LanguageModel,
    evaluate::{Divergence, PerplexityOptions, WindowOptions, divergence},
};
use openelm_testing::{TempDir, write_tales};

use crate::models::{load, load_with_context, words};

fn compare(
    reference: &LanguageModel,
    model: &LanguageModel,
    folder: &TempDir,
) -> Result<Divergence, Error> {
    let options = PerplexityOptions {
        windows: WindowOptions {
            window: Some(300),
            stride: None,
        },
        ..PerplexityOptions::default()
    };
    let files = [folder.join("a.txt")];
    let cancel = CancelHandle::default();
    divergence(reference, model, &files, &options, &cancel, |_| Ok(()))
}

/// The log-probabilities of all rows `[L][V]`.
fn log_probabilities(model: &LanguageModel, ids: &[u32]) -> Vec<Vec<f64>> {
    let model = model.model();
    let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
    let hidden = model.hidden(&ids, &mut model.cache()).unwrap();
    let logits = model.logits(&hidden).unwrap();
    let vocab = logits.dim(2) as usize;
    let logits = logits.to_vec_exact::<f32>().unwrap();
    let rows = logits.chunks(vocab).map(|row| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        row.iter().map(|&x| f64::from(x) - sum.ln()).collect()
    });
    rows.collect()
}

#[test]
fn compares_the_distributions_of_every_token() {
    let folder = TempDir::new();
    let text = words(700);
    folder.write("a.txt", &text);
    write_tales(&folder, &[("transformer.layers.1.ffn_norm.weight", 3, 4.0)]);
    let reference = load();
    let other = LanguageModel::load(&folder, &Default::default()).unwrap();
    let same = compare(&reference, &reference, &folder).unwrap();
    assert!(same.kl_per_token().abs() < 1e-7, "{same:?}");
    assert_eq!(same.same_top, same.tokens);
    let found = compare(&reference, &other, &folder).unwrap();
    let ids = reference.tokenizer().encode_prompt(&text).unwrap();
    let (mut kl, mut same_top) = (0.0, 0);
    for start in (0..ids.len() - 1).step_by(300) {
        let window = &ids[start..(start + 300).min(ids.len() - 1)];
        let [p, q] = [&reference, &other].map(|model| log_probabilities(model, window));
        for (p, q) in p.iter().zip(&q) {
            kl += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            let top = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            same_top += usize::from(top(p) == top(q));
        }
    }
    assert_eq!((found.documents, found.tokens), (1, ids.len() - 1));
    assert!(
        kl > 0.1 && (found.kl - kl).abs() < 1e-4 * kl,
        "{} {kl}",
        found.kl
    );
    assert_eq!(found.same_top, same_top);
    assert!(found.top1_agreement() < 1.0);
    assert!(found.standard_error().unwrap() > 0.0);
}

#[test]
fn other_vocabularies_and_contexts_are_refused() {
    let folder = TempDir::new();
    folder.write("a.txt", words(10));
    let reference = load();
    let error = compare(&reference, &load_with_context(100), &folder).unwrap_err();
    let expected = "window: expected 1 to the model's context of 100, found 300";
    assert_eq!(error.to_string(), expected);
    write_tales(&folder, &[]);
    let path = folder.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replacen("\"@\"", "\"§\"", 1);
    assert_ne!(text, changed);
    std::fs::write(path, changed).unwrap();
    let other = LanguageModel::load(&folder, &Default::default()).unwrap();
    let error = compare(&reference, &other, &folder)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("against: "), "{error}");
    assert!(error.contains("found \"§\""), "{error}");
}
