//! The entries of `data`: paths, and in a TOML file groups of a mixture.

use std::{fmt, path::PathBuf};

use clap::builder::TypedValueParser;
use openelm_core::corpus::CorpusGroup;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{choices::DocumentFormat, paths::Paths};

/// An entry of `data`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// An argument of the command line, or a path in a TOML file.
    Paths(Paths),
    /// A table `[[data]]` of a TOML file.
    Group(Group),
}

/// A group of files with a key, a format and a weight of its own.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Group {
    files: Vec<PathBuf>,
    text_key: Option<String>,
    format: Option<DocumentFormat>,
    weight: Option<f64>,
}

impl Data {
    /// The parser of an argument.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        Paths::parser().map(Self::Paths)
    }

    /// All paths of `data`.
    pub(super) fn paths(data: &[Self]) -> Vec<PathBuf> {
        let paths = data.iter().map(|entry| match entry {
            Self::Paths(paths) => Paths::all(std::slice::from_ref(paths)),
            Self::Group(group) => group.files.clone(),
        });
        paths.flatten().collect()
    }

    /// The paths without a group, and the groups; if there are groups, the paths are one of them,
    /// the first. `key` is the key of groups without their own.
    pub(super) fn groups(data: &[Self], key: &str) -> (Vec<PathBuf>, Vec<CorpusGroup>) {
        let plain = data.iter().filter_map(|entry| match entry {
            Self::Paths(paths) => Some(paths.clone()),
            Self::Group(_) => None,
        });
        let plain = Paths::all(&plain.collect::<Vec<_>>());
        let of = |files| CorpusGroup {
            text_key: key.to_owned(),
            ..CorpusGroup::new(files)
        };
        let groups = data.iter().filter_map(|entry| match entry {
            Self::Paths(_) => None,
            Self::Group(group) => Some(CorpusGroup {
                text_key: group.text_key.clone().unwrap_or_else(|| key.to_owned()),
                format: group.format.map(Into::into),
                weight: group.weight,
                ..of(group.files.clone())
            }),
        });
        let mut groups: Vec<CorpusGroup> = groups.collect();
        if groups.is_empty() {
            return (plain, groups);
        }
        if !plain.is_empty() {
            groups.insert(0, of(plain));
        }
        (Vec::new(), groups)
    }

    /// Replaces the paths by those that `local` gives for them.
    pub(super) fn replace<E>(
        data: &mut [Self],
        local: impl Fn(Vec<PathBuf>) -> Result<Vec<PathBuf>, E>,
    ) -> Result<(), E> {
        for entry in data {
            match entry {
                Self::Paths(paths) => {
                    *paths = Paths::from(local(Paths::all(std::slice::from_ref(paths)))?);
                }
                Self::Group(group) => group.files = local(std::mem::take(&mut group.files))?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Entry)
    }
}

struct Entry;

impl<'de> Visitor<'de> for Entry {
    type Value = Data;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a path or a table with files")
    }

    fn visit_str<E>(self, path: &str) -> Result<Data, E> {
        Ok(Data::Paths(PathBuf::from(path).into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Data, A::Error> {
        let group = Group::deserialize(MapAccessDeserializer::new(table))?;
        if group.files.iter().any(|path| path.as_os_str().is_empty()) {
            return Err(A::Error::custom("files: the path is empty"));
        }
        Ok(Data::Group(group))
    }
}
