//! The options that the user gave, and the refusal of options without effect.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use crate::error::Error;

/// The options given on the command line or in a TOML file, by their long names. As a field of a
/// command's arguments it must be the first, because clap removes the values of other fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(BTreeMap<String, Source>);

/// Place of a given option.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    CommandLine,
    File(PathBuf),
}

/// Options without effect: the condition, their long names, and the reason.
pub(crate) type Rule<'a> = (bool, &'a [&'a str], &'a str);

impl Given {
    /// The options `names` of a TOML file.
    pub(crate) fn in_file(file: PathBuf, names: impl IntoIterator<Item = String>) -> Self {
        let source = Source::File(file);
        Self(names.into_iter().map(|n| (n, source.clone())).collect())
    }

    /// These options and those of a TOML file.
    pub(crate) fn and(&self, mut file: Self) -> Self {
        file.0.extend(self.0.clone());
        file
    }

    /// True if the option was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// True if the option was given on the command line.
    pub(crate) fn on_command_line(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Source::CommandLine)
    }

    /// Refuses the first given option that a rule applies to.
    pub(crate) fn check(&self, rules: &[Rule<'_>]) -> Result<(), Error> {
        for (applies, names, reason) in rules {
            if *applies && let Some(name) = names.iter().find(|name| self.has(name)) {
                return Err(self.refusal(name, &format!("no effect {reason}")));
            }
        }
        Ok(())
    }

    /// The error for a given option.
    pub(crate) fn refusal(&self, name: &str, problem: &str) -> Error {
        Error::Usage(match self.0.get(name) {
            Some(Source::File(file)) => format!("{}: {name}: {problem}", file.display()),
            _ => format!("--{name}: {problem}"),
        })
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let ids = matches.ids().map(|id| id.as_str());
        let given = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        let named = given.map(|id| (id.replace('_', "-"), Source::CommandLine));
        Ok(Self(named.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_given_options_without_effect() {
        let command = Command::new("test").args([
            clap::Arg::new("lr_end")
                .long("lr-end")
                .default_value("0")
                .allow_negative_numbers(true),
            clap::Arg::new("rank").long("rank").default_value("8"),
        ]);
        let matches = command.get_matches_from(["test", "--lr-end", "0"]);
        let given = Given::from_arg_matches(&matches).unwrap();
        assert!(given.on_command_line("lr-end") && !given.has("rank"));
        let refused = |given: &Given, name| {
            let rules: [Rule<'_>; 2] = [(false, &["lr-end"], "never"), (true, &[name], "here")];
            given.check(&rules).map_err(|error| error.to_string())
        };
        assert_eq!(refused(&given, "rank"), Ok(()));
        let problem = "--lr-end: no effect here".to_owned();
        assert_eq!(refused(&given, "lr-end"), Err(problem.clone()));
        // The command line comes before the file.
        let names = ["rank".to_owned(), "lr-end".to_owned()];
        let both = given.and(Given::in_file("lora.toml".into(), names));
        assert_eq!(refused(&both, "lr-end"), Err(problem));
        let problem = "lora.toml: rank: no effect here".to_owned();
        assert_eq!(refused(&both, "rank"), Err(problem));
    }
}
