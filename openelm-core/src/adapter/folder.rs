//! An adapter folder in mlx-lm's or PEFT's format.

use std::path::Path;

use serde_json::{Map, Value};

use super::{adapter::Adapter, corenet, mlx_lm, peft};
use crate::{
    config::Config,
    error::{Error, Result},
    files::{Activity, CreatedFolders, WriteLock},
    hub_cache,
    lookup::{PathKind, first_file, is_pipe, path_kind},
    text_file::{MAX_SETTINGS, read_text_file},
};

/// Weight files of an adapter folder, in order of preference.
const WEIGHTS: [&str; 3] = [peft::WEIGHTS, mlx_lm::WEIGHTS, peft::TORCH_WEIGHTS];

impl Adapter {
    /// Reads an adapter folder: mlx-lm's (`adapters.safetensors`, `adapter_config.json`), or PEFT's
    /// (`adapter_model.safetensors` or, before, `adapter_model.bin`; `adapter_config.json`); or such
    /// a repository's folder in the Hugging Face Hub cache. A file `.pt` is CoreNet's.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has neither, [`Error::Io`], [`Error::Adapter`] for a
    /// file and for a setting that is missing or not supported, [`Error::Checkpoint`] for a
    /// malformed file.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let mut adapter = Self::read(folder)?;
        adapter.origin = Some(folder.to_path_buf());
        Ok(adapter)
    }

    fn read(path: &Path) -> Result<Self> {
        let [peft, mlx_lm, _] = WEIGHTS;
        let expected = format!(
            "an adapter folder with {mlx_lm} (mlx-lm) or {peft} (PEFT), or CoreNet's .pt file"
        );
        match path_kind(path)? {
            None => return Err(hub_cache::absent(path, &expected)),
            Some(PathKind::Folder) => {}
            Some(PathKind::File) if is_torch_file(path) => return corenet::load(path),
            Some(_) => {
                let problem = format!("this is a file; expected {expected}");
                return Err(Error::adapter(path, problem));
            }
        }
        let folder = hub_cache::resolve(path, &WEIGHTS)?;
        let settings = folder.join(mlx_lm::CONFIG);
        if is_pipe(&settings) {
            return Err(Error::adapter(settings, "a pipe, expected a file"));
        }
        match first_file(&folder, &WEIGHTS)? {
            Some(file) if file.ends_with(mlx_lm) => mlx_lm::load(&folder),
            Some(_) => peft::load(&folder),
            None => Err(Error::missing_file(
                path,
                format!("no adapter here: neither {mlx_lm} (mlx-lm) nor {peft} (PEFT)"),
            )),
        }
    }

    /// Writes the adapter in mlx-lm's format into `folder`, which is created if needed. Each file
    /// is written atomically. An adapter that this crate wrote in this format is replaced.
    ///
    /// # Errors
    /// [`Error::Destination`] if the folder holds another adapter or another process writes there,
    /// [`Error::Io`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, config: &Config) -> Result<()> {
        save_locked(folder.as_ref(), mlx_lm::WEIGHTS, &mlx_lm::KEYS, |folder| {
            self.write(folder, config)
        })
    }

    /// Like [`save`](Self::save), into a folder that the caller has locked.
    pub(crate) fn write(&self, folder: &Path, config: &Config) -> Result<()> {
        mlx_lm::save(self, folder, config)
    }

    /// Checks that [`save`](Self::save) can write the adapter, before it is trained.
    ///
    /// # Errors
    /// [`Error::Option`] for `adapter` if it has several ranks, as PEFT's `rank_pattern` gives, or
    /// scales with no common one.
    pub(crate) fn check_savable(&self) -> Result<()> {
        mlx_lm::check_savable(self).map_err(|problem| Error::option("adapter", problem))
    }

    /// Writes the adapter in Hugging Face PEFT's format. `base` is the model's name for
    /// `base_model_name_or_path`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if PEFT does not support the adapter (full fine-tuning, a tied head),
    /// [`Error::Destination`] if the folder holds another adapter or another process writes there,
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_peft(&self, folder: impl AsRef<Path>, base: &str) -> Result<()> {
        save_locked(folder.as_ref(), peft::WEIGHTS, &peft::KEYS, |folder| {
            peft::save(self, folder, base)
        })
    }
}

/// True for the name of a file of PyTorch.
fn is_torch_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("pt"))
}

/// Locks `folder`, checks that `save` replaces no other adapter, and calls it.
fn save_locked(
    folder: &Path,
    weights: &str,
    keys: &[&str],
    save: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut created = CreatedFolders::create(folder)?;
    let lock = WriteLock::acquire(folder, Activity::Writing)?;
    if let Some(name) = foreign(folder, weights, keys) {
        let problem = format!("contains `{name}` of another adapter: choose another folder");
        return Err(Error::destination(folder, problem));
    }
    save(folder)?;
    created.keep();
    drop(lock);
    Ok(())
}

/// A file of another format, or of another program: its settings have other keys than `keys`.
fn foreign(folder: &Path, weights: &str, keys: &[&str]) -> Option<&'static str> {
    let there = |name: &str| folder.join(name).symlink_metadata().is_ok();
    let formats = [mlx_lm::WEIGHTS, peft::WEIGHTS];
    let other = formats
        .into_iter()
        .find(|name| *name != weights && there(name));
    if other.is_some() {
        return other;
    }
    if !there(mlx_lm::CONFIG) {
        return formats.into_iter().find(|name| there(name));
    }
    let path = folder.join(mlx_lm::CONFIG);
    if is_pipe(&path) {
        return Some(mlx_lm::CONFIG);
    }
    let text = read_text_file(&path, MAX_SETTINGS).ok();
    let settings: Option<Map<String, Value>> = text.and_then(|t| serde_json::from_str(&t).ok());
    let is_own = settings.is_some_and(|all| all.keys().all(|key| keys.contains(&key.as_str())));
    (!is_own).then_some(mlx_lm::CONFIG)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        adapter::{AdapterKind, adapter::LoraOptions},
        config::Preset,
        model::Module,
    };
    use mlx_rs::ops::zeros;
    use openelm_testing::TempDir;

    fn adapter() -> Adapter {
        let module = Module {
            lora_a: zeros::<f32>(&[4, 2]).unwrap(),
            lora_b: zeros::<f32>(&[2, 4]).unwrap(),
            m: None,
            scale: LoraOptions::default().scale,
        };
        let name = "transformer.layers.0.attn.qkv_proj".to_owned();
        Adapter {
            kind: AdapterKind::Lora,
            modules: [(name, module)].into(),
            weights: crate::weights::Tensors::new(),
            dropout: 0.0,
            tied_head: false,
            origin: None,
        }
    }

    #[test]
    fn only_own_adapters_are_replaced() {
        let folder = TempDir::new();
        let config = Preset::Size270M.config();
        let save = |name: &str| adapter().save(folder.join(name), &config);
        let save_peft = |name: &str| adapter().save_peft(folder.join(name), "base");
        for _ in 0..2 {
            save("new/mlx").unwrap();
            save_peft("new/peft").unwrap();
        }
        let names = |name: &str| folder.files(name).into_keys().collect::<Vec<_>>();
        assert_eq!(
            names("new/mlx"),
            ["adapter_config.json", "adapters.safetensors"]
        );
        let refused = |result: Result<()>, name: &str| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Destination { .. }), "{error}");
            assert!(
                error.to_string().contains(&format!("contains `{name}`")),
                "{error}"
            );
        };
        refused(save("new/peft"), "adapter_model.safetensors");
        refused(save_peft("new/mlx"), "adapters.safetensors");
        // Settings of mlx-lm and of PEFT, and weights alone.
        let settings = r#"{"fine_tune_type": "lora", "num_layers": 4, "seed": 0}"#;
        folder.write("theirs/adapter_config.json", settings);
        refused(save("theirs"), "adapter_config.json");
        let settings = r#"{"peft_type": "LORA", "r": 8, "auto_mapping": null}"#;
        folder.write("theirs/adapter_config.json", settings);
        refused(save_peft("theirs"), "adapter_config.json");
        folder.write("weights/adapters.safetensors", "");
        refused(save("weights"), "adapters.safetensors");
        assert_eq!(names("theirs"), ["adapter_config.json"]);

        let lock = WriteLock::acquire(&folder.join("new/mlx"), Activity::Training).unwrap();
        let error = save("new/mlx").unwrap_err().to_string();
        assert!(error.contains("is training here"), "{error}");
        drop(lock);
    }

    #[test]
    fn failed_save_leaves_no_folder() {
        let folder = TempDir::new();
        let mut full = adapter();
        full.modules.clear();
        full.save_peft(folder.join("a/b"), "base").unwrap_err();
        assert!(folder.names().is_empty());
    }

    #[test]
    fn settings_have_the_known_keys() {
        let folder = TempDir::new();
        adapter()
            .save(folder.join("mlx"), &Preset::Size270M.config())
            .unwrap();
        adapter().save_peft(folder.join("peft"), "base").unwrap();
        for (name, keys) in [("mlx", &mlx_lm::KEYS[..]), ("peft", &peft::KEYS[..])] {
            let text = fs::read(folder.join(name).join(mlx_lm::CONFIG)).unwrap();
            let settings: Map<String, Value> = serde_json::from_slice(&text).unwrap();
            assert!(settings.keys().all(|key| keys.contains(&key.as_str())));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_no_settings_file() {
        let folder = TempDir::new();
        adapter().save(&folder, &Preset::Size270M.config()).unwrap();
        let path = folder.join(mlx_lm::CONFIG);
        fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = Adapter::load(&folder).unwrap_err();
        let expected = format!("{}: a pipe, expected a file", path.display());
        assert_eq!(error.to_string(), expected);
        let error = adapter()
            .save(&folder, &Preset::Size270M.config())
            .unwrap_err();
        assert!(matches!(error, Error::Destination { .. }), "{error}");
    }
}
