//! CoreNet's fine-tuned checkpoints: a `.pt` file with the parameters of LoRA or DoRA, as Apple
//! publishes them (`corenet/third_party/modeling/lora.py`, `projects/openelm/README-peft.md`).
//!
//! The file is the state dict of the whole model. A matrix `X` with an adapter named `lora` has
//! `X.base_layer.weight`, `X.lora_A.lora.weight` `[r, in]`, `X.lora_B.lora.weight` `[out, r]` and,
//! for DoRA, `X.lora_magnitude_vector.lora` `[out]`; the embedding has `X.lora_embedding_A.lora`
//! `[r, V]` and `X.lora_embedding_B.lora` `[D, r]`, and never a magnitude. Norms are as usual. A file
//! of the adapter's tensors alone is read too.

use std::{collections::BTreeMap, path::Path};

use mlx_rs::{
    Array,
    ops::{indexing::TryIndexOp, matmul},
};

use super::{
    adapter::{Adapter, AdapterKind},
    torch_tensors::read,
};
use crate::{
    config::{
        CORENET_VOCAB, VOCAB,
        tensor_names::{BACKBONE, EMBEDDING},
    },
    error::{Error, Result},
    formats::torch::TorchFile,
    model::Module,
    weights::Tensors,
};

/// The scale of a product, `alpha / r`. The file does not state it; all of CoreNet's configurations
/// have equal `lora_alpha` and `r` (`projects/openelm/peft_configs`).
const SCALE: f32 = 1.0;
/// `lora_dropout` of CoreNet's configurations.
const DROPOUT: f32 = 0.1;

/// A part of an adapted matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    A,
    B,
    Magnitude,
    Base,
}

/// Reads the file at `path`.
pub(super) fn load(path: &Path) -> Result<Adapter> {
    let wrong = |problem: String| Error::adapter(path, problem);
    let file = TorchFile::open(path)?;
    let mut parts: BTreeMap<String, BTreeMap<Part, &str>> = BTreeMap::new();
    let mut adapter_name = None;
    for name in file.tensors().keys() {
        let Some((stem, part, own)) = split(name) else {
            if is_norm(name) {
                continue;
            }
            return Err(wrong(format!(
                "tensor `{name}` is no part of an adapter of CoreNet"
            )));
        };
        if let Some(own) = own {
            let known = *adapter_name.get_or_insert(own);
            if known != own {
                let problem = format!("expected one adapter, found `{known}` and `{own}`");
                return Err(wrong(problem));
            }
        }
        parts.entry(stem).or_default().insert(part, name);
    }
    // A matrix that no adapter changes.
    parts.retain(|_, of_matrix| of_matrix.keys().any(|part| *part != Part::Base));
    if parts.is_empty() {
        let problem = "it holds no `lora_A` and `lora_B`: this is a model; convert it instead";
        return Err(wrong(problem.into()));
    }
    let is_dora = parts.values().any(|of| of.contains_key(&Part::Magnitude));
    let mut modules = BTreeMap::new();
    for (stem, of_matrix) in parts {
        let module = module(&file, &stem, &of_matrix, is_dora)?;
        modules.insert(stem, module);
    }
    Ok(Adapter {
        kind: if is_dora {
            AdapterKind::Dora
        } else {
            AdapterKind::Lora
        },
        modules,
        weights: Tensors::new(),
        dropout: DROPOUT,
        tied_head: false,
        origin: None,
    })
}

/// The adapter of the matrix `stem`.
fn module(
    file: &TorchFile,
    stem: &str,
    names: &BTreeMap<Part, &str>,
    is_dora: bool,
) -> Result<Module> {
    let tensor = |part: Part, dimensions: usize| -> Result<Option<Array>> {
        let Some(name) = names.get(&part) else {
            return Ok(None);
        };
        let array = read(file, name)?;
        if array.ndim() != dimensions {
            let (path, shape) = (file.path(), array.shape());
            let problem =
                format!("tensor `{name}`: expected {dimensions} dimensions, found shape {shape:?}");
            return Err(Error::adapter(path, problem));
        }
        Ok(Some(array))
    };
    let wrong = |problem: String| Error::adapter(file.path(), problem);
    let (Some(a), Some(b)) = (tensor(Part::A, 2)?, tensor(Part::B, 2)?) else {
        return Err(wrong(format!("`{stem}` lacks `lora_A` or `lora_B`")));
    };
    if a.dim(0) != b.dim(1) {
        let (a, b) = (a.shape(), b.shape());
        let problem = format!("`{stem}`: `lora_A` {a:?} and `lora_B` {b:?} have other ranks");
        return Err(wrong(problem));
    }
    let mut module = Module {
        lora_a: a.t(),
        lora_b: b.t(),
        m: tensor(Part::Magnitude, 1)?,
        scale: SCALE,
    };
    let base = if is_dora && module.m.is_none() {
        tensor(Part::Base, 2)?
    } else {
        None
    };
    let base = base.map(|base| without_padding(stem, base)).transpose()?;
    module.lora_a = without_padding(stem, module.lora_a)?;
    if let Some(base) = base {
        module.m = Some(unchanged_lengths(stem, &module, &base)?);
    }
    Ok(module)
}

/// The magnitudes `[out]` with which DoRA is LoRA: the lengths of the rows of `W + ΔW`. CoreNet mixes
/// both in one adapter; the formats of mlx-lm do not.
fn unchanged_lengths(stem: &str, module: &Module, base: &Array) -> Result<Array> {
    let (a, b) = module.factors(stem);
    let delta = matmul(a, b)?.multiply(Array::from_f32(module.scale))?;
    let delta = delta.t();
    let lengths = base.add(delta)?.square()?.sum_axis(-1, None)?.sqrt()?;
    lengths.eval()?;
    Ok(lengths)
}

/// Removes the rows of CoreNet's padding tokens from a tensor `[V, …]` of the embedding.
fn without_padding(stem: &str, array: Array) -> Result<Array> {
    if stem == EMBEDDING && array.dim(0) as usize == CORENET_VOCAB {
        return Ok(array.try_index(..VOCAB as i32)?);
    }
    Ok(array)
}

/// Our name of the matrix, the part, and the adapter's name, of the tensor `name`.
fn split(name: &str) -> Option<(String, Part, Option<&str>)> {
    const PARTS: [(&str, &str, Part); 5] = [
        (".lora_A.", ".weight", Part::A),
        (".lora_B.", ".weight", Part::B),
        (".lora_embedding_A.", "", Part::A),
        (".lora_embedding_B.", "", Part::B),
        (".lora_magnitude_vector.", "", Part::Magnitude),
    ];
    let own = |stem: &str| format!("{BACKBONE}{stem}");
    if let Some(stem) = name.strip_suffix(".base_layer.weight") {
        return Some((own(stem), Part::Base, None));
    }
    PARTS.iter().find_map(|(start, end, part)| {
        let (stem, rest) = name.split_once(start)?;
        let adapter = rest.strip_suffix(end)?;
        let is_name = !adapter.is_empty() && !adapter.contains('.');
        is_name.then(|| (own(stem), *part, Some(adapter)))
    })
}

/// True for the weight of a norm, and of a matrix without an adapter.
fn is_norm(name: &str) -> bool {
    let known = ["norm", "token_embeddings", "classifier"];
    name.strip_suffix(".weight").is_some_and(|stem| {
        !stem.contains("lora") && (stem.starts_with("layers.") || known.contains(&stem))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_rs::random;
    use openelm_testing::{TempDir, TempFile};

    use crate::{
        formats::torch::{NewTorchTensor, TorchWriter},
        mlx::Dtype,
    };

    const QKV: &str = "layers.0.attn.qkv_proj";
    const RANK: i32 = 3;

    /// Tensors and their names.
    type Named = Vec<(String, Array)>;

    /// A tensor of random numbers.
    fn tensor(name: &str, shape: &[i32]) -> (String, Array) {
        let seed = name
            .bytes()
            .fold(7, |seed, byte| seed * 31 % 10_007 + u64::from(byte));
        let key = random::key(seed).unwrap();
        let values = random::normal::<f32>(shape, None, None, &key).unwrap();
        (name.to_owned(), values)
    }

    /// The tensors of a model of `rows` tokens and one layer, with adapters of the embedding and of
    /// `qkv_proj`.
    fn tensors(rows: i32, is_dora: bool) -> Named {
        let mut all = vec![
            tensor("token_embeddings.base_layer.weight", &[rows, 8]),
            tensor("token_embeddings.lora_embedding_A.lora", &[RANK, rows]),
            tensor("token_embeddings.lora_embedding_B.lora", &[8, RANK]),
            tensor("layers.0.attn_norm.weight", &[8]),
            tensor("layers.0.attn.out_proj.base_layer.weight", &[8, 6]),
            tensor("norm.weight", &[8]),
        ];
        all.push(tensor(&format!("{QKV}.base_layer.weight"), &[24, 8]));
        all.push(tensor(&format!("{QKV}.lora_A.lora.weight"), &[RANK, 8]));
        all.push(tensor(&format!("{QKV}.lora_B.lora.weight"), &[24, RANK]));
        if is_dora {
            all.push(tensor(&format!("{QKV}.lora_magnitude_vector.lora"), &[24]));
        }
        all
    }

    fn written(tensors: &[(String, Array)]) -> TempFile {
        let file = TempFile::new("adapter.pt", Vec::new());
        let described = tensors.iter().map(|(name, array)| NewTorchTensor {
            name: name.clone(),
            dtype: Dtype::Float32,
            shape: array.shape().iter().map(|&n| n as usize).collect(),
        });
        let mut writer = TorchWriter::create(&file, described.collect()).unwrap();
        for (_, array) in tensors {
            writer.write(array).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    fn find(tensors: &[(String, Array)], name: &str) -> Array {
        let found = tensors.iter().find(|(known, _)| known == name);
        found.unwrap().1.clone()
    }

    fn values(array: &Array) -> Vec<f32> {
        let array = array.contiguous().unwrap();
        array.to_vec_exact::<f32>().unwrap()
    }

    fn assert_near(found: &Array, expected: &Array) {
        assert_eq!(found.shape(), expected.shape());
        for (found, expected) in values(found).iter().zip(values(expected)) {
            let error = (found - expected).abs();
            assert!(
                error <= 1e-5 * (1.0 + expected.abs()),
                "{found}, not {expected}"
            );
        }
    }

    /// `W + B·A`, the weight of CoreNet's merged matrix.
    fn merged(tensors: &[(String, Array)], base: &str, a: &str, b: &str) -> Array {
        let delta = matmul(find(tensors, b), find(tensors, a)).unwrap();
        let base = find(tensors, base);
        if base.shape() == delta.shape() {
            base.add(delta).unwrap()
        } else {
            base.add(delta.t()).unwrap()
        }
    }

    #[test]
    fn lora_and_dora_change_the_weights_as_in_corenet() {
        for is_dora in [false, true] {
            let tensors = tensors(11, is_dora);
            let adapter = load(&written(&tensors)).unwrap();
            let kind = if is_dora {
                AdapterKind::Dora
            } else {
                AdapterKind::Lora
            };
            assert_eq!(adapter.kind, kind);
            let qkv = format!("transformer.{QKV}");
            assert_eq!(adapter.targets(), [qkv.as_str(), EMBEDDING]);

            // The embedding is LoRA in both; a row of DoRA has the length of its magnitude.
            let base = "token_embeddings.base_layer.weight";
            let [a, b] =
                ["A", "B"].map(|part| format!("token_embeddings.lora_embedding_{part}.lora"));
            let expected = merged(&tensors, base, &a, &b);
            let found = adapter.fused(&format!("{EMBEDDING}.weight"), find(&tensors, base));
            assert_near(&found.unwrap(), &expected);

            let base = format!("{QKV}.base_layer.weight");
            let [a, b] = ["A", "B"].map(|part| format!("{QKV}.lora_{part}.lora.weight"));
            let mut expected = merged(&tensors, &base, &a, &b);
            if is_dora {
                let m = find(&tensors, &format!("{QKV}.lora_magnitude_vector.lora"));
                let norm = expected.square().unwrap().sum_axis(-1, true).unwrap();
                let ratio = m.expand_dims(-1).unwrap().divide(norm.sqrt().unwrap());
                expected = expected.multiply(ratio.unwrap()).unwrap();
            }
            let found = adapter.fused(&format!("{qkv}.weight"), find(&tensors, &base));
            assert_near(&found.unwrap(), &expected);
        }
    }

    #[test]
    fn rows_of_padding_tokens_are_removed() {
        let adapter = load(&written(&tensors(CORENET_VOCAB as i32, true))).unwrap();
        let module = &adapter.modules[EMBEDDING];
        assert_eq!(module.lora_a.shape(), [VOCAB as i32, RANK]);
        assert_eq!(module.m.as_ref().unwrap().shape(), [VOCAB as i32]);
    }

    #[test]
    fn files_of_adapter_tensors_alone_are_read() {
        let folder = TempDir::new();
        let config = crate::config::Preset::Size270M.config();
        for is_dora in [false, true] {
            let mut tensors = tensors(11, is_dora);
            tensors.retain(|(name, _)| name.contains("lora"));
            let adapter = load(&written(&tensors)).unwrap();
            assert_eq!(adapter.modules.len(), 2);
            // The lengths of the embedding's rows are unknown.
            assert_eq!(adapter.without_magnitudes().is_some(), is_dora);
            let saved = adapter.save(folder.join(format!("{is_dora}")), &config);
            assert_eq!(saved.is_err(), is_dora, "{saved:?}");
        }
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let problem = |change: &dyn Fn(&mut Named)| {
            let mut tensors = tensors(11, false);
            change(&mut tensors);
            load(&written(&tensors)).unwrap_err().to_string()
        };
        let model = problem(&|tensors| tensors.retain(|(name, _)| !name.contains("lora")));
        assert!(model.contains("convert it instead"), "{model}");
        let name = format!("{QKV}.lora_A.other.weight");
        let second = problem(&|tensors| tensors.push(tensor(&name, &[RANK, 8])));
        assert!(second.contains("`lora` and `other`"), "{second}");
        let unknown = problem(&|tensors| tensors.push(tensor("head.bias", &[8])));
        assert!(unknown.contains("`head.bias`"), "{unknown}");
        let half = problem(&|tensors| tensors.retain(|(name, _)| !name.contains("lora_B")));
        assert!(half.contains("lacks `lora_A` or `lora_B`"), "{half}");
        let rank = problem(&|tensors| {
            tensors.retain(|(name, _)| !name.contains("lora_B"));
            tensors.push(tensor(&format!("{QKV}.lora_B.lora.weight"), &[24, 2]));
        });
        assert!(rank.contains("other ranks"), "{rank}");
        let dimensions = problem(&|tensors| {
            tensors.retain(|(name, _)| !name.contains("lora_B"));
            tensors.push(tensor(&format!("{QKV}.lora_B.lora.weight"), &[24]));
        });
        assert!(dimensions.contains("expected 2 dimensions"), "{dimensions}");
    }
}
