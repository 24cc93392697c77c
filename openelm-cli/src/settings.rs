//! Layered settings of a run: defaults, then a TOML file, then the command line.

use std::{collections::BTreeSet, fmt::LowerExp, marker::PhantomData, path::Path};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use openelm_core::text::{MAX_SETTINGS, read_text_file};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{corenet_yaml::CoreNetSettings, error::Error, given::Given};

/// The options of `T` given on the command line.
pub(crate) struct Layered<T> {
    given: ArgMatches,
    settings: PhantomData<T>,
}

impl<T: Args + DeserializeOwned + Default> Layered<T> {
    /// The given options, then those of the TOML file `file`, then the defaults; and the options
    /// that the file gives. The file uses the options' long names. An option of the command line
    /// also replaces the alternatives to it in the file.
    pub(crate) fn over(&self, file: Option<&Path>) -> Result<(T, Given), Error> {
        let Some(file) = file else {
            return Ok((self.onto(T::default())?, Given::default()));
        };
        let text = read_text_file(file, MAX_SETTINGS).map_err(|error| Error::Settings {
            place: file.display().to_string(),
            problem: error.to_string(),
        })?;
        let (settings, names) = self.over_text(&text).map_err(|problem| match problem {
            Problem::File(problem) => Error::Usage(format!("{}: {problem}", file.display())),
            Problem::CommandLine(error) => error,
        })?;
        Ok((settings, Given::in_file(file.to_owned(), names)))
    }

    /// Like [`over`](Self::over), for the settings that `file` has in CoreNet's form, if it does.
    pub(crate) fn over_either(
        &self,
        file: Option<&Path>,
        corenet: Option<&CoreNetSettings>,
    ) -> Result<(T, Given), Error> {
        let (Some(file), Some(corenet)) = (file, corenet) else {
            return self.over(file);
        };
        let read = self.over_table(corenet.table.clone());
        let (settings, names) = read.map_err(|problem| match problem {
            Problem::File(problem) => Error::Usage(format!("{}: {problem}", file.display())),
            Problem::CommandLine(error) => error,
        })?;
        Ok((settings, Given::in_file(file.to_owned(), names)))
    }

    /// The settings over the TOML text `text`, and the long names of the options in it.
    fn over_text(&self, text: &str) -> Result<(T, Vec<String>), Problem> {
        let described = |error: toml::de::Error| Problem::File(describe(text, &error));
        // The first parse has the places of errors, the second one lacks the replaced options.
        toml::from_str::<T>(text).map_err(described)?;
        self.over_table(toml::from_str(text).map_err(described)?)
    }

    /// The settings over those of `table`, and the long names of the options in it.
    fn over_table(&self, mut table: Table) -> Result<(T, Vec<String>), Problem> {
        let replaced = self.replaced();
        table.retain(|key, _| !replaced.contains(&long_name::<T>(key)));
        check_paths::<T>(&table).map_err(Problem::File)?;
        let names = table.iter().flat_map(|(key, value)| match value {
            Value::Table(inner) => inner.keys().map(|key| key.replace('_', "-")).collect(),
            // A switch that is off is not given.
            Value::Boolean(false) => Vec::new(),
            _ => vec![long_name::<T>(key)],
        });
        let names = names.collect();
        let settings: T = table
            .try_into()
            .map_err(|error: toml::de::Error| Problem::File(error.message().to_owned()))?;
        Ok((self.onto(settings).map_err(Problem::CommandLine)?, names))
    }

    /// The long names of the options that an option of the command line conflicts with.
    fn replaced(&self) -> BTreeSet<String> {
        let command = T::augment_args(Command::new("settings"));
        let given = |arg: &Arg| {
            let id = arg.get_id().as_str();
            let is_off = matches!(self.given.try_get_one::<bool>(id), Ok(Some(false)));
            self.given.contains_id(id) && !is_off
        };
        let mut replaced = BTreeSet::new();
        for arg in command.get_arguments() {
            for other in command.get_arg_conflicts_with(arg) {
                // A conflict is declared at one of the two options.
                for (one, another) in [(arg, other), (other, arg)] {
                    if given(one) && !given(another) {
                        replaced.extend(another.get_long().map(str::to_owned));
                    }
                }
            }
        }
        replaced
    }

    /// `settings` with the given options applied.
    fn onto(&self, mut settings: T) -> Result<T, Error> {
        settings
            .update_from_arg_matches(&self.given)
            .map_err(|error| Error::Usage(error.to_string()))?;
        Ok(settings)
    }
}

/// Refuses an empty path, as the command line does.
fn check_paths<T: Args>(table: &Table) -> Result<(), String> {
    let command = T::augment_args(Command::new("settings"));
    for arg in command.get_arguments() {
        let names = arg.get_value_names().unwrap_or_default();
        let is_path = |name: &str| ["FILE", "FILES", "FOLDER", "PATH", "PATH|REPO"].contains(&name);
        if !names.iter().any(|name| is_path(name)) {
            continue;
        }
        let given = table
            .iter()
            .find(|(key, _)| arg.get_long() == Some(&long_name::<T>(key)));
        let is_empty = |value: &Value| match value {
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.iter().any(|item| item.as_str() == Some("")),
            _ => false,
        };
        if let Some((key, _)) = given.filter(|(_, value)| is_empty(value)) {
            return Err(format!("{key}: the path is empty"));
        }
    }
    Ok(())
}

/// A problem of the file's text or of the command line.
enum Problem {
    File(String),
    CommandLine(Error),
}

impl<T: Args> FromArgMatches for Layered<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = matches.clone();
        let is_default = |id: &str| given.value_source(id) == Some(ValueSource::DefaultValue);
        let defaults: Vec<String> = given
            .ids()
            .map(|id| id.as_str().to_owned())
            .filter(|id| is_default(id))
            .collect();
        for id in defaults {
            // Only an unknown name is an error, and these names come from the matches.
            let _ = given.try_clear_id(&id);
        }
        Ok(Self {
            given,
            settings: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Args> Args for Layered<T> {
    fn augment_args(command: Command) -> Command {
        with_values::<T>(T::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        with_values::<T>(T::augment_args_for_update(command))
    }
}

/// Lets the switches of `T` take a value, as in `--test=false`, which overrides the file.
fn with_values<T: Args>(command: Command) -> Command {
    let own = T::augment_args(Command::new("settings"));
    let switches: Vec<_> = own
        .get_arguments()
        .filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue))
        .map(|arg| arg.get_id().clone())
        .collect();
    switches.into_iter().fold(command, |command, switch| {
        command.mut_arg(switch, |arg| {
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_name("BOOL")
                .hide_possible_values(true)
        })
    })
}

/// The long name of the option that a TOML file calls `key`, which may be a former name.
fn long_name<T: Args>(key: &str) -> String {
    let command = T::augment_args(Command::new("settings"));
    let has_name = |arg: &&Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        aliases.contains(&key)
    };
    let found = command.get_arguments().find(has_name);
    found.and_then(Arg::get_long).unwrap_or(key).to_owned()
}

/// The settings of an empty command line.
pub(crate) fn defaults<T: Args>() -> T {
    let matches = T::augment_args(Command::new("settings")).get_matches_from(["settings"]);
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// A small number as shown in help: `1e-5`.
pub(crate) fn exponent(number: impl LowerExp) -> String {
    format!("{number:e}")
}

/// A number of layers or batches as a flag value: -1 is all.
pub(crate) fn count_or_all(count: Option<usize>) -> i64 {
    count.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX))
}

/// A number of layers or batches from a flag value; `None` (all) for negative values.
pub(crate) fn all_or_count(flag: i64) -> Option<usize> {
    usize::try_from(flag).ok()
}

/// The text of `error` with the line and the key in `text`.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else {
        return error.message().to_owned();
    };
    let before = text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    // The value begins in the line of its key, except in a list over several lines.
    let lines = text.lines().take(line).collect::<Vec<_>>();
    let key = lines.iter().rev().find_map(|line| {
        let header = line
            .trim()
            .strip_prefix('[')
            .and_then(|line| line.split_once(']'));
        if let Some((name, _)) = header.filter(|_| !line.contains('=')) {
            return Some(name.trim_start_matches('['));
        }
        let (key, _) = line.split_once('=')?;
        let key = key.trim().trim_matches(['"', '\'']);
        let is_key = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        (!key.is_empty() && key.chars().all(is_key)).then_some(key)
    });
    let message = error.message();
    match key.filter(|key| !message.contains(&format!("`{key}`"))) {
        Some(key) => format!("line {line}: {key}: {message}"),
        None => format!("line {line}: {message}"),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Settings of a command line and a TOML file, for tests.

    use super::*;

    /// The settings of `flags` over a TOML text.
    pub(crate) fn settings<T>(flags: &[&str], toml: &str) -> T
    where
        T: Args + DeserializeOwned + Default,
    {
        let layered = Layered::<T>::from_arg_matches(&matches::<T>(flags)).unwrap();
        layered.over_text(toml).ok().unwrap().0
    }

    /// The settings of a TOML table.
    pub(crate) fn settings_of<T>(table: Table) -> T
    where
        T: Args + DeserializeOwned + Default,
    {
        let layered = Layered::<T>::from_arg_matches(&matches::<T>(&[])).unwrap();
        match layered.over_table(table) {
            Ok((settings, _)) => settings,
            Err(Problem::File(problem)) => panic!("{problem}"),
            Err(Problem::CommandLine(error)) => panic!("{error}"),
        }
    }

    /// The options that a command line and a TOML text give.
    pub(crate) fn given<T>(flags: &[&str], toml: &str) -> Given
    where
        T: Args + DeserializeOwned + Default,
    {
        let matches = matches::<T>(flags);
        let layered = Layered::<T>::from_arg_matches(&matches).unwrap();
        let (_, names) = layered.over_text(toml).ok().unwrap();
        let given = Given::from_arg_matches(&matches).unwrap();
        given.and(Given::in_file("settings.toml".into(), names))
    }

    fn matches<T: Args>(flags: &[&str]) -> ArgMatches {
        let command = Layered::<T>::augment_args(Command::new("settings"));
        let flags = ["settings"].iter().chain(flags);
        command.try_get_matches_from(flags).unwrap()
    }

    /// Checks that every option of `T` changes `record`, and in the same way on the command line
    /// and in a TOML file. `cases` holds each option's value and the flags it needs.
    pub(crate) fn every_option_changes<T>(
        cases: &[(&str, &str, &[&str])],
        record: impl Fn(T) -> String,
    ) where
        T: Args + DeserializeOwned + Default,
    {
        let command = T::augment_args(Command::new("settings"));
        for argument in command.get_arguments() {
            let name = argument.get_long().unwrap();
            let case = cases.iter().find(|(known, ..)| *known == name);
            let (_, value, beside) = case.unwrap_or_else(|| panic!("no case for --{name}"));
            let is_switch = !argument.get_action().takes_values();
            let flag = if is_switch {
                format!("--{name}")
            } else {
                format!("--{name}={value}")
            };
            let given = record(settings(&[*beside, &[&flag]].concat(), ""));
            assert_ne!(
                given,
                record(settings(beside, "")),
                "{flag} changes nothing"
            );
            let several = |count: clap::builder::ValueRange| count.max_values() > 1;
            let is_list = argument.get_value_delimiter().is_some()
                || argument.get_num_args().is_some_and(several);
            let is_bare = value.parse::<f64>().is_ok() || *value == "false";
            let value = match (is_switch, is_list, is_bare) {
                (true, ..) => "true".to_owned(),
                (_, true, false) => format!("[{value:?}]"),
                (_, true, true) => format!("[{value}]"),
                (.., true) => (*value).to_owned(),
                _ => format!("{value:?}"),
            };
            let is_architecture = ARCHITECTURE.contains(&name);
            let toml = if is_architecture {
                format!("[model]\n{} = {value}", name.replace('-', "_"))
            } else {
                format!("{name} = {value}")
            };
            assert_eq!(given, record(settings(beside, &toml)), "{toml}");
        }
    }

    /// Options under `[model]` in a TOML file.
    const ARCHITECTURE: [&str; 12] = [
        "preset",
        "num-transformer-layers",
        "model-dim",
        "head-dim",
        "num-gqa-groups",
        "qkv-multipliers",
        "ffn-multipliers",
        "ffn-dim-divisor",
        "vocab-size",
        "max-context-length",
        "rope-freq-constant",
        "share-input-output-layers",
    ];
}
