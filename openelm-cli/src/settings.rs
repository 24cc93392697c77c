//! Layered settings of a run: defaults, then a TOML file, then the command line.

use std::{fmt::LowerExp, marker::PhantomData, path::Path};

use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use openelm_core::text::{MAX_SETTINGS, read_text_file};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The options of `T` given on the command line.
pub(crate) struct Layered<T> {
    given: ArgMatches,
    settings: PhantomData<T>,
}

impl<T: Args + DeserializeOwned + Default> Layered<T> {
    /// The given options, then those of the TOML file `file`, then the defaults. The file uses the
    /// options' long names.
    pub(crate) fn over(&self, file: Option<&Path>) -> Result<T, Error> {
        self.onto(file.map(read).transpose()?.unwrap_or_default())
    }

    /// `settings` with the given options applied.
    fn onto(&self, mut settings: T) -> Result<T, Error> {
        settings
            .update_from_arg_matches(&self.given)
            .map_err(|error| Error::Usage(error.to_string()))?;
        Ok(settings)
    }
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
        T::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
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

/// Reads a TOML settings file.
fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let problem = |problem: String| Error::Settings {
        place: file.display().to_string(),
        problem,
    };
    let text = read_text_file(file, MAX_SETTINGS);
    let text = text.map_err(|error| problem(error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or_default();
            before.matches('\n').count() + 1
        });
        let place = place
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        problem(format!("{place}{}", error.message()))
    })
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
        let command = Layered::<T>::augment_args(Command::new("settings"));
        let flags = ["settings"].iter().chain(flags);
        let matches = command.try_get_matches_from(flags).unwrap();
        let given = Layered::<T>::from_arg_matches(&matches).unwrap();
        given.onto(toml::from_str(toml).unwrap()).unwrap()
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
