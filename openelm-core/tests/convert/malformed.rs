//! Damaged or inconsistent sources: a one-line error with the cause, and no files left.

use std::fs;

use openelm_core::{
    Dtype,
    convert::{ConvertOptions, FileType, Format},
    quantization::QuantizationMode,
};
use openelm_testing::{TempDir, zip};

use crate::{
    models::{Tensor, convert, plain, small, talking, with_source, write_model},
    opcodes::{global, text},
    refused::{quantize, refuses},
    torch::{corenet, zip_file},
};

#[test]
fn rejects_damaged_safetensors_files() {
    let (folder, tensors) = with_source(&small(), Dtype::Float16);
    let file = folder.join("source/model.safetensors");
    let whole = fs::read(&file).unwrap();
    let case = |bytes: &[u8], parts: &[&str]| {
        fs::write(&file, bytes).unwrap();
        refuses(
            &folder,
            "source",
            "target",
            &plain(),
            &[&["model.safetensors"], parts].concat(),
        );
        let four = quantize(QuantizationMode::Affine, None, None);
        refuses(&folder, "source", "target", &four, &["model.safetensors"]);
    };
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        case(&whole[..length], &[]);
    }
    case(&[&whole[..], b"x"].concat(), &[]);
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    case(&lying, &[]);

    let norm = "transformer.norm.weight";
    let write = |change: &dyn Fn(&mut crate::models::Tensors)| {
        let mut changed = tensors.clone();
        change(&mut changed);
        write_model(&folder.join("source"), &small(), &changed);
    };
    let case = |parts: &[&str]| refuses(&folder, "source", "target", &plain(), parts);
    write(&|tensors| drop(tensors.remove(norm)));
    case(&[
        "source",
        "`transformer.norm.weight` of shape [128] is missing",
    ]);
    write(&|tensors| drop(tensors.insert("extra".into(), tensors[norm].clone())));
    case(&["model.safetensors", "`extra` does not belong"]);
    write(&|tensors| {
        drop(tensors.insert(norm.into(), Tensor::of(Dtype::Float16, &[64], &[1.0; 64])))
    });
    case(&["`transformer.norm.weight`: expected shape [128], found [64]"]);
    write(&|_| ());
    fs::remove_file(&file).unwrap();
    case(&["source", "model.safetensors"]);
    fs::remove_file(folder.join("source/config.json")).unwrap();
    case(&["config.json"]);
}

#[test]
fn rejects_wrong_gguf_files() {
    let (folder, _) = with_source(&small(), Dtype::Float16);
    let options = ConvertOptions {
        format: Format::Gguf(FileType::F16),
        ..plain()
    };
    let file = folder.join("small.gguf");
    convert(&folder.join("source"), &file, &options).unwrap();
    let whole = fs::read(&file).unwrap();
    let case = |bytes: &[u8], parts: &[&str]| {
        fs::write(&file, bytes).unwrap();
        refuses(
            &folder,
            "small.gguf",
            "target",
            &plain(),
            &[&["small.gguf"], parts].concat(),
        );
    };
    for length in [0, 3, 4, 23, 500, whole.len() / 2, whole.len() - 1] {
        case(&whole[..length], &[]);
    }
    // The tensor's offset, 8 bytes after its name, dimensions and type.
    let name = b"blk.1.ffn_down.weight";
    let found = whole
        .windows(name.len())
        .position(|bytes| bytes == name)
        .unwrap();
    let place = found + name.len() + 4 + 2 * 8 + 4;
    let with = |at: usize, value: u64| {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    case(&with(place, 0), &["overlap"]);
    case(
        &with(place, 1 << 40),
        &["blk.1.ffn_down.weight", "truncated or damaged"],
    );
    case(&with(place, u64::MAX - 31), &["blk.1.ffn_down.weight"]);
    case(&with(place, 1), &["blk.1.ffn_down.weight"]);
    case(
        &with(found + name.len() + 4, 1 << 60),
        &["blk.1.ffn_down.weight"],
    );
    case(&with(8, u64::MAX), &["tensors"]);
    case(&with(16, u64::MAX), &["keys"]);
}

#[test]
fn rejects_pickles_with_code() {
    let folder = TempDir::new();
    let marker = folder.join("ran");
    let command = format!("touch {}", marker.display());
    let call = [&global("os", "system"), &text(&command)[..], b"\x85R"].concat();
    let case = |file: &str, bytes: &[u8], parts: &[&str]| {
        fs::write(folder.join(file), bytes).unwrap();
        let options = ConvertOptions {
            architecture: Some(small()),
            ..plain()
        };
        refuses(
            &folder,
            file,
            "target",
            &options,
            &[&[file], parts].concat(),
        );
        assert!(!marker.exists());
    };
    let entry = |pickle: Vec<u8>| zip(&[("m/data.pkl".to_owned(), pickle)]);
    let alone = [b"\x80\x02", &call[..], b"."].concat();
    case("alone.pt", &entry(alone), &["os.system"]);
    let weight = [b"\x80\x02}", &text("norm.weight")[..], &call, b"s."].concat();
    case("weight.pt", &entry(weight), &["os.system"]);
    case("text.pt", b"hello", &["not a PyTorch file"]);
    case("empty.pt", b"", &[]);
    let stored = corenet(&crate::models::random(&small(), Dtype::Float16), 96);
    let whole = zip_file(&[("", &stored)]);
    for length in [100, whole.len() / 2, whole.len() - 1] {
        case("cut.pt", &whole[..length], &[]);
    }
    fs::write(folder.join("whole.pt"), &whole).unwrap();
    refuses(
        &folder,
        "whole.pt",
        "target",
        &plain(),
        &["whole.pt", "state the architecture"],
    );
    let other = ConvertOptions {
        architecture: Some(talking()),
        ..plain()
    };
    refuses(
        &folder,
        "whole.pt",
        "target",
        &other,
        &["`token_embeddings.weight`: expected shape [2050, 64]"],
    );
    case(
        "model.safetensors",
        &whole,
        &["give the path of its folder"],
    );
}
