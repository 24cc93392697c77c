//! Files of text and JSON as other programs and editors save them: byte order marks, UTF-16, null
//! values, sizes.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{fs, path::Path};

use mlx_rs::Array;
use openelm_core::{
    Config, Error, Tokenizer,
    adapter::Adapter,
    convert::parse_architecture,
    dataset::{Dataset, DatasetOptions},
    tokenizer::TokenizerTraining,
    weights::Checkpoint,
};
use openelm_testing::{TempDir, encodings, repository, tales};
use serde_json::{Value, json};

/// A reader of a file, which describes its contents.
struct Reader {
    /// Name of the file in its folder.
    file: &'static str,
    text: String,
    read: fn(&Path) -> Result<String, Error>,
}

#[test]
fn every_encoding_has_the_same_contents() {
    for reader in readers() {
        let folder = folder(&reader);
        let expected = (reader.read)(&folder).unwrap();
        for (name, bytes) in encodings(&reader.text) {
            folder.write(reader.file, bytes);
            let found = (reader.read)(&folder).unwrap();
            assert!(found == expected, "{} in {name}: {found}", reader.file);
        }
        folder.write(reader.file, b"\xFF\xFE\0\0{\0\0\0");
        let problem = (reader.read)(&folder).unwrap_err().to_string();
        assert!(
            problem.contains(reader.file) && problem.contains("UTF-32"),
            "{problem}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn endless_files_are_refused() {
    let is_read = |reader: &Reader| reader.file != "model.safetensors.index.json";
    for reader in readers().into_iter().filter(is_read) {
        let folder = folder(&reader);
        let path = folder.join(reader.file);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let problem = (reader.read)(&folder).unwrap_err().to_string();
        assert!(
            problem.contains(reader.file)
                && (problem.contains("expected at most") || problem.contains("or device")),
            "{problem}"
        );
    }
}

#[test]
fn null_is_an_absent_setting() {
    let folder = TempDir::new();
    let peft = peft();
    for (file, settings, optional) in [
        (
            "adapter_config.json",
            settings(&peft.join("adapter_config.json")),
            &[
                "lora_dropout",
                "use_rslora",
                "use_dora",
                "rank_pattern",
                "alpha_pattern",
                "init_lora_weights",
                "bias",
                "modules_to_save",
                "fan_in_fan_out",
                "layer_replication",
            ][..],
        ),
        (
            "adapter_config.json",
            mlx_lm(),
            &["fine_tune_type", "tied_head"],
        ),
    ] {
        let weights = if settings.get("peft_type").is_some() {
            fs::copy(
                peft.join("adapter_model.safetensors"),
                folder.join("adapter_model.safetensors"),
            )
            .unwrap();
            "PEFT"
        } else {
            fs::remove_file(folder.join("adapter_model.safetensors")).unwrap();
            write_adapter(&folder);
            "mlx-lm"
        };
        for key in optional {
            let mut absent = settings.clone();
            absent.as_object_mut().unwrap().remove(*key);
            folder.write(file, absent.to_string());
            let expected = format!("{:?}", Adapter::load(&*folder).unwrap());
            absent[*key] = Value::Null;
            folder.write(file, absent.to_string());
            let found = format!("{:?}", Adapter::load(&*folder).unwrap());
            assert_eq!(found, expected, "{weights}: {key}");
        }
    }
    let mut nested = mlx_lm();
    nested["lora_parameters"]["dropout"] = Value::Null;
    folder.write("adapter_config.json", nested.to_string());
    Adapter::load(&*folder).unwrap();
    nested["lora_parameters"]["scale"] = Value::Null;
    folder.write("adapter_config.json", nested.to_string());
    let problem = Adapter::load(&*folder).unwrap_err().to_string();
    assert!(problem.contains("`scale`"), "{problem}");
}

#[test]
fn tokenizer_training_reads_every_encoding() {
    let folder = TempDir::new();
    let text = "Once upon a time there lived a king. ".repeat(9);
    let training = TokenizerTraining {
        vocab_size: 290,
        ..TokenizerTraining::default()
    };
    let mut written = Vec::new();
    for (_, bytes) in encodings(&text) {
        let file = folder.write("a.txt", bytes);
        let output = TempDir::new();
        training.train(&[file], &output.join("new")).unwrap();
        written.push(fs::read(output.join("new/tokenizer.json")).unwrap());
    }
    assert!(written.iter().all(|file| *file == written[0]));
}

#[test]
fn rows_and_text_have_a_limit() {
    let folder = TempDir::new();
    let size = 64 << 20;
    let row = |length: usize| {
        [
            b"{\"text\": \"".to_vec(),
            vec![b'a'; length - 12],
            b"\"}".to_vec(),
        ]
    };
    for (name, bytes, expected) in [
        (
            "a.txt",
            vec![b' '; size + 1],
            "a.txt:1: expected at most 67108864 bytes",
        ),
        (
            "b.jsonl",
            [row(99).concat(), b"\n".to_vec(), row(size + 1).concat()].concat(),
            "b.jsonl:2: expected at most 67108864 bytes",
        ),
    ] {
        let path = folder.write(name, bytes);
        let problem = dataset(&path).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}

fn readers() -> Vec<Reader> {
    let example = |name: &str| fs::read_to_string(tales().join(name)).unwrap();
    let peft = fs::read_to_string(peft().join("adapter_config.json")).unwrap();
    vec![
        Reader {
            file: "config.json",
            text: example("config.json"),
            read: |folder| Config::load(folder).map(|config| format!("{config:?}")),
        },
        Reader {
            file: "tokenizer.json",
            text: example("tokenizer.json"),
            read: |folder| {
                let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))?;
                tokenizer
                    .encode_prompt("Once upon")
                    .map(|ids| format!("{ids:?}"))
            },
        },
        Reader {
            file: "model.safetensors.index.json",
            text: json!({"metadata": null, "weight_map": {"a": "part.safetensors"}}).to_string(),
            read: |folder| {
                let names = |checkpoint: Checkpoint| format!("{:?}", checkpoint.tensors().keys());
                Checkpoint::open(folder).map(names)
            },
        },
        Reader {
            file: "adapter_config.json",
            text: peft,
            read: |folder| Adapter::load(folder).map(|adapter| format!("{adapter:?}")),
        },
        Reader {
            file: "openelm.yaml",
            text: "model:\r\n  language_modeling:\r\n    general_gpt:\r\n      \
                   model_name: OpenELM-270M\r\n"
                .to_owned(),
            read: |folder| {
                let path = folder.join("openelm.yaml");
                parse_architecture(path.to_str().unwrap()).map(|config| format!("{config:?}"))
            },
        },
        Reader {
            file: "train.jsonl",
            text: "{\"text\": \"Once\", \"chosen\": null, \"rejected\": null}\r\n\r\n\
                   {\"text\": \"é 🦙\", \"messages\": null, \"prompt\": null}\r\n"
                .to_owned(),
            read: |folder| dataset(&folder.join("train.jsonl")),
        },
        Reader {
            file: "train.txt",
            text: "Once é 🦙\r\n".to_owned(),
            read: |folder| dataset(&folder.join("train.txt")),
        },
    ]
}

/// A folder with the file of `reader` and the weights that belong to it.
fn folder(reader: &Reader) -> TempDir {
    let folder = TempDir::new();
    folder.write(reader.file, &reader.text);
    match reader.file {
        "adapter_config.json" => {
            let name = "adapter_model.safetensors";
            fs::copy(peft().join(name), folder.join(name)).unwrap();
        }
        "model.safetensors.index.json" => {
            let tensor = Array::from_slice(&[1.0_f32], &[1]);
            let path = folder.join("part.safetensors");
            Array::save_safetensors([("a", &tensor)], None, path).unwrap();
        }
        _ => {}
    }
    folder
}

fn dataset(path: &Path) -> Result<String, Error> {
    let tokenizer = Tokenizer::from_file(tales().join("tokenizer.json"))?;
    let dataset = Dataset::read(path, &tokenizer, &DatasetOptions::default())?;
    Ok(format!("{:?}", dataset.examples()))
}

fn peft() -> std::path::PathBuf {
    repository("openelm-core/tests/fixtures/peft/lora")
}

fn settings(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Settings of mlx-lm.
fn mlx_lm() -> Value {
    json!({
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": 1, "scale": 2.0, "dropout": 0.0},
        "tied_head": true,
    })
}

fn write_adapter(folder: &Path) {
    let name = "transformer.layers.0.attn.qkv_proj";
    let [a, b] = [[3, 1], [1, 2]].map(|shape: [i32; 2]| {
        let count = shape.iter().product::<i32>();
        Array::from_slice(&vec![1.0_f32; count as usize], &shape)
    });
    let tensors = [
        (format!("{name}.lora_a"), &a),
        (format!("{name}.lora_b"), &b),
    ];
    Array::save_safetensors(tensors, None, folder.join("adapters.safetensors")).unwrap();
}
