//! Reading any `config.json` gives a model that fits MLX or an error with a key. It never panics.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::Config;
use openelm_core::config::Preset;
use openelm_core::{Error, Result};
use openelm_testing::{Random, TempDir};
use serde_json::{Value, json};

/// Values of every JSON type, at and beyond every limit.
fn junk(random: &mut Random, depth: usize) -> Value {
    const INTEGERS: [i64; 16] = [
        0,
        1,
        2,
        3,
        4,
        -1,
        255,
        1024,
        1025,
        65_536,
        65_537,
        1 << 21,
        1 << 31,
        1 << 53,
        i64::MIN,
        i64::MAX,
    ];
    const NUMBERS: [f64; 12] = [
        0.5,
        -0.5,
        1.0,
        1e-300,
        5e-324,
        1e300,
        f64::MAX,
        -0.0,
        64.0,
        0.001,
        1e12,
        0.999_999_999,
    ];
    const TEXTS: [&str; 6] = ["", "openelm", "12", "NaN", "\u{0}", "①②③"];
    match random.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(random.pick(&INTEGERS)),
        3 => json!(random.pick(&NUMBERS)),
        4 => json!(random.pick(&TEXTS)),
        5 => json!(u64::MAX - random.next() % 2),
        6 => (0..random.below(40))
            .map(|_| junk(random, depth - 1))
            .collect(),
        _ => json!({ "type": junk(random, depth - 1) }),
    }
}

/// A valid file of two layers or of a released model.
fn valid(random: &mut Random) -> Value {
    let text = match random.below(6) {
        0 => random.pick(&Preset::ALL).config().to_json(),
        _ => r#"{
            "model_type": "openelm", "model_dim": 64, "head_dim": 16, "num_transformer_layers": 2,
            "vocab_size": 100, "ffn_dim_divisor": 16, "num_query_heads": [2, 4],
            "num_kv_heads": [1, 2], "qkv_multipliers": [0.5, 1.0], "num_gqa_groups": 2,
            "ffn_multipliers": [0.5, 4.0], "normalize_qk_projections": true,
            "share_input_output_layers": true, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6
        }"#
        .into(),
    };
    serde_json::from_str(&text).unwrap()
}

/// One edit: a key removed, added or replaced, or a list shortened, extended or corrupted.
fn edit(config: &mut Value, random: &mut Random) {
    const UNKNOWN: [&str; 8] = [
        "rope_scaling",
        "tie_word_embeddings",
        "hidden_size",
        "dtype",
        "quantization",
        "head_bias",
        "pad_token_id",
        "",
    ];
    let object = config.as_object_mut().unwrap();
    let keys: Vec<String> = object.keys().cloned().collect();
    let key = match random.below(8) {
        0 => (*random.pick(&UNKNOWN)).to_owned(),
        _ if keys.is_empty() => return,
        _ => random.pick(&keys).clone(),
    };
    match (random.below(4), object.get_mut(&key)) {
        (0, _) => drop(object.remove(&key)),
        (1, Some(Value::Array(list))) if !list.is_empty() => {
            let place = random.below(list.len());
            list[place] = junk(random, 1);
        }
        (2, Some(Value::Array(list))) => match random.below(3) {
            0 => drop(list.pop()),
            1 => list.push(junk(random, 0)),
            _ => list.resize(random.below(5000), json!(1)),
        },
        _ => drop(object.insert(key, junk(random, 2))),
    }
}

/// Checks the result of a read. Returns true if it is a model.
fn judge(read: Result<Config>, text: &str) -> bool {
    match read {
        Ok(config) => {
            let tensors = config.tensors();
            for (name, shape) in &tensors {
                let elements: u64 = shape.iter().map(|dim| *dim as u64).product();
                assert!((1..1 << 31).contains(&elements), "{name} {shape:?}: {text}");
            }
            assert!(config.parameter_count() <= 1_000_000_000_000, "{text}");
            assert!(
                config.layers().iter().all(|l| l.q_heads % l.kv_heads == 0),
                "{text}"
            );
            assert!(config.kv_bytes_per_token(u64::MAX) > 0);
            let again = Config::from_json(&config.to_json(), "config.json").unwrap();
            assert_eq!(again.layers(), config.layers(), "{text}");
            assert_eq!(again.tensors(), tensors, "{text}");
            true
        }
        Err(Error::Config { key, problem, .. }) => {
            assert!(!key.is_empty() && key.len() <= 243, "{key}: {text}");
            assert!(!problem.is_empty() && problem.len() < 400, "{problem}");
            false
        }
        Err(other) => panic!("{other}: {text}"),
    }
}

#[test]
fn edited_files_give_a_model_or_an_error_with_key() {
    let mut random = Random(1);
    let (mut models, mut errors) = (0, 0);
    for _ in 0..8_000 {
        let mut config = valid(&mut random);
        for _ in 0..=random.below(3) {
            edit(&mut config, &mut random);
        }
        let text = config.to_string();
        if judge(Config::from_json(&text, "config.json"), &text) {
            models += 1;
        } else {
            errors += 1;
        }
    }
    // Both outcomes must be frequent for the test to be meaningful.
    assert!(
        models > 400 && errors > 4_000,
        "{models} models, {errors} errors"
    );
}

#[test]
fn error_names_the_invalid_key() {
    let mut random = Random(2);
    for _ in 0..2_000 {
        let mut config = valid(&mut random);
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        let key = random.pick(&keys);
        config[key] = json!({ "junk": 1 });
        match Config::from_json(&config.to_string(), "config.json") {
            Err(Error::Config { key: named, .. }) => assert_eq!(&named, key),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn rejects_random_bytes() {
    let folder = TempDir::new();
    let mut random = Random(3);
    let valid = Preset::Size270M.config().to_json().into_bytes();
    for case in 0..4_000 {
        let mut bytes = match case % 2 {
            0 => valid.clone(),
            _ => vec![b'{'; random.below(200)],
        };
        // Half of the cases are a valid file with a few corrupt bytes or a missing end.
        for _ in 0..random.below(8) {
            if !bytes.is_empty() {
                let place = random.below(bytes.len());
                bytes[place] = random.next() as u8;
            }
        }
        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len() + 1));
        }
        let path = folder.write("config.json", &bytes);
        judge(Config::load(&path), &String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn reads_folders_and_reports_missing_files() {
    let folder = TempDir::new();
    assert!(matches!(
        Config::load(&folder),
        Err(Error::MissingFile { path, .. }) if path == folder.join("config.json")
    ));
    folder.write("config.json", Preset::Size3B.config().to_json());
    assert_eq!(
        Config::load(&folder).unwrap().layers(),
        Preset::Size3B.config().layers()
    );
    folder.write("config.json", vec![b' '; (1 << 20) + 1]);
    let message = Config::load(folder.join("config.json"))
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("expected at most 1048576 bytes, found more"),
        "{message}"
    );
}
