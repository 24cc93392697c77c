//! Training, using and fusing adapters.

use std::{fs, path::Path};

use openelm_testing::{success, tales};

use crate::folder::{Scratch, openelm};

#[test]
fn trains_plots_generates_and_fuses() {
    let scratch = Scratch::new();
    let more = [
        "--iters",
        "30",
        "--learning-rate",
        "2e-3",
        "--steps-per-eval",
        "10",
        "--json",
    ];
    let output = success(scratch.finetune("adapters", &more));
    let events = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let losses: Vec<f64> = events
        .iter()
        .filter_map(|event| event["val_loss"].as_f64())
        .collect();
    assert_eq!(
        losses.len(),
        4,
        "before the first step and after 10, 20, 30: {losses:?}"
    );
    assert!(losses[3] < 0.7 * losses[0], "{losses:?}");
    assert_eq!(events.last().unwrap()["reason"], "iterations");

    let adapters = scratch.path("adapters");
    let png = fs::read(adapters.join("loss.png")).unwrap();
    assert_eq!(&png[..4], b"\x89PNG");
    assert!(
        fs::read_to_string(adapters.join("loss.svg"))
            .unwrap()
            .contains("validation")
    );

    let text = |model: &Path, more: &[&str]| {
        let mut command = openelm(&["generate", "--prompt", "The fox had", "-n", "12", "--quiet"]);
        command.arg("--model").arg(model).args(more);
        String::from_utf8(success(command).stdout).unwrap()
    };
    let adapter = adapters.to_str().unwrap();
    let base = text(&tales(), &[]);
    let adapted = text(&tales(), &["--adapter", adapter]);
    assert_ne!(base, adapted);
    assert!(adapted.contains("apples"), "{adapted}");
    assert_eq!(
        text(&tales(), &["--adapter", &format!("{adapter}=0")]),
        base
    );

    let mut fuse = openelm(&[
        "fuse",
        "--model",
        tales().to_str().unwrap(),
        "--adapter-path",
        adapter,
        "--dtype",
        "float32",
    ]);
    fuse.arg("--save-path").arg(scratch.path("fused"));
    success(fuse);
    assert_eq!(text(&scratch.path("fused"), &[]), adapted);
}

#[test]
fn trains_on_one_row() {
    let scratch = Scratch::new();
    let row = scratch.path("one.jsonl");
    fs::write(&row, "{\"text\": \"The fox had nine apples.\"}\n").unwrap();
    let mut command = openelm(&["finetune", "--model", tales().to_str().unwrap(), "--data"]);
    command
        .arg(&row)
        .arg("--adapter-path")
        .arg(scratch.path("adapters"));
    command.args([
        "--iters",
        "5",
        "--batch-size",
        "4",
        "--learning-rate",
        "1e-3",
        "--json",
    ]);
    command.args(["--steps-per-report", "1"]);
    let stdout = String::from_utf8(success(command).stdout).unwrap();
    let events = stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = events
        .filter_map(|event| event["train_loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), 5, "{stdout}");
    assert!(losses[4] < losses[0], "{losses:?}");
}

#[test]
fn fuses_adapter_of_quantized_model() {
    let scratch = Scratch::new();
    let (packed, adapters) = (scratch.path("tales-4bit"), scratch.path("adapters"));
    let mut convert = openelm(&["convert", tales().to_str().unwrap()]);
    convert.arg(&packed).args(["-q", "--quiet"]);
    success(convert);
    let mut train = openelm(&["finetune", "--keep-quantized", "--scale", "2", "--model"]);
    train
        .arg(&packed)
        .arg("--data")
        .arg(&*scratch.0)
        .arg("--adapter-path")
        .arg(&adapters);
    train.args(["--iters", "20", "--learning-rate", "2e-3", "--quiet"]);
    success(train);
    let text = |model: &Path, adapter: Option<&Path>| {
        let mut command = openelm(&["generate", "--prompt", "The fox had", "-n", "12", "--quiet"]);
        command.arg("--model").arg(model);
        if let Some(adapter) = adapter {
            command.arg("--adapter").arg(adapter);
        }
        String::from_utf8(success(command).stdout).unwrap()
    };
    let fuse = |to: &Path, more: &[&str]| {
        let mut command = openelm(&["fuse", "--model"]);
        command.arg(&packed).arg("--adapter-path").arg(&adapters);
        command.arg("--save-path").arg(to).args(more);
        success(command);
    };
    let adapted = text(&packed, Some(&adapters));
    assert_ne!(adapted, text(&packed, None));
    let plain = scratch.path("plain");
    fuse(&plain, &["--dequantize", "--dtype", "float32"]);
    assert_eq!(text(&plain, None), adapted);
    // Quantising the fused model again rounds again; the trained change remains.
    let again = scratch.path("again");
    fuse(&again, &[]);
    let size = |model: &Path| fs::metadata(model.join("model.safetensors")).unwrap().len();
    assert!(size(&again) < size(&plain) / 4, "quantised again");
    assert!(text(&again, None).contains("apples"));
}
