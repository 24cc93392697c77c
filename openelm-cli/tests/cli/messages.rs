//! Texts of errors: safe, short, with a remedy that the command has.

use std::fs;

use openelm_testing::{TempDir, fails, run, works};

use crate::tool::{generate, openelm, parse, small, tales, with_model};

/// Standard error of a command that fails with one short line without invisible characters.
#[track_caller]
fn failure(args: &[&str]) -> String {
    let outcome = run(openelm(args));
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    let line = outcome.stderr.strip_suffix('\n').unwrap();
    assert!(line.len() < 5_000, "{} bytes", line.len());
    let is_unsafe = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}');
    assert!(!line.contains(is_unsafe), "{line:?}");
    line.to_owned()
}

#[test]
fn hostile_names_are_escaped_and_shortened() {
    let hostile = format!("\u{202e}\u{200b}\u{1b}[2J{}", "x".repeat(300_000));
    let model = with_model(&small(64));
    let original = fs::read_to_string(model.join("config.json")).unwrap();

    let mut config = parse(&original);
    config["model_type"] = hostile.as_str().into();
    model.file("config.json", config.to_string());
    assert!(failure(&["info", model.as_str()]).contains("`model_type`"));
    let mut config = parse(&original);
    config["quantization"] = serde_json::json!({ "bits": 4, "group_size": 64, &hostile: 1 });
    model.file("config.json", config.to_string());
    assert!(failure(&["info", model.as_str()]).contains("config.json: `quantization`"));
    let path = model.join("config.json").display().to_string();
    let base = tales();
    for command in [
        &["bench"][..],
        &["generate", "--prompt", "x", "--tokenizer", &base],
    ] {
        let more = ["--keep-quantized", "--model", model.as_str()];
        assert!(failure(&[command, &more].concat()).contains(&path));
    }
    model.file("config.json", format!("{{\"{hostile}\": "));
    assert!(failure(&["info", model.as_str()]).contains("config.json"));

    model.file("config.json", original);
    let name = serde_json::Value::from(hostile.as_str());
    let header = format!(r#"{{{name}:{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}}}"#);
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    model.file("model.safetensors", bytes);
    assert!(failure(&["info", model.as_str()]).contains("tensor `"));

    let tokenizer = format!(r#"{{"model": {{"type": {name}}}}}"#);
    let tokenizer = model.file("tokenizer.json", tokenizer);
    let args = [
        "generate",
        "-m",
        &tales(),
        "-p",
        "x",
        "--tokenizer",
        &tokenizer,
    ];
    assert!(failure(&args).contains("tokenizer.json"));
    let toml = model.file("settings.toml", format!("\"{}\" = 1", "x".repeat(300_000)));
    let args = ["finetune", "-m", &tales(), "--config", &toml];
    assert!(failure(&args).contains("settings.toml"));

    // Arguments, of at most 128 kB on Linux.
    let long = "x".repeat(100_000);
    for args in [
        &["info", &long][..],
        &["generate", "-m", &tales(), "-p", "x", "--seed", &long],
        &["generate", "-m", &tales(), "-p", "x", "--adapter", &long],
        &["generate", "-m", "a\u{202e}b", "-p", "x"],
        &["convert", "a\u{202e}b", "c"],
    ] {
        failure(args);
    }
    let unknown = run(openelm(&["generate", &format!("--\u{202e}{long}")]));
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.len() < 5_000, "{}", unknown.stderr.len());
    assert!(!unknown.stderr.contains('\u{202e}'));
}

#[test]
fn adapters_are_named_by_their_folder() {
    let folder = TempDir::new();
    let model = with_model(&small(2048));
    fs::create_dir(folder.join("lora")).unwrap();
    let settings = r#"{"fine_tune_type": "lora", "num_layers": 1,
        "lora_parameters": {"rank": 1, "scale": 1.0, "dropout": 0.0}}"#;
    folder.write("lora/adapter_config.json", settings);
    let name = "transformer.layers.1.attn.qkv_proj.lora_";
    let header = format!(
        r#"{{"{name}a":{{"dtype":"F32","shape":[4,1],"data_offsets":[0,16]}},
            "{name}b":{{"dtype":"F32","shape":[1,4],"data_offsets":[16,32]}}}}"#
    );
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length, header.as_bytes(), &[0; 32]].concat();
    folder.write("lora/adapters.safetensors", bytes);
    let (lora, fused) = (folder.at("lora"), folder.at("fused"));
    let data = folder.file("rows.jsonl", r#"{"text": "Once upon a time"}"#);
    for args in [
        &["finetune", "-q", "-m", &tales(), "--start-from", &lora][..],
        &["generate", "-m", &tales(), "-p", "x", "--adapter", &lora],
        &["fuse", "-m", model.as_str(), "--adapter-path", &lora],
    ] {
        let more = match args[0] {
            "finetune" => &["--data", &data, "--adapter-path", &fused][..],
            "fuse" => &["--save-path", &fused],
            _ => &[],
        };
        let line = failure(&[args, more].concat());
        assert!(line.starts_with(&format!("openelm: {lora}: ")), "{line}");
        assert!(line.contains(name), "{line}");
    }
    assert!(!folder.join("fused").exists());
}

#[test]
fn remedies_exist_in_the_command() {
    let model = with_model(&small(2048));
    let missing = "no tokenizer.json or tokenizer.model here";
    for args in [
        &["generate", "-p", "x", "-m", model.as_str()][..],
        &["finetune", "--data", "x", "-m", model.as_str()],
        &["convert", model.as_str(), "x"],
        &["pretrain", "--iters", "1", "--start-from", model.as_str()],
    ] {
        fails(
            openelm(args),
            1,
            &[missing, "--tokenizer PATH|REPO sets it"],
        );
    }
    let gguf = model.file("model.gguf", "");
    for (path, advice) in [
        (gguf.as_str(), "openelm convert FILE FOLDER"),
        ("nowhere.gguf", "openelm convert FILE FOLDER"),
    ] {
        for command in [
            &["generate", "-p", "x", "-m"][..],
            &["info"],
            &["bench", "-m"],
        ] {
            let parts = [path, "expected a model folder", advice];
            fails(openelm(&[command, &[path]].concat()), 1, &parts);
        }
    }
    fails(
        openelm(&["convert", &tales(), model.as_str()]),
        1,
        &["--force replaces it"],
    );
}

#[test]
fn a_path_is_never_blank() {
    let folder = TempDir::new();
    fs::copy(
        format!("{}/model.safetensors", tales()),
        folder.join("x.safetensors"),
    )
    .unwrap();
    let model = with_model(&small(64));
    let file = fs::File::create(model.join("x.gguf")).unwrap();
    drop(file);
    let mut command = openelm(&["convert", "model.safetensors", "x"]);
    command.current_dir(&model);
    fails(command, 1, &["openelm: model.safetensors: "]);
    let toml = folder.file("settings.toml", "tokenizer = \"\"\niters = 1\n");
    fails(
        openelm(&["pretrain", "--config", &toml]),
        2,
        &[&format!("openelm: {toml}: tokenizer: the path is empty")],
    );
}

#[test]
fn an_adapter_folder_may_contain_an_equals_sign() {
    let folder = TempDir::new();
    let data = folder.file("train.jsonl", "{\"text\": \"Once upon a time\"}\n");
    let adapter = folder.join("lr=1e-4");
    let adapter = adapter.to_str().unwrap();
    let train = [
        "finetune",
        "-m",
        &tales(),
        "--data",
        &data,
        "--adapter-path",
        adapter,
    ];
    let short = [
        "--iters",
        "1",
        "--batch-size",
        "1",
        "--num-layers",
        "1",
        "-q",
    ];
    works(openelm(&[&train[..], &short].concat()));
    let with = |adapter: &str| generate(&["-p", "Once", "-n", "4", "-q", "--adapter", adapter]);
    works(with(adapter));
    works(with(&format!("{adapter}=0.5")));
    let other = format!("{}=2", folder.join("lr").display());
    fails(with(&other), 1, &[&other, "no such file or folder"]);
}

#[test]
fn fuse_takes_a_tokenizer_and_a_gguf_type() {
    let folder = TempDir::new();
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(format!("{}/{name}", tales()), model.join(name)).unwrap();
    }
    let model = model.to_str().unwrap();
    let data = folder.file("train.jsonl", "{\"text\": \"Once upon a time\"}\n");
    let adapter = folder.join("adapter");
    let adapter = adapter.to_str().unwrap();
    let train = [
        "finetune",
        "-m",
        &tales(),
        "--data",
        &data,
        "--adapter-path",
        adapter,
    ];
    let short = [
        "--iters",
        "1",
        "--batch-size",
        "1",
        "--num-layers",
        "1",
        "-q",
    ];
    works(openelm(&[&train[..], &short].concat()));

    let fused = folder.join("fused");
    let gguf = folder.join("fused.gguf");
    let [fused, gguf] = [&fused, &gguf].map(|path| path.to_str().unwrap());
    let fuse = [
        "fuse",
        "-m",
        model,
        "--adapter-path",
        adapter,
        "-q",
        "--save-path",
    ];
    let with = |more: &[&str]| openelm(&[&fuse[..], more].concat());
    fails(
        with(&[fused]),
        1,
        &["no tokenizer.json", "--tokenizer PATH|REPO sets it"],
    );
    works(with(&[fused, "--tokenizer", &tales()]));
    works(openelm(&[
        "generate", "-m", fused, "-p", "Once", "-n", "2", "-q",
    ]));
    works(with(&[
        gguf,
        "--tokenizer",
        &tales(),
        "--gguf-type",
        "q8_0",
    ]));
    let q8 = fs::metadata(gguf).unwrap().len();
    assert!(q8 < 7_000_000, "{q8}");
    fails(
        with(&[
            fused,
            "--tokenizer",
            &tales(),
            "--gguf-type",
            "q8_0",
            "--force",
        ]),
        2,
        &["--gguf-type", ".gguf"],
    );
}

#[test]
fn info_shows_the_quantisation() {
    let folder = TempDir::new();
    let target = folder.join("quantised");
    let target = target.to_str().unwrap();
    let convert = [
        "convert",
        &tales(),
        target,
        "--quiet",
        "--verify",
        "none",
        "-q",
    ];
    works(openelm(&convert));
    let table = works(openelm(&["info", target]));
    assert!(table.contains("affine, 4 bits in groups of 64"), "{table}");
    assert!(table.contains("bits per weight       4.5"), "{table}");
    let json = parse(&works(openelm(&["info", target, "--json"])));
    let form = &json["quantization"][0];
    assert_eq!(
        (&form["mode"], &form["bits"]),
        (&"affine".into(), &4.into())
    );
    assert_eq!(form["group_size"], 64);
    let bits = json["bits_per_weight"].as_f64().unwrap();
    assert!((4.0..5.0).contains(&bits), "{bits}");
    let table = works(openelm(&["info", &tales()]));
    assert!(table.contains("bits per weight       16.00"), "{table}");
    assert!(!table.contains("quantisation"), "{table}");
}

#[test]
fn default_prompts_of_a_benchmark_fit_the_context() {
    let bench = |args: &[&str]| {
        run(openelm(
            &[&["bench", "-m", &tales(), "--json"], args].concat(),
        ))
    };
    let lengths = |stdout: &str| -> Vec<u64> {
        let runs = parse(stdout)["runs"].as_array().unwrap().clone();
        let length = |run: &serde_json::Value| run["prompt_tokens"].as_u64().unwrap();
        runs.iter().map(length).collect()
    };
    let outcome = bench(&["-n", "8", "--repeat", "1"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(lengths(&outcome.stdout), [128, 504]);
    assert!(outcome.stderr.contains("context of 512"), "{outcome:?}");
    let outcome = bench(&["-n", "500", "--repeat", "1"]);
    assert_eq!(lengths(&outcome.stdout), [12]);
    let outcome = bench(&["-n", "512"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("--max-tokens"), "{outcome:?}");
}
