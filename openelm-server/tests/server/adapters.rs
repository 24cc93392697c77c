//! Adapters by request.

use std::{fs, path::Path};

use openelm_core::{
    LanguageModel, LoadOptions,
    adapter::{Adapter, LoraOptions, TargetModules},
    generation::GenerateOptions,
};
use openelm_testing::{TempDir, block_on, tales};
use serde_json::json;

use crate::running::{load, start_with};

#[test]
fn a_request_selects_adapters_by_name() {
    let model = load();
    let folder = TempDir::new();
    let base = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let (base, targets) = (base.model(), TargetModules::default());
    let adapter = Adapter::lora(base, &targets, &LoraOptions::default(), 1).unwrap();
    adapter.save(folder.join("."), base.config()).unwrap();
    for name in ["pirate", "poet"] {
        block_on(model.add_adapter(name.into(), folder.join("."))).unwrap();
    }
    block_on(model.set_adapters(Vec::new())).unwrap();
    let server = start_with(model, |options| {
        options.adapters = vec![("pirate".into(), 1.0), ("poet".into(), 0.5)];
    });
    let ids: Vec<_> = server.get("/v1/models").json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (model["id"].clone(), model["parent"].clone()))
        .collect();
    let expected = [
        ("tales", json!(null)),
        ("pirate", json!("tales")),
        ("poet", json!("tales")),
    ];
    assert_eq!(ids, expected.map(|(id, parent)| (json!(id), parent)));
    // Keys and values are shared by requests with the same adapters only.
    for (more, is_known, name) in [
        (json!({}), false, "tales"),
        (json!({ "adapters": "pirate" }), false, "tales"),
        (json!({ "model": "pirate" }), true, "pirate"),
        (json!({ "adapters": ["poet", "pirate"] }), false, "tales"),
        (json!({ "adapters": ["poet", "pirate"] }), true, "tales"),
        (json!({ "adapters": [] }), true, "tales"),
    ] {
        let mut body = json!({ "prompt": "Once upon a time", "max_tokens": 1 });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let response = server.posted("/v1/completions", &body);
        let cached = &response["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(cached.as_u64().unwrap() > 0, is_known, "{more}");
        assert_eq!(response["model"], name);
    }
    let body = json!({ "prompt": "a", "adapters": ["poet", "poet"] });
    let found = server.refused("/v1/completions", &body, 400, json!("adapters"));
    assert_eq!(
        found,
        "adapters: expected each name once, found \"poet\" twice"
    );
    let body = json!({ "prompt": "a", "adapters": ["poet"], "model": "pirate" });
    server.refused("/v1/completions", &body, 400, json!("adapters"));
}

#[test]
fn texts_are_those_of_the_adapters() {
    let folder = TempDir::new();
    let mut base = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let names = ["one", "two"];
    for (name, step) in names.into_iter().zip([0.013, -0.02]) {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        let model = base.model();
        let options = LoraOptions::default();
        let adapter = Adapter::lora(model, &TargetModules::default(), &options, 1).unwrap();
        adapter.save(&path, model.config()).unwrap();
        fill(&path.join("adapters.safetensors"), "lora_b", step);
        let adapter = Adapter::load(&path).unwrap();
        base.model_mut().add_adapter(name, &adapter).unwrap();
    }
    let model = load();
    for name in names {
        block_on(model.add_adapter(name.into(), folder.join(name))).unwrap();
    }
    block_on(model.set_adapters(Vec::new())).unwrap();
    let server = start_with(model, |options| {
        options.adapters = vec![("one".into(), 1.0), ("two".into(), 0.5)];
    });
    let mut texts = Vec::new();
    for (request, active) in [
        (json!([]), &[][..]),
        (json!(["one"]), &[("one", 1.0)]),
        (json!(["two"]), &[("two", 0.5)]),
        (json!(["one", "two"]), &[("one", 1.0), ("two", 0.5)]),
    ] {
        base.model_mut().set_adapters(active).unwrap();
        let expected = expected_text(&base);
        let body = json!({
            "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "adapters": request,
        });
        let response = server.posted("/v1/completions", &body);
        assert_eq!(response["choices"][0]["text"], expected, "{active:?}");
        texts.push(expected);
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 4, "{texts:?}");
}

fn expected_text(model: &LanguageModel) -> String {
    let options = GenerateOptions {
        max_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut generation = model.generate("Once upon a time", options).unwrap();
    for event in &mut generation {
        event.unwrap();
    }
    generation.text().to_owned()
}

/// Replaces the f32 tensors whose name ends with `ending` by multiples of `step` from -3 to 3.
fn fill(file: &Path, ending: &str, step: f32) {
    let mut bytes = fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let tensors = tensors.as_object().unwrap().iter();
    for (_, tensor) in tensors.filter(|(name, _)| name.ends_with(ending)) {
        assert_eq!(tensor["dtype"], "F32");
        let offset = |index: usize| tensor["data_offsets"][index].as_u64().unwrap() as usize;
        let data = &mut bytes[8 + header..][offset(0)..offset(1)];
        for (index, number) in data.chunks_exact_mut(4).enumerate() {
            let value = step * (index as f32 * 5.0 % 7.0 - 3.0);
            number.copy_from_slice(&value.to_le_bytes());
        }
    }
    fs::write(file, bytes).unwrap();
}
