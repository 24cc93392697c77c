//! Adapters by request.

use openelm_core::{
    LanguageModel, LoadOptions,
    adapter::{Adapter, LoraOptions, TargetModules},
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
