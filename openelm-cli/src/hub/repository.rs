//! Names of repositories.

use std::{fmt, path::Path};

use clap::ValueEnum;

/// The revision without `@revision`.
pub(crate) const MAIN: &str = "main";

/// Kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RepoType {
    /// Model.
    Model,
    /// Data set.
    Dataset,
}

impl RepoType {
    /// The plural, as in `/api/models` and in the names of the cache's folders.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

impl fmt::Display for RepoType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        })
    }
}

/// A repository of the Hub at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    /// Kind.
    pub(crate) kind: RepoType,
    /// Name with its owner: `owner/name`.
    pub(crate) id: String,
    /// Branch, tag or commit.
    pub(crate) revision: String,
}

impl Repository {
    /// The repository that `text` names: `owner/name` or `owner/name@revision`; `None` for other
    /// texts.
    pub(crate) fn parse(text: &str, kind: RepoType) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (owner, name) = id.split_once('/')?;
        (is_name(owner) && is_name(name) && is_revision(revision)).then(|| Self {
            kind,
            id: id.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// The repository that a path names, if nothing exists at the path.
    pub(super) fn of_path(path: &Path, kind: RepoType) -> Option<Self> {
        let repository = Self::parse(path.to_str()?, kind)?;
        let found = path.symlink_metadata();
        let is_absent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        found
            .is_err_and(|error| is_absent(&error))
            .then_some(repository)
    }

    /// The repository at another revision; `None` if it is no name of one.
    pub(crate) fn at(self, revision: &str) -> Option<Self> {
        is_revision(revision).then(|| Self {
            revision: revision.to_owned(),
            ..self
        })
    }

    /// True if the revision is a whole commit, which cannot change.
    pub(super) fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }

    /// Path of the page for people, and of its files.
    pub(super) fn page(&self) -> String {
        match self.kind {
            RepoType::Model => format!("/{}", self.id),
            RepoType::Dataset => format!("/datasets/{}", self.id),
        }
    }

    /// Path of the description of the revision.
    pub(super) fn api(&self) -> String {
        self.api_action("revision")
    }

    /// Path of a request that changes the revision, such as `commit`.
    pub(super) fn api_action(&self, action: &str) -> String {
        let (kind, revision) = (self.kind.plural(), encoded(&self.revision, false));
        format!("/api/{kind}/{}/{action}/{revision}", self.id)
    }

    /// Path of a file at a commit.
    pub(super) fn file(&self, commit: &str, name: &str) -> String {
        format!("{}/resolve/{commit}/{}", self.page(), encoded(name, true))
    }

    /// Path of a file at the revision.
    pub(super) fn file_of_revision(&self, name: &str) -> String {
        self.file(&encoded(&self.revision, false), name)
    }

    /// Name of the folder in the cache.
    pub(super) fn folder_name(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.replace('/', "--"))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision == MAIN {
            return Ok(());
        }
        write!(f, "@{}", self.revision)
    }
}

/// The name of the repository whose snapshot in the cache is at `path`.
pub(crate) fn name_of_snapshot(path: &Path) -> Option<String> {
    let mut parts = path.iter().rev().skip(1).filter_map(|part| part.to_str());
    let (snapshots, folder) = (parts.next()?, parts.next()?);
    let id = folder
        .strip_prefix("models--")
        .filter(|_| snapshots == "snapshots")?;
    Some(id.replacen("--", "/", 1))
}

/// True for 40 hexadecimal digits in lower case.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// The rules of `huggingface_hub.utils.validate_repo_id` for an owner or a name.
fn is_name(word: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !word.is_empty()
        && word.len() <= 96
        && word.starts_with(is_edge)
        && word.ends_with(is_edge)
        && word.chars().all(allowed)
        && !word.contains("--")
        && !word.contains("..")
}

/// A branch, tag or commit, also as the path of a file in `refs/`.
fn is_revision(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    text.len() <= 255 && text.chars().all(allowed) && super::file_name::is_safe(text)
}

/// `text` with percent-encoding for a part of a URL's path, or for a path with `/`.
fn encoded(text: &str, is_path: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if is_plain || is_path && byte == b'/' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_the_name_of_its_repository() {
        let name = |path: &str| name_of_snapshot(Path::new(path));
        let path = "/c/hub/models--o--n.2/snapshots/0123";
        assert_eq!(name(path).as_deref(), Some("o/n.2"));
        for path in ["/a/b", "0123", "/snapshots/0123", "/c/models--o--n/0123"] {
            assert_eq!(name(path), None);
        }
    }

    #[test]
    fn names_of_repositories_are_recognised() {
        let parse = |text| Repository::parse(text, RepoType::Model);
        let found = parse("apple/OpenELM-270M-Instruct@refs/pr/1").unwrap();
        assert_eq!(found.to_string(), "apple/OpenELM-270M-Instruct@refs/pr/1");
        assert_eq!(
            found.api(),
            "/api/models/apple/OpenELM-270M-Instruct/revision/refs%2Fpr%2F1"
        );
        assert_eq!(
            found.file("abc", "a b/ü.json"),
            "/apple/OpenELM-270M-Instruct/resolve/abc/a%20b/%C3%BC.json"
        );
        assert_eq!(found.folder_name(), "models--apple--OpenELM-270M-Instruct");
        let data = Repository::parse("o/d", RepoType::Dataset).unwrap();
        assert_eq!(data.file("abc", "x"), "/datasets/o/d/resolve/abc/x");
        assert_eq!(data.to_string(), "o/d");
        for text in [
            "a", "a/b/c", "/a/b", "./a", "../a", "a/", "a/b@", "a/b@../c", "a/b@/c", "a--b/c",
            "a/b..c", "-a/b", "a/b.", "a/b c", "a/b@x y", "a/b@c d", "ä/b", "a/b@x\\y",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
