//! Adapters of a model that generates text, and their option.

use std::{io, path::Path};

use openelm_core::{LanguageModel, Model, adapter::Adapter};

use crate::{
    error::Error,
    hub::{self, Files, RepoType, Repository},
    model::absolute,
};

/// The adapters of a command.
#[derive(clap::Args)]
pub(crate) struct AdapterArgs {
    /// Adapter of openelm, mlx-lm or PEFT, a folder or a repository, or CoreNet's .pt file, with an
    /// optional strength as in tales=0.5; may be repeated, adapters are summed
    #[arg(long, visible_alias = "adapter-path", value_name = "PATH|REPO")]
    adapter: Vec<String>,
}

impl AdapterArgs {
    /// Downloads the adapters that are names of repositories.
    pub(crate) fn fetch(&mut self, quiet: bool) -> Result<(), Error> {
        fetch_adapters(&mut self.adapter, quiet)
    }

    /// Loads the adapters onto the model and activates all of them.
    pub(crate) fn add_to(&self, model: &mut LanguageModel) -> Result<(), Error> {
        add_adapters(model.model_mut(), &self.adapter)
    }

    /// The folders with their strengths, as on the command line.
    pub(crate) fn given(&self) -> &[String] {
        &self.adapter
    }

    /// The folders, as inputs that an output may not replace.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (&str, &Path)> {
        let folders = self.adapter.iter();
        let folders = folders.filter_map(|given| Some(folder_and_strength(given).ok()?.0));
        folders.map(|folder| ("--adapter", Path::new(folder)))
    }

    /// The absolute paths of the folders with their strengths.
    pub(crate) fn places(&self) -> Vec<String> {
        let place = |given: &String| match folder_and_strength(given) {
            Ok((folder, strength)) => format!("{}={strength}", absolute(folder.as_ref())),
            Err(_) => given.clone(),
        };
        self.adapter.iter().map(place).collect()
    }
}

/// Downloads the adapters that are names of repositories, and replaces their names by paths.
pub(crate) fn fetch_adapters(adapters: &mut [String], quiet: bool) -> Result<(), Error> {
    for given in adapters {
        *given = fetched(given, quiet)?;
    }
    Ok(())
}

/// `FOLDER=STRENGTH` with the path of the folder in the cache, if it is the name of a repository.
pub(crate) fn fetched(given: &str, quiet: bool) -> Result<String, Error> {
    let (folder, _) = folder_and_strength(given)?;
    let path = hub::local(Path::new(folder), &Files::Adapter, quiet)?;
    if path == Path::new(folder) {
        return Ok(given.to_owned());
    }
    let strength = given.get(folder.len()..).unwrap_or_default();
    Ok(format!("{}{strength}", path.display()))
}

/// Loads adapters onto the model and activates all of them.
pub(crate) fn add_adapters(model: &mut Model, adapters: &[String]) -> Result<(), Error> {
    let mut active = Vec::new();
    for given in adapters {
        let (folder, strength) = folder_and_strength(given)?;
        model.add_adapter(folder, &Adapter::load(folder)?)?;
        active.push((folder, strength));
    }
    Ok(model.set_adapters(&active)?)
}

/// Sets the strength of an adapter, given as `NAME=STRENGTH`, beside the active ones: a loaded
/// adapter, by its folder or the folder's name, or a new one, by its folder. Strength 0 switches it
/// off.
pub(crate) fn set_adapter(model: &mut Model, given: &str, quiet: bool) -> Result<(), Error> {
    let known = loaded(model, given);
    let given = &match known {
        Some(_) => given.to_owned(),
        None => fetched(given, quiet)?,
    };
    let (name, strength) = match known.or_else(|| loaded(model, given)) {
        Some(found) => found,
        None => {
            let (folder, strength) = folder_and_strength(given)?;
            let adapter = Adapter::load(folder)?;
            let before = model.active_adapters().to_vec();
            // A new adapter becomes the only active one.
            model.add_adapter(folder, &adapter)?;
            activate(model, &before)?;
            (folder.to_owned(), strength)
        }
    };
    let mut active = model.active_adapters().to_vec();
    active.retain(|(other, _)| *other != name);
    if strength != 0.0 {
        active.push((name, strength));
    }
    activate(model, &active)
}

fn activate(model: &mut Model, active: &[(String, f32)]) -> Result<(), Error> {
    let active: Vec<_> = active.iter().map(|(name, s)| (name.as_str(), *s)).collect();
    Ok(model.set_adapters(&active)?)
}

/// The loaded adapter that `given` names, with its strength.
fn loaded(model: &Model, given: &str) -> Option<(String, f32)> {
    let all = model.adapters();
    let find = |name: &str| {
        let has_name = |folder: &&&str| {
            **folder == name || Path::new(*folder).file_name() == Some(name.as_ref())
        };
        all.iter().find(has_name).map(|folder| (*folder).to_owned())
    };
    if let Some(name) = find(given) {
        return Some((name, 1.0));
    }
    let (name, strength) = given.rsplit_once('=')?;
    Some((find(name)?, strength.parse().ok()?))
}

/// The parts of `FOLDER=STRENGTH`; the strength is optional. An existing path is a folder, whatever
/// its name contains.
pub(crate) fn folder_and_strength(given: &str) -> Result<(&str, f32), Error> {
    if given.is_empty() {
        return Err(Error::Usage("--adapter: the path is empty".into()));
    }
    let exists = |path: &str| match Path::new(path).symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let parts = given.rsplit_once('=').filter(|_| !exists(given));
    let is_repository = |name: &str| Repository::parse(name, RepoType::Model).is_some();
    let is_adapter = |folder: &str| exists(folder) || is_repository(folder);
    // If neither exists, the error names the whole text.
    let Some((folder, strength)) = parts.filter(|(folder, _)| is_adapter(folder)) else {
        return Ok((given, 1.0));
    };
    match strength.parse() {
        Ok(number) => Ok((folder, number)),
        Err(_) => Err(Error::Usage(format!(
            "--adapter: expected a number as the strength of {folder}, found {strength}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use openelm_testing::TempDir;

    use super::folder_and_strength;

    #[test]
    fn commands_that_generate_have_the_same_option() {
        let all = crate::Cli::command();
        let help = |name: &str| {
            let command = all.find_subcommand(name).unwrap();
            let mut options = command.get_arguments();
            let option = options.find(|option| option.get_long() == Some("adapter"));
            option.unwrap().get_help().unwrap().to_string()
        };
        for name in ["chat", "cache-prompt"] {
            assert_eq!(help(name), help("generate"), "{name}");
        }
    }

    #[test]
    fn an_existing_path_is_no_strength() {
        let runs = TempDir::new();
        for name in ["lr=1e-4", "tales", "a=0.5=2", "b"] {
            std::fs::create_dir(runs.join(name)).unwrap();
        }
        let path = |name: &str| format!("{}/{name}", runs.as_str());
        for (given, folder, strength) in [
            ("lr=1e-4", "lr=1e-4", 1.0),
            ("lr=1e-4=0.5", "lr=1e-4", 0.5),
            ("lr=1e-4/", "lr=1e-4/", 1.0),
            ("tales=0.5", "tales", 0.5),
            ("tales=-1", "tales", -1.0),
            ("tales", "tales", 1.0),
            ("a=0.5=2", "a=0.5=2", 1.0),
            ("a=0.5=2=3", "a=0.5=2", 3.0),
            ("c=2", "c=2", 1.0),
        ] {
            let (given, folder) = (path(given), path(folder));
            let found = folder_and_strength(&given).unwrap();
            assert_eq!(found, (folder.as_str(), strength));
        }
        let error = folder_and_strength("").unwrap_err().to_string();
        assert_eq!(error, "--adapter: the path is empty");
        let given = path("b=50%");
        let error = folder_and_strength(&given).unwrap_err().to_string();
        assert!(error.ends_with("/b, found 50%"), "{error}");
    }
}
