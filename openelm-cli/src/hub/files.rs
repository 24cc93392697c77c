//! The choice of a repository's files.

use std::{collections::BTreeSet, fs, path::Path};

use glob::Pattern;
use openelm_core::TOKENIZER_FILES;
use serde_json::Value;

use super::repository::RepoType;

/// Largest index of shards that is read, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// The files that a command needs.
#[derive(Clone, Debug)]
pub(crate) enum Files {
    /// A model, with its tokenizer if there is one: mlx-lm's patterns (`mlx_lm/utils.py`) without
    /// `*.py`, and PyTorch's weights if there are no safetensors. No hidden files, and none of
    /// subfolders.
    Model,
    /// The architecture of a model.
    Config,
    /// A tokenizer.
    Tokenizer,
    /// A model, or else an adapter, or else a tokenizer.
    Any,
    /// An adapter of mlx-lm, openelm or PEFT.
    Adapter,
    /// The rows and texts of a data set.
    Dataset,
    /// The rows of a task: those of the configurations with these names, or all if there are no
    /// folders of configurations.
    Task(BTreeSet<String>),
    /// The files that match one of the first patterns, or all without any, and none of the second.
    Matching(Vec<Pattern>, Vec<Pattern>),
}

impl Files {
    /// The kind of repository that has these files.
    pub(super) fn kind(&self) -> RepoType {
        match self {
            Self::Dataset | Self::Task(_) => RepoType::Dataset,
            _ => RepoType::Model,
        }
    }

    /// The names of the files among `all` names of a repository; weights last.
    pub(super) fn choose(&self, all: &[String]) -> Vec<String> {
        let choose = |choice: &dyn Fn(&str) -> bool| {
            let names = all.iter().filter(|name| choice(name)).cloned();
            names.collect::<Vec<_>>()
        };
        let beside = |name: &str| !name.contains('/') && !name.starts_with('.');
        match self {
            Self::Model => {
                let mut names = choose(&|name| beside(name) && is_description(name));
                let weights =
                    |choice: fn(&str) -> bool| choose(&|name| beside(name) && choice(name));
                let kinds = [is_safetensors, is_torch];
                let found = kinds
                    .map(weights)
                    .into_iter()
                    .find(|names| !names.is_empty());
                names.extend(found.unwrap_or_default());
                names
            }
            Self::Config => choose(&|name| name == "config.json"),
            Self::Tokenizer => choose(&|name| beside(name) && is_tokenizer(name)),
            Self::Adapter => {
                let mut names = choose(&|name| name == ADAPTER_CONFIG);
                let has = |weights: &&str| all.iter().any(|name| name == *weights);
                let weights = ADAPTER_WEIGHTS.iter().copied().find(has);
                names.extend(weights.map(str::to_owned));
                names
            }
            Self::Any => {
                let kinds = [Self::Model, Self::Adapter, Self::Tokenizer];
                let kind = kinds.iter().find(|kind| kind.missing_of(all).is_none());
                kind.map(|kind| kind.choose(all)).unwrap_or_default()
            }
            Self::Dataset => choose(&is_data),
            Self::Task(configurations) => {
                let is_of_one =
                    |name: &str| name.split('/').any(|part| configurations.contains(part));
                let of_ones = choose(&|name| is_rows(name) && is_of_one(name));
                if of_ones.is_empty() {
                    choose(&is_rows)
                } else {
                    of_ones
                }
            }
            Self::Matching(include, exclude) => choose(&|name| {
                let matches = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(name));
                (include.is_empty() || matches(include)) && !matches(exclude)
            }),
        }
    }

    /// The files that are missing in the snapshot `folder`, in words; `None` if there are all, as
    /// far as the folder shows it.
    pub(super) fn missing(&self, folder: &Path) -> Option<String> {
        let names = names_in(folder, "");
        self.missing_of(&names).or_else(|| match self {
            Self::Model | Self::Any => missing_shard(folder, &names),
            _ => None,
        })
    }

    /// The files that are missing among `names`, in words.
    pub(super) fn missing_of(&self, names: &[String]) -> Option<String> {
        let chosen = self.choose(names);
        let any = |is: &dyn Fn(&str) -> bool| chosen.iter().any(|name| is(name));
        let has = |wanted: &str| any(&|name| name == wanted);
        let missing = match self {
            Self::Model | Self::Config if !has("config.json") => "config.json",
            Self::Model if !any(&|name| is_safetensors(name) || is_torch(name)) => {
                "weights (model*.safetensors or pytorch_model*.bin)"
            }
            Self::Tokenizer if !has("tokenizer.json") && !has("tokenizer.model") => {
                "tokenizer.json or tokenizer.model"
            }
            Self::Adapter if !has(ADAPTER_CONFIG) => ADAPTER_CONFIG,
            Self::Adapter if chosen.len() < 2 => {
                "adapters.safetensors or adapter_model.safetensors"
            }
            Self::Task(_) if chosen.is_empty() => "parquet, jsonl or json files",
            Self::Dataset if chosen.is_empty() => "jsonl, json, txt, gz, zst or parquet files",
            Self::Any if chosen.is_empty() => "model, adapter or tokenizer (--include names files)",
            Self::Matching(..) if chosen.is_empty() => {
                "a file that matches --include and not --exclude"
            }
            _ => return None,
        };
        Some(missing.to_owned())
    }
}

const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Weights of adapters, the preferred ones first.
const ADAPTER_WEIGHTS: [&str; 3] = [
    "adapters.safetensors",
    "adapter_model.safetensors",
    "adapter_model.bin",
];

fn is_description(name: &str) -> bool {
    let endings = [".json", ".jsonl", ".jinja", ".txt"];
    name == "tokenizer.model" || endings.iter().any(|ending| name.ends_with(ending))
}

fn is_safetensors(name: &str) -> bool {
    (name.starts_with("model") || name.starts_with("weights")) && name.ends_with(".safetensors")
}

fn is_torch(name: &str) -> bool {
    name.starts_with("pytorch_model") && name.ends_with(".bin")
}

fn is_tokenizer(name: &str) -> bool {
    TOKENIZER_FILES.contains(&name)
}

fn is_data(name: &str) -> bool {
    let endings = [".txt", ".gz", ".zst"];
    is_rows(name) || endings.iter().any(|ending| name.ends_with(ending))
}

/// Files of rows; not descriptions of the data.
fn is_rows(name: &str) -> bool {
    let endings = [".parquet", ".jsonl", ".json"];
    !name.starts_with("dataset_info") && endings.iter().any(|ending| name.ends_with(ending))
}

/// The names of the files in a snapshot whose contents exist, those of subfolders with their paths.
fn names_in(folder: &Path, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let name = format!("{prefix}{name}");
        match entry.path().metadata() {
            Ok(data) if data.is_file() => names.push(name),
            // A link to a folder may lead in circles.
            Ok(_) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                names.extend(names_in(&entry.path(), &format!("{name}/")));
            }
            _ => {}
        }
    }
    names.sort();
    names
}

/// A shard that an index names and the folder does not have.
fn missing_shard(folder: &Path, names: &[String]) -> Option<String> {
    let index = names.iter().find(|name| name.ends_with(".index.json"))?;
    let path = folder.join(index);
    if path.metadata().ok()?.len() > MAX_INDEX {
        return None;
    }
    let index: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let shards = index.get("weight_map")?.as_object()?.values();
    let mut shards = shards.filter_map(Value::as_str);
    let missing = shards.find(|shard| !names.iter().any(|name| name == shard))?;
    Some(missing.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &Files, names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        files.choose(&names)
    }

    #[test]
    fn a_model_has_safetensors_and_no_code() {
        let repository = [
            ".gitattributes",
            ".hidden.json",
            "README.md",
            "config.json",
            "configuration_openelm.py",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.Q8_0.gguf",
            "model.safetensors.index.json",
            "onnx/config.json",
            "onnx/model.safetensors",
            "pytorch_model.bin",
            "tokenizer.model",
        ];
        let expected = [
            "config.json",
            "model.safetensors.index.json",
            "tokenizer.model",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        assert_eq!(chosen(&Files::Model, &repository), expected);
        assert_eq!(chosen(&Files::Tokenizer, &repository), ["tokenizer.model"]);
        let without = ["config.json", "pytorch_model.bin", "model.gguf"];
        assert_eq!(
            chosen(&Files::Model, &without),
            ["config.json", "pytorch_model.bin"]
        );
        let missing = |files: &Files, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            files.missing_of(&names)
        };
        assert_eq!(missing(&Files::Model, &repository), None);
        assert!(
            missing(&Files::Model, &["config.json"])
                .unwrap()
                .starts_with("weights")
        );
        assert!(missing(&Files::Adapter, &["adapter_config.json"]).is_some());
        assert!(missing(&Files::Dataset, &["README.md"]).is_some());
    }

    #[test]
    fn patterns_and_configurations_choose_files() {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let files = Files::Matching(vec![pattern("*.json")], vec![pattern("a/*")]);
        assert_eq!(
            chosen(&files, &["b/c.json", "a/d.json", "e.txt"]),
            ["b/c.json"]
        );
        let of = |names: &[&str]| Files::Task(names.iter().map(|&name| name.to_owned()).collect());
        let data = [
            "A/test.parquet",
            "B/test.parquet",
            "dataset_infos.json",
            "x.py",
        ];
        assert_eq!(chosen(&of(&["A"]), &data), ["A/test.parquet"]);
        assert_eq!(chosen(&of(&["C"]), &data), data[..2]);
        let files = Files::Matching(Vec::new(), vec![pattern("*.bin")]);
        assert_eq!(chosen(&files, &["a.bin", "b"]), ["b"]);
    }
}
